"""The builder that runs the `esphome` command on this host."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
import errno
import logging
import os
from pathlib import Path
from typing import Final, override

from ..base import BaseBuilder, Surroundings
from ..builder import (
    BuilderUnavailableError,
)
from ..diagnosis import INTERNAL_ERROR, Verdict, stopped
from ..log import JobLog
from ..models import (
    BuilderKind,
    BuilderState,
    Cause,
    Job,
    JobKind,
    JobStatus,
    Phase,
)
from ..queue import local_slots
from ..store import load_jobs
from .configurations import InvalidName
from .environment import build_environment, compile_slots, share_cores
from .process import Command, Limits, end_leftovers
from .run import JobRun, arguments
from .secrets import Redactor
from .watch import Watch

_LOGGER = logging.getLogger(__name__)

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


class LocalBuilder(BaseBuilder):
    """Keeps the queue moving: a task for each running job and one that looks around."""

    _kind = BuilderKind.LOCAL

    def __init__(self, settings: LocalSettings) -> None:
        """Prepare; nothing runs and nothing is read yet."""
        super().__init__(settings.entry_id, settings.title, settings.cache_dir)
        self._settings = settings
        self._environment = settings.environment
        self._watch = Watch(settings, self._environment, self._on_look)
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._started_from: dict[str, os.stat_result] = {}

    async def start(self) -> None:
        """Load the jobs; raise `BuilderUnavailableError` where that cannot work yet."""
        try:
            before, slots = await asyncio.to_thread(self._load)
        except OSError as err:
            raise BuilderUnavailableError(f"{err.filename}: {err.strerror}.") from err
        self._begin(before, local_slots(slots))

    def resume(self) -> None:
        """Begin to run jobs, and tell what the restart ended."""
        self._accept()
        self._watch.start()
        self._clean_up()

    async def stop(self) -> None:
        """End running jobs as interrupted, and leave no process, task or file open."""
        self._accepting = False
        for run in self._runs.values():
            run.stop(Cause.HOME_ASSISTANT_STOPPED)
        await self._watch.stop()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        await self._conclude()

    async def cancel(self, job_id: str, cause: Cause = Cause.CANCELLED_BY_USER) -> Job:
        """End a job and return it when it has ended; raise `UnknownJobError`."""
        job = self._job(job_id)
        if not job.status.ended:
            self._end(job, cause)
            if task := self._tasks.get(job_id):
                # To wait for it must not be a way to end the task itself.
                await asyncio.wait([task])
        return self.jobs.get(job_id, job)

    @property
    @override
    def _surroundings(self) -> Surroundings:
        """Return what the last look found."""
        return Surroundings(
            state=self._watch.state,
            version=self._watch.version,
            problem=self._watch.problem,
            configurations=self._watch.configurations,
        )

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

    @override
    async def _check_names(self, names: Collection[str]) -> None:
        """Raise `UnknownConfigurationError` unless the folder holds all of them."""
        await self._watch.first_look.wait()
        if not self._configurations.keys() >= set(names):
            # It may have been written a moment ago.
            try:
                await self._watch.look()
            except OSError as err:
                message = f"The folder cannot be read: {err.strerror}."
                raise BuilderUnavailableError(message) from err
        self._require(names)

    @override
    async def _stale(self, names: Collection[str]) -> set[str]:
        """Return running jobs whose file was changed since they started."""
        return await asyncio.to_thread(self._changed, names)

    def _changed(self, names: Collection[str]) -> set[str]:
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

    @override
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
            verdict = INTERNAL_ERROR
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

    @override
    def _end(self, job: Job, cause: Cause) -> None:
        """End a job from outside: at once if it waits, else as soon as it can be."""
        if run := self._runs.get(job.job_id):
            run.stop(cause)
        elif not job.status.ended:
            self._finish(job.job_id, stopped(cause))

    @override
    def _look_soon(self) -> None:
        """Look what an ended job has changed."""
        self._watch.look_soon()

    def _on_look(self) -> None:
        """Take over what was found in the folder, and go on if that is possible now."""
        self._store.retry()
        found = self._watch.configurations
        self._touched.update(found, self._configurations)
        self._pump()
        self._publish()


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
