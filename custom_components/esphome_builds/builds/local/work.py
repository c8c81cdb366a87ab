"""What is done for a job of a local builder, from when it has started."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from ..base import NOT_MANAGED
from ..builder import BuilderUnavailableError
from ..diagnosis import Diagnosis, Verdict
from ..findings import Finding, Obstacle, Severity
from ..log import JobLog
from ..models import Job, JobKind, JobStatus, Phase
from ..progress import Progress
from ..report import Reporter
from ..store import JobStore
from .gate import Gate
from .installer import Installer
from .keeper import Keeper
from .process import Command
from .run import JobRun, arguments, failed
from .secrets import Redactor
from .settings import LocalSettings
from .sources import Sources
from .uv_progress import InstallProgress
from .watch import Watch

type End = tuple[Verdict, int | None]


class Worker:
    """Carries jobs out; which of them, and when, others decide.

    `executables` are those that jobs use, by their ids.
    """

    def __init__(
        self,
        settings: LocalSettings,
        watch: Watch,
        gate: Gate,
        keeper: Keeper,
        installer: Installer | None,
    ) -> None:
        """Prepare to work with these."""
        self.executables: dict[str, Path] = {}
        self._environment = settings.environment
        self._gate = gate
        self._installer = installer
        self._keeper = keeper
        self._settings = settings
        self._sources = Sources(watch.folder)
        self._watch = watch

    def report_to(
        self,
        *,
        jobs: Callable[[], Mapping[str, Job]],
        update: Callable[[Job], None],
        store: JobStore,
        compiles: Callable[[], int],
        known_address: Callable[[str], str | None],
    ) -> None:
        """Say where jobs are kept, how many compiles run, and where a device is."""
        self._compiles = compiles
        self._known_address = known_address
        self._jobs = jobs
        self._store = store
        self._update = update

    def stale(self, jobs: Mapping[str, Job], names: Collection[str]) -> set[str]:
        """Return running jobs whose file was changed since they started; blocking."""
        return self._sources.stale(jobs, names)

    async def refuse(
        self, finding: Finding, _job: Job, _run: JobRun, log: JobLog
    ) -> End:
        """End a job that could only fail, or has waited for too long."""
        message = finding.sentence
        if finding.severity is Severity.WAIT:
            message = f"The job waited for too long. {message}"
        log.append([message])
        return failed(finding.cause, message), None

    async def do(
        self, found: Collection[Finding], job: Job, run: JobRun, log: JobLog
    ) -> End:
        """Say what may go wrong with a job, and carry it out.

        Raises `EndedEarlyError`, `BuilderUnavailableError`, `LatestUnknownError` and
        `OSError`.
        """
        # Of compilers it is said how many there really are.
        log.append(
            [
                f"[{finding.sentence}]"
                for finding in found
                if finding.obstacle is not Obstacle.MEMORY_SCARCE
            ]
        )
        if job.kind is JobKind.INSTALL_ESPHOME:
            return await self._install(job, run, log)
        if job.kind is JobKind.COMPILE:
            return await self._compile(job, run, log)
        end = await self._run_esphome(job, run, log, self._environment)
        if job.kind is JobKind.UPLOAD and end[0].status is JobStatus.COMPLETED:
            kept = self._keeper.store.find(job.firmware_job_id or "")
            await asyncio.to_thread(self._watch.changes.sent, job, kept)
        return end

    async def tidy(self, job_id: str) -> None:
        """Let go of what an ended job used: of its ESPHome, if nobody needs it."""
        self._sources.forget(job_id)
        self._watch.changes.forget(job_id)
        used = self.executables.pop(job_id, None)
        installer = self._installer
        if installer is not None and (used is None or not installer.uses(used)):
            await installer.tidy(self.executables.values())

    async def _compile(self, job: Job, run: JobRun, log: JobLog) -> End:
        """Build, with as many compilers as the host bears, and keep what was built."""
        with self._gate.compiling(job):
            environment, note = self._gate.limit(self._compiles())
            if note is not None:
                log.append([f"[{note}]"])
            end = await self._run_esphome(job, run, log, environment)
        if end[0].status is JobStatus.COMPLETED:
            await self._keeper.keep(self._job(job), self._jobs())
            watch = self._watch
            await asyncio.to_thread(watch.changes.record, job, watch.configurations)
        return end

    async def _run_esphome(
        self, job: Job, run: JobRun, log: JobLog, environment: dict[str, str]
    ) -> End:
        """Run the command of a job."""
        executable = self.executables[job.job_id]
        version = await self._watch.confirm(executable)
        self._update(replace(self._job(job), esphome_version=version))
        redactor, firmware = await asyncio.to_thread(self._prepare, job)
        # From here on a restart knows of this attempt.
        await self._store.flush()
        command = Command(
            argv=(
                str(executable),
                *arguments(job, firmware, self._known_address(job.configuration)),
            ),
            cwd=self._settings.config_dir,
            environment=environment,
            token=job.job_id,
        )
        reporter = Reporter(Progress(job.kind), self._reported(job.job_id, log))
        return await run.run([command], Diagnosis.of(job), log, redactor, reporter)

    def _prepare(self, job: Job) -> tuple[Redactor, Path | None]:
        """Check that the job can still run; return what to conceal, and what to send.

        Blocking. Raises `EndedEarlyError`.
        """
        self._sources.note(job)
        if job.kind is JobKind.COMPILE:
            self._watch.changes.begin(job)
        firmware = self._keeper.to_send(job)
        return Redactor.load(self._settings.config_dir), firmware

    async def _install(self, job: Job, run: JobRun, log: JobLog) -> End:
        """Install an ESPHome."""

        def _on_version(version: str) -> None:
            self._update(replace(self._job(job), esphome_version=version))

        if self._installer is None:
            raise BuilderUnavailableError(NOT_MANAGED)
        # From here on a restart knows of this attempt.
        await self._store.flush()
        reporter = Reporter(InstallProgress(), self._reported(job.job_id, log))
        return await self._installer.run(job, run, log, reporter, _on_version)

    def _reported(
        self, job_id: str, log: JobLog
    ) -> Callable[[Phase | None, int | None], None]:
        """Return what puts a run's progress into its job."""

        def _report(phase: Phase | None, progress: int | None) -> None:
            self._update(
                replace(
                    self._jobs()[job_id],
                    phase=phase,
                    progress=progress,
                    total_lines=log.total,
                    elided_lines=log.elided,
                )
            )

        return _report

    def _job(self, job: Job) -> Job:
        return self._jobs()[job.job_id]
