"""How large builds and tools have become, and which build trees to give up for space.

Whatever may hold many files is gone through in steps, each in a thread and of a bounded
number of entries, with a pause after it. So it costs others little, however long it
takes. No symbolic link is followed.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
import logging
import os
from pathlib import Path
import secrets
import stat
from typing import Final

from ..usage import Measured, Usage
from .built import read_storage

_LOGGER = logging.getLogger(__name__)

ENTRIES_A_STEP: Final = 250
"""Files and folders that are looked at, or removed, before others have their turn."""

MAX_ENTRIES: Final = 1_000_000
"""Files and folders that are looked at in one measurement; more are not counted."""

PAUSE_SECONDS: Final = 0.05
"""Between two steps."""

_BLOCK_BYTES: Final = 512
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW

type _Identity = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildTree:
    """A folder that ESPHome builds in, and for which configurations it last did so.

    There is none for a tree of an earlier name of a device.
    """

    path: Path
    configurations: frozenset[str]
    built_at: datetime


async def measure(
    places: Mapping[str, Path],
    *,
    entries_a_step: int = ENTRIES_A_STEP,
    pause: float = PAUSE_SECONDS,
) -> Usage:
    """Return what the places take, one after another.

    A place inside another counts for itself only, and a file with several names only
    where it is seen first. What vanishes meanwhile does not count.
    """
    parts = {}
    tally = _Tally(places.values())
    for name, path in places.items():
        tally.begin(path)
        await _in_steps(tally.step, entries_a_step, pause)
        parts[name] = tally.result()
    return Usage(parts=parts)


async def _in_steps(step: Callable[[int], bool], limit: int, pause: float) -> None:
    """Call a blocking step in threads until it says that there is no more."""
    more = True
    while more:
        more = await asyncio.to_thread(step, limit)
        await asyncio.sleep(pause)


class _Tally:
    """Counts one place after another; each call but `step` is quick."""

    def __init__(self, places: Iterable[Path]) -> None:
        """Know of all places, which do not count for those around them."""
        self._places = frozenset(map(str, places))
        self._seen: set[_Identity] = set()
        self._left = MAX_ENTRIES

    def begin(self, place: Path) -> None:
        """Go on with a place."""
        self._size = self._entries = 0
        self._complete = True
        self._walk = _walk(str(place), self._places)

    def step(self, limit: int) -> bool:
        """Count so many entries; return whether there may be more. Blocking."""
        found = list(islice(self._walk, min(limit, self._left)))
        for status in found:
            self._count(status)
        self._entries += len(found)
        self._left -= len(found)
        if self._left == 0:
            self._complete = False
        return len(found) == limit

    def _count(self, status: os.stat_result | None) -> None:
        if status is None:
            self._complete = False
            return
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            identity = status.st_dev, status.st_ino
            if identity in self._seen:
                return
            self._seen.add(identity)
        self._size += status.st_blocks * _BLOCK_BYTES

    def result(self) -> Measured:
        """Return what the place takes."""
        return Measured(
            size=self._size,
            entries=self._entries,
            measured_at=datetime.now(UTC),
            complete=self._complete,
        )


def _walk(place: str, others: Collection[str]) -> Iterator[os.stat_result | None]:
    """Yield the status of a place and of all that is in it, None for what is hidden.

    Nothing is kept of what was seen, but for the folders that are not yet read.
    """
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        return
    except OSError:
        yield None
        return
    yield status
    folders = [place] if stat.S_ISDIR(status.st_mode) else []
    while folders:
        folder = folders.pop()
        try:
            yield from _read(folder, others, folders)
        except FileNotFoundError, NotADirectoryError:
            # It went away, or something else took its place.
            continue
        except OSError:
            yield None


def _read(
    folder: str, others: Collection[str], folders: list[str]
) -> Iterator[os.stat_result]:
    """Yield what is in a folder, and note the folders in it."""
    descriptor = os.open(folder, _FLAGS)
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                if path in others:
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(path)
                    yield status
    finally:
        os.close(descriptor)


def build_trees(data_dir: Path, last_built: Mapping[str, datetime]) -> list[BuildTree]:
    """Return the build trees in ESPHome's data folder; blocking.

    `last_built` is when configurations were last built, as far as that is known: of a
    build that has nothing to do the files do not tell. Raises `OSError`.
    """
    owners: dict[str, set[str]] = {}
    for path in _listed(data_dir / "storage"):
        if build_info := read_storage(str(path), data_dir).build_info:
            owners.setdefault(str(Path(build_info).parent), set()).add(path.stem)
    trees = []
    for path in _listed(data_dir / "build"):
        if path.is_symlink() or not path.is_dir():
            continue
        names = frozenset(owners.get(os.path.realpath(path), ()))
        built = (last_built[name] for name in names & last_built.keys())
        trees.append(
            BuildTree(
                path=path,
                configurations=names,
                built_at=max((_newest(path), *built)),
            )
        )
    return trees


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder, nothing if there is none."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _newest(tree: Path) -> datetime:
    """Return when the latest change was made at the top of a tree."""
    newest = 0.0
    for path in (tree, *_listed(tree)):
        with suppress(FileNotFoundError):
            newest = max(newest, path.lstat().st_mtime)
    return datetime.fromtimestamp(newest, UTC)


def trees_to_remove(
    trees: Collection[BuildTree],
    sizes: Mapping[Path, int],
    *,
    limit: int,
    active: Collection[str],
) -> list[BuildTree]:
    """Return the trees to remove, longest unbuilt first, so that all keep to a limit.

    Never one of a configuration with an active job. While there is any such job, not
    one that no configuration claims either: its first build may be that job.
    """
    busy = set(active)
    total = sum(sizes.get(tree.path, 0) for tree in trees)
    chosen = []
    for tree in sorted(trees, key=lambda tree: tree.built_at):
        if total <= limit:
            break
        if not (tree.configurations & busy if tree.configurations else busy):
            chosen.append(tree)
            total -= sizes.get(tree.path, 0)
    return chosen


class Trash:
    """Removes folders: at once from where they are, later from the disk.

    What a kill leaves in it is removed by the next `empty`.
    """

    def __init__(self, folder: Path) -> None:
        """Use a folder on the file system of what is to be removed."""
        self._folder = folder
        self._emptying = asyncio.Lock()

    def take(self, path: Path, may_go: Callable[[], bool]) -> bool:
        """Take a folder out of its place, if it may go; blocking. Raises `OSError`.

        `may_go` is called in this thread, right before: what begins to use the folder
        after that finds none, as if it were the first time.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / secrets.token_hex(8)
        if not may_go():
            return False
        path.rename(target)
        return True

    async def empty(
        self,
        *,
        entries_a_step: int = ENTRIES_A_STEP,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        """Remove what was taken. What cannot be removed stays, which is logged."""
        async with self._emptying:
            advance = partial(_advance, self._remove())
            await _in_steps(advance, entries_a_step, pause)

    def _remove(self) -> Iterator[None]:
        """Remove everything, and yield after each entry; blocking."""
        for path in _listed(self._folder):
            try:
                yield from _remove_tree(path)
            except OSError as err:
                _LOGGER.warning("Cannot remove %s: %s", path, err.strerror)


def _advance(steps: Iterator[None], limit: int) -> bool:
    """Take so many steps; return whether there may be more."""
    return sum(1 for _ in islice(steps, limit)) == limit


def _remove_tree(top: Path) -> Iterator[None]:
    """Remove a folder from the leaves on, and yield after each entry.

    By descriptors, so that nothing outside is reached, whatever takes a folder's place.
    """
    for _, folders, files, descriptor in os.fwalk(top, topdown=False):
        for name in files:
            os.unlink(name, dir_fd=descriptor)
            yield
        for name in folders:
            try:
                os.rmdir(name, dir_fd=descriptor)
            except NotADirectoryError:
                # A symbolic link to a folder.
                os.unlink(name, dir_fd=descriptor)
            yield
    top.rmdir()
