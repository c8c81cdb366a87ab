"""What tests of the Home Assistant side do again and again."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.esphome_builds.const import (
    CONF_CONFIG_DIR,
    CONF_ESPHOME,
    CONF_KIND,
    DOMAIN,
    EVENT_BUILD,
)
from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core import Context, Event, HomeAssistant, State, callback
from homeassistant.util.event_type import EventType

from .clients import PATIENCE

# The entities of a builder with the title "esphome".
BUILDING: Final = "binary_sensor.esphome_builds_esphome_building"
BUILDS: Final = "event.esphome_builds_esphome_builds"
CANCEL_ALL: Final = "button.esphome_builds_esphome_cancel_all"
DISK_USAGE: Final = "sensor.esphome_builds_esphome_disk_usage"
DURATION: Final = "sensor.esphome_builds_esphome_last_build_duration"
LAST_BUILD: Final = "sensor.esphome_builds_esphome_last_build"
GO_BACK: Final = "button.esphome_builds_esphome_go_back_to_the_previous_esphome"
QUEUED: Final = "sensor.esphome_builds_esphome_queued_jobs"
RUNNING: Final = "sensor.esphome_builds_esphome_running_jobs"
STATUS: Final = "sensor.esphome_builds_esphome_status"
UPDATE: Final = "update.esphome_builds_esphome_esphome"
VERSION: Final = "sensor.esphome_builds_esphome_esphome_version"

type Job = dict[str, Any]
type ProcessesOf = Callable[..., set[int]]


async def async_until(
    hass: HomeAssistant, event_type: EventType[Any] | str, condition: Callable[[], bool]
) -> None:
    """Return when a condition holds that only such events can change."""
    changed = asyncio.Event()

    @callback
    def _async_on_event(_: Event[Any]) -> None:
        changed.set()

    remove_listener = hass.bus.async_listen(event_type, _async_on_event)
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        remove_listener()


async def async_until_state(hass: HomeAssistant, entity_id: str, state: str) -> State:
    """Return what an entity shows when it has a state."""
    await async_until(
        hass, EVENT_STATE_CHANGED, lambda: hass.states.is_state(entity_id, state)
    )
    return shown(hass, entity_id)


async def async_until_event(hass: HomeAssistant, event_type: str) -> State:
    """Return what the event entity shows when its last event has a type."""
    await async_until(
        hass,
        EVENT_STATE_CHANGED,
        lambda: shown(hass, BUILDS).attributes["event_type"] == event_type,
    )
    return shown(hass, BUILDS)


def shown(hass: HomeAssistant, entity_id: str) -> State:
    """Return what an entity shows."""
    state = hass.states.get(entity_id)
    assert state is not None
    return state


async def async_act(
    hass: HomeAssistant,
    action: str,
    *configurations: str,
    context: Context | None = None,
    **data: object,
) -> list[Job]:
    """Call an action and return the jobs of its response."""
    if configurations:
        data["configuration"] = list(configurations)
    response: Any = await hass.services.async_call(
        DOMAIN, action, data, blocking=True, return_response=True, context=context
    )
    jobs: list[Job] = response["jobs"]
    return jobs


def local_entry(title: str, config_dir: Path, esphome: Path | str) -> MockConfigEntry:
    """Return the entry of a local builder; with no path it has its own ESPHome."""
    return MockConfigEntry(
        domain=DOMAIN,
        title=title,
        unique_id=str(config_dir),
        data={
            CONF_KIND: "local",
            CONF_CONFIG_DIR: str(config_dir),
            CONF_ESPHOME: str(esphome),
        },
    )


def processes_with(file: str, texts: Iterable[str]) -> set[int]:
    """Return the processes with one of the texts in a file of theirs in /proc.

    The file is "cmdline" or "environ"; those of zombies are empty.
    """
    marks = {text.encode() for text in texts}
    found = set()
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                words = (path / file).read_bytes().split(b"\0")
            except OSError:
                continue
            if not marks.isdisjoint(words):
                found.add(int(path.name))
    return found


class Steps:
    """The steps of jobs that were told on the bus."""

    def __init__(self, hass: HomeAssistant) -> None:
        """Listen."""
        self.events: list[Event[dict[str, Any]]] = []
        self._hass = hass
        hass.bus.async_listen(EVENT_BUILD, self._async_on_event)

    def of(self, job: Job) -> list[str]:
        """Return the steps of one job."""
        return [
            event.data["type"]
            for event in self.events
            if event.data["job"]["job_id"] == job["job_id"]
        ]

    async def until(self, job: Job, step: str) -> Job:
        """Return a job as it was told at one of its steps."""
        await async_until(self._hass, EVENT_BUILD, lambda: step in self.of(job))
        return next(
            told
            for event in self.events
            if (told := event.data["job"])["job_id"] == job["job_id"]
            and event.data["type"] == step
        )

    @callback
    def _async_on_event(self, event: Event[dict[str, Any]]) -> None:
        self.events.append(event)
