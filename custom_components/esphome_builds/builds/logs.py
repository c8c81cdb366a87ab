"""The logs of all jobs of a builder, within one bound."""

import asyncio
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
import shutil
from typing import Final
from weakref import WeakValueDictionary

from .log import JobLog
from .log_files import LogFiles

ALL_LOGS_BYTES: Final = 256 * 1024 * 1024
_RECENT: Final = 8


class Logs:
    """Opens each log once, and removes the oldest when all are too large together."""

    def __init__(self, folder: Path) -> None:
        """Keep the logs below the folder, each in one named by the job."""
        self._folder = folder
        # Whoever waits for a job to start holds the log that its process will fill.
        self._open: WeakValueDictionary[str, JobLog] = WeakValueDictionary()
        self._opening = asyncio.Lock()
        self._recent: deque[JobLog] = deque(maxlen=_RECENT)

    async def open(self, job_id: str, total: int) -> JobLog:
        """Return the log of a job that had so many lines, whatever is left of them."""
        async with self._opening:
            log = self._open.get(job_id)
            if log is None:
                files = await asyncio.to_thread(LogFiles, self._folder / job_id)
                self._open[job_id] = log = JobLog(files, total)
                self._recent.append(log)
        return log

    def count(self, job_id: str) -> tuple[int, int]:
        """Return how many lines a log on disk has, and how many it lacks; blocking."""
        files = LogFiles(self._folder / job_id)
        gaps = files.gaps(files.next_line)
        return files.next_line, sum(last - first + 1 for first, last in gaps)

    async def enforce(
        self, known: Collection[str], growing: Collection[str]
    ) -> list[str]:
        """Delete logs of unknown jobs, then the oldest until the rest is in bounds.

        Those that still grow stay. Return the jobs that have no log any more. Raises
        `OSError`.
        """
        removed = await asyncio.to_thread(
            _enforce, self._folder, frozenset(known), frozenset(growing)
        )
        for job_id in removed:
            self._open.pop(job_id, None)
        return removed


def _enforce(folder: Path, known: frozenset[str], growing: frozenset[str]) -> list[str]:
    """Return the jobs whose logs were deleted; ids sort by age. Blocking."""
    if not folder.is_dir():
        return []
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    sizes = {path.name: _size(path) for path in folders}
    total = sum(sizes.values())
    newest = max(known, default="")
    removed = []
    for job_id, size in sizes.items():
        if job_id in growing or job_id > newest:
            # It grows, or was made while this looked.
            continue
        if job_id not in known or total > ALL_LOGS_BYTES:
            shutil.rmtree(folder / job_id, ignore_errors=True)
            removed.append(job_id)
            total -= size
    return removed


def _size(folder: Path) -> int:
    """Return the size of a log, whose files may come and go."""
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
