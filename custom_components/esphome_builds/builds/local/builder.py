"""The builder that runs the `esphome` command on this host."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
import errno
import logging
import os
from pathlib import Path
import re
from types import MappingProxyType
from typing import Final

from ..builder import (
    MAX_CONFIGURATIONS,
    BuilderUnavailableError,
    BuildRequest,
    InvalidRequestError,
    Submission,
    UnknownConfigurationError,
    UnknownJobError,
)
from ..diagnosis import Verdict
from ..log import JobLog
from ..models import (
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
    JobKind,
    JobRemovedEvent,
    JobStatus,
    Phase,
    RequestKind,
)
from .configurations import InvalidName
from .environment import build_environment, compile_slots, share_cores
from .logs import Logs
from .process import Command, Limits, end_leftovers
from .queue import JobQueue, restored, without_prerequisite
from .run import JobRun, arguments, stopped
from .secrets import Redactor
from .store import JobStore, load_jobs
from .watch import Watch

_LOGGER = logging.getLogger(__name__)

# A host name, or an address as it is written; it becomes an argument of a command.
_ADDRESS: Final = re.compile(r"(?!-)[0-9A-Za-z._:%-]{1,253}")
_ADDRESSED: Final = (RequestKind.UPLOAD, RequestKind.INSTALL)

DEFAULT_LIMITS: Final[Mapping[JobKind, Limits]] = {
    JobKind.VALIDATE: Limits(total=10 * 60),
    JobKind.COMPILE: Limits(total=3 * 60 * 60, idle=45 * 60),
    JobKind.UPLOAD: Limits(total=30 * 60, idle=10 * 60),
    JobKind.CLEAN: Limits(total=10 * 60),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSettings:
    """Where a builder finds things and what it may use.

    `esphome` is the executable's path, or empty for the one on PATH. `cache_dir` is the
    builder's own; `tools_dir` holds tool chains that several builders may share.
    `compile_slots` is None for as many as suit the host.
    """

    entry_id: str
    title: str
    config_dir: Path
    esphome: str
    cache_dir: Path
    tools_dir: Path
    compile_slots: int | None = None
    limits: Mapping[JobKind, Limits] = field(default_factory=lambda: DEFAULT_LIMITS)

    @property
    def data_dir(self) -> Path:
        """Return where ESPHome keeps its build trees and metadata."""
        return self.cache_dir / "data"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of this builder's processes."""
        return build_environment(
            os.environ, data_dir=self.data_dir, tools_dir=self.tools_dir
        )


class LocalBuilder:
    """Keeps the queue moving: a task for each running job and one that looks around."""

    def __init__(self, settings: LocalSettings) -> None:
        """Prepare; nothing runs and nothing is read yet."""
        self._settings = settings
        self._environment = settings.environment
        self._listeners: list[Callable[[Event], None]] = []
        self._queue = JobQueue(settings.entry_id, 1, ())
        self._store = JobStore(settings.cache_dir / "jobs.json", self._all_jobs)
        self._logs = Logs(settings.cache_dir / "logs")
        self._watch = Watch(settings, self._environment, self._on_look)
        self._configurations: dict[str, Configuration] = {}
        self._touched: set[str] = set()
        self._info = self._make_info()
        self._ended_at_start: list[Job] = []
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._started_from: dict[str, os.stat_result] = {}
        self._cleaning: asyncio.Task[None] | None = None
        self._unclean = False
        self._settling: asyncio.Handle | None = None
        self._accepting = False
        self._stopped = False

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

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call the listener with each event from now on, until the result is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def start(self) -> None:
        """Load the jobs; raise `BuilderUnavailableError` where that cannot work yet."""
        try:
            before, slots = await asyncio.to_thread(self._load)
        except OSError as err:
            raise BuilderUnavailableError(f"{err.filename}: {err.strerror}.") from err
        jobs = restored(before, datetime.now(UTC))
        self._ended_at_start = [
            job
            for job, old in zip(jobs, before, strict=True)
            if job.status.ended and job is not old
        ]
        self._queue = JobQueue(self._settings.entry_id, slots, jobs)
        self._store.changed()
        self._info = self._make_info()

    def resume(self) -> None:
        """Begin to run jobs, and tell what the restart ended."""
        for job in self._ended_at_start:
            self._emit(JobEvent(job=job))
        self._ended_at_start.clear()
        self._accepting = True
        self._watch.start()
        self._clean_up()

    async def stop(self) -> None:
        """End running jobs as interrupted, and leave no process, task or file open."""
        self._accepting = False
        for run in self._runs.values():
            run.stop(Cause.HOME_ASSISTANT_STOPPED)
        await self._watch.stop()
        tasks = [*self._tasks.values(), *filter(None, (self._cleaning,))]
        if tasks:
            await asyncio.wait(tasks)
        self._settle()
        with suppress(OSError):
            await self._store.flush()
        self._stopped = True
        self._emit(BuilderEvent(builder=self._info))

    async def submit(self, request: BuildRequest) -> Submission:
        """Check all names, then make or find a job for each; raise `BuildError`."""
        _check(request)
        await self._check_names(request.configurations)
        stale = await asyncio.to_thread(self._stale, request.configurations)
        if not self._accepting or self._info.state is BuilderState.UNAVAILABLE:
            raise BuilderUnavailableError(self._info.message or "It is stopping.")
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

    async def cancel(self, job_id: str, cause: Cause = Cause.CANCELLED_BY_USER) -> Job:
        """End a job and return it when it has ended; raise `UnknownJobError`."""
        job = self._job(job_id)
        if not job.status.ended:
            self._end(job, cause)
            if task := self._tasks.get(job_id):
                # To wait for it must not be a way to end the task itself.
                await asyncio.wait([task])
        return self.jobs.get(job_id, job)

    async def open_log(self, job_id: str) -> JobLog:
        """Return the log of a job; raise `UnknownJobError`."""
        return await self._logs.open(job_id, self._job(job_id).total_lines)

    def _all_jobs(self) -> Iterable[Job]:
        return self.jobs.values()

    def _job(self, job_id: str) -> Job:
        try:
            return self.jobs[job_id]
        except KeyError:
            raise UnknownJobError(job_id) from None

    def _load(self) -> tuple[list[Job], int]:
        """Read what an earlier run left, and end what it left running; blocking."""
        settings = self._settings
        os.scandir(settings.config_dir).close()
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        jobs = load_jobs(settings.cache_dir / "jobs.json")
        cut_off = {job.job_id for job in jobs if job.status is JobStatus.RUNNING}
        end_leftovers(cut_off)
        jobs = [self._counted(job) if job.job_id in cut_off else job for job in jobs]
        return jobs, settings.compile_slots or compile_slots()

    def _counted(self, job: Job) -> Job:
        """Return a job with the size of its log, which is newer than it; blocking."""
        total, elided = self._logs.count(job.job_id)
        return replace(job, total_lines=total, elided_lines=elided)

    async def _check_names(self, names: tuple[str, ...]) -> None:
        """Raise `UnknownConfigurationError` unless the folder holds all of them."""
        await self._watch.first_look.wait()
        if not self._configurations.keys() >= set(names):
            # It may have been written a moment ago.
            try:
                await self._watch.look()
            except OSError as err:
                message = f"The folder cannot be read: {err.strerror}."
                raise BuilderUnavailableError(message) from err
        for name in names:
            if name not in self._configurations:
                raise UnknownConfigurationError(name)

    def _stale(self, names: tuple[str, ...]) -> set[str]:
        """Return running jobs whose file was changed since they started; blocking."""
        stale = set()
        for job_id, before in tuple(self._started_from.items()):
            job = self.jobs.get(job_id)
            if job is not None and job.configuration in names:
                with suppress(OSError):
                    now = (self._settings.config_dir / job.configuration).stat()
                    if (now.st_mtime_ns, now.st_size, now.st_ino) != (
                        before.st_mtime_ns,
                        before.st_size,
                        before.st_ino,
                    ):
                        stale.add(job_id)
        return stale

    def _pump(self) -> None:
        """Start what can start."""
        executable, version = self._watch.executable, self._watch.version
        ready = self._watch.state is BuilderState.READY
        if not self._accepting or not ready or executable is None or version is None:
            return
        for job in self._queue.runnable():
            running = replace(
                job,
                status=JobStatus.RUNNING,
                started_at=datetime.now(UTC),
                phase=None,
                esphome_version=version,
            )
            self._runs[job.job_id] = run = JobRun(
                running,
                Command(
                    argv=(str(executable), *arguments(job)),
                    cwd=self._settings.config_dir,
                    environment=self._environment_of(job),
                    token=job.job_id,
                ),
                self._settings.limits[job.kind],
            )
            self._update(running)
            self._tasks[job.job_id] = asyncio.create_task(
                self._run(job.job_id, run, executable), name=f"{job.kind} {job.job_id}"
            )

    def _environment_of(self, job: Job) -> dict[str, str]:
        """Return the environment of a job's process."""
        if job.kind is not JobKind.COMPILE:
            return self._environment
        return share_cores(self._environment, self._queue.compiles)

    async def _run(self, job_id: str, run: JobRun, executable: Path) -> None:
        """Take one job from start to end, whatever happens."""
        log: JobLog | None = None
        exit_code: int | None = None
        try:
            version = await self._watch.confirm(executable)
            self._update(replace(self.jobs[job_id], esphome_version=version))
            redactor = await asyncio.to_thread(self._prepare, job_id)
            log = await self._logs.open(job_id, self.jobs[job_id].total_lines)
            if self.jobs[job_id].attempt > 1:
                log.append(["[Home Assistant was restarted; this is the 2nd attempt]"])
            # From here on a restart knows of this attempt.
            await self._store.flush()
            verdict, exit_code = await run.run(
                log, redactor, self._reporter(job_id, log)
            )
        except _CannotStartError as err:
            verdict = err.verdict
        except BuilderUnavailableError as err:
            verdict = run.stopped or _failed(Cause.ESPHOME_MISSING, str(err))
        except OSError as err:
            verdict = _failed_with(err)
        except Exception:
            _LOGGER.exception("Job %s failed unexpectedly", job_id)
            verdict = _failed(Cause.UNKNOWN, "ESPHome Builds had an internal error.")
        if log is not None:
            await log.close()
        del self._runs[job_id], self._tasks[job_id]
        self._started_from.pop(job_id, None)
        self._finish(job_id, verdict, exit_code, log)

    def _prepare(self, job_id: str) -> Redactor:
        """Check that the job can still run; blocking. Raises `_CannotStartError`."""
        name = self.jobs[job_id].configuration
        try:
            self._started_from[job_id] = self._watch.folder.resolve(name).stat()
        except (InvalidName, OSError) as err:
            message = f"The configuration {name} is no longer there."
            raise _CannotStartError(Cause.INVALID_CONFIG, message) from err
        return Redactor.load(self._settings.config_dir)

    def _reporter(
        self, job_id: str, log: JobLog
    ) -> Callable[[Phase | None, int | None], None]:
        """Return what puts a run's progress into its job."""

        def _report(phase: Phase | None, progress: int | None) -> None:
            self._update(
                replace(
                    self.jobs[job_id],
                    phase=phase,
                    progress=progress,
                    total_lines=log.total,
                    elided_lines=log.elided,
                )
            )

        return _report

    def _end(self, job: Job, cause: Cause) -> None:
        """End a job from outside: at once if it waits, else as soon as it can be."""
        if run := self._runs.get(job.job_id):
            run.stop(cause)
        elif not job.status.ended:
            self._finish(job.job_id, stopped(cause))

    def _finish(
        self,
        job_id: str,
        verdict: Verdict,
        exit_code: int | None = None,
        log: JobLog | None = None,
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
                finished_at=now,
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
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        """Do what follows when jobs have ended, once for all that end together."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self._clean_up()
        self._watch.look_soon()
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

    def _update(self, job: Job) -> None:
        """Take over a job's new state and tell of it and of what follows from it."""
        before = self.jobs.get(job.job_id)
        if before == job and before is not job:
            return
        self._queue.put(job)
        # Of a new job the queue knew before anybody else.
        step = before is None or before is job or before.status is not job.status
        if step:
            self._store.changed()
        self._touched.add(job.configuration)
        self._emit(JobEvent(job=job, status_changed=step))

    def _on_look(self) -> None:
        """Take over what was found in the folder, and go on if that is possible now."""
        self._store.retry()
        found = self._watch.configurations
        self._touched.update(found, self._configurations)
        self._pump()
        self._publish()

    def _publish(self) -> None:
        """Tell what is different now in the configurations and the builder itself."""
        touched, self._touched = self._touched, set()
        new = touched - self._configurations.keys()
        for name in sorted(touched):
            self._publish_configuration(name)
        if new:
            self._configurations = dict(sorted(self._configurations.items()))
        if (info := self._make_info()) != self._info:
            self._info = info
            self._emit(BuilderEvent(builder=info))

    def _publish_configuration(self, name: str) -> None:
        before = self._configurations.get(name)
        if (found := self._watch.configurations.get(name)) is not None:
            active, last = self._queue.latest(name)
            now = replace(found, active_job_id=active, last_job_id=last)
            if now != before:
                self._configurations[name] = now
                self._emit(ConfigurationEvent(configuration=now))
        elif before is not None:
            del self._configurations[name]
            entry_id = self._settings.entry_id
            self._emit(ConfigurationRemovedEvent(entry_id=entry_id, configuration=name))

    def _make_info(self) -> BuilderInfo:
        statuses = [job.status for job in self._queue.active]
        return BuilderInfo(
            entry_id=self._settings.entry_id,
            kind=BuilderKind.LOCAL,
            title=self._settings.title,
            state=self._watch.state,
            esphome_version=self._watch.version,
            running=statuses.count(JobStatus.RUNNING),
            queued=statuses.count(JobStatus.QUEUED),
            message=self._watch.problem,
        )

    def _emit(self, event: Event) -> None:
        """Tell all listeners; what one of them does wrong concerns no other."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                _LOGGER.exception("A listener failed on %s", event.type)


class _CannotStartError(Exception):
    """A job that ended before its process started."""

    def __init__(self, cause: Cause, message: str) -> None:
        """Note the verdict."""
        super().__init__(message)
        self.verdict = _failed(cause, message)


def _failed(cause: Cause, message: str) -> Verdict:
    return Verdict(status=JobStatus.FAILED, cause=cause, message=message)


def _failed_with(err: OSError) -> Verdict:
    """Return the verdict where the system refused something before the process ran."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return _failed(Cause.DISK_FULL, "There is no space left on the disk.")
    return _failed(Cause.UNKNOWN, f"The job could not be started: {err.strerror}.")


def _check(request: BuildRequest) -> None:
    """Raise `InvalidRequestError` unless the request makes sense."""
    if not 0 < len(request.configurations) <= MAX_CONFIGURATIONS:
        raise InvalidRequestError(
            f"Between 1 and {MAX_CONFIGURATIONS} configurations are needed."
        )
    if request.address is None:
        return
    if request.kind not in _ADDRESSED:
        raise InvalidRequestError("Only an upload or install has an address.")
    if _ADDRESS.fullmatch(request.address) is None:
        raise InvalidRequestError("The address must be a host name or an IP address.")
