"""Setting up, reloading, unloading and removing a builder; Home Assistant's stop."""

from collections.abc import AsyncIterator
from datetime import timedelta
import os
from pathlib import Path
import shutil
from typing import Any

import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_fire_time_changed,
)

from custom_components.esphome_builds.const import DOMAIN
from homeassistant import block_async_io
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import (
    CONF_URL,
    EVENT_HOMEASSISTANT_FINAL_WRITE,
    EVENT_HOMEASSISTANT_STOP,
    STATE_UNAVAILABLE,
    STATE_UNKNOWN,
)
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.util.dt import utcnow

from .clients import Client, eventually
from .fakes import FAKE_VERSION, fake_calls, fake_version, write_configuration
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
    Job,
    ProcessesOf,
    Steps,
    async_act,
    async_until_state,
    local_entry,
    shown,
)

ENTITIES = {
    BUILDING,
    BUILDS,
    CANCEL_ALL,
    DURATION,
    LAST_BUILD,
    QUEUED,
    RUNNING,
    STATUS,
    VERSION,
}
"""What every builder has."""


@pytest.fixture
def all_entities(builder_kind: str) -> set[str]:
    """Return what a builder of this kind has."""
    return ENTITIES | {DISK_USAGE} if builder_kind == "local" else ENTITIES


@pytest.fixture
def steps(hass: HomeAssistant) -> Steps:
    """Return what is told of jobs from now on."""
    return Steps(hass)


@pytest.fixture
async def running(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path, steps: Steps
) -> list[Job]:
    """Return a compile that runs with a child, and an upload that waits for it."""
    ready = config_dir / "ready"
    write_configuration(config_dir, "porch", "spawn", f"mark {ready}", "sleep inf")
    jobs = await async_act(hass, "install", "porch.yaml")
    await eventually(ready.exists)
    return jobs


@pytest.fixture
async def blocking_calls(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Fail where this integration blocks the event loop, as Home Assistant sees it."""
    monkeypatch.setattr(block_async_io, "_IN_TESTS", False)
    block_async_io.enable()
    yield
    for call in block_async_io._BLOCKED_CALLS.calls:
        setattr(call.object, call.function, call.original_func)
    block_async_io._BLOCKED_CALLS.calls.clear()
    messages = [record.getMessage() for record in caplog.get_records("call")]
    blamed = f"inside the event loop by custom integration '{DOMAIN}'"
    assert [message for message in messages if blamed in message] == []


async def test_a_builder_is_a_service_with_entities(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    device_registry: dr.DeviceRegistry,
    entity_registry: er.EntityRegistry,
    all_entities: set[str],
) -> None:
    """A builder is one device, named by its title, which knows its ESPHome."""
    device = device_registry.async_get_device_by_identifier(
        (DOMAIN, builder.entry_id), builder.entry_id
    )

    assert device is not None
    assert device.entry_type is dr.DeviceEntryType.SERVICE
    assert device.name == "ESPHome Builds (esphome)"
    assert device.sw_version == FAKE_VERSION
    assert device.configuration_url == builder.data.get(CONF_URL)
    entities = er.async_entries_for_device(entity_registry, device.id)
    assert {entity.entity_id for entity in entities} == all_entities
    assert all(entity.unique_id.startswith(builder.entry_id) for entity in entities)


async def test_nothing_blocks_the_event_loop(
    hass: HomeAssistant,
    blocking_calls: None,
    entry: MockConfigEntry,
) -> None:
    """Not while a builder is set up, nor builds, nor is reloaded and removed."""
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    jobs = await async_act(hass, "install", "kettle.yaml", wait=True)
    assert [job["status"] for job in jobs] == ["completed", "completed"]
    assert await hass.config_entries.async_reload(entry.entry_id)
    assert await hass.config_entries.async_remove(entry.entry_id)


@pytest.mark.local_only(
    "a server tells its version itself, and must be there to take jobs"
)
async def test_setup_does_not_wait_for_esphome(
    hass: HomeAssistant, entry: MockConfigEntry, esphome: Path
) -> None:
    """A builder is loaded while its ESPHome has not told its version yet."""
    fake_version(esphome, "sleep inf")

    assert await hass.config_entries.async_setup(entry.entry_id)

    assert entry.state is ConfigEntryState.LOADED
    assert shown(hass, VERSION).state == STATE_UNKNOWN
    assert shown(hass, STATUS).state == "idle"
    jobs = await async_act(hass, "validate", "kettle.yaml")
    assert [job["status"] for job in jobs] == ["queued"]


@pytest.mark.local_only("the folder of a server is not looked at from here")
async def test_a_missing_folder_is_tried_again(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    config_dir: Path,
) -> None:
    """A folder that is not there yet, such as one on a network, is waited for."""
    shutil.rmtree(config_dir)
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.reason is not None
    assert str(config_dir) in entry.reason
    assert entry.error_reason_translation_key == "builder_unavailable"

    config_dir.mkdir()
    async_fire_time_changed(hass, utcnow() + timedelta(minutes=1))

    await async_until_state(hass, VERSION, FAKE_VERSION)
    await async_act(hass, "validate", write_configuration(config_dir, "porch"))


async def test_unload_and_load(
    hass: HomeAssistant, builder: MockConfigEntry, all_entities: set[str]
) -> None:
    """An unloaded builder shows nothing, and what it knew is there afterwards."""
    (job,) = await async_act(hass, "compile", "kettle.yaml", wait=True)

    assert await hass.config_entries.async_unload(builder.entry_id)
    assert builder.state is ConfigEntryState.NOT_LOADED
    assert {shown(hass, entity_id).state for entity_id in all_entities} == {
        STATE_UNAVAILABLE
    }

    assert await hass.config_entries.async_setup(builder.entry_id)
    assert shown(hass, LAST_BUILD).state == "completed"
    assert shown(hass, LAST_BUILD).attributes["job_id"] == job["job_id"]


def _listeners(hass: HomeAssistant) -> dict[Any, int]:
    """Return how many listen to what, but for those that have something to write."""
    listeners = dict(hass.bus.async_listeners())
    listeners.pop(EVENT_HOMEASSISTANT_FINAL_WRITE, None)
    return listeners


async def test_unload_leaves_no_listener(
    hass: HomeAssistant, builder: MockConfigEntry
) -> None:
    """However often a builder is loaded, no more is left than after the first time."""
    await hass.config_entries.async_unload(builder.entry_id)
    before = _listeners(hass)

    await hass.config_entries.async_setup(builder.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    await async_act(hass, "validate", "kettle.yaml", wait=True)
    await hass.config_entries.async_unload(builder.entry_id)

    assert _listeners(hass) == before


async def test_each_reload_is_told_alike(
    hass: HomeAssistant, builder: MockConfigEntry, client: Client
) -> None:
    """Clients see that the builder is gone and back, a third time as the first."""
    news = await client.subscribe("esphome_builds/subscribe")
    await news.next()
    seen = []
    for _ in range(3):
        await hass.config_entries.async_reload(builder.entry_id)
        builders = 0
        while builders == 0:
            builders = len((await news.until("snapshot"))[-1]["builders"])
            seen.append(builders)

    assert seen == [0, 0, 0, 1] * 3


@pytest.mark.local_only("what runs on a server goes on there")
async def test_unload_interrupts(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    running: list[Job],
    steps: Steps,
    processes_of: ProcessesOf,
) -> None:
    """Running jobs are interrupted, which is told, and leave no process."""
    compiling, waiting = running
    assert len(processes_of(compiling)) == 2

    assert await hass.config_entries.async_unload(builder.entry_id)

    assert processes_of(compiling) == set()
    told = await steps.until(compiling, "interrupted")
    assert told["cause"] == "home_assistant_stopped"
    assert steps.of(compiling) == ["queued", "started", "interrupted"]
    assert steps.of(waiting) == ["queued"]


@pytest.mark.local_only("what runs on a server is not interrupted by a reload")
async def test_reload_goes_on(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    running: list[Job],
    steps: Steps,
) -> None:
    """A compile that a reload interrupted runs again, and the upload follows."""
    compiling, waiting = running
    write_configuration(config_dir, "porch")

    assert await hass.config_entries.async_reload(builder.entry_id)

    told = await steps.until(waiting, "completed")
    assert told["status"] == "completed"
    assert steps.of(compiling) == [
        *("queued", "started", "interrupted"),
        *("started", "completed"),
    ]
    assert (await steps.until(compiling, "completed"))["attempt"] == 2


async def test_removal(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    running: list[Job],
    device_registry: dr.DeviceRegistry,
    processes_of: ProcessesOf,
    builder_kind: str,
) -> None:
    """A removed builder leaves no process, file or device, but the configurations."""
    folder = Path(hass.config.cache_path(DOMAIN)) / builder.entry_id
    assert folder.is_dir()

    assert await hass.config_entries.async_remove(builder.entry_id)

    if builder_kind == "local":
        # What runs on a server goes on there.
        assert processes_of(*running) == set()
    assert not folder.exists()
    assert (config_dir / "porch.yaml").exists()
    assert not hass.states.async_entity_ids_count(
        ("binary_sensor", "button", "event", "sensor")
    )
    assert not dr.async_entries_for_config_entry(device_registry, builder.entry_id)


async def test_removal_of_a_builder_that_was_never_loaded(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    """What was never made need not be deleted."""
    assert await hass.config_entries.async_remove(entry.entry_id)


@pytest.mark.local_only("what runs on a server goes on there")
async def test_stop_of_home_assistant(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    steps: Steps,
    processes_of: ProcessesOf,
) -> None:
    """When Home Assistant stops, no process is left, and everybody knows why."""
    ready = config_dir / "ready"
    script = ("spawn ignore orphan session", "ignore", f"mark {ready}", "sleep inf")
    write_configuration(config_dir, "porch", *script)
    (job,) = await async_act(hass, "compile", "porch.yaml")
    await eventually(ready.exists)
    assert len(processes_of(job)) == 2

    hass.bus.async_fire(EVENT_HOMEASSISTANT_STOP)
    await hass.async_block_till_done()

    assert processes_of(job) == set()
    assert steps.of(job) == ["queued", "started", "interrupted"]
    told = await steps.until(job, "interrupted")
    assert told["cause"] == "home_assistant_stopped"
    assert shown(hass, RUNNING).state == "0"


@pytest.mark.local_only("a server is not asked for its version by a process")
async def test_unload_ends_the_question_for_the_version(
    hass: HomeAssistant, entry: MockConfigEntry, esphome: Path, tmp_path: Path
) -> None:
    """An ESPHome that hangs at its first question is gone, too."""
    pid = tmp_path / "asked"
    esphome.write_text(f"#!/bin/sh\necho $$ > {pid}.new\nmv {pid}.new {pid}\nsleep 999")
    assert await hass.config_entries.async_setup(entry.entry_id)
    await eventually(pid.exists)

    assert await hass.config_entries.async_unload(entry.entry_id)

    assert not Path("/proc", pid.read_text().strip()).exists()


@pytest.mark.local_only("a server tells its version once for each connection")
async def test_a_new_esphome_is_noticed(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    esphome: Path,
    device_registry: dr.DeviceRegistry,
) -> None:
    """A new version is noticed, and shown by the device."""
    fake_version(esphome, "print Version: 2026.11.1")
    os.utime(esphome, (0, 0))

    # The end of a job is a reason to look.
    await async_act(hass, "validate", "kettle.yaml")
    await async_until_state(hass, VERSION, "2026.11.1")

    device = device_registry.async_get_device_by_identifier(
        (DOMAIN, builder.entry_id), builder.entry_id
    )
    assert device is not None
    assert device.sw_version == "2026.11.1"
    # Job and builder both find it new, and share one answer.
    assert len(fake_calls(esphome, "version")) == 2


async def test_two_builders(
    hass: HomeAssistant, builder: MockConfigEntry, esphome: Path, tmp_path: Path
) -> None:
    """Each builder has its own jobs; unloading one, a local one, leaves the other."""
    folder = tmp_path / "devices"
    folder.mkdir()
    write_configuration(folder, "porch")
    other = local_entry("devices", folder, esphome)
    other.add_to_hass(hass)
    assert await hass.config_entries.async_setup(other.entry_id)
    (job,) = await async_act(
        hass, "compile", "porch.yaml", config_entry_id=other.entry_id, wait=True
    )
    assert job["entry_id"] == other.entry_id

    assert await hass.config_entries.async_unload(other.entry_id)
    shutil.rmtree(folder)

    assert shown(hass, LAST_BUILD).state == STATE_UNKNOWN
    (job,) = await async_act(hass, "compile", "kettle.yaml", wait=True)
    assert job["entry_id"] == builder.entry_id
