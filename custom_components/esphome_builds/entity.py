"""What the entities of a builder have in common."""

from collections.abc import Callable
from typing import Final, override

from homeassistant.const import CONF_URL, Platform
from homeassistant.core import callback
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.helpers.device_registry import DeviceEntryType, DeviceInfo
from homeassistant.helpers.entity import Entity, EntityDescription
from homeassistant.helpers.update_coordinator import CoordinatorEntity

from .builds.models import BuilderState, Configuration
from .const import DOMAIN
from .coordinator import BuildCoordinator
from .devices import own_device_identifier

CONFIGURATION_KEYS: Final = {
    "build": Platform.EVENT,
    "compile": Platform.BUTTON,
    "firmware": Platform.UPDATE,
    "install": Platform.BUTTON,
    "last_build": Platform.SENSOR,
    "pending_changes": Platform.BINARY_SENSOR,
}
"""What each configuration has, and the platform it is of."""


class BuilderEntity(CoordinatorEntity[BuildCoordinator]):
    """An entity of a builder."""

    _attr_has_entity_name = True

    def __init__(
        self, coordinator: BuildCoordinator, description: EntityDescription
    ) -> None:
        """Belong to the builder's device."""
        super().__init__(coordinator)
        self.entity_description = description
        self._attr_unique_id = _unique_id(coordinator, description)
        self._attr_device_info = _device_info(coordinator)


class BuilderStateEntity(BuilderEntity):
    """An entity that knows nothing while the builder is unavailable."""

    @property
    @override
    def available(self) -> bool:
        """Return whether the builder is there."""
        state = self.coordinator.data.builder.state
        return super().available and state is not BuilderState.UNAVAILABLE


class ConfigurationEntity(Entity):
    """An entity of a configuration, on the page of its device.

    That is the device of Home Assistant's ESPHome integration, or one of our own as
    long as that knows none.
    """

    _attr_has_entity_name = True
    _attr_should_poll = False

    def __init__(
        self,
        coordinator: BuildCoordinator,
        configuration: Configuration,
        description: EntityDescription,
    ) -> None:
        """Belong to a configuration that there is."""
        self.coordinator = coordinator
        self.entity_description = description
        self._name = configuration.configuration
        self._stop_listening: Callable[[], None] | None = None
        self._attr_unique_id = configuration_unique_id(
            coordinator.config_entry.entry_id, self._name, description.key
        )
        if configuration.device_id is not None:
            registry = dr.async_get(coordinator.hass)
            self.device_entry = registry.async_get(configuration.device_id)
        if self.device_entry is None:
            self._attr_device_info = configuration_device_info(
                coordinator, configuration
            )

    @property
    def configuration(self) -> Configuration | None:
        """Return the configuration as it is now, None when it is gone."""
        return self.coordinator.builder.configurations.get(self._name)

    @property
    @override
    def available(self) -> bool:
        """Return whether the builder and the configuration are there."""
        state = self.coordinator.data.builder.state
        return state is not BuilderState.UNAVAILABLE and self.configuration is not None

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the configuration."""
        await super().async_added_to_hass()
        self._async_listen()
        self.async_on_remove(self._async_ignore)

    @callback
    def async_rename(self, configuration: str) -> None:
        """Be of the same configuration, whose file has another name now."""
        self._name = configuration
        self._attr_unique_id = configuration_unique_id(
            self.coordinator.config_entry.entry_id,
            configuration,
            self.entity_description.key,
        )
        if self._stop_listening is not None:
            self._async_ignore()
            self._async_listen()

    @callback
    def _async_listen(self) -> None:
        self._stop_listening = self.coordinator.async_listen_to_configuration(
            self._name, self._async_on_change
        )

    @callback
    def _async_ignore(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None

    @callback
    def _async_on_change(self) -> None:
        """Show the configuration, and its jobs, as they are now."""
        self.async_write_ha_state()


def configuration_unique_id(entry_id: str, configuration: str, key: str) -> str:
    """Return the unique id of an entity of a configuration of a builder."""
    return f"{entry_id}_{configuration}_{key}"


@callback
def async_find_entry(
    coordinator: BuildCoordinator, configuration: str, key: str
) -> er.RegistryEntry | None:
    """Return what is registered of an entity of a configuration."""
    registry = er.async_get(coordinator.hass)
    unique_id = configuration_unique_id(
        coordinator.config_entry.entry_id, configuration, key
    )
    platform = CONFIGURATION_KEYS[key]
    entity_id = registry.async_get_entity_id(platform, DOMAIN, unique_id)
    return registry.async_get(entity_id) if entity_id else None


@callback
def configuration_device_info(
    coordinator: BuildCoordinator, configuration: Configuration
) -> DeviceInfo:
    """Return the device of our own for a configuration."""
    entry_id = coordinator.config_entry.entry_id
    builder = async_builder_device(coordinator)
    return DeviceInfo(
        identifiers={own_device_identifier(entry_id, configuration.configuration)},
        manufacturer="ESPHome",
        model=configuration.platform,
        name=configuration.friendly_name
        or configuration.name
        or configuration.configuration,
        suggested_area=configuration.area,
        sw_version=configuration.deployed_version,
        via_device_id=builder.id,
    )


@callback
def async_update_device(coordinator: BuildCoordinator) -> None:
    """Show on a builder's device which ESPHome it runs, which is found out later."""
    async_builder_device(coordinator)


@callback
def async_builder_device(coordinator: BuildCoordinator) -> dr.DeviceEntry:
    """Return the device of a builder, as it is now."""
    return dr.async_get(coordinator.hass).async_get_or_create(
        config_entry_id=coordinator.config_entry.entry_id, **_device_info(coordinator)
    )


@callback
def async_forget_entity(
    coordinator: BuildCoordinator, platform: Platform, description: EntityDescription
) -> None:
    """Remove an entity that a builder had when it was set up in another way."""
    registry = er.async_get(coordinator.hass)
    unique_id = _unique_id(coordinator, description)
    if entity_id := registry.async_get_entity_id(platform, DOMAIN, unique_id):
        registry.async_remove(entity_id)


def _unique_id(coordinator: BuildCoordinator, description: EntityDescription) -> str:
    return f"{coordinator.config_entry.entry_id}_{description.key}"


def _device_info(coordinator: BuildCoordinator) -> DeviceInfo:
    builder = coordinator.data.builder
    return DeviceInfo(
        # A server has a page of its own.
        configuration_url=coordinator.config_entry.data.get(CONF_URL),
        entry_type=DeviceEntryType.SERVICE,
        identifiers={(DOMAIN, builder.entry_id)},
        manufacturer="ESPHome",
        name=f"ESPHome Builds ({builder.title})",
        sw_version=builder.esphome_version,
    )
