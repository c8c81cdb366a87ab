"""Finding the builder that a command or an action means."""

from homeassistant.core import Context, HomeAssistant, callback

from .builds.builder import BuildError, UnknownJobError
from .builds.models import Requester
from .const import DOMAIN
from .coordinator import BuildConfigEntry, BuildCoordinator


class UnknownBuilderError(BuildError):
    """There is no such builder, none at all, or more than one and none was named."""


@callback
def async_coordinators(hass: HomeAssistant) -> list[BuildCoordinator]:
    """Return the coordinators of all loaded builders."""
    entries: list[BuildConfigEntry] = hass.config_entries.async_loaded_entries(DOMAIN)
    return [entry.runtime_data for entry in entries]


@callback
def async_coordinator(hass: HomeAssistant, entry_id: str | None) -> BuildCoordinator:
    """Return the coordinator of a builder, or the only one if none is named.

    Raises `UnknownBuilderError`.
    """
    coordinators = async_coordinators(hass)
    if entry_id is None:
        if len(coordinators) == 1:
            return coordinators[0]
        raise UnknownBuilderError(
            f"{len(coordinators)} builders are loaded; please name one of them"
            if coordinators
            else "No builder is loaded"
        )
    for coordinator in coordinators:
        if coordinator.config_entry.entry_id == entry_id:
            return coordinator
    raise UnknownBuilderError(f"There is no loaded builder {entry_id!r}")


@callback
def async_job_coordinator(hass: HomeAssistant, job_id: str) -> BuildCoordinator:
    """Return the coordinator of the builder that has a job; raise `UnknownJobError`."""
    for coordinator in async_coordinators(hass):
        if job_id in coordinator.builder.jobs:
            return coordinator
    raise UnknownJobError(job_id)


def requester(context: Context, *, unattended: bool = False) -> Requester:
    """Return who asks, as it is kept with a job; without a user, nobody is looking."""
    return Requester(
        user_id=context.user_id,
        context_id=context.id,
        unattended=unattended or context.user_id is None,
    )
