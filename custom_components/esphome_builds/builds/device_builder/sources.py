"""What running jobs work on: the text of their configuration when they began."""

import asyncio
from collections.abc import Iterable
from hashlib import blake2b

from ..models import Job
from .client import Client
from .errors import DeviceBuilderError


class Sources:
    """Knows which running jobs work on something older than there is now.

    Of the files that a configuration includes, a server tells nothing.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._digests: dict[str, asyncio.Task[bytes | None]] = {}

    def note(self, job: Job, client: Client) -> None:
        """Remember what a job works on that has begun just now."""
        self.drop(job.job_id)
        reading = asyncio.create_task(_digest(job.configuration, client))
        self._digests[job.job_id] = reading

    async def older(self, jobs: Iterable[Job], client: Client | None) -> set[str]:
        """Return the jobs that began with another text, or with one nobody knows."""
        return {job.job_id for job in jobs if not await self._is_same(job, client)}

    def drop(self, job_id: str) -> None:
        """Forget a job."""
        if (reading := self._digests.pop(job_id, None)) is not None:
            reading.cancel()

    async def close(self) -> None:
        """Leave no task."""
        readings = self._digests.values()
        for reading in readings:
            reading.cancel()
        if readings:
            await asyncio.wait(readings)

    async def _is_same(self, job: Job, client: Client | None) -> bool:
        before = self._digests.get(job.job_id)
        if before is None or client is None:
            return False
        await asyncio.wait([before])
        if before.cancelled() or before.result() is None:
            return False
        return before.result() == await _digest(job.configuration, client)


async def _digest(configuration: str, client: Client) -> bytes | None:
    """Return what tells the text of a configuration from others, if it can be read."""
    try:
        text = await client.command("devices/get_config", configuration=configuration)
    except DeviceBuilderError:
        return None
    if not isinstance(text, str):
        return None
    return blake2b(text.encode("utf-8", "replace")).digest()
