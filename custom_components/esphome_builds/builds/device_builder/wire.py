"""What the server sends, as far as it is used here.

Fields that are not known are ignored and missing ones are None, so that servers of many
versions can be understood. A field of another type than ever is a `ProtocolError`. The
names are those of `esphome_device_builder/models`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
import re
from typing import Any, Final

from ..models import Configuration, JobKind
from ..versions import is_older, parse_version
from .errors import ProtocolError, UnsupportedVersionError

MIN_VERSION: Final = (1, 14)
"""The oldest server that is supported."""

OTA: Final = "OTA"
"""The port that stands for the address in the configuration."""

_MAX_TEXT: Final = 1000

_KINDS: Final = {
    "compile": JobKind.COMPILE,
    "upload": JobKind.UPLOAD,
    "clean": JobKind.CLEAN,
}
_ONLINE: Final = {"online": True, "offline": False}
_TRIMMED: Final = re.compile(r"\.\.\. \[output trimmed: (\d{1,15}) earlier")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerInfo:
    """What a server says of itself when a connection begins."""

    server_version: str
    esphome_version: str | None
    friendly_name: str | None
    requires_auth: bool

    def check(self) -> None:
        """Raise `UnsupportedVersionError` if the server is too old."""
        version = parse_version(self.server_version)
        if version is not None and version[:2] < MIN_VERSION:
            oldest = ".".join(map(str, MIN_VERSION))
            raise UnsupportedVersionError(
                f"ESPHome Device Builder {self.server_version} is too old; version "
                f"{oldest} or newer is needed."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerJob:
    """A job as the server has it; `output` is there only when it was asked for."""

    job_id: str
    configuration: str
    kind: JobKind | None
    status: str
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    exit_code: int | None
    error: str | None
    address: str | None
    new_name: str | None
    depends_on: str | None
    deferred: bool
    progress: int | None
    source: str | None
    source_label: str | None
    source_version: str | None
    output: tuple[str, ...]

    @property
    def active(self) -> bool:
        """Return whether the job waits or runs."""
        return self.status in ("queued", "running")

    @property
    def touches(self) -> tuple[str, ...]:
        """Return the configurations that the job works on."""
        if self.new_name is None:
            return (self.configuration,)
        return (self.configuration, f"{self.new_name}.yaml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of the server that belongs to a command."""

    message_id: str
    event: str | None
    data: Any
    error_code: str | None


def parse_info(data: object) -> ServerInfo:
    """Return the first message of a connection."""
    fields = _mapping(data)
    version = _text(fields, "server_version")
    if version is None:
        raise ProtocolError("What answers there is not ESPHome Device Builder.")
    return ServerInfo(
        server_version=version,
        esphome_version=_text(fields, "esphome_version"),
        friendly_name=_text(fields, "friendly_name"),
        requires_auth=_flag(fields, "requires_auth"),
    )


def parse_message(data: object) -> Message | None:
    """Return a message, or None where it belongs to no command."""
    fields = _mapping(data)
    message_id = _text(fields, "message_id")
    if message_id is None:
        return None
    event = _text(fields, "event")
    code = _text(fields, "error_code")
    if event is not None:
        data = fields.get("data")
    elif code is not None:
        data = _text(fields, "details")
    else:
        data = fields.get("result")
    return Message(message_id=message_id, event=event, data=data, error_code=code)


def parse_job(data: object) -> ServerJob:
    """Return a job."""
    fields = _mapping(data)
    port = _text(fields, "port")
    return ServerJob(
        job_id=_required(fields, "job_id"),
        configuration=_text(fields, "configuration") or "",
        kind=_KINDS.get(_required(fields, "job_type")),
        status=_required(fields, "status"),
        created_at=_time(fields, "created_at"),
        started_at=_time(fields, "started_at"),
        completed_at=_time(fields, "completed_at"),
        exit_code=_number(fields, "exit_code"),
        error=_text(fields, "error"),
        address=None if port == OTA else port,
        new_name=_text(fields, "new_name"),
        depends_on=_text(fields, "depends_on"),
        deferred=_flag(fields, "is_deferred_install"),
        progress=_number(fields, "progress"),
        source=_text(fields, "source"),
        source_label=_text(fields, "source_label"),
        source_version=_text(fields, "source_esphome_version"),
        output=_texts(fields.get("output")),
    )


def parse_jobs(data: object) -> list[ServerJob]:
    """Return the jobs in the answer to `firmware/get_jobs`."""
    if not isinstance(data, list):
        raise ProtocolError("The server's list of jobs makes no sense.")
    return [parse_job(job) for job in data]


def parse_devices(
    data: object, entry_id: str, esphome_version: str | None
) -> dict[str, Configuration]:
    """Return the configurations in the answer to `devices/list`, by file name."""
    devices = _mapping(data).get("configured")
    if not isinstance(devices, list):
        raise ProtocolError("The server's list of devices makes no sense.")
    found = [_configuration(device, entry_id, esphome_version) for device in devices]
    found.sort(key=lambda configuration: configuration.configuration)
    return {configuration.configuration: configuration for configuration in found}


def trimmed(entry: str) -> int | None:
    """Return how many lines the server no longer has, if a line says that."""
    match = _TRIMMED.match(entry)
    return None if match is None else int(match[1])


def _configuration(
    data: object, entry_id: str, esphome_version: str | None
) -> Configuration:
    fields = _mapping(data)
    # The state of the device stood among the other fields once.
    state = fields | _mapping(fields.get("runtime_state") or {})
    deployed = _text(state, "deployed_version")
    return Configuration(
        entry_id=entry_id,
        configuration=_required(fields, "configuration"),
        name=_text(fields, "name"),
        friendly_name=_text(fields, "friendly_name"),
        area=_text(fields, "area"),
        comment=_text(fields, "comment"),
        platform=_text(fields, "target_platform"),
        built_hash=_text(fields, "expected_config_hash"),
        deployed_version=deployed,
        deployed_hash=_text(state, "deployed_config_hash"),
        online=_ONLINE.get(_text(state, "state") or ""),
        update_available=is_older(deployed, esphome_version),
        pending_changes=_maybe(fields, "has_pending_changes"),
    )


def _mapping(data: object) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ProtocolError("The server sent something that makes no sense.")
    return dict(data)


def _wrong(name: str) -> ProtocolError:
    return ProtocolError(f"The server sent a {name} that makes no sense.")


def _required(fields: Mapping[str, Any], name: str) -> str:
    if (text := _text(fields, name)) is None:
        raise _wrong(name)
    return text


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a text, cut where it is very long; an empty one says nothing."""
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong(name)
    return value[:_MAX_TEXT] if value else None


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(it, str) for it in value):
        raise _wrong("output")
    return tuple(value)


def _maybe(fields: Mapping[str, Any], name: str) -> bool | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name)
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    return bool(_maybe(fields, name))


def _number(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise _wrong(name)
    return value


def _time(fields: Mapping[str, Any], name: str) -> datetime | None:
    text = _text(fields, name)
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as err:
        raise _wrong(name) from err
