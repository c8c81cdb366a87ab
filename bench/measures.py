"""What is measured on both sides, and how."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
import json
import os
from pathlib import Path
import select
import signal
import subprocess
import sys
import time
from typing import Any, Final

from tests.e2e.server import ROOT

from .compiles import COMPILES
from .fleet import FLEET
from .memory import MEMORY
from .pairs import Figure, Measure, Sample, Samplers, Unit
from .promises import PROMISES, printing
from .sides import PEER, Ours, Peer, Side, ours, peer
from .usage import Usage
from .workload import write_output

_GIB: Final = 1024**3
_LONG_LINE: Final = 32 * 1024**2
_FLOOD_LINES: Final = 200_000

# So that each sample has a configuration and files of its own.
_numbers = count()


async def _engine(python: Path | str, module: str, *arguments: str) -> Sample:
    """Return a sample that a process of its own takes."""
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", f"bench.{module}", *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    sample: Sample = json.loads(output.splitlines()[-1])
    return sample


@asynccontextmanager
async def _engines(*arguments: str) -> AsyncGenerator[Samplers]:
    """Measure the engines alone, each in its own interpreter."""
    yield {
        Ours.name: partial(_engine, sys.executable, "our_engine", *arguments),
        Peer.name: partial(_engine, PEER / "python", "peer_engine", *arguments),
    }


@asynccontextmanager
async def _servers(
    sample: Callable[..., Awaitable[Sample]],
    *arguments: Any,  # noqa: ANN401
) -> AsyncGenerator[Samplers]:
    """Measure the servers, both of which run all the time."""
    async with ours() as one, peer() as two:
        yield {side.name: partial(sample, side, *arguments) for side in (one, two)}


async def _end_to_end(side: Side, clients: int) -> Sample:
    """Let a job print 200,000 lines to so many clients."""
    number = next(_numbers)
    output, go = side.config_dir / f"{number}.output", side.config_dir / f"{number}.go"
    write_output(output, _FLOOD_LINES)
    name = side.write(f"flood-{number}", f"wait {go}", f"replay {output}")
    connections = [await side.connect() for _ in range(clients)]
    (job_id,) = await connections[0].submit("compile", name)
    following = [
        asyncio.create_task(connection.follow_to_end(job_id))
        for connection in connections
    ]
    await asyncio.sleep(1)
    await side.peaks()
    usage = Usage(side.pid)
    go.touch()
    received = await asyncio.gather(*following)
    sample = usage.sample()
    sample["held"] = await side.peaks()
    sample["lost"] = 1 - sum(received) / (_FLOOD_LINES * clients)
    for connection in connections:
        await connection.close()
    output.unlink()
    return sample


async def _start_and_cancel(side: Side, *script: str) -> Sample:
    """Submit a job, wait for its first line, cancel it, wait for its last process."""
    name = side.write(f"quick-{next(_numbers)}", *script, "print it began", "sleep inf")
    connection, canceling = await side.connect(), await side.connect()
    started = time.perf_counter()
    (job_id,) = await connection.submit("compile", name)
    await connection.follow_to_output(job_id)
    began = time.perf_counter()
    processes = _processes(name)
    assert processes
    canceled = time.perf_counter()
    ending = asyncio.create_task(canceling.cancel(job_id))
    left = await asyncio.to_thread(_wait_for_end, processes)
    ended = time.perf_counter()
    await ending
    await connection.close()
    await canceling.close()
    return {"start": began - started, "cancel": ended - canceled, "left": left}


def _processes(name: str) -> list[int]:
    """Return the descriptors of the processes that were called with a configuration."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            if b"fake_esphome" in command and name.encode() in command:
                found.append(os.pidfd_open(int(path.name)))
        except OSError:
            continue
    return found


def _wait_for_end(processes: list[int], seconds: float = 10) -> int:
    """Wait for the ends of processes; return how many are left after a time."""
    waiting = select.poll()
    for process in processes:
        waiting.register(process, select.POLLIN)
    left = set(processes)
    until = time.monotonic() + seconds
    while left and (rest := until - time.monotonic()) > 0:
        for process, _ in waiting.poll(rest * 1000):
            waiting.unregister(process)
            left.remove(process)
    for process in left:
        # It must not disturb what is measured after this.
        signal.pidfd_send_signal(process, signal.SIGKILL)
    for process in processes:
        os.close(process)
    return len(left)


_FLOOD_FIGURES: Final = {
    "wall": Figure(title="wall time", unit=Unit.SECONDS),
    "cpu": Figure(title="CPU of the server", unit=Unit.SECONDS),
    "held": Figure(title="longest hold of the event loop", unit=Unit.MILLISECONDS),
    "memory": Figure(title="peak memory above idle", unit=Unit.MEBIBYTES),
}
_LOST: Final = {"lost": Figure(title="lines that did not arrive", unit=Unit.SHARE)}
_A_LINE: Final = {"cpu": Figure(title="CPU a line", unit=Unit.MICROSECONDS)}
_A_FOLLOWER: Final = {
    "cpu": Figure(title="CPU a line and follower", unit=Unit.MICROSECONDS),
    "lost": Figure(title="lines that did not arrive", unit=Unit.SHARE),
}
_WALL: Final = {"wall": Figure(title="", unit=Unit.MILLISECONDS)}

MEASURES: Final = {
    "intake": Measure(
        title="Intake of 1,000,000 lines, no follower",
        figures=_A_LINE,
        sides=partial(_engines, "fan-out", "0"),
    ),
    **{
        f"fan-out-{followers}": Measure(
            title=f"The same with {followers} follower{'s'[: followers > 1]}",
            figures=_A_FOLLOWER,
            sides=partial(_engines, "fan-out", f"{followers}"),
        )
        for followers in (1, 10, 100)
    },
    **{
        f"end-to-end-{clients}": Measure(
            title=f"200,000 lines to {clients} client{'s'[: clients > 1]}",
            figures=_FLOOD_FIGURES | _LOST,
            sides=partial(_servers, _end_to_end, clients),
        )
        for clients in (1, 10)
    },
    "long-line": Measure(
        title="A line of 32 MiB without an end",
        figures=_FLOOD_FIGURES,
        sides=partial(_servers, printing, f"long {_LONG_LINE}"),
    ),
    "ten-gib": Measure(
        title="10 GiB of output",
        figures=_FLOOD_FIGURES,
        sides=partial(_servers, printing, f"flood {10 * _GIB}"),
        pairs=1,
    ),
    "job": Measure(
        title="A job",
        figures={
            "start": Figure(
                title="submit to first line at the client", unit=Unit.MILLISECONDS
            ),
            "cancel": Figure(
                title="cancel to the end of its last process", unit=Unit.MILLISECONDS
            ),
            "left": Figure(title="processes left by a cancel", unit=Unit.COUNT),
        },
        sides=partial(_servers, _start_and_cancel, "spawn"),
    ),
    "stubborn-job": Measure(
        title="A job with a descendant that ignores SIGTERM",
        figures={"left": Figure(title="processes left 10 s later", unit=Unit.COUNT)},
        sides=partial(_servers, _start_and_cancel, "spawn ignore"),
    ),
    "restart": Measure(
        title="Restart with 500 ended jobs, until a new one is taken",
        figures=_WALL,
        sides=partial(_engines, "restart"),
    ),
    "save": Measure(
        title="Save of one transition with 500 jobs",
        figures=_WALL,
        sides=partial(_engines, "save"),
    ),
    **COMPILES,
    "fleet": FLEET,
    **MEMORY,
    **PROMISES,
}
