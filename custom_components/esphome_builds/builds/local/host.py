"""What this host has: one function for each question, all of which block."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import errno
import os
from pathlib import Path
import platform
import shutil
import struct
import sys
import tempfile
from typing import Final

_COMPILERS: Final = {"C": ("gcc", "clang", "cc"), "C++": ("g++", "clang++", "c++")}
_ELF_BYTES: Final = 64
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
# These say nothing of the folder: of free space others tell, and a process that can
# open no more files says so where it fails.
_OTHER_TROUBLE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOSPC)
_PROC: Final = Path("/proc")
_PROGRAM_INTERPRETER: Final = 3
_ROOT: Final = Path("/")


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
        return None if err.errno in _OTHER_TROUBLE else err.strerror or str(err)
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
