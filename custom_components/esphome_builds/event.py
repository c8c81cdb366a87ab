"""The event entities of a builder and its configurations."""

from typing import override

from homeassistant.components.event import EventEntity, EventEntityDescription
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .builds.models import Job
from .const import (
    ATTR_CAUSE,
    ATTR_CONFIGURATION,
    ATTR_DURATION,
    ATTR_JOB_ID,
    ATTR_KIND,
    ATTR_MESSAGE,
)
from .coordinator import STEPS, BuildConfigEntry, BuildCoordinator, job_context
from .entity import BuilderEntity, ConfigurationEntity

PARALLEL_UPDATES = 0

BUILDS = EventEntityDescription(
    key="builds", translation_key="builds", event_types=list(STEPS.values())
)

BUILD = EventEntityDescription(
    key="build", translation_key="build", event_types=list(STEPS.values())
)


async def async_setup_entry(
    _: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the event entities of a builder and its configurations."""
    coordinator = entry.runtime_data
    async_add_entities([BuildsEvent(coordinator, BUILDS)])
    coordinator.async_add_for_configurations(
        async_add_entities,
        lambda configuration: [BuildEvent(coordinator, configuration, BUILD)],
    )


class _StepsEvent(EventEntity):
    """Tells steps of jobs, also while the builder is unavailable."""

    coordinator: BuildCoordinator

    # They are others for each job, so that no row of attributes would serve twice.
    _unrecorded_attributes = frozenset({ATTR_DURATION, ATTR_JOB_ID, ATTR_MESSAGE})

    @override
    async def async_added_to_hass(self) -> None:
        """Listen to the builder's jobs."""
        await super().async_added_to_hass()
        self.async_on_remove(
            self.coordinator.async_listen_to_steps(self._async_on_step)
        )

    @callback
    def _async_on_step(self, step: str, job: Job) -> None:
        """Show a step at once, since the next one may come in this turn of the loop."""
        self._trigger_event(
            step,
            {
                ATTR_JOB_ID: job.job_id,
                # An installation of ESPHome belongs to none.
                ATTR_CONFIGURATION: job.configuration or None,
                ATTR_KIND: job.kind,
                ATTR_CAUSE: job.cause,
                ATTR_MESSAGE: job.message,
                ATTR_DURATION: job.duration,
            },
        )
        self.async_set_context(job_context(job))
        self.async_write_ha_state()


class BuildsEvent(BuilderEntity, _StepsEvent):
    """Tells each step of each job of a builder."""


class BuildEvent(ConfigurationEntity, _StepsEvent):
    """Tells each step of each job of one configuration."""

    @property
    @override
    def available(self) -> bool:
        """Return whether the configuration is there."""
        return self.configuration is not None

    @callback
    @override
    def _async_on_step(self, step: str, job: Job) -> None:
        """Show a step of a job of this configuration."""
        if job.configuration == self._name:
            super()._async_on_step(step, job)
