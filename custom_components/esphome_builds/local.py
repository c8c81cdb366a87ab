"""From a config entry to a local builder."""

from functools import partial
import os
from pathlib import Path
import shutil
from typing import Final

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant

from .builds.devices import DEVICE_WAIT_SECONDS
from .builds.findings import Finding, Obstacle, Severity
from .builds.local.builder import LocalBuilder
from .builds.local.environment import (
    build_environment,
    esphome_version,
    find_esphome,
)
from .builds.local.host import look
from .builds.local.preflight import findings
from .builds.local.process import Limits
from .builds.local.settings import DEFAULT_LIMITS, LocalSettings
from .builds.local.uv import latest_version
from .builds.models import JobKind
from .const import (
    CONF_BETAS,
    CONF_BUILD_LIMIT,
    CONF_COMPILE_IDLE_LIMIT,
    CONF_COMPILE_LIMIT,
    CONF_COMPILE_SLOTS,
    CONF_CONFIG_DIR,
    CONF_DEVICE_WAIT,
    CONF_ESPHOME,
    CONF_UPLOAD_LIMIT,
    DOMAIN,
)
from .devices import EsphomeDevices

DEFAULT_BUILD_LIMIT: Final = 20
"""What all build trees of a builder may take if nobody says otherwise, in GiB."""

_IMPOSSIBLE: Final = frozenset(
    {
        # ESPHome itself could be installed, but nothing that compiles for a device.
        Obstacle.MUSL,
        Obstacle.NOT_EXECUTABLE,
        Obstacle.NOT_WRITABLE,
        Obstacle.PYTHON_OLD,
    }
)


def cache_dir(hass: HomeAssistant, entry_id: str) -> Path:
    """Return the folder of a builder: build trees, logs and the list of jobs.

    It survives updates of Home Assistant and is not part of its backups.
    """
    return Path(hass.config.cache_path(DOMAIN)) / entry_id


def local_settings(hass: HomeAssistant, entry: ConfigEntry) -> LocalSettings:
    """Return what an entry and its options come to."""
    return LocalSettings(
        entry_id=entry.entry_id,
        title=entry.title,
        config_dir=Path(entry.data[CONF_CONFIG_DIR]),
        esphome=entry.data[CONF_ESPHOME],
        cache_dir=cache_dir(hass, entry.entry_id),
        tools_dir=_tools_dir(hass),
        compile_slots=entry.options.get(CONF_COMPILE_SLOTS),
        build_limit=_build_limit(entry),
        device_wait=device_wait(entry),
        limits=_limits(entry),
    )


def create_local_builder(hass: HomeAssistant, entry: ConfigEntry) -> LocalBuilder:
    """Return a builder with the entry's settings; nothing of it runs yet."""
    return LocalBuilder(local_settings(hass, entry), EsphomeDevices(hass))


async def async_test_esphome(hass: HomeAssistant, esphome: str) -> None:
    """Raise `EsphomeMissingError` or `EsphomeFailedError` unless ESPHome answers."""
    executable = await hass.async_add_executor_job(find_esphome, esphome)
    await esphome_version(executable, _trial_environment(hass))


async def async_obstacle(hass: HomeAssistant) -> Finding | None:
    """Return what makes it impossible that a builder installs ESPHome, if anything."""
    folder = _tools_dir(hass).parent
    host = await hass.async_add_executor_job(look, folder, _trial_environment(hass))
    found = findings(host, esphome_version=None, managed=True)
    return next(
        (
            finding
            for finding in found
            if finding.severity is Severity.REFUSE and finding.obstacle in _IMPOSSIBLE
        ),
        None,
    )


async def async_latest_esphome(hass: HomeAssistant, entry: ConfigEntry) -> str:
    """Return the latest ESPHome that an entry's builder could install.

    Raises `LatestUnknownError`.
    """
    return await latest_version(
        local_settings(hass, entry).python,
        os.environ,
        betas=entry.options.get(CONF_BETAS, False),
    )


async def async_has_ccache(hass: HomeAssistant, entry: ConfigEntry) -> bool:
    """Return whether builds find ccache, which makes the same only once."""
    path = local_settings(hass, entry).environment.get("PATH")
    found = await hass.async_add_executor_job(
        partial(shutil.which, path=path), "ccache"
    )
    return found is not None


def _tools_dir(hass: HomeAssistant) -> Path:
    return Path(hass.config.cache_path(DOMAIN)) / "tools"


def _trial_environment(hass: HomeAssistant) -> dict[str, str]:
    """Return the environment of processes before there is a builder."""
    tools_dir = _tools_dir(hass)
    return build_environment(
        os.environ, data_dir=tools_dir / "data", tools_dir=tools_dir
    )


def device_wait(entry: ConfigEntry) -> float:
    """Return how many seconds uploads wait for a device; the option is in hours."""
    hours: float | None = entry.options.get(CONF_DEVICE_WAIT)
    return DEVICE_WAIT_SECONDS if hours is None else hours * 3600


def _build_limit(entry: ConfigEntry) -> int | None:
    """Return how many bytes build trees may take; the option is in GiB, or 0."""
    limit: int = entry.options.get(CONF_BUILD_LIMIT, DEFAULT_BUILD_LIMIT)
    return limit * 1024**3 or None


def _limits(entry: ConfigEntry) -> dict[JobKind, Limits]:
    """Return the time limits; the options are in minutes."""
    limits = dict(DEFAULT_LIMITS)
    compiling, uploading = limits[JobKind.COMPILE], limits[JobKind.UPLOAD]
    limits[JobKind.COMPILE] = Limits(
        total=_seconds(entry, CONF_COMPILE_LIMIT, compiling.total),
        idle=_seconds(entry, CONF_COMPILE_IDLE_LIMIT, compiling.idle),
    )
    limits[JobKind.UPLOAD] = Limits(
        total=_seconds(entry, CONF_UPLOAD_LIMIT, uploading.total), idle=uploading.idle
    )
    return limits


def _seconds(entry: ConfigEntry, option: str, default: float | None) -> float | None:
    minutes: float | None = entry.options.get(option)
    return default if minutes is None else minutes * 60
