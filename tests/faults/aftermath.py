"""What has to be true after every fault."""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
import json
from pathlib import Path
import re
from typing import Any, Final

from aiohttp import ClientSession

from custom_components.esphome_builds.builds.log_files import LOG_BYTES
from custom_components.esphome_builds.builds.logs import ALL_LOGS_BYTES
from custom_components.esphome_builds.builds.queue import HISTORY

from ..clients import Client, eventually
from ..e2e.server import Server
from ..fakes import fake_runs

ENDED: Final = ("completed", "failed", "cancelled", "interrupted")
PATIENCE: Final = 15.0
"""Seconds after which what a fault left will not go any more."""

type Job = dict[str, Any]

_ACTIVE: Final = ("queued", "running")
# How often a job of a command may be started; others only once, ever.
_AGAIN: Final = {"compile": 2, "config": 2}
# Says that we are none of Home Assistant's own, and what the machine need not have.
_FOREIGN: Final = re.compile(
    r"^.*\[(homeassistant\.loader|homeassistant\.components\.camera|haffmpeg"
    r"|homeassistant\.setup\] Setup failed for '(?!esphome_builds|probe))"
)
_JOB_BYTES: Final = 2048
_LOG_LINES: Final = 5000
_OURS: Final = "esphome_builds"
_RECORD: Final = re.compile(
    r"^(?=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} )", re.MULTILINE
)
_RESUMED: Final = ("compile", "validate")
# Whoever logs it, it is a defect.
_SIGNS: Final = re.compile(
    r"Traceback|Exception ignored|never awaited|Task was destroyed|never retrieved|"
    r"Unclosed|unable to keep up|blocking call|cannot be killed"
)


async def check(
    server: Server,
    *,
    active: Collection[str] = (),
    expected: Sequence[str] = (),
    streams: int = 0,
) -> list[Job]:
    """Check everything that every fault has to leave true; return all jobs.

    `active` are the jobs that have a reason not to have ended. `expected` are patterns
    of what Home Assistant had to log since the last check: each has to be there, and
    nothing else of ours at warning or above, nor any traceback. `streams` is how many
    subscriptions the test's clients still have.
    """
    async with ClientSession() as session:
        client = await server.connect(session)
        try:
            jobs = await all_jobs(client)
            for job in jobs:
                await _check_job(client, job, may_be_active=job["job_id"] in active)
            await _check_listeners(client, streams)
        finally:
            await client.close()
    if not active:
        await eventually(lambda: not server.processes(), server.processes)
    await eventually(lambda: stored(server) == _statuses(jobs), lambda: stored(server))
    check_runs(server)
    await check_disk(server, jobs)
    check_log(server, expected)
    return jobs


async def all_jobs(client: Client) -> list[Job]:
    """Return all jobs that Home Assistant knows, newest first."""
    jobs: list[Job] = []
    more = True
    while more:
        before = {"before": jobs[-1]["job_id"]} if jobs else {}
        page = await client.call("esphome_builds/jobs/list", limit=500, **before)
        jobs += page["jobs"]
        more = page["more"]
    return jobs


def check_runs(server: Server) -> None:
    """Check that no upload was started twice, and no build more often than twice."""
    runs = Counter(fake_runs(server.esphome))
    for (job_id, command), count in runs.items():
        assert count <= _AGAIN.get(command, 1), f"{command} of {job_id}: {count} times"


async def check_disk(server: Server, jobs: Collection[Job]) -> None:
    """Check that nothing is on the disk that no job needs, and nothing too large."""
    folder = server.cache
    known = {job["job_id"] for job in jobs}
    await eventually(lambda: _logs(server).keys() <= known, lambda: _logs(server))
    sizes = _logs(server).values()
    # The newest log may be what passes the bound of all together.
    assert sum(sizes) <= ALL_LOGS_BYTES + LOG_BYTES
    assert max(sizes, default=0) <= LOG_BYTES
    assert (folder / "jobs.json").stat().st_size <= _JOB_BYTES * (len(jobs) + 1)
    assert len(list(folder.glob("*.damaged-*"))) <= 3
    others = {path.name for path in folder.iterdir()}
    others = {name for name in others if ".damaged-" not in name}
    assert others <= {"builds.json", "data", "firmware", "jobs.json", "logs"}
    assert not list(folder.glob("firmware/*.*"))
    assert sum(job["status"] in ENDED for job in jobs) <= HISTORY


def check_log(server: Server, expected: Sequence[str] = ()) -> None:
    """Check that what was expected was logged since the last check, and nothing bad."""
    records = [
        record
        for record in _RECORD.split(server.new_log())
        if (_SIGNS.search(record) or _OURS in record.partition("\n")[0])
        and not _FOREIGN.match(record)
    ]
    for pattern in expected:
        assert any(re.search(pattern, record) for record in records), pattern
    bad = [
        record
        for record in records
        if not any(re.search(pattern, record) for pattern in expected)
    ]
    assert not bad, "\n".join(bad)


def stored(server: Server) -> dict[str, str]:
    """Return the statuses on the disk by job."""
    return _statuses(json.loads((server.cache / "jobs.json").read_text())["jobs"])


async def _check_job(client: Client, job: Job, *, may_be_active: bool) -> None:
    """Check that a job tells the truth about itself, as far as it can be seen."""
    if job["status"] in _ACTIVE:
        assert may_be_active, job
        return
    assert job["status"] in ENDED, job
    assert job["finished_at"], job
    assert job["phase"] is None, job
    assert job["attempt"] in ((1, 2) if job["kind"] in _RESUMED else (1,))
    if job["status"] == "completed":
        assert (job["cause"], job["exit_code"], job["progress"]) == (None, 0, 100), job
        assert job["started_at"], job
    else:
        assert job["cause"], job
        assert job["message"], job
    await _check_job_log(client, job)


async def _check_job_log(client: Client, job: Job) -> None:
    """Check that the log has each line of a job, but for those said to be gone."""
    line = count = 0
    while True:
        page = await client.call(
            "esphome_builds/jobs/log",
            job_id=job["job_id"],
            from_line=line,
            limit=_LOG_LINES,
        )
        assert page["total_lines"] == job["total_lines"], job
        if not page["lines"]:
            break
        assert page["from_line"] >= line
        count += len(page["lines"])
        line = page["next_line"]
    elided = sum(last - first + 1 for first, last in page["elided"])
    assert elided == job["elided_lines"], job
    assert count + elided == job["total_lines"], job


async def _check_listeners(client: Client, streams: int) -> None:
    """Check that only what a test still has listens to anything."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while True:
        census = await client.call("probe/census")
        if _is_quiet(census, streams):
            break
        assert loop.time() < end, census
        await asyncio.sleep(0.1)


def _is_quiet(census: dict[str, int], streams: int) -> bool:
    """Return whether nothing listens but what each builder has, and the streams."""
    # A stream listens to two signals, or to a builder and a log. To a builder listen
    # its coordinator and the repairs of builds, to a signal repairs and entities.
    each = 2 * census["builders"]
    return (
        census["streams"] == streams
        and census["builder_listeners"] <= each + streams
        and census["log_listeners"] <= streams
        and census["signal_listeners"] <= each + 2 * streams
    )


def _logs(server: Server) -> dict[str, int]:
    """Return the size of each log on the disk by its job."""
    folder = server.cache / "logs"
    return {path.name: _size(path) for path in folder.glob("*")}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))


def _statuses(jobs: Collection[Job]) -> dict[str, str]:
    return {job["job_id"]: job["status"] for job in jobs}
