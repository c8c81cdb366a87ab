"""A wall clock that jumps back and forth while jobs run, between them and at restarts.

A clock of its own takes a library that the server's process is started with, compiled
here, which adds to the time what a file says. What the server starts has the real one.
"""

import asyncio
from collections.abc import Generator
from pathlib import Path
import shutil
import struct
import subprocess
import sys
from typing import Any, Final

from aiohttp import ClientSession
import pytest

from ..clients import Client
from ..e2e.conftest import Connect
from ..e2e.server import Server
from ..fakes import fake_runs, write_configuration
from . import aftermath
from .conftest import start_server, until_run

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None,
    reason="needs a compiler, and a system that preloads libraries",
)

_DAY: Final = 24 * 60 * 60
_PAST: Final = -400
_SOURCE: Final = """
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long none, *offset;

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!offset) {
        const char *path = getenv("TEST_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *found = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        offset = found == MAP_FAILED ? &none : (long *)found;
        close(file);
    }
    if (clock == CLOCK_REALTIME && !result) now->tv_sec += *offset;
    return result;
}
"""


class Clock:
    """The clock of a server, and what it is off by."""

    def __init__(self, folder: Path) -> None:
        """Compile the library."""
        self.file = folder / "clock"
        self.library = folder / "clock.so"
        source = folder / "clock.c"
        source.write_text(_SOURCE)
        command = ["g++", "-x", "c", "-shared", "-fPIC", "-o", self.library, source]
        subprocess.run([str(word) for word in command], check=True)
        self.jump(0)

    def jump(self, days: float) -> None:
        """Let it be off by so many days from now on."""
        with self.file.open("r+b" if self.file.exists() else "wb", 0) as file:
            file.write(struct.pack("@l", int(days * _DAY)))


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Generator[Clock]:
    """Return the clock of the servers that are started with it."""
    clock = Clock(tmp_path_factory.mktemp("clock"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(clock.library))
        patch.setenv("TEST_CLOCK", str(clock.file))
        yield clock


@pytest.fixture(scope="module")
def timed(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Return a server with the clock, and a token that is good at any time of it."""
    clock.jump(_PAST)
    server = start_server(tmp_path_factory.mktemp("timed"))
    server.wait_until_kept(server.entry_id)

    async def _token() -> str:
        async with ClientSession() as session:
            client = await server.connect(session)
            token: str = await client.call(
                "auth/long_lived_access_token", client_name="clock", lifespan=1000
            )
            await client.close()
            return token

    server.token = asyncio.run(_token())
    clock.jump(0)
    yield server
    server.kill()


async def ended(client: Client, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return jobs when all have completed."""
    return [await client.until_job(job["job_id"], "completed") for job in jobs]


async def order(client: Client) -> list[str]:
    """Return the ids of all jobs as they are listed, the oldest first."""
    return [job["job_id"] for job in await aftermath.all_jobs(client)][::-1]


async def test_while_jobs_run(
    timed: Server, clock: Clock, connect: Connect, tmp_path: Path
) -> None:
    """No limit ends a job; order and ids are those of the requests; no time is < 0."""
    go = tmp_path / "go"
    folder = timed.config_dir
    name = write_configuration(folder, "porch", f"wait {go}")
    client = await connect(timed)
    jobs = await client.submit("compile", name)
    await until_run(timed, jobs[0]["job_id"])
    for number, days in enumerate((-300, 350, -1, 0.01)):
        clock.jump(days)
        other = write_configuration(folder, f"other{number}")
        quick = await client.submit("upload", other)
        await ended(client, quick)
        jobs += quick
        jobs += await client.submit(("validate", "upload")[number % 2], name)
        # The looks at the folder go on as well.
        await asyncio.sleep(0.3)
    created = [job["created_at"] for job in jobs]
    assert created != sorted(created)
    clock.jump(-300)
    go.touch()
    jobs = await ended(client, jobs)

    ids = list(dict.fromkeys(job["job_id"] for job in jobs))
    assert ids == sorted(ids) == await order(client)
    runs = [job for job, _ in fake_runs(timed.esphome)]
    of_porch = [job["job_id"] for job in jobs if job["configuration"] == name]
    of_porch = list(dict.fromkeys(of_porch))
    assert [job for job in runs if job in of_porch] == of_porch
    state = await asyncio.to_thread(
        timed.state, "sensor.esphome_builds_esphome_last_build_duration"
    )
    assert float(state["state"]) >= 0
    clock.jump(0)
    await aftermath.check(timed)


@pytest.mark.parametrize("days", [-350, pytest.param(350, marks=pytest.mark.long)])
async def test_restart(
    timed: Server, clock: Clock, connect: Connect, tmp_path: Path, days: int
) -> None:
    """What was running and waiting goes on in its order, and new jobs come after."""
    go = tmp_path / "go"
    name = write_configuration(timed.config_dir, "porch", f"compile: wait {go}")
    client = await connect(timed)
    jobs = [(await client.submit("compile", name))[0]]
    await until_run(timed, jobs[0]["job_id"])
    jobs += await client.submit("upload", name)
    jobs += await client.submit("validate", name)
    clock.jump(days)
    await asyncio.to_thread(timed.kill)
    await asyncio.to_thread(timed.start)
    client = await connect(timed)
    await until_run(timed, jobs[0]["job_id"], 2)
    jobs += await client.submit("clean", name)
    go.touch()
    jobs = await ended(client, jobs)

    ids = [job["job_id"] for job in jobs]
    assert ids == sorted(ids) == (await order(client))[-4:]
    assert [job["attempt"] for job in jobs] == [2, 1, 1, 1]
    runs = [job for job, _ in fake_runs(timed.esphome) if job in ids]
    assert runs == [ids[0], *ids]
    clock.jump(0)
    await aftermath.check(timed)
