"""Binary sensors of a builder."""

from typing import override

from homeassistant.components.binary_sensor import (
    BinarySensorDeviceClass,
    BinarySensorEntity,
    BinarySensorEntityDescription,
)
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import BuildConfigEntry
from .entity import BuilderStateEntity

PARALLEL_UPDATES = 0

BUILDING = BinarySensorEntityDescription(
    key="building",
    translation_key="building",
    device_class=BinarySensorDeviceClass.RUNNING,
)


async def async_setup_entry(
    _: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the binary sensor of a builder."""
    async_add_entities([BuildingSensor(entry.runtime_data, BUILDING)])


class BuildingSensor(BuilderStateEntity, BinarySensorEntity):
    """On while the builder runs a job of any kind."""

    @property
    @override
    def is_on(self) -> bool:
        """Return whether a job runs."""
        return bool(self.coordinator.data.running)
