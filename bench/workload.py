"""What both sides are given, and how both are looked at; runs in either's interpreter.

Needs nothing but the standard library and aiohttp.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import WebSocketWriter

LINES: Final = 1_000_000
LINES_TO_FOLLOWERS: Final = {0: LINES, 1: LINES, 10: 200_000, 100: 50_000}
"""Fewer where each goes to many, or the other side takes hours."""

TICK_SECONDS: Final = 0.002

_MODULES: Final = 1000


def write_output(path: Path, lines: int = LINES) -> None:
    """Write what a compile prints: mostly short lines, and some warnings in color."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines // 4):
            name = f"sensor/sensor_{number % _MODULES}"
            file.write(
                f"[{number % _MODULES}/{_MODULES}] Building CXX object "
                f"esphome/{name}.cpp.o\n"
                f"src/{name}.cpp:17:9: "
                "\x1b[35mwarning:\x1b[0m unused variable 'value'\n"
                "   17 |     auto value = this->state;\n"
                "      |          ^~~~~\n"
            )


def memory(field: str, pid: int | str = "self") -> int:
    """Return a size that Linux tells of a process, such as `VmRSS`, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)


class LoopWatch:
    """Notes the longest time for which the event loop was held."""

    def __init__(self) -> None:
        """Begin to look."""
        self.held = 0.0
        self._loop = asyncio.get_running_loop()
        self._tick(self._loop.time())

    def _tick(self, due: float) -> None:
        """Compare when this was due with when it is."""
        now = self._loop.time()
        self.held = max(self.held, now - due)
        due = now + TICK_SECONDS
        self._timer = self._loop.call_at(due, self._tick, due)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()


class _Nowhere(asyncio.Transport):
    """Takes what a websocket would send over the network."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop it."""

    def writelines(self, list_of_data: object) -> None:
        """Drop it."""

    def is_closing(self) -> bool:
        """Return that it can be written to."""
        return False


def frame_writer() -> WebSocketWriter:
    """Return what makes websocket frames, as aiohttp's server does, for nobody."""
    protocol = BaseProtocol(asyncio.get_running_loop())
    transport = _Nowhere()
    protocol.connection_made(transport)
    return WebSocketWriter(protocol, transport)


def memory_of_host() -> int:
    """Return the memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
