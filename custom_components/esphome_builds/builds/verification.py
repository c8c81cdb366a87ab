"""Whether a device came back from an installation, and runs what was sent to it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
import logging
from typing import Final

from .devices import Device
from .diagnosis import Verdict, stopped
from .log import JobLog
from .logs import Logs
from .models import Cause, Job, JobStatus, Phase

VERIFY_SECONDS: Final = 300.0
"""For so long a device may take to come back with what was sent."""

_LOGGER = logging.getLogger(__name__)

_COMPLETED: Final = Verdict(status=JobStatus.COMPLETED, cause=None, message=None)
_SENT: Final = "the firmware had been sent already."


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What a device shall run, as in `Device`. What is not known is None."""

    version: str | None = None
    built_at: str | None = None


def is_verifying(job: Job) -> bool:
    """Return whether all that a job still does is to wait for its device."""
    return job.status is JobStatus.RUNNING and job.phase is Phase.VERIFYING


def is_back(device: Device | None, connections: int | None, expected: Expected) -> bool:
    """Return whether a device has connected again, and runs what it shall.

    `connections` is how often it had connected before, None where nobody knows.
    """
    return (
        device is not None
        and device.online is True
        and device.connections != connections
        and _is_version(device, expected)
        and _is_build(device, expected)
    )


def shortcoming(
    device: Device | None, connections: int | None, expected: Expected
) -> str:
    """Return what is wrong with a device that is not back as it should be."""
    if device is None or not device.online or device.connections == connections:
        return (
            "The firmware was sent, but the device has not come back within "
            f"{VERIFY_SECONDS / 60:g} minutes."
        )
    if device.version is None and expected.version is not None:
        return (
            "The firmware was sent and the device came back, but it does not say "
            "which ESPHome it runs."
        )
    if not _is_version(device, expected):
        return (
            "The firmware was sent, but the device came back with ESPHome "
            f"{device.version} instead of {expected.version}."
        )
    return (
        "The firmware was sent, but the device came back with another build than "
        f"that: the one of {device.built_at}."
    )


def _is_version(device: Device, expected: Expected) -> bool:
    return expected.version is None or device.version == expected.version


def _is_build(device: Device, expected: Expected) -> bool:
    return None in (expected.built_at, device.built_at) or (
        device.built_at == expected.built_at
    )


@dataclass(kw_only=True)
class _Wait:
    """One job that waits, and what it was told meanwhile."""

    connections: int | None
    task: asyncio.Task[None] | None = None
    cause: Cause | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Verifications:
    """Waits for devices to come back, each in a task.

    `device_of` says what is known of a job's device, and `expect` what it shall run.
    `on_end` is called with the verdict and the log of each job, unless it is closed.
    """

    def __init__(
        self,
        logs: Logs,
        device_of: Callable[[Job], Device | None],
        expect: Callable[[Job], Awaitable[Expected]],
        on_end: Callable[[str, Verdict, JobLog | None], None],
    ) -> None:
        """Start with none."""
        self._device_of = device_of
        self._expect = expect
        self._logs = logs
        self._on_end = on_end
        self._waits: dict[str, _Wait] = {}

    def __contains__(self, job_id: str) -> bool:
        """Return whether a job waits."""
        return job_id in self._waits

    def start(self, job: Job, connections: int | None) -> None:
        """Let a job wait whose device had connected so often when it was sent to."""
        wait = self._waits[job.job_id] = _Wait(connections=connections)
        wait.task = asyncio.create_task(
            self._run(job, wait), name=f"verify {job.job_id}"
        )

    def wake(self) -> None:
        """Look again, since something may be different about devices."""
        for wait in self._waits.values():
            wait.news.set()

    def cancel(self, job_id: str, cause: Cause) -> None:
        """End the wait of a job; the first cause given is the one that counts."""
        wait = self._waits[job_id]
        wait.cause = wait.cause or cause
        wait.news.set()

    async def ended(self, job_id: str) -> None:
        """Return when a job waits no longer."""
        wait = self._waits.get(job_id)
        if wait is not None and wait.task is not None:
            await asyncio.wait([wait.task])

    async def close(self) -> None:
        """End all waits, and leave the jobs as they are."""
        tasks = [wait.task for wait in self._waits.values() if wait.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, job: Job, wait: _Wait) -> None:
        try:
            job = await self._note(
                job, "[Waiting until the device is back and runs the new firmware]"
            )
            verdict = await self._wait(job, wait)
            result = verdict.message or "The device is back and runs the new firmware."
            await self._note(job, f"[{result}]")
            log = await self._log(job)
        finally:
            del self._waits[job.job_id]
        self._on_end(job.job_id, verdict, log)

    async def _wait(self, job: Job, wait: _Wait) -> Verdict:
        """Wait until the device is back, or that takes too long, or nobody wants it."""
        expected = await self._expected(job)
        with suppress(TimeoutError):
            async with asyncio.timeout(VERIFY_SECONDS):
                while wait.cause is None:
                    if is_back(self._device_of(job), wait.connections, expected):
                        return _COMPLETED
                    await wait.news.wait()
                    wait.news.clear()
        if wait.cause is not None:
            verdict = stopped(wait.cause)
            message = (verdict.message or "").rstrip(".")
            return replace(verdict, message=f"{message}; {_SENT}")
        return Verdict(
            status=JobStatus.FAILED,
            cause=Cause.NOT_VERIFIED,
            message=shortcoming(self._device_of(job), wait.connections, expected),
        )

    async def _expected(self, job: Job) -> Expected:
        """Return what the device shall run, as far as that can be found out."""
        try:
            return await self._expect(job)
        except OSError as err:
            _LOGGER.warning("It is not known what %s sent: %s", job.job_id, err)
            return Expected()

    async def _log(self, job: Job) -> JobLog | None:
        """Return the log of a job, None where it cannot be read."""
        try:
            return await self._logs.open(job.job_id, job.total_lines)
        except OSError:
            return None

    async def _note(self, job: Job, line: str) -> Job:
        """Add a line to the log of a job; return the job with as many lines."""
        if (log := await self._log(job)) is None:
            return job
        log.append([line])
        await log.close()
        return replace(job, total_lines=log.total)
