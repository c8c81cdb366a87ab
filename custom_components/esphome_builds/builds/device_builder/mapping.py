"""What a job on the server makes of a job of ours; nothing here knows a connection."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from ..diagnosis import Verdict
from ..models import Job, JobKind, JobStatus
from .verdict import where
from .wire import ServerJob

_SKEW: Final = timedelta(minutes=5)


def created(server: ServerJob) -> datetime:
    """Return when a job was made; what does not say so is older than all that do."""
    return server.created_at or datetime.min.replace(tzinfo=UTC)


def is_shown(server: ServerJob) -> bool:
    """Return whether a job is one of ours or of somebody else's, and not a helper.

    A clean also cleans each build server; what other servers build here has a path.
    """
    return (
        server.kind is not None
        and bool(server.configuration)
        and "/" not in server.configuration
        and not (server.kind is JobKind.CLEAN and server.source == "remote")
    )


def newest_like(job: Job, theirs: Iterable[ServerJob]) -> ServerJob | None:
    """Return the newest of the server's jobs that can have come of a request for ours.

    One that has ended counts if it is not older, as far as two clocks can tell.
    """
    candidates = [server for server in theirs if is_like(job, server)]
    return max(candidates, key=created, default=None)


def is_like(job: Job, server: ServerJob) -> bool:
    """Return whether one of the server's jobs can have come of a request for ours."""
    return (
        (server.kind, server.configuration) == (job.kind, job.configuration)
        and server.address == job.address
        and is_shown(server)
        and (server.active or created(server) > job.created_at - _SKEW)
    )


def began_again(job: Job, server: ServerJob) -> bool:
    """Return whether a job that runs on the server is another run than ours."""
    return (
        job.status is JobStatus.RUNNING
        and server.started_at is not None
        and server.started_at != job.started_at
    )


def queued(job: Job, server: ServerJob) -> Job:
    """Return a job that waits on the server, perhaps after a run that was lost."""
    again = job.status is JobStatus.RUNNING
    return replace(
        job,
        status=JobStatus.QUEUED,
        started_at=None,
        progress=None,
        phase=None if again else job.phase,
        attempt=2 if again else job.attempt,
        message=where(server),
    )


def running(job: Job, server: ServerJob, esphome_version: str | None) -> Job:
    """Return a job that runs there, or on a build server with an ESPHome of its own."""
    again = began_again(job, server)
    return replace(
        job,
        status=JobStatus.RUNNING,
        started_at=server.started_at or job.started_at or datetime.now(UTC),
        attempt=2 if again else job.attempt,
        esphome_version=server.source_version or esphome_version,
        message=where(server),
        phase=None if again or job.status is JobStatus.QUEUED else job.phase,
        progress=server.progress,
    )


def ended(job: Job, server: ServerJob, end: Verdict) -> Job:
    """Return a job that had ended on the server before it was known here."""
    completed = end.status is JobStatus.COMPLETED
    return replace(
        job,
        status=end.status,
        started_at=server.started_at,
        finished_at=server.completed_at or job.created_at,
        phase=None,
        progress=100 if completed else None,
        exit_code=server.exit_code,
        cause=end.cause,
        message=end.message,
    )
