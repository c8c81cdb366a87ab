"""Which jobs there are, in which order they run, and what a restart makes of them.

Pure bookkeeping: nothing here waits, reads a clock or starts a process.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
import secrets
from types import MappingProxyType
from typing import Final

from .builder import BuilderUnavailableError, BuildRequest
from .models import (
    Cause,
    Job,
    JobKind,
    JobStatus,
    Phase,
    Requester,
    RequestKind,
)

HISTORY: Final = 500
HISTORY_OF_CONFIGURATION: Final = 20
MAX_ACTIVE: Final = 2000
UPLOAD_SLOTS: Final = 4
VALIDATE_SLOTS: Final = 2

_INTERRUPTED_BUILD: Final = (
    "Home Assistant stopped unexpectedly during this job twice, so it was not started "
    "a third time."
)
_INTERRUPTED: Final = (
    "Home Assistant stopped unexpectedly during this job; it was not started again."
)
_PREREQUISITE: Final = "The job that this one waited for did not complete."


class Lane(StrEnum):
    """Jobs of different lanes run side by side."""

    VALIDATE = "validate"
    COMPILE = "compile"
    UPLOAD = "upload"
    INSTALL_ESPHOME = "install_esphome"


_LANES: Final = {
    JobKind.VALIDATE: Lane.VALIDATE,
    JobKind.COMPILE: Lane.COMPILE,
    JobKind.CLEAN: Lane.COMPILE,
    JobKind.UPLOAD: Lane.UPLOAD,
    JobKind.INSTALL_ESPHOME: Lane.INSTALL_ESPHOME,
}
_RESUMABLE: Final = (JobKind.VALIDATE, JobKind.COMPILE, JobKind.INSTALL_ESPHOME)


def local_slots(compile_slots: int) -> dict[Lane, int]:
    """Return how many jobs a host runs side by side."""
    return {
        Lane.VALIDATE: VALIDATE_SLOTS,
        Lane.COMPILE: compile_slots,
        Lane.UPLOAD: UPLOAD_SLOTS,
        Lane.INSTALL_ESPHOME: 1,
    }


class JobIds:
    """Makes ids that sort by creation, also when the clock is set back."""

    def __init__(self, newest: str = "") -> None:
        """Continue after the newest id there is."""
        self._last = int(newest[:14], 16) if newest else 0

    def next(self, now: datetime) -> str:
        """Return a new id: time in 1/16 ms, made increasing, then random digits."""
        self._last = max(self._last + 1, int(now.timestamp() * 1000) << 4)
        return f"{self._last:014x}{secrets.token_hex(4)}"


@dataclass(kw_only=True)
class Accepted:
    """A request, and what it came to."""

    request: BuildRequest
    now: datetime
    stale: Collection[str]
    jobs: list[Job] = field(default_factory=list)
    attached: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)


class JobQueue:
    """All jobs of a builder, by id and in the order of their creation.

    - Jobs of one configuration run one after another, in that order.
    - A lane runs as many jobs as it has slots, first come first served. One that only
      waits for its device to come back takes none.
    - A job that depends on another runs after that one has completed.
    """

    def __init__(
        self, entry_id: str, slots: Mapping[Lane, int], jobs: Iterable[Job]
    ) -> None:
        """Start with the jobs of an earlier run, as `restored` made them.

        A lane without a number of slots has no limit.
        """
        self._entry_id = entry_id
        self._slots = {lane: slots.get(lane, MAX_ACTIVE) for lane in Lane}
        self._jobs: dict[str, Job] = {}
        self._active: dict[str, None] = {}
        # In the order of their ends, which the clock does not always tell.
        self._ended: dict[str, None] = {}
        self._of: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for job in jobs:
            self._add(job)
        for job in sorted(self._jobs.values(), key=_end):
            self.put(job)
        self._ids = JobIds(max(self._jobs, default=""))

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Return all jobs, oldest first."""
        return MappingProxyType(self._jobs)

    @property
    def active(self) -> list[Job]:
        """Return the jobs that have not ended, oldest first."""
        return [self._jobs[job_id] for job_id in self._active]

    @property
    def compiles(self) -> int:
        """Return how many compiles run side by side as long as nothing changes."""
        compiles = sum(job.kind is JobKind.COMPILE for job in self.active)
        return min(self._slots[Lane.COMPILE], compiles)

    def submit(
        self, request: BuildRequest, now: datetime, stale: Collection[str] = ()
    ) -> Accepted:
        """Make or find the jobs of a request.

        Running jobs in `stale` work on something older than what is asked for, so
        nothing attaches to them. Raises `BuilderUnavailableError` when too much waits.
        """
        names = tuple(dict.fromkeys(request.configurations))
        if len(self._active) + 2 * len(names) > MAX_ACTIVE:
            raise BuilderUnavailableError("Too many jobs are waiting already.")
        accepted = Accepted(request=request, now=now, stale=stale)
        for name in names:
            if request.kind is not RequestKind.INSTALL:
                kind = JobKind(request.kind.value)
                self._take(accepted, name, kind)
                continue
            build = self._take(accepted, name, JobKind.COMPILE)
            self._take(accepted, name, JobKind.UPLOAD, build.job_id)
        return accepted

    @property
    def busy(self) -> set[str]:
        """Return the configurations that have jobs; from any thread."""
        # Made in one go, which nobody can come between.
        return {self._jobs[job_id].configuration for job_id in tuple(self._active)}

    def runnable(
        self, held: Collection[str] = (), away: Collection[str] = ()
    ) -> list[Job]:
        """Return the jobs that can start now, in order; those held take no slot.

        Neither do those `away`, which nothing of their configuration has to wait for.
        """
        free = dict(self._slots)
        first: dict[str, Job] = {}
        for job in self.active:
            if job.status is JobStatus.RUNNING:
                first[job.configuration] = job
                if job.phase is not Phase.VERIFYING:
                    free[_LANES[job.kind]] -= 1
            elif job.job_id not in away:
                first.setdefault(job.configuration, job)
        result = []
        for job in first.values():
            lane = _LANES[job.kind]
            if (
                job.status is JobStatus.QUEUED
                and job.job_id not in held
                and free[lane] > 0
                and self.ready(job)
            ):
                free[lane] -= 1
                result.append(job)
        return result

    def adopt(self, kind: JobKind, configuration: str, created_at: datetime) -> Job:
        """Return a new job for what somebody else asked for; `put` makes it known."""
        return Job(
            job_id=self._ids.next(created_at),
            entry_id=self._entry_id,
            configuration=configuration,
            kind=kind,
            status=JobStatus.QUEUED,
            created_at=created_at,
        )

    def install_esphome(
        self, version: str | None, now: datetime, requested_by: Requester | None
    ) -> Job:
        """Return a new job that installs an ESPHome; `put` makes it known."""
        job = self.adopt(JobKind.INSTALL_ESPHOME, "", now)
        return replace(job, esphome_version=version, requested_by=requested_by)

    def put(self, job: Job) -> None:
        """Take over a job's new state, or a new job."""
        if job.job_id not in self._jobs:
            self._add(job)
            return
        self._jobs[job.job_id] = job
        if job.status.ended:
            self._active.pop(job.job_id, None)
            self._ended.setdefault(job.job_id)

    def latest(self, configuration: str) -> tuple[str | None, str | None]:
        """Return a configuration's active job and its newest ended one.

        Of several that are active it is the one that runs, else the oldest.
        """
        active = last = running = None
        for job_id in self._of.get(configuration, ()):
            status = self._jobs[job_id].status
            if status.ended:
                last = job_id
            elif status is JobStatus.RUNNING:
                running = job_id
            else:
                active = active or job_id
        return running or active, last

    def dependents(self, job_id: str) -> list[Job]:
        """Return the jobs that wait for a job."""
        return [job for job in self.active if job.depends_on == job_id]

    def ready(self, job: Job) -> bool:
        """Return whether what the job depends on has completed."""
        if job.depends_on is None:
            return True
        before = self._jobs.get(job.depends_on)
        return before is not None and before.status is JobStatus.COMPLETED

    def forget(self) -> list[Job]:
        """Remove and return the ended jobs that are more than the history holds.

        First those go that have 20 newer ones of their configuration, then those that
        ended first. One that another waits for stays, or that would wait for ever.
        """
        needed = {job.depends_on for job in self.active}
        ended = [self._jobs[job_id] for job_id in self._ended if job_id not in needed]
        excess = len(ended) - HISTORY
        if excess <= 0:
            return []
        newer: Counter[str] = Counter()
        surplus: list[Job] = []
        kept: list[Job] = []
        for job in reversed(ended):
            newer[job.configuration] += 1
            many = newer[job.configuration] > HISTORY_OF_CONFIGURATION
            (surplus if many else kept).append(job)
        removed = (surplus[::-1] + kept[::-1])[:excess]
        for job in removed:
            del self._jobs[job.job_id], self._ended[job.job_id]
            del self._of[job.configuration][job.job_id]
            if not self._of[job.configuration]:
                del self._of[job.configuration]
        return removed

    def _add(self, job: Job) -> None:
        self._jobs[job.job_id] = job
        self._of[job.configuration][job.job_id] = None
        if not job.status.ended:
            self._active[job.job_id] = None

    def _take(
        self,
        accepted: Accepted,
        name: str,
        kind: JobKind,
        depends_on: str | None = None,
    ) -> Job:
        """Attach to an active job or make a new one."""
        request = accepted.request
        address = firmware = None
        if kind is JobKind.UPLOAD:
            address, firmware = request.address, request.firmware_job_id
        for same in self._same(name, kind, address, firmware):
            if request.replace:
                accepted.superseded.append(same.job_id)
            elif same.job_id not in accepted.stale and depends_on in (
                None,
                same.depends_on,
            ):
                accepted.jobs.append(same)
                accepted.attached.append(same.job_id)
                return same
        job = Job(
            job_id=self._ids.next(accepted.now),
            entry_id=self._entry_id,
            configuration=name,
            kind=kind,
            status=JobStatus.QUEUED,
            created_at=accepted.now,
            phase=None if depends_on is None else Phase.WAITING,
            depends_on=depends_on,
            requested_by=request.requested_by,
            address=address,
            firmware_job_id=firmware,
        )
        self._add(job)
        accepted.jobs.append(job)
        return job

    def _same(
        self, name: str, kind: JobKind, address: str | None, firmware: str | None
    ) -> list[Job]:
        """Return the active jobs that do what is asked for."""
        return [
            job
            for job_id in self._of.get(name, ())
            if not (job := self._jobs[job_id]).status.ended
            and (job.kind, job.address, job.firmware_job_id)
            == (kind, address, firmware)
        ]


def _end(job: Job) -> datetime:
    return job.finished_at or job.created_at


def restored(
    jobs: Sequence[Job], now: datetime, elsewhere: Collection[str] = ()
) -> list[Job]:
    """Return the jobs of an earlier run with statuses that are true now.

    What runs elsewhere was not touched by the restart.

    What was queued is queued. A compile, a validate or an installation of ESPHome that
    was cut off is queued once more as the second attempt; anything else that was cut
    off is interrupted. An upload is never started again, since it may have reached the
    device; one that has, and waited for it to come back, still does.
    """
    result: dict[str, Job] = {}
    for stored in jobs:
        if stored.job_id in elsewhere:
            result[stored.job_id] = stored
            continue
        job = _restored(stored, now)
        if job.status is JobStatus.QUEUED and job.depends_on is not None:
            before = result.get(job.depends_on)
            if before is None or (
                before.status.ended and before.status is not JobStatus.COMPLETED
            ):
                job = without_prerequisite(job, now)
        result[job.job_id] = job
    return list(result.values())


def without_prerequisite(job: Job, now: datetime) -> Job:
    """Return a waiting job as ended, because what it waited for did not complete."""
    return replace(
        job,
        status=JobStatus.CANCELLED,
        cause=Cause.PREREQUISITE_FAILED,
        message=_PREREQUISITE,
        finished_at=now,
        phase=None,
    )


def _restored(job: Job, now: datetime) -> Job:
    stopped = (
        job.status is JobStatus.INTERRUPTED
        and job.cause is Cause.HOME_ASSISTANT_STOPPED
    )
    if job.status is not JobStatus.RUNNING and not stopped:
        return job
    if job.phase is Phase.VERIFYING:
        return job
    resumable = job.kind in _RESUMABLE
    if resumable and job.attempt == 1:
        return replace(
            job,
            status=JobStatus.QUEUED,
            started_at=None,
            finished_at=None,
            phase=None,
            progress=None,
            exit_code=None,
            cause=None,
            message=None,
            attempt=2,
        )
    if stopped:
        return job
    return replace(
        job,
        status=JobStatus.INTERRUPTED,
        cause=Cause.CRASHED,
        message=_INTERRUPTED_BUILD if resumable else _INTERRUPTED,
        finished_at=now,
        phase=None,
        progress=None,
    )
