"""Keeps the firmware of a builder's jobs, and hands it out again."""

import asyncio
from collections.abc import Collection, Mapping
import logging
from pathlib import Path

from ..builder import InvalidRequestError
from ..kept import NoFirmwareError
from ..models import Cause, Job
from ..verification import Expected
from .built import Firmware, look_at_firmware, read_storage
from .firmware import FirmwareStore
from .run import EndedEarlyError, failed

_LOGGER = logging.getLogger(__name__)


class Keeper:
    """Lets no firmware go that a job shall send.

    `lock` is held while it is decided what stays: with it, what is there stays until
    there is a job that needs it.
    """

    def __init__(self, folder: Path, data_dir: Path) -> None:
        """Prepare; nothing is read yet."""
        self.lock = asyncio.Lock()
        self.store = FirmwareStore(folder)
        self._data_dir = data_dir

    def require(self, job_id: str, configuration: str) -> None:
        """Raise `InvalidRequestError` unless a job's firmware is kept for an upload."""
        kept = self.store.find(job_id)
        if kept is None or kept.configuration != configuration:
            raise InvalidRequestError(
                f"No firmware of {configuration} by job {job_id} is kept."
            )

    def to_send(self, job: Job) -> Path | None:
        """Return what an upload sends, None for what was built last; blocking.

        Raises `EndedEarlyError` where it is not there any more.
        """
        if job.firmware_job_id is None:
            return None
        try:
            return self.store.path(job.firmware_job_id)
        except NoFirmwareError as err:
            verdict = failed(Cause.PREREQUISITE_FAILED, str(err))
            raise EndedEarlyError(verdict) from err

    def sent(self, job: Job, jobs: Mapping[str, Job]) -> Expected:
        """Return what an upload has sent; blocking, raises `OSError`."""
        if job.firmware_job_id is not None:
            kept = self.store.find(job.firmware_job_id)
            if kept is None:
                return Expected()
            return Expected(version=kept.version, built_at=kept.built_at)
        path = self._data_dir / "storage" / f"{job.configuration}.json"
        storage = read_storage(str(path), self._data_dir)
        built = look_at_firmware(storage, Firmware())
        before = jobs.get(job.depends_on or "")
        version = built.version or (before and before.esphome_version)
        return Expected(version=version or None, built_at=built.built_at)

    async def keep(self, job: Job, jobs: Mapping[str, Job]) -> None:
        """Keep what a job has built, to go back to; no reason for it to fail."""
        async with self.lock:
            try:
                await asyncio.to_thread(
                    self.store.keep, job, self._data_dir, in_use=_in_use(jobs)
                )
            except NoFirmwareError as err:
                _LOGGER.info("No firmware of %s is kept: %s", job.configuration, err)
            except OSError as err:
                name = job.configuration
                _LOGGER.warning("The firmware of %s cannot be kept: %s", name, err)


def _in_use(jobs: Mapping[str, Job]) -> Collection[str]:
    return {
        job.firmware_job_id
        for job in jobs.values()
        if job.firmware_job_id is not None and not job.status.ended
    }
