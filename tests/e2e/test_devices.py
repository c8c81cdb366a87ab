"""Devices that Home Assistant is connected to: outdated, updated, off and broken."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
import stat
from typing import Any, Final
from urllib.error import HTTPError

import pytest
from pytest_socket import enable_socket

from ..clients import Client, eventually
from .conftest import Connect
from .device import Device
from .server import ESPHOME, Server, wait_for

API_PORT: Final = 16058
OTA_PORT: Final = 18271
MAC: Final = "02:eb:00:00:00:58"
NAME: Final = "lamp.yaml"
UPDATE: Final = "update.lamp_firmware"
_CONFIGURATION: Final = f"""\
esphome:
  name: lamp
  friendly_name: Lamp
  project:
    name: esphome-builds.lamp
    version: 1.0.0
host:
  mac_address: "{MAC}"
logger:
api:
  port: {API_PORT}
  reboot_timeout: 0s
ota:
  - platform: esphome
    port: {OTA_PORT}
"""
# It ends right after it has started, like one that runs into an error again and again.
_BROKEN: Final = """\
  on_boot:
    - lambda: abort();
"""
_NEW: Final = b"2026.10.0"
_OLD: Final = b"2026.09.0"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Return a server with one configuration, which is built."""
    enable_socket()
    server = Server(tmp_path_factory.mktemp("home"), probe=True)
    (server.config_dir / NAME).write_text(_CONFIGURATION)
    server.start()
    server.add_builder(ESPHOME)
    yield server
    server.stop()


@pytest.fixture
async def client(home: Server, connect: Connect) -> Client:
    """Return a connection of the administrator."""
    return await connect(home)


def outdated(program: Path, folder: Path) -> Path:
    """Return a copy of a program that says of itself that it is older."""
    older = folder / "older"
    data = program.read_bytes()
    assert _NEW in data
    older.write_bytes(data.replace(_NEW, _OLD))
    older.chmod(older.stat().st_mode | stat.S_IXUSR)
    return older


def add_device(server: Server) -> None:
    """Add the device to Home Assistant, as its user does; once."""
    if "esphome" not in {entry["domain"] for entry in entries(server)}:
        server.add_device(API_PORT)


def entries(server: Server) -> list[dict[str, Any]]:
    """Return the entries of all integrations."""
    found: list[dict[str, Any]] = server.request("/api/config/config_entries/entry")
    return found


@asynccontextmanager
async def running(server: Server, program: Path) -> AsyncGenerator[Device]:
    """Let a device run, and let Home Assistant be connected to it."""
    device = await Device.start(program, API_PORT)
    try:
        await device.ask()
        await asyncio.to_thread(add_device, server)
        await until_online(server, online=True)
        yield device
    finally:
        await device.stop()


async def until_online(server: Server, *, online: bool) -> None:
    """Wait until Home Assistant knows whether the device is there."""
    await asyncio.to_thread(
        wait_for,
        lambda: server.state(UPDATE)["attributes"].get("online") is online,
        120,
    )


async def until(server: Server, entity_id: str, state: str) -> None:
    """Wait until an entity has a state."""
    await asyncio.to_thread(
        wait_for, lambda: server.state(entity_id)["state"] == state, 30
    )


async def build(client: Client) -> None:
    """Compile the configuration."""
    (job,) = await client.submit("compile", NAME)
    await client.until_job(job["job_id"], "completed")


async def jobs_of(client: Client) -> list[dict[str, Any]]:
    """Return the jobs there are, the newest first."""
    answer = await client.call("esphome_builds/jobs/list", configuration=NAME)
    jobs: list[dict[str, Any]] = answer["jobs"]
    return jobs


async def install(server: Server) -> None:
    """Press the button of the update entity."""
    await asyncio.to_thread(
        server.request, "/api/services/update/install", {"entity_id": UPDATE}
    )


async def test_outdated(home: Server, client: Client, tmp_path: Path) -> None:
    """A device that runs something older is updated, and everybody can watch."""
    await build(client)
    program = outdated(home.built_program(NAME), tmp_path)
    async with running(home, program) as device:
        await until(home, UPDATE, "on")
        shown = home.state(UPDATE)["attributes"]
        assert shown["installed_version"] == _OLD.decode()
        assert shown["latest_version"] == _NEW.decode()
        assert shown["friendly_name"] == "Lamp Firmware"
        await check_page(client)

        (job,) = await client.submit("clean", NAME)
        await client.until_job(job["job_id"], "completed")
        changes = await client.subscribe(
            "subscribe_trigger", trigger={"platform": "state", "entity_id": UPDATE}
        )
        await install(home)

        shown = home.state(UPDATE)
        assert shown["state"] == "off"
        assert shown["attributes"]["installed_version"] == _NEW.decode()
        assert shown["attributes"]["in_progress"] is False
        built = (await device.ask())["built"]
        assert built
    percentages = [
        change["variables"]["trigger"]["to_state"]["attributes"]["update_percentage"]
        for change in changes.waiting()
    ]
    rising = [percentage for percentage in percentages if percentage is not None]
    assert rising == sorted(rising)
    assert rising[0] == 0
    # With ccache, few steps of a compile take long enough to be told.
    assert {80, 95} <= set(rising)
    assert any(0 < percentage < 80 for percentage in rising)
    upload, compile_job = (await jobs_of(client))[:2]
    assert (upload["status"], upload["depends_on"]) == (
        "completed",
        compile_job["job_id"],
    )


async def check_page(client: Client) -> None:
    """Check that all entities are on the page of the ESPHome device."""
    devices = await client.call("config/device_registry/list")
    (lamp,) = (device for device in devices if ["mac", MAC] in device["connections"])
    registered = await client.call("config/entity_registry/list")
    ours = {
        entity["entity_id"]
        for entity in registered
        if entity["platform"] == "esphome_builds" and entity["device_id"] == lamp["id"]
    }
    assert ours == {
        "binary_sensor.lamp_pending_changes",
        "button.lamp_compile",
        "button.lamp_install",
        "event.lamp_build",
        "sensor.lamp_last_build",
        UPDATE,
    }
    assert not any(
        device["name"] == "Lamp" and device["id"] != lamp["id"] for device in devices
    )


@pytest.mark.parametrize("when", ["before", "while it is compiled"])
async def test_off(home: Server, client: Client, when: str, tmp_path: Path) -> None:
    """The upload waits for a device that is off, and nothing is compiled again."""
    await build(client)
    program = outdated(home.built_program(NAME), tmp_path)
    (home.config_dir / NAME).write_text(
        _CONFIGURATION.replace("1.0.0", f"2.0.{len(when)}")
    )
    async with running(home, program):
        await until(home, "binary_sensor.lamp_pending_changes", "on")
        if when != "before":
            installing = asyncio.create_task(install(home))
            await eventually(lambda: home.state(UPDATE)["attributes"]["in_progress"])
    if when == "before":
        await until_online(home, online=False)
        installing = asyncio.create_task(install(home))
    await installing
    upload, compile_job = (await jobs_of(client))[:2]
    assert (compile_job["kind"], compile_job["status"]) == ("compile", "completed")
    assert (upload["kind"], upload["status"]) == ("upload", "queued")
    assert upload["phase"] == "waiting"
    assert "off or asleep" in upload["message"]
    assert home.state(UPDATE)["attributes"]["in_progress"] is True

    async with running(home, program) as device:
        ended = await client.until_job(upload["job_id"], "completed", "failed")
        assert ended["status"] == "completed", ended["message"]
        assert (await device.ask())["version"] == f"2.0.{len(when)}"
    kinds = [job["kind"] for job in await jobs_of(client)]
    assert kinds[:2] == ["upload", "compile"]
    assert (await jobs_of(client))[1]["job_id"] == compile_job["job_id"]
    assert home.state("binary_sensor.lamp_pending_changes")["state"] == "off"


async def test_broken(home: Server, client: Client, tmp_path: Path) -> None:
    """A firmware with which the device does not come back is no success."""
    await build(client)
    program = outdated(home.built_program(NAME), tmp_path)
    await client.call(
        "probe/set",
        module="custom_components.esphome_builds.builds.verification",
        name="VERIFY_SECONDS",
        value=6,
    )
    async with running(home, program):
        await until(home, UPDATE, "on")
        (home.config_dir / NAME).write_text(
            _CONFIGURATION.replace("host:\n", f"{_BROKEN}host:\n", 1)
        )
        with pytest.raises(HTTPError) as error:
            await install(home)
        error.value.close()
    upload, _ = (await jobs_of(client))[:2]
    assert (upload["status"], upload["cause"]) == ("failed", "not_verified")
    assert "has not come back" in upload["message"]
    last = home.state("sensor.lamp_last_build")
    assert (last["state"], last["attributes"]["cause"]) == ("failed", "not_verified")
    issues = (await client.call("repairs/list_issues"))["issues"]
    assert any(
        one["issue_id"] == f"build_failed_{home.entry_id}_{NAME}" for one in issues
    )
