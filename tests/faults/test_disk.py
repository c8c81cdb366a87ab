"""A disk that is full or read-only for a time, under the cache and the configurations.

The disks are small file systems in memory, so these tests need the right to mount.
"""

import asyncio
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
import re
import shutil
import subprocess
from typing import Any, Final

import pytest
from pytest_socket import enable_socket

from custom_components.esphome_builds.builds.log import FLUSH_SECONDS

from ..clients import eventually, following
from ..e2e.conftest import Connect
from ..e2e.server import ESPHOME, ROOT, Server
from ..fakes import fake_calls, install_fake, write_configuration
from . import aftermath
from .aftermath import ENDED
from .conftest import until_run

_BLOCKS: Final = (1024 * 1024, 4096)
# Less would be refused before a build starts.
_SIZE: Final = 1024 * 1024 * 1024
_LOG: Final = r"Cannot write the log .*No space left"
_JOBS: Final = r"Cannot write the list of jobs .*No space left"
_LOG_READ_ONLY: Final = r"Cannot write the log .*Read-only file system"
_READ_ONLY: Final = r"Cannot write the list of jobs .*Read-only file system"


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        """Use the one that is mounted there."""
        self.path = path
        self._filler = path / "filler"

    @contextmanager
    def full(self, but: int = 0) -> Generator[None]:
        """Leave no byte free, or so many, for a time."""
        with self._filler.open("wb", 0) as file:
            for block in map(bytes, _BLOCKS):
                with suppress(OSError):
                    while True:
                        file.write(block)
            file.truncate(file.tell() - but)
        try:
            yield
        finally:
            self._filler.unlink()

    @contextmanager
    def read_only(self) -> Generator[None]:
        """Take nothing at all for a time."""
        self._remount("ro")
        try:
            yield
        finally:
            self._remount("rw")

    def _remount(self, option: str) -> None:
        # Not possible for a moment if somebody writes just now.
        for _ in range(50):
            command = ["mount", "-o", f"remount,{option}", str(self.path)]
            if subprocess.run(command, check=False).returncode == 0:
                return
        raise AssertionError(option)


@contextmanager
def mounted(path: Path) -> Generator[Disk]:
    """Mount a disk; skip the test where that is not allowed."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"needs the right to mount a file system: {err}")
    try:
        yield Disk(path)
    finally:
        # Whoever still has a file open there does not keep it.
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Disk, Disk]]:
    """Return the disks of the cache and of the configurations."""
    folder = tmp_path_factory.mktemp("disks")
    with ExitStack() as stack:
        cache = stack.enter_context(mounted(folder / "server/.cache/esphome_builds"))
        configurations = stack.enter_context(mounted(folder / "configurations"))
        yield cache, configurations


@pytest.fixture(scope="module")
def on_disks(disks: tuple[Disk, Disk]) -> Generator[Server]:
    """Return a server whose cache and configurations are on small disks."""
    _, configurations = disks
    enable_socket()
    folder = configurations.path.parent
    server = Server(folder / "server", probe=True)
    server.config_dir = configurations.path
    server.start()
    server.add_builder(install_fake(folder), server.config_dir)
    server.wait_until_kept(server.entry_id)
    yield server
    server.kill()


@pytest.fixture
def cache(disks: tuple[Disk, Disk]) -> Disk:
    """Return the disk of jobs, logs and build trees."""
    return disks[0]


async def test_log(
    on_disks: Server, connect: Connect, cache: Disk, tmp_path: Path
) -> None:
    """The build goes on; what the disk did not take is a gap under its numbers."""
    full, free = tmp_path / "full", tmp_path / "free"
    script = ["lines 100", f"wait {full}", "lines 20000", f"wait {free}", "print end"]
    name = write_configuration(on_disks.config_dir, "porch", *script)
    client = await connect(on_disks)
    (job,) = await client.submit("compile", name)
    job_id = job["job_id"]
    follower = await client.follow(job_id)
    await client.until_line(job_id, "line 99")
    await until_log(on_disks, job_id)
    with cache.full():
        full.touch()
        await client.until_line(job_id, "line 19999", from_line=20_000)
        await eventually(
            lambda: "Cannot write the log" in on_disks.log, lambda: on_disks.log
        )
        # What came just after that is tried once more, too.
        await asyncio.sleep(2 * FLUSH_SECONDS)
    free.touch()
    ended = await client.until_job(job_id, "completed")

    # A follower had each line; who comes later is told how many are missing.
    early = [len(event.get("lines", ())) async for event in following(follower)]
    assert sum(early) == 20_101
    assert 15_000 < ended["elided_lines"] < 20_000
    late = [
        event async for event in following(await client.follow(job_id, from_line=0))
    ]
    (gap,) = [event for event in late if event["type"] == "gap"]
    assert gap["from_line"] == 100
    assert gap["next_line"] - gap["from_line"] == ended["elided_lines"]
    assert late[-2]["lines"][-1] == "end"
    text = await asyncio.to_thread(
        on_disks.request, f"/api/esphome_builds/jobs/{job_id}/log"
    )
    assert f"[{ended['elided_lines']:,} lines are left out here]" in text
    await aftermath.check(on_disks, expected=[_LOG])


async def test_log_that_ends_on_a_full_disk(
    on_disks: Server, connect: Connect, cache: Disk, tmp_path: Path
) -> None:
    """It is the same log before and after it left the memory."""
    full = tmp_path / "full"
    name = write_configuration(
        on_disks.config_dir, "porch", "lines 100", f"wait {full}", "lines 2000"
    )
    client = await connect(on_disks)
    (job,) = await client.submit("compile", name)
    await client.until_line(job["job_id"], "line 99")
    await until_log(on_disks, job["job_id"])
    with cache.full():
        full.touch()
        ended = await client.until_job(job["job_id"], "completed")
    assert (ended["total_lines"], ended["elided_lines"]) == (2100, 2000)

    quick = [write_configuration(on_disks.config_dir, f"quick{n}") for n in range(9)]
    for other in await client.submit("validate", *quick):
        await client.until_job(other["job_id"], "completed")
        await client.call("esphome_builds/jobs/log", job_id=other["job_id"])
    await aftermath.check(on_disks, expected=[_LOG, _JOBS])


async def test_jobs(
    on_disks: Server, connect: Connect, cache: Disk, tmp_path: Path
) -> None:
    """Nothing starts whose start cannot be saved; what ends then is saved later."""
    go = tmp_path / "go"
    folder = on_disks.config_dir
    slow = write_configuration(folder, "slow", f"wait {go}")
    names = [write_configuration(folder, name) for name in ("attic", "cellar", "porch")]
    client = await connect(on_disks)
    (upload,) = await client.submit("upload", slow)
    await until_run(on_disks, upload["job_id"])
    calls = len(fake_calls(on_disks.esphome))
    refused: list[dict[str, Any]] = []
    with cache.full():
        for kind, name in zip(("compile", "upload", "install"), names, strict=True):
            refused += await client.submit(kind, name)
        ended = [await client.until_job(job["job_id"], *ENDED) for job in refused]
        assert [job["cause"] for job in ended] == [
            "disk_full",
            "disk_full",
            "disk_full",
            "prerequisite_failed",
        ]
        # A build was not even tried.
        for job in (ended[0], ended[2]):
            assert job["message"].startswith("There are only 0 MiB free at ")
        assert ended[1]["message"] == "There is no space left on the disk."
        go.touch()
        await client.until_job(upload["job_id"], "completed")
        assert len(fake_calls(on_disks.esphome)) == calls

    # Without another change the disk says now what is true, and a kill keeps it.
    await aftermath.check(on_disks, expected=[_JOBS, _LOG])
    await asyncio.to_thread(on_disks.kill)
    await asyncio.to_thread(on_disks.start)
    client = await connect(on_disks)
    job = (await client.call("esphome_builds/jobs/get", job_id=upload["job_id"]))["job"]
    assert job["status"] == "completed"
    for job in await client.submit("install", *names):
        await client.until_job(job["job_id"], "completed")
    await aftermath.check(on_disks)


async def test_prerequisite(
    on_disks: Server, connect: Connect, cache: Disk, tmp_path: Path
) -> None:
    """A device is not flashed by an upload that nobody would know of."""
    go = tmp_path / "go"
    name = write_configuration(on_disks.config_dir, "porch", f"compile: wait {go}")
    client = await connect(on_disks)
    build, upload = await client.submit("install", name)
    await until_run(on_disks, build["job_id"])
    uploads = len(fake_calls(on_disks.esphome, "upload"))
    with cache.full():
        go.touch()
        assert (await client.until_job(build["job_id"], *ENDED))["cause"] is None
        ended = await client.until_job(upload["job_id"], *ENDED)
        assert (ended["status"], ended["cause"]) == ("failed", "disk_full")
    assert len(fake_calls(on_disks.esphome, "upload")) == uploads
    await aftermath.check(on_disks, expected=[_JOBS])


async def test_read_only_cache(
    on_disks: Server, connect: Connect, cache: Disk, tmp_path: Path
) -> None:
    """Nothing can be noted there, so nothing starts, and each job says why."""
    name = write_configuration(on_disks.config_dir, "porch")
    client = await connect(on_disks)
    calls = len(fake_calls(on_disks.esphome))
    with cache.read_only():
        for kind in ("compile", "upload"):
            (job,) = await client.submit(kind, name)
            ended = await client.until_job(job["job_id"], *ENDED)
            assert (ended["status"], ended["cause"]) == ("failed", "unknown")
            assert "Read-only file system" in ended["message"]
    assert len(fake_calls(on_disks.esphome)) == calls
    for job in await client.submit("install", name):
        await client.until_job(job["job_id"], "completed")
    await aftermath.check(on_disks, expected=[_READ_ONLY, _LOG_READ_ONLY])


async def test_read_only_configurations(
    on_disks: Server, connect: Connect, disks: tuple[Disk, Disk]
) -> None:
    """That hinders nothing: what is built is elsewhere."""
    name = write_configuration(on_disks.config_dir, "porch")
    client = await connect(on_disks)
    with disks[1].read_only():
        for kind in ("validate", "install", "clean"):
            for job in await client.submit(kind, name):
                await client.until_job(job["job_id"], "completed")
    await aftermath.check(on_disks)


@pytest.mark.real
async def test_build_tree(on_disks: Server, connect: Connect, cache: Disk) -> None:
    """A real compile that fills the disk says so, and works when there is space."""
    folder = on_disks.config_dir
    for name in ("common.yaml", "kettle.yaml", "secrets.yaml"):
        shutil.copy(ROOT / "examples" / name, folder)
    client = await connect(on_disks)
    before = len(on_disks.log)
    fake = on_disks.esphome.read_text()
    # With a cache it would be over before the disk is full.
    on_disks.esphome.write_text(f'#!/bin/sh\nCCACHE_DISABLE=1 exec "{ESPHOME}" "$@"\n')
    try:
        (job,) = await client.submit("compile", "kettle.yaml")
        await client.until_job(job["job_id"], "running")
        with cache.full(but=4 * 1024 * 1024):
            ended = await client.until_job(job["job_id"], *ENDED)
            assert (ended["status"], ended["cause"]) == ("failed", "disk_full")
        (job,) = await client.submit("compile", "kettle.yaml")
        await client.until_job(job["job_id"], "completed")
    finally:
        on_disks.esphome.write_text(fake)
    # The compiler may have left no space for a moment only.
    log = on_disks.log[before:]
    expected = [pattern for pattern in (_JOBS, _LOG) if re.search(pattern, log)]
    await aftermath.check(on_disks, expected=expected)


async def test_jobs_file_that_cannot_be_written(
    on_disks: Server, connect: Connect
) -> None:
    """It counts like a full disk; a folder in the way of it is the worst case."""
    name = write_configuration(on_disks.config_dir, "porch")
    client = await connect(on_disks)
    in_the_way = on_disks.cache / "jobs.json.new"
    in_the_way.mkdir()
    (job,) = await client.submit("upload", name)
    ended = await client.until_job(job["job_id"], *ENDED)
    assert (ended["status"], ended["cause"]) == ("failed", "unknown")
    assert ended["message"] == "The job could not be started: Is a directory."
    in_the_way.rmdir()
    for job in await client.submit("install", name):
        await client.until_job(job["job_id"], "completed")
    await aftermath.check(on_disks, expected=[r"Cannot write the list .*directory"])


async def until_log(server: Server, job_id: str) -> None:
    """Wait until the first lines of a job are on the disk."""
    folder = server.cache / "logs" / job_id
    await eventually(lambda: any(folder.glob("*.log")))
