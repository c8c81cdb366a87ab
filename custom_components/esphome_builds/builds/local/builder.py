"""The builder that runs the `esphome` command on this host."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
import logging
import os
from pathlib import Path
from typing import Final, override

from ..base import NOT_MANAGED, Surroundings
from ..builder import (
    BuilderUnavailableError,
    BuildRequest,
    NotAllowedError,
    Submission,
)
from ..delivery import DeliveringBuilder
from ..devices import Device, Devices, NoDevices
from ..diagnosis import INTERNAL_ERROR, Verdict, stopped
from ..findings import Finding, Severity
from ..kept import KeptFirmware
from ..log import JobLog
from ..models import (
    BuilderInfo,
    BuilderKind,
    BuilderState,
    Cause,
    Configuration,
    Job,
    JobKind,
    JobStatus,
    Phase,
    Requester,
)
from ..queue import local_slots
from ..store import load_jobs
from ..usage import Usage
from ..verification import Expected
from ..waiting import OFF
from .environment import compile_slots
from .environments import check_version
from .gate import Gate
from .installer import Installer
from .keeper import Keeper
from .process import end_leftovers
from .run import EndedEarlyError, JobRun, failed, failed_with
from .settings import LocalSettings
from .space import Space
from .uv import LatestUnknownError
from .watch import Watch
from .work import End, Worker

_LOGGER = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024

type _Work = Callable[[Job, JobRun, JobLog], Awaitable[End]]


class LocalBuilder(DeliveringBuilder):
    """Keeps the queue moving: a task for each running job and one that looks around."""

    _kind = BuilderKind.LOCAL

    def __init__(self, settings: LocalSettings, devices: Devices | None = None) -> None:
        """Prepare; nothing runs and nothing is read yet."""
        super().__init__(
            settings.entry_id,
            settings.title,
            settings.cache_dir,
            devices or NoDevices(),
            settings.device_wait,
        )
        self._settings = settings
        self._environment = settings.environment
        self._keeper = Keeper(settings.firmware_dir, settings.data_dir)
        self._installer: Installer | None = None
        if not settings.esphome:
            self._installer = Installer(
                settings.environments_dir, settings.python, self._environment
            )
        self._watch = Watch(
            settings, self._environment, self._esphome, self._on_look, self._on_missing
        )
        self._gate = Gate(settings, self._environment, self._watch, self._on_host_look)
        self._worker = Worker(
            settings, self._watch, self._gate, self._keeper, self._installer
        )
        self._worker.report_to(
            jobs=lambda: self.jobs,
            update=self._update,
            store=self._store,
            compiles=lambda: self._queue.compiles,
            known_address=self._known_address,
        )
        self._space = Space(settings, self._all_jobs, self._busy, self._publish)
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

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
        self._space.start()
        self._clean_up()

    async def stop(self) -> None:
        """End running jobs as interrupted, and leave no process, task or file open."""
        self._accepting = False
        for run in self._runs.values():
            run.stop(Cause.HOME_ASSISTANT_STOPPED)
        await self._space.stop()
        await self._watch.stop()
        await self._gate.stop()
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
            await self._verifications.ended(job_id)
        return self.jobs.get(job_id, job)

    @property
    @override
    def findings(self) -> tuple[Finding, ...]:
        """Return what stands in the way of jobs now, the worst first."""
        return self._gate.findings

    @property
    @override
    def usage(self) -> Usage | None:
        """Return what the builder's files take on disk, None while that is unknown."""
        return self._space.usage

    @override
    def firmware_of(self, configuration: str) -> list[KeptFirmware]:
        """Return the kept firmware of a configuration, the newest first.

        Raises `UnknownConfigurationError`.
        """
        self._require((configuration,))
        return self._keeper.store.of(configuration)

    @override
    def find_firmware(self, job_id: str) -> KeptFirmware | None:
        """Return what a job made, if it is kept; the job may be forgotten."""
        return self._keeper.store.find(job_id)

    @override
    async def firmware_file(self, job_id: str, name: str | None = None) -> Path:
        """Return where a kept file of a job is, the one to upload without a name.

        Raises `NoFirmwareError` where there is none, or it is damaged.
        """
        return await asyncio.to_thread(self._keeper.store.path, job_id, name)

    @override
    async def submit(self, request: BuildRequest) -> Submission:
        """Check all names, then make or find a job for each; raise `BuildError`."""
        if request.firmware_job_id is None:
            return await super().submit(request)
        async with self._keeper.lock:
            # What is kept now is still kept when the job is there, and from then on.
            return await super().submit(request)

    @override
    async def clean_all(self, requested_by: Requester | None = None) -> Submission:
        """Clean all configurations, and remove what none of them claims any more.

        Raises `BuildError`.
        """
        await self._watch.first_look.wait()
        try:
            await self._space.remove_unclaimed(self._configurations)
        except OSError as err:
            message = f"The build trees cannot be removed: {err.strerror}."
            raise BuilderUnavailableError(message) from err
        return await super().clean_all(requested_by)

    @override
    async def install_esphome(
        self, version: str | None, requested_by: Requester | None = None
    ) -> Job:
        """Install an ESPHome, without a version the latest, and use it from then on.

        Attaches to an installation of the same. Raises `InvalidRequestError`, or
        `BuilderUnavailableError` when the builder is stopping.
        """
        installer = self._managed()
        if version is not None:
            check_version(version)
        if not self._accepting:
            raise BuilderUnavailableError("It is stopping.")
        job = installer.find(self._queue.active, version)
        if job is None:
            job = self._queue.install_esphome(version, datetime.now(UTC), requested_by)
            self._update(job)
            self._pump()
            self._publish()
        with suppress(OSError):
            await self._store.flush()
        return self.jobs.get(job.job_id, job)

    @override
    async def go_back(self) -> str:
        """Use the ESPHome again that was used before; return its version.

        Raises `NotAllowedError` where there is none, and `BuilderUnavailableError`.
        """
        try:
            environment = await self._managed().environments.go_back()
        except OSError as err:
            message = f"It cannot be written down: {err.strerror}."
            raise BuilderUnavailableError(message) from err
        self._watch.look_soon()
        self._publish()
        return environment.version

    def _managed(self) -> Installer:
        """Return what installs ESPHome; raise `NotAllowedError` if nothing does."""
        if self._installer is None:
            raise NotAllowedError(NOT_MANAGED)
        return self._installer

    def _esphome(self) -> str:
        """Return which ESPHome to use; raise `EsphomeAwaitedError`."""
        if self._installer is None:
            return self._settings.esphome
        return self._installer.executable(self.jobs.values())

    @property
    @override
    def _surroundings(self) -> Surroundings:
        """Return what the last look found."""
        return Surroundings(
            state=self._watch.state,
            version=self._watch.version,
            problem=self._watch.message,
            configurations=self._watch.configurations,
        )

    @override
    def _make_info(self) -> BuilderInfo:
        """Return the builder as it is now, and what there is only of a local one."""
        usage = self._space.usage
        info = replace(
            super()._make_info(),
            obstacles=self._gate.obstacles,
            # Nobody needs to know of each file.
            disk_usage=None if usage is None else round(usage.total / _MIB) * _MIB,
        )
        if self._installer is None:
            return info
        environments = self._installer.environments
        current, previous = environments.current, environments.previous
        return replace(
            info,
            # What was tried when it was installed need not be asked to be known.
            esphome_version=current.version if current else None,
            managed=True,
            previous_version=previous.version if previous else None,
        )

    def _load(self) -> tuple[list[Job], int]:
        """Read what an earlier run left, and end what it left running; blocking."""
        settings = self._settings
        os.scandir(settings.config_dir).close()
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        jobs = load_jobs(settings.cache_dir / "jobs.json")
        cut_off = {job.job_id for job in jobs if job.status is JobStatus.RUNNING}
        end_leftovers(cut_off)
        if self._installer is not None:
            self._installer.environments.load()
        self._keeper.store.load()
        self._watch.changes.load()
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
        return await asyncio.to_thread(self._worker.stale, self.jobs, names)

    @override
    def _check_firmware(self, job_id: str, configuration: str) -> None:
        """Raise `InvalidRequestError` unless a job's firmware is kept for an upload."""
        self._keeper.require(job_id, configuration)

    @override
    def _pump(self) -> None:
        """Start what can start."""
        if not self._accepting:
            return
        executable, version = self._usable(), self._watch.version
        away = self._hold() if self._watch.first_look.is_set() else set()
        for job_id in away:
            self._gate.forget(job_id)
        for job in self._queue.runnable(self._gate.held, away):
            installs = job.kind is JobKind.INSTALL_ESPHOME
            if executable is None and not installs:
                continue
            if (found := self._gate.ask(job)) is None:
                continue
            if found and found[0].severity is not Severity.WARN:
                self._launch(job, partial(self._worker.refuse, found[0]))
                continue
            started = job
            if executable is not None and not installs:
                self._worker.executables[job.job_id] = executable
                started = replace(job, esphome_version=version)
            self._launch(started, partial(self._worker.do, found))

    def _usable(self) -> Path | None:
        """Return the ESPHome that jobs can start with."""
        executable = self._watch.executable
        if self._watch.state is not BuilderState.READY or executable is None:
            return None
        if self._installer is not None and not self._installer.uses(executable):
            # It was switched a moment ago, and may be removed.
            return None
        return executable

    def _launch(self, job: Job, work: _Work) -> None:
        """Start a job."""
        job = replace(
            job,
            status=JobStatus.RUNNING,
            started_at=datetime.now(UTC),
            phase=None,
            message=None,
        )
        self._note_device(job)
        self._runs[job.job_id] = run = JobRun(self._settings.limits[job.kind])
        self._update(job)
        self._tasks[job.job_id] = asyncio.create_task(
            self._run(job, run, work), name=f"{job.kind} {job.job_id}"
        )

    async def _run(self, job: Job, run: JobRun, work: _Work) -> None:
        """Take one job from start to end, whatever happens."""
        job_id = job.job_id
        log: JobLog | None = None
        exit_code: int | None = None
        try:
            log = await self._logs.open(job_id, job.total_lines)
            log.resume()
            if job.attempt > 1:
                log.append(["[Home Assistant was restarted; this is the 2nd attempt]"])
            verdict, exit_code = await work(job, run, log)
        except EndedEarlyError as err:
            verdict = err.verdict
        except LatestUnknownError as err:
            verdict = failed(err.cause, str(err))
        except BuilderUnavailableError as err:
            verdict = run.stopped or failed(Cause.ESPHOME_MISSING, str(err))
        except OSError as err:
            verdict = failed_with(err)
        except Exception:
            _LOGGER.exception("Job %s failed unexpectedly", job_id)
            verdict = INTERNAL_ERROR
        await self._end_run(job, verdict, exit_code, log)

    async def _end_run(
        self, job: Job, verdict: Verdict, exit_code: int | None, log: JobLog | None
    ) -> None:
        """Let go of what a run used, and let its job end, or wait for its device."""
        job_id = job.job_id
        again = self._waits_again(job, verdict)
        if log is not None:
            if again:
                log.append([f"[{OFF}]"])
            await log.close()
        await self._worker.tidy(job_id)
        del self._runs[job_id], self._tasks[job_id]
        if job.kind is JobKind.COMPILE:
            self._space.measure_soon()
        if again:
            self._wait_again(job_id, log)
        elif not self._verify(job_id, verdict, exit_code, log):
            self._finish(job_id, verdict, exit_code, log)

    @override
    def _end(self, job: Job, cause: Cause) -> None:
        """End a job from outside: at once if it waits, else as soon as it can be."""
        if run := self._runs.get(job.job_id):
            run.stop(cause)
        elif job.job_id in self._verifications:
            self._verifications.cancel(job.job_id, cause)
        elif not job.status.ended:
            self._gate.forget(job.job_id)
            self._finish(job.job_id, stopped(cause))

    @override
    async def _expect(self, job: Job) -> Expected:
        """Return what a device runs when an upload has worked; raise `OSError`."""
        return await asyncio.to_thread(self._keeper.sent, job, dict(self.jobs))

    @override
    def _look_soon(self) -> None:
        """Look what an ended job has changed."""
        self._watch.look_soon()

    def _on_look(self) -> None:
        """Take over what was found in the folder, and go on if that is possible now."""
        self._store.retry()
        self._gate.look_if_due()
        self._install_if_due()
        found = self._watch.configurations
        self._touched.update(found, self._configurations)
        self._pump()
        self._publish()

    def _on_host_look(self) -> None:
        """Start what this host is fit for, and tell what has to wait."""
        self._pump()
        for job_id, finding in self._gate.held.items():
            waiting = replace(
                self.jobs[job_id], phase=Phase.WAITING, message=finding.sentence
            )
            self._update(waiting)
        self._publish()

    @override
    def _with_device(
        self, configuration: Configuration, device: Device, version: str | None
    ) -> Configuration:
        """Return a configuration with what is known of its device."""
        found = super()._with_device(configuration, device, version)
        name = configuration.configuration
        pending = self._watch.changes.pending(name, device.built_at)
        return replace(found, pending_changes=pending)

    def _known_address(self, name: str) -> str | None:
        """Return where a device can be reached now, if that is known.

        Where one was that is off, another may be meanwhile.
        """
        configuration = self._configurations.get(name)
        device = self._device_of(configuration) if configuration else None
        return device.address if device is not None and device.online else None

    def _busy(self) -> Collection[str]:
        return self._queue.busy

    def _on_missing(self, esphome: str) -> None:
        """Give up an ESPHome of ours that is gone, so that it is installed again."""
        if self._installer is not None:
            self._installer.environments.lose(Path(esphome))
            self._watch.look_soon()

    def _install_if_due(self) -> None:
        """Ask for an ESPHome of our own if there is none."""
        installer, now = self._installer, datetime.now(UTC)
        jobs = self.jobs.values()
        if self._accepting and installer is not None and installer.due(jobs, now):
            version = installer.wanted(jobs)
            self._update(self._queue.install_esphome(version, now, None))
