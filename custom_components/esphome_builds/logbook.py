"""What the logbook says of builds."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from homeassistant.components.event import DOMAIN as EVENT_DOMAIN
from homeassistant.components.logbook import (
    LOGBOOK_ENTRY_ENTITY_ID,
    LOGBOOK_ENTRY_MESSAGE,
    LOGBOOK_ENTRY_NAME,
    LazyEventPartialState,
)
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import device_registry as dr, entity_registry as er

from .builds.models import Cause, JobKind, JobStatus
from .const import DOMAIN, EVENT_BUILD
from .entity import configuration_unique_id

_KINDS: Final[Mapping[str, str]] = {
    JobKind.VALIDATE: "check",
    JobKind.COMPILE: "compile",
    JobKind.UPLOAD: "upload",
    JobKind.CLEAN: "cleaning",
    JobKind.INSTALL_ESPHOME: "installation",
}
_STEPS: Final[Mapping[str, str]] = {
    JobStatus.QUEUED: "is waiting for its turn",
    JobStatus.CANCELLED: "was canceled",
    JobStatus.INTERRUPTED: "was interrupted",
}


@callback
def async_describe_events(
    hass: HomeAssistant,
    async_describe_event: Callable[
        [str, str, Callable[[LazyEventPartialState], dict[str, Any]]], None
    ],
) -> None:
    """Describe the bus event of this integration."""
    async_describe_event(DOMAIN, EVENT_BUILD, partial(_async_describe, hass))


@callback
def _async_describe(
    hass: HomeAssistant, event: LazyEventPartialState
) -> dict[str, Any]:
    """Tell a step of a job in words, such as "compile failed: …"."""
    job = event.data["job"]
    entry = {
        LOGBOOK_ENTRY_NAME: _async_name(hass, event.data.get("device_id"), job),
        LOGBOOK_ENTRY_MESSAGE: _message(event.data["type"], job),
    }
    if entity_id := er.async_get(hass).async_get_entity_id(
        EVENT_DOMAIN,
        DOMAIN,
        configuration_unique_id(job["entry_id"], job["configuration"], "build"),
    ):
        entry[LOGBOOK_ENTRY_ENTITY_ID] = entity_id
    return entry


def _message(step: str, job: Mapping[str, Any]) -> str:
    """Return what happened to a job, and why."""
    words = _STEPS.get(step, step)
    if job["cause"] == Cause.NOT_VERIFIED:
        words = "could not be confirmed"
    message = f"{_KINDS[job['kind']]} {words}"
    return f"{message}: {job['message']}" if job["message"] else message


@callback
def _async_name(
    hass: HomeAssistant, device_id: str | None, job: Mapping[str, Any]
) -> str:
    """Return what a job was about, as a user calls it."""
    if job["kind"] == JobKind.INSTALL_ESPHOME:
        return f"ESPHome {job['esphome_version'] or ''}".rstrip()
    device = dr.async_get(hass).async_get(device_id) if device_id else None
    name: str = job["configuration"]
    return (device and (device.name_by_user or device.name)) or name
