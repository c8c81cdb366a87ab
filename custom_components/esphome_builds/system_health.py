"""What Home Assistant's page of system information shows of all builders."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from homeassistant.components.system_health import SystemHealthRegistration
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_PASSWORD, CONF_URL, CONF_USERNAME
from homeassistant.core import HomeAssistant, callback
from homeassistant.loader import async_get_loaded_integration

from .builders import async_coordinators
from .builds.builder import Builder
from .builds.device_builder.errors import DeviceBuilderError
from .builds.models import BuilderKind
from .builds.usage import readable_size
from .const import CONF_KIND, DOMAIN
from .coordinator import BuildConfigEntry
from .device_builder import async_probe
from .local import async_has_ccache

_CCACHE: Final = "found"
_NO_CCACHE: Final = (
    "not found; with it, a build after a clean takes a third of the time"
)
_OK: Final = "ok"
_UNKNOWN: Final = "unknown"


@callback
def async_register(_: HomeAssistant, register: SystemHealthRegistration) -> None:
    """Register what is shown, and the page of the builders."""
    page = f"/config/integrations/integration/{DOMAIN}"
    register.async_register_info(async_info, page)


async def async_info(hass: HomeAssistant) -> dict[str, Any]:
    """Return what is shown; what no builder has is left out."""
    entries: list[BuildConfigEntry] = hass.config_entries.async_entries(DOMAIN)
    local, servers = (
        [entry for entry in entries if entry.data[CONF_KIND] == kind]
        for kind in (BuilderKind.LOCAL, BuilderKind.DEVICE_BUILDER)
    )
    info: dict[str, Any] = {
        "version": str(async_get_loaded_integration(hass, DOMAIN).version)
    }
    if entries:
        states = ((entry.title, _state(entry)) for entry in entries)
        info["builders"] = _joined(states)
    for name, tell in _OF_BUILDERS.items():
        told = [
            (coordinator.config_entry.title, text)
            for coordinator in async_coordinators(hass)
            if (text := tell(coordinator.builder)) is not None
        ]
        if told:
            info[name] = _joined(told)
    if local:
        found = await async_has_ccache(hass, local[0])
        info["ccache"] = _CCACHE if found else _NO_CCACHE
    if servers:
        info["device_builder"] = _async_reachable(hass, servers)
    return info


async def _async_reachable(
    hass: HomeAssistant, servers: Iterable[BuildConfigEntry]
) -> str | dict[str, str]:
    """Return that all servers answer as they should, else why some do not."""
    problems = await asyncio.gather(
        *(_async_problem(hass, entry.data) for entry in servers)
    )
    told = [
        (entry.title, problem)
        for entry, problem in zip(servers, problems, strict=True)
        if problem is not None
    ]
    return {"type": "failed", "error": _joined(told)} if told else _OK


async def _async_problem(hass: HomeAssistant, data: Mapping[str, Any]) -> str | None:
    """Return why a server cannot be used, None if it can."""
    username, password = data.get(CONF_USERNAME), data.get(CONF_PASSWORD)
    try:
        await async_probe(hass, data[CONF_URL], username, password)
    except DeviceBuilderError as err:
        return str(err)
    return None


def _joined(told: Iterable[tuple[str, str]]) -> str:
    """Return what is told of several builders, with their titles if there are more."""
    texts = list(told)
    if len(texts) == 1:
        return texts[0][1]
    return "; ".join(f"{title}: {text}" for title, text in texts)


def _state(entry: BuildConfigEntry) -> str:
    """Return how a builder is, and why if it is not ready."""
    if entry.state is not ConfigEntryState.LOADED:
        return str(entry.state.value)
    info = entry.runtime_data.builder.info
    return f"{info.state} ({info.message})" if info.message else info.state.value


def _esphome(builder: Builder) -> str:
    return builder.info.esphome_version or _UNKNOWN


def _environment(builder: Builder) -> str:
    """Return where a builder's ESPHome is from."""
    info = builder.info
    if info.kind is BuilderKind.DEVICE_BUILDER:
        return "the server"
    if not info.managed:
        return "an executable of its own"
    previous = info.previous_version
    return f"this integration, {previous} before" if previous else "this integration"


def _preflight(builder: Builder) -> str | None:
    """Return what stands in the way of jobs; of a server nothing is known."""
    if builder.info.kind is BuilderKind.DEVICE_BUILDER:
        return None
    return " ".join(finding.sentence for finding in builder.findings) or "nothing"


def _queue(builder: Builder) -> str:
    return f"{builder.info.running} running, {builder.info.queued} queued"


def _disk_usage(builder: Builder) -> str | None:
    """Return what a builder's files take, None while that is not known."""
    size = builder.info.disk_usage
    return None if size is None else readable_size(size)


_OF_BUILDERS: Final[Mapping[str, Callable[[Builder], str | None]]] = {
    "esphome": _esphome,
    "environment": _environment,
    "preflight": _preflight,
    "queue": _queue,
    "disk_usage": _disk_usage,
}
"""What is told of each builder that is loaded."""
