"""What a process uses, as Linux tells it."""

import os
from pathlib import Path
import time

from .workload import memory


class Usage:
    """What a process used since this was made."""

    def __init__(self, pid: int) -> None:
        """Begin."""
        # Linux forgets the peak of a process when it is told so.
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
        self._pid = pid
        self._memory = memory("VmRSS", pid)
        self._processor = processor_seconds(pid)
        self._started = time.perf_counter()

    def sample(self) -> dict[str, float]:
        """Return seconds in all and of processors, and the peak of memory in bytes."""
        return {
            "wall": time.perf_counter() - self._started,
            "cpu": processor_seconds(self._pid) - self._processor,
            "memory": max(0, memory("VmHWM", self._pid) - self._memory),
        }


def processor_seconds(pid: int) -> float:
    """Return the time that a process has had a processor."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
