"""A builder that does what a test says, with real logs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from custom_components.esphome_builds.builds.builder import (
    BuildRequest,
    Submission,
    UnknownJobError,
)
from custom_components.esphome_builds.builds.findings import Finding
from custom_components.esphome_builds.builds.kept import KeptFirmware, NoFirmwareError
from custom_components.esphome_builds.builds.log import JobLog
from custom_components.esphome_builds.builds.log_files import LogFiles
from custom_components.esphome_builds.builds.models import (
    BuilderEvent,
    BuilderInfo,
    BuilderKind,
    BuilderState,
    Cause,
    Configuration,
    Event,
    Job,
    JobEvent,
    JobKind,
    JobRemovedEvent,
    JobStatus,
    Requester,
)
from custom_components.esphome_builds.builds.usage import Usage

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_job(job_id: str = "1", **changes: Any) -> Job:  # noqa: ANN401 - any field
    """Return a job of `kitchen.yaml` that waits to be compiled, or other than that."""
    job = Job(
        job_id=job_id,
        entry_id="entry",
        configuration="kitchen.yaml",
        kind=JobKind.COMPILE,
        status=JobStatus.QUEUED,
        created_at=NOW,
    )
    return replace(job, **changes)


class StandIn:
    """Has the jobs that it is given, each with a log in a folder."""

    def __init__(self, folder: Path, *jobs: Job) -> None:
        """Start with some jobs."""
        self._folder = folder
        self._jobs = {job.job_id: job for job in jobs}
        self.listeners: list[Callable[[Event], None]] = []
        self.logs: dict[str, JobLog] = {}
        self._stopped = False

    @property
    def info(self) -> BuilderInfo:
        """Return the builder as it is now."""
        return BuilderInfo(
            entry_id="entry",
            kind=BuilderKind.LOCAL,
            title="stand-in",
            state=BuilderState.READY,
        )

    @property
    def configurations(self) -> Mapping[str, Configuration]:
        """Return a configuration for each that has a job."""
        names = {job.configuration for job in self._jobs.values()}
        return {
            name: Configuration(entry_id="entry", configuration=name)
            for name in sorted(names)
        }

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Return the jobs."""
        return self._jobs

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Find nothing in the way."""
        return ()

    @property
    def usage(self) -> Usage | None:
        """Not know."""
        return None

    @property
    def stopped(self) -> bool:
        """Return whether a test stopped it."""
        return self._stopped

    async def start(self) -> None:
        """Do nothing."""

    def resume(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Close all logs."""
        for log in self.logs.values():
            await log.close()
        self._stopped = True
        self.emit(BuilderEvent(builder=self.info))

    async def submit(self, request: BuildRequest) -> Submission:
        """Have no place for more jobs."""
        raise NotImplementedError

    async def install_esphome(
        self, version: str | None, requested_by: Requester | None = None
    ) -> Job:
        """Have no ESPHome of its own."""
        raise NotImplementedError

    async def go_back(self) -> str:
        """Have no ESPHome of its own."""
        raise NotImplementedError

    async def clean_all(self, requested_by: Requester | None = None) -> Submission:
        """Have no place for more jobs."""
        raise NotImplementedError

    def firmware_of(self, configuration: str) -> list[KeptFirmware]:  # noqa: ARG002 - the protocol's
        """Keep none."""
        return []

    def find_firmware(self, job_id: str) -> KeptFirmware | None:  # noqa: ARG002 - same
        """Keep none."""
        return None

    async def firmware_file(self, job_id: str, name: str | None = None) -> Path:  # noqa: ARG002 - same
        """Keep none."""
        raise NoFirmwareError(job_id)

    async def cancel(self, job_id: str, cause: Cause = Cause.CANCELLED_BY_USER) -> Job:
        """End a job as canceled."""
        return await self.end(job_id, JobStatus.CANCELLED, cause=cause)

    async def open_log(self, job_id: str) -> JobLog:
        """Return the log of a job, the same each time."""
        if job_id not in self._jobs:
            raise UnknownJobError(job_id)
        return self.log(job_id)

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call the listener with each event until the result is called."""
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def log(self, job_id: str = "1") -> JobLog:
        """Return the log of a job."""
        if job_id not in self.logs:
            self.logs[job_id] = JobLog(LogFiles(self._folder / job_id))
        return self.logs[job_id]

    def append(self, count: int, job_id: str = "1", width: int = 0) -> None:
        """Let a job print lines that tell their number."""
        log = self.log(job_id)
        first = log.total
        log.append(
            [f"line {line}".ljust(width, ".") for line in range(first, first + count)]
        )

    def change(self, job_id: str = "1", **changes: Any) -> Job:  # noqa: ANN401 - same
        """Change a job, and tell."""
        job = self._jobs[job_id] = replace(self._jobs[job_id], **changes)
        self.emit(JobEvent(job=job))
        return job

    async def end(
        self,
        job_id: str = "1",
        status: JobStatus = JobStatus.COMPLETED,
        **changes: Any,  # noqa: ANN401 - same
    ) -> Job:
        """End a job as a builder must: its log first."""
        await self.log(job_id).close()
        return self.change(job_id, status=status, finished_at=NOW, **changes)

    def remove(self, job_id: str = "1") -> None:
        """Forget a job, and tell."""
        del self._jobs[job_id]
        self.emit(JobRemovedEvent(job_id=job_id))

    def emit(self, event: Event) -> None:
        """Tell all listeners."""
        for listener in tuple(self.listeners):
            listener(event)

    @property
    def attached(self) -> int:
        """Return how many listeners there are, to jobs and logs."""
        logs = sum(len(log._listeners) for log in self.logs.values())
        return len(self.listeners) + logs
