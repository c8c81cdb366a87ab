"""What of this host stands in the way of a build, said before the build starts.

`look` asks the system, in one function for each question, and blocks. All else is pure:
`findings` judges the answers, `parallel_compilers` what fits into the memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import errno
import math
import os
from pathlib import Path
import platform
import re
import shutil
import struct
import sys
import tempfile
from typing import Final

from ..findings import BUILDS, Finding, Obstacle, Severity
from ..models import JobKind

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

_COMPILERS: Final = {"C": ("gcc", "clang", "cc"), "C++": ("g++", "clang++", "c++")}
_ELF_BYTES: Final = 64
_EVERYTHING: Final = frozenset(JobKind)
# The makers of the tool chains build for these; for others nobody does.
_FULLY_SUPPORTED: Final = ("aarch64", "arm64", "x86_64")
_PARTLY_SUPPORTED: Final = ("armv6l", "armv7l", "i686")
# Limit, usage, and what names in the statistics begin with where groups below count.
_GROUP_FILES: Final = ("memory.max", "memory.current", "")
_GROUPS: Final = Path("/sys/fs/cgroup")
_LOADER_BYTES: Final = 4096
_LOADERS: Final = {
    "aarch64": "lib/ld-linux-aarch64.so.1",
    "x86_64": "lib64/ld-linux-x86-64.so.2",
}
_NARROW: Final = {"aarch64": "armv7l", "x86_64": "i686"}
_NO_EXEC: Final[int] = getattr(os, "ST_NOEXEC", 0)
_OLD_GROUP_FILES: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
_PROC: Final = Path("/proc")
_PROGRAM_INTERPRETER: Final = 3
_ROOT: Final = Path("/")
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes that processes started from here may take in all, now, and in free swap."""

    total: int
    available: int
    swap: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """What a folder is fit for; `problem` says why nothing can be written to it."""

    path: Path
    problem: str | None = None
    executable: bool = True
    free: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """The answers of the system; what it does not tell is None.

    `loader` is what starts the running Python, and `runs_glibc` whether there is one
    for programs made with glibc, too.
    """

    architecture: str
    python: tuple[int, int]
    cores: int
    folder: Folder
    loader: str | None = None
    runs_glibc: bool = True
    no_compiler_for: tuple[str, ...] = ()
    memory: Memory | None = None


def look(folder: Path, environment: Mapping[str, str]) -> Host:
    """Ask all questions; blocking.

    The folder is where builds are made, and is made if it is not there. The environment
    is the one that builds get.
    """
    architecture = ask_architecture()
    problem = ask_problem(folder)
    executable, free = ask_file_system(folder)
    return Host(
        architecture=architecture,
        python=ask_python(),
        cores=ask_cores(),
        folder=Folder(path=folder, problem=problem, executable=executable, free=free),
        loader=ask_loader(Path(sys.executable)),
        runs_glibc=ask_glibc(architecture),
        no_compiler_for=ask_compilers(environment),
        memory=ask_memory(),
    )


def ask_architecture() -> str:
    """Return what programs are made for here, by the name that Linux has for it."""
    machine = platform.machine()
    if sys.maxsize > 2**32:
        return machine
    # A kernel of 64 bits can run a system of 32, as that of a Raspberry Pi does.
    return _NARROW.get(machine, machine)


def ask_python() -> tuple[int, int]:
    """Return the version of the Python that a managed ESPHome would have."""
    return sys.version_info[:2]


def ask_cores() -> int:
    """Return how many cores this process may use."""
    return os.process_cpu_count() or 1


def ask_loader(executable: Path) -> str | None:
    """Return the loader that a program names, which tells the C library; blocking.

    From the program's own header (`elf(5)`), since what is installed beside it says
    nothing. None where it names none or is of no such format.
    """
    try:
        with executable.open("rb") as file:
            header = file.read(_ELF_BYTES)
            if not header.startswith(b"\x7fELF"):
                return None
            wide, order = header[4] == 2, "<" if header[5] == 1 else ">"  # noqa: PLR2004
            word = "Q" if wide else "I"
            fields = struct.unpack_from(f"{order}16xHHI3{word}IHHH", header)
            offset, size, count = fields[4], fields[8], fields[9]
            layout = f"{order}IIQQQQ" if wide else f"{order}IIIII"
            file.seek(offset)
            for entry in struct.iter_unpack(f"{size}s", file.read(size * count)):
                values = struct.unpack_from(layout, entry[0])
                if values[0] == _PROGRAM_INTERPRETER:
                    file.seek(values[2] if wide else values[1])
                    name = file.read(min(values[-1], _LOADER_BYTES))
                    return name.rstrip(b"\0").decode("utf-8", "replace")
    except IndexError, OSError, ValueError, struct.error:
        return None
    return None


def ask_glibc(architecture: str) -> bool:
    """Return whether the loader that tool chains name is there; blocking."""
    loader = _LOADERS.get(architecture)
    return loader is None or (_ROOT / loader).exists()


def ask_compilers(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return for which languages a build finds no compiler; blocking.

    As `find_compilers` in `esphome/host/toolchain.py` looks for them.
    """
    # Without a search path, a program is looked for where the system has its own.
    path = environment.get("PATH")
    return tuple(
        language
        for language, names in _COMPILERS.items()
        if not any(shutil.which(name, path=path) for name in names)
    )


def ask_problem(folder: Path) -> str | None:
    """Return why nothing can be written to a folder, None if it can; blocking.

    By writing: permissions say nothing of a file system that is read-only or in error.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as err:
        # It can be written to when there is space again, of which others tell.
        return None if err.errno == errno.ENOSPC else err.strerror or str(err)
    return None


def ask_file_system(folder: Path) -> tuple[bool, int | None]:
    """Return whether programs in a folder can be run, and its free bytes; blocking."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return True, None
    return not status.f_flag & _NO_EXEC, status.f_bavail * status.f_frsize


def ask_memory() -> Memory | None:
    """Return what memory there is for processes that are started here; blocking.

    In a container, its limit and what its processes have taken count, not the host's.
    """
    try:
        host = _numbers((_PROC / "meminfo").read_text(), unit=1024)
        memory = Memory(
            total=host["MemTotal"],
            available=host["MemAvailable"],
            swap=host.get("SwapFree", 0),
        )
        groups = (_PROC / "self" / "cgroup").read_text()
    except OSError, KeyError:
        return None
    limits = [limit for limit in _group_limits(groups) if limit[0] < memory.total]
    if not limits:
        return memory
    # How much of the host's swap is for these groups nobody tells.
    return Memory(
        total=min(total for total, _ in limits),
        available=min(memory.available, *(rest for _, rest in limits)),
    )


def _group_limits(groups: str) -> Iterator[tuple[int, int]]:
    """Yield limit and rest of each control group that this process is in.

    `groups` is `/proc/self/cgroup`. A container sees its own group at the top, whatever
    path the host knows it by; so all of the path is tried, up to the top.
    """
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, files = _GROUPS, _GROUP_FILES
        elif "memory" in controllers.split(","):
            top, files = _GROUPS / "memory", _OLD_GROUP_FILES
        else:
            continue
        group = top / path.strip("/")
        for folder in (group, *group.parents)[: len(group.parts) - len(top.parts) + 1]:
            if (found := _group_limit(folder, *files)) is not None:
                yield found


def _group_limit(
    folder: Path, limit_name: str, usage_name: str, prefix: str
) -> tuple[int, int] | None:
    """Return limit and rest of one control group, None if it has no limit.

    Files it has read count as used, but go when memory is needed, as `MemAvailable` has
    it. See `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`.
    """
    try:
        limit = int((folder / limit_name).read_text())
        usage = int((folder / usage_name).read_text())
        stat = _numbers((folder / "memory.stat").read_text())
    except OSError, ValueError:
        # The limit of the new kind can be the word "max".
        return None
    files = stat.get(f"{prefix}active_file", 0) + stat.get(f"{prefix}inactive_file", 0)
    return limit, max(0, limit - max(0, usage - files))


def _numbers(text: str, unit: int = 1) -> dict[str, int]:
    """Return the numbers of a file of the kernel, one on a line after its name."""
    pairs = (line.replace(":", " ").split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) * unit for pair in pairs if len(pair) > 1}


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
    order = tuple(Severity)
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
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


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
