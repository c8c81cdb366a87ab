"""Triggers for automations; `docs/automations.md` describes them for users."""

from typing import TYPE_CHECKING, Any, ClassVar, Final, cast, override

from homeassistant.core import CALLBACK_TYPE, Event, HomeAssistant, callback
from homeassistant.helpers.trigger import Trigger, TriggerActionRunner, TriggerConfig
from homeassistant.helpers.typing import ConfigType

from .builds.models import JobStatus
from .const import EVENT_BUILD
from .coordinator import STEPS
from .selection import SELECTION_SCHEMA, JobSelection

if TYPE_CHECKING:
    # Home Assistant has it since 2026.10 only.
    from homeassistant.helpers.trigger import TriggerNotTriggeredReporter


class BuildTrigger(Trigger):
    """Triggers at certain steps of jobs, once for each, in their order."""

    _steps: ClassVar[frozenset[str]]

    @override
    @classmethod
    async def async_validate_config(
        cls, hass: HomeAssistant, config: ConfigType
    ) -> ConfigType:
        """Validate target and options."""
        return cast("ConfigType", SELECTION_SCHEMA(config))

    def __init__(self, hass: HomeAssistant, config: TriggerConfig) -> None:
        """Prepare; nobody listens yet."""
        super().__init__(hass, config)
        self._selection = JobSelection(hass, config.target, config.options)

    @override
    async def async_attach_runner(
        self,
        run_action: TriggerActionRunner,
        # Releases before 2026.10 do not pass it.
        did_not_trigger: TriggerNotTriggeredReporter | None = None,
    ) -> CALLBACK_TYPE:
        """Run the action at each step that is meant, until the result is called."""

        @callback
        def _async_on_step(event: Event[dict[str, Any]]) -> None:
            step, job = event.data["type"], event.data["job"]
            name, kind = job["configuration"], job["kind"]
            if step in self._steps and self._selection.matches(
                job["entry_id"], name, kind
            ):
                run_action(
                    {"job": job}, f"{kind} of {name or 'ESPHome'} {step}", event.context
                )

        # The bus calls a callback at once, so nothing overtakes anything.
        return self._hass.bus.async_listen(EVENT_BUILD, _async_on_step)


class BuildStartedTrigger(BuildTrigger):
    """Triggers when a job starts to run."""

    _steps = frozenset({STEPS[JobStatus.RUNNING]})


class BuildFinishedTrigger(BuildTrigger):
    """Triggers when a job ends, however it does."""

    _steps = frozenset(STEPS[status] for status in JobStatus if status.ended)


class BuildCompletedTrigger(BuildTrigger):
    """Triggers when a job ends well."""

    _steps = frozenset({STEPS[JobStatus.COMPLETED]})


class BuildFailedTrigger(BuildTrigger):
    """Triggers when a job fails."""

    _steps = frozenset({STEPS[JobStatus.FAILED]})


TRIGGERS: Final[dict[str, type[Trigger]]] = {
    "build_completed": BuildCompletedTrigger,
    "build_failed": BuildFailedTrigger,
    "build_finished": BuildFinishedTrigger,
    "build_started": BuildStartedTrigger,
}


async def async_get_triggers(_: HomeAssistant) -> dict[str, type[Trigger]]:
    """Return the triggers by their names."""
    return TRIGGERS
