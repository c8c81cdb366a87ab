"""What crosses the engine's boundary: jobs, configurations, builders and their events.

Everything here is frozen: a snapshot or an event that was handed out can never change
under its reader. A change makes a new object with `dataclasses.replace`.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar

import orjson


class JobKind(StrEnum):
    """What one run of ESPHome does, or that one is installed."""

    VALIDATE = "validate"
    COMPILE = "compile"
    UPLOAD = "upload"
    CLEAN = "clean"
    INSTALL_ESPHOME = "install_esphome"


class RequestKind(StrEnum):
    """What a caller can ask for; an install is a compile and an upload after it."""

    VALIDATE = "validate"
    COMPILE = "compile"
    UPLOAD = "upload"
    INSTALL = "install"
    CLEAN = "clean"


class JobStatus(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        """Return whether a job with this status never changes again by itself."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


class Phase(StrEnum):
    """What a running job is doing just now."""

    WAITING = "waiting"
    VALIDATING = "validating"
    GENERATING = "generating"
    DOWNLOADING = "downloading"
    COMPILING = "compiling"
    LINKING = "linking"
    CONNECTING = "connecting"
    UPLOADING = "uploading"
    VERIFYING = "verifying"
    CLEANING = "cleaning"


class Cause(StrEnum):
    """Why a job did not complete."""

    INVALID_CONFIG = "invalid_config"
    COMPILE_ERROR = "compile_error"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    DOWNLOAD_FAILED = "download_failed"
    TOOLCHAIN_MISSING = "toolchain_missing"
    ESPHOME_MISSING = "esphome_missing"
    DEVICE_OFFLINE = "device_offline"
    DEVICE_REFUSED = "device_refused"
    AUTHENTICATION_FAILED = "authentication_failed"
    WRONG_DEVICE = "wrong_device"
    NOT_VERIFIED = "not_verified"
    TIMED_OUT = "timed_out"
    PREREQUISITE_FAILED = "prerequisite_failed"
    SUPERSEDED = "superseded"
    CANCELLED_BY_USER = "cancelled_by_user"
    HOME_ASSISTANT_STOPPED = "home_assistant_stopped"
    CRASHED = "crashed"
    BUILDER_UNAVAILABLE = "builder_unavailable"
    UNKNOWN = "unknown"


class BuilderKind(StrEnum):
    """Where ESPHome runs."""

    LOCAL = "local"
    DEVICE_BUILDER = "device_builder"


class BuilderState(StrEnum):
    """Whether a builder takes jobs."""

    READY = "ready"
    CONNECTING = "connecting"
    UNAVAILABLE = "unavailable"


class _Serializable:
    """Gives a dataclass its public form, as `docs/websocket.md` describes it."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return a new dict of JSON types."""
        result: dict[str, Any] = orjson.loads(orjson.dumps(self))
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class Requester(_Serializable):
    """Who asked for a job: ids of a Home Assistant user and context.

    `unattended` is whether nobody may be looking: an automation, or an update entity.
    """

    user_id: str | None = None
    context_id: str | None = None
    unattended: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(_Serializable):
    """One run of one ESPHome command for one configuration, as it is at one moment.

    Times are in UTC, `progress` is in percent. `address` is where an upload goes when
    the caller named a place, else null. `firmware_job_id` is the build whose kept
    firmware an upload sends, null for what was built last.

    An installation of ESPHome belongs to no configuration: its name is empty. Its
    `esphome_version` is the one to install, null until it is known which is the latest.
    """

    job_id: str
    entry_id: str
    configuration: str
    kind: JobKind
    status: JobStatus
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    phase: Phase | None = None
    progress: int | None = None
    exit_code: int | None = None
    cause: Cause | None = None
    message: str | None = None
    depends_on: str | None = None
    attempt: int = 1
    requested_by: Requester | None = None
    esphome_version: str | None = None
    total_lines: int = 0
    elided_lines: int = 0
    address: str | None = None
    firmware_job_id: str | None = None

    @property
    def duration(self) -> float | None:
        """Return how long the job ran, in seconds, or None before its end."""
        if self.started_at is None or self.finished_at is None:
            return None
        # The clock may have been set back meanwhile.
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration(_Serializable):
    """One ESPHome YAML file of a builder. What is not known is None."""

    entry_id: str
    configuration: str
    name: str | None = None
    friendly_name: str | None = None
    area: str | None = None
    comment: str | None = None
    platform: str | None = None
    built_version: str | None = None
    built_hash: str | None = None
    deployed_version: str | None = None
    deployed_hash: str | None = None
    online: bool | None = None
    update_available: bool | None = None
    pending_changes: bool | None = None
    device_id: str | None = None
    active_job_id: str | None = None
    last_job_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuilderInfo(_Serializable):
    """A builder as it is at one moment; `message` says why it is not ready.

    `managed` is whether it installs its ESPHome itself; `previous_version` is then the
    one to go back to. `obstacles` are names of what stands in the way of jobs, and
    `disk_usage` is what all its files take, in bytes.
    """

    entry_id: str
    kind: BuilderKind
    title: str
    state: BuilderState
    esphome_version: str | None = None
    running: int = 0
    queued: int = 0
    message: str | None = None
    managed: bool = False
    previous_version: str | None = None
    obstacles: tuple[str, ...] = ()
    disk_usage: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Payload:
    """An event, with its JSON made once for however many clients receive it."""

    type: ClassVar[str]

    @cached_property
    def json(self) -> bytes:
        """Return the event as JSON: its type, then its fields."""
        # What does not tell events apart is for listeners in this process only.
        names = (field.name for field in fields(self) if field.compare)
        values = {name: getattr(self, name) for name in names}
        return orjson.dumps({"type": self.type, **values})

    @property
    def size(self) -> int:
        """Return what the event costs while it waits, in bytes."""
        return len(self.json)


@dataclass(frozen=True, kw_only=True)
class JobEvent(_Payload):
    """A job was made or changed; `status_changed` for each of its steps, once."""

    type: ClassVar[str] = "job"
    job: Job
    status_changed: bool = field(default=True, compare=False)


@dataclass(frozen=True, kw_only=True)
class JobRemovedEvent(_Payload):
    """A job left the history."""

    type: ClassVar[str] = "job_removed"
    job_id: str


@dataclass(frozen=True, kw_only=True)
class ConfigurationEvent(_Payload):
    """A configuration appeared or changed."""

    type: ClassVar[str] = "configuration"
    configuration: Configuration


@dataclass(frozen=True, kw_only=True)
class ConfigurationRemovedEvent(_Payload):
    """A configuration is gone."""

    type: ClassVar[str] = "configuration_removed"
    entry_id: str
    configuration: str


@dataclass(frozen=True, kw_only=True)
class BuilderEvent(_Payload):
    """The builder itself changed."""

    type: ClassVar[str] = "builder"
    builder: BuilderInfo


type Event = (
    JobEvent
    | JobRemovedEvent
    | ConfigurationEvent
    | ConfigurationRemovedEvent
    | BuilderEvent
)


@dataclass(frozen=True, kw_only=True)
class SnapshotEvent(_Payload):
    """Everything there is of one or all builders, at one moment."""

    type: ClassVar[str] = "snapshot"
    builders: tuple[BuilderInfo, ...]
    configurations: tuple[Configuration, ...]
    jobs: tuple[Job, ...]


@dataclass(frozen=True, kw_only=True)
class FollowSnapshotEvent(_Payload):
    """The first event of a follower: the job, and output up to that moment."""

    type: ClassVar[str] = "snapshot"
    job: Job
    from_line: int
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OutputEvent(_Payload):
    """Consecutive lines of a job's output; `from_line` numbers the first."""

    type: ClassVar[str] = "output"
    from_line: int
    lines: tuple[str, ...]

    @property
    def next_line(self) -> int:
        """Return the number of the line after the last."""
        return self.from_line + len(self.lines)


@dataclass(frozen=True, kw_only=True)
class GapEvent(_Payload):
    """The lines from `from_line` up to before `next_line` are gone for ever."""

    type: ClassVar[str] = "gap"
    from_line: int
    next_line: int


@dataclass(frozen=True, kw_only=True)
class EndEvent(_Payload):
    """The last event of a follower: the job has ended, and so has its output."""

    type: ClassVar[str] = "end"
    job: Job
    next_line: int


@dataclass(frozen=True, kw_only=True)
class OverflowEvent(_Payload):
    """The last event of a stream whose consumer did not keep up."""

    type: ClassVar[str] = "overflow"


@dataclass(frozen=True, kw_only=True)
class FollowOverflowEvent(OverflowEvent):
    """The same for a follower, which can resume at `next_line`."""

    next_line: int


type FollowEvent = (
    FollowSnapshotEvent
    | OutputEvent
    | JobEvent
    | GapEvent
    | EndEvent
    | FollowOverflowEvent
)
