"""A builder that had nothing: it installs ESPHome, builds, upgrades, and goes back."""

import asyncio
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
import shutil
import sysconfig
from typing import Any, Final
from urllib.request import Request, urlopen

import pytest

from ..clients import Client, eventually
from .conftest import Connect
from .device import Device
from .server import ROOT, Server

pytestmark = pytest.mark.real

API_PORT: Final = 16057
LOCALHOST: Final = "127.0.0.1"
NAME: Final = "weather-station.yaml"
# Of older releases none can build for `host` without downloads.
OLDER: Final = "2026.10.0b3"
# Other tests have the same device, at the same time.
PORTS: Final = {API_PORT: 16053, 18270: 18266}
UPDATE: Final = "update.esphome_builds_esphome_esphome"

# What uv and pip would obey if they were let.
_HOSTILE: Final = {
    "pip.conf": "[global]\nindex-url = file:///nowhere\ntarget = /nowhere\n",
    "pyproject.toml": '[tool.uv]\nindex-url = "file:///nowhere"\n',
    "uv.toml": 'index-url = "file:///nowhere"\n[pip]\nsystem = true\n',
}


def packages() -> dict[str, tuple[int, int]]:
    """Return size and time of all files of Home Assistant's own environment."""
    # What Python compiles at the first import is no change.
    folder = Path(sysconfig.get_path("purelib"))
    found = [*folder.rglob("*"), *Path(sysconfig.get_path("scripts")).iterdir()]
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in found
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    """Return a server in hostile surroundings, without any ESPHome on its path."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    server = Server(
        tmp_path / "server",
        environment={"UV_SYSTEM_PYTHON": "true", "VIRTUAL_ENV": str(foreign)},
    )
    for name, text in _HOSTILE.items():
        (server.folder / name).write_text(text)
    shutil.copy(ROOT / "examples" / "common.yaml", server.config_dir)
    text = (ROOT / "examples" / NAME).read_text()
    for ours, theirs in PORTS.items():
        text = text.replace(f"port: {theirs}", f"port: {ours}")
    (server.config_dir / NAME).write_text(text)
    server.start()
    yield server
    server.destroy()
    assert list(foreign.iterdir()) == []


@pytest.fixture
async def client(server: Server, connect: Connect) -> Client:
    """Return a connection of the administrator."""
    return await connect(server)


async def end_of(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Follow a job to its end, which has to be a good one; return it."""
    lines, end = await client.follow_to_end(job["job_id"])
    found: dict[str, Any] = end["job"]
    assert found["status"] == "completed", (found["message"], lines[-20:])
    assert found["total_lines"] == len(lines) > 0
    return found


async def until_builder(client: Client, version: str) -> dict[str, Any]:
    """Return the builder once it builds with a version."""
    subscription = await client.subscribe("esphome_builds/subscribe")
    while True:
        event = await subscription.next()
        for info in event.get("builders", [event.get("builder")]):
            if info and (info["state"], info["esphome_version"]) == ("ready", version):
                await subscription.unsubscribe()
                found: dict[str, Any] = info
                return found


async def run(client: Client, kind: str, **fields: object) -> list[dict[str, Any]]:
    """Do something with the configuration; return its jobs at their end."""
    jobs = await client.submit(kind, NAME, **fields)
    return [await end_of(client, job) for job in jobs]


async def install_esphome(client: Client, version: str | None = None) -> dict[str, Any]:
    """Ask for an ESPHome; return the job."""
    wanted = {} if version is None else {"version": version}
    result = await client.call("esphome_builds/builders/install_esphome", **wanted)
    job: dict[str, Any] = result["job"]
    return job


def change_version(server: Server, before: str, after: str) -> None:
    """Make the firmware another one."""
    path = server.config_dir / NAME
    text = path.read_text()
    assert f"version: {before}" in text
    path.write_text(text.replace(f"version: {before}", f"version: {after}"))


def download(server: Server, path: str) -> bytes:
    """Return a file from Home Assistant."""
    request = Request(
        f"{server.url}{path}", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urlopen(request, timeout=60) as answer:
        content: bytes = answer.read()
        return content


async def begin(server: Server, client: Client) -> str:
    """Add a builder that has nothing, and follow what it does; return its version."""
    await asyncio.to_thread(server.add_managed_builder)
    # It begins by itself; whoever asks for the same is told of that.
    job = await install_esphome(client)
    assert (job["kind"], job["configuration"]) == ("install_esphome", "")
    listed = await client.call("esphome_builds/jobs/list")
    assert [one["job_id"] for one in listed["jobs"]] == [job["job_id"]]
    version: str = (await end_of(client, job))["esphome_version"]
    info = await until_builder(client, version)
    assert (info["managed"], info["previous_version"]) == (True, None)
    return version


async def upgrade(server: Server, client: Client, latest: str) -> None:
    """Use the update entity, as the page with the updates does."""
    state = server.state(UPDATE)
    assert state["state"] == "on"
    assert state["attributes"]["installed_version"] == OLDER
    assert state["attributes"]["latest_version"] == latest
    await asyncio.to_thread(
        server.request, "/api/services/update/install", {"entity_id": UPDATE}
    )
    await until_builder(client, latest)
    assert server.state(UPDATE)["state"] == "off"


async def flash_back(
    server: Server, client: Client, built: dict[str, Any], versions: tuple[str, str]
) -> None:
    """Download what a job built, and send it to the device."""
    result = await client.call("esphome_builds/firmware/list", configuration=NAME)
    kept = result["firmware"]
    assert tuple(one["version"] for one in kept) == versions
    assert kept[-1]["job_id"] == built["job_id"]
    file = kept[-1]["files"][0]
    path = f"/api/esphome_builds/jobs/{built['job_id']}/firmware/{file['name']}"
    content = await asyncio.to_thread(download, server, path)
    assert sha256(content).hexdigest() == file["sha256"]
    (upload,) = await run(client, "upload", job_id=built["job_id"], address=LOCALHOST)
    assert upload["firmware_job_id"] == built["job_id"]


async def test_from_nothing(server: Server, client: Client) -> None:
    """Install, build, flash, upgrade, build, flash, go back, flash what there was."""
    before = await asyncio.to_thread(packages)
    latest = await begin(server, client)
    assert latest != OLDER

    await end_of(client, await install_esphome(client, OLDER))
    info = await until_builder(client, OLDER)
    assert info["previous_version"] == latest
    (built,) = await run(client, "compile")
    assert built["esphome_version"] == OLDER
    device = await Device.start(server.built_program(NAME), API_PORT)
    try:
        assert (await device.ask())["version"] == "1.0.0"
        await upgrade(server, client, latest)

        change_version(server, "1.0.0", "1.1.0")
        compiled, _ = await run(client, "install", address=LOCALHOST)
        assert compiled["esphome_version"] == latest
        assert (await device.ask())["version"] == "1.1.0"

        back = await client.call("esphome_builds/builders/go_back")
        assert back == {"version": OLDER}
        await until_builder(client, OLDER)
        await flash_back(server, client, built, (latest, OLDER))
        assert (await device.ask())["version"] == "1.0.0"
    finally:
        await device.stop()
    assert await asyncio.to_thread(packages) == before


async def test_killed(server: Server, client: Client, connect: Connect) -> None:
    """An installation that was cut off with Home Assistant is made once more."""
    await asyncio.to_thread(server.add_managed_builder)
    server.wait_until_kept(server.entry_id)
    environments = server.cache / "esphome"
    await eventually(lambda: any(environments.glob("*/bin/python")))
    (job,) = (await client.call("esphome_builds/jobs/list"))["jobs"]
    await asyncio.to_thread(server.kill)
    (half,) = environments.glob("*/bin/python")

    await asyncio.to_thread(server.start)
    client = await connect(server)
    ended = await end_of(client, job)

    assert ended["attempt"] == 2
    await until_builder(client, ended["esphome_version"])
    assert not half.exists()
    await eventually(lambda: len(list(environments.glob("*/bin/python"))) == 1)
    assert server.processes() == []
