"""Runs the benchmarks, each in a process of its own, and prints a Markdown table."""

import argparse
import asyncio
import subprocess
import sys
from typing import Final

from .intake import measure_intake
from .processes import measure_process
from .server import measure_idle, measure_overhead, measure_setup, measure_streams

_MIB: Final = 1024 * 1024

INTAKE: Final = {
    "intake": 0,
    "intake-1": 1,
    "intake-10": 10,
    "intake-50": 50,
}
PROCESSES: Final = {
    "lines": (
        "2 GiB in lines",
        f"flood {2048 * _MIB}",
        "200,000 lines/s, 50 ms, 32 MiB",
    ),
    "long-line": (
        "one line of 64 MiB without an end",
        f"long {64 * _MIB}",
        "50 ms, 32 MiB",
    ),
    "redraws": ("redraws for a minute", "redraws 60", "50 ms, 32 MiB"),
    "rubbish": ("64 MiB of random bytes", f"rubbish {64 * _MIB}", "50 ms, 32 MiB"),
}
STREAMS: Final = {
    "streams-1": 1,
    "streams-32": 32,
}
COSTS: Final = {
    "idle": measure_idle,
    "overhead": measure_overhead,
    "setup": measure_setup,
}


async def measure(name: str) -> str:
    """Measure one; return its row of the table."""
    if name in INTAKE:
        return await measure_intake(INTAKE[name])
    if name in STREAMS:
        return await measure_streams(STREAMS[name])
    if name in COSTS:
        return await COSTS[name]()
    return await measure_process(*PROCESSES[name])


def main() -> None:
    """Measure what was asked for."""
    names = [*INTAKE, *PROCESSES, *STREAMS, *COSTS]
    parser = argparse.ArgumentParser("script/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    # A process that measures one, so that none has the memory of the one before.
    parser.add_argument("--one", choices=names, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(asyncio.run(measure(arguments.one)))
        return
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    print("| What | Measured | Promised |\n|---|---|---|", flush=True)
    for name in arguments.names or names:
        subprocess.run([sys.executable, "-m", __package__, "--one", name], check=True)


if __name__ == "__main__":
    main()
