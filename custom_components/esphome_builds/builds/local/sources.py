"""Which text of a configuration a running job began with."""

from collections.abc import Collection, Mapping
from contextlib import suppress
import os

from ..models import Cause, Job
from .configurations import ConfigurationFolder, InvalidName
from .run import EndedEarlyError, failed


class Sources:
    """Tells which running jobs work on something older than there is now."""

    def __init__(self, folder: ConfigurationFolder) -> None:
        """Begin without a job."""
        self._folder = folder
        self._started_from: dict[str, os.stat_result] = {}

    def note(self, job: Job) -> None:
        """Note what a job begins with; blocking.

        Raises `EndedEarlyError` if there is nothing to begin with.
        """
        name = job.configuration
        try:
            self._started_from[job.job_id] = self._folder.resolve(name).stat()
        except (InvalidName, OSError) as err:
            message = f"The configuration {name} is no longer there."
            raise EndedEarlyError(failed(Cause.INVALID_CONFIG, message)) from err

    def forget(self, job_id: str) -> None:
        """Let go of a job that has ended."""
        self._started_from.pop(job_id, None)

    def stale(self, jobs: Mapping[str, Job], names: Collection[str]) -> set[str]:
        """Return running jobs whose file was changed since they started; blocking."""
        stale = set()
        for job_id, before in tuple(self._started_from.items()):
            job = jobs.get(job_id)
            if job is not None and job.configuration in names:
                with suppress(InvalidName, OSError):
                    now = self._folder.resolve(job.configuration).stat()
                    if _signature(now) != _signature(before):
                        stale.add(job_id)
        return stale


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino
