"""From a config entry to a local builder."""

import os
from pathlib import Path

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant

from .builds.local.builder import LocalBuilder
from .builds.local.environment import (
    build_environment,
    esphome_version,
    find_esphome,
)
from .builds.local.process import Limits
from .builds.local.settings import DEFAULT_LIMITS, LocalSettings
from .builds.models import JobKind
from .const import (
    CONF_COMPILE_IDLE_LIMIT,
    CONF_COMPILE_LIMIT,
    CONF_COMPILE_SLOTS,
    CONF_CONFIG_DIR,
    CONF_ESPHOME,
    CONF_UPLOAD_LIMIT,
    DOMAIN,
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
        esphome=entry.data[CONF_ESPHOME] or "esphome",
        cache_dir=cache_dir(hass, entry.entry_id),
        tools_dir=_tools_dir(hass),
        compile_slots=entry.options.get(CONF_COMPILE_SLOTS),
        limits=_limits(entry),
    )


def create_local_builder(hass: HomeAssistant, entry: ConfigEntry) -> LocalBuilder:
    """Return a builder with the entry's settings; nothing of it runs yet."""
    return LocalBuilder(local_settings(hass, entry))


async def async_test_esphome(hass: HomeAssistant, esphome: str) -> None:
    """Raise `EsphomeMissingError` or `EsphomeFailedError` unless ESPHome answers."""
    executable = await hass.async_add_executor_job(find_esphome, esphome)
    tools_dir = _tools_dir(hass)
    environment = build_environment(
        os.environ, data_dir=tools_dir / "data", tools_dir=tools_dir
    )
    await esphome_version(executable, environment)


def _tools_dir(hass: HomeAssistant) -> Path:
    return Path(hass.config.cache_path(DOMAIN)) / "tools"


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
