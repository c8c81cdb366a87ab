"""Build servers behind a server: where a job runs is said, and what losing one means.

All is real: two servers, paired as the server's own page pairs them, and ESPHome.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from pathlib import Path
import re
import shutil
import signal
import sys
from typing import Final

from aiohttp import ClientSession
import pytest
from pytest_socket import enable_socket

from custom_components.esphome_builds.builds.models import (
    Cause,
    Job,
    JobStatus,
    Phase,
)

from ..clients import eventually
from ..e2e.device import Device
from ..e2e.server import ROOT
from ..fakes import write_configuration
from . import host_esphome
from .conftest import Connect, Tenant
from .peer import PATIENCE, Peer, Proxy, Watcher, servers
from .test_jobs import followed, lines_of

pytestmark = pytest.mark.real

LABEL: Final = "attic"
LAMP: Final = "night-light.yaml"
PORT: Final = 16055
SECONDS: Final = 150

_C = JobStatus.COMPLETED
_Q = JobStatus.QUEUED
_R = JobStatus.RUNNING
_KEY: Final = re.compile(r"detects this server\):\s+(\S+)")
_WAITS: Final = "It waits for a build server."
_THERE: Final = f"It runs on the build server {LABEL}."
_LOST: Final = f"The build server {LABEL} was lost during the build."


def make_peer(folder: Path, packages: Path, *, headless: bool) -> Peer:
    """Return a server whose builds can travel."""
    peer = Peer(folder, packages, fake=True, headless=headless)
    script = folder / "environment" / "bin" / "esphome"
    script.write_text(
        "#!/bin/sh\n"
        f'exec "{sys.executable}" -S -E "{host_esphome.__file__}"'
        f' "{ROOT}/.local/peer/bin/esphome" "{peer.fake}" "$@"\n'
    )
    return peer


@pytest.fixture(scope="module")
def attic(tmp_path_factory: pytest.TempPathFactory, version: str) -> Generator[Peer]:
    """Return a server that only builds for another."""
    enable_socket()
    packages = servers()[version]
    attic = make_peer(tmp_path_factory.mktemp("attic"), packages, headless=True)
    attic.start()
    yield attic
    attic.stop()


@pytest.fixture(scope="module")
def peer(
    tmp_path_factory: pytest.TempPathFactory, version: str, attic: Peer
) -> Generator[Peer]:
    """Return a server that lets the other build."""
    packages = servers()[version]
    peer = make_peer(tmp_path_factory.mktemp("main"), packages, headless=False)
    for name in ("common.yaml", LAMP):
        shutil.copy(ROOT / "examples" / name, peer.config_dir)
    peer.start()
    asyncio.run(pair(peer, attic))
    yield peer
    peer.stop()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until what has to be asked for is true."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - nothing tells when it is
            await asyncio.sleep(0.05)


async def pair(peer: Peer, attic: Peer) -> None:
    """Do what the user does in the server's page, with the key that was printed."""
    await eventually(lambda: _KEY.search(attic.log))
    (key,) = _KEY.findall(attic.log)
    place = {"hostname": "127.0.0.1", "port": attic.port}
    async with ClientSession() as session:
        watcher = await Watcher.connect(session, peer)
        found = await watcher.call("remote_build/preview_pair", **place)
        await watcher.call(
            "remote_build/request_pair",
            **place,
            pin_sha256=found["pin_sha256"],
            receiver_label=LABEL,
            offloader_label="main",
            pairing_key=key,
        )
        await watcher.close()


async def connected(watcher: Watcher) -> None:
    """Wait until the build server can be used."""

    async def _connected() -> bool:
        settings = await watcher.call("remote_build/get_offloader_settings")
        return bool(settings["pairings"][0]["connected"])

    await until(_connected)


@pytest.fixture(autouse=True)
async def patient(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have patience for a compiler, and begin when the build server is there."""
    monkeypatch.setattr("tests.builds.tenant.PATIENCE", SECONDS)
    await connected(watcher)


@pytest.fixture
async def tenant(peer: Peer, connect: Connect, patient: None) -> AsyncGenerator[Tenant]:
    """Return a builder that takes jobs."""
    async with connect(peer.url) as tenant:
        yield tenant


@pytest.fixture
async def proxy(peer: Peer) -> AsyncGenerator[Proxy]:
    """Return what stands between us and the server."""
    proxy = await Proxy(peer.port).start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def mortal(attic: Peer, tmp_path: Path) -> AsyncGenerator[Peer]:
    """Return the build server, which is there again afterwards."""
    yield attic
    # Nobody else ends what a killed one has begun.
    (tmp_path / "go").touch()
    attic.stop(signal.SIGKILL)
    await asyncio.to_thread(attic.start)


@pytest.fixture
async def only_remote(watcher: Watcher) -> AsyncGenerator[None]:
    """Let nothing be built on the server itself."""
    command = "remote_build/set_offloader_settings"
    await watcher.call(command, version_match_policy="exact_required")
    yield
    await watcher.call(command, version_match_policy="any")


def states(tenant: Tenant, job: Job) -> list[tuple[JobStatus, str | None, int]]:
    """Return what was told of a job: status, message and attempt, each change once."""
    told: list[tuple[JobStatus, str | None, int]] = []
    for state in tenant.history(job):
        now = (state.status, state.message, state.attempt)
        if told[-1:] != [now]:
            told.append(now)
    # It may be one of the server's already when it is told first.
    return told[1:] if told[0] == (_Q, None, 1) else told


def processes(name: str) -> list[str]:
    """Return the processes of the build server that compile a configuration."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return [
        line
        for line in found
        if "\0compile\0" in line and ".remote_builds" in line and name in line
    ]


async def began(tenant: Tenant, job: Job, times: int = 1) -> None:
    """Wait until the build server has begun a build so often."""

    async def _began() -> bool:
        return (await tenant.lines(job)).count("began") >= times

    await until(_began)


async def test_build_and_flash(
    peer: Peer, attic: Peer, tenant: Tenant, watcher: Watcher
) -> None:
    """A device is built on the build server and flashed from the server."""
    (build,) = await tenant.submit("compile", LAMP)
    lines = lines_of(await followed(tenant, build))
    build = tenant.job(build)
    there = f"It ran on the build server {LABEL}."
    assert states(tenant, build) == [(_Q, _WAITS, 1), (_R, _THERE, 1), (_C, there, 1)]
    assert (build.exit_code, build.cause, build.phase) == (0, None, None)
    assert Phase.COMPILING in tenant.phases(build)
    # All is what the server's own followers get.
    (theirs,) = await watcher.call("firmware/get_jobs", configuration=LAMP)
    told, _ = await watcher.collect("firmware/follow_job", job_id=theirs["job_id"])
    text = "".join(told).replace("\\033[", "\x1b[").removesuffix("\n")
    assert [*lines.values()] == text.split("\n")
    place = str(attic.config_dir)
    assert any("Successfully compiled" in line for line in lines.values())
    assert any(place in line for line in lines.values())

    (brought,) = peer.config_dir.glob(".esphome/build/*/.pioenvs/*/firmware.bin")
    program = brought.with_name("device")
    shutil.copy(brought, program)
    program.chmod(0o755)
    device = await Device.start(program, PORT)
    try:
        before = (await device.ask())["built"]
        file = peer.config_dir / LAMP
        file.write_text(file.read_text().replace("name: Lamp", "name: Lantern"))
        jobs = await tenant.submit("install", LAMP, address="127.0.0.1")
        build, upload = await tenant.ended(*jobs)
        assert (build.status, build.message) == (_C, there)
        assert (upload.status, upload.message) == (_C, None)

        async def _new() -> bool:
            return bool((await device.ask())["built"] != before)

        # It answers until it has restarted.
        await until(_new)
    finally:
        await device.stop()


async def test_cancel(peer: Peer, tenant: Tenant, tmp_path: Path) -> None:
    """A job that is canceled has ended on the build server, too."""
    name = write_configuration(
        peer.config_dir, "cancel", "print began", f"wait {tmp_path}/go"
    )
    (job,) = await tenant.submit("compile", name)
    await began(tenant, job)
    assert tenant.job(job).message == _THERE
    assert processes(name)

    job = await tenant.builder.cancel(job.job_id)

    assert (job.status, job.cause) == (JobStatus.CANCELLED, Cause.CANCELLED_BY_USER)
    await tenant.until(lambda: not processes(name))


async def test_failure(peer: Peer, tenant: Tenant) -> None:
    """Why a build failed there, or did not come back, is said here."""
    full = write_configuration(
        peer.config_dir,
        "full",
        "print cc1plus: No space left on device",
        "exit 1",
    )
    silent = write_configuration(peer.config_dir, "silent", "exit 1")
    nothing = write_configuration(peer.config_dir, "nothing", "print x")
    for name, cause, words in (
        (full, Cause.DISK_FULL, "The disk is full"),
        (silent, Cause.UNKNOWN, f"Compiling failed on the build server {LABEL}"),
        (nothing, Cause.UNKNOWN, f"What the build server {LABEL} built could not"),
    ):
        job = await tenant.run("compile", name)
        assert (job.status, job.cause) == (JobStatus.FAILED, cause)
        assert job.message is not None
        assert job.message.startswith(words)


@pytest.mark.usefixtures("impatient")
async def test_no_answer(
    peer: Peer, proxy: Proxy, connect: Connect, watcher: Watcher, tmp_path: Path
) -> None:
    """A request whose answer was lost is found where it runs, and not sent again."""
    name = write_configuration(
        peer.config_dir, "unanswered", "print began", f"wait {tmp_path}/go", "exit 1"
    )
    async with connect(f"http://127.0.0.1:{proxy.port}") as tenant:
        proxy.silent = True
        (job,) = await tenant.submit("compile", name)
        await tenant.until(lambda: bool(processes(name)))
        assert tenant.job(job).message is None
        proxy.silent = False
        proxy.cut()
        await tenant.until(lambda: tenant.job(job).message == _THERE)
        (tmp_path / "go").touch()
        await tenant.ended(job)
    assert len(await watcher.call("firmware/get_jobs", configuration=name)) == 1


async def test_killed(peer: Peer, mortal: Peer, tenant: Tenant, tmp_path: Path) -> None:
    """A build whose build server was killed is done again by the server itself."""
    name = write_configuration(
        peer.config_dir, "killed", "print began", f"wait {tmp_path}/go"
    )
    (job,) = await tenant.submit("compile", name)
    await began(tenant, job)

    mortal.stop(signal.SIGKILL)
    await began(tenant, job, 2)
    (tmp_path / "go").touch()
    (job,) = await tenant.ended(job)

    assert states(tenant, job) == [
        (_Q, _WAITS, 1),
        (_R, _THERE, 1),
        (_R, None, 2),
        (_C, None, 2),
    ]
    assert any("build server lost" in line for line in await tenant.lines(job))


async def test_killed_before_it_was_sent(
    peer: Peer, mortal: Peer, tenant: Tenant
) -> None:
    """The server gives up where the build server is not there to be sent a build."""
    name = write_configuration(peer.config_dir, "unsent")
    (build, upload) = await tenant.submit("install", name, address="127.0.0.1")
    # The server is busy with what is to be sent for a while.
    await tenant.until(lambda: tenant.job(build).message == _THERE)

    mortal.stop(signal.SIGKILL)
    build, upload = await tenant.ended(build, upload)

    assert (build.status, build.cause) == (
        JobStatus.FAILED,
        Cause.BUILDER_UNAVAILABLE,
    )
    assert build.message == _LOST
    assert (upload.status, upload.cause) == (
        JobStatus.CANCELLED,
        Cause.PREREQUISITE_FAILED,
    )


@pytest.mark.usefixtures("impatient", "only_remote")
async def test_killed_again_and_again(
    peer: Peer, mortal: Peer, tenant: Tenant, tmp_path: Path
) -> None:
    """What is to be built on build servers waits for one, and fails after four."""
    name = write_configuration(
        peer.config_dir, "doomed", "print began", f"wait {tmp_path}/go"
    )
    (job,) = await tenant.submit("compile", name)
    for attempt in (1, 2, 3):
        await began(tenant, job, attempt)
        mortal.stop(signal.SIGKILL)
        if attempt == 1:
            await tenant.until(lambda: tenant.job(job).status is _Q)
        await asyncio.to_thread(mortal.start)
    await began(tenant, job, 4)
    mortal.stop(signal.SIGKILL)
    (job,) = await tenant.ended(job)

    told = states(tenant, job)
    assert told[:4] == [
        (_Q, _WAITS, 1),
        (_R, _THERE, 1),
        (_Q, _WAITS, 2),
        (_R, _THERE, 2),
    ]
    assert told[-1] == (JobStatus.FAILED, _LOST, 2)
    assert job.cause is Cause.BUILDER_UNAVAILABLE
