"""What all kinds of builders have in common: jobs, their history and who is told.

A kind of builder adds where its configurations come from and how jobs are carried out.
"""

from abc import ABC, abstractmethod
import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import batched
import logging
from pathlib import Path
import re
from types import MappingProxyType
from typing import Final

from .builder import (
    MAX_CONFIGURATIONS,
    BuilderUnavailableError,
    BuildRequest,
    InvalidRequestError,
    NotAllowedError,
    Submission,
    UnknownConfigurationError,
    UnknownJobError,
)
from .devices import Device, Devices
from .diagnosis import Verdict
from .findings import Finding
from .kept import KeptFirmware, NoFirmwareError
from .log import JobLog
from .logs import Logs
from .models import (
    BuilderEvent,
    BuilderInfo,
    BuilderKind,
    BuilderState,
    Cause,
    Configuration,
    ConfigurationEvent,
    ConfigurationRemovedEvent,
    Event,
    Job,
    JobEvent,
    JobRemovedEvent,
    JobStatus,
    Requester,
    RequestKind,
)
from .queue import JobQueue, Lane, restored, without_prerequisite
from .store import JobStore
from .usage import Usage
from .versions import is_older

_LOGGER = logging.getLogger(__name__)

NOT_MANAGED: Final = "This builder does not install ESPHome; that is done where it is."

# A host name, or an address as it is written; it becomes an argument of a command.
_ADDRESS: Final = re.compile(r"(?!-)[0-9A-Za-z._:%-]{1,253}")
_ADDRESSED: Final = (RequestKind.UPLOAD, RequestKind.INSTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a builder stands on, as far as that is known now."""

    state: BuilderState
    version: str | None
    problem: str | None
    configurations: Mapping[str, Configuration]


class BaseBuilder(ABC):
    """Keeps jobs and configurations, and tells what changes about them."""

    _kind: BuilderKind

    def __init__(
        self, entry_id: str, title: str, cache_dir: Path, devices: Devices
    ) -> None:
        """Prepare; nothing is read yet."""
        self._devices = devices
        self._entry_id = entry_id
        self._title = title
        self._listeners: list[Callable[[Event], None]] = []
        self._queue = JobQueue(entry_id, {}, ())
        self._store = JobStore(cache_dir / "jobs.json", self._all_jobs, self._extra)
        self._logs = Logs(cache_dir / "logs")
        self._configurations: dict[str, Configuration] = {}
        self._touched: set[str] = set()
        self._info = BuilderInfo(
            entry_id=entry_id,
            kind=self._kind,
            title=title,
            state=BuilderState.CONNECTING,
        )
        self._ended_at_start: list[Job] = []
        self._cleaning: asyncio.Task[None] | None = None
        self._unclean = False
        self._settling: asyncio.Handle | None = None
        self._accepting = False
        self._stopped = False
        self._ignore_devices: Callable[[], None] | None = None

    @property
    def stopped(self) -> bool:
        """Return whether nothing happens here any more."""
        return self._stopped

    @property
    def info(self) -> BuilderInfo:
        """Return the builder as it is now."""
        return self._info

    @property
    def configurations(self) -> Mapping[str, Configuration]:
        """Return the configurations by file name."""
        return MappingProxyType(self._configurations)

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Return the known jobs by id, oldest first."""
        return self._queue.jobs

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return what stands in the way of jobs now, the worst first."""
        return ()

    @property
    def usage(self) -> Usage | None:
        """Return what the builder's files take on disk, None while that is unknown."""
        return None

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call the listener with each event from now on, until the result is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def submit(self, request: BuildRequest) -> Submission:
        """Check all names, then make or find a job for each; raise `BuildError`."""
        _check(request)
        await self._check_names(request.configurations)
        stale = await self._stale(request.configurations)
        if not self._accepting or self._info.state is BuilderState.UNAVAILABLE:
            raise BuilderUnavailableError(self._info.message or "It is stopping.")
        if request.firmware_job_id is not None:
            self._check_firmware(request.firmware_job_id, request.configurations[0])
        accepted = self._queue.submit(request, datetime.now(UTC), stale)
        for job in accepted.jobs:
            if job.job_id not in accepted.attached:
                self._update(job)
        # An upload before the compile that it waits for, or it would end for that.
        for job_id in reversed(accepted.superseded):
            self._end(self.jobs[job_id], Cause.SUPERSEDED)
        self._pump()
        self._publish()
        with suppress(OSError):
            await self._store.flush()
        return Submission(
            jobs=tuple(self.jobs.get(job.job_id, job) for job in accepted.jobs),
            attached=tuple(accepted.attached),
        )

    async def install_esphome(
        self,
        version: str | None,  # noqa: ARG002 - other kinds of builders use it
        requested_by: Requester | None = None,  # noqa: ARG002 - same
    ) -> Job:
        """Raise `NotAllowedError`: the ESPHome here is somebody else's."""
        raise NotAllowedError(NOT_MANAGED)

    async def go_back(self) -> str:
        """Raise `NotAllowedError`: the ESPHome here is somebody else's."""
        raise NotAllowedError(NOT_MANAGED)

    async def clean_all(self, requested_by: Requester | None = None) -> Submission:
        """Clean all configurations; raise `BuildError`."""
        jobs: list[Job] = []
        attached: list[str] = []
        for names in batched(self._configurations, MAX_CONFIGURATIONS, strict=False):
            submission = await self.submit(
                BuildRequest(
                    kind=RequestKind.CLEAN,
                    configurations=names,
                    requested_by=requested_by,
                )
            )
            jobs += submission.jobs
            attached += submission.attached
        return Submission(jobs=tuple(jobs), attached=tuple(attached))

    def firmware_of(self, configuration: str) -> list[KeptFirmware]:
        """Return none, since none is kept; raise `UnknownConfigurationError`."""
        self._require((configuration,))
        return []

    def find_firmware(self, job_id: str) -> KeptFirmware | None:  # noqa: ARG002 - other kinds of builders use it
        """Return None, since nothing is kept."""
        return None

    async def firmware_file(self, job_id: str, name: str | None = None) -> Path:  # noqa: ARG002 - other kinds of builders use it
        """Raise `NoFirmwareError`, since none is kept."""
        raise NoFirmwareError(f"The firmware of job {job_id} is not kept.")

    async def open_log(self, job_id: str) -> JobLog:
        """Return the log of a job; raise `UnknownJobError`."""
        return await self._logs.open(job_id, self._job(job_id).total_lines)

    @property
    @abstractmethod
    def _surroundings(self) -> Surroundings:
        """Return what the builder stands on."""

    @abstractmethod
    async def _check_names(self, names: Collection[str]) -> None:
        """Raise `UnknownConfigurationError` unless there are all of them."""

    @abstractmethod
    def _pump(self) -> None:
        """Start what can start."""

    @abstractmethod
    def _end(self, job: Job, cause: Cause) -> None:
        """End a job from outside: at once if it waits, else as soon as it can be."""

    @abstractmethod
    async def _stale(self, names: Collection[str]) -> set[str]:
        """Return running jobs that work on something older than there is now."""

    @abstractmethod
    def _look_soon(self) -> None:
        """Look what an ended job has changed."""

    def _check_firmware(
        self,
        job_id: str,  # noqa: ARG002 - other kinds of builders use it
        configuration: str,  # noqa: ARG002 - same
    ) -> None:
        """Raise `InvalidRequestError` unless a job's firmware is kept for an upload."""
        raise InvalidRequestError("This builder keeps no firmware.")

    def _extra(self) -> Mapping[str, object]:
        """Return what is stored for jobs beside the jobs."""
        return {}

    def _all_jobs(self) -> Iterable[Job]:
        return self.jobs.values()

    def _job(self, job_id: str) -> Job:
        try:
            return self.jobs[job_id]
        except KeyError:
            raise UnknownJobError(job_id) from None

    def _require(self, names: Iterable[str]) -> None:
        """Raise `UnknownConfigurationError` for the first name that is not known."""
        for name in names:
            if name not in self._configurations:
                raise UnknownConfigurationError(name)

    def _begin(
        self,
        before: list[Job],
        slots: Mapping[Lane, int],
        elsewhere: Collection[str] = (),
    ) -> None:
        """Take over the jobs of an earlier run; those that run elsewhere still do."""
        jobs = restored(before, datetime.now(UTC), elsewhere)
        self._ended_at_start = [
            job
            for job, old in zip(jobs, before, strict=True)
            if job.status.ended and job is not old
        ]
        self._queue = JobQueue(self._entry_id, slots, jobs)
        self._store.changed()
        self._info = self._make_info()

    def _accept(self) -> None:
        """Take requests from now on, and tell what the restart ended."""
        for job in self._ended_at_start:
            self._emit(JobEvent(job=job))
        self._ended_at_start.clear()
        self._accepting = True
        self._ignore_devices = self._devices.listen(self._on_device)

    async def _conclude(self) -> None:
        """Write down what there is, and tell that nothing comes any more."""
        if self._ignore_devices is not None:
            self._ignore_devices()
        if self._cleaning is not None:
            await asyncio.wait([self._cleaning])
        self._settle()
        with suppress(OSError):
            await self._store.flush()
        self._stopped = True
        self._emit(BuilderEvent(builder=self._info))

    def _finish(
        self,
        job_id: str,
        verdict: Verdict,
        exit_code: int | None = None,
        log: JobLog | None = None,
        finished_at: datetime | None = None,
    ) -> None:
        """Give a job its end, and those that wait for it theirs."""
        now = datetime.now(UTC)
        job = self.jobs[job_id]
        completed = verdict.status is JobStatus.COMPLETED
        if log is not None:
            job = replace(job, total_lines=log.total, elided_lines=log.elided)
        self._update(
            replace(
                job,
                status=verdict.status,
                finished_at=finished_at or now,
                phase=None,
                progress=100 if completed else None,
                exit_code=exit_code,
                cause=verdict.cause,
                message=verdict.message,
            )
        )
        if not completed and verdict.status is not JobStatus.INTERRUPTED:
            for waiting in self._queue.dependents(job_id):
                self._update(without_prerequisite(waiting, now))
        self._settle_soon()

    def _settle_soon(self) -> None:
        """Do what follows when all that happens now has happened."""
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        """Do what follows when jobs have ended, once for all that end together."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self._clean_up()
        self._look_soon()
        self._pump()
        self._publish()

    def _clean_up(self) -> None:
        """Forget what the history does not hold, and logs that are too much."""
        if forgotten := self._queue.forget():
            self._store.changed()
        for job in forgotten:
            self._emit(JobRemovedEvent(job_id=job.job_id))
        self._unclean = True
        if self._cleaning is None and self._accepting:
            self._cleaning = asyncio.create_task(self._enforce())

    async def _enforce(self) -> None:
        """Look through the logs, and again if jobs have ended meanwhile."""
        try:
            while self._unclean:
                self._unclean = False
                growing = [job.job_id for job in self._queue.active]
                for job_id in await self._logs.enforce(self.jobs, growing):
                    if (job := self.jobs.get(job_id)) is not None:
                        self._update(replace(job, elided_lines=job.total_lines))
        except OSError as err:
            _LOGGER.warning("Cannot look through the logs: %s", err)
        finally:
            self._cleaning = None

    def _update(self, job: Job, *, quiet: bool = False) -> None:
        """Take over a job's new state and tell of it and of what follows from it.

        With `quiet`, it is no step: it was taken long before it is told.
        """
        before = self.jobs.get(job.job_id)
        if before == job and before is not job:
            return
        self._queue.put(job)
        # Of a new job the queue knew before anybody else.
        step = before is None or before is job or before.status is not job.status
        if step:
            self._store.changed()
        self._touched.add(job.configuration)
        self._emit(JobEvent(job=job, status_changed=step and not quiet))

    def _publish(self) -> None:
        """Tell what is different now in the configurations and the builder itself."""
        info = self._make_info()
        if info.esphome_version != self._info.esphome_version:
            # What devices run can be older now than what there is, or no longer.
            self._touched.update(self._configurations)
        touched, self._touched = self._touched, set()
        new = touched - self._configurations.keys()
        found = self._surroundings.configurations
        for name in sorted(touched):
            self._publish_configuration(name, found.get(name), info.esphome_version)
        if new:
            self._configurations = dict(sorted(self._configurations.items()))
        if info != self._info:
            self._info = info
            self._emit(BuilderEvent(builder=info))

    def _publish_configuration(
        self, name: str, found: Configuration | None, version: str | None
    ) -> None:
        before = self._configurations.get(name)
        if found is not None:
            active, last = self._queue.latest(name)
            now = replace(found, active_job_id=active, last_job_id=last)
            if (device := self._device_of(found)) is not None:
                now = self._with_device(now, device, version)
            if now != before:
                self._configurations[name] = now
                self._emit(ConfigurationEvent(configuration=now))
        elif before is not None:
            del self._configurations[name]
            self._emit(
                ConfigurationRemovedEvent(entry_id=self._entry_id, configuration=name)
            )

    def _device_for(self, job: Job) -> Device | None:
        """Return the device that a job is for, if it is known."""
        found = self._surroundings.configurations.get(job.configuration)
        return None if found is None else self._device_of(found)

    def _device_of(self, configuration: Configuration) -> Device | None:
        """Return the device that runs a configuration, if it is known."""
        return self._devices.get(configuration.name) if configuration.name else None

    def _with_device(
        self, configuration: Configuration, device: Device, version: str | None
    ) -> Configuration:
        """Return a configuration with what is known of its device.

        What somebody saw of one that is off now may be newer than its last words.
        """
        deployed = device.version or configuration.deployed_version
        if not device.online:
            deployed = configuration.deployed_version or device.version
        online = configuration.online if device.online is None else device.online
        return replace(
            configuration,
            deployed_version=deployed,
            device_id=device.device_id,
            online=online,
            update_available=is_older(deployed, version),
        )

    def _on_device(self, name: str) -> None:
        """Take over what is different about a device."""
        self._touched.update(
            configuration.configuration
            for configuration in self._surroundings.configurations.values()
            if configuration.name == name
        )
        self._pump()
        self._publish()

    def _make_info(self) -> BuilderInfo:
        statuses = [job.status for job in self._queue.active]
        surroundings = self._surroundings
        return BuilderInfo(
            entry_id=self._entry_id,
            kind=self._kind,
            title=self._title,
            state=surroundings.state,
            esphome_version=surroundings.version,
            running=statuses.count(JobStatus.RUNNING),
            queued=statuses.count(JobStatus.QUEUED),
            message=surroundings.problem,
        )

    def _emit(self, event: Event) -> None:
        """Tell all listeners; what one of them does wrong concerns no other."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                _LOGGER.exception("A listener failed on %s", event.type)


def _check(request: BuildRequest) -> None:
    """Raise `InvalidRequestError` unless the request makes sense."""
    if not 0 < len(request.configurations) <= MAX_CONFIGURATIONS:
        raise InvalidRequestError(
            f"Between 1 and {MAX_CONFIGURATIONS} configurations are needed."
        )
    _check_upload(request)
    if request.address is None:
        return
    if request.kind not in _ADDRESSED:
        raise InvalidRequestError("Only an upload or install has an address.")
    if _ADDRESS.fullmatch(request.address) is None:
        raise InvalidRequestError("The address must be a host name or an IP address.")


def _check_upload(request: BuildRequest) -> None:
    """Raise `InvalidRequestError` where a kept firmware is for more than one upload."""
    if request.firmware_job_id is None:
        return
    if request.kind is not RequestKind.UPLOAD:
        raise InvalidRequestError("Only an upload can send the firmware of a job.")
    if len(set(request.configurations)) > 1:
        raise InvalidRequestError("A firmware is of one configuration only.")
