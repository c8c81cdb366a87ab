"""The whole way with real parts: a real server, ESPHome, compiler and devices."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
import shutil
from typing import Final

import pytest
from pytest_socket import enable_socket

from custom_components.esphome_builds.builds.models import (
    Cause,
    JobKind,
    JobStatus,
    Phase,
)

from ..e2e.device import Device
from ..e2e.server import ROOT
from .conftest import Connect, Tenant
from .peer import Peer, Watcher, servers
from .test_jobs import followed, lines_of

pytestmark = pytest.mark.real

HOUSE: Final = "greenhouse.yaml"
PORT: Final = 16056
SECONDS: Final = 300

_C = JobStatus.COMPLETED


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory, version: str) -> Generator[Peer]:
    """Return a server that builds the examples."""
    enable_socket()
    peer = Peer(tmp_path_factory.mktemp("real"), servers()[version], fake=False)
    for file in (ROOT / "examples").glob("*.yaml"):
        shutil.copy(file, peer.config_dir)
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture
async def tenant(
    peer: Peer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Tenant]:
    """Return a builder with patience for a compiler."""
    monkeypatch.setattr("tests.builds.tenant.PATIENCE", SECONDS)
    async with connect(peer.url) as tenant:
        yield tenant


def program(peer: Peer) -> Path:
    """Return what was built."""
    build = peer.config_dir / ".esphome" / "build" / "greenhouse"
    return build / ".pioenvs" / "greenhouse" / "program"


async def test_build_and_flash(peer: Peer, tenant: Tenant, watcher: Watcher) -> None:
    """A device is built, flashed over the network, and runs what was built."""
    check = await tenant.run("validate", HOUSE)
    assert (check.status, check.exit_code) == (_C, 0)
    assert any("name: greenhouse" in line for line in await tenant.lines(check))

    (build,) = await tenant.submit("compile", HOUSE)
    lines = lines_of(await followed(tenant, build))
    build = tenant.job(build)
    assert (build.status, build.message) == (_C, None)
    assert Phase.COMPILING in tenant.phases(build)
    assert build.esphome_version
    # All is what the server's own followers get.
    (theirs,) = await watcher.call("firmware/get_jobs", configuration=HOUSE)
    told, _ = await watcher.collect("firmware/follow_job", job_id=theirs["job_id"])
    text = "".join(told).replace("\r\n", "\n").replace("\\033[", "\x1b[")
    expected = [it.rpartition("\r")[2] for it in text.removesuffix("\n").split("\n")]
    assert [*lines.values()] == expected

    device = await Device.start(program(peer), PORT)
    try:
        before = await device.ask()
        file = peer.config_dir / HOUSE
        file.write_text(file.read_text().replace("version: 1.0.0", "version: 1.1.0"))
        jobs = await tenant.submit("install", HOUSE, address="127.0.0.1")
        build, upload = await tenant.ended(*jobs)
        assert (build.status, upload.status) == (_C, _C), upload.message
        assert upload.kind is JobKind.UPLOAD
        # The first of them may be over before anybody can be told.
        assert {Phase.UPLOADING, Phase.VERIFYING} & {*tenant.phases(upload)}
        after = await device.ask()
        while after["version"] == before["version"]:
            # It answers until it has restarted.
            await asyncio.sleep(0.5)
            after = await device.ask()
        assert (before["version"], after["version"]) == ("1.0.0", "1.1.0")
    finally:
        await device.stop()

    upload = await tenant.run("upload", HOUSE, address="127.0.0.1")
    assert (upload.status, upload.cause) == (JobStatus.FAILED, Cause.DEVICE_OFFLINE)
    clean = await tenant.run("clean", HOUSE)
    assert clean.status is _C
    assert not program(peer).exists()


async def test_broken(peer: Peer, tenant: Tenant) -> None:
    """Why a configuration cannot be built is said with file and line."""
    (peer.config_dir / "broken.yaml").write_text(
        "esphome:\n  name: broken\nhost:\nlogger:\n  level: LOUD\n"
    )
    for kind in ("validate", "compile"):
        job = await tenant.run(kind, "broken.yaml")
        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.INVALID_CONFIG)
        assert job.message is not None
        assert "broken.yaml, line 5" in job.message
