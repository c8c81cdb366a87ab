"""The actions, as automations and people call them."""

import asyncio
from pathlib import Path
import re
from typing import Any

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser

from custom_components.esphome_builds.const import DOMAIN
from custom_components.esphome_builds.devices import async_own_device
from homeassistant.const import EVENT_HOMEASSISTANT_STOP
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import (
    HomeAssistantError,
    ServiceValidationError,
    Unauthorized,
)
from homeassistant.helpers import device_registry as dr
from homeassistant.setup import async_setup_component

from .clients import PATIENCE, eventually
from .conftest import Outage
from .fakes import fake_calls, write_configuration
from .helpers import (
    QUEUED,
    STATUS,
    Job,
    ProcessesOf,
    Steps,
    async_act,
    async_until_state,
    local_entry,
    shown,
)

ACTIONS = ("validate", "compile", "upload", "install", "clean")


@pytest.fixture
def steps(hass: HomeAssistant) -> Steps:
    """Return what is told of jobs from now on."""
    return Steps(hass)


@pytest.fixture
def porch(config_dir: Path) -> str:
    """Return a configuration whose jobs never end."""
    return write_configuration(config_dir, "porch", "mark started", "sleep inf")


@pytest.fixture
def left(builder_kind: str) -> str:
    """Return the last that is known here of what ran; on a server it goes on."""
    return "interrupted" if builder_kind == "local" else "running"


def _device(hass: HomeAssistant, name: str, mac: str) -> dr.DeviceEntry:
    """Make a device of Home Assistant's own ESPHome integration."""
    entry = MockConfigEntry(
        domain="esphome", data={"device_name": name}, unique_id=mac, title=name
    )
    entry.add_to_hass(hass)
    return dr.async_get(hass).async_get_or_create(
        config_entry_id=entry.entry_id,
        connections={(dr.CONNECTION_NETWORK_MAC, mac)},
        name=f"The {name}",
    )


def _statuses(jobs: list[Job]) -> list[tuple[str, str, str]]:
    return [(job["configuration"], job["kind"], job["status"]) for job in jobs]


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize(
    ("action", "kinds"),
    [
        ("validate", ["validate"]),
        ("compile", ["compile"]),
        ("upload", ["upload"]),
        ("install", ["compile", "upload"]),
        ("clean", ["clean"]),
    ],
)
async def test_an_action_is_done(
    hass: HomeAssistant, action: str, kinds: list[str]
) -> None:
    """Each action makes its jobs, and tells how they ended if it waits for them."""
    jobs = await async_act(hass, action, "kettle.yaml", wait=True)

    assert _statuses(jobs) == [("kettle.yaml", kind, "completed") for kind in kinds]


@pytest.mark.usefixtures("builder")
async def test_an_action_does_not_wait(
    hass: HomeAssistant, porch: str, builder_kind: str
) -> None:
    """Without `wait` the jobs are returned as they are now."""
    jobs = await async_act(hass, "install", porch)

    # A server has to be asked first.
    first = "running" if builder_kind == "local" else "queued"
    assert [job["status"] for job in jobs] == [first, "queued"]
    assert jobs[1]["depends_on"] == jobs[0]["job_id"]


@pytest.mark.usefixtures("builder")
async def test_a_response_need_not_be_asked_for(
    hass: HomeAssistant, esphome: Path
) -> None:
    """An automation that wants no response gets none, but its jobs."""
    response = await hass.services.async_call(
        DOMAIN,
        "validate",
        {"configuration": "kettle.yaml", "wait": True},
        blocking=True,
    )

    assert response is None
    assert len(fake_calls(esphome, "config")) == 1


@pytest.mark.usefixtures("builder")
async def test_a_job_that_fails_is_no_error(
    hass: HomeAssistant, config_dir: Path
) -> None:
    """The action did what it was asked for; its response says what came of it."""
    bad = write_configuration(config_dir, "porch", "print oh no", "exit 1")

    jobs = await async_act(hass, "install", "kettle.yaml", bad, wait=True)

    assert _statuses(jobs) == [
        ("kettle.yaml", "compile", "completed"),
        ("kettle.yaml", "upload", "completed"),
        ("porch.yaml", "compile", "failed"),
        ("porch.yaml", "upload", "cancelled"),
    ]
    assert jobs[3]["cause"] == "prerequisite_failed"


@pytest.mark.usefixtures("builder")
async def test_who_asked_is_kept(
    hass: HomeAssistant, hass_admin_user: MockUser
) -> None:
    """A job knows the user and the context of the action."""
    context = Context(user_id=hass_admin_user.id)

    (job,) = await async_act(hass, "validate", "kettle.yaml", context=context)

    assert job["requested_by"] == {
        "user_id": hass_admin_user.id,
        "context_id": context.id,
        "unattended": False,
    }


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("action", ["upload", "install"])
async def test_an_address_is_used(
    hass: HomeAssistant, esphome: Path, action: str
) -> None:
    """The upload goes where it was sent."""
    jobs = await async_act(hass, action, "kettle.yaml", address="192.0.2.7", wait=True)

    assert jobs[-1]["address"] == "192.0.2.7"
    (call,) = fake_calls(esphome, "upload")
    assert call[-2:] == ["--device", "192.0.2.7"]


@pytest.mark.usefixtures("builder")
async def test_the_same_is_joined_or_replaced(hass: HomeAssistant, porch: str) -> None:
    """The same again is the same job, unless it shall start anew."""
    (first,) = await async_act(hass, "compile", porch)
    (same,) = await async_act(hass, "compile", porch)
    assert same["job_id"] == first["job_id"]

    (other,) = await async_act(hass, "compile", porch, replace=True)

    assert other["job_id"] != first["job_id"]
    (superseded,) = await async_act(hass, "cancel", job_id=first["job_id"])
    assert superseded["cause"] == "superseded"


@pytest.mark.usefixtures("builder")
async def test_devices_stand_for_their_configurations(hass: HomeAssistant) -> None:
    """Devices and names can be mixed, and each configuration counts once."""
    kettle = _device(hass, "kettle", "02:eb:00:00:00:02")
    light = _device(hass, "night-light", "02:eb:00:00:00:03")

    jobs = await async_act(
        hass,
        "validate",
        *["kettle.yaml"] * 201,
        "greenhouse.yaml",
        device_id=[kettle.id, light.id],
        wait=True,
    )

    assert [job["configuration"] for job in jobs] == [
        "kettle.yaml",
        "greenhouse.yaml",
        "night-light.yaml",
    ]


@pytest.mark.usefixtures("builder")
async def test_a_part_stands_for_its_device(
    hass: HomeAssistant, device_registry: dr.DeviceRegistry
) -> None:
    """An ESPHome device can have parts that are devices, too."""
    kettle = _device(hass, "kettle", "02:eb:00:00:00:02")
    lid = device_registry.async_get_or_create(
        config_entry_id=kettle.config_entry_id,
        identifiers={("esphome", "02:eb:00:00:00:02_1")},
    )

    (job,) = await async_act(hass, "validate", device_id=lid.id)

    assert job["configuration"] == "kettle.yaml"


async def test_a_device_of_our_own_stands_for_its_configuration(
    hass: HomeAssistant, builder: MockConfigEntry, tmp_path: Path, esphome: Path
) -> None:
    """A configuration whose device is not known has a device of ours, of its builder.

    The same file of another builder is none of that device.
    """
    await eventually(
        lambda: async_own_device(hass, builder.entry_id, "kettle.yaml") is not None
    )
    device = async_own_device(hass, builder.entry_id, "kettle.yaml")
    assert device is not None
    folder = tmp_path / "other"
    folder.mkdir()
    write_configuration(folder, "kettle")
    other = local_entry("other", folder, esphome)
    other.add_to_hass(hass)
    assert await hass.config_entries.async_setup(other.entry_id)

    (job,) = await async_act(
        hass,
        "validate",
        config_entry_id=builder.entry_id,
        device_id=device.id,
        wait=True,
    )
    error = await _async_error(
        hass, "validate", config_entry_id=other.entry_id, device_id=device.id
    )

    assert (job["entry_id"], job["configuration"]) == (builder.entry_id, "kettle.yaml")
    assert isinstance(error, ServiceValidationError)
    assert str(error) == f"other has no configuration for {device.name}"


async def _async_error(
    hass: HomeAssistant, action: str, *configurations: str, **data: object
) -> HomeAssistantError:
    """Return the error of an action, which must be one with a text."""
    with pytest.raises(HomeAssistantError) as caught:
        await async_act(hass, action, *configurations, context=None, **data)
    error = caught.value
    assert error.translation_domain in (DOMAIN, "homeassistant")
    assert str(error) != error.translation_key
    assert "{" not in str(error)
    return error


@pytest.mark.usefixtures("builder")
async def test_devices_that_cannot_be_built(
    hass: HomeAssistant, config_dir: Path, device_registry: dr.DeviceRegistry
) -> None:
    """It is said of which device there is no configuration, or more than one."""
    other = MockConfigEntry(domain="other")
    other.add_to_hass(hass)
    foreign = device_registry.async_get_or_create(
        config_entry_id=other.entry_id, identifiers={("other", "1")}, name="Foreign"
    )
    unknown = _device(hass, "unknown", "02:eb:00:00:00:09")
    kettle = _device(hass, "kettle", "02:eb:00:00:00:02")

    for device_id, name in (
        (foreign.id, "Foreign"),
        (unknown.id, "The unknown"),
        ("none", "none"),
    ):
        error = await _async_error(hass, "compile", device_id=[kettle.id, device_id])
        assert isinstance(error, ServiceValidationError)
        assert str(error) == f"esphome has no configuration for {name}"

    device_registry.async_update_device(kettle.id, name_by_user="My kettle")
    copy = (config_dir / "kettle.yaml").read_text()
    (config_dir / "another-kettle.yaml").write_text(copy)
    await async_act(hass, "validate", "another-kettle.yaml")
    error = await _async_error(hass, "compile", device_id=kettle.id)
    assert isinstance(error, ServiceValidationError)
    assert str(error) == (
        "Several configurations belong to My kettle: "
        "another-kettle.yaml, kettle.yaml. Name one of them"
    )
    await async_act(hass, "cancel", "another-kettle.yaml")


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize(
    ("action", "data", "message"),
    [
        ("compile", {}, "Name a configuration, a device or a job"),
        ("compile", {"configuration": []}, "Name a configuration, a device or a job"),
        ("cancel", {}, "Name a configuration, a device or a job"),
        (
            "compile",
            {"configuration": ["kettle.yaml", "none.yaml"]},
            "There is no configuration none.yaml",
        ),
        (
            "compile",
            {"configuration": "../kettle.yaml"},
            "There is no configuration ../kettle.yaml",
        ),
        (
            "cancel",
            {"configuration": "none.yaml"},
            "There is no configuration none.yaml",
        ),
        ("cancel", {"job_id": "none"}, "There is no job none"),
        (
            "compile",
            {"configuration": [f"{number}.yaml" for number in range(201)]},
            "This cannot be done. Between 1 and 200 configurations are needed.",
        ),
        (
            "upload",
            {"configuration": "kettle.yaml", "address": "-x"},
            "This cannot be done. The address must be a host name or an IP address.",
        ),
    ],
)
async def test_mistakes_are_explained(
    hass: HomeAssistant, action: str, data: dict[str, Any], message: str
) -> None:
    """A mistake of the caller is said in words, and starts nothing."""
    error = await _async_error(hass, action, **data)

    assert isinstance(error, ServiceValidationError)
    assert str(error) == message
    assert shown(hass, STATUS).state == "idle"


async def test_the_builder_can_be_left_out_where_there_is_one(
    hass: HomeAssistant, builder: MockConfigEntry, esphome: Path, tmp_path: Path
) -> None:
    """With no builder, or more than one, none is guessed."""
    other = local_entry("devices", tmp_path, esphome)
    other.add_to_hass(hass)
    assert await hass.config_entries.async_setup(other.entry_id)
    error = await _async_error(hass, "validate", "kettle.yaml")
    assert isinstance(error, ServiceValidationError)
    assert error.translation_key == "builder_not_named"
    (job,) = await async_act(
        hass, "validate", "kettle.yaml", config_entry_id=builder.entry_id
    )
    assert job["entry_id"] == builder.entry_id

    await hass.config_entries.async_unload(other.entry_id)
    (job,) = await async_act(hass, "validate", "kettle.yaml", wait=True)
    assert job["entry_id"] == builder.entry_id
    error = await _async_error(
        hass, "validate", "kettle.yaml", config_entry_id=other.entry_id
    )
    assert error.translation_key == "service_config_entry_not_loaded"
    error = await _async_error(hass, "validate", "kettle.yaml", config_entry_id="none")
    assert error.translation_key == "service_config_entry_not_found"

    await hass.config_entries.async_unload(builder.entry_id)
    error = await _async_error(hass, "validate", "kettle.yaml")
    assert error.translation_key == "builder_not_named"


@pytest.mark.usefixtures("builder")
async def test_a_builder_that_is_unavailable_says_why(
    hass: HomeAssistant, outage: Outage
) -> None:
    """Where ESPHome is gone nothing can be started, which is not the caller's fault."""
    await outage.begin()
    await async_until_state(hass, STATUS, "unavailable")

    error = await _async_error(hass, "compile", configuration="kettle.yaml")

    assert not isinstance(error, ServiceValidationError)
    assert re.fullmatch(rf"The builder is not available\. {outage.reason}", str(error))


@pytest.mark.usefixtures("builder")
async def test_clean_all(
    hass: HomeAssistant, builder: MockConfigEntry, esphome: Path
) -> None:
    """Every configuration is cleaned, and the response tells how that ended."""
    names = list(builder.runtime_data.builder.configurations)

    jobs = await async_act(hass, "clean_all", wait=True)

    assert _statuses(jobs) == [(name, "clean", "completed") for name in names]
    assert len(fake_calls(esphome, "clean")) == len(names)


@pytest.mark.usefixtures("builder")
async def test_clean_all_does_not_wait(
    hass: HomeAssistant, porch: str, builder: MockConfigEntry
) -> None:
    """Without `wait` the jobs are returned as they are now, also for one builder."""
    await async_act(hass, "validate", porch)
    context = Context()

    jobs = await async_act(
        hass, "clean_all", config_entry_id=builder.entry_id, context=context
    )

    (job,) = (job for job in jobs if job["configuration"] == porch)
    assert (job["kind"], job["status"]) == ("clean", "queued")
    assert job["requested_by"] == {
        "user_id": None,
        "context_id": context.id,
        "unattended": True,
    }
    await async_act(hass, "cancel", porch)


@pytest.mark.usefixtures("builder")
async def test_only_administrators_may_clean_all(
    hass: HomeAssistant, hass_read_only_user: MockUser, esphome: Path
) -> None:
    """It is a lot of work for everybody else."""
    with pytest.raises(Unauthorized):
        await async_act(
            hass, "clean_all", context=Context(user_id=hass_read_only_user.id)
        )
    assert fake_calls(esphome, "clean") == []


async def test_clean_all_needs_a_builder(hass: HomeAssistant) -> None:
    """An automation with it is valid before any builder is loaded, and then told."""
    assert await async_setup_component(hass, DOMAIN, {})

    error = await _async_error(hass, "clean_all")

    assert error.translation_key == "builder_not_named"


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("action", [*ACTIONS, "cancel"])
async def test_only_administrators_may(
    hass: HomeAssistant,
    hass_admin_user: MockUser,
    hass_read_only_user: MockUser,
    esphome: Path,
    action: str,
) -> None:
    """A user has to be an administrator; an automation need not be a user at all."""
    for user_id in (hass_read_only_user.id, MockUser(name="Joe").add_to_hass(hass).id):
        with pytest.raises(Unauthorized):
            await async_act(
                hass, action, "kettle.yaml", context=Context(user_id=user_id)
            )
    assert shown(hass, STATUS).state == "idle"
    assert fake_calls(esphome, "--dashboard") == []

    for context in (Context(), Context(user_id=hass_admin_user.id)):
        await async_act(hass, action, "kettle.yaml", context=context)


async def test_actions_are_there_without_a_builder(hass: HomeAssistant) -> None:
    """An automation with such an action is valid before any builder is loaded."""
    assert await async_setup_component(hass, DOMAIN, {})

    for action in (*ACTIONS, "cancel"):
        error = await _async_error(hass, action, configuration="kettle.yaml")
        assert error.translation_key == "builder_not_named"


@pytest.mark.usefixtures("builder")
async def test_cancel_what_is_named(
    hass: HomeAssistant,
    porch: str,
    config_dir: Path,
    steps: Steps,
    processes_of: ProcessesOf,
) -> None:
    """All jobs of a configuration are ended, and no job of another one."""
    attic = write_configuration(config_dir, "attic", "sleep inf")
    await async_act(hass, "validate", attic)
    jobs = await async_act(hass, "install", porch)
    jobs += await async_act(hass, "validate", porch)

    ended = await async_act(hass, "cancel", porch)

    assert [job["job_id"] for job in ended] == [job["job_id"] for job in jobs]
    assert {(job["status"], job["cause"]) for job in ended} == {
        ("cancelled", "cancelled_by_user")
    }
    assert processes_of(*jobs) == set()
    # Nothing that waited was started for a moment.
    assert [steps.of(job) for job in jobs] == [
        ["queued", "started", "cancelled"],
        ["queued", "cancelled"],
        ["queued", "cancelled"],
    ]
    assert shown(hass, STATUS).state == "validating"
    assert await async_act(hass, "cancel", porch) == []


@pytest.mark.usefixtures("builder")
async def test_cancel_jobs_and_devices(
    hass: HomeAssistant, porch: str, config_dir: Path
) -> None:
    """Jobs can be named, and devices; of a configuration that is gone as well."""
    compiling, uploading = await async_act(hass, "install", porch)
    async with asyncio.timeout(PATIENCE):
        while not (config_dir / "started").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    (config_dir / porch).unlink()
    device = _device(hass, "kettle", "02:eb:00:00:00:02")
    (queued,) = await async_act(hass, "compile", "kettle.yaml")

    (ended,) = await async_act(hass, "cancel", job_id=[uploading["job_id"]])
    assert ended["job_id"] == uploading["job_id"]
    assert shown(hass, STATUS).state == "compiling"

    ended_jobs = await async_act(
        hass, "cancel", porch, job_id=compiling["job_id"], device_id=device.id
    )

    assert [job["job_id"] for job in ended_jobs] == [
        compiling["job_id"],
        queued["job_id"],
    ]
    (again,) = await async_act(hass, "cancel", job_id=compiling["job_id"])
    assert again["status"] == "cancelled"


@pytest.mark.usefixtures("builder")
async def test_waiting_ends_with_a_cancel(
    hass: HomeAssistant, porch: str, steps: Steps
) -> None:
    """Whoever waits for jobs hears of their end, whoever ended them."""
    waiting = hass.async_create_task(async_act(hass, "install", porch, wait=True))
    await async_until_state(hass, STATUS, "compiling")

    await async_act(hass, "cancel", porch)

    assert [job["status"] for job in await waiting] == ["cancelled", "cancelled"]


async def test_waiting_ends_with_an_unload(
    hass: HomeAssistant, builder: MockConfigEntry, porch: str, left: str
) -> None:
    """Who waits learns what was interrupted, and what still waits to be run."""
    waiting = hass.async_create_task(async_act(hass, "install", porch, wait=True))
    await async_until_state(hass, STATUS, "compiling")

    await hass.config_entries.async_unload(builder.entry_id)

    assert [job["status"] for job in await waiting] == [left, "queued"]


@pytest.mark.usefixtures("builder")
async def test_waiting_ends_with_home_assistant(
    hass: HomeAssistant, porch: str, left: str
) -> None:
    """Home Assistant's stop does not have to wait for an action."""
    waiting = hass.async_create_task(async_act(hass, "install", porch, wait=True))
    await async_until_state(hass, STATUS, "compiling")

    hass.bus.async_fire(EVENT_HOMEASSISTANT_STOP)

    async with asyncio.timeout(10):
        jobs = await waiting
    assert [job["status"] for job in jobs] == [left, "queued"]


async def test_waiting_can_have_a_limit(
    hass: HomeAssistant, builder: MockConfigEntry, porch: str, steps: Steps
) -> None:
    """After it the jobs go on, and are told as they are; 0 is not to wait."""
    jobs = await async_act(hass, "install", porch, wait=True, timeout=0)
    (first, second) = jobs
    await steps.until(first, "started")

    jobs = await async_act(hass, "install", porch, wait=True, timeout={"seconds": 0.01})

    assert [job["job_id"] for job in jobs] == [first["job_id"], second["job_id"]]
    assert [job["status"] for job in jobs] == ["running", "queued"]
    assert steps.of(first) == ["queued", "started"]
    (job,) = await async_act(hass, "validate", "kettle.yaml", wait=True, timeout=600)
    assert job["status"] == "completed"


async def test_who_stops_waiting_stops_no_job(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path, steps: Steps
) -> None:
    """A script that is stopped while it waits leaves the build, and no listener."""
    go = config_dir / "go"
    porch = write_configuration(config_dir, "porch", f"wait {go}")
    listeners = list(builder.runtime_data.builder._listeners)
    waiting = asyncio.create_task(async_act(hass, "compile", porch, wait=True))
    await eventually(lambda: builder.runtime_data.builder._listeners != listeners)

    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert builder.runtime_data.builder._listeners == listeners
    await async_until_state(hass, STATUS, "compiling")

    go.touch()
    (job,) = await async_act(hass, "compile", porch, wait=True)
    assert steps.of(job) == ["queued", "started", "completed"]


@pytest.mark.usefixtures("builder")
async def test_waiting_for_many(hass: HomeAssistant, config_dir: Path) -> None:
    """Jobs of a busy builder wait in their queue, and each is returned when all end."""
    names = [f"room{number}" for number in range(8)]
    for name in names:
        write_configuration(config_dir, name)

    jobs = await async_act(
        hass, "compile", *(f"{name}.yaml" for name in names), wait=True
    )

    assert [job["status"] for job in jobs] == ["completed"] * 8
    assert shown(hass, QUEUED).state == "0"
