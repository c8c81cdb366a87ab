"""The ESPHome that a builder manages itself: when it is installed, and how."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
import logging
import os
from pathlib import Path
from typing import Final

from ..diagnosis import Verdict
from ..log import JobLog
from ..models import Job, JobKind, JobStatus
from ..report import Reporter
from .environment import EsphomeAwaitedError
from .environments import Environments
from .run import JobRun
from .secrets import Redactor
from .uv import LatestUnknownError, latest_version
from .uv_failures import InstallDiagnosis

_LOGGER = logging.getLogger(__name__)

RETRY: Final = timedelta(hours=1)
"""After an installation that did not complete, until it is tried again by itself."""

_COMPLETED: Final = Verdict(status=JobStatus.COMPLETED, cause=None, message=None)
# What an installer prints has no secrets of configurations.
_NOTHING_SECRET: Final = Redactor(())


class Installer:
    """Owns the environments, and carries out the jobs that install one."""

    def __init__(
        self, root: Path, python: Path, environment: Mapping[str, str]
    ) -> None:
        """Prepare; the environment is the one in which an ESPHome is tried."""
        self.environments = Environments(root, python)
        self._asked: dict[str, str | None] = {}
        self._environment = environment
        self._python = python

    def executable(self, jobs: Iterable[Job]) -> str:
        """Return the ESPHome to use; raise `EsphomeAwaitedError` if there is none."""
        if (current := self.environments.current) is not None:
            return str(current.executable)
        last = _newest(jobs)
        if last is not None and not last.status.ended:
            raise EsphomeAwaitedError("ESPHome is being installed.")
        why = last and last.message
        message = f"ESPHome is not installed. {why}" if why else "It is not installed."
        raise EsphomeAwaitedError(message)

    def uses(self, executable: Path) -> bool:
        """Return whether this is the ESPHome to use."""
        current = self.environments.current
        return current is not None and current.executable == executable

    def due(self, jobs: Iterable[Job], now: datetime) -> bool:
        """Return whether to install an ESPHome although nobody asks for it."""
        if self.environments.current is not None:
            return False
        last = _newest(jobs)
        if last is None or last.status is JobStatus.COMPLETED:
            # What was installed has been lost since.
            return True
        if not last.status.ended or last.finished_at is None:
            return False
        # The clock may have been set back meanwhile.
        return abs(now - last.finished_at) >= RETRY

    def wanted(self, jobs: Iterable[Job]) -> str | None:
        """Return the version to install although nobody asks, None for the latest.

        One that was lost comes back, unless it cannot be installed any more.
        """
        lost, last = self.environments.lost, _newest(jobs)
        if lost is None or (
            last is not None
            and last.status is JobStatus.FAILED
            and last.esphome_version == lost.version
        ):
            return None
        return lost.version

    def find(self, active: Iterable[Job], version: str | None) -> Job | None:
        """Return the active job that does what is asked for."""
        for job in active:
            if (
                job.kind is JobKind.INSTALL_ESPHOME
                and self._asked.get(job.job_id, job.esphome_version) == version
            ):
                return job
        return None

    async def run(
        self,
        job: Job,
        run: JobRun,
        log: JobLog,
        reporter: Reporter,
        on_version: Callable[[str], None],
    ) -> tuple[Verdict, int | None]:
        """Install, try and switch; return the verdict and the last exit status.

        Raises `LatestUnknownError`, `EndedEarlyError`, and `OSError`.
        """
        self._asked[job.job_id] = job.esphome_version
        try:
            version = job.esphome_version or await self._latest(job.job_id, run, log)
            on_version(version)
            if self._has(job, version):
                log.append([f"ESPHome {version} is installed already"])
                return _COMPLETED, None
            return await self._install(version, job.job_id, run, log, reporter)
        finally:
            reporter.close()
            del self._asked[job.job_id]

    async def tidy(self, in_use: Collection[Path]) -> None:
        """Remove the environments that nobody needs; what cannot be stays."""
        try:
            await self.environments.tidy(in_use)
        except OSError as err:
            _LOGGER.warning("Old versions of ESPHome cannot be removed: %s", err)

    async def _latest(self, token: str, run: JobRun, log: JobLog) -> str:
        """Return which version is the latest; raise `LatestUnknownError`."""
        log.append(["Looking for the latest ESPHome"])
        try:
            version = await run.ask(
                latest_version(self._python, os.environ, token=token)
            )
        except LatestUnknownError as err:
            log.append([str(err)])
            raise
        log.append([f"The latest ESPHome is {version}"])
        return version

    def _has(self, job: Job, version: str) -> bool:
        """Return whether there is nothing to do; to name a version makes it anew.

        A first attempt may have been cut off after the switch.
        """
        current = self.environments.current
        return (
            current is not None
            and current.version == version
            and (job.esphome_version is None or job.attempt > 1)
        )

    async def _install(
        self, version: str, token: str, run: JobRun, log: JobLog, reporter: Reporter
    ) -> tuple[Verdict, int | None]:
        """Make an environment, and use it if all went well."""
        installation = await asyncio.to_thread(
            self.environments.plan, version, token, self._environment
        )
        switched = False
        try:
            verdict, exit_code = await run.run(
                installation.commands,
                InstallDiagnosis(version),
                log,
                _NOTHING_SECRET,
                reporter,
            )
            if verdict.status is JobStatus.COMPLETED:
                await self.environments.switch(installation)
                switched = True
        finally:
            if not switched:
                await self.environments.discard(installation)
        return verdict, exit_code


def _newest(jobs: Iterable[Job]) -> Job | None:
    """Return the newest installation."""
    newest = None
    for job in jobs:
        if job.kind is JobKind.INSTALL_ESPHOME:
            newest = job
    return newest
