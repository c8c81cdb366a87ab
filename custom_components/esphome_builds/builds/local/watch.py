"""What a local builder stands on: its folder of configurations and its ESPHome."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
import logging
import math
from pathlib import Path
from typing import Final

from ..models import BuilderState, Configuration
from .changes import Changes
from .configurations import ConfigurationFolder
from .environment import (
    EsphomeAwaitedError,
    EsphomeFailedError,
    EsphomeMissingError,
    esphome_version,
    find_esphome,
)
from .settings import LocalSettings

_LOGGER = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""Between two looks at the folder and the executable."""

_RETRY_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Executable:
    """An ESPHome, and what is different when it was replaced."""

    path: Path
    changed: int
    size: int


class Watch:
    """Looks again and again, without reading what has not changed."""

    def __init__(
        self,
        settings: LocalSettings,
        environment: Mapping[str, str],
        esphome: Callable[[], str],
        on_change: Callable[[], None],
        on_missing: Callable[[str], None],
    ) -> None:
        """Prepare; nothing is read yet.

        `esphome` returns what to look for, or raises `EsphomeAwaitedError`. Where there
        is none, `on_missing` is called with it.
        """
        self.configurations: Mapping[str, Configuration] = {}
        self.changes = Changes(settings)
        self.executable: Path | None = None
        self.first_look = asyncio.Event()
        self.folder = ConfigurationFolder(
            entry_id=settings.entry_id,
            config_dir=settings.config_dir,
            data_dir=settings.data_dir,
        )
        self.problem: str | None = None
        self.version: str | None = None
        self._answered: _Executable | None = None
        self._asking: tuple[_Executable, asyncio.Task[str]] | None = None
        self._asked: _Executable | None = None
        self._ask_again = 0.0
        self._version_problem: str | None = None
        self._awaited: str | None = None
        self._environment = environment
        self._esphome = esphome
        self._looking = asyncio.Lock()
        self._on_change = on_change
        self._on_missing = on_missing
        self._settings = settings
        self._soon = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> BuilderState:
        """Return whether jobs can run."""
        if self.problem is not None:
            return BuilderState.UNAVAILABLE
        if self._awaited is not None or self.version is None:
            return BuilderState.CONNECTING
        return BuilderState.READY

    @property
    def message(self) -> str | None:
        """Return why jobs cannot run."""
        return self.problem or self._awaited

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Look no more."""
        _, asking = self._asking or (None, None)
        for task in (self._task, asking):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        # Nobody shall wait for a look that never comes.
        self.first_look.set()

    def look_soon(self) -> None:
        """Look again without waiting for the time."""
        self._soon.set()

    async def look(self) -> None:
        """Look at the folder now."""
        async with self._looking:
            self.configurations = await asyncio.to_thread(self._scan)
        self._on_change()

    def _scan(self) -> Mapping[str, Configuration]:
        """Look what there is, and what it is made of; blocking."""
        found = self.folder.scan()
        self.changes.look(found)
        return found

    async def confirm(self, executable: Path) -> str:
        """Return the version of an executable that may have been replaced just now.

        Raises `EsphomeMissingError` or `EsphomeFailedError`.
        """
        found = await asyncio.to_thread(_identify, str(executable))
        if found == self._answered and self.version is not None:
            return self.version
        self.look_soon()
        return await self._ask(found)

    async def _keep_looking(self) -> None:
        while True:
            self._soon.clear()
            folder_problem = await self._look_at_folder()
            self.first_look.set()
            version_problem = await self._look_at_esphome()
            self._note(folder_problem or version_problem)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._soon.wait()

    async def _look_at_folder(self) -> str | None:
        """Look at the configurations; return what is wrong."""
        try:
            await self.look()
        except OSError as err:
            folder = self._settings.config_dir
            return f"The folder {folder} cannot be read: {err.strerror}."
        return None

    async def _look_at_esphome(self) -> str | None:
        """Ask the executable for its version if it is a new one; return what is wrong.

        One that failed is asked again after a minute.
        """
        try:
            esphome = self._esphome()
        except EsphomeAwaitedError as err:
            self._awaited = str(err)
            return None
        try:
            found = await asyncio.to_thread(_identify, esphome)
        except EsphomeMissingError as err:
            # It may come back as it was.
            self._asked = self._awaited = None
            self._on_missing(esphome)
            return str(err)
        self._awaited = None
        now = asyncio.get_running_loop().time()
        if found == self._asked and now < self._ask_again:
            return self._version_problem
        self._asked, self._ask_again = found, now + _RETRY_SECONDS
        if found != self._answered:
            # The version of another one says nothing of this one.
            self.version = None
            self._on_change()
        try:
            self.version = await self._ask(found)
        except EsphomeFailedError as err:
            self._version_problem = str(err)
        else:
            self.executable = found.path
            self._answered = found
            self._version_problem = None
            self._ask_again = math.inf
        return self._version_problem

    async def _ask(self, found: _Executable) -> str:
        """Return the version of an executable, which is asked once for all who want it.

        Raises `EsphomeFailedError`.
        """
        if self._asking is None or self._asking[0] != found:
            question = esphome_version(found.path, self._environment)
            self._asking = found, asyncio.create_task(question)
        _, asking = self._asking
        await asyncio.wait([asking])
        if asking.cancelled():
            raise EsphomeFailedError(f"{found.path} was not asked to the end.")
        if asking.exception() is not None and self._asking == (found, asking):
            # Next time it may answer.
            self._asking = None
        return asking.result()

    def _note(self, problem: str | None) -> None:
        """Take over what is wrong, and log it once when it begins and when it ends."""
        if problem is not None and problem != self.problem:
            _LOGGER.warning("%s", problem)
        elif problem is None and self.problem is not None:
            _LOGGER.info("%s can build again", self._settings.title)
        self.problem = problem
        self._on_change()


def _identify(executable: str) -> _Executable:
    """Find ESPHome and what tells this one from another; blocking.

    Raises `EsphomeMissingError`.
    """
    path = find_esphome(executable)
    try:
        stat = path.stat()
    except OSError as err:
        raise EsphomeMissingError(f"There is no ESPHome executable at {path}.") from err
    return _Executable(path=path, changed=stat.st_mtime_ns, size=stat.st_size)
