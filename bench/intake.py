"""How long a line takes from the bytes of a process to those who follow its job."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
import time
from typing import Final

from custom_components.esphome_builds.builds.conceal import Concealment
from custom_components.esphome_builds.builds.diagnosis import Diagnosis
from custom_components.esphome_builds.builds.follow import follow
from custom_components.esphome_builds.builds.lines import LineSplitter
from custom_components.esphome_builds.builds.local.process import READ_BYTES
from custom_components.esphome_builds.builds.local.secrets import Redactor
from custom_components.esphome_builds.builds.models import (
    EndEvent,
    FollowOverflowEvent,
    FollowSnapshotEvent,
    JobKind,
    JobStatus,
    OutputEvent,
)
from custom_components.esphome_builds.builds.progress import Progress
from custom_components.esphome_builds.builds.stream import Budget
from tests.builds.stand_in import StandIn, make_job

_LINES: Final = 1_000_000
_SECRETS: Final = tuple(f"secret-number-{number}" for number in range(20))


def _output() -> bytes:
    """Return what a compile prints, mostly short lines and some warnings in color."""
    lines = []
    for number in range(_LINES // 4):
        name = f"sensor/sensor_{number % 1000}"
        lines += [
            f"[{number % 1000}/1000] Building CXX object esphome/{name}.cpp.o",
            f"src/{name}.cpp:17:9: \x1b[35mwarning:\x1b[0m unused variable 'value'",
            "   17 |     auto value = this->state;",
            "      |          ^~~~~",
        ]
    return "".join(f"{line}\n" for line in lines).encode()


async def measure_intake(followers: int) -> str:
    """Feed a million lines to all that looks at them; return a row of the table."""
    output = _output()
    with TemporaryDirectory() as folder:
        builder = StandIn(Path(folder), make_job(status=JobStatus.RUNNING))
        following = [asyncio.create_task(_follow(builder)) for _ in range(followers)]
        await asyncio.sleep(0.1)
        started = time.perf_counter()
        await _feed(builder, output)
        seconds = time.perf_counter() - started
        await builder.end()
        received = sum(await asyncio.gather(*following))
        await builder.stop()
    rate = _LINES / seconds
    return (
        f"| 1,000,000 lines, {followers} followers that received {received:,} "
        f"| {seconds / _LINES * 1e6:.2f} µs a line, {rate:,.0f} lines/s "
        f"| {'200,000 lines/s' if not followers else ''} |"
    )


async def _feed(builder: StandIn, output: bytes) -> None:
    """Do with output what a run does with it."""
    log = builder.log()
    splitter = LineSplitter(Concealment().remove, Redactor(_SECRETS).clean)
    progress = Progress(JobKind.COMPILE)
    diagnosis = Diagnosis(
        kind=JobKind.COMPILE, configuration="kitchen.yaml", address=None
    )
    for start in range(0, len(output), READ_BYTES):
        lines = splitter.feed(output[start : start + READ_BYTES])
        log.append(lines)
        diagnosis.feed(lines)
        progress.feed(lines, splitter.redraw)
        await log.throttle()
        await asyncio.sleep(0)


async def _follow(builder: StandIn) -> int:
    """Follow to the end, as a client does that overflows and resumes; count lines."""
    received = 0
    start: int | None = None
    while True:
        async with aclosing(follow(builder, "1", Budget(), start)) as events:
            async for event in events:
                # What is sent to a client is made once for all of them.
                event.json  # noqa: B018
                if isinstance(event, OutputEvent | FollowSnapshotEvent):
                    received += len(event.lines)
        if isinstance(event, EndEvent):
            return received
        if isinstance(event, FollowOverflowEvent):
            start = event.next_line
