"""What the entities of a builder have in common."""

from typing import override

from homeassistant.const import CONF_URL, Platform
from homeassistant.core import callback
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.helpers.device_registry import DeviceEntryType, DeviceInfo
from homeassistant.helpers.entity import EntityDescription
from homeassistant.helpers.update_coordinator import CoordinatorEntity

from .builds.models import BuilderState
from .const import DOMAIN
from .coordinator import BuildCoordinator


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


@callback
def async_update_device(coordinator: BuildCoordinator) -> None:
    """Show on a builder's device which ESPHome it runs, which is found out later."""
    dr.async_get(coordinator.hass).async_get_or_create(
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
