"""The events of a builder, as its event entity shows them."""

from pathlib import Path
from unittest.mock import patch

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser

from custom_components.esphome_builds.local import cache_dir
from homeassistant.const import STATE_UNAVAILABLE, STATE_UNKNOWN
from homeassistant.core import (
    Context,
    Event,
    EventStateChangedData,
    HomeAssistant,
    State,
    callback,
)
from homeassistant.helpers.event import async_track_state_change_event

from .clients import eventually
from .fakes import write_configuration
from .helpers import BUILDS, STATUS, Steps, async_act, async_until_state, shown


@pytest.fixture
def states(hass: HomeAssistant, builder: MockConfigEntry) -> list[State]:
    """Return what the event entity shows from now on."""
    states: list[State] = []

    @callback
    def _async_on_change(event: Event[EventStateChangedData]) -> None:
        assert event.data["new_state"] is not None
        states.append(event.data["new_state"])

    async_track_state_change_event(hass, BUILDS, _async_on_change)
    return states


def _types(states: list[State]) -> list[str]:
    return [state.attributes["event_type"] for state in states]


async def test_what_there_can_be(hass: HomeAssistant, states: list[State]) -> None:
    """All steps are known before any was taken."""
    state = shown(hass, BUILDS)

    assert state.state == STATE_UNKNOWN
    assert state.attributes["event_types"] == [
        *("queued", "started", "completed", "failed", "cancelled", "interrupted")
    ]
    assert state.state_info is not None
    # Each job has others, which would fill the database.
    assert state.state_info["unrecorded_attributes"] >= {
        *("duration", "job_id", "message")
    }


async def test_each_step_is_an_event(hass: HomeAssistant, states: list[State]) -> None:
    """A job tells that it is queued, that it has started, and that it has completed."""
    (job,) = await async_act(hass, "compile", "kettle.yaml", wait=True)

    assert _types(states) == ["queued", "started", "completed"]
    expected = {
        "job_id": job["job_id"],
        "configuration": "kettle.yaml",
        "kind": "compile",
        "cause": None,
        "message": None,
    }
    for state in states:
        assert state.attributes.items() >= expected.items()
    assert [state.attributes["duration"] for state in states[:2]] == [None, None]
    assert 0 < states[2].attributes["duration"] < 20


async def test_a_failure_says_why(
    hass: HomeAssistant, config_dir: Path, states: list[State]
) -> None:
    """Cause and message are what an automation tells its people."""
    write_configuration(config_dir, "porch", "exit 1")

    (job,) = await async_act(hass, "compile", "porch.yaml", wait=True)

    assert _types(states) == ["queued", "started", "failed"]
    assert job["cause"]
    assert states[-1].attributes["cause"] == job["cause"]
    assert job["message"]
    assert states[-1].attributes["message"] == job["message"]


async def test_no_step_is_lost_or_shown_twice(
    hass: HomeAssistant, config_dir: Path, states: list[State]
) -> None:
    """What happens at the same moment is told one by one, at different times."""
    names = [f"room{number}" for number in range(10)]
    for name in names:
        write_configuration(config_dir, name, "upload: exit 1")

    jobs = await async_act(
        hass, "install", *(f"{name}.yaml" for name in names), wait=True
    )

    for job in jobs:
        mine = [
            state for state in states if state.attributes["job_id"] == job["job_id"]
        ]
        assert _types(mine) == ["queued", "started", job["status"]]
    assert len(states) == 3 * len(jobs)
    assert len({state.state for state in states}) == len(states)


async def test_who_asked_is_in_the_context(
    hass: HomeAssistant, hass_admin_user: MockUser, states: list[State]
) -> None:
    """The activity view can tell whose build it was."""
    context = Context(user_id=hass_admin_user.id)

    await async_act(hass, "validate", "kettle.yaml", context=context, wait=True)

    for state in states:
        assert state.context.user_id == hass_admin_user.id
        assert state.context.parent_id == context.id


async def test_an_unload_is_told(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    states: list[State],
) -> None:
    """What an unload interrupts is told before the entity is unavailable."""
    # What else runs on a server goes on there.
    write_configuration(config_dir, "porch", "sleep inf")
    await async_act(hass, "validate", "porch.yaml")
    await async_until_state(hass, STATUS, "validating")

    await hass.config_entries.async_unload(builder.entry_id)

    *events, last = states
    assert _types(events) == ["queued", "started", "interrupted"]
    assert events[-1].attributes["cause"] == "home_assistant_stopped"
    assert last.state == STATE_UNAVAILABLE


@pytest.mark.local_only("what a server does while it is away is told when it is back")
async def test_a_builder_that_is_unavailable_still_tells(
    hass: HomeAssistant, esphome: Path, config_dir: Path, states: list[State]
) -> None:
    """A job that runs while ESPHome goes away has an end, too."""
    ready = config_dir / "ready"
    write_configuration(config_dir, "porch", f"mark {ready}", "sleep inf")
    (job,) = await async_act(hass, "compile", "porch.yaml")
    await eventually(ready.exists)
    esphome.unlink()
    # The end of a job is a reason to look.
    await async_act(hass, "validate", "kettle.yaml", wait=True)
    await async_until_state(hass, STATUS, STATE_UNAVAILABLE)

    await async_act(hass, "cancel", "porch.yaml")

    assert shown(hass, BUILDS).attributes["job_id"] == job["job_id"]
    assert states[-1].attributes["event_type"] == "cancelled"


async def test_the_last_event_is_restored(
    hass: HomeAssistant, builder: MockConfigEntry, states: list[State]
) -> None:
    """After a reload the event before it is shown, with the time that it had."""
    await async_act(hass, "validate", "kettle.yaml", wait=True)
    before = shown(hass, BUILDS)

    await hass.config_entries.async_reload(builder.entry_id)
    await eventually(lambda: shown(hass, BUILDS).state != STATE_UNAVAILABLE)

    assert shown(hass, BUILDS).state == before.state
    assert shown(hass, BUILDS).attributes == before.attributes


async def test_a_log_that_is_deleted_is_no_step(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path
) -> None:
    """What changes of a job after its end is not told to automations as another end."""
    steps = Steps(hass)
    name = write_configuration(config_dir, "porch", "print anything")
    jobs = []
    with patch("custom_components.esphome_builds.builds.logs.ALL_LOGS_BYTES", 0):
        for _ in range(3):
            jobs += await async_act(hass, "validate", name, wait=True)
        folder = cache_dir(hass, builder.entry_id) / "logs"
        await eventually(lambda: not (folder / jobs[0]["job_id"]).exists())
        await hass.async_block_till_done(wait_background_tasks=True)

    known = builder.runtime_data.builder.jobs
    assert known[jobs[0]["job_id"]].elided_lines == 1
    for job in jobs:
        assert steps.of(job) == ["queued", "started", "completed"]
