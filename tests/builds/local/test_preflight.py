"""What stands in the way of a build: with real causes where this machine can have them.

Mounting needs the right to do so; without it those tests are skipped.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
import os
from pathlib import Path
import platform
import resource
import shutil
import struct
import subprocess
import sys

import pytest

from custom_components.esphome_builds.builds.findings import Finding, Obstacle, Severity
from custom_components.esphome_builds.builds.local import host as module
from custom_components.esphome_builds.builds.local.host import (
    Folder,
    Host,
    Memory,
    ask_glibc,
    ask_loader,
    ask_memory,
    ask_problem,
    look,
)
from custom_components.esphome_builds.builds.local.preflight import (
    COMPILER_BYTES,
    DISK_LOW_BYTES,
    DISK_MINIMUM_BYTES,
    ESPHOME_BYTES,
    MEMORY_MINIMUM_BYTES,
    findings,
    parallel_compilers,
)
from custom_components.esphome_builds.builds.models import JobKind

GLIBC = "/lib64/ld-linux-x86-64.so.2"
MUSL = "/lib/ld-musl-x86_64.so.1"
_GIB = 1024**3
_MIB = 1024**2
_ROOMY = Memory(total=64 * _GIB, available=64 * _GIB)
_ESP = ("esp32", "esp8266", "rp2040", "bk72xx", "rtl87xx", "ln882x", "nrf52")


@contextmanager
def mounted(path: Path, options: str) -> Generator[Path]:
    """Mount an empty file system in memory for a time."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"needs the right to mount a file system: {err}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def a_host(tmp_path: Path, **changes: object) -> Host:
    """Return a host on which all is well, or other than that."""
    host = Host(
        architecture="x86_64",
        python=(3, 14),
        cores=4,
        folder=Folder(path=tmp_path, free=100 * _GIB),
        loader=GLIBC,
        memory=_ROOMY,
    )
    return replace(host, **changes)  # type: ignore[arg-type]


def of_host(host: Host, *, managed: bool = False) -> list[Finding]:
    """Return what is found on a host with an ESPHome of today."""
    return list(findings(host, esphome_version="2026.10.0", managed=managed))


def on_this_machine(
    folder: Path,
    environment: Mapping[str, str] = os.environ,
    *,
    managed: bool = False,
) -> list[Finding]:
    """Return what is found here, but for what this machine has too little of."""
    return [
        finding
        for finding in of_host(look(folder, environment), managed=managed)
        if not finding.obstacle.startswith(("memory", "disk"))
    ]


def only(found: list[Finding]) -> Finding:
    """Return the one finding."""
    (finding,) = found
    return finding


def test_nothing_in_the_way(tmp_path: Path) -> None:
    """On a host where all is well, nothing is found; the folder is made."""
    folder = tmp_path / "cache" / "esphome_builds"

    assert on_this_machine(folder, managed=True) == []
    assert list(folder.iterdir()) == []


class TestLibc:
    """Tool chains are made with glibc."""

    @pytest.fixture
    def executable(self, tmp_path: Path) -> Path:
        """Return a real program that asks for the loader of musl."""
        source = tmp_path / "main.c"
        source.write_text("int main(void) { return 0; }\n")
        program = tmp_path / "program"
        linker = f"-Wl,--dynamic-linker={MUSL}"
        subprocess.run(["gcc", linker, source, "-o", program], check=True)
        return program

    def test_real_programs(self, executable: Path) -> None:
        """The loader is the one that the program's own header names."""
        assert ask_loader(executable) == MUSL
        real = ask_loader(Path(sys.executable))
        assert real is not None
        assert Path(real).is_file()

    def test_musl(
        self,
        executable: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """On a system with musl, nothing can be built but for the host itself."""
        monkeypatch.setattr(sys, "executable", str(executable))
        monkeypatch.setattr(module, "_ROOT", tmp_path)

        finding = only(on_this_machine(tmp_path / "cache"))

        assert finding.obstacle is Obstacle.MUSL
        assert finding.severity is Severity.REFUSE
        assert finding.facts == {"loader": MUSL}
        for name in _ESP:
            assert finding.concerns(JobKind.COMPILE, name)
            assert not finding.concerns(JobKind.UPLOAD, name)
        assert not finding.concerns(JobKind.COMPILE, "host")
        assert not finding.concerns(JobKind.COMPILE, None)

    @pytest.mark.parametrize(
        ("architecture", "loader"),
        [
            ("x86_64", "lib64/ld-linux-x86-64.so.2"),
            ("aarch64", "lib/ld-linux-aarch64.so.1"),
        ],
    )
    def test_stand_in_for_glibc(
        self,
        architecture: str,
        loader: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Where something takes the place of glibc's loader, it may work."""
        monkeypatch.setattr(module, "_ROOT", tmp_path)
        assert not ask_glibc(architecture)

        (tmp_path / loader).parent.mkdir()
        (tmp_path / loader).touch()

        assert ask_glibc(architecture)
        finding = only(of_host(a_host(tmp_path, loader=MUSL, runs_glibc=True)))
        assert finding.severity is Severity.WARN

    def test_unknown_loader(self) -> None:
        """Of an architecture that has no known loader nothing is said."""
        assert ask_glibc("riscv64")

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_program_of_32_bits(self, order: str, tmp_path: Path) -> None:
        """Programs of 32 bits have another header, in either order of bytes."""
        loader = b"/lib/ld-musl-armhf.so.1\0"
        ident = b"\x7fELF" + bytes([1, 1 if order == "<" else 2]) + bytes(10)
        header = struct.pack(f"{order}HHIIIIIHHH", 2, 40, 1, 0, 52, 0, 0, 52, 32, 2)
        other = struct.pack(f"{order}IIIII12x", 1, 0, 0, 0, 9)
        entry = struct.pack(f"{order}IIIII12x", 3, 116, 0, 0, len(loader))
        program = tmp_path / "program"
        program.write_bytes((ident + header).ljust(52, b"\0") + other + entry + loader)

        assert ask_loader(program) == loader[:-1].decode()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"#!/bin/sh\n",
            b"\x7fELF",
            b"\x7fELF\2\1",
            b"\x7fELF\2\1" + b"\xff" * 58,
        ],
    )
    def test_no_such_program(self, content: bytes, tmp_path: Path) -> None:
        """What is no program, or half of one, names no loader."""
        program = tmp_path / "program"
        program.write_bytes(content)

        assert ask_loader(program) is None
        assert ask_loader(tmp_path / "none") is None
        assert of_host(a_host(tmp_path, loader=None)) == []

    def test_program_without_loader(self, tmp_path: Path) -> None:
        """A program that is complete in itself names none."""
        program = tmp_path / "program.o"
        command = ["gcc", "-x", "c", "-c", "/dev/null", "-o", str(program)]
        subprocess.run(command, check=True)
        header = bytearray(program.read_bytes())
        # An object file has no program header; say so as a program would.
        struct.pack_into("<HH", header, 54, 56, 0)
        program.write_bytes(header)

        assert ask_loader(program) is None


class TestArchitecture:
    """Tool chains are made for few kinds of hosts."""

    def ask(
        self, machine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Host:
        """Look at a machine that calls itself so."""
        monkeypatch.setattr(platform, "machine", lambda: machine)
        return a_host(tmp_path, architecture=module.ask_architecture())

    @pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm64"])
    def test_supported(
        self, machine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """On the usual ones nothing is found."""
        assert of_host(self.ask(machine, monkeypatch, tmp_path)) == []

    @pytest.mark.parametrize(
        ("machine", "severity"),
        [
            ("riscv64", Severity.REFUSE),
            ("s390x", Severity.REFUSE),
            ("armv7l", Severity.WARN),
        ],
    )
    def test_others(
        self,
        machine: str,
        severity: Severity,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """On others there are few tool chains or none, and the host's own compiler."""
        finding = only(of_host(self.ask(machine, monkeypatch, tmp_path)))

        assert finding.obstacle is Obstacle.ARCHITECTURE
        assert finding.severity is severity
        assert finding.facts == {"architecture": machine}
        assert finding.concerns(JobKind.COMPILE, "esp32")
        assert not finding.concerns(JobKind.COMPILE, "host")

    def test_system_of_32_bits(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """What counts is the system, not the kernel that it runs on."""
        monkeypatch.setattr(sys, "maxsize", 2**31 - 1)

        host = self.ask("aarch64", monkeypatch, tmp_path)

        assert host.architecture == "armv7l"
        assert self.ask("armv6l", monkeypatch, tmp_path).architecture == "armv6l"


class TestCompilers:
    """Programs for the host itself are built with the system's compiler."""

    def test_none(self, tmp_path: Path) -> None:
        """Without one, only devices can be built for."""
        finding = only(on_this_machine(tmp_path, {"PATH": str(tmp_path)}))

        assert finding.obstacle is Obstacle.COMPILER_MISSING
        assert finding.severity is Severity.REFUSE
        assert finding.facts == {"languages": "C, C++"}
        assert finding.concerns(JobKind.COMPILE, "host")
        assert not finding.concerns(JobKind.COMPILE, "esp32")
        assert not finding.concerns(JobKind.UPLOAD, "host")

    def test_half_of_it(self, tmp_path: Path) -> None:
        """Many systems have one for C only."""
        gcc = shutil.which("gcc")
        assert gcc is not None
        (tmp_path / "cc").symlink_to(gcc)

        finding = only(on_this_machine(tmp_path, {"PATH": str(tmp_path)}))

        assert finding.facts == {"languages": "C++"}


class TestMemory:
    """Compilers need memory, each its own."""

    @pytest.mark.parametrize(
        ("available", "cores", "builds", "expected"),
        [
            (64 * _GIB, 4, 1, 4),
            (64 * _GIB, 4, 2, 2),
            (64 * _GIB, 3, 2, 2),
            (64 * _GIB, 1, 2, 1),
            (ESPHOME_BYTES + 4 * COMPILER_BYTES, 4, 1, 4),
            (ESPHOME_BYTES + 4 * COMPILER_BYTES - 1, 4, 1, 3),
            (2 * (ESPHOME_BYTES + 2 * COMPILER_BYTES) - 1, 4, 2, 1),
            (MEMORY_MINIMUM_BYTES, 4, 1, 1),
            (MEMORY_MINIMUM_BYTES, 4, 4, 1),
            (MEMORY_MINIMUM_BYTES - 1, 4, 1, 0),
        ],
    )
    def test_parallel_compilers(
        self, available: int, cores: int, builds: int, expected: int
    ) -> None:
        """As many as share the cores and fit; one where that is all; else none."""
        memory = Memory(total=64 * _GIB, available=available)

        assert parallel_compilers(memory, cores=cores, builds=builds) == expected

    def test_swap(self) -> None:
        """Swap makes room for one compiler, and not for several."""
        memory = Memory(total=_GIB, available=300 * _MIB, swap=16 * _GIB)

        assert parallel_compilers(memory, cores=4) == 1

    def test_unknown(self, tmp_path: Path) -> None:
        """Where the system does not tell, only the cores count."""
        assert parallel_compilers(None, cores=4) == 4
        assert of_host(a_host(tmp_path, memory=None)) == []

    def test_findings(self, tmp_path: Path) -> None:
        """Fewer compilers are worth a word, none now waits, never any is the end."""
        host = a_host(tmp_path)
        found = [
            only(
                of_host(replace(host, memory=Memory(total=total, available=available)))
            )
            for total, available in (
                (4 * _GIB, 1800 * _MIB),
                (2 * _GIB, 400 * _MIB),
                (500 * _MIB, 400 * _MIB),
            )
        ]

        assert [(finding.obstacle, finding.severity) for finding in found] == [
            (Obstacle.MEMORY_SCARCE, Severity.WARN),
            (Obstacle.MEMORY_LOW, Severity.WAIT),
            (Obstacle.MEMORY_SMALL, Severity.REFUSE),
        ]
        assert found[0].facts == {
            "total": 4 * _GIB,
            "available": 1800 * _MIB,
            "swap": 0,
            "minimum": MEMORY_MINIMUM_BYTES,
            "compilers": 3,
            "cores": 4,
        }
        assert [finding.facts["compilers"] for finding in found] == [3, 0, 0]
        assert all(finding.concerns(JobKind.COMPILE, None) for finding in found)
        assert not any(finding.concerns(JobKind.UPLOAD, "esp32") for finding in found)


class Kernel:
    """What the kernel says of memory, in files as it has them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Say that the host has 8 GiB, of which 6 are free, and no groups."""
        self.proc = folder / "proc"
        self.groups = folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.groups.mkdir()
        monkeypatch.setattr(module, "_PROC", self.proc)
        monkeypatch.setattr(module, "_GROUPS", self.groups)
        self.host(8, 6, 0)
        self.member("0::/")

    def host(self, total: int, available: int, swap: int) -> None:
        """Say what the host has, in GiB."""
        (self.proc / "meminfo").write_text(
            f"MemTotal:       {total * _MIB} kB\n"
            f"MemFree:          123456 kB\n"
            f"MemAvailable:   {available * _MIB} kB\n"
            f"SwapFree:       {swap * _MIB} kB\n"
            "HugePages_Total:       0\n"
        )

    def member(self, *lines: str) -> None:
        """Say in which groups this process is."""
        (self.proc / "self" / "cgroup").write_text("".join(f"{x}\n" for x in lines))

    def group(self, path: str, limit: object, usage: int, files: int) -> None:
        """Make a group as in version 2, with a limit and what is used, in bytes."""
        folder = self.groups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{usage}\n")
        half = files // 2
        stat = f"anon 1\ninactive_file {half}\nactive_file {half}\nshmem 5\n"
        (folder / "memory.stat").write_text(stat)

    def old_group(self, path: str, limit: int, usage: int, files: int) -> None:
        """Make a group as in version 1."""
        folder = self.groups / "memory" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{usage}\n")
        stat = f"active_file 7\ntotal_inactive_file {files}\ntotal_active_file 0\n"
        (folder / "memory.stat").write_text(stat)


class TestLimits:
    """In a container its limit counts, and what the container has taken."""

    @pytest.fixture
    def kernel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
        """Return a kernel that says what a test lets it say."""
        return Kernel(tmp_path, monkeypatch)

    def test_this_machine(self) -> None:
        """What this machine says is understood."""
        memory = ask_memory()

        assert memory is not None
        assert 0 < memory.available <= memory.total

    def test_no_limit(self, kernel: Kernel) -> None:
        """Without a limit, the host's memory and swap count."""
        kernel.host(8, 6, 1)
        kernel.group("", "max", 5 * _GIB, 0)

        expected = Memory(total=8 * _GIB, available=6 * _GIB, swap=_GIB)
        assert ask_memory() == expected

    def test_container(self, kernel: Kernel) -> None:
        """A container sees its group at the top. Files it has read can go."""
        kernel.host(8, 6, 1)
        kernel.group("", 2 * _GIB, 1536 * _MIB, 512 * _MIB)

        assert ask_memory() == Memory(total=2 * _GIB, available=_GIB)

    def test_limit_above(self, kernel: Kernel) -> None:
        """Limits of the groups around count as well, whichever is the narrowest."""
        kernel.member("0::/system.slice/home-assistant.service")
        kernel.group("system.slice/home-assistant.service", 3 * _GIB, _GIB, 0)
        kernel.group("system.slice", 4 * _GIB, 3584 * _MIB, 0)

        assert ask_memory() == Memory(total=3 * _GIB, available=512 * _MIB)

    def test_beyond_the_limit(self, kernel: Kernel) -> None:
        """A group may have taken more than it is allowed now."""
        kernel.group("", _GIB, 2 * _GIB, 0)

        assert ask_memory() == Memory(total=_GIB, available=0)

    def test_host_has_less(self, kernel: Kernel) -> None:
        """What a container may take need not be there."""
        kernel.group("", 7 * _GIB, 0, 0)

        assert ask_memory() == Memory(total=7 * _GIB, available=6 * _GIB)

    def test_version_1(self, kernel: Kernel) -> None:
        """A container of version 1 finds its own path nowhere, but its group on top."""
        kernel.member("9:name=systemd:/docker/1", "4:cpu,memory:/docker/1", "0::/")
        kernel.old_group("", 2 * _GIB, _GIB, 256 * _MIB)

        assert ask_memory() == Memory(total=2 * _GIB, available=1280 * _MIB)

    def test_version_1_without_limit(self, kernel: Kernel) -> None:
        """No limit is a very large one there."""
        kernel.member("4:memory:/")
        kernel.old_group("", 9223372036854771712, _GIB, 0)

        assert ask_memory() == Memory(total=8 * _GIB, available=6 * _GIB)

    @pytest.mark.parametrize("missing", ["meminfo", "self/cgroup"])
    def test_other_systems(self, kernel: Kernel, missing: str) -> None:
        """Where there are no such files, nothing is known."""
        (kernel.proc / missing).unlink()

        assert ask_memory() is None

    def test_container_is_too_small(self, kernel: Kernel, tmp_path: Path) -> None:
        """A small container on a large host is found."""
        kernel.group("", 300 * _MIB, 0, 0)

        found = of_host(replace(a_host(tmp_path), memory=ask_memory()))

        assert only(found).obstacle is Obstacle.MEMORY_SMALL


class TestFolder:
    """The folder that builds are made in, on file systems that do not suit."""

    def test_not_executable(self, tmp_path: Path) -> None:
        """Tool chains are in the folder, and are run from there."""
        with mounted(tmp_path / "cache", "noexec,size=4g") as folder:
            script = folder / "script"
            script.write_text("#!/bin/sh\n")
            script.chmod(0o755)
            with pytest.raises(PermissionError):
                subprocess.run([script], check=True)

            finding = only(on_this_machine(folder))
            of_managed = only(on_this_machine(folder, managed=True))

        assert finding.obstacle is Obstacle.NOT_EXECUTABLE
        assert finding.severity is Severity.REFUSE
        assert finding.facts == {"path": str(folder)}
        assert finding.concerns(JobKind.COMPILE, "esp32")
        assert not finding.concerns(JobKind.COMPILE, "host")
        assert not finding.concerns(JobKind.VALIDATE, "esp32")
        # Then ESPHome itself is there.
        assert of_managed.concerns(JobKind.VALIDATE, "host")

    def test_read_only(self, tmp_path: Path) -> None:
        """Nothing at all can run where nothing can be written."""
        with mounted(tmp_path / "cache", "ro") as folder:
            finding = only(on_this_machine(folder))

        assert finding.obstacle is Obstacle.NOT_WRITABLE
        assert finding.severity is Severity.REFUSE
        problem = "Read-only file system"
        assert finding.facts == {"path": str(folder), "problem": problem}
        for kind in JobKind:
            assert finding.concerns(kind, None)

    def test_cannot_be_made(self, tmp_path: Path) -> None:
        """Something else may have its name."""
        folder = tmp_path / "file" / "cache"
        folder.parent.touch()

        finding = only(on_this_machine(folder))

        assert finding.obstacle is Obstacle.NOT_WRITABLE
        assert finding.facts["problem"] == "Not a directory"

    @pytest.mark.parametrize(
        ("size", "obstacle", "severity", "needed"),
        [
            ("100m", Obstacle.DISK_FULL, Severity.REFUSE, DISK_MINIMUM_BYTES),
            ("1g", Obstacle.DISK_LOW, Severity.WARN, DISK_LOW_BYTES),
        ],
    )
    def test_small(
        self,
        size: str,
        obstacle: Obstacle,
        severity: Severity,
        needed: int,
        tmp_path: Path,
    ) -> None:
        """Too little for a build stops it, too little for tool chains does not."""
        with mounted(tmp_path / "cache", f"size={size}") as folder:
            host = look(folder, os.environ)
            finding = only(of_host(replace(host, memory=_ROOMY)))

        assert (finding.obstacle, finding.severity) == (obstacle, severity)
        free = host.folder.free
        assert finding.facts == {"path": str(folder), "free": free, "needed": needed}
        assert finding.concerns(JobKind.COMPILE, "esp32")
        assert finding.concerns(JobKind.COMPILE, "host") == (
            severity is Severity.REFUSE
        )
        assert not finding.concerns(JobKind.UPLOAD, "esp32")

    def test_enough(self, tmp_path: Path) -> None:
        """What is needed is enough."""
        for free, obstacles in (
            (DISK_LOW_BYTES, []),
            (DISK_LOW_BYTES - 1, [Obstacle.DISK_LOW]),
            (DISK_MINIMUM_BYTES, [Obstacle.DISK_LOW]),
            (DISK_MINIMUM_BYTES - 1, [Obstacle.DISK_FULL]),
        ):
            host = a_host(tmp_path, folder=Folder(path=tmp_path, free=free))
            assert [finding.obstacle for finding in of_host(host)] == obstacles

    def test_no_descriptor(self, tmp_path: Path) -> None:
        """That this process can open no more files says nothing of the folder."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                (tmp_path / "file").open("wb")
            problem = ask_problem(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

        assert problem is None

    def test_full(self, tmp_path: Path) -> None:
        """A folder without any space can be written to when there is some."""
        with mounted(tmp_path / "cache", "size=1m") as folder:
            with pytest.raises(OSError, match="No space left"):
                (folder / "filler").write_bytes(bytes(2 * _MIB))
            host = look(folder, os.environ)
            found = of_host(replace(host, memory=_ROOMY))

        assert host.folder.problem is None
        assert only(found).obstacle is Obstacle.DISK_FULL

    def test_unknown(self, tmp_path: Path) -> None:
        """Of the space that cannot be asked for nothing is said."""
        host = a_host(tmp_path, folder=Folder(path=tmp_path))

        assert of_host(host) == []


class TestVersions:
    """Python and ESPHome of today are needed."""

    def test_python(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No ESPHome can be installed for an old Python; one's own may work."""
        monkeypatch.setattr(sys, "version_info", (3, 11, 9, "final", 0))

        finding = only(on_this_machine(tmp_path, managed=True))

        assert finding.obstacle is Obstacle.PYTHON_OLD
        assert finding.severity is Severity.REFUSE
        assert finding.facts == {"python": "3.11", "oldest": "3.12"}
        assert finding.concerns(JobKind.VALIDATE, None)
        assert on_this_machine(tmp_path) == []

    @pytest.mark.parametrize("version", ["2025.12.4", "1.20.4", "2025.12.0b1"])
    def test_old_esphome(self, version: str, tmp_path: Path) -> None:
        """An old ESPHome may work, only not all of what is shown here."""
        host = a_host(tmp_path)

        finding = only(list(findings(host, esphome_version=version, managed=False)))

        assert finding.obstacle is Obstacle.ESPHOME_OLD
        assert finding.severity is Severity.WARN
        assert finding.facts == {"version": version, "oldest": "2026.1.0"}

    @pytest.mark.parametrize(
        "version", ["2026.1.0", "2026.10.0b2", "2027.1.0-dev", "mine", "", None]
    )
    def test_other_esphome(self, version: str | None, tmp_path: Path) -> None:
        """Of new ones nothing is said, nor of what nobody can tell."""
        host = a_host(tmp_path)

        assert findings(host, esphome_version=version, managed=False) == ()


def test_worst_first(tmp_path: Path) -> None:
    """What stops a job comes before what only may."""
    folder = Folder(path=tmp_path, problem="Read-only file system", free=_GIB)
    memory = Memory(total=_GIB, available=0)
    host = a_host(tmp_path, folder=folder, memory=memory)

    found = [finding.severity for finding in of_host(host)]

    assert found == [Severity.REFUSE, Severity.WAIT, Severity.WARN]
