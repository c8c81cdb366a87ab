"""Real compiles: through both servers, and by the command line alone."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
import os
from pathlib import Path
import shutil
from tempfile import TemporaryDirectory
import time
from typing import Final
from unittest.mock import patch

from .pairs import Figure, Measure, Sample, Samplers, Unit
from .sides import ESPHOME, Ours, Side, ours, peer, run_esphome

COMMAND_LINE: Final = "command line"

_IDLE_SECONDS: Final = 20.0
_NAME: Final = "plain.yaml"
_NO_CACHE: Final = {"CCACHE_DISABLE": "1"}
# More pairs than others have, as there is little between the sides.
_PAIRS: Final = 11
_YAML: Final = """\
esphome:
  name: plain
host:
logger:
api:
"""


def _lay_out(config_dir: Path) -> None:
    """Write the configuration."""
    (config_dir / _NAME).write_text(_YAML)


def _forget_build(data_dir: Path, cold: bool) -> None:
    if cold:
        shutil.rmtree(data_dir / "build", ignore_errors=True)


async def _through(side: Side, cold: bool) -> Sample:
    """Compile through a server; the time is up when a client knows of the end."""
    await asyncio.to_thread(_forget_build, side.data_dir, cold)
    connection = await side.connect()
    started = time.perf_counter()
    (job_id,) = await connection.submit("compile", _NAME)
    status = await connection.status_at_end(job_id)
    seconds = time.perf_counter() - started
    await connection.close()
    assert status == "completed", status
    return {"wall": seconds}


async def _by_hand(folder: Path, cold: bool) -> Sample:
    """Compile with the command."""
    data_dir = folder / "data"
    await asyncio.to_thread(_forget_build, data_dir, cold)
    started = time.perf_counter()
    await run_esphome(folder, data_dir, "compile", _NAME)
    return {"wall": time.perf_counter() - started}


@asynccontextmanager
async def _compiles(cold: bool) -> AsyncGenerator[Samplers]:
    """Have each build once, so that none is the one that fills the caches."""
    # What would be measured is the cache. Later measures have it again.
    with patch.dict(os.environ, _NO_CACHE), TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _lay_out(folder)
        async with ours(ESPHOME) as one, peer(ESPHOME) as two:
            samplers: Samplers = {}
            for side in (one, two):
                _lay_out(side.config_dir)
                samplers[side.name] = partial(_through, side, cold)
            samplers[COMMAND_LINE] = partial(_by_hand, folder, cold)
            for sample in samplers.values():
                await sample()
            yield samplers


@asynccontextmanager
async def _caches() -> AsyncGenerator[Samplers]:
    """Have two builders, one of which has a cache and has filled it."""
    async with AsyncExitStack() as stack:
        cache = stack.enter_context(TemporaryDirectory())
        sides = []
        for environment in ({"CCACHE_DIR": cache}, _NO_CACHE):
            with patch.dict(os.environ, environment):
                sides.append(await stack.enter_async_context(ours(ESPHOME)))
            _lay_out(sides[-1].config_dir)
        with_cache, without_cache = sides
        await _through(with_cache, cold=True)
        yield {
            Ours.name: partial(_through, with_cache, cold=True),
            "without ccache": partial(_through, without_cache, cold=True),
        }


async def _held(side: Side, work: Callable[[], Awaitable[object]]) -> Sample:
    """Return how long the event loop was held at most during some work."""
    await side.peaks()
    await work()
    return {"held": await side.peaks()}


@asynccontextmanager
async def _busy_hosts() -> AsyncGenerator[Samplers]:
    """Have one Home Assistant on a host that compiles for it, for another, or not."""
    with patch.dict(os.environ, _NO_CACHE), TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _lay_out(folder)
        async with ours(ESPHOME) as side:
            _lay_out(side.config_dir)
            work: dict[str, Callable[[], Awaitable[object]]] = {
                side.name: partial(_through, side, cold=True),
                COMMAND_LINE: partial(_by_hand, folder, cold=True),
                "no compile": partial(asyncio.sleep, _IDLE_SECONDS),
            }
            yield {name: partial(_held, side, it) for name, it in work.items()}


COMPILES: Final = {
    "warm": Measure(
        title="A compile where nothing changed",
        figures={"wall": Figure(title="", unit=Unit.SECONDS)},
        sides=partial(_compiles, cold=False),
        pairs=_PAIRS,
    ),
    "cold": Measure(
        title="A compile from nothing, without ccache",
        figures={"wall": Figure(title="", unit=Unit.SECONDS)},
        sides=partial(_compiles, cold=True),
        pairs=_PAIRS,
    ),
    "ccache": Measure(
        title="A compile from nothing, with what ccache kept of the one before",
        figures={"wall": Figure(title="", unit=Unit.SECONDS)},
        sides=_caches,
    ),
    "busy-host": Measure(
        title="Home Assistant while a device is compiled from nothing",
        figures={
            "held": Figure(
                title="longest hold of the event loop", unit=Unit.MILLISECONDS
            )
        },
        sides=_busy_hosts,
    ),
}
