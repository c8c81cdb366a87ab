"""Environments of ESPHome: made by the real uv, chosen, kept, lost and removed."""

import asyncio
from collections.abc import Iterator
import ctypes
from dataclasses import dataclass, field
import errno
from importlib.metadata import distributions
import os
from pathlib import Path
import secrets
import shutil
import sys
import time
from types import SimpleNamespace

import pytest

from custom_components.esphome_builds.builds.builder import InvalidRequestError
from custom_components.esphome_builds.builds.diagnosis import Verdict
from custom_components.esphome_builds.builds.local import environments as module
from custom_components.esphome_builds.builds.local.environment import (
    build_environment,
    esphome_version,
)
from custom_components.esphome_builds.builds.local.environments import (
    MARKER,
    Environment,
    Environments,
    Installation,
    NothingToGoBackToError,
)
from custom_components.esphome_builds.builds.local.process import (
    Command,
    Ending,
    Process,
)
from custom_components.esphome_builds.builds.local.uv import INSTALL_LIMITS
from custom_components.esphome_builds.builds.local.uv_failures import InstallDiagnosis
from custom_components.esphome_builds.builds.models import Cause, JobStatus

from .packages import Index, answer

NEWER = "2026.10.0"
OLDER = "2026.9.1"
OLDEST = "2026.8.0"

COMPLETED = Verdict(status=JobStatus.COMPLETED, cause=None, message=None)


@dataclass
class Run:
    """One installation as a job runs it."""

    installation: Installation
    output: bytearray = field(default_factory=bytearray)
    process: Process | None = None

    @property
    def lines(self) -> list[str]:
        """Return the output up to now."""
        return self.output.decode().splitlines()

    async def run(self) -> Verdict:
        """Run the steps up to the first that fails; return what they came to."""
        diagnosis = InstallDiagnosis(self.installation.environment.version)
        code = 0
        for command in self.installation.commands:
            if code := await self.step(command):
                break
        diagnosis.feed(self.lines)
        return diagnosis.verdict(code)

    async def step(self, command: Command) -> int:
        """Run one step; return its exit code."""

        async def _on_output(data: bytes) -> None:
            self.output.extend(data)

        self.process = Process(command, INSTALL_LIMITS)
        ending, code = await self.process.run(_on_output)
        assert ending in (Ending.EXITED, Ending.STOPPED)
        return code


class House:
    """A folder of environments, and an index to install from."""

    def __init__(self, folder: Path) -> None:
        """Offer some versions."""
        self.root = folder / "environments"
        self.index = Index(folder / "index")
        for version in (OLDEST, OLDER, NEWER):
            self.index.add(version)
        self.environments = self.load()

    def load(self) -> Environments:
        """Return the environments as they are found after a restart."""
        environments = Environments(self.root, Path(sys.executable))
        environments.load()
        return environments

    def plan(self, version: str = NEWER) -> Run:
        """Return an installation that was not begun."""
        environment = build_environment(
            os.environ, data_dir=self.root / "data", tools_dir=self.root / "tools"
        )
        token = secrets.token_hex(8)
        return Run(self.environments.plan(version, token, environment))

    async def install(self, version: str = NEWER) -> Verdict:
        """Install a version as a job does."""
        run = self.plan(version)
        verdict = await run.run()
        if verdict == COMPLETED:
            await self.environments.switch(run.installation)
        else:
            await self.environments.discard(run.installation)
        return verdict

    @property
    def current(self) -> Environment:
        """Return the current one, which is there."""
        assert self.environments.current is not None
        return self.environments.current

    def folders(self) -> set[str]:
        """Return the versions of the folders that are there."""
        return {path.name.rpartition("-")[0] for path in self.root.iterdir()}

    def state(self) -> tuple[str | None, str | None, str | None]:
        """Return the versions that are current, previous and lost, now as later."""
        state = _state(self.environments)
        assert _state(self.load()) == state
        return state


def _state(some: Environments) -> tuple[str | None, str | None, str | None]:
    """Return the versions that are current, previous and lost."""
    current, previous, lost = (
        None if environment is None else environment.version
        for environment in (some.current, some.previous, some.lost)
    )
    return current, previous, lost


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """Return a folder of environments, with nothing in it, and an index."""
    house = House(tmp_path)
    monkeypatch.setenv("UV_DEFAULT_INDEX", house.index.url)
    return house


def _packages() -> list[str]:
    """Return what is installed where this test runs, as Home Assistant's packages."""
    return sorted(f"{found.name}=={found.version}" for found in distributions())


async def test_nothing_is_there_at_first(house: House) -> None:
    """Without an installation there is no ESPHome."""
    assert house.state() == (None, None, None)
    assert house.folders() == set()


async def test_install(house: House) -> None:
    """What was installed works, is the current one, and is all that is left."""
    assert await house.install() == COMPLETED

    current = house.current
    assert list(house.root.iterdir()) == [current.folder]
    assert await esphome_version(current.executable, {}) == NEWER
    assert house.state() == (NEWER, None, None)


async def test_output_is_told(house: House) -> None:
    """Each step says what it does, in plain text."""
    run = house.plan()

    await run.run()

    assert run.lines[-1] == f"Version: {NEWER}"
    assert any(
        line.startswith("Creating virtual environment at:") for line in run.lines
    )
    assert f" + esphome=={NEWER}" in run.lines
    assert "\x1b" not in "".join(run.lines)


async def test_upgrade(house: House) -> None:
    """The last one is kept, older ones go; both kept ones work."""
    for version in (OLDEST, OLDER, NEWER):
        assert await house.install(version) == COMPLETED
    assert house.folders() == {OLDEST, OLDER, NEWER}

    await house.environments.tidy()

    assert house.folders() == {OLDER, NEWER}
    assert house.state() == (NEWER, OLDER, None)
    for kept in (house.environments.current, house.environments.previous):
        assert kept is not None
        assert await esphome_version(kept.executable, {}) == kept.version


async def test_what_is_in_use_stays(house: House) -> None:
    """A build that began with an old one ends with it."""
    await house.install(OLDEST)
    oldest = house.current
    await house.install(OLDER)
    await house.install(NEWER)

    await house.environments.tidy([oldest.executable])
    assert oldest.executable.exists()

    await house.environments.tidy()
    assert not oldest.folder.exists()


async def test_what_is_being_installed_stays(house: House) -> None:
    """To tidy up does not disturb an installation."""
    run = house.plan()
    new = run.installation.environment
    new.folder.mkdir()
    new.cache.mkdir()

    await house.environments.tidy()

    assert new.folder.exists()
    assert new.cache.exists()


async def test_go_back_and_forth(house: House) -> None:
    """Who went back can go forward again."""
    await house.install(OLDER)
    await house.install(NEWER)

    assert (await house.environments.go_back()).version == OLDER
    assert house.state() == (OLDER, NEWER, None)

    assert (await house.environments.go_back()).version == NEWER
    assert house.state() == (NEWER, OLDER, None)


async def test_nothing_to_go_back_to(house: House) -> None:
    """Without another version all stays as it is."""
    await house.install()

    with pytest.raises(NothingToGoBackToError, match="no other ESPHome"):
        await house.environments.go_back()

    assert house.state() == (NEWER, None, None)


async def test_same_version_again(house: House) -> None:
    """A version that was made anew takes the place of the one that was there."""
    await house.install(OLDER)
    await house.install(NEWER)
    before = house.current

    await house.install(NEWER)
    await house.environments.tidy()

    assert not before.folder.exists()
    assert house.state() == (NEWER, OLDER, None)


async def test_twice_at_once(house: House) -> None:
    """Two installations of a version do not disturb each other, and one is kept."""
    verdicts = tuple(await asyncio.gather(house.install(), house.install()))
    await house.environments.tidy()

    assert verdicts == (COMPLETED, COMPLETED)
    assert len(list(house.root.iterdir())) == 1
    assert house.state() == (NEWER, None, None)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_killed(house: House, steps: int) -> None:
    """An installation that was not ended never counts, and nothing of it is left."""
    await house.install(OLDER)
    run = house.plan()
    new = run.installation.environment
    for command in run.installation.commands[:steps]:
        await run.step(command)
    assert new.folder.exists() is (steps > 0)

    house.environments = house.load()

    assert house.folders() == {OLDER}
    assert house.state() == (OLDER, None, None)
    assert await house.install() == COMPLETED


async def test_killed_while_choosing(house: House) -> None:
    """A marker that was not written to the end is none."""
    await house.install(OLDER)
    run = house.plan()
    await run.run()
    folder = run.installation.environment.folder
    (folder / f"{MARKER}.new").write_text('{"abi": "cpython')

    house.environments = house.load()

    assert not folder.exists()
    assert house.state() == (OLDER, None, None)


async def test_killed_while_removing(house: House) -> None:
    """What was begun to be removed does not count, even if most of it is there."""
    await house.install(OLDER)
    await house.install()
    current = house.current
    (current.folder / MARKER).unlink()

    house.environments = house.load()

    assert house.state() == (OLDER, None, None)
    assert not current.folder.exists()


async def test_half_removed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be removed to the end is never gone back to."""
    for version in (OLDEST, OLDER, NEWER):
        await house.install(version)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        await house.environments.tidy()
    assert house.folders() == {OLDEST, OLDER, NEWER}
    assert house.environments.previous is not None
    house.environments.previous.python.unlink()

    house.environments = house.load()

    assert house.state() == (NEWER, None, None)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"abi": 1, "chosen": 1, "version": "2026.10.0"}']
)
async def test_damaged_marker(house: House, content: str) -> None:
    """A marker that says nothing is none."""
    await house.install(OLDER)
    await house.install()
    current = house.current
    (current.folder / MARKER).write_text(content)

    house.environments = house.load()

    assert house.state() == (OLDER, None, None)


async def test_unreadable_marker(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can tell what is there, nothing is removed."""
    await house.install()

    def _read(path: str) -> tuple[bytes, object]:
        raise OSError(5, "Input/output error", path)

    with monkeypatch.context() as patched:
        patched.setattr(module, "read", _read)
        with pytest.raises(OSError, match="Input/output"):
            house.load()

    assert house.state() == (NEWER, None, None)


async def test_what_is_not_ours_stays(house: House) -> None:
    """Only what is named as we name things is ever removed."""
    names = ("notes.txt", "2026.10.0", "2026.10.0-mine", "data")
    for name in names:
        (house.root / name).mkdir()
    half = house.root / "2026.10.0-0123abcd"
    half.mkdir()
    (house.root / "2026.10.0-0123abcd.cache").mkdir()

    house.load()

    assert sorted(path.name for path in house.root.iterdir()) == sorted(names)


async def test_other_python(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made with another Python is told, and made anew on request."""
    await house.install(OLDER)
    await house.install()
    monkeypatch.setattr(module, "ABI", "cpython-315-riscv64-linux-musl")

    house.environments = house.load()

    assert house.folders() == {NEWER}
    assert house.state() == (None, None, NEWER)
    assert await house.install() == COMPLETED
    await house.environments.tidy()
    assert len(list(house.root.iterdir())) == 1
    assert house.state() == (NEWER, None, None)


async def test_python_is_gone(house: House) -> None:
    """One whose Python is no longer there is lost; one that works is kept."""
    await house.install(OLDER)
    await house.install()
    current = house.current
    current.python.unlink()
    current.python.symlink_to("/nowhere/python")

    house.environments = house.load()

    assert house.state() == (None, OLDER, NEWER)
    assert (await house.environments.go_back()).version == OLDER
    assert house.state() == (OLDER, None, None)


async def test_failure_changes_nothing(house: House) -> None:
    """The old one goes on working, and nothing is left of the new one."""
    await house.install(OLDER)

    verdict = await house.install("2026.12.0")

    assert verdict.cause is Cause.ESPHOME_MISSING
    assert verdict.message == "There is no ESPHome 2026.12.0."
    assert house.folders() == {OLDER}
    assert house.state() == (OLDER, None, None)
    current = house.current
    assert await esphome_version(current.executable, {}) == OLDER


async def test_withdrawn(house: House) -> None:
    """What its makers took back is not installed, even by its number."""
    house.index.add("2026.10.1", attributes='data-yanked="It bricks devices"')

    verdict = await house.install("2026.10.1")

    assert verdict.cause is Cause.ESPHOME_MISSING
    assert verdict.message == (
        "ESPHome 2026.10.1 was withdrawn by its makers: It bricks devices."
    )


async def test_several_indexes(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index that is asked first does not hide what only the other one has."""
    other = Index(tmp_path / "other")
    other.add(OLDEST)
    monkeypatch.setenv("UV_EXTRA_INDEX_URL", other.url)

    assert await house.install() == COMPLETED


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("def main():\n    raise SystemExit(3)", "exit code 3"),
        (answer(OLDER), "exit code 0"),
    ],
)
async def test_trial(house: House, code: str, message: str) -> None:
    """What does not answer as this version of ESPHome is not taken."""
    house.index.add("2026.10.1", code=code)

    verdict = await house.install("2026.10.1")

    assert verdict == Verdict(
        status=JobStatus.FAILED,
        cause=Cause.ESPHOME_MISSING,
        message=f"ESPHome 2026.10.1 was installed but does not work ({message}).",
    )
    assert house.state() == (None, None, None)


async def test_switch_fails(house: House) -> None:
    """Where the marker cannot be written all stays as it is."""
    await house.install(OLDER)
    run = house.plan()
    await run.run()
    shutil.rmtree(run.installation.environment.folder)

    with pytest.raises(FileNotFoundError):
        await house.environments.switch(run.installation)

    assert house.state() == (OLDER, None, None)
    await house.environments.discard(run.installation)
    assert house.folders() == {OLDER}


@pytest.mark.parametrize("syncs", ["yes", "no", "unknown"])
async def test_disk_before_marker(
    house: House, monkeypatch: pytest.MonkeyPatch, syncs: str
) -> None:
    """An environment counts when all of it is on the disk, and not otherwise."""
    events = []

    def _syncfs(descriptor: int) -> int:
        events.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        return -1 if syncs == "no" else 0

    library = (
        SimpleNamespace() if syncs == "unknown" else SimpleNamespace(syncfs=_syncfs)
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EIO)
    monkeypatch.setattr(os, "sync", lambda: events.append("all"))
    run = house.plan()
    folder = run.installation.environment.folder
    assert await run.run() == COMPLETED
    monkeypatch.setattr(module, "_replace", lambda *_: events.append("marker"))

    if syncs == "no":
        with pytest.raises(OSError, match="Input/output"):
            await house.environments.switch(run.installation)
        assert events == [str(folder)]
    else:
        await house.environments.switch(run.installation)
        assert events == ["all" if syncs == "unknown" else str(folder), "marker"]


async def test_the_folder_was_removed(house: House) -> None:
    """Who removed everything by hand can install again."""
    await house.install()
    shutil.rmtree(house.root)

    assert await house.install() == COMPLETED

    assert house.state() == (NEWER, None, None)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "latest",
        "2026.10",
        "2026.10.0-dev",
        "2026.010.0",
        "2026.13.0",
        "2026.10.0 --index-url http://a.example",
        "../2026.10.0",
        "2026.10.0\n",
        "-2026.10.0",
        "2026.10.0b0",
    ],
)
async def test_invalid_version(house: House, version: str) -> None:
    """Only what can be a release or a beta is asked for."""
    with pytest.raises(InvalidRequestError, match="not a version of ESPHome"):
        house.plan(version)


async def test_beta(house: House) -> None:
    """A beta is installed where it is asked for by its number."""
    house.index.add("2026.11.0b2")

    assert await house.install("2026.11.0b2") == COMPLETED


async def test_versions_are_spelled_as_their_folders(house: House) -> None:
    """What names a folder is found again."""
    for version in ("2020.1.0", "2026.12.100b12"):
        new = house.plan(version).installation.environment
        new.folder.mkdir()

    house.load()

    assert house.folders() == set()


@pytest.fixture
def hostile(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set all that could lead uv astray; return another environment."""
    other = tmp_path / "other"
    shutil.copytree(Path(sys.prefix) / "bin", other / "bin", symlinks=True)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", other)
    nowhere = "http://127.0.0.1:9/"
    for name, value in {
        "PIP_INDEX_URL": nowhere,
        "PIP_TARGET": str(other / "target"),
        "PYTHONHOME": str(other),
        "PYTHONPATH": str(other),
        "UV_CACHE_DIR": str(other / "cache"),
        "UV_CONFIG_FILE": str(house.root / "uv.toml"),
        "UV_EXCLUDE_NEWER": "2020-01-01",
        "UV_LINK_MODE": "symlink",
        "UV_OFFLINE": "true",
        "UV_PYTHON": str(other / "bin" / "python"),
        "UV_SYSTEM_PYTHON": "true",
        "UV_TARGET": str(other / "target"),
        "VIRTUAL_ENV": str(other),
        "HOME": str(house.root),
        "XDG_CONFIG_HOME": str(house.root),
    }.items():
        monkeypatch.setenv(name, value)
    (house.root / "uv").mkdir()
    (house.root / ".config").symlink_to(house.root)
    options = f'target = "{other / "target"}"\nno-index = true\n'
    (house.root / "uv.toml").write_text(f"[pip]\n{options}")
    (house.root / "uv" / "uv.toml").write_text(f"[pip]\n{options}")
    (house.root / "uv" / "__init__.py").touch()
    (house.root / "uv" / "__main__.py").write_text("raise SystemExit('not uv')\n")
    (house.root / "pip.conf").write_text(f"[global]\nindex-url = {nowhere}\n")
    (house.root / "pyproject.toml").write_text(
        f"[project]\nname = 1\n[tool.uv.pip]\n{options}"
    )
    (house.root / ".python-version").write_text("3.7\n")
    return other


async def test_nothing_leads_uv_astray(house: House, hostile: Path) -> None:
    """No variable, file or module changes what is installed where."""
    before = _packages()
    files = sorted(hostile.rglob("*"))
    run = house.plan()

    assert await run.run() == COMPLETED

    assert not [line for line in run.lines if line.startswith("warning")]
    current = run.installation.environment
    assert not next(iter(current.folder.rglob("esphome/__init__.py"))).is_symlink()
    assert _packages() == before
    assert sorted(hostile.rglob("*")) == files


async def test_each_thing_that_could_lead_uv_astray_would(
    house: House, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: with these variables nothing can be installed."""
    monkeypatch.setattr(module, "uv_environment", dict)

    verdict = await house.install()

    assert verdict.status is JobStatus.FAILED


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a file system that holds almost nothing."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=120k tmpfs {folder} 2>/dev/null"):
        pytest.skip("needs the right to mount")
    yield folder
    os.system(f"umount {folder}")


async def test_full_disk(house: House, small: Path) -> None:
    """Where there is no space that is said, and nothing is left."""
    house.root = small / "environments"
    house.environments = house.load()

    verdict = await house.install()

    assert verdict.cause is Cause.DISK_FULL
    assert house.folders() == set()


@pytest.mark.real
async def test_real(tmp_path: Path) -> None:
    """Real releases are installed, one after it was killed, and used in turn."""
    house = House(tmp_path)
    before = _packages()
    versions = ("2026.9.0", "2026.10.0")
    assert await house.install(versions[0]) == COMPLETED

    killed = house.plan(versions[1])
    running = asyncio.create_task(killed.run())
    end = time.monotonic() + 60
    while b" Downloaded " not in killed.output:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    assert killed.process is not None
    killed.process.stop()
    assert (await running).status is JobStatus.FAILED
    house.environments = house.load()
    assert house.state() == (versions[0], None, None)
    assert house.folders() == {versions[0]}

    assert await house.install(versions[1]) == COMPLETED
    assert house.state() == (versions[1], versions[0], None)
    await house.environments.go_back()
    environments = (house.environments.current, house.environments.previous)
    assert await _versions(environments) == versions
    assert _packages() == before


async def _versions(environments: tuple[Environment | None, ...]) -> tuple[str, ...]:
    """Return the versions that the executables themselves tell."""
    environment = build_environment(
        os.environ, data_dir=Path("/nowhere"), tools_dir=Path("/nowhere")
    )
    return tuple(
        [
            await esphome_version(found.executable, environment)
            for found in environments
            if found is not None
        ]
    )
