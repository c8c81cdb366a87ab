"""Asking for another ESPHome and for an older firmware, by action and by websocket."""

from pathlib import Path
from typing import Any

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
)

from custom_components.esphome_builds.const import DOMAIN
from custom_components.esphome_builds.local import cache_dir
from homeassistant.components.recorder import Recorder
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import (
    HomeAssistantError,
    ServiceValidationError,
    Unauthorized,
)
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
from homeassistant.util.dt import utcnow

from .builds.local.test_firmware import Builds
from .clients import Client, CommandError
from .conftest import Connect
from .fakes import FAKE_VERSION, FakeUv, fake_calls
from .helpers import (
    BUILDS,
    DURATION,
    LAST_BUILD,
    STATUS,
    VERSION,
    Steps,
    async_act,
    async_until_state,
    shown,
)

NEWER = "2026.11.1"


@pytest.fixture
async def client(managed: MockConfigEntry, connect: Connect) -> Client:
    """Return a connection of an administrator, with a builder that has its ESPHome."""
    return await connect()


async def _async_go_back(
    hass: HomeAssistant, context: Context | None = None, **data: str
) -> object:
    """Call the action that goes back, and return its response."""
    return await hass.services.async_call(
        DOMAIN, "go_back", data, blocking=True, return_response=True, context=context
    )


async def test_an_action_installs_and_another_goes_back(
    hass: HomeAssistant, managed: MockConfigEntry, hass_admin_user: MockUser
) -> None:
    """The response of the one is a job, that of the other a version."""
    context = Context(user_id=hass_admin_user.id)
    (job,) = await async_act(
        hass, "install_esphome", version=NEWER, wait=True, context=context
    )

    assert (job["kind"], job["status"]) == ("install_esphome", "completed")
    assert (job["configuration"], job["esphome_version"]) == ("", NEWER)
    assert job["requested_by"]["user_id"] == hass_admin_user.id
    await async_until_state(hass, VERSION, NEWER)

    entry_id = managed.entry_id
    assert await _async_go_back(hass, config_entry_id=entry_id) == {
        "version": FAKE_VERSION
    }
    await async_until_state(hass, VERSION, FAKE_VERSION)
    await hass.services.async_call(DOMAIN, "go_back", {}, blocking=True)
    await async_until_state(hass, VERSION, NEWER)


@pytest.mark.usefixtures("managed")
async def test_an_action_installs_the_latest(hass: HomeAssistant, uv: FakeUv) -> None:
    """Without a version it is the latest, and without `wait` the action is quick."""
    uv.offer(NEWER)
    uv.block("latest: ")

    (job,) = await async_act(hass, "install_esphome")

    assert job["esphome_version"] is None
    await async_until_state(hass, STATUS, "installing")
    uv.go()
    await async_until_state(hass, VERSION, NEWER)


@pytest.mark.usefixtures("managed")
async def test_a_failure_is_in_the_response(hass: HomeAssistant, uv: FakeUv) -> None:
    """As with builds, the action did what it was asked for."""
    uv.script("install: print No space left on device", "install: exit 2")

    (job,) = await async_act(hass, "install_esphome", version=NEWER, wait=True)

    assert (job["status"], job["cause"]) == ("failed", "disk_full")
    assert shown(hass, VERSION).state == FAKE_VERSION


@pytest.mark.usefixtures("managed")
async def test_mistakes_are_explained(hass: HomeAssistant) -> None:
    """What is no version, or nothing to go back to, is the caller's mistake."""
    with pytest.raises(ServiceValidationError, match="'new' is not a version"):
        await async_act(hass, "install_esphome", version="new")
    with pytest.raises(ServiceValidationError, match="no other ESPHome to go back"):
        await _async_go_back(hass)


@pytest.mark.usefixtures("managed")
async def test_only_administrators_may(
    hass: HomeAssistant, hass_read_only_user: MockUser
) -> None:
    """A user has to be an administrator."""
    context = Context(user_id=hass_read_only_user.id)
    with pytest.raises(Unauthorized):
        await async_act(hass, "install_esphome", context=context)
    with pytest.raises(Unauthorized):
        await _async_go_back(hass, context)


async def test_the_esphome_of_somebody_else(
    hass: HomeAssistant, builder_kind: str, entry: MockConfigEntry, connect: Connect
) -> None:
    """Where it is not the builder's own, nothing changes it, and no entity shows it."""
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    with pytest.raises(ServiceValidationError) as caught:
        await async_act(hass, "install_esphome")
    assert caught.value.translation_key == "invalid_request"
    with pytest.raises(ServiceValidationError):
        await _async_go_back(hass)

    client = await connect()
    for command in ("install_esphome", "go_back"):
        with pytest.raises(CommandError) as refused:
            await client.call(f"esphome_builds/builders/{command}")
        assert refused.value.code == "not_allowed"
    entities = er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
    keys = {entity.translation_key for entity in entities}
    assert keys & {"cancel_all", "esphome", "go_back"} == {"cancel_all"}, builder_kind


async def test_websocket(client: Client, hass: HomeAssistant) -> None:
    """A page installs, follows, and goes back."""
    stream = await client.subscribe("esphome_builds/subscribe")
    result = await client.call("esphome_builds/builders/install_esphome", version=NEWER)
    job = await stream.until_job(result["job"]["job_id"], "completed")
    assert (job["kind"], job["esphome_version"]) == ("install_esphome", NEWER)
    lines, _ = await client.follow_to_end(job["job_id"])
    assert lines[-1] == f"Version: {NEWER}"
    found = await client.call("esphome_builds/jobs/list", kind="install_esphome")
    assert found["jobs"][0]["job_id"] == job["job_id"]
    await async_until_state(hass, VERSION, NEWER)
    (info,) = (await client.call("esphome_builds/builders/list"))["builders"]
    assert (info["managed"], info["previous_version"]) == (True, FAKE_VERSION)

    result = await client.call("esphome_builds/builders/go_back")

    assert result == {"version": FAKE_VERSION}
    await async_until_state(hass, VERSION, FAKE_VERSION)
    (info,) = (await client.call("esphome_builds/builders/list"))["builders"]
    assert info["previous_version"] == NEWER
    result = await client.call("esphome_builds/builders/install_esphome", version=None)
    await client.until_job(result["job"]["job_id"], "completed")


async def test_websocket_mistakes(client: Client) -> None:
    """They have the codes that the documents name."""
    for command, fields, code in (
        ("install_esphome", {"version": "new"}, "invalid_format"),
        ("install_esphome", {"entry_id": "none"}, "not_found"),
        ("go_back", {"entry_id": "none"}, "not_found"),
        ("go_back", {}, "not_allowed"),
    ):
        with pytest.raises(CommandError) as caught:
            await client.call(f"esphome_builds/builders/{command}", **fields)
        assert caught.value.code == code, command


async def test_an_installation_is_no_build(hass: HomeAssistant, client: Client) -> None:
    """The event tells of it without a configuration; the last build stays the last."""
    (build,) = await async_act(hass, "validate", "kettle.yaml", wait=True)
    await async_until_state(hass, LAST_BUILD, "completed")
    duration = shown(hass, DURATION).state

    (job,) = await async_act(hass, "install_esphome", version=NEWER, wait=True)

    await async_until_state(hass, VERSION, NEWER)
    assert shown(hass, LAST_BUILD).attributes["job_id"] == build["job_id"]
    assert shown(hass, DURATION).state == duration
    attributes = shown(hass, BUILDS).attributes
    assert attributes["job_id"] == job["job_id"]
    assert (attributes["event_type"], attributes["kind"]) == (
        "completed",
        "install_esphome",
    )
    assert attributes["configuration"] is None


async def test_the_last_build_after_a_restart(
    hass: HomeAssistant, managed: MockConfigEntry
) -> None:
    """Nor is an installation the last build where the list of jobs was read."""
    (build,) = await async_act(hass, "validate", "kettle.yaml", wait=True)
    await async_act(hass, "install_esphome", version=NEWER, wait=True)

    assert await hass.config_entries.async_reload(managed.entry_id)

    state = await async_until_state(hass, LAST_BUILD, "completed")
    assert state.attributes["job_id"] == build["job_id"]


@pytest.fixture
async def logbook(recorder_mock: Recorder, hass: HomeAssistant) -> None:
    """Set the logbook up, before anybody connects."""
    assert await async_setup_component(hass, "logbook", {})


@pytest.mark.usefixtures("logbook")
async def test_the_logbook_names_the_version(
    hass: HomeAssistant, uv: FakeUv, managed: MockConfigEntry, connect: Connect
) -> None:
    """It tells what is installed, as far as that is known."""
    client = await connect()
    since = utcnow()
    uv.offer(NEWER)
    uv.script("install: exit 2")

    (job,) = await async_act(hass, "install_esphome", wait=True)

    await async_wait_recording_done(hass)
    entries = await client.call("logbook/get_events", start_time=since.isoformat())
    assert [
        (entry["name"], entry["message"])
        for entry in entries
        if entry.get("domain") == DOMAIN and entry["when"] >= since.timestamp()
    ] == [
        ("ESPHome", "installation is waiting for its turn"),
        ("ESPHome", "installation started"),
        (f"ESPHome {NEWER}", f"installation failed: {job['message']}"),
    ]


@pytest.mark.local_only("what a server built is not kept here")
@pytest.mark.parametrize("way", ["action", "websocket"])
async def test_an_older_firmware_is_sent(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    connect: Connect,
    esphome: Path,
    way: str,
) -> None:
    """An upload can name the build whose firmware it sends."""
    builds = Builds(cache_dir(hass, builder.entry_id))
    steps = Steps(hass)
    job_ids = []
    for content in (b"first", b"second"):
        builds.build(content, "kettle.yaml")
        (job,) = await async_act(hass, "compile", "kettle.yaml", wait=True)
        job_ids.append(job["job_id"])

    if way == "action":
        (job,) = await async_act(
            hass, "upload", "kettle.yaml", job_id=job_ids[0], wait=True
        )
    else:
        client = await connect()
        (job,) = await client.submit("upload", "kettle.yaml", job_id=job_ids[0])
        job = await steps.until(job, "completed")

    assert (job["status"], job["firmware_job_id"]) == ("completed", job_ids[0])
    (call,) = fake_calls(esphome, "upload")
    assert f"firmware/{job_ids[0]}/" in " ".join(call)


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize(
    ("action", "data"),
    [
        ("upload", {"configuration": "kettle.yaml", "job_id": "none"}),
        (
            "upload",
            {"configuration": ["kettle.yaml", "greenhouse.yaml"], "job_id": "1"},
        ),
    ],
)
async def test_firmware_that_is_not_kept(
    hass: HomeAssistant, action: str, data: dict[str, Any], esphome: Path
) -> None:
    """Nothing is sent instead of what was named."""
    with pytest.raises(HomeAssistantError, match="This cannot be done"):
        await async_act(hass, action, **data)

    assert fake_calls(esphome, "upload") == []
