"""The websocket commands; `docs/websocket.md` describes them for clients."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import wraps
from itertools import islice
from typing import Any, Final

import voluptuous as vol

from homeassistant.components import websocket_api
from homeassistant.components.websocket_api import ActiveConnection
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.dispatcher import async_dispatcher_connect

from .builders import (
    UnknownBuilderError,
    async_coordinator,
    async_coordinators,
    async_job_coordinator,
    requester,
)
from .builds.builder import (
    MAX_CONFIGURATIONS,
    BuildError,
    BuilderUnavailableError,
    BuildRequest,
    InvalidRequestError,
    NotAllowedError,
    Submission,
    UnknownConfigurationError,
    UnknownJobError,
    snapshot,
)
from .builds.follow import follow
from .builds.models import (
    Event,
    JobKind,
    JobStatus,
    OverflowEvent,
    RequestKind,
    SnapshotEvent,
)
from .builds.stream import Budget, Stream, StreamOverflowError
from .const import SIGNAL_BUILDERS, SIGNAL_EVENT
from .streams import async_can_stream, async_stream

ERR_BUILDER_UNAVAILABLE: Final = "builder_unavailable"

_CODES: Final[dict[type[BuildError], str]] = {
    BuilderUnavailableError: ERR_BUILDER_UNAVAILABLE,
    NotAllowedError: websocket_api.ERR_NOT_ALLOWED,
    InvalidRequestError: websocket_api.ERR_INVALID_FORMAT,
    UnknownBuilderError: websocket_api.ERR_NOT_FOUND,
    UnknownConfigurationError: websocket_api.ERR_NOT_FOUND,
    UnknownJobError: websocket_api.ERR_NOT_FOUND,
}
_LINE: Final = vol.All(int, vol.Range(min=0))
_LOG_PAGE_BYTES: Final = 1024 * 1024

type _Handler = Callable[
    [HomeAssistant, ActiveConnection, dict[str, Any]], Coroutine[Any, Any, None]
]


@callback
def async_register_commands(hass: HomeAssistant) -> None:
    """Register all commands."""
    for command in (
        ws_list_builders,
        ws_clean_all,
        ws_install_esphome,
        ws_go_back,
        ws_list_configurations,
        ws_list_firmware,
        ws_list_jobs,
        ws_get_job,
        ws_submit_jobs,
        ws_cancel_job,
        ws_read_log,
        ws_subscribe,
        ws_follow_job,
    ):
        websocket_api.async_register_command(hass, command)


def _answers_errors(handler: _Handler) -> _Handler:
    """Answer a request that cannot be carried out with its error."""

    @wraps(handler)
    async def _handle(
        hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
    ) -> None:
        try:
            await handler(hass, connection, msg)
        except BuildError as err:
            code = next(
                code for error, code in _CODES.items() if isinstance(err, error)
            )
            connection.send_error(msg["id"], code, str(err))
        except OSError as err:
            reason = f"A log cannot be read: {err.strerror}"
            connection.send_error(msg["id"], ERR_BUILDER_UNAVAILABLE, reason)

    return _handle


@websocket_api.require_admin
@websocket_api.websocket_command({vol.Required("type"): "esphome_builds/builders/list"})
@callback
def ws_list_builders(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """List the loaded builders."""
    builders = [
        coordinator.builder.info.as_dict() for coordinator in async_coordinators(hass)
    ]
    connection.send_result(msg["id"], {"builders": builders})


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/builders/clean_all",
        vol.Optional("entry_id"): str,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_clean_all(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """Remove all that a builder has built."""
    coordinator = async_coordinator(hass, msg.get("entry_id"))
    who = requester(connection.context(msg))
    submission = await coordinator.builder.clean_all(who)
    connection.send_result(msg["id"], _submitted(submission))


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/builders/install_esphome",
        vol.Optional("entry_id"): str,
        vol.Optional("version"): vol.Any(str, None),
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_install_esphome(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """Install an ESPHome for a builder that manages its own."""
    coordinator = async_coordinator(hass, msg.get("entry_id"))
    job = await coordinator.builder.install_esphome(
        msg.get("version"), requester(connection.context(msg))
    )
    connection.send_result(msg["id"], {"job": job.as_dict()})


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/builders/go_back",
        vol.Optional("entry_id"): str,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_go_back(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """Let a builder use the ESPHome again that it used before."""
    coordinator = async_coordinator(hass, msg.get("entry_id"))
    version = await coordinator.builder.go_back()
    connection.send_result(msg["id"], {"version": version})


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/configurations/list",
        vol.Optional("entry_id"): str,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_list_configurations(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """List the configurations of a builder."""
    coordinator = async_coordinator(hass, msg.get("entry_id"))
    configurations = [
        configuration.as_dict()
        for configuration in coordinator.builder.configurations.values()
    ]
    connection.send_result(msg["id"], {"configurations": configurations})


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/firmware/list",
        vol.Optional("entry_id"): str,
        vol.Required("configuration"): str,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_list_firmware(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """List the firmware that is kept of a configuration, the newest first."""
    coordinator = async_coordinator(hass, msg.get("entry_id"))
    firmware = [
        kept.as_dict() for kept in coordinator.builder.firmware_of(msg["configuration"])
    ]
    connection.send_result(msg["id"], {"firmware": firmware})


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/jobs/list",
        vol.Optional("entry_id"): str,
        vol.Optional("configuration"): str,
        vol.Optional("kind"): vol.In([kind.value for kind in JobKind]),
        vol.Optional("status"): vol.In([status.value for status in JobStatus]),
        vol.Optional("limit", default=100): vol.All(int, vol.Range(min=1, max=500)),
        vol.Optional("before"): str,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_list_jobs(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """List the jobs of a builder, newest first."""
    coordinator = async_coordinator(hass, msg.get("entry_id"))
    matching = (
        job
        for job in reversed(tuple(coordinator.builder.jobs.values()))
        if ("before" not in msg or job.job_id < msg["before"])
        and msg.get("configuration", job.configuration) == job.configuration
        and msg.get("kind", job.kind) == job.kind
        and msg.get("status", job.status) == job.status
    )
    jobs = [job.as_dict() for job in islice(matching, msg["limit"])]
    more = next(matching, None) is not None
    connection.send_result(msg["id"], {"jobs": jobs, "more": more})


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/jobs/get",
        vol.Required("job_id"): str,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_get_job(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """Return one job."""
    job_id = msg["job_id"]
    job = async_job_coordinator(hass, job_id).builder.jobs[job_id]
    connection.send_result(msg["id"], {"job": job.as_dict()})


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/jobs/submit",
        vol.Optional("entry_id"): str,
        vol.Required("kind"): vol.In([kind.value for kind in RequestKind]),
        vol.Required("configurations"): vol.All(
            [str], vol.Length(min=1, max=MAX_CONFIGURATIONS)
        ),
        vol.Optional("address"): vol.Any(str, None),
        vol.Optional("job_id"): vol.Any(str, None),
        vol.Optional("replace", default=False): bool,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_submit_jobs(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """Make or find the jobs of a request."""
    coordinator = async_coordinator(hass, msg.get("entry_id"))
    submission = await coordinator.builder.submit(
        BuildRequest(
            kind=RequestKind(msg["kind"]),
            configurations=tuple(msg["configurations"]),
            address=msg.get("address"),
            firmware_job_id=msg.get("job_id"),
            replace=msg["replace"],
            requested_by=requester(connection.context(msg)),
        )
    )
    connection.send_result(msg["id"], _submitted(submission))


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/jobs/cancel",
        vol.Required("job_id"): str,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_cancel_job(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """End a job and answer when it has ended."""
    coordinator = async_job_coordinator(hass, msg["job_id"])
    job = await coordinator.builder.cancel(msg["job_id"])
    connection.send_result(msg["id"], {"job": job.as_dict()})


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/jobs/log",
        vol.Required("job_id"): str,
        vol.Optional("from_line", default=0): _LINE,
        vol.Optional("limit", default=1000): vol.All(int, vol.Range(min=1, max=5000)),
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_read_log(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """Return a page of a job's log, of at most 1 MiB."""
    coordinator = async_job_coordinator(hass, msg["job_id"])
    log = await coordinator.builder.open_log(msg["job_id"])
    page = await log.page(msg["from_line"], msg["limit"], _LOG_PAGE_BYTES)
    connection.send_result(
        msg["id"],
        {
            "from_line": page.from_line,
            "lines": page.lines,
            "next_line": page.next_line,
            "total_lines": log.total,
            "elided": log.gaps,
        },
    )


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/subscribe",
        vol.Optional("entry_id"): str,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_subscribe(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """Stream everything but output."""
    if (entry_id := msg.get("entry_id")) is not None:
        async_coordinator(hass, entry_id)
    if (budget := async_can_stream(hass, connection, msg["id"])) is not None:
        events = _builder_events(hass, budget, entry_id)
        async_stream(hass, connection, msg["id"], events)


@websocket_api.require_admin
@websocket_api.websocket_command(
    {
        vol.Required("type"): "esphome_builds/jobs/follow",
        vol.Required("job_id"): str,
        vol.Optional("from_line"): _LINE,
    }
)
@websocket_api.async_response
@_answers_errors
async def ws_follow_job(
    hass: HomeAssistant, connection: ActiveConnection, msg: dict[str, Any]
) -> None:
    """Stream the output of a job and its end."""
    coordinator = async_job_coordinator(hass, msg["job_id"])
    if (budget := async_can_stream(hass, connection, msg["id"])) is not None:
        events = follow(
            coordinator.builder, msg["job_id"], budget, msg.get("from_line")
        )
        async_stream(hass, connection, msg["id"], events)


def _submitted(submission: Submission) -> dict[str, Any]:
    """Return the result of a command that makes or finds jobs."""
    return {
        "jobs": [job.as_dict() for job in submission.jobs],
        "attached": list(submission.attached),
    }


async def _builder_events(
    hass: HomeAssistant, budget: Budget, entry_id: str | None
) -> AsyncGenerator[SnapshotEvent | Event | OverflowEvent]:
    """Yield a snapshot of one or all builders, then every event once and in order.

    When a builder is loaded or unloaded, a new snapshot takes the place of all before.
    """

    def _snapshot() -> SnapshotEvent:
        return snapshot(
            *(
                coordinator.builder
                for coordinator in async_coordinators(hass)
                if entry_id in (None, coordinator.config_entry.entry_id)
            )
        )

    def _listen_to_events(
        put: Callable[[SnapshotEvent | Event], None],
    ) -> Callable[[], None]:
        @callback
        def _async_on_event(its_entry_id: str, event: Event) -> None:
            if entry_id in (None, its_entry_id):
                put(event)

        return async_dispatcher_connect(hass, SIGNAL_EVENT, _async_on_event)

    def _listen_to_builders(
        put: Callable[[SnapshotEvent | Event], None],
    ) -> Callable[[], None]:
        @callback
        def _async_on_builders() -> None:
            put(_snapshot())

        return async_dispatcher_connect(hass, SIGNAL_BUILDERS, _async_on_builders)

    with Stream[SnapshotEvent | Event](budget) as stream:
        # Listeners first, and the snapshot in the same turn of the loop.
        stream.attach(_listen_to_events)
        stream.attach(_listen_to_builders)
        yield _snapshot()
        try:
            async for event in stream:
                yield event
        except StreamOverflowError:
            yield OverflowEvent()
