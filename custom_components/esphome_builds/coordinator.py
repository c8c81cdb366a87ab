"""The place where a builder's events meet Home Assistant."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.helpers.dispatcher import async_dispatcher_send
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator

from .builds.builder import Builder
from .builds.models import (
    BuilderInfo,
    Event,
    Job,
    JobEvent,
    JobKind,
    JobStatus,
)
from .const import DOMAIN, EVENT_BUILD, LOGGER, SIGNAL_EVENT

type BuildConfigEntry = ConfigEntry[BuildCoordinator]

STEPS = {
    JobStatus.QUEUED: "queued",
    JobStatus.RUNNING: "started",
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.INTERRUPTED: "interrupted",
}
"""What automations call the step to each status."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildData:
    """What the entities of a builder show; `disk_parts` are bytes."""

    builder: BuilderInfo
    disk_parts: Mapping[str, int]
    running: frozenset[JobKind]
    last_job: Job | None


class BuildCoordinator(DataUpdateCoordinator[BuildData]):
    """Passes a builder's events on: states to entities, steps of jobs one by one.

    Steps never go through the coordinator's data, where two could become one.
    """

    config_entry: BuildConfigEntry

    def __init__(
        self, hass: HomeAssistant, entry: BuildConfigEntry, builder: Builder
    ) -> None:
        """Prepare; the builder is not started."""
        super().__init__(
            hass,
            LOGGER,
            config_entry=entry,
            name=f"{DOMAIN} {entry.title}",
        )
        self.builder = builder
        self._last_job: Job | None = None
        self._refreshing = False
        self._step_listeners: list[Callable[[str, Job], None]] = []
        self._stop_listening: Callable[[], None] | None = None
        self._stopped = False
        self._waiting: set[asyncio.Event] = set()

    async def async_start(self) -> None:
        """Load the builder's jobs; raise `BuilderUnavailableError`."""
        await self.builder.start()
        ended = filter(_is_ended_build, self.builder.jobs.values())
        self._last_job = max(ended, key=_finished_at, default=None)
        self.data = self._build_data()
        self._stop_listening = self.builder.listen(self._async_on_event)

    @callback
    def async_resume(self) -> None:
        """Let jobs run, now that everybody who wants to know of it listens."""
        self.builder.resume()

    async def async_stop(self) -> None:
        """Interrupt what runs; nothing of the builder is left afterwards."""
        await self.builder.stop()
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        self._stopped = True
        for waiting in self._waiting:
            waiting.set()

    async def async_cancel(self, job_ids: Iterable[str]) -> list[Job]:
        """End jobs and return them when all have ended; raise `BuildError`."""
        # The newest first, so that nothing starts because what it waited for is gone.
        newest_first = sorted(set(job_ids), reverse=True)
        jobs = await asyncio.gather(*map(self.builder.cancel, newest_first))
        return jobs[::-1]

    async def async_wait(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs when all have ended, or the builder was stopped."""
        now = {job.job_id: self.builder.jobs.get(job.job_id, job) for job in jobs}
        active = {job_id for job_id, job in now.items() if not job.status.ended}
        done = asyncio.Event()

        @callback
        def _async_on_step(_: str, job: Job) -> None:
            if job.job_id in now:
                now[job.job_id] = job
            if job.status.ended:
                active.discard(job.job_id)
            if not active:
                done.set()

        remove_listener = self.async_listen_to_steps(_async_on_step)
        self._waiting.add(done)
        try:
            if active and not self._stopped:
                await done.wait()
        finally:
            self._waiting.discard(done)
            remove_listener()
        return list(now.values())

    @callback
    def async_listen_to_steps(
        self, listener: Callable[[str, Job], None]
    ) -> Callable[[], None]:
        """Call the listener with the name of each step of each job, and the job."""
        self._step_listeners.append(listener)
        return lambda: self._step_listeners.remove(listener)

    @callback
    def _async_on_event(self, event: Event) -> None:
        """Pass one event on."""
        if isinstance(event, JobEvent) and event.status_changed:
            self._async_on_step(event.job)
        async_dispatcher_send(
            self.hass, SIGNAL_EVENT, self.config_entry.entry_id, event
        )
        if not self._refreshing:
            # Entities need no more than one look at however many events come now.
            self._refreshing = True
            self.hass.loop.call_soon(self._async_show)

    @callback
    def _async_on_step(self, job: Job) -> None:
        """Tell automations that a job has another status."""
        if _is_ended_build(job):
            self._last_job = job
        step = STEPS[job.status]
        for listener in tuple(self._step_listeners):
            listener(step, job)
        self.hass.bus.async_fire(
            EVENT_BUILD,
            {"type": step, "job": job.as_dict()},
            context=job_context(job),
        )

    @callback
    def _async_show(self) -> None:
        """Let entities show what is now, if that is anything new."""
        self._refreshing = False
        if (data := self._build_data()) != self.data:
            self.async_set_updated_data(data)

    def _build_data(self) -> BuildData:
        usage = self.builder.usage
        return BuildData(
            builder=self.builder.info,
            disk_parts={name: part.size for name, part in usage.parts.items()}
            if usage
            else {},
            running=frozenset(
                job.kind
                for job in self.builder.jobs.values()
                if job.status is JobStatus.RUNNING
            ),
            last_job=self._last_job,
        )


def job_context(job: Job) -> Context:
    """Return a context that leads back to who asked for a job."""
    if (requester := job.requested_by) is None:
        return Context()
    return Context(user_id=requester.user_id, parent_id=requester.context_id)


def _is_ended_build(job: Job) -> bool:
    """Return whether a job is over that was about a configuration."""
    return job.status.ended and job.kind is not JobKind.INSTALL_ESPHOME


def _finished_at(job: Job) -> float:
    return 0.0 if job.finished_at is None else job.finished_at.timestamp()
