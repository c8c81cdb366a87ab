"""What a real process that prints very much costs the one that reads it."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
import time
from typing import Final

from tests.builds.local.harness import House

_MIB: Final = 1024 * 1024
_PATIENCE: Final = 1000.0
_TICK: Final = 0.002


class _Loop:
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
        self._timer = self._loop.call_at(now + _TICK, self._tick, now + _TICK)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()


def _memory(field: str) -> int:
    """Return a size of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)


async def measure_process(what: str, script: str, promised: str) -> str:
    """Let a job print; return a row of the table."""
    with TemporaryDirectory() as folder:
        house = House(Path(folder))
        house.write("warm-up", "compile 1000")
        house.write("flood", script)
        async with house.started() as tenant:
            await tenant.run("compile", "warm-up.yaml")
            before = _memory("VmRSS")
            loop = _Loop()
            started = time.perf_counter()
            (job,) = await tenant.submit("compile", "flood.yaml")
            async with asyncio.timeout(_PATIENCE):
                while not tenant.job(job).status.ended:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            seconds = time.perf_counter() - started
            loop.stop()
            added = max(0, _memory("VmHWM") - before)
            total = tenant.job(job).total_lines
    rate = f"{total / seconds:,.0f} lines/s" if total > 1 else f"{seconds:.2f} s"
    return (
        f"| {what} | {rate}, loop held for {loop.held * 1000:.0f} ms at most, "
        f"{added / _MIB:.1f} MiB more memory "
        f"| {promised} |"
    )
