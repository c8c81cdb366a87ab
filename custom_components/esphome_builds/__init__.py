"""ESPHome Builds: run ESPHome firmware builds from Home Assistant."""

from collections.abc import Callable, Mapping
from functools import partial
import shutil
from typing import Final

from homeassistant.config_entries import (
    SIGNAL_CONFIG_ENTRY_CHANGED,
    ConfigEntry,
    ConfigEntryChange,
)
from homeassistant.const import EVENT_HOMEASSISTANT_STOP, Platform
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.exceptions import ConfigEntryNotReady
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.dispatcher import (
    async_dispatcher_connect,
    async_dispatcher_send,
)
from homeassistant.helpers.typing import ConfigType

from .builds.builder import Builder, BuilderUnavailableError
from .builds.models import BuilderKind
from .configurations import ConfigurationEntities
from .const import CONF_KIND, DOMAIN, SIGNAL_BUILDERS
from .coordinator import BuildConfigEntry, BuildCoordinator
from .device_builder import create_device_builder
from .entity import async_update_device
from .failures import async_delete_failures, async_track_failures
from .http import async_register_views
from .issues import async_delete_issues, async_track_issues
from .local import cache_dir, create_local_builder
from .services import async_setup_services
from .websocket import async_register_commands

CONFIG_SCHEMA = cv.config_entry_only_config_schema(DOMAIN)
PLATFORMS = [
    Platform.BINARY_SENSOR,
    Platform.BUTTON,
    Platform.EVENT,
    Platform.SENSOR,
    Platform.UPDATE,
]

_CREATE: Final[
    Mapping[BuilderKind, Callable[[HomeAssistant, ConfigEntry], Builder]]
] = {
    BuilderKind.LOCAL: create_local_builder,
    BuilderKind.DEVICE_BUILDER: create_device_builder,
}


async def async_setup(hass: HomeAssistant, _: ConfigType) -> bool:
    """Register what is there once, however many builders there are."""
    async_setup_services(hass)
    async_register_commands(hass)
    async_register_views(hass)

    @callback
    def _async_on_entry(_: ConfigEntryChange, entry: ConfigEntry) -> None:
        if entry.domain == DOMAIN:
            async_dispatcher_send(hass, SIGNAL_BUILDERS)

    # An entry counts as loaded only some time after it was set up.
    async_dispatcher_connect(hass, SIGNAL_CONFIG_ENTRY_CHANGED, _async_on_entry)
    return True


async def async_setup_entry(hass: HomeAssistant, entry: BuildConfigEntry) -> bool:
    """Set up a builder."""
    create = _CREATE[BuilderKind(entry.data[CONF_KIND])]
    coordinator = BuildCoordinator(hass, entry, create(hass, entry))
    try:
        await coordinator.async_start()
    except BuilderUnavailableError as err:
        raise ConfigEntryNotReady(
            translation_domain=DOMAIN,
            translation_key="builder_unavailable",
            translation_placeholders={"reason": str(err)},
        ) from err

    async def _async_on_stop(_: Event) -> None:
        await coordinator.async_stop()

    # Home Assistant does not unload entries when it stops.
    entry.async_on_unload(
        hass.bus.async_listen_once(EVENT_HOMEASSISTANT_STOP, _async_on_stop)
    )
    entry.async_on_unload(
        coordinator.async_add_listener(partial(async_update_device, coordinator))
    )
    entry.async_on_unload(async_track_issues(hass, coordinator))
    entry.async_on_unload(async_track_failures(hass, coordinator))
    entry.runtime_data = coordinator
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    entry.async_on_unload(ConfigurationEntities(hass, coordinator).async_start())
    coordinator.async_resume()
    return True


async def async_unload_entry(hass: HomeAssistant, entry: BuildConfigEntry) -> bool:
    """Stop a builder; its entities live to tell what that did to running jobs."""
    await entry.runtime_data.async_stop()
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)


async def async_remove_entry(hass: HomeAssistant, entry: BuildConfigEntry) -> None:
    """Delete build trees, logs and the list of jobs; the configurations stay."""
    async_delete_failures(hass, entry.entry_id)
    async_delete_issues(hass, entry.entry_id)
    folder = cache_dir(hass, entry.entry_id)
    await hass.async_add_executor_job(shutil.rmtree, folder, True)
