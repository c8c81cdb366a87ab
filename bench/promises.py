"""What is promised and has no counterpart on the other side."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
import shutil
from typing import Final

from tests.e2e.server import ROOT, Server

from .pairs import Figure, Measure, Sample, Samplers, Unit
from .sides import ESPHOME, Ours, Side, home_assistant, ours
from .usage import Usage, processor_seconds

_CONFIGURATIONS: Final = 100
_FLOOD_BYTES: Final = 4 * 1024**2
_IDLE_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.2
_RUBBISH_BYTES: Final = 64 * 1024**2
_SETTLE_SECONDS: Final = 15.0
_STREAMS: Final = 32

_numbers = count()


async def printing(side: Side, script: str) -> Sample:
    """Let a job print something, with nobody who follows: that would cost something."""
    name = side.write(f"print-{next(_numbers)}", script)
    connection = await side.connect()
    await side.peaks()
    usage = Usage(side.pid)
    (job_id,) = await connection.submit("compile", name)
    while await connection.status(job_id) in ("queued", "running"):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)
    sample = usage.sample()
    sample["held"] = await side.peaks()
    await connection.close()
    return sample


@asynccontextmanager
async def _printing(script: str) -> AsyncGenerator[Samplers]:
    async with ours() as side:
        yield {side.name: partial(printing, side, script)}


async def _stream(side: Ours) -> Sample:
    """Let one connection follow a flood many times."""
    name = side.write(f"flood-{next(_numbers)}", f"flood {_FLOOD_BYTES}")
    client = await side.server.connect(side.session, coalesce=True, compress=True)
    await client.call("probe/peaks")
    (job,) = await client.submit("compile", name)
    await asyncio.gather(
        *(client.follow_to_end(job["job_id"]) for _ in range(_STREAMS))
    )
    peaks: Sample = await client.call("probe/peaks")
    await client.close()
    return peaks


@asynccontextmanager
async def _streams() -> AsyncGenerator[Samplers]:
    async with ours() as side:
        yield {side.name: partial(_stream, side)}


async def _load(server: Server) -> float:
    """Return how much of a core a server takes while nobody wants anything of it."""
    await asyncio.sleep(_SETTLE_SECONDS)
    before = processor_seconds(server.pid)
    await asyncio.sleep(_IDLE_SECONDS)
    return (processor_seconds(server.pid) - before) / _IDLE_SECONDS


async def _doing_nothing() -> Sample:
    """Compare Home Assistant without a builder and with a large one."""
    async with home_assistant() as (server, _):
        before = await _load(server)
        text = (ROOT / "examples" / "night-light.yaml").read_text()
        shutil.copy(ROOT / "examples" / "common.yaml", server.config_dir)
        for number in range(_CONFIGURATIONS):
            renamed = text.replace("name: night-light", f"name: light-{number}")
            (server.config_dir / f"light-{number}.yaml").write_text(renamed)
        await asyncio.to_thread(server.add_builder, ESPHOME)
        return {"load": await _load(server) - before}


@asynccontextmanager
async def _idle() -> AsyncGenerator[Samplers]:
    yield {Ours.name: _doing_nothing}


async def _start(side: Ours) -> Sample:
    """Start Home Assistant with a builder in it."""
    await asyncio.to_thread(side.server.stop)
    await asyncio.to_thread(side.server.start)
    client = await side.server.connect(side.session)
    took = await client.call("integration/setup_info")
    await client.close()
    return {
        "wall": sum(one["seconds"] for one in took if one["domain"] == "esphome_builds")
    }


@asynccontextmanager
async def _starts() -> AsyncGenerator[Samplers]:
    async with ours(ESPHOME) as side:
        for file in (ROOT / "examples").glob("*.yaml"):
            shutil.copy(file, side.config_dir)
        yield {side.name: partial(_start, side)}


_BOUNDED: Final = {
    "held": Figure(
        title="longest hold of the event loop",
        unit=Unit.MILLISECONDS,
        promised="under 50 ms",
    ),
    "memory": Figure(
        title="peak memory above idle", unit=Unit.MEBIBYTES, promised="under 32 MiB"
    ),
}

PROMISES: Final = {
    "redraws": Measure(
        title="A progress bar that is redrawn as fast as can be, for a minute",
        figures=_BOUNDED,
        sides=partial(_printing, "redraws 60"),
        pairs=1,
    ),
    "rubbish": Measure(
        title="64 MiB of random bytes",
        figures=_BOUNDED,
        sides=partial(_printing, f"rubbish {_RUBBISH_BYTES}"),
    ),
    "streams": Measure(
        title=f"{_STREAMS} followers of a flood on one connection",
        figures={
            "pending": Figure(
                title="messages that waited in Home Assistant",
                unit=Unit.COUNT,
                promised="under 1,024",
            ),
        },
        sides=_streams,
    ),
    "doing-nothing": Measure(
        title=f"{_CONFIGURATIONS} configurations and nothing to do",
        figures={
            "load": Figure(
                title="of a core", unit=Unit.SHARE, promised="not measurable"
            )
        },
        sides=_idle,
        pairs=1,
    ),
    "setup": Measure(
        title="Setup at Home Assistant's start",
        figures={
            "wall": Figure(title="", unit=Unit.MILLISECONDS, promised="under 100 ms")
        },
        sides=_starts,
    ),
}
