"""Which uploads wait for a device that is off or asleep, and for how long."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from .devices import Device
from .diagnosis import Verdict
from .models import Cause, Job, JobKind, JobStatus
from .queue import JobQueue

OFF: Final = "The device is off or asleep; the upload starts when it is back."

_UNITS: Final = ((3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


@dataclass(kw_only=True)
class Held:
    """What a look at the queue found.

    `waiting` wait for their devices, and `released` do so no longer. `overdue` have
    waited for too long; instead of `surplus` ones, newer ones go to the same devices.
    `due` is when the next one has waited for too long.
    """

    waiting: list[Job] = field(default_factory=list)
    released: list[Job] = field(default_factory=list)
    overdue: list[Job] = field(default_factory=list)
    surplus: list[Job] = field(default_factory=list)
    due: datetime | None = None


class Waiting:
    """Lets uploads wait for `seconds`; with 0 none does."""

    def __init__(self, seconds: float) -> None:
        """Start with none."""
        self._seconds = seconds
        # How often its device had connected when an upload did not reach it.
        self._missed: dict[str, int] = {}

    def look(
        self,
        queue: JobQueue,
        uploads: Sequence[Job],
        is_off: Callable[[Job], bool],
        device_of: Callable[[Job], Device | None],
        now: datetime,
    ) -> Held:
        """Return which of some uploads have to wait now, the oldest being first.

        One that did not reach its device waits until that has connected once more.
        """
        held = Held()
        # The newest goes to its device; what waited there before would be sent as well.
        newest = {_target(job): job for job in uploads}
        for job in uploads:
            if job.message == OFF and newest[_target(job)] is not job:
                held.surplus.append(job)
            elif is_off(job) or self._was_missed(job, device_of(job)):
                self._judge(held, job, self.until(queue, job), now)
            elif job.message == OFF:
                held.released.append(job)
        self._missed = {
            job_id: connections
            for job_id, connections in self._missed.items()
            if job_id in queue.jobs and not queue.jobs[job_id].status.ended
        }
        return held

    def until(self, queue: JobQueue, job: Job) -> datetime:
        """Return until when an upload waits: it counts from when it could start."""
        before = queue.jobs.get(job.depends_on or "")
        since = job.created_at
        if before is not None and before.finished_at is not None:
            since = before.finished_at
        return since + timedelta(seconds=self._seconds)

    def miss(self, job: Job, device: Device | None) -> None:
        """Note that an upload did not reach its device."""
        if device is not None:
            self._missed[job.job_id] = device.connections

    def gave_up(self) -> Verdict:
        """Return the verdict for an upload that has waited for too long."""
        return Verdict(
            status=JobStatus.FAILED,
            cause=Cause.DEVICE_OFFLINE,
            message=(
                "The device was off or asleep for "
                f"{_in_words(self._seconds)}, so nothing was sent to it."
            ),
        )

    @property
    def enabled(self) -> bool:
        """Return whether any upload waits."""
        return self._seconds > 0

    def _judge(self, held: Held, job: Job, until: datetime, now: datetime) -> None:
        if not self.enabled:
            return
        if until <= now:
            held.overdue.append(job)
            return
        held.waiting.append(job)
        held.due = until if held.due is None else min(held.due, until)

    def _was_missed(self, job: Job, device: Device | None) -> bool:
        missed = self._missed.get(job.job_id)
        return device is not None and device.connections == missed


def can_wait(job: Job) -> bool:
    """Return whether a job is an upload that finds its device by itself."""
    return job.kind is JobKind.UPLOAD and job.address is None


def _target(job: Job) -> tuple[str, str | None]:
    """Return what is sent, and where."""
    return job.configuration, job.firmware_job_id


def _in_words(seconds: float) -> str:
    """Return a time in the largest unit that fits."""
    fitting = ((size, unit) for size, unit in _UNITS if seconds >= size)
    size, unit = next(fitting, _UNITS[-1])
    count = f"{seconds / size:g}"
    return f"{count} {unit}" if count == "1" else f"{count} {unit}s"
