"""The place where a builder's events meet Home Assistant."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import ATTR_DEVICE_ID
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.helpers.dispatcher import async_dispatcher_send
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.start import async_at_started
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator

from .builds.builder import Builder
from .builds.models import (
    BuilderInfo,
    Configuration,
    ConfigurationEvent,
    ConfigurationRemovedEvent,
    Event,
    Job,
    JobEvent,
    JobKind,
    JobStatus,
)
from .const import DOMAIN, EVENT_BUILD, LOGGER, SIGNAL_EVENT
from .devices import async_own_device

if TYPE_CHECKING:
    from .entity import ConfigurationEntity

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


def _is_ended(job: Job) -> bool:
    return job.status.ended


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
        self.configuration_platforms: list[
            tuple[
                AddConfigEntryEntitiesCallback,
                Callable[[Configuration], list[ConfigurationEntity]],
            ]
        ] = []
        self._changed: set[str] = set()
        self._configuration_listeners: defaultdict[str, list[Callable[[], None]]]
        self._configuration_listeners = defaultdict(list)
        self._early: list[Job] | None = []
        self._last_job: Job | None = None
        self._refreshing = False
        self._step_listeners: list[Callable[[str, Job], None]] = []
        self._stop_listening: list[Callable[[], None]] = []
        self._stopped = False
        self._waiting: set[asyncio.Event] = set()

    async def async_start(self) -> None:
        """Load the builder's jobs; raise `BuilderUnavailableError`."""
        await self.builder.start()
        ended = filter(_is_ended_build, self.builder.jobs.values())
        self._last_job = max(ended, key=_finished_at, default=None)
        self.data = self._build_data()
        self._stop_listening = [
            self.builder.listen(self._async_on_event),
            # Before, no automation would hear of what ended while nothing ran.
            async_at_started(self.hass, self._async_tell_early),
        ]

    @callback
    def async_resume(self) -> None:
        """Let jobs run, now that everybody who wants to know of it listens."""
        self.builder.resume()

    async def async_stop(self) -> None:
        """Interrupt what runs; nothing of the builder is left afterwards."""
        await self.builder.stop()
        while self._stop_listening:
            self._stop_listening.pop()()
        self._stopped = True
        for waiting in self._waiting:
            waiting.set()

    async def async_cancel(self, job_ids: Iterable[str]) -> list[Job]:
        """End jobs and return them when all have ended; raise `BuildError`."""
        # The newest first, so that nothing starts because what it waited for is gone.
        newest_first = sorted(set(job_ids), reverse=True)
        jobs = await asyncio.gather(*map(self.builder.cancel, newest_first))
        return jobs[::-1]

    async def async_wait(
        self, jobs: Iterable[Job], until: Callable[[Job], bool] = _is_ended
    ) -> list[Job]:
        """Return the jobs when all have ended, or the builder was stopped.

        Instead of its end, it can be something else that is waited for.
        """
        now = {job.job_id: self.builder.jobs.get(job.job_id, job) for job in jobs}
        active = {job_id for job_id, job in now.items() if not until(job)}
        done = asyncio.Event()

        @callback
        def _async_on_event(event: Event) -> None:
            if not isinstance(event, JobEvent) or event.job.job_id not in now:
                return
            job = now[event.job.job_id] = event.job
            if until(job):
                active.discard(job.job_id)
            if not active:
                done.set()

        stop_listening = self.builder.listen(_async_on_event)
        self._waiting.add(done)
        try:
            if active and not self._stopped:
                await done.wait()
        finally:
            self._waiting.discard(done)
            stop_listening()
        return list(now.values())

    @callback
    def async_listen_to_configuration(
        self, configuration: str, listener: Callable[[], None]
    ) -> Callable[[], None]:
        """Call the listener when a configuration, or a job of it, is another.

        It is also called when the builder comes or goes, or has another ESPHome.
        """
        listeners = self._configuration_listeners[configuration]
        listeners.append(listener)

        @callback
        def _async_stop() -> None:
            listeners.remove(listener)
            if not listeners:
                self._configuration_listeners.pop(configuration, None)

        return _async_stop

    @callback
    def async_add_for_configurations(
        self,
        async_add_entities: AddConfigEntryEntitiesCallback,
        make: Callable[[Configuration], list[ConfigurationEntity]],
    ) -> None:
        """Let a platform have these entities for each configuration there will be."""
        self.configuration_platforms.append((async_add_entities, make))

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
        match event:
            case JobEvent(job=job, status_changed=status_changed):
                self._changed.add(job.configuration)
                if status_changed:
                    self._async_on_step(job)
            case ConfigurationEvent(configuration=configuration):
                self._changed.add(configuration.configuration)
            case ConfigurationRemovedEvent(configuration=name):
                self._changed.add(name)
        async_dispatcher_send(
            self.hass, SIGNAL_EVENT, self.config_entry.entry_id, event
        )
        if not self._refreshing:
            # Entities need no more than one look at however many events come now.
            self._refreshing = True
            self.hass.loop.call_soon(self._async_show)

    @callback
    def _async_on_step(self, job: Job) -> None:
        """Take over that a job has another status."""
        if _is_ended_build(job):
            self._last_job = job
        if self._early is None:
            self._async_tell(job)
        else:
            self._early.append(job)

    @callback
    def _async_tell_early(self, _: HomeAssistant) -> None:
        """Tell the steps that were taken before anybody could hear of them."""
        early, self._early = self._early or [], None
        for job in early:
            self._async_tell(job)

    @callback
    def _async_tell(self, job: Job) -> None:
        """Tell entities and automations of one step."""
        step = STEPS[job.status]
        for listener in tuple(self._step_listeners):
            listener(step, job)
        data: dict[str, Any] = {"type": step, "job": job.as_dict()}
        if (device_id := self._device_id(job.configuration)) is not None:
            data[ATTR_DEVICE_ID] = device_id
        self.hass.bus.async_fire(EVENT_BUILD, data, context=job_context(job))

    def _device_id(self, name: str) -> str | None:
        """Return the device that the entities of a configuration are on."""
        configuration = self.builder.configurations.get(name)
        if configuration is not None and configuration.device_id is not None:
            return configuration.device_id
        own = async_own_device(self.hass, self.config_entry.entry_id, name)
        return own.id if own else None

    @callback
    def _async_show(self) -> None:
        """Let entities show what is now, if that is anything new."""
        self._refreshing = False
        before = self.data.builder
        if (data := self._build_data()) != self.data:
            self.async_set_updated_data(data)
        changed, self._changed = self._changed, set()
        now = data.builder
        if (before.state, before.esphome_version) != (now.state, now.esphome_version):
            changed.update(self._configuration_listeners)
        for name in changed:
            for listener in tuple(self._configuration_listeners.get(name, ())):
                listener()

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
