"""The logs of all jobs of a builder, within one bound."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
import shutil
from typing import Final

from ..log import JobLog
from ..log_files import LogFiles

ALL_LOGS_BYTES: Final = 256 * 1024 * 1024
_OPEN_ENDED_LOGS: Final = 8


class Logs:
    """Opens each log once, and removes the oldest when all are too large together."""

    def __init__(self, folder: Path) -> None:
        """Keep the logs below the folder, each in one named by the job."""
        self._folder = folder
        self._open: dict[str, JobLog] = {}
        self._growing: set[str] = set()
        self._opening = asyncio.Lock()

    async def start(self, job_id: str) -> JobLog:
        """Return the log of a job that is about to run."""
        self._growing.add(job_id)
        return await self.open(job_id)

    async def open(self, job_id: str) -> JobLog:
        """Return the log of a job, empty if nothing was ever written."""
        async with self._opening:
            log = self._open.pop(job_id, None)
            if log is None:
                files = await asyncio.to_thread(LogFiles, self._folder / job_id)
                log = JobLog(files)
            self._open[job_id] = log
            self._close_idle()
        return log

    async def finish(self, job_id: str, log: JobLog) -> None:
        """Write what is left of a log that has ended."""
        await log.close()
        self._growing.discard(job_id)

    async def remove(self, job_ids: Iterable[str]) -> None:
        """Delete the logs of jobs that are no longer known."""
        for job_id in job_ids:
            self._open.pop(job_id, None)
            await asyncio.to_thread(_remove, self._folder / job_id)

    async def enforce(self, known: Iterable[str]) -> None:
        """Delete logs of unknown jobs, then the oldest until the rest is in bounds."""
        removed = await asyncio.to_thread(
            _enforce, self._folder, frozenset(known), frozenset(self._growing)
        )
        for job_id in removed:
            self._open.pop(job_id, None)

    def _close_idle(self) -> None:
        """Forget the ended logs that were not asked for lately."""
        idle = [job_id for job_id in self._open if job_id not in self._growing]
        for job_id in idle[:-_OPEN_ENDED_LOGS]:
            del self._open[job_id]


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _enforce(folder: Path, known: frozenset[str], growing: frozenset[str]) -> list[str]:
    """Return the jobs whose logs were deleted; ids sort by age. Blocking."""
    if not folder.is_dir():
        return []
    sizes = {
        path.name: sum(file.stat().st_size for file in path.iterdir())
        for path in sorted(folder.iterdir())
    }
    total = sum(sizes.values())
    removed = []
    for job_id, size in sizes.items():
        if job_id not in growing and (job_id not in known or total > ALL_LOGS_BYTES):
            _remove(folder / job_id)
            removed.append(job_id)
            total -= size
    return removed
