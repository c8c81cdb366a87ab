"""What the sensors of a builder show."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.esphome_builds.builds.local import space
from custom_components.esphome_builds.builds.models import BuilderEvent
from custom_components.esphome_builds.builds.usage import Measured, Usage
from custom_components.esphome_builds.local import cache_dir
from homeassistant.const import (
    EVENT_STATE_CHANGED,
    STATE_UNAVAILABLE,
    STATE_UNKNOWN,
    EntityCategory,
)
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry as er

from .builds.stand_in import NOW
from .conftest import Outage
from .fakes import FAKE_VERSION, write_configuration
from .helpers import (
    BUILDING,
    BUILDS,
    CANCEL_ALL,
    DISK_USAGE,
    DURATION,
    LAST_BUILD,
    QUEUED,
    RUNNING,
    STATUS,
    VERSION,
    async_act,
    async_until,
    async_until_state,
    shown,
)

pytestmark = pytest.mark.usefixtures("builder")


async def test_what_is_shown_at_first(hass: HomeAssistant) -> None:
    """A builder that has built nothing is idle and knows of no last build."""
    assert shown(hass, STATUS).state == "idle"
    assert shown(hass, QUEUED).state == "0"
    assert shown(hass, RUNNING).state == "0"
    assert shown(hass, LAST_BUILD).state == STATE_UNKNOWN
    assert "cause" not in shown(hass, LAST_BUILD).attributes
    assert shown(hass, DURATION).state == STATE_UNKNOWN
    assert shown(hass, VERSION).state == FAKE_VERSION


async def test_what_sensors_are(
    hass: HomeAssistant, entity_registry: er.EntityRegistry
) -> None:
    """Sensors have what the frontend and statistics need."""
    assert shown(hass, STATUS).attributes["options"] == [
        "idle",
        *("installing", "validating", "compiling", "uploading"),
        "unavailable",
    ]
    assert shown(hass, LAST_BUILD).attributes["options"] == [
        *("completed", "failed", "cancelled", "interrupted")
    ]
    assert shown(hass, DURATION).attributes["device_class"] == "duration"
    assert shown(hass, DURATION).attributes["unit_of_measurement"] == "s"
    for entity_id in (QUEUED, RUNNING):
        assert shown(hass, entity_id).attributes["state_class"] == "measurement"
    version = entity_registry.async_get(VERSION)
    assert version is not None
    assert version.entity_category is EntityCategory.DIAGNOSTIC


async def test_the_status_is_the_most_important_of_what_runs(
    hass: HomeAssistant, config_dir: Path
) -> None:
    """Uploading comes before compiling, and that before validating."""
    for name in ("attic", "cellar", "porch"):
        write_configuration(config_dir, name, "sleep inf")

    await async_act(hass, "validate", "attic.yaml")
    await async_until_state(hass, STATUS, "validating")
    await async_act(hass, "upload", "porch.yaml")
    await async_until_state(hass, STATUS, "uploading")
    await async_act(hass, "compile", "cellar.yaml")
    await async_until_state(hass, RUNNING, "3")
    assert shown(hass, STATUS).state == "uploading"

    await async_act(hass, "cancel", "porch.yaml")
    await async_until_state(hass, STATUS, "compiling")
    await async_act(hass, "cancel", "cellar.yaml")
    await async_until_state(hass, STATUS, "validating")
    await async_act(hass, "cancel", "attic.yaml")
    await async_until_state(hass, STATUS, "idle")


async def test_cleaning_counts_as_compiling(
    hass: HomeAssistant, config_dir: Path
) -> None:
    """There is no word of its own for what takes a second."""
    write_configuration(config_dir, "porch", "sleep inf")

    await async_act(hass, "clean", "porch.yaml")

    await async_until_state(hass, STATUS, "compiling")


async def test_jobs_are_counted(hass: HomeAssistant, config_dir: Path) -> None:
    """What waits and what runs is counted apart."""
    write_configuration(config_dir, "porch", "sleep inf")

    await async_act(hass, "install", "porch.yaml")
    await async_act(hass, "validate", "porch.yaml")

    await async_until_state(hass, QUEUED, "2")
    assert shown(hass, RUNNING).state == "1"
    await async_act(hass, "cancel", "porch.yaml")
    await async_until_state(hass, QUEUED, "0")
    assert shown(hass, RUNNING).state == "0"


async def test_the_last_build(hass: HomeAssistant, config_dir: Path) -> None:
    """The job that ended last is shown, whatever its end was."""
    write_configuration(config_dir, "porch", "sleep 0.2", "exit 1")

    (job,) = await async_act(hass, "compile", "kettle.yaml", wait=True)
    state = await async_until_state(hass, LAST_BUILD, "completed")
    expected = {"job_id": job["job_id"], "configuration": "kettle.yaml"}
    expected |= {"kind": "compile", "cause": None}
    assert state.attributes.items() >= expected.items()
    # A job has an attribute of its own that would fill the database.
    assert state.state_info is not None
    assert "job_id" in state.state_info["unrecorded_attributes"]

    (job,) = await async_act(hass, "validate", "porch.yaml", wait=True)
    state = await async_until_state(hass, LAST_BUILD, "failed")
    expected = {"job_id": job["job_id"], "configuration": "porch.yaml"}
    expected |= {"kind": "validate", "cause": job["cause"]}
    assert job["cause"] is not None
    assert state.attributes.items() >= expected.items()
    assert 0.2 <= float(shown(hass, DURATION).state) < 20


async def test_a_job_that_never_ran_has_no_duration(
    hass: HomeAssistant, config_dir: Path
) -> None:
    """Unknown is not zero."""
    write_configuration(config_dir, "porch", "sleep inf")
    _, waiting = await async_act(hass, "install", "porch.yaml")

    await async_act(hass, "cancel", job_id=waiting["job_id"])

    await async_until_state(hass, LAST_BUILD, "cancelled")
    assert shown(hass, DURATION).state == STATE_UNKNOWN


async def test_progress_is_no_news(hass: HomeAssistant, config_dir: Path) -> None:
    """No entity is written while nothing that it shows has changed."""
    write_configuration(config_dir, "porch", "redraws 60")
    await async_act(hass, "upload", "porch.yaml")
    await async_until_state(hass, STATUS, "uploading")
    before = shown(hass, VERSION).last_reported

    await asyncio.sleep(0.7)

    assert shown(hass, STATUS).state == "uploading"
    assert shown(hass, VERSION).last_reported == before
    await async_act(hass, "cancel", "porch.yaml")
    await async_until_state(hass, STATUS, "idle")
    assert shown(hass, VERSION).last_reported > before


async def test_a_builder_comes_and_goes(hass: HomeAssistant, outage: Outage) -> None:
    """Without its ESPHome a builder is unavailable, which only the status tells."""
    await outage.begin()

    await async_until_state(hass, STATUS, STATE_UNAVAILABLE)
    assert "options" in shown(hass, STATUS).attributes
    for entity_id in (BUILDING, DURATION, LAST_BUILD, QUEUED, RUNNING, VERSION):
        assert shown(hass, entity_id).state == STATE_UNAVAILABLE
    for entity_id in (BUILDS, CANCEL_ALL):
        assert shown(hass, entity_id).state != STATE_UNAVAILABLE

    await outage.end()
    await async_until_state(hass, STATUS, "idle")
    assert shown(hass, VERSION).state == FAKE_VERSION


@pytest.mark.local_only("the disk of a server is not ours to look at")
async def test_what_is_on_disk(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    entity_registry: er.EntityRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In all and in parts, once it was measured."""
    assert shown(hass, DISK_USAGE).state == STATE_UNKNOWN
    described = entity_registry.async_get(DISK_USAGE)
    assert described is not None
    assert described.entity_category is EntityCategory.DIAGNOSTIC

    engine = builder.runtime_data.builder
    parts = {
        name: Measured(size=size, entries=1, measured_at=NOW, complete=True)
        for name, size in {"builds": 1024**3, "logs": 512 * 1024**2}.items()
    }
    monkeypatch.setattr(type(engine), "usage", Usage(parts=parts))
    info = replace(engine.info, disk_usage=1536 * 1024**2)
    monkeypatch.setattr(type(engine), "info", info)
    engine._emit(BuilderEvent(builder=info))

    state = await async_until_state(hass, DISK_USAGE, "1.5")
    expected = {
        "builds": 1024**3,
        "logs": 512 * 1024**2,
        "device_class": "data_size",
        "state_class": "measurement",
        "unit_of_measurement": "GiB",
    }
    assert state.attributes.items() >= expected.items()


async def test_only_a_local_builder_has_a_disk(
    hass: HomeAssistant, builder_kind: str
) -> None:
    """A server's is not ours to look at."""
    assert (hass.states.get(DISK_USAGE) is not None) == (builder_kind == "local")


@pytest.mark.local_only("the disk of a server is not ours to look at")
async def test_what_is_on_disk_is_measured(
    hass: HomeAssistant, builder: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the builder itself, some time after its start."""
    monkeypatch.setattr(space, "FIRST_SECONDS", 0.0)
    data = cache_dir(hass, builder.entry_id) / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "large").write_bytes(bytes(3 * 1024**2))

    assert await hass.config_entries.async_reload(builder.entry_id)

    await async_until(
        hass,
        EVENT_STATE_CHANGED,
        lambda: shown(hass, DISK_USAGE).attributes.get("build", 0) >= 3 * 1024**2,
    )
    assert float(shown(hass, DISK_USAGE).state) * 1024 >= 3
