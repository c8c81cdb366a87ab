"""What builders of all kinds do for the devices that their uploads are for.

An upload waits until its device is there, and has ended when that is back.
"""

from abc import abstractmethod
import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import override

from .base import BaseBuilder
from .devices import Devices
from .diagnosis import Verdict
from .log import JobLog
from .models import Cause, Job, JobStatus, Phase
from .verification import Expected, Verifications, is_verifying
from .waiting import OFF, Waiting, can_wait


class DeliveringBuilder(BaseBuilder):
    """Holds uploads to devices that are off, and looks after those it has sent."""

    def __init__(
        self,
        entry_id: str,
        title: str,
        cache_dir: Path,
        devices: Devices,
        device_wait: float,
    ) -> None:
        """Prepare; nothing is read yet."""
        super().__init__(entry_id, title, cache_dir, devices)
        self._waiting = Waiting(device_wait)
        self._wait_timer: asyncio.TimerHandle | None = None
        # How often the devices had connected that are being sent something.
        self._connections: dict[str, int | None] = {}
        self._verifications = Verifications(
            self._logs, self._device_for, self._expect, self._on_verified
        )

    @abstractmethod
    async def _expect(self, job: Job) -> Expected:
        """Return what a device runs when an upload has worked; raise `OSError`."""

    @override
    def _accept(self) -> None:
        """Take requests from now on, go on waiting, and tell what the restart ended."""
        super()._accept()
        for job in filter(is_verifying, self._queue.active):
            self._verifications.start(job, None)

    @override
    async def _conclude(self) -> None:
        """Write down what there is, and tell that nothing comes any more."""
        if self._wait_timer is not None:
            self._wait_timer.cancel()
        await self._verifications.close()
        await super()._conclude()

    @override
    def _publish(self) -> None:
        """Tell what is different now, and look at devices that shall come back."""
        super()._publish()
        self._verifications.wake()

    def _hold(self) -> set[str]:
        """Let uploads wait for devices that are off; return what must not start."""
        uploads = [job for job in self._queue.active if self._could_start(job)]
        look = self._waiting.look(
            self._queue, uploads, self._is_off, self._device_for, datetime.now(UTC)
        )
        for job in look.surplus:
            self._end(job, Cause.SUPERSEDED)
        for job in look.overdue:
            self._give_up(job)
        for job in look.waiting:
            self._update(replace(job, phase=Phase.WAITING, message=OFF))
        for job in look.released:
            self._update(replace(job, message=None))
        self._hold_until(look.due)
        return {job.job_id for job in (*look.waiting, *look.overdue, *look.surplus)}

    def _hold_until(self, due: datetime | None) -> None:
        """Look again when an upload has waited for too long."""
        if self._wait_timer is not None:
            self._wait_timer.cancel()
            self._wait_timer = None
        if due is not None:
            seconds = (due - datetime.now(UTC)).total_seconds()
            self._wait_timer = asyncio.get_running_loop().call_later(
                max(0.0, seconds), self._on_due
            )

    def _on_due(self) -> None:
        self._pump()
        self._publish()

    def _could_start(self, job: Job) -> bool:
        """Return whether all that an upload may lack is its device."""
        return (
            job.status is JobStatus.QUEUED and can_wait(job) and self._queue.ready(job)
        )

    def _is_off(self, job: Job) -> bool:
        """Return whether an upload would not reach its device now."""
        device = self._device_for(job)
        return device is not None and device.online is False

    def _give_up(self, job: Job) -> None:
        """End an upload that has waited for its device for too long."""
        self._finish(job.job_id, self._waiting.gave_up())

    def _waits_again(self, job: Job, verdict: Verdict) -> bool:
        """Return whether an upload that failed can wait for its device instead.

        That is where it did not get there, so that it may be sent again.
        """
        device = self._device_for(job)
        return (
            verdict.unreached
            and can_wait(job)
            and self._waiting.enabled
            and self._accepting
            and device is not None
            and (device.online is False or device.sleeps)
            and datetime.now(UTC) < self._waiting.until(self._queue, job)
        )

    def _wait_again(self, job_id: str, log: JobLog | None) -> None:
        """Put an upload back that did not reach its device."""
        job = self.jobs[job_id]
        if log is not None:
            job = replace(job, total_lines=log.total, elided_lines=log.elided)
        self._waiting.miss(job, self._device_for(job))
        self._update(
            replace(
                job,
                status=JobStatus.QUEUED,
                started_at=None,
                phase=Phase.WAITING,
                progress=None,
                message=OFF,
            )
        )
        self._settle_soon()

    def _note_device(self, job: Job, *, late: bool = False) -> None:
        """Note the device that an upload is sent to, if it is known.

        It is `late` where the upload may be over, and the device back.
        """
        device = self._device_for(job)
        self._connections.pop(job.job_id, None)
        if can_wait(job) and device is not None and device.online is not None:
            self._connections[job.job_id] = None if late else device.connections

    def _verify(
        self, job_id: str, verdict: Verdict, exit_code: int | None, log: JobLog | None
    ) -> bool:
        """Let an upload that worked wait until its device is back, if that is known.

        Return whether it does; else it has ended.
        """
        noted = job_id in self._connections
        connections = self._connections.pop(job_id, None)
        if not noted or verdict.status is not JobStatus.COMPLETED:
            return False
        job = replace(
            self.jobs[job_id],
            phase=Phase.VERIFYING,
            exit_code=exit_code,
            message=verdict.message,
        )
        if log is not None:
            job = replace(job, total_lines=log.total, elided_lines=log.elided)
        self._update(job)
        # It must not be sent again, and nobody may take it for cut off.
        self._store.changed()
        self._verifications.start(job, connections)
        self._settle_soon()
        return True

    def _on_verified(self, job_id: str, verdict: Verdict, log: JobLog | None) -> None:
        self._finish(job_id, verdict, self.jobs[job_id].exit_code, log)
