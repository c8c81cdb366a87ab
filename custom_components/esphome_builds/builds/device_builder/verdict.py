"""What the end of a job on the server means: a status, a cause and one sentence.

The texts are those of `esphome_device_builder/controllers/firmware` 1.26.
"""

from dataclasses import replace
import re
from typing import Final

from ..diagnosis import Diagnosis, Verdict, sentence
from ..models import Cause, Job, JobKind, JobStatus
from .wire import ServerJob

_CHIP: Final = "Chip mismatch"
_DEFERRED: Final = "update queued"
_LOST: Final = re.compile(
    r"remote build: (?:server lost|receiver not reachable|dispatch failed|"
    # What a build server says itself stands after a parenthesis.
    r"peer-link session lost|download_artifacts failed: [^(]*(?:session|send failed))"
)
_NOT_BROUGHT: Final = re.compile(
    r"(?:download_artifacts failed: (?:download_artifacts: )?|materialise [^:]*: )"
)
_PREREQUISITE: Final = "prerequisite job"
_REMOTE: Final = "remote build: "
_SILENT: Final = "compile failed"

STILL_ARMED: Final = (
    "ESPHome Device Builder may still install it when the device is back."
)
WHEN_BACK: Final = "ESPHome Device Builder installs it when the device is back."
IN_DOUBT: Final = Verdict(
    status=JobStatus.INTERRUPTED,
    cause=Cause.BUILDER_UNAVAILABLE,
    message=(
        "The connection to ESPHome Device Builder broke before it confirmed this job, "
        "so it may have run; it was not sent again."
    ),
)
UNKNOWN_END: Final = Verdict(
    status=JobStatus.INTERRUPTED,
    cause=Cause.BUILDER_UNAVAILABLE,
    message="ESPHome Device Builder no longer knows how this job ended.",
)
CANCELED: Final = Verdict(
    status=JobStatus.CANCELLED,
    cause=Cause.CANCELLED_BY_USER,
    message="The job was canceled in ESPHome Device Builder.",
)
SHUT_DOWN: Final = Verdict(
    status=JobStatus.CANCELLED,
    cause=Cause.BUILDER_UNAVAILABLE,
    message="ESPHome Device Builder was stopped while this job was active.",
)
CUT_OFF: Final = Verdict(
    status=JobStatus.INTERRUPTED,
    cause=Cause.BUILDER_UNAVAILABLE,
    message="The connection to ESPHome Device Builder broke during this check.",
)
WITHOUT_PREREQUISITE: Final = Verdict(
    status=JobStatus.CANCELLED,
    cause=Cause.PREREQUISITE_FAILED,
    message="The job that this one waited for did not complete.",
)
NOT_SENT: Final = Verdict(
    status=JobStatus.FAILED,
    cause=Cause.DEVICE_OFFLINE,
    message="The device is offline, so nothing was sent to it.",
)
OFFLINE: Final = Verdict(
    status=JobStatus.CANCELLED,
    cause=Cause.DEVICE_OFFLINE,
    message=f"The device is offline; {WHEN_BACK}",
)


def where(job: ServerJob) -> str | None:
    """Return where a job runs, in a sentence, if that is not the server itself."""
    if job.source == "remote_pending":
        return "It waits for a build server."
    if job.source != "remote":
        return None
    return f"It runs on the build server {job.source_label or 'of that name'}."


def refused(details: str) -> Verdict:
    """Return the verdict for a job that the server did not take."""
    return Verdict(
        status=JobStatus.FAILED,
        cause=Cause.UNKNOWN,
        message=sentence(f"ESPHome Device Builder refused this job: {details}"),
    )


def verdict(
    job: Job, server: ServerJob, diagnosis: Diagnosis, canceled: Verdict = CANCELED
) -> Verdict:
    """Return what an ended job came to; `canceled` if nothing else explains that."""
    if server.status == "completed":
        return Verdict(
            status=JobStatus.COMPLETED, cause=None, message=_completed(server)
        )
    if server.status == "failed":
        return _failed(job, server, diagnosis)
    if server.status != "cancelled":
        return UNKNOWN_END
    if was_deferred(server):
        return OFFLINE
    return WITHOUT_PREREQUISITE if _PREREQUISITE in (server.error or "") else canceled


def was_deferred(server: ServerJob) -> bool:
    """Return whether an upload waits for its device instead of having been begun."""
    return _DEFERRED in (server.error or "")


def is_held(server: ServerJob, end: Verdict) -> bool:
    """Return whether the server begins an upload again when its device is back."""
    if server.status == "cancelled":
        return was_deferred(server)
    return server.deferred and end.cause is Cause.DEVICE_OFFLINE


def _completed(server: ServerJob) -> str | None:
    if server.deferred:
        return f"The device is offline; {WHEN_BACK}"
    if server.source == "remote" and server.source_label:
        return f"It ran on the build server {server.source_label}."
    return None


def _failed(job: Job, server: ServerJob, diagnosis: Diagnosis) -> Verdict:
    error = server.error or ""
    if server.source == "remote" and _LOST.match(error):
        label = server.source_label or "that it ran on"
        return Verdict(
            status=JobStatus.FAILED,
            cause=Cause.BUILDER_UNAVAILABLE,
            message=sentence(f"The build server {label} was lost during the build"),
        )
    if server.exit_code == 0:
        return _failed_by_a_word(job, diagnosis)
    found = diagnosis.verdict(1 if server.exit_code is None else server.exit_code)
    if _CHIP in error:
        found = replace(found, cause=Cause.WRONG_DEVICE, message=sentence(error))
    elif server.exit_code is None and found.cause is Cause.UNKNOWN and error:
        found = replace(found, message=_unexplained(server, error))
    if server.deferred and job.kind is JobKind.UPLOAD:
        # After a compile that failed, the server has nothing to install later.
        message = sentence(f"{(found.message or '').rstrip('.')}; {WHEN_BACK}")
        return replace(found, cause=Cause.DEVICE_OFFLINE, message=message)
    return found


def _unexplained(server: ServerJob, error: str) -> str:
    """Return the server's words for what the output does not explain."""
    words = error.removeprefix(_REMOTE)
    place = f"the build server {server.source_label or 'that it ran on'}"
    if words == error:
        return sentence(error)
    if words == _SILENT:
        return f"Compiling failed on {place}, and ESPHome did not say why."
    if (match := _NOT_BROUGHT.match(words)) is not None:
        reason = words[match.end() :]
        return sentence(f"What {place} built could not be fetched: {reason}")
    return sentence(f"{words[:1].upper()}{words[1:]}")


def _failed_by_a_word(job: Job, diagnosis: Diagnosis) -> Verdict:
    """Return the verdict where ESPHome succeeded and the server disliked its output.

    It takes "ImportError" and the like anywhere for a failure. What flashed a device
    did so; but after such a compile the server does not go on to upload.
    """
    found = diagnosis.verdict(0)
    if found.status is JobStatus.COMPLETED and job.kind is JobKind.COMPILE:
        return Verdict(
            status=JobStatus.FAILED,
            cause=Cause.UNKNOWN,
            message="ESPHome succeeded, but ESPHome Device Builder takes a word in "
            "the output for an error.",
        )
    return found
