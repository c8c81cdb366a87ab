"""The repair issues: what stands in the way of a builder's jobs, and a way on."""

from collections.abc import Callable
from typing import Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.loader import async_get_loaded_integration

from .builds.findings import Finding, Obstacle, Severity, texts
from .builds.models import BuilderEvent, Event
from .const import DOMAIN, SIGNAL_EVENT
from .coordinator import BuildCoordinator

_ELSEWHERE: Final = "blob/main/docs/builders.md"
_HERE: Final = "blob/main/docs/esphome.md"

_NOT_SHOWN: Final = frozenset({Obstacle.MEMORY_SCARCE})
"""It comes and goes, and nobody has to do anything: fewer compilers are used."""

_PAGES: Final = {
    Obstacle.ARCHITECTURE: _ELSEWHERE,
    Obstacle.MUSL: _ELSEWHERE,
}
"""What leads to another kind of builder; all else is about this one."""

_PARTLY: Final = {
    Obstacle.ARCHITECTURE: "architecture_partly",
    Obstacle.MUSL: "musl_partly",
}
"""Texts for obstacles that stand in the way of some jobs only."""


@callback
def async_track_issues(
    hass: HomeAssistant, coordinator: BuildCoordinator
) -> Callable[[], None]:
    """Show an issue for each finding of a builder, until the result is called."""
    entry_id = coordinator.config_entry.entry_id
    shown: set[Obstacle] = set()

    @callback
    def _async_show() -> None:
        # The worst comes first, and is the one to show.
        found = {
            finding.obstacle: finding
            for finding in reversed(coordinator.builder.findings)
            if finding.obstacle not in _NOT_SHOWN
        }
        for finding in found.values():
            _async_create(hass, coordinator, finding)
        # Others, which an earlier run left, may have been ignored by somebody, which
        # has to hold when they are found again.
        for obstacle in shown - found.keys():
            ir.async_delete_issue(hass, DOMAIN, _issue_id(obstacle, entry_id))
        shown.clear()
        shown.update(found)

    @callback
    def _async_on_event(its_entry_id: str, event: Event) -> None:
        if its_entry_id == entry_id and isinstance(event, BuilderEvent):
            _async_show()

    stop_listening = async_dispatcher_connect(hass, SIGNAL_EVENT, _async_on_event)
    _async_show()

    @callback
    def _async_stop() -> None:
        stop_listening()
        async_delete_issues(hass, entry_id)

    return _async_stop


@callback
def async_delete_issues(hass: HomeAssistant, entry_id: str) -> None:
    """Delete all issues of a builder."""
    for obstacle in Obstacle:
        ir.async_delete_issue(hass, DOMAIN, _issue_id(obstacle, entry_id))


@callback
def _async_create(
    hass: HomeAssistant, coordinator: BuildCoordinator, finding: Finding
) -> None:
    """Show an issue, or change it to what was found now."""
    obstacle = finding.obstacle
    refused = finding.severity is Severity.REFUSE
    documentation = async_get_loaded_integration(hass, DOMAIN).documentation
    ir.async_create_issue(
        hass,
        DOMAIN,
        _issue_id(obstacle, coordinator.config_entry.entry_id),
        is_fixable=False,
        learn_more_url=f"{documentation}/{_PAGES.get(obstacle, _HERE)}",
        severity=ir.IssueSeverity.ERROR if refused else ir.IssueSeverity.WARNING,
        translation_key=obstacle.value if refused else _PARTLY.get(obstacle, obstacle),
        translation_placeholders={
            "builder": coordinator.config_entry.title,
            **texts(finding.facts),
        },
    )


def _issue_id(obstacle: Obstacle, entry_id: str) -> str:
    return f"{obstacle}_{entry_id}"
