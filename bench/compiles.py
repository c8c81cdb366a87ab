"""Real compiles: through both servers, and by the command line alone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
import os
from pathlib import Path
import shutil
from tempfile import TemporaryDirectory
import time
from typing import Final
from unittest.mock import patch

from .pairs import Figure, Measure, Sample, Samplers, Unit
from .sides import ESPHOME, Side, ours, peer, run_esphome

COMMAND_LINE: Final = "command line"

_NAME: Final = "plain.yaml"
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
    without_cache = patch.dict(os.environ, {"CCACHE_DISABLE": "1"})
    with without_cache, TemporaryDirectory() as temporary:
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
}
