"""What the logbook says of builds, as the recorder keeps them."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pytest_homeassistant_custom_component.common import MockUser
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
)

from custom_components.esphome_builds.const import DOMAIN
from homeassistant.components.recorder import Recorder
from homeassistant.core import Context, HomeAssistant
from homeassistant.setup import async_setup_component
from homeassistant.util.dt import utcnow

from .clients import Client
from .fakes import write_configuration
from .helpers import async_act


@pytest.fixture
async def since(recorder_mock: Recorder, hass: HomeAssistant) -> datetime:
    """Set the logbook up; return from when on it shall tell."""
    assert await async_setup_component(hass, "logbook", {})
    return utcnow()


async def _async_told(
    hass: HomeAssistant, client: Client, since: datetime
) -> list[dict[str, Any]]:
    """Return what the logbook tells of builds."""
    await async_wait_recording_done(hass)
    entries = await client.call("logbook/get_events", start_time=since.isoformat())
    return [entry for entry in entries if entry.get("domain") == DOMAIN]


async def test_each_step_is_told(
    since: datetime, hass: HomeAssistant, client: Client
) -> None:
    """A build that goes well is told in few words."""
    await async_act(hass, "compile", "kettle.yaml", wait=True)

    told = await _async_told(hass, client, since)

    assert [(entry["name"], entry["message"]) for entry in told] == [
        ("kettle.yaml", "compile queued"),
        ("kettle.yaml", "compile started"),
        ("kettle.yaml", "compile completed"),
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
    assert f"upload canceled: {uploaded['message']}" in messages


async def test_who_asked_is_told(
    since: datetime, hass: HomeAssistant, client: Client, hass_admin_user: MockUser
) -> None:
    """A build leads back to the user who wanted it."""
    context = Context(user_id=hass_admin_user.id)

    await async_act(hass, "validate", "kettle.yaml", context=context, wait=True)

    told = await _async_told(hass, client, since)
    assert {entry["context_user_id"] for entry in told} == {hass_admin_user.id}
