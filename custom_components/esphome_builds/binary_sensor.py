"""Binary sensors of a builder and its configurations."""

from typing import override

from homeassistant.components.binary_sensor import (
    BinarySensorDeviceClass,
    BinarySensorEntity,
    BinarySensorEntityDescription,
)
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import BuildConfigEntry
from .entity import BuilderStateEntity, ConfigurationEntity

PARALLEL_UPDATES = 0

BUILDING = BinarySensorEntityDescription(
    key="building",
    translation_key="building",
    device_class=BinarySensorDeviceClass.RUNNING,
)

PENDING_CHANGES = BinarySensorEntityDescription(
    key="pending_changes",
    translation_key="pending_changes",
    entity_category=EntityCategory.DIAGNOSTIC,
)


async def async_setup_entry(
    _: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the binary sensors of a builder and its configurations."""
    coordinator = entry.runtime_data
    async_add_entities([BuildingSensor(coordinator, BUILDING)])
    coordinator.async_add_for_configurations(
        async_add_entities,
        lambda configuration: [
            PendingChangesSensor(coordinator, configuration, PENDING_CHANGES)
        ],
    )


class BuildingSensor(BuilderStateEntity, BinarySensorEntity):
    """On while the builder runs a job of any kind."""

    @property
    @override
    def is_on(self) -> bool:
        """Return whether a job runs."""
        return bool(self.coordinator.data.running)


class PendingChangesSensor(ConfigurationEntity, BinarySensorEntity):
    """On while a configuration is not what its device runs."""

    @property
    @override
    def is_on(self) -> bool | None:
        """Return whether there is something to install, None where nobody can tell."""
        configuration = self.configuration
        return configuration.pending_changes if configuration else None
