"""Sensors of a builder and its configurations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, override

from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import EntityCategory, UnitOfInformation, UnitOfTime
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.typing import StateType

from .builds.models import BuilderKind, BuilderState, Job, JobKind, JobStatus
from .const import ATTR_CAUSE, ATTR_CONFIGURATION, ATTR_JOB_ID, ATTR_KIND
from .coordinator import BuildConfigEntry, BuildData
from .entity import BuilderEntity, BuilderStateEntity, ConfigurationEntity

PARALLEL_UPDATES = 0

_WORK = {
    JobKind.UPLOAD: "uploading",
    JobKind.COMPILE: "compiling",
    JobKind.CLEAN: "compiling",
    JobKind.VALIDATE: "validating",
    JobKind.INSTALL_ESPHOME: "installing",
}
"""What a builder is doing while it runs jobs; the first of several counts."""

_IDLE = "idle"
_UNAVAILABLE = BuilderState.UNAVAILABLE.value


def _status(data: BuildData) -> str:
    if data.builder.state is BuilderState.UNAVAILABLE:
        return _UNAVAILABLE
    return next((word for kind, word in _WORK.items() if kind in data.running), _IDLE)


def _last_build(data: BuildData) -> dict[str, Any] | None:
    if (job := data.last_job) is None:
        return None
    return {
        ATTR_JOB_ID: job.job_id,
        ATTR_CONFIGURATION: job.configuration,
        ATTR_KIND: job.kind,
        ATTR_CAUSE: job.cause,
    }


@dataclass(frozen=True, kw_only=True)
class BuilderSensorDescription(SensorEntityDescription):
    """A sensor, and what it shows."""

    attributes_fn: Callable[[BuildData], dict[str, Any] | None] = lambda _: None
    value_fn: Callable[[BuildData], StateType]


STATUS = BuilderSensorDescription(
    key="status",
    translation_key="status",
    device_class=SensorDeviceClass.ENUM,
    options=[
        _IDLE,
        "installing",
        "validating",
        "compiling",
        "uploading",
        _UNAVAILABLE,
    ],
    value_fn=_status,
)
SENSORS = (
    BuilderSensorDescription(
        key="queued_jobs",
        translation_key="queued_jobs",
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda data: data.builder.queued,
    ),
    BuilderSensorDescription(
        key="running_jobs",
        translation_key="running_jobs",
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda data: data.builder.running,
    ),
    BuilderSensorDescription(
        key="last_build",
        translation_key="last_build",
        device_class=SensorDeviceClass.ENUM,
        options=[status.value for status in JobStatus if status.ended],
        attributes_fn=_last_build,
        value_fn=lambda data: data.last_job.status if data.last_job else None,
    ),
    BuilderSensorDescription(
        key="last_build_duration",
        translation_key="last_build_duration",
        device_class=SensorDeviceClass.DURATION,
        native_unit_of_measurement=UnitOfTime.SECONDS,
        suggested_display_precision=0,
        value_fn=lambda data: data.last_job.duration if data.last_job else None,
    ),
    BuilderSensorDescription(
        key="esphome_version",
        translation_key="esphome_version",
        entity_category=EntityCategory.DIAGNOSTIC,
        value_fn=lambda data: data.builder.esphome_version,
    ),
)
DISK_USAGE = BuilderSensorDescription(
    key="disk_usage",
    translation_key="disk_usage",
    device_class=SensorDeviceClass.DATA_SIZE,
    entity_category=EntityCategory.DIAGNOSTIC,
    native_unit_of_measurement=UnitOfInformation.BYTES,
    suggested_display_precision=1,
    suggested_unit_of_measurement=UnitOfInformation.GIBIBYTES,
    state_class=SensorStateClass.MEASUREMENT,
    attributes_fn=lambda data: dict(data.disk_parts),
    value_fn=lambda data: data.builder.disk_usage,
)
"""What all files of a local builder take."""
LAST_BUILD = SensorEntityDescription(
    key="last_build",
    translation_key="last_build",
    device_class=SensorDeviceClass.ENUM,
    entity_category=EntityCategory.DIAGNOSTIC,
    options=[status.value for status in JobStatus if status.ended],
)
"""How the last job of a configuration ended."""


async def async_setup_entry(
    _: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the sensors of a builder and its configurations."""
    coordinator = entry.runtime_data
    descriptions = list(SENSORS)
    if coordinator.data.builder.kind is BuilderKind.LOCAL:
        # The disk of a server is not ours to look at.
        descriptions.append(DISK_USAGE)
    async_add_entities(
        [
            StatusSensor(coordinator, STATUS),
            *(BuilderSensor(coordinator, description) for description in descriptions),
        ]
    )
    coordinator.async_add_for_configurations(
        async_add_entities,
        lambda configuration: [
            ConfigurationBuildSensor(coordinator, configuration, LAST_BUILD)
        ],
    )


class _DescribedSensor(BuilderEntity, SensorEntity):
    """Shows what its description takes from the builder's data."""

    entity_description: BuilderSensorDescription
    # It is another for each job, so that no row of attributes would serve twice.
    _unrecorded_attributes = frozenset({ATTR_JOB_ID})

    @property
    @override
    def native_value(self) -> StateType:
        """Return the value."""
        return self.entity_description.value_fn(self.coordinator.data)

    @property
    @override
    def extra_state_attributes(self) -> dict[str, Any] | None:
        """Return what explains the value."""
        return self.entity_description.attributes_fn(self.coordinator.data)


class StatusSensor(_DescribedSensor):
    """Tells by its value when the builder is unavailable."""


class BuilderSensor(BuilderStateEntity, _DescribedSensor):
    """Tells something about a builder that is there."""


class ConfigurationBuildSensor(ConfigurationEntity, SensorEntity):
    """Tells how the last job of a configuration ended, and why."""

    _unrecorded_attributes = frozenset({ATTR_JOB_ID})

    @property
    @override
    def native_value(self) -> StateType:
        """Return the status."""
        return job.status if (job := self._job) else None

    @property
    @override
    def extra_state_attributes(self) -> dict[str, Any] | None:
        """Return which job it was, and what went wrong."""
        if (job := self._job) is None:
            return None
        return {ATTR_JOB_ID: job.job_id, ATTR_KIND: job.kind, ATTR_CAUSE: job.cause}

    @property
    def _job(self) -> Job | None:
        configuration = self.configuration
        if configuration is None or configuration.last_job_id is None:
            return None
        return self.coordinator.builder.jobs.get(configuration.last_job_id)
