"""The condition, in real automations and as the editor shows it."""

from pathlib import Path
from typing import Any

import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_mock_service,
)

from custom_components.esphome_builds.condition import async_get_conditions
from custom_components.esphome_builds.const import DOMAIN, EVENT_BUILD
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.condition import ConditionConfig
from homeassistant.setup import async_setup_component

from .clients import Client
from .fakes import write_configuration
from .helpers import BUILDS, STATUS, Steps, async_act, async_until, async_until_state

CONDITION = f"{DOMAIN}.is_building"


@pytest.fixture
def porch(config_dir: Path) -> str:
    """Return a configuration whose jobs never end."""
    return write_configuration(config_dir, "porch", "sleep inf")


@pytest.mark.usefixtures("builder")
async def test_an_automation_runs_only_while_nothing_is_built(
    hass: HomeAssistant, porch: str
) -> None:
    """It is true from the start of a job to its end."""
    told = async_mock_service(hass, "test", "tell")
    automation = {
        "triggers": {"trigger": "event", "event_type": "ask"},
        "actions": [
            {
                "if": {"condition": CONDITION},
                "then": {"action": "test.tell", "data": {"building": True}},
                "else": {"action": "test.tell", "data": {"building": False}},
            }
        ],
    }
    assert await async_setup_component(hass, "automation", {"automation": automation})

    async def _ask() -> bool:
        hass.bus.async_fire("ask")
        await hass.async_block_till_done()
        building: bool = told[-1].data["building"]
        return building

    assert await _ask() is False
    await async_act(hass, "validate", porch)
    await async_until_state(hass, STATUS, "validating")
    assert await _ask() is True
    await async_act(hass, "cancel", porch)
    assert await _ask() is False


@pytest.mark.local_only("it is the same for jobs of any builder")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"kind": ["compile"]}, True),
        # The upload waits for its compile.
        ({"kind": ["upload"]}, False),
        ({"configuration": ["porch.yaml"]}, True),
        ({"configuration": ["kettle.yaml"]}, False),
        ({"config_entry_id": ["another"]}, False),
    ],
)
async def test_options(  # noqa: PLR0913
    hass: HomeAssistant,
    builder: MockConfigEntry,
    client: Client,
    porch: str,
    options: dict[str, Any],
    *,
    expected: bool,
) -> None:
    """Each option narrows, and a job that is queued does not count."""
    steps = Steps(hass)
    (job, _) = await async_act(hass, "install", porch)
    await async_until(hass, EVENT_BUILD, lambda: "started" in steps.of(job))

    condition = {"condition": CONDITION, "options": options}
    result = await client.call("test_condition", condition=condition)

    assert result["result"] is expected


@pytest.mark.local_only("it is the same for jobs of any builder")
@pytest.mark.parametrize("narrowed", [{}, {"target": {"entity_id": BUILDS}}])
async def test_changes_are_followed(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    client: Client,
    porch: str,
    narrowed: dict[str, Any],
) -> None:
    """Who watches the condition sees a start, an end and that the builder is gone."""
    condition = {"condition": CONDITION, **narrowed}
    watching = await client.subscribe("subscribe_condition", condition=condition)
    assert await watching.next() == {"result": False}

    await async_act(hass, "compile", porch)
    assert await watching.next() == {"result": True}
    await async_act(hass, "cancel", porch)
    assert await watching.next() == {"result": False}
    await async_act(hass, "compile", porch)
    assert await watching.next() == {"result": True}
    await hass.config_entries.async_unload(builder.entry_id)
    assert await watching.next() == {"result": False}
    await watching.unsubscribe()


@pytest.mark.local_only("it is the same for jobs of any builder")
async def test_what_is_asked_again_and_again(
    hass: HomeAssistant, builder: MockConfigEntry
) -> None:
    """Only with a target can it change without a job, a builder or a reload."""
    condition = (await async_get_conditions(hass))["is_building"]
    for config, polled in (
        ({}, False),
        ({"target": {}}, False),
        ({"target": {"entity_id": BUILDS}}, True),
    ):
        valid = await condition.async_validate_config(hass, config)
        checker = condition(hass, ConditionConfig(**valid))
        assert checker.needs_polling is polled
        checker.async_unload()


@pytest.mark.local_only("it is the same for jobs of any builder")
@pytest.mark.parametrize(
    ("name", "expected"), [("porch", True), ("kettle", False), ("builder", True)]
)
async def test_target(  # noqa: PLR0913
    hass: HomeAssistant,
    builder: MockConfigEntry,
    client: Client,
    porch: str,
    name: str,
    *,
    expected: bool,
) -> None:
    """The events of a configuration, or of its builder, are a target."""
    key = "builds" if name == "builder" else f"{name}.yaml_build"
    entity = er.async_get(hass).async_get_or_create(
        "event", DOMAIN, f"{builder.entry_id}_{key}", config_entry=builder
    )
    await async_act(hass, "compile", porch)
    await async_until_state(hass, STATUS, "compiling")

    condition = {"condition": CONDITION, "target": {"entity_id": entity.entity_id}}
    result = await client.call("test_condition", condition=condition)

    assert result["result"] is expected


@pytest.mark.local_only("it is the same for jobs of any builder")
async def test_the_editor_knows_it(client: Client) -> None:
    """The editor shows it with its target and its fields."""
    subscription = await client.subscribe("condition_platforms/subscribe")
    found: dict[str, Any] = {}
    while CONDITION not in found:
        found |= await subscription.next()

    description = found[CONDITION]
    assert [*description["fields"]] == ["kind", "configuration", "config_entry_id"]
    assert description["target"]["entity"] == [
        {"integration": DOMAIN, "domain": ["event"]}
    ]
