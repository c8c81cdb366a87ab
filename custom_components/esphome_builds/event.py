"""The event entity of a builder."""

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
from .coordinator import STEPS, BuildConfigEntry, job_context
from .entity import BuilderEntity

PARALLEL_UPDATES = 0

BUILDS = EventEntityDescription(
    key="builds", translation_key="builds", event_types=list(STEPS.values())
)


async def async_setup_entry(
    _: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the event entity of a builder."""
    async_add_entities([BuildsEvent(entry.runtime_data, BUILDS)])


class BuildsEvent(BuilderEntity, EventEntity):
    """Tells each step of each job, also while the builder is unavailable."""

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
