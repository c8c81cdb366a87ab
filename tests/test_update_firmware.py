"""The update entities of devices' firmware."""

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.test_util.aiohttp import AiohttpClientMocker
from pytest_homeassistant_custom_component.typing import WebSocketGenerator

from custom_components.esphome_builds.const import DOMAIN, EVENT_BUILD
from homeassistant.const import EVENT_STATE_CHANGED, STATE_UNKNOWN
from homeassistant.core import (
    Context,
    Event,
    EventStateChangedData,
    HomeAssistant,
    State,
    callback,
)
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import entity_registry as er, issue_registry as ir
from homeassistant.setup import async_setup_component

from .conftest import Outage
from .esphome_device import MAC, EsphomeDevice
from .fakes import FAKE_VERSION, write_configuration
from .helpers import Steps, async_until, async_until_state, shown

NOTES: Final = (
    f"https://api.github.com/repos/esphome/esphome/releases/tags/{FAKE_VERSION}"
)
OLD: Final = "2025.1.0"
UPDATE: Final = "update.porch_firmware"


@pytest.fixture
async def porch(hass: HomeAssistant, config_dir: Path) -> EsphomeDevice:
    """Return a device that is connected, with something old, and its configuration."""
    write_configuration(config_dir, "porch")
    device = EsphomeDevice(hass, "porch")
    device.connect(OLD)
    return device


async def async_install(hass: HomeAssistant, context: Context | None = None) -> None:
    """Press the entity's button and wait for what comes of it."""
    await hass.services.async_call(
        "update", "install", {"entity_id": UPDATE}, blocking=True, context=context
    )


@pytest.mark.parametrize(
    ("version", "state"),
    [
        (OLD, "on"),
        (f"{FAKE_VERSION}b1", "on"),
        (FAKE_VERSION, "off"),
        ("2099.1.0", "off"),
        ("2099.1.0-dev", "off"),
        ("", STATE_UNKNOWN),
    ],
)
async def test_versions(
    hass: HomeAssistant,
    porch: EsphomeDevice,
    builder: MockConfigEntry,
    version: str,
    state: str,
) -> None:
    """What the device runs is compared with what the builder has."""
    await async_until_state(hass, UPDATE, "on")

    porch.connect(version)

    await async_until(
        hass,
        EVENT_STATE_CHANGED,
        lambda: (
            shown(hass, UPDATE).attributes["installed_version"] == (version or None)
        ),
    )
    update = shown(hass, UPDATE)
    assert update.state == state
    assert update.attributes["latest_version"] == FAKE_VERSION
    assert update.attributes["release_url"].startswith("https://esphome.io/changelog/")
    assert update.attributes["configuration"] == "porch.yaml"
    assert update.attributes["config_entry_id"] == builder.entry_id
    assert update.attributes["online"] is True


async def test_skipped(
    hass: HomeAssistant, porch: EsphomeDevice, builder: MockConfigEntry
) -> None:
    """A version can be skipped."""
    await async_until_state(hass, UPDATE, "on")

    await hass.services.async_call(
        "update", "skip", {"entity_id": UPDATE}, blocking=True
    )

    skipped = await async_until_state(hass, UPDATE, "off")
    assert skipped.attributes["skipped_version"] == FAKE_VERSION


@pytest.mark.local_only("the fake of a server's jobs sends nothing to a device")
async def test_install(
    hass: HomeAssistant,
    porch: EsphomeDevice,
    builder: MockConfigEntry,
    config_dir: Path,
    tmp_path: Path,
) -> None:
    """It is done when the device is back with the new version, and not before."""
    go = tmp_path / "go"
    write_configuration(config_dir, "porch", f"upload: wait {go}")
    await async_until_state(hass, UPDATE, "on")
    seen: list[State] = []

    @callback
    def _async_on_state(event: Event[EventStateChangedData]) -> None:
        if event.data["entity_id"] == UPDATE and event.data["new_state"] is not None:
            seen.append(event.data["new_state"])

    hass.bus.async_listen(EVENT_STATE_CHANGED, _async_on_state)
    steps = Steps(hass)

    installing = asyncio.create_task(async_install(hass))
    await async_until(
        hass,
        EVENT_BUILD,
        lambda: any(
            (event.data["job"]["kind"], event.data["type"]) == ("upload", "started")
            for event in steps.events
        ),
    )
    assert shown(hass, UPDATE).attributes["update_percentage"] == 80
    porch.disconnect()
    go.touch()
    await async_until(
        hass,
        EVENT_STATE_CHANGED,
        lambda: shown(hass, UPDATE).attributes["update_percentage"] == 95,
    )
    assert not installing.done()
    assert shown(hass, UPDATE).attributes["in_progress"] is True
    porch.connect(FAKE_VERSION, "2026-11-24 10:00:00 +0000")
    await installing

    done = await async_until_state(hass, UPDATE, "off")
    assert done.attributes["installed_version"] == FAKE_VERSION
    assert done.attributes["in_progress"] is False
    percentages = [state.attributes["update_percentage"] for state in seen]
    rising = [percentage for percentage in percentages if percentage is not None]
    assert rising == sorted(rising)
    told = [event.data["job"] for event in steps.events]
    assert {job["requested_by"]["unattended"] for job in told} == {True}
    assert told[-1]["kind"] == "upload"
    assert {event.data["device_id"] for event in steps.events} == {porch.device.id}


async def test_failed(
    hass: HomeAssistant,
    porch: EsphomeDevice,
    builder: MockConfigEntry,
    config_dir: Path,
) -> None:
    """Who pressed the button is told what went wrong."""
    write_configuration(
        config_dir, "porch", "compile: print src/main.cpp:1:1: error: no", "exit 1"
    )
    await async_until_state(hass, UPDATE, "on")

    with pytest.raises(HomeAssistantError) as error:
        await async_install(hass)

    assert error.value.translation_key == "install_failed"
    assert error.value.translation_placeholders
    assert error.value.translation_placeholders["reason"]
    assert shown(hass, UPDATE).attributes["in_progress"] is False


async def test_a_device_that_is_off(
    hass: HomeAssistant, porch: EsphomeDevice, builder: MockConfigEntry
) -> None:
    """Nobody waits for hours; the entity shows that it is still on its way."""
    await async_until_state(hass, UPDATE, "on")
    porch.disconnect()

    await async_install(hass)

    update = shown(hass, UPDATE)
    assert update.attributes["online"] is False
    assert update.attributes["in_progress"] is True
    assert update.attributes["update_percentage"] == 80
    await hass.services.async_call(
        DOMAIN, "cancel", {"configuration": "porch.yaml"}, blocking=True
    )
    await async_until(
        hass,
        EVENT_STATE_CHANGED,
        lambda: not shown(hass, UPDATE).attributes["in_progress"],
    )


async def test_unavailable(
    hass: HomeAssistant,
    porch: EsphomeDevice,
    builder: MockConfigEntry,
    outage: Outage,
) -> None:
    """Without a builder nothing is known, and its return is seen."""
    await async_until_state(hass, UPDATE, "on")

    await outage.begin()
    await async_until_state(hass, UPDATE, "unavailable")
    await async_until_state(hass, "button.porch_install", "unavailable")
    assert shown(hass, "event.porch_build").state != "unavailable"

    await outage.end()
    await async_until_state(hass, UPDATE, "on")


@pytest.mark.local_only("it is the same for both kinds")
@pytest.mark.parametrize("disabled", [False, True])
async def test_beside_that_of_the_dashboard(
    hass: HomeAssistant,
    porch: EsphomeDevice,
    entry: MockConfigEntry,
    disabled: bool,
) -> None:
    """Where ESPHome's own entity is used, ours is disabled and says so."""
    registry = er.async_get(hass)
    theirs = registry.async_get_or_create(
        "update",
        "esphome",
        MAC.upper(),
        config_entry=porch.entry,
        device_id=porch.device.id,
        suggested_object_id="theirs",
        disabled_by=er.RegistryEntryDisabler.INTEGRATION if disabled else None,
    )
    assert theirs.disabled is disabled

    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, "sensor.porch_last_build", STATE_UNKNOWN)
    await hass.async_block_till_done()

    ours = registry.async_get(UPDATE)
    assert ours is not None
    assert ours.disabled is not disabled
    issues = ir.async_get(hass)
    issue_id = f"updates_elsewhere_{entry.entry_id}"
    issue = issues.async_get_issue(DOMAIN, issue_id)
    if disabled:
        assert issue is None
        return
    assert issue is not None
    assert issue.translation_placeholders == {
        "builder": "esphome",
        "devices": "porch.yaml",
    }
    await hass.config_entries.async_unload(entry.entry_id)
    assert issues.async_get_issue(DOMAIN, issue_id) is None

    registry.async_update_entity(UPDATE, disabled_by=None)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, UPDATE, "on")
    assert issues.async_get_issue(DOMAIN, issue_id) is None


@pytest.mark.local_only("it is the same for both kinds")
@pytest.mark.parametrize(
    ("answer", "notes"),
    [
        ({"json": {"body": "# Changes\nMany."}}, "# Changes\nMany."),
        ({"json": {"body": ""}}, None),
        ({"json": {"body": 5}}, None),
        ({"json": ["no"]}, None),
        ({"text": "<html>"}, None),
        ({"status": HTTPStatus.NOT_FOUND, "json": {"message": "no"}}, None),
        ({"exc": TimeoutError()}, None),
    ],
)
async def test_release_notes(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    porch: EsphomeDevice,
    builder: MockConfigEntry,
    hass_ws_client: WebSocketGenerator,
    aioclient_mock: AiohttpClientMocker,
    answer: dict[str, Any],
    notes: str | None,
) -> None:
    """The makers' notes are shown, and nothing where there are none."""
    await async_until_state(hass, UPDATE, "on")
    aioclient_mock.get(NOTES, **answer)  # type: ignore[no-untyped-call]
    assert await async_setup_component(hass, "update", {})
    client = await hass_ws_client(hass)

    await client.send_json_auto_id(
        {"type": "update/release_notes", "entity_id": UPDATE}
    )
    told = await client.receive_json()

    assert told["success"]
    assert told["result"] == notes
    assert len(aioclient_mock.mock_calls) == 1
