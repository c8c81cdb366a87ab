"""What both sides take while they have nothing to do."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
import json
from pathlib import Path
import subprocess
import sys
from typing import Final

from tests.e2e.server import ROOT
from tests.fakes import install_fake

from .pairs import Figure, Measure, Sample, Samplers, Unit
from .sides import PEER, Ours, Peer, home_assistant, peer
from .workload import memory

_CONFIGURATIONS: Final = 12
_SETTLE_SECONDS: Final = 10.0

# What Home Assistant has imported anyway is no cost of ours.
_OUR_BASE: Final = """
import homeassistant.components.http, homeassistant.components.websocket_api
import homeassistant.components.event, homeassistant.components.sensor
import homeassistant.components.binary_sensor, homeassistant.components.button
import homeassistant.config_entries, homeassistant.helpers.update_coordinator
import homeassistant.helpers.selector, homeassistant.helpers.service
import homeassistant.components.logbook, homeassistant.helpers.trigger
"""
_OUR_IMPORT: Final = """
import importlib, pathlib
for path in sorted(pathlib.Path("custom_components/esphome_builds").rglob("*.py")):
    importlib.import_module(".".join(path.with_suffix("").parts))
"""
_PEER_IMPORT: Final = """
import esphome_device_builder.__main__, esphome_device_builder.device_builder
"""
_IMPORT: Final = """
import json, time
from bench.workload import memory
{base}
before, started = memory("VmRSS"), time.perf_counter()
{measured}
took = time.perf_counter() - started
print(json.dumps({{"wall": took, "memory": memory("VmRSS") - before}}))
"""


async def _import(python: Path | str, base: str, measured: str) -> Sample:
    """Import in a new interpreter."""
    process = await asyncio.create_subprocess_exec(
        *(python, "-c", _IMPORT.format(base=base, measured=measured)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    sample: Sample = json.loads(output)
    return sample


@asynccontextmanager
async def _imports() -> AsyncGenerator[Samplers]:
    yield {
        Ours.name: partial(_import, sys.executable, _OUR_BASE, _OUR_IMPORT),
        Peer.name: partial(_import, PEER / "python", "", _PEER_IMPORT),
    }


def _fill(config_dir: Path) -> None:
    for number in range(_CONFIGURATIONS):
        (config_dir / f"light-{number}.yaml").write_text(
            f"esphome:\n  name: light-{number}\nhost:\nlogger:\n"
        )


async def _our_idle() -> Sample:
    """Return what Home Assistant takes more since it has a builder."""
    async with home_assistant() as (server, _):
        _fill(server.config_dir)
        await asyncio.sleep(_SETTLE_SECONDS)
        before = memory("VmRSS", server.pid)
        fake = install_fake(server.folder, "fake")
        await asyncio.to_thread(server.add_builder, fake)
        await asyncio.sleep(_SETTLE_SECONDS)
        return {"memory": max(0, memory("VmRSS", server.pid) - before)}


async def _peer_idle() -> Sample:
    """Return what the server takes."""
    async with peer() as side:
        _fill(side.config_dir)
        await asyncio.sleep(_SETTLE_SECONDS)
        return {"memory": memory("VmRSS", side.pid)}


@asynccontextmanager
async def _idle() -> AsyncGenerator[Samplers]:
    yield {Ours.name: _our_idle, Peer.name: _peer_idle}


_MEMORY: Final = Figure(title="memory", unit=Unit.MEBIBYTES)

MEMORY: Final = {
    "import": Measure(
        title="Import",
        figures={
            "wall": Figure(title="time", unit=Unit.MILLISECONDS),
            "memory": _MEMORY,
        },
        sides=_imports,
    ),
    "idle": Measure(
        title=f"Idle with {_CONFIGURATIONS} configurations",
        figures={"memory": _MEMORY},
        sides=_idle,
    ),
}
