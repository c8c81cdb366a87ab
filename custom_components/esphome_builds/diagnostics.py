"""What helps to find out why a builder does not work; it holds no secrets.

Home Assistant hands out what an integration says of a device only for devices of its
own. Of configurations on the devices of the ESPHome integration, the diagnostics of the
builder tell the same.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from homeassistant.components.diagnostics import async_redact_data
from homeassistant.const import CONF_PASSWORD, CONF_USERNAME
from homeassistant.core import HomeAssistant
from homeassistant.helpers.device_registry import DeviceEntry

from .builds.builder import Builder
from .builds.findings import Finding
from .builds.models import BuilderKind, Job
from .const import CONF_KIND
from .coordinator import BuildConfigEntry, BuildCoordinator
from .devices import async_shows_updates, own_device_identifier
from .entity import CONFIGURATION_KEYS, async_find_entry
from .local import async_has_ccache, cache_dir, local_settings

_JOBS: Final = 50
_TO_REDACT: Final = frozenset({CONF_PASSWORD, CONF_USERNAME, "context_id", "user_id"})


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant, entry: BuildConfigEntry
) -> dict[str, Any]:
    """Return the settings and the state of a builder, with its newest jobs."""
    coordinator = entry.runtime_data
    builder = coordinator.builder
    jobs = list(builder.jobs.values())
    data = {
        "entry": {"data": dict(entry.data), "options": dict(entry.options)},
        "settings": _settings(hass, entry),
        "builder": builder.info.as_dict(),
        "findings": [_finding(finding) for finding in builder.findings],
        "disk_usage": asdict(builder.usage)["parts"] if builder.usage else None,
        "firmware": [
            kept for name in builder.configurations for kept in _firmware(builder, name)
        ],
        "configurations": [
            configuration.as_dict()
            for configuration in coordinator.builder.configurations.values()
        ],
        "entities": {
            name: _entities(coordinator, name) for name in builder.configurations
        },
        "job_count": Counter(job.status for job in jobs),
        "jobs": [_job(entry, job) for job in jobs[-_JOBS:]],
    }
    if entry.data[CONF_KIND] == BuilderKind.LOCAL:
        data["ccache"] = await async_has_ccache(hass, entry)
    return async_redact_data(data, _TO_REDACT)


async def async_get_device_diagnostics(
    hass: HomeAssistant, entry: BuildConfigEntry, device: DeviceEntry
) -> dict[str, Any]:
    """Return the state of a configuration with its jobs, or that of the builder."""
    for name in entry.runtime_data.builder.configurations:
        if own_device_identifier(entry.entry_id, name) in device.identifiers:
            return async_redact_data(_configuration(entry, name), _TO_REDACT)
    return await async_get_config_entry_diagnostics(hass, entry)


def _configuration(entry: BuildConfigEntry, name: str) -> dict[str, Any]:
    """Return what there is of one configuration."""
    coordinator = entry.runtime_data
    builder = coordinator.builder
    jobs = [job for job in builder.jobs.values() if job.configuration == name]
    return {
        "builder": builder.info.as_dict(),
        "configuration": builder.configurations[name].as_dict(),
        "entities": _entities(coordinator, name),
        "firmware": list(_firmware(builder, name)),
        "firmware_size": sum(kept.size for kept in builder.firmware_of(name)),
        "jobs": [_job(entry, job) for job in jobs[-_JOBS:]],
    }


def _entities(coordinator: BuildCoordinator, name: str) -> dict[str, Any]:
    """Return what there is of the entities of a configuration, and why not more.

    Where the ESPHome integration shows updates, too, our entity for that is disabled.
    """
    hass = coordinator.hass
    configuration = coordinator.builder.configurations[name]
    found: dict[str, Any] = {
        "updates_shown_by_esphome": async_shows_updates(hass, configuration.device_id)
    }
    for key in CONFIGURATION_KEYS:
        if entry := async_find_entry(coordinator, name, key):
            state = hass.states.get(entry.entity_id)
            found[key] = {
                "entity_id": entry.entity_id,
                "disabled_by": entry.disabled_by,
                "state": state and state.state,
            }
    return found


def _finding(finding: Finding) -> dict[str, Any]:
    """Return what stands in the way of jobs, and of which."""
    platforms = finding.platforms
    return {
        "obstacle": finding.obstacle,
        "severity": finding.severity,
        "facts": dict(finding.facts),
        "kinds": sorted(finding.kinds),
        "platforms": None if platforms is None else sorted(platforms),
    }


def _firmware(builder: Builder, configuration: str) -> Iterator[dict[str, Any]]:
    """Yield what is kept of a configuration."""
    for kept in builder.firmware_of(configuration):
        yield kept.as_dict()


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
