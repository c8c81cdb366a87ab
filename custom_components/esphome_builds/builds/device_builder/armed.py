"""Uploads that a server holds for devices that are off, and begins by itself.

It calls them armed, and holds one for each configuration at most. When Home Assistant
shall wait no longer, or sees the device first, the server has to forget its own plan.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..diagnosis import Verdict
from ..models import Job
from . import mapping
from .client import Client
from .errors import CannotConnectError, DeviceBuilderError
from .ties import Ties
from .verdict import STILL_ARMED
from .wire import ServerJob, parse_jobs


class ArmedUploads:
    """Finds out what the server has begun, and takes back what it has not yet.

    `on_job` is called with each job that the server turns out to have begun. `on_end`
    is called with an upload that was disarmed, and `on_change` when there was no end to
    give: the server begins the upload no more, or has begun it.
    """

    def __init__(
        self,
        ties: Ties,
        on_job: Callable[[ServerJob], None],
        on_end: Callable[[str, Verdict], None],
        on_change: Callable[[], None],
    ) -> None:
        """Take nothing back yet."""
        self._ends: dict[str, Verdict] = {}
        self._on_change = on_change
        self._on_end = on_end
        self._on_job = on_job
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ties = ties

    def __contains__(self, job_id: str) -> bool:
        """Return whether an upload is being taken back."""
        return job_id in self._tasks

    def begun(self, server: ServerJob, active: Iterable[Job]) -> Job | None:
        """Return the upload that a new job of the server's is, which is armed no more.

        None if that is another job.
        """
        for job in active:
            if self._ties.armed(job.job_id) and mapping.is_like(job, server):
                self._ties.wake(job.job_id, job.total_lines)
                return job
        return None

    def holds_another(self, job: Job, active: Iterable[Job]) -> bool:
        """Return whether what the server holds is a newer upload than an armed one."""
        return self._ties.armed(job.job_id) and any(
            self._ties.armed(other.job_id) and other.job_id != job.job_id
            for other in active
            if other.configuration == job.configuration
        )

    def take_back(self, job: Job, client: Client | None) -> None:
        """Let the server not begin an upload, so that it can be sent from here."""
        if job.job_id not in self._tasks:
            task = asyncio.create_task(self._take_back(job, client))
            self._tasks[job.job_id] = task

    def disarm(self, job: Job, client: Client | None, end: Verdict) -> None:
        """Let the server not begin an upload, and end it; the first end counts.

        Where the server does not do that, the verdict says so.
        """
        self._ends.setdefault(job.job_id, end)
        self.take_back(job, client)

    async def close(self) -> None:
        """Leave no task, and all uploads as they are."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _take_back(self, job: Job, client: Client | None) -> None:
        done = False
        try:
            await self._forget(job.configuration, client)
            done = True
        except DeviceBuilderError:
            # Where there is no end, it is tried again with the next connection.
            pass
        finally:
            del self._tasks[job.job_id]
            end = self._ends.pop(job.job_id, None)
        armed = self._ties.armed(job.job_id)
        if armed and end is not None:
            self._on_end(job.job_id, end if done else _not_disarmed(end))
        elif done:
            if armed:
                self._ties.drop(job.job_id)
            self._on_change()

    async def _forget(self, configuration: str, client: Client | None) -> None:
        """Let the server forget its plan, and tell of what it had begun before.

        It begins nothing after the first answer, and the second has all until then.
        """
        if client is None:
            raise CannotConnectError("There is no connection.")
        await client.command(
            "firmware/clear_queued_update", configuration=configuration
        )
        answer = await client.command("firmware/get_jobs", configuration=configuration)
        for server in parse_jobs(answer):
            if server.active and self._ties.ours(server.job_id) is None:
                self._on_job(server)


def _not_disarmed(end: Verdict) -> Verdict:
    """Return a verdict for readers who may still end that on the server."""
    return replace(end, message=f"{(end.message or '').rstrip('.')}; {STILL_ARMED}")
