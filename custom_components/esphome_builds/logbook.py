"""What the logbook says of builds."""

from collections.abc import Callable
from typing import Any

from homeassistant.components.logbook import (
    LOGBOOK_ENTRY_MESSAGE,
    LOGBOOK_ENTRY_NAME,
    LazyEventPartialState,
)
from homeassistant.core import HomeAssistant, callback

from .builds.models import JobKind, JobStatus
from .const import DOMAIN, EVENT_BUILD

_WORDS = {JobStatus.CANCELLED.value: "canceled"}


@callback
def async_describe_events(
    _: HomeAssistant,
    async_describe_event: Callable[
        [str, str, Callable[[LazyEventPartialState], dict[str, Any]]], None
    ],
) -> None:
    """Describe the bus event of this integration."""
    async_describe_event(DOMAIN, EVENT_BUILD, _async_describe)


@callback
def _async_describe(event: LazyEventPartialState) -> dict[str, Any]:
    """Tell a step of a job in words, such as "compile failed: …"."""
    step, job = event.data["type"], event.data["job"]
    kind, name = job["kind"], job["configuration"]
    if kind == JobKind.INSTALL_ESPHOME:
        kind, name = "installation", f"ESPHome {job['esphome_version'] or ''}".rstrip()
    message = f"{kind} {_WORDS.get(step, step)}"
    if job["message"]:
        message = f"{message}: {job['message']}"
    return {
        LOGBOOK_ENTRY_NAME: name,
        LOGBOOK_ENTRY_MESSAGE: message,
    }
