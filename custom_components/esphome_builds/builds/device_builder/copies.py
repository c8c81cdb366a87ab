"""The logs of jobs on the server, as far as somebody wants them."""

import asyncio
from collections.abc import Callable, Collection
import logging
from typing import Final

from ..diagnosis import Diagnosis
from ..log import JobLog
from ..logs import Logs
from ..models import Job, JobStatus
from .client import Client
from .errors import CannotConnectError, CommandError
from .output import Copy, Tap, stored_output
from .ties import Tie, Ties

_LOGGER = logging.getLogger(__name__)

FOLLOWED_SECONDS: Final = 10.0
"""For how long a log that was opened counts as followed before anybody listens."""

_PAGE_BYTES: Final = 1024**2
_PAGE_LINES: Final = 1000


class Copies:
    """Keeps logs like the server's while they are followed, and at the end once."""

    def __init__(
        self, logs: Logs, ties: Ties, on_growth: Callable[[str], None]
    ) -> None:
        """Tell `on_growth` of each job whose log has grown."""
        self.unreadable: set[str] = set()
        self._logs = logs
        self._ties = ties
        self._on_growth = on_growth
        self._copies: dict[str, Copy] = {}
        self._dropping: set[asyncio.Task[None]] = set()
        self._asked_for: dict[str, float] = {}
        self._taps: dict[str, asyncio.Task[None]] = {}

    @property
    def jobs(self) -> Collection[str]:
        """Return the jobs whose logs are kept like the server's."""
        return tuple(self._copies)

    def log(self, job_id: str) -> JobLog | None:
        """Return the log of a job that is kept like the server's."""
        copy = self._copies.get(job_id)
        return None if copy is None else copy.log

    async def open(self, job: Job) -> Copy:
        """Return what keeps the log of a job like the server's."""
        if (copy := self._copies.get(job.job_id)) is not None:
            return copy
        log = await self._logs.open(job.job_id, job.total_lines)
        diagnosis = Diagnosis.of(job)
        line = 0
        while (page := await log.page(line, _PAGE_LINES, _PAGE_BYTES)).lines:
            # What came before a restart explains a failure as well.
            diagnosis.feed(page.lines)
            line = page.next_line
        tie = self._ties.get(job.job_id)
        copy = Copy(log, diagnosis, tie.base if tie else 0)
        return self._copies.setdefault(job.job_id, copy)

    async def want(self, job: Job) -> None:
        """Take somebody for a follower who is about to be one."""
        await self.open(job)
        self._asked_for[job.job_id] = asyncio.get_running_loop().time()

    def tap(self, job: Job, client: Client) -> Tap | None:
        """Begin to copy the output of a running job, if somebody wants it."""
        job_id = job.job_id
        copy, tie = self._copies.get(job_id), self._ties.get(job_id)
        if (
            copy is None
            or tie is None
            or tie.server_id is None
            or job_id in self._taps
            or job_id in self.unreadable
            or job.status is not JobStatus.RUNNING
            or not self._wanted(job_id, copy)
        ):
            return None
        tap = Tap(
            client,
            tie.server_id,
            copy,
            lambda: self._wanted(job_id, copy),
            lambda: self._on_growth(job_id),
        )
        self._taps[job_id] = asyncio.create_task(self._run(job_id, tap, copy, tie))
        return tap

    async def complete(self, job: Job, client: Client | None) -> Copy:
        """Return the log of a job that has ended, complete if there is any way to.

        Raises `CannotConnectError` where the next connection can do it.
        """
        await self._stop_tap(job.job_id)
        copy = await self.open(job)
        if job.job_id not in self.unreadable:
            try:
                await self.fetch(job, client)
            except (CommandError, TimeoutError) as err:
                _LOGGER.warning("The output of job %s is lost: %s", job.job_id, err)
        await copy.log.close()
        return copy

    async def fetch(self, job: Job, client: Client | None) -> Copy:
        """Take what the server has stored of a job; return its log.

        Raises `CommandError`, `CannotConnectError` or `TimeoutError`.
        """
        tie = self._ties.get(job.job_id)
        if client is None or tie is None or tie.server_id is None:
            raise CannotConnectError("There is no connection.")
        copy = await self.open(job)
        stored = await stored_output(client, tie.server_id)
        await copy.take_all(stored, ended=True)
        tie.base = copy.base
        return copy

    def drop(self, job_id: str) -> None:
        """Let go of a log, which may still be copied to."""
        self._asked_for.pop(job_id, None)
        if (copy := self._copies.pop(job_id, None)) is not None:
            task = asyncio.create_task(self._close_copy(job_id, copy))
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)

    def cut_off(self, busy: Collection[str] = (), *, too_much: bool = False) -> None:
        """End all copying, since the connection has; busy ones are being completed.

        Where that was because of a message that is too large, none of them is asked for
        again: whoever does is cut off again.
        """
        if too_much:
            self.unreadable.update(self._taps, busy)
        for task in self._taps.values():
            task.cancel()

    async def close(self) -> None:
        """Leave no task and no file open."""
        for job_id, copy in tuple(self._copies.items()):
            await self._close_copy(job_id, copy)
        if self._dropping:
            await asyncio.wait(self._dropping)

    async def _close_copy(self, job_id: str, copy: Copy) -> None:
        """Copy no more to a log."""
        await self._stop_tap(job_id)
        await copy.log.close()

    async def _stop_tap(self, job_id: str) -> None:
        if (task := self._taps.get(job_id)) is not None:
            task.cancel()
            await asyncio.wait([task])

    def _wanted(self, job_id: str, copy: Copy) -> bool:
        """Return whether anybody follows, or is about to."""
        now = asyncio.get_running_loop().time()
        asked = self._asked_for.get(job_id, -FOLLOWED_SECONDS)
        return copy.log.followed or now - asked < FOLLOWED_SECONDS

    async def _run(self, job_id: str, tap: Tap, copy: Copy, tie: Tie) -> None:
        try:
            await tap.run()
        except (CannotConnectError, CommandError) as err:
            _LOGGER.debug("Following job %s ended: %s", job_id, err)
        finally:
            del self._taps[job_id]
            tie.base = copy.base
