"""The repair issues of builds that failed while nobody was looking."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir

from .builds.models import (
    Cause,
    ConfigurationEvent,
    ConfigurationRemovedEvent,
    Event,
    Job,
    JobEvent,
    JobKind,
    JobRemovedEvent,
    JobStatus,
)
from .const import ATTR_JOB_ID, CONF_FAILURE_ISSUES, DOMAIN
from .coordinator import BuildCoordinator

_PREFIX: Final = "build_failed"
_PROVES: Final[Mapping[JobKind, tuple[JobKind, ...]]] = {
    JobKind.COMPILE: (JobKind.COMPILE, JobKind.VALIDATE),
    JobKind.UPLOAD: (JobKind.UPLOAD,),
    JobKind.VALIDATE: (JobKind.VALIDATE,),
}
"""Which failures are over when a job of a kind has completed."""


@callback
def async_track_failures(
    hass: HomeAssistant, coordinator: BuildCoordinator
) -> Callable[[], None]:
    """Show an issue for each configuration whose build failed unattended.

    It is there until such a build works, or the result is called. The option can turn
    that off.
    """
    entry = coordinator.config_entry
    if not entry.options.get(CONF_FAILURE_ISSUES, True):
        async_delete_failures(hass, entry.entry_id)
        return lambda: None
    return _FailureIssues(hass, coordinator).async_start()


@callback
def async_delete_failures(
    hass: HomeAssistant, entry_id: str, *, keep_ignored: bool = False
) -> None:
    """Delete the issues of a builder's failed builds."""
    registry = ir.async_get(hass)
    for name in _names(registry, entry_id):
        issue_id = _issue_id(entry_id, name)
        ignored = registry.issues[DOMAIN, issue_id].dismissed_version is not None
        if not (ignored and keep_ignored):
            ir.async_delete_issue(hass, DOMAIN, issue_id)


class _Failures:
    """The newest failures of each configuration that nothing has put right since."""

    def __init__(self) -> None:
        """Start with none."""
        self._of: defaultdict[str, dict[JobKind, Job]] = defaultdict(dict)

    def __contains__(self, configuration: str) -> bool:
        """Return whether something is wrong with a configuration."""
        return bool(self._of.get(configuration))

    def __iter__(self) -> Iterator[str]:
        """Yield the configurations that something is wrong with."""
        return (name for name, failed in self._of.items() if failed)

    def get(self, configuration: str) -> Job | None:
        """Return what failed last of a configuration."""
        failed = self._of.get(configuration, {})
        return max(failed.values(), key=_end, default=None)

    def take(self, job: Job) -> None:
        """Take over how a job ended.

        Whoever asked for it, it is the newest that is known of what failed before.
        """
        if job.kind not in _PROVES:
            return
        failed = self._of[job.configuration]
        if job.status is JobStatus.COMPLETED:
            for kind in _PROVES[job.kind]:
                failed.pop(kind, None)
        elif job.status is JobStatus.FAILED and (
            job.kind in failed or _is_unattended(job)
        ):
            failed[job.kind] = job

    def forget(self, job_id: str) -> str | None:
        """Return the configuration that has one failure less without a job, if any."""
        for name, failed in self._of.items():
            for kind, job in failed.items():
                if job.job_id == job_id:
                    del failed[kind]
                    return name
        return None


class _FailureIssues:
    """Follows the jobs of a builder with issues."""

    def __init__(self, hass: HomeAssistant, coordinator: BuildCoordinator) -> None:
        """Prepare; nothing is shown yet."""
        self._builder = coordinator.builder
        self._entry_id = coordinator.config_entry.entry_id
        self._failures = _Failures()
        self._hass = hass
        self._title = coordinator.config_entry.title

    @callback
    def async_start(self) -> Callable[[], None]:
        """Show what the history says, and follow it until the result is called."""
        jobs = [job for job in self._builder.jobs.values() if job.status.ended]
        for job in sorted(jobs, key=_end):
            self._failures.take(job)
        # What an earlier run left may have been put right since; what somebody ignored
        # and still holds is ignored.
        for name in _names(ir.async_get(self._hass), self._entry_id):
            if name not in self._failures:
                self._async_delete(name)
        for name in self._failures:
            self._async_show(name)
        stop_listening = self._builder.listen(self._async_on_event)

        @callback
        def _async_stop() -> None:
            stop_listening()
            # Whoever reloads an entry has not changed his mind about what he ignored.
            async_delete_failures(self._hass, self._entry_id, keep_ignored=True)

        return _async_stop

    @callback
    def _async_on_event(self, event: Event) -> None:
        match event:
            case JobEvent(job=job, status_changed=True) if job.status.ended:
                self._failures.take(job)
                self._async_show(job.configuration)
            case JobRemovedEvent(job_id=job_id):
                if (name := self._failures.forget(job_id)) is not None:
                    self._async_show(name)
            case ConfigurationEvent(configuration=configuration):
                # Of a server's they are known only some time after its jobs.
                self._async_show(configuration.configuration)
            case ConfigurationRemovedEvent(configuration=name):
                self._async_delete(name)

    @callback
    def _async_show(self, name: str) -> None:
        """Show what is wrong with a configuration now, or that nothing is."""
        if (job := self._failures.get(name)) is None:
            self._async_delete(name)
            return
        if name not in self._builder.configurations:
            return
        key = f"{_PREFIX}_{job.cause or Cause.UNKNOWN}"
        issue_id = _issue_id(self._entry_id, name)
        issue = ir.async_get(self._hass).async_get_issue(DOMAIN, issue_id)
        if issue and issue.active and issue.translation_key != key:
            # Who ignored something else would never hear of this.
            self._async_delete(name)
        ir.async_create_issue(
            self._hass,
            DOMAIN,
            issue_id,
            data={ATTR_JOB_ID: job.job_id},
            is_fixable=True,
            severity=ir.IssueSeverity.ERROR,
            translation_key=key,
            # Every user can read these, so nothing of the log is among them.
            translation_placeholders={"builder": self._title, "configuration": name},
        )

    @callback
    def _async_delete(self, name: str) -> None:
        ir.async_delete_issue(self._hass, DOMAIN, _issue_id(self._entry_id, name))


def _end(job: Job) -> tuple[datetime, str]:
    """Return what sorts jobs by their ends."""
    return job.finished_at or job.created_at, job.job_id


def _is_unattended(job: Job) -> bool:
    """Return whether nobody may have looked; a job of other clients is theirs."""
    return job.requested_by is not None and job.requested_by.unattended


def _issue_id(entry_id: str, name: str) -> str:
    return f"{_PREFIX}_{entry_id}_{name}"


def _names(registry: ir.IssueRegistry, entry_id: str) -> list[str]:
    """Return the configurations that there are issues of, active or not."""
    prefix = _issue_id(entry_id, "")
    return [
        issue_id.removeprefix(prefix)
        for domain, issue_id in registry.issues
        if domain == DOMAIN and issue_id.startswith(prefix)
    ]
