"""A real Home Assistant with a builder of each kind, both with real parts."""

import asyncio
from collections.abc import Generator
from pathlib import Path
import shutil
from typing import Any

import pytest
from pytest_socket import enable_socket

from ..clients import Client
from ..contract.peer import PASSWORD, USERNAME, Peer, servers
from .conftest import Connect
from .server import ESPHOME, ROOT, Server

pytestmark = pytest.mark.real


@pytest.fixture
def peer(tmp_path: Path) -> Generator[Peer]:
    """Return the newest Device Builder, with a login and with the examples."""
    enable_socket()
    newest = [*servers().values()][-1]
    peer = Peer(tmp_path / "peer", newest, fake=False, login=True)
    _copy_examples(peer.config_dir)
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    """Return a Home Assistant with the examples."""
    server = Server(tmp_path / "hass")
    _copy_examples(server.config_dir)
    server.start()
    yield server
    server.destroy()


async def test_side_by_side(server: Server, peer: Peer, connect: Connect) -> None:
    """Each builds on its own, with live output; one that is gone concerns one."""
    local = await asyncio.to_thread(server.add_builder, ESPHOME)
    remote = await asyncio.to_thread(
        server.add_device_builder,
        url=peer.url,
        username=USERNAME,
        password=PASSWORD,
    )
    client = await connect(server)
    await _until_ready(client, local, remote)

    jobs, lines = zip(
        *await asyncio.gather(
            *(_compile(client, entry_id) for entry_id in (local, remote))
        ),
        strict=True,
    )

    assert [job["entry_id"] for job in jobs] == [local, remote]
    for job, output in zip(jobs, lines, strict=True):
        assert job["status"] == "completed", job["message"]
        assert job["total_lines"] == len(output)
        assert "Successfully compiled" in output[-1]
    begun = max(job["started_at"] for job in jobs)
    assert begun < min(job["finished_at"] for job in jobs)

    peer.stop()
    await _until(client, remote, "unavailable")
    (job,) = await client.submit("validate", "greenhouse.yaml", entry_id=local)
    assert (await client.until_job(job["job_id"], "completed"))["entry_id"] == local
    peer.start()
    await _until(client, remote, "ready")
    page = await client.call("esphome_builds/jobs/list", entry_id=remote)
    assert [job["status"] for job in page["jobs"]] == ["completed"]
    assert PASSWORD not in server.log


async def _compile(client: Client, entry_id: str) -> tuple[dict[str, Any], list[str]]:
    """Compile the same example on a builder; return its end and its lines."""
    (job,) = await client.submit("compile", "greenhouse.yaml", entry_id=entry_id)
    lines, end = await client.follow_to_end(job["job_id"])
    return end["job"], lines


async def _until_ready(client: Client, *entry_ids: str) -> None:
    for entry_id in entry_ids:
        await _until(client, entry_id, "ready")


async def _until(client: Client, entry_id: str, state: str) -> None:
    """Return when a builder has a state."""
    async with asyncio.timeout(60):
        while True:
            answer = await client.call("esphome_builds/builders/list")
            states = {it["entry_id"]: it["state"] for it in answer["builders"]}
            if states[entry_id] == state:
                return
            await asyncio.sleep(0.1)


def _copy_examples(folder: Path) -> None:
    for file in (ROOT / "examples").glob("*.yaml"):
        shutil.copy(file, folder)
