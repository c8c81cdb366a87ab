"""Our own engine without Home Assistant: one sample of one measure as JSON."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
import json
from pathlib import Path
from statistics import median
import sys
from tempfile import TemporaryDirectory
import time
from typing import Final

from aiohttp import WSMsgType

from custom_components.esphome_builds.builds.builder import BuildRequest
from custom_components.esphome_builds.builds.follow import follow
from custom_components.esphome_builds.builds.local.builder import LocalBuilder
from custom_components.esphome_builds.builds.log import JobLog
from custom_components.esphome_builds.builds.log_files import LogFiles
from custom_components.esphome_builds.builds.models import (
    EndEvent,
    FollowOverflowEvent,
    FollowSnapshotEvent,
    Job,
    JobKind,
    JobStatus,
    OutputEvent,
    RequestKind,
)
from custom_components.esphome_builds.builds.store import JobStore
from custom_components.esphome_builds.builds.stream import Budget
from homeassistant.components.websocket_api.messages import construct_event_message
from tests.builds.local.harness import House, Tenant

from .workload import LINES_TO_FOLLOWERS, frame_writer, write_output

HISTORY: Final = 500
_LOG_LINES: Final = 20
_SAVES: Final = 50

type Sample = dict[str, float]


async def fan_out(folder: Path, followers: int) -> Sample:
    """Run a job that prints very much, with so many who follow it."""
    lines = LINES_TO_FOLLOWERS[followers]
    output = folder / "output"
    write_output(output, lines)
    house = House(folder)
    house.write("flood", f"wait {house.config_dir / 'go'}", f"replay {output}")
    async with house.started() as tenant:
        (job,) = await tenant.submit("compile", "flood.yaml")
        tasks = [asyncio.create_task(_follow(tenant, job)) for _ in range(followers)]
        await asyncio.sleep(0.5)
        started = time.process_time()
        house.touch("go")
        while not tenant.job(job).status.ended:  # noqa: ASYNC110 - looking costs nothing
            await asyncio.sleep(0.05)
        received = sum(await asyncio.gather(*tasks))
        seconds = time.process_time() - started
        assert tenant.job(job).total_lines == lines
    return {
        "cpu": seconds / lines / max(1, followers),
        "lost": 1 - received / (lines * followers) if followers else 0.0,
    }


async def _follow(tenant: Tenant, job: Job) -> int:
    """Follow to the end, as a client does that overflows and resumes; count lines."""
    writer = frame_writer()
    received = 0
    start: int | None = None
    while True:
        events = follow(tenant.builder, job.job_id, Budget(), start)
        async with aclosing(events):
            async for event in events:
                message = construct_event_message(1, event.json)
                await writer.send_frame(message, WSMsgType.TEXT)
                if isinstance(event, OutputEvent | FollowSnapshotEvent):
                    received += len(event.lines)
        if isinstance(event, EndEvent):
            return received
        if isinstance(event, FollowOverflowEvent):
            start = event.next_line


def _history() -> list[Job]:
    """Return so many ended jobs as a builder keeps."""
    now = datetime.now(UTC)
    return [
        Job(
            job_id=f"{number:022x}",
            entry_id="entry",
            configuration=f"device-{number // 2}.yaml",
            kind=JobKind.UPLOAD if number % 2 else JobKind.COMPILE,
            status=JobStatus.COMPLETED,
            created_at=now - timedelta(minutes=HISTORY - number),
            started_at=now - timedelta(minutes=HISTORY - number),
            finished_at=now - timedelta(minutes=HISTORY - number - 1),
            exit_code=0,
            progress=100,
            esphome_version="2026.10.0",
            total_lines=_LOG_LINES,
        )
        for number in range(HISTORY)
    ]


async def restart(folder: Path) -> Sample:
    """Start a builder that has 500 ended jobs, until it has taken another."""
    house = House(folder)
    house.write("night")
    jobs = _history()
    for job in jobs:
        log = JobLog(LogFiles(house.settings.cache_dir / "logs" / job.job_id))
        log.append([f"line {line}" for line in range(_LOG_LINES)])
        await log.close()
    store = JobStore(house.settings.cache_dir / "jobs.json", lambda: jobs)
    store.changed()
    await store.flush()
    started = time.perf_counter()
    builder = LocalBuilder(house.settings)
    await builder.start()
    builder.resume()
    request = BuildRequest(kind=RequestKind.COMPILE, configurations=("night.yaml",))
    await builder.submit(request)
    seconds = time.perf_counter() - started
    assert len(builder.jobs) >= HISTORY
    await builder.stop()
    return {"wall": seconds}


async def save(folder: Path) -> Sample:
    """Save one change of one of 500 jobs, again and again."""
    jobs = _history()
    store = JobStore(folder / "jobs.json", lambda: jobs)
    took = []
    for number in range(_SAVES):
        jobs[number] = replace(jobs[number], exit_code=1)
        started = time.perf_counter()
        store.changed()
        await store.flush()
        took.append(time.perf_counter() - started)
    return {"wall": median(took)}


async def main(name: str, *arguments: str) -> None:
    """Take one sample and print it."""
    with TemporaryDirectory() as folder:
        match name:
            case "fan-out":
                sample = await fan_out(Path(folder), int(arguments[0]))
            case "restart":
                sample = await restart(Path(folder))
            case "save":
                sample = await save(Path(folder))
    print(json.dumps(sample))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
