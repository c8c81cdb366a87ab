"""Conditions for automations; `docs/automations.md` describes them for users."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Unpack, cast, override

from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback
from homeassistant.helpers.condition import Condition
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.typing import ConfigType

from .builders import async_coordinators
from .builds.models import Event, JobEvent, JobStatus
from .const import SIGNAL_BUILDERS, SIGNAL_EVENT
from .selection import SELECTION_SCHEMA, JobSelection

if TYPE_CHECKING:
    from homeassistant.helpers.condition import ConditionCheckParams, ConditionConfig


class IsBuildingCondition(Condition):
    """Is true while a job runs that is meant; one that is queued does not count."""

    @override
    @classmethod
    async def async_validate_config(
        cls, hass: HomeAssistant, config: ConfigType
    ) -> ConfigType:
        """Validate target and options."""
        return cast("ConfigType", SELECTION_SCHEMA(config))

    def __init__(self, hass: HomeAssistant, config: ConditionConfig) -> None:
        """Prepare."""
        super().__init__(hass, config)
        self._selection = JobSelection(hass, config.target, config.options)

    @property
    @override
    def needs_polling(self) -> bool:
        """Return whether it can change without a job: devices move, labels change."""
        return self._selection.has_target

    @override
    async def _async_track_changes(self, action: Callable[[], None]) -> CALLBACK_TYPE:
        """Call the action at each step of a job, and when builders come and go."""

        @callback
        def _async_on_event(_: str, event: Event) -> None:
            if isinstance(event, JobEvent) and event.status_changed:
                action()

        stops = (
            async_dispatcher_connect(self._hass, SIGNAL_BUILDERS, action),
            async_dispatcher_connect(self._hass, SIGNAL_EVENT, _async_on_event),
        )

        @callback
        def _async_stop() -> None:
            for stop in stops:
                stop()

        return _async_stop

    @override
    def _async_check(self, **kwargs: Unpack[ConditionCheckParams]) -> bool:
        """Return whether such a job runs now."""
        return any(
            job.status is JobStatus.RUNNING
            and self._selection.matches(job.entry_id, job.configuration, job.kind)
            for coordinator in async_coordinators(self._hass)
            for job in coordinator.builder.jobs.values()
        )


CONDITIONS: Final[dict[str, type[Condition]]] = {"is_building": IsBuildingCondition}


async def async_get_conditions(_: HomeAssistant) -> dict[str, type[Condition]]:
    """Return the conditions by their names."""
    return CONDITIONS
