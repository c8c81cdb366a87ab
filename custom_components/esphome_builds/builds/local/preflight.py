"""What of this host stands in the way of a build, said before the build starts.

`findings` judges the answers of the system, `parallel_compilers` what fits into memory.
"""

from collections.abc import Iterator, Mapping
import math
from pathlib import Path
import re
from typing import Final

from ..findings import BUILDS, Finding, Obstacle, Severity, worst_first
from ..models import JobKind
from .host import Folder, Host, Memory

COMPILER_BYTES: Final = 512 * 1024**2
"""What is reckoned for each compiler: twice what the largest of a host build takes."""

DISK_LOW_BYTES: Final = 2 * 1024**3
"""Less free space than this may not take the tool chain of another platform."""

DISK_MINIMUM_BYTES: Final = 512 * 1024**2
"""Less free space than this does not take the build tree of a device."""

ESPHOME_BYTES: Final = 256 * 1024**2
"""What ESPHome and the build tool need beside the compilers they start."""

MEMORY_MINIMUM_BYTES: Final = 512 * 1024**2
"""With less than this, swap included, not even one compiler is started.

A build for the host with one compiler at a time takes 300 MiB.
"""

OLDEST_ESPHOME: Final = (2026, 1, 0)
"""The first that writes `build_info.json`, which tells what a firmware was made of."""

OLDEST_PYTHON: Final = (3, 12)
"""What ESPHome's own metadata asks for."""

_EVERYTHING: Final = frozenset(JobKind)
# The makers of the tool chains build for these; for others nobody does.
_FULLY_SUPPORTED: Final = ("aarch64", "arm64", "x86_64")
_PARTLY_SUPPORTED: Final = ("armv6l", "armv7l", "i686")
# All of ESPHome's but `host`, which is built with the compiler of the system.
_TOOL_CHAINS: Final = frozenset(
    {
        "bk72xx",
        "esp32",
        "esp8266",
        "libretiny",
        "ln882x",
        "nrf52",
        "rp2",
        "rp2040",
        "rtl87xx",
    }
)
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def parallel_compilers(memory: Memory | None, *, cores: int, builds: int = 1) -> int:
    """Return how many compilers each of so many builds may run side by side.

    As many as share the cores, fewer where these would not fit into the memory that is
    free now. 0: not even one, so a build has to wait.
    """
    wanted = math.ceil(cores / builds)
    if memory is None:
        return wanted
    if memory.available + memory.swap < MEMORY_MINIMUM_BYTES:
        return 0
    # Swap is for what is not needed now; compilers that share it stop the host.
    share = memory.available // builds - ESPHOME_BYTES
    return max(1, min(wanted, share // COMPILER_BYTES))


def findings(
    host: Host, *, esphome_version: str | None, managed: bool
) -> tuple[Finding, ...]:
    """Return what stands in the way on this host, the worst first.

    `managed` is whether ESPHome itself is installed in the folder, with the Python that
    runs here.
    """
    found = (
        *_of_libc(host),
        *_of_architecture(host),
        *_of_compilers(host),
        *_of_memory(host),
        *_of_folder(host.folder, managed),
        *_of_disk(host.folder),
        *(_of_python(host) if managed else ()),
        *_of_esphome(esphome_version),
    )
    return worst_first(found)


def _of_libc(host: Host) -> Iterator[Finding]:
    """Find that tool chains, which are made with glibc, meet musl.

    With a stand-in for glibc's loader, such as gcompat, some of them work.
    """
    if host.loader is not None and Path(host.loader).name.startswith("ld-musl-"):
        yield Finding(
            obstacle=Obstacle.MUSL,
            severity=Severity.WARN if host.runs_glibc else Severity.REFUSE,
            facts={"loader": host.loader},
            platforms=_TOOL_CHAINS,
        )


def _of_architecture(host: Host) -> Iterator[Finding]:
    """Find that there are no tool chains for this host, or for some platforms only."""
    if host.architecture not in _FULLY_SUPPORTED:
        partly = host.architecture in _PARTLY_SUPPORTED
        yield Finding(
            obstacle=Obstacle.ARCHITECTURE,
            severity=Severity.WARN if partly else Severity.REFUSE,
            facts={"architecture": host.architecture},
            platforms=_TOOL_CHAINS,
        )


def _of_compilers(host: Host) -> Iterator[Finding]:
    """Find that programs for this host cannot be built."""
    if host.no_compiler_for:
        yield Finding(
            obstacle=Obstacle.COMPILER_MISSING,
            severity=Severity.REFUSE,
            facts={"languages": ", ".join(host.no_compiler_for)},
            platforms=frozenset({"host"}),
        )


def _of_memory(host: Host) -> Iterator[Finding]:
    """Find that compilers do not fit: ever, now, or not as many as there are cores."""
    if (memory := host.memory) is None:
        return
    fitting = parallel_compilers(memory, cores=host.cores)
    facts = {
        "total": memory.total,
        "available": memory.available,
        "swap": memory.swap,
        "minimum": MEMORY_MINIMUM_BYTES,
        "compilers": fitting,
        "cores": host.cores,
    }
    if memory.total + memory.swap < MEMORY_MINIMUM_BYTES:
        yield _memory(Obstacle.MEMORY_SMALL, Severity.REFUSE, facts)
    elif fitting == 0:
        yield _memory(Obstacle.MEMORY_LOW, Severity.WAIT, facts)
    elif fitting < host.cores:
        yield _memory(Obstacle.MEMORY_SCARCE, Severity.WARN, facts)


def _memory(
    obstacle: Obstacle, severity: Severity, facts: Mapping[str, str | int]
) -> Finding:
    return Finding(obstacle=obstacle, severity=severity, facts=facts)


def _of_folder(folder: Folder, managed: bool) -> Iterator[Finding]:
    """Find that the folder is not fit for what has to be in it."""
    path = str(folder.path)
    if folder.problem is not None:
        yield Finding(
            obstacle=Obstacle.NOT_WRITABLE,
            severity=Severity.REFUSE,
            facts={"path": path, "problem": folder.problem},
            kinds=_EVERYTHING,
        )
    if not folder.executable:
        yield Finding(
            obstacle=Obstacle.NOT_EXECUTABLE,
            severity=Severity.REFUSE,
            facts={"path": path},
            kinds=_EVERYTHING if managed else BUILDS,
            platforms=None if managed else _TOOL_CHAINS,
        )


def _of_disk(folder: Folder) -> Iterator[Finding]:
    """Find that there is no space for a build tree, or for a tool chain."""
    if folder.free is None or folder.free >= DISK_LOW_BYTES:
        return
    full = folder.free < DISK_MINIMUM_BYTES
    yield Finding(
        obstacle=Obstacle.DISK_FULL if full else Obstacle.DISK_LOW,
        severity=Severity.REFUSE if full else Severity.WARN,
        facts={
            "path": str(folder.path),
            "free": folder.free,
            "needed": DISK_MINIMUM_BYTES if full else DISK_LOW_BYTES,
        },
        platforms=None if full else _TOOL_CHAINS,
    )


def _of_python(host: Host) -> Iterator[Finding]:
    """Find that no ESPHome can be installed for the Python that runs here."""
    if host.python < OLDEST_PYTHON:
        yield Finding(
            obstacle=Obstacle.PYTHON_OLD,
            severity=Severity.REFUSE,
            facts={"python": _dotted(host.python), "oldest": _dotted(OLDEST_PYTHON)},
            kinds=_EVERYTHING,
        )


def _of_esphome(version: str | None) -> Iterator[Finding]:
    """Find that ESPHome is older than what is known here of it."""
    match = _VERSION.match(version or "")
    if match is not None and tuple(map(int, match.groups())) < OLDEST_ESPHOME:
        yield Finding(
            obstacle=Obstacle.ESPHOME_OLD,
            severity=Severity.WARN,
            facts={"version": match.string, "oldest": _dotted(OLDEST_ESPHOME)},
            kinds=_EVERYTHING,
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
