"""A server that has no file descriptor left for a time.

Its limit is lowered from outside, which takes Linux.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
import re
import resource
from typing import Final

import pytest

from ..clients import Client, CommandError, eventually
from ..e2e.conftest import Connect
from ..e2e.server import Server, processes_of
from ..fakes import fake_runs, write_configuration
from . import aftermath
from .conftest import until_run

pytestmark = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="needs the limits of another process"
)


_FEW: Final = 14
_NONE: Final = 3
_REASON: Final = "Too many open files"
# What can be logged, each of it once for one trouble.
_RECORDS: Final = (
    rf"Cannot look through the logs: .*{_REASON}",
    rf"Cannot write the list of jobs .*{_REASON}",
    rf"Cannot write the log .*{_REASON}",
    rf"The folder .* cannot be read: {_REASON}",
    rf"A stream had to end: .*{_REASON}",
    # Home Assistant has files of its own.
    rf"(?s)\[homeassistant[.\]].*{_REASON}",
)


@contextmanager
def limited(server: Server, limit: int) -> Generator[None]:
    """Let the server open nothing that would get this number or a higher one."""
    _, hard = before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)


def limit_for(server: Server, more: int) -> int:
    """Return the limit with which the server can open so many files."""
    used = {int(path.name) for path in Path(f"/proc/{server.pid}/fd").iterdir()}
    numbers = range(max(used) + more + 2)
    # New ones take the lowest number that is free.
    return [number for number in numbers if number not in used][more]


async def check(server: Server, log_start: int) -> None:
    """Check that all is well again, and nothing but the trouble was logged.

    Whether there was time to log it depends on when somebody looked.
    """
    log = server.log[log_start:]
    expected = [pattern for pattern in _RECORDS if re.search(pattern, log)]
    await aftermath.check(server, expected=expected)


async def test_none(shared: Server, connect: Connect, tmp_path: Path) -> None:
    """Nothing starts; a job ends when it can be seen that nothing of it is left."""
    go = tmp_path / "go"
    name = write_configuration(
        shared.config_dir, "porch", "spawn session", f"wait {go}", "lines 5000"
    )
    other = write_configuration(shared.config_dir, "other")
    client = await connect(shared)
    start = len(shared.log)
    (running,) = await client.submit("upload", name)
    job_id = running["job_id"]
    await until_run(shared, job_id)
    await eventually(lambda: len(processes_of(job_id)) > 1)
    with limited(shared, _NONE):
        (job,) = await client.submit("upload", other)
        ended = await client.until_job(job["job_id"], *aftermath.ENDED)
        assert (ended["status"], ended["cause"]) == ("failed", "unknown")
        assert ended["message"] == f"The job could not be started: {_REASON}."
        await until_state(client, "unavailable")
        with pytest.raises(CommandError, match=f"builder_unavailable: .*{_REASON}"):
            await client.submit("compile", other)
        go.touch()
        await client.until_line(job_id, "line 4999")
        await asyncio.sleep(1)
        job = (await client.call("esphome_builds/jobs/get", job_id=job_id))["job"]
        assert job["status"] == "running"
        assert processes_of(job_id)
    ended = await client.until_job(job_id, *aftermath.ENDED)
    assert ended["status"] == "completed"
    assert processes_of(job_id) == []
    await until_state(client, "ready")
    for job in await client.submit("install", other):
        await client.until_job(job["job_id"], "completed")
    await check(shared, start)


async def test_reading(shared: Server, connect: Connect) -> None:
    """A log that cannot be read now says so, and is whole when it can be."""
    name = write_configuration(shared.config_dir, "porch", "lines 20000")
    client = await connect(shared)
    start = len(shared.log)
    await until_state(client, "ready")
    (job,) = await client.submit("compile", name)
    await client.until_job(job["job_id"], "completed")
    with limited(shared, _NONE):
        with pytest.raises(CommandError, match=f"builder_unavailable: .*{_REASON}"):
            await client.call("esphome_builds/jobs/log", job_id=job["job_id"])
        follower = await client.follow(job["job_id"], from_line=0)
        with pytest.raises(CommandError, match=f"builder_unavailable: .*{_REASON}"):
            await follower.next()
    lines, _ = await client.follow_to_end(job["job_id"])
    assert len(lines) == 20_000
    await check(shared, start)


async def test_few(shared: Server, connect: Connect) -> None:
    """However many there are, a job runs or says why not, and runs once."""
    client = await connect(shared)
    start = len(shared.log)
    names = [write_configuration(shared.config_dir, f"job{n}") for n in range(_FEW)]
    await until_state(client, "ready")
    endings = []
    for more, name in enumerate(names):
        with limited(shared, limit_for(shared, more)):
            try:
                (job,) = await client.submit("upload", name)
            except CommandError as err:
                assert _REASON in str(err)  # noqa: PT017 - one of two good answers
                continue
            await asyncio.sleep(0.3)
        ended = await client.until_job(job["job_id"], *aftermath.ENDED)
        endings.append(ended["status"])
        if ended["status"] != "completed":
            assert ended["message"] == f"The job could not be started: {_REASON}."
            assert (job["job_id"], "upload") not in fake_runs(shared.esphome)
        assert processes_of(job["job_id"]) == []
        await until_state(client, "ready")
    assert endings[0] == "failed"
    assert endings[-1] == "completed"
    await check(shared, start)


async def until_state(client: Client, state: str) -> None:
    """Wait until the builder is in a state."""
    async with asyncio.timeout(15):
        while True:
            builders = await client.call("esphome_builds/builders/list")
            if builders["builders"][0]["state"] == state:
                return
            await asyncio.sleep(0.1)
