"""Real automations that run when builds end."""

from collections import Counter
from pathlib import Path

import pytest
from pytest_homeassistant_custom_component.common import async_mock_service

from custom_components.esphome_builds.const import EVENT_BUILD
from homeassistant.core import HomeAssistant, ServiceCall
from homeassistant.setup import async_setup_component

from .fakes import write_configuration
from .helpers import BUILDS, Job, Steps, async_act, async_until

pytestmark = pytest.mark.usefixtures("builder")

ENDS = ["completed", "failed", "cancelled", "interrupted"]

ON_STATE = {
    "alias": "Tell what the event entity says",
    "mode": "parallel",
    "triggers": {"trigger": "state", "entity_id": BUILDS, "not_from": "unavailable"},
    "conditions": f"{{{{ trigger.to_state.attributes.event_type in {ENDS} }}}}",
    "actions": {
        "action": "test.state",
        "data": {
            "job_id": "{{ trigger.to_state.attributes.job_id }}",
            "end": "{{ trigger.to_state.attributes.event_type }}",
        },
    },
}
ON_BUS = {
    "alias": "Tell what the bus says",
    "mode": "parallel",
    "triggers": [
        {"trigger": "event", "event_type": EVENT_BUILD, "event_data": {"type": end}}
        for end in ENDS
    ],
    "actions": {
        "action": "test.bus",
        "data": {
            "job_id": "{{ trigger.event.data.job.job_id }}",
            "end": "{{ trigger.event.data.type }}",
        },
    },
}
REACT = {
    "alias": "Compile what is valid",
    "triggers": {
        "trigger": "event",
        "event_type": EVENT_BUILD,
        "event_data": {"type": "completed", "job": {"kind": "validate"}},
    },
    "actions": {
        "action": "esphome_builds.compile",
        "data": {
            "configuration": "{{ trigger.event.data.job.configuration }}",
            "wait": True,
        },
        "response_variable": "result",
    },
}


@pytest.fixture
async def told(hass: HomeAssistant) -> dict[str, list[ServiceCall]]:
    """Return what the automations tell of ends of builds."""
    told = {name: async_mock_service(hass, "test", name) for name in ("state", "bus")}
    assert await async_setup_component(
        hass, "automation", {"automation": [ON_STATE, ON_BUS]}
    )
    await hass.async_block_till_done()
    return told


def _ends(calls: list[ServiceCall]) -> Counter[tuple[str, str]]:
    return Counter((call.data["job_id"], call.data["end"]) for call in calls)


def _once(jobs: list[Job]) -> Counter[tuple[str, str]]:
    return Counter((job["job_id"], job["status"]) for job in jobs)


async def test_each_build_once(
    hass: HomeAssistant, told: dict[str, list[ServiceCall]]
) -> None:
    """Both kinds of automation run once for each build, and not for its other steps."""
    jobs = await async_act(hass, "install", "kettle.yaml", wait=True)
    await hass.async_block_till_done()

    assert [job["status"] for job in jobs] == ["completed", "completed"]
    assert _ends(told["state"]) == _once(jobs)
    assert _ends(told["bus"]) == _once(jobs)


async def test_ends_in_the_same_turn_of_the_loop(
    hass: HomeAssistant, config_dir: Path, told: dict[str, list[ServiceCall]]
) -> None:
    """A compile that fails ends its upload at the same moment; that makes two."""
    steps = Steps(hass)
    names = [f"room{number}" for number in range(5)]
    for name in names:
        write_configuration(config_dir, name, "exit 1")

    jobs = await async_act(
        hass, "install", *(f"{name}.yaml" for name in names), wait=True
    )
    await hass.async_block_till_done()

    assert [job["status"] for job in jobs] == ["failed", "cancelled"] * len(names)
    assert _ends(told["state"]) == _once(jobs)
    assert _ends(told["bus"]) == _once(jobs)
    assert {tuple(steps.of(job)) for job in jobs} == {
        ("queued", "started", "failed"),
        ("queued", "cancelled"),
    }


async def test_builds_lead_to_builds(hass: HomeAssistant, config_dir: Path) -> None:
    """An automation may use the actions, and wait for what they start."""
    steps = Steps(hass)
    assert await async_setup_component(hass, "automation", {"automation": [REACT]})
    await hass.async_block_till_done()

    (job,) = await async_act(hass, "validate", "kettle.yaml", wait=True)
    await async_until(
        hass,
        EVENT_BUILD,
        lambda: (
            steps.events[-1].data["job"]["kind"] == "compile"
            and steps.events[-1].data["type"] == "completed"
        ),
    )

    assert [event.data["job"]["kind"] for event in steps.events] == [
        *["validate"] * 3,
        *["compile"] * 3,
    ]
    # What was started by what can be followed through the contexts.
    first, last = steps.events[0], steps.events[-1]
    assert last.data["job"]["requested_by"]["user_id"] is None
    assert last.data["job"]["configuration"] == job["configuration"]
    assert last.context.parent_id == last.data["job"]["requested_by"]["context_id"]
    assert first.context.parent_id == job["requested_by"]["context_id"]
