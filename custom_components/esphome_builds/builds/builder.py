"""What every kind of builder offers to those above it, and the errors it raises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from .findings import Finding
from .kept import KeptFirmware
from .log import JobLog
from .models import (
    BuilderInfo,
    Cause,
    Configuration,
    Event,
    Job,
    Requester,
    RequestKind,
    SnapshotEvent,
)
from .usage import Usage

MAX_CONFIGURATIONS: Final = 200
"""The most configurations that one request may name."""


class BuildError(Exception):
    """A request that cannot be carried out; nothing was changed."""


class BuilderUnavailableError(BuildError):
    """The builder takes no jobs now; the message says why."""


class InvalidRequestError(BuildError):
    """The request makes no sense; the message says why."""


class NotAllowedError(InvalidRequestError):
    """The request is none for this builder, or for now; the message says why."""


class UnknownConfigurationError(BuildError):
    """The builder has no such configuration."""

    def __init__(self, configuration: str) -> None:
        """Note the name that was asked for."""
        super().__init__(f"There is no configuration {configuration!r}")
        self.configuration = configuration


class UnknownJobError(BuildError):
    """The builder has no such job, or has it no longer."""

    def __init__(self, job_id: str) -> None:
        """Note the id that was asked for."""
        super().__init__(f"There is no job {job_id!r}")
        self.job_id = job_id


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRequest:
    """What to do with which configurations.

    `address` sends an upload to a place other than the configuration's own.
    `firmware_job_id` lets an upload send what that job built, if it is still kept.
    `replace` cancels active jobs that are the same request instead of attaching to
    them.
    """

    kind: RequestKind
    configurations: tuple[str, ...]
    address: str | None = None
    firmware_job_id: str | None = None
    replace: bool = False
    requested_by: Requester | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """The jobs that carry a request out, and which of them were there before."""

    jobs: tuple[Job, ...]
    attached: tuple[str, ...]


class Builder(Protocol):
    """A place where ESPHome runs. All of it must be called from the event loop."""

    @property
    def info(self) -> BuilderInfo:
        """Return the builder as it is now."""
        ...

    @property
    def configurations(self) -> Mapping[str, Configuration]:
        """Return the configurations by file name."""
        ...

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Return the known jobs by id, oldest first."""
        ...

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return what stands in the way of jobs now, the worst first."""
        ...

    @property
    def usage(self) -> Usage | None:
        """Return what the builder's files take on disk, None while that is unknown."""
        ...

    @property
    def stopped(self) -> bool:
        """Return whether nothing happens here any more; an event tells when it is."""
        ...

    async def start(self) -> None:
        """Load what there is; raise `BuilderUnavailableError` if that cannot work."""
        ...

    def resume(self) -> None:
        """Begin to run jobs, and tell what the restart ended; once, after `start`."""
        ...

    async def stop(self) -> None:
        """End running jobs as interrupted, and leave no process, task or file open."""
        ...

    async def submit(self, request: BuildRequest) -> Submission:
        """Check all names, then make or find a job for each; raise `BuildError`."""
        ...

    async def install_esphome(
        self, version: str | None, requested_by: Requester | None = None
    ) -> Job:
        """Install an ESPHome, without a version the latest, and use it from then on.

        Raises `NotAllowedError` where the builder does not manage its own.
        """
        ...

    async def go_back(self) -> str:
        """Use the ESPHome again that was used before; return its version.

        Raises `NotAllowedError` where there is none.
        """
        ...

    async def clean_all(self, requested_by: Requester | None = None) -> Submission:
        """Remove everything that was built, but for what jobs use; raise `BuildError`.

        The jobs are those that clean the configurations.
        """
        ...

    def firmware_of(self, configuration: str) -> list[KeptFirmware]:
        """Return the kept firmware of a configuration, the newest first.

        Raises `UnknownConfigurationError`.
        """
        ...

    def find_firmware(self, job_id: str) -> KeptFirmware | None:
        """Return what a job made, if it is kept; the job may be forgotten."""
        ...

    async def firmware_file(self, job_id: str, name: str | None = None) -> Path:
        """Return where a kept file of a job is, the one to upload without a name.

        Raises `NoFirmwareError` where there is none, or it is damaged.
        """
        ...

    async def cancel(self, job_id: str, cause: Cause = Cause.CANCELLED_BY_USER) -> Job:
        """End a job and return it when it has ended; raise `UnknownJobError`."""
        ...

    async def open_log(self, job_id: str) -> JobLog:
        """Return the log of a job; raise `UnknownJobError`."""
        ...

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call the listener with each event from now on, until the result is called."""
        ...


def snapshot(*builders: Builder) -> SnapshotEvent:
    """Return what there is now; of jobs all active ones and each newest ended one."""
    return SnapshotEvent(
        builders=tuple(builder.info for builder in builders),
        configurations=tuple(
            configuration
            for builder in builders
            for configuration in builder.configurations.values()
        ),
        jobs=tuple(job for builder in builders for job in _current(builder)),
    )


def _current(builder: Builder) -> list[Job]:
    newest = {
        job.configuration: job.job_id
        for job in builder.jobs.values()
        if job.status.ended
    }
    return [
        job
        for job in builder.jobs.values()
        if not job.status.ended or newest[job.configuration] == job.job_id
    ]
