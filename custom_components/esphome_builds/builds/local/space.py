"""What a builder's files take on disk, and giving up build trees that are too much."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
import logging
from pathlib import Path
from typing import Final

from ..models import Job, JobKind
from ..usage import Measured, Usage
from .disk import BuildTree, Trash, build_trees, measure, trees_to_remove
from .settings import LocalSettings

_LOGGER = logging.getLogger(__name__)

AFTER_BUILD_SECONDS: Final = 120.0
"""From the end of a build until its tree is measured, since others may follow it."""

BETWEEN_SECONDS: Final = 3600.0
"""Between two measurements when nothing is built."""

FIRST_SECONDS: Final = 180.0
"""After the start, when others have much to do."""

_BUILD: Final = "build"


class Space:
    """Measures, and removes, in the background and slowly."""

    def __init__(
        self,
        settings: LocalSettings,
        jobs: Callable[[], Iterable[Job]],
        busy: Callable[[], Collection[str]],
        on_measured: Callable[[], None],
    ) -> None:
        """Prepare; nothing is looked at yet.

        `busy` returns the configurations that have jobs, in any thread.
        """
        self.usage: Usage | None = None
        self._busy = busy
        self._jobs = jobs
        self._on_measured = on_measured
        self._settings = settings
        self._soon = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._trash = Trash(settings.trash_dir)

    def start(self) -> None:
        """Begin to measure."""
        self._task = asyncio.create_task(self._keep_measuring())

    async def stop(self) -> None:
        """Measure and remove no more; what is left of it is for the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def measure_soon(self) -> None:
        """Measure again in a while, since something was built or removed."""
        self._soon.set()

    async def remove_unclaimed(self, configurations: Collection[str]) -> None:
        """Remove the build trees of none of these configurations; raise `OSError`.

        None goes while it may be the tree of a first build.
        """
        trees = await self._trees()
        for tree in trees:
            if not tree.configurations.intersection(configurations):
                await self._take(tree)
        self._soon.set()

    async def _keep_measuring(self) -> None:
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            self._soon.clear()
            try:
                await self._trash.empty()
                await self._measure()
            except OSError as err:
                _LOGGER.warning("The build trees cannot be measured: %s", err)
            except Exception:
                _LOGGER.exception("The build trees cannot be measured")
            with suppress(TimeoutError):
                async with asyncio.timeout(BETWEEN_SECONDS):
                    await self._soon.wait()
                    await asyncio.sleep(AFTER_BUILD_SECONDS)

    async def _measure(self) -> None:
        """Measure all places, and keep the build trees to their limit."""
        settings = self._settings
        trees = await self._trees()
        own = {str(tree.path): tree.path for tree in trees}
        build = {_BUILD: settings.data_dir, "trash": settings.trash_dir, **own}
        usage = await measure(
            {
                **build,
                "environments": settings.environments_dir,
                "tools": settings.tools_dir,
                "logs": settings.logs_dir,
                "firmware": settings.firmware_dir,
            }
        )
        sizes = {tree.path: usage.parts[str(tree.path)].size for tree in trees}
        self.usage = _summarized(usage, build)
        self._on_measured()
        if await self._reduce(trees, sizes):
            await self._trash.empty()
            # What is gone need not be measured to be known.
            self._soon.set()

    async def _reduce(
        self, trees: Collection[BuildTree], sizes: Mapping[Path, int]
    ) -> bool:
        """Take the longest unbuilt trees that are too much; return whether any went."""
        if (limit := self._settings.build_limit) is None:
            return False
        chosen = trees_to_remove(trees, sizes, limit=limit, active=self._busy())
        taken = [tree for tree in chosen if await self._take(tree)]
        for tree in taken:
            _LOGGER.info("The build tree %s was removed to save space", tree.path)
        return bool(taken)

    async def _take(self, tree: BuildTree) -> bool:
        """Take a tree away, unless a job came to need it; raise `OSError`."""

        def _may_go() -> bool:
            busy = set(self._busy())
            return not (tree.configurations & busy if tree.configurations else busy)

        return await asyncio.to_thread(self._trash.take, tree.path, _may_go)

    async def _trees(self) -> list[BuildTree]:
        return await asyncio.to_thread(
            build_trees, self._settings.data_dir, _last_built(self._jobs())
        )


def _last_built(jobs: Iterable[Job]) -> dict[str, datetime]:
    """Return when configurations were last built, as far as the jobs tell."""
    return {
        job.configuration: job.finished_at
        for job in jobs
        if job.kind is JobKind.COMPILE and job.finished_at is not None
    }


def _summarized(usage: Usage, build: Collection[str]) -> Usage:
    """Return the usage with all that builds left as one part."""
    built = [usage.parts[name] for name in build]
    parts = {name: part for name, part in usage.parts.items() if name not in build}
    whole = Measured(
        size=sum(part.size for part in built),
        entries=sum(part.entries for part in built),
        measured_at=datetime.now(UTC),
        complete=all(part.complete for part in built),
    )
    return Usage(parts={_BUILD: whole, **parts})
