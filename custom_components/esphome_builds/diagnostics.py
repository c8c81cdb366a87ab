"""What helps to find out why a builder does not work; it holds no secrets."""

from collections import Counter
from dataclasses import asdict
from typing import Any, Final

from homeassistant.components.diagnostics import async_redact_data
from homeassistant.const import CONF_PASSWORD, CONF_USERNAME
from homeassistant.core import HomeAssistant

from .builds.models import BuilderKind, Job
from .const import CONF_KIND
from .coordinator import BuildConfigEntry
from .local import cache_dir, local_settings

_JOBS: Final = 50
_TO_REDACT: Final = frozenset({CONF_PASSWORD, CONF_USERNAME, "context_id", "user_id"})


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant, entry: BuildConfigEntry
) -> dict[str, Any]:
    """Return the settings and the state of a builder, with its newest jobs."""
    coordinator = entry.runtime_data
    jobs = list(coordinator.builder.jobs.values())
    data = {
        "entry": {"data": dict(entry.data), "options": dict(entry.options)},
        "settings": _settings(hass, entry),
        "builder": coordinator.builder.info.as_dict(),
        "configurations": [
            configuration.as_dict()
            for configuration in coordinator.configurations.values()
        ],
        "job_count": Counter(job.status for job in jobs),
        "jobs": [_job(entry, job) for job in jobs[-_JOBS:]],
    }
    return async_redact_data(data, _TO_REDACT)


def _job(entry: BuildConfigEntry, job: Job) -> dict[str, Any]:
    """Return a job, without what may hold a secret.

    Secrets of a server are not known here, so its words are not free of them.
    """
    told = job.as_dict()
    if entry.data[CONF_KIND] == BuilderKind.LOCAL:
        return told
    return async_redact_data(told, {"message"})


def _settings(hass: HomeAssistant, entry: BuildConfigEntry) -> dict[str, Any]:
    """Return what a local builder's entry and options come to."""
    if entry.data[CONF_KIND] != BuilderKind.LOCAL:
        return {"cache_dir": str(cache_dir(hass, entry.entry_id))}
    settings = local_settings(hass, entry)
    return {
        "cache_dir": str(settings.cache_dir),
        "tools_dir": str(settings.tools_dir),
        "limits": {kind: asdict(limit) for kind, limit in settings.limits.items()},
    }
