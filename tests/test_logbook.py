"""What the logbook says of builds, as the recorder keeps them."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
)

from custom_components.esphome_builds.const import DOMAIN, EVENT_BUILD
from custom_components.esphome_builds.devices import async_own_device
from homeassistant.components.recorder import Recorder
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.setup import async_setup_component
from homeassistant.util.dt import utcnow

from .clients import Client, eventually
from .fakes import write_configuration
from .helpers import async_act


@pytest.fixture
async def since(recorder_mock: Recorder, hass: HomeAssistant) -> datetime:
    """Set the logbook up; return from when on it shall tell."""
    assert await async_setup_component(hass, "logbook", {})
    return utcnow()


async def _async_told(
    hass: HomeAssistant, client: Client, since: datetime, **narrowed: object
) -> list[dict[str, Any]]:
    """Return what the logbook tells of builds."""
    await async_wait_recording_done(hass)
    entries = await client.call(
        "logbook/get_events", start_time=since.isoformat(), **narrowed
    )
    return [entry for entry in entries if entry.get("domain") == DOMAIN]


async def test_each_step_is_told(
    since: datetime, hass: HomeAssistant, client: Client
) -> None:
    """A build that goes well is told in few words."""
    await async_act(hass, "compile", "kettle.yaml", wait=True)

    told = await _async_told(hass, client, since)

    assert [(entry["name"], entry["message"]) for entry in told] == [
        ("Kettle", "compile is waiting for its turn"),
        ("Kettle", "compile started"),
        ("Kettle", "compile completed"),
    ]


async def test_why_it_failed_is_told(
    since: datetime, hass: HomeAssistant, client: Client, config_dir: Path
) -> None:
    """A build that fails is told with its message, and one that is ended as well."""
    write_configuration(config_dir, "porch", "exit 1")

    compiled, uploaded = await async_act(hass, "install", "porch.yaml", wait=True)

    told = await _async_told(hass, client, since)
    messages = [entry["message"] for entry in told]
    assert compiled["message"]
    assert f"compile failed: {compiled['message']}" in messages
    assert uploaded["message"]
    assert f"upload was canceled: {uploaded['message']}" in messages


async def test_who_asked_is_told(
    since: datetime, hass: HomeAssistant, client: Client, hass_admin_user: MockUser
) -> None:
    """A build leads back to the user who wanted it."""
    context = Context(user_id=hass_admin_user.id)

    await async_act(hass, "validate", "kettle.yaml", context=context, wait=True)

    told = await _async_told(hass, client, since)
    assert {entry["context_user_id"] for entry in told} == {hass_admin_user.id}


async def test_the_page_of_a_device_tells_its_builds(
    since: datetime, hass: HomeAssistant, builder: MockConfigEntry, client: Client
) -> None:
    """A device has the lines of its own builds, with the entity they belong to."""
    await eventually(
        lambda: async_own_device(hass, builder.entry_id, "kettle.yaml") is not None
    )
    await hass.async_block_till_done()
    device = async_own_device(hass, builder.entry_id, "kettle.yaml")
    assert device is not None
    dr.async_get(hass).async_update_device(device.id, name_by_user="My kettle")
    await async_act(hass, "validate", "kettle.yaml", "greenhouse.yaml", wait=True)

    told = await _async_told(hass, client, since, device_ids=[device.id])

    assert [(entry["name"], entry["message"]) for entry in told] == [
        ("My kettle", "check is waiting for its turn"),
        ("My kettle", "check started"),
        ("My kettle", "check completed"),
    ]
    entity_id = er.async_get(hass).async_get_entity_id(
        "event", DOMAIN, f"{builder.entry_id}_kettle.yaml_build"
    )
    assert {entry["entity_id"] for entry in told} == {entity_id}


async def test_other_things_that_can_happen(
    since: datetime, hass: HomeAssistant, client: Client
) -> None:
    """What has no device, and what nobody can confirm, is told as well."""
    job = {
        "entry_id": "gone",
        "configuration": "porch.yaml",
        "kind": "upload",
        "cause": "not_verified",
        "message": "The device has not come back.",
        "esphome_version": None,
    }
    installation = {"kind": "install_esphome", "configuration": "", "cause": None}
    for step, changes in (
        ("failed", {}),
        ("interrupted", {"cause": "home_assistant_stopped", "message": None}),
        ("started", {**installation, "message": None}),
        (
            "completed",
            {**installation, "message": None, "esphome_version": "2026.10.0"},
        ),
    ):
        hass.bus.async_fire(EVENT_BUILD, {"type": step, "job": {**job, **changes}})

    told = await _async_told(hass, client, since)

    assert [(entry["name"], entry["message"]) for entry in told] == [
        (
            "porch.yaml",
            "upload could not be confirmed: The device has not come back.",
        ),
        ("porch.yaml", "upload was interrupted"),
        ("ESPHome", "installation started"),
        ("ESPHome 2026.10.0", "installation completed"),
    ]
    assert not any("entity_id" in entry for entry in told)
