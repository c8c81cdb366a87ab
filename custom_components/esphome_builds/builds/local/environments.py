"""ESPHomes of our own: one environment for each version, and which one is current.

Each environment has a folder that never had another use. It counts when its marker is
there, which is written last, after ESPHome was tried; the one that was chosen last is
the current one. So a kill at any moment leaves either what was or what shall be.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
import ctypes
from dataclasses import dataclass
import os
from pathlib import Path
import re
import secrets
import shutil
import sysconfig
from typing import Final

import orjson

from ..builder import InvalidRequestError, NotAllowedError
from .files import read
from .process import Command
from .uv import install_arguments, uv_environment, venv_arguments

ABI: Final = sysconfig.get_config_var("SOABI")
"""What compiled packages must fit: Python's minor version, machine and C library."""

MARKER: Final = "esphome-builds.json"

# As ESPHome names its releases and betas, and the only way to spell each of them.
_VERSION: Final = r"20\d\d\.(?:[1-9]|1[0-2])\.(?:0|[1-9]\d{0,2})(?:b[1-9]\d{0,2})?"
_VERSION_ONLY: Final = re.compile(_VERSION)
_CACHE: Final = ".cache"
_OURS: Final = re.compile(rf"{_VERSION}-[0-9a-f]{{8}}(?:{re.escape(_CACHE)})?")


class NothingToGoBackToError(NotAllowedError):
    """No other version is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """A folder with one version of ESPHome and all that it needs."""

    version: str
    folder: Path

    @property
    def executable(self) -> Path:
        """Return the path of ESPHome."""
        return self.folder / "bin" / "esphome"

    @property
    def python(self) -> Path:
        """Return the path of its Python."""
        return self.folder / "bin" / "python"

    @property
    def cache(self) -> Path:
        """Return where uv keeps its files while it installs.

        Beside the environment, so that on any file system it can link instead of copy.
        """
        return self.folder.with_name(f"{self.folder.name}{_CACHE}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """An environment that does not exist yet, and the commands that make and try it."""

    environment: Environment
    commands: tuple[Command, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tried:
    """An environment that was complete, and what its marker says of it."""

    environment: Environment
    abi: str
    chosen: int

    @property
    def usable(self) -> bool:
        """Return whether Home Assistant's Python is still the one it was made with."""
        return self.abi == ABI and self.environment.python.exists()


class Environments:
    """Owns a folder of environments.

    `current` is the one to use, `previous` the one to go back to. `lost` was current
    until it was gone, or Home Assistant had another Python: it must be installed again.
    """

    current: Environment | None = None
    lost: Environment | None = None
    previous: Environment | None = None

    def __init__(self, root: Path, python: Path) -> None:
        """Prepare for environments of this Python; nothing is read yet."""
        self._chosen = 0
        self._installing: set[Environment] = set()
        self._lock = asyncio.Lock()
        self._python = python
        self._root = root

    def load(self) -> None:
        """Find what there is, and remove halves and what nobody needs; blocking.

        Raises `OSError` where nobody can tell what there is.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        found = sorted(self._find(), key=lambda tried: tried.chosen, reverse=True)
        self._chosen = found[0].chosen if found else 0
        usable = [tried.environment for tried in found if tried.usable]
        self.lost = found[0].environment if found and not found[0].usable else None
        self.current = None if self.lost else next(iter(usable), None)
        self.previous = _other_than(self.current or self.lost, usable)
        self._remove(self._unneeded(()))

    def plan(
        self, version: str, token: str, environment: Mapping[str, str]
    ) -> Installation:
        """Return how to install a version; blocking. End it with `switch` or `discard`.

        The commands run in that order, each if the one before it ended with 0. The
        environment is the one in which ESPHome is tried. Raises `InvalidRequestError`,
        and `OSError`.
        """
        check_version(version)
        self._root.mkdir(parents=True, exist_ok=True)
        folder = self._root / f"{version}-{secrets.token_hex(4)}"
        new = Environment(version=version, folder=folder)
        self._installing.add(new)
        uv = uv_environment(os.environ)
        steps = (
            (venv_arguments(self._python, folder, new.cache), uv),
            (install_arguments(self._python, version, new.python, new.cache), uv),
            ((str(new.executable), "version"), environment),
        )
        commands = (
            Command(argv=argv, cwd=self._root, environment=variables, token=token)
            for argv, variables in steps
        )
        return Installation(environment=new, commands=tuple(commands))

    async def switch(self, installation: Installation) -> None:
        """Make what was installed and tried the current one, and keep the last one.

        Raises `OSError`; then all is as before.
        """
        new = installation.environment
        async with self._lock:
            await asyncio.to_thread(_sync, new.folder)
            await self._choose(new)
            before = (self.current, self.previous)
            self.lost = None
            self.previous = _other_than(new, filter(None, before))
            self.current = new
        self._installing.discard(new)
        await asyncio.to_thread(self._remove, [new.cache])

    async def discard(self, installation: Installation) -> None:
        """Remove what was not installed to the end."""
        new = installation.environment
        await asyncio.to_thread(self._remove, [new.folder, new.cache])
        self._installing.discard(new)

    def lose(self, executable: Path) -> None:
        """Note that an executable is gone; if it is the current one, that is lost."""
        if self.current is not None and self.current.executable == executable:
            self.current, self.lost = None, self.current

    async def go_back(self) -> Environment:
        """Make the previous one the current one and keep that; return it.

        Raises `NothingToGoBackToError`, and `OSError`; then all is as before.
        """
        async with self._lock:
            if (previous := self.previous) is None:
                raise NothingToGoBackToError("There is no other ESPHome to go back to.")
            await self._choose(previous)
            self.current, self.previous, self.lost = previous, self.current, None
        return previous

    async def tidy(self, in_use: Collection[Path] = ()) -> None:
        """Remove what nobody needs, but no environment whose executable is in use.

        Raises `OSError`.
        """
        async with self._lock:
            unneeded = await asyncio.to_thread(self._unneeded, in_use)
            await asyncio.to_thread(self._remove, unneeded)

    def _find(self) -> Iterator[_Tried]:
        """Yield the environments that were complete; blocking."""
        for folder in self._folders():
            with suppress(FileNotFoundError):
                data, _ = read(str(folder / MARKER))
                if (tried := _tried(folder, data)) is not None:
                    yield tried

    def _folders(self) -> list[Path]:
        """Return what is named as if we had made it; blocking."""
        return [
            path
            for path in self._root.iterdir()
            if _OURS.fullmatch(path.name) is not None
        ]

    async def _choose(self, environment: Environment) -> None:
        """Write down that an environment is complete and current from now on."""
        self._chosen += 1
        content = {"abi": ABI, "chosen": self._chosen, "version": environment.version}
        path = environment.folder / MARKER
        await asyncio.to_thread(_replace, path, orjson.dumps(content))

    def _unneeded(self, in_use: Collection[Path]) -> list[Path]:
        """Return our folders that nobody needs; blocking."""
        environments = (self.current, self.lost, self.previous)
        needed = {environment.folder for environment in environments if environment}
        for new in tuple(self._installing):
            needed |= {new.folder, new.cache}
        needed |= {executable.parent.parent for executable in in_use}
        return [folder for folder in self._folders() if folder not in needed]

    @staticmethod
    def _remove(folders: Iterable[Path]) -> None:
        """Remove folders, as far as that can be done; blocking."""
        for folder in folders:
            # First, so that what is left of it after a kill never counts.
            with suppress(OSError):
                (folder / MARKER).unlink()
            shutil.rmtree(folder, ignore_errors=True)


def check_version(version: str) -> None:
    """Raise `InvalidRequestError` unless it is one as ESPHome names its releases."""
    if _VERSION_ONLY.fullmatch(version) is None:
        raise InvalidRequestError(f"{version!r} is not a version of ESPHome.")


def _other_than(
    environment: Environment | None, others: Iterable[Environment]
) -> Environment | None:
    """Return the first that has another version, or None."""
    version = environment and environment.version
    return next((other for other in others if other.version != version), None)


def _tried(folder: Path, data: bytes) -> _Tried | None:
    """Return what a marker says, or None if that makes no sense."""
    try:
        match orjson.loads(data):
            case {"abi": str(abi), "chosen": int(chosen), "version": str(version)}:
                pass
            case _:
                return None
    except orjson.JSONDecodeError:
        return None
    environment = Environment(version=version, folder=folder)
    return _Tried(environment=environment, abi=abi, chosen=chosen)


def _sync(folder: Path) -> None:
    """Write the file system of a folder to its disk; blocking. Raises `OSError`.

    Only that one, where it can be: another may be of a server that is not there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    """Put the data in the file's place so that a crash leaves the old or the new."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
