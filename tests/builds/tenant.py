"""A builder of any kind, and what there is to see of it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from custom_components.esphome_builds.builds.builder import Builder, BuildRequest
from custom_components.esphome_builds.builds.models import (
    Event,
    Job,
    JobEvent,
    JobStatus,
    Phase,
    RequestKind,
)

PATIENCE = 20.0
"""Seconds after which a test gives up to wait."""


class Tenant[BuilderT: Builder]:
    """A builder, with all events it told so far."""

    def __init__(self, builder: BuilderT) -> None:
        """Listen to the builder."""
        self.builder = builder
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        builder.listen(self._on_event)

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true; an event may make it so, or a process."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.02)

    async def submit(
        self,
        kind: str,
        *names: str,
        address: str | None = None,
        replace: bool = False,
    ) -> list[Job]:
        """Ask for something; return its jobs."""
        submission = await self.builder.submit(
            BuildRequest(
                kind=RequestKind(kind),
                configurations=names,
                address=address,
                replace=replace,
            )
        )
        return [*submission.jobs]

    def job(self, job: Job) -> Job:
        """Return a job as it is now."""
        return self.builder.jobs[job.job_id]

    async def running(self, job: Job) -> Job:
        """Wait until the process of a job prints something."""
        await self.until(lambda: self.job(job).total_lines > 0)
        return self.job(job)

    async def ended(self, *jobs: Job) -> list[Job]:
        """Wait until jobs have ended; return them as they are then."""
        await self.until(lambda: all(self.job(job).status.ended for job in jobs))
        return [self.job(job) for job in jobs]

    async def run(self, kind: str, *names: str, address: str | None = None) -> Job:
        """Ask for something, wait for its end, and return its last job."""
        jobs = await self.submit(kind, *names, address=address)
        return (await self.ended(*jobs))[-1]

    async def lines(self, job: Job) -> list[str]:
        """Return what is in the log of a job."""
        log = await self.builder.open_log(job.job_id)
        lines: list[str] = []
        while (page := await log.page(len(lines), 1000, 1024**2)).lines:
            lines += page.lines
        return lines

    def history(self, job: Job) -> list[Job]:
        """Return the states of a job that were told, in order."""
        return [
            event.job
            for event in self.events
            if isinstance(event, JobEvent) and event.job.job_id == job.job_id
        ]

    def statuses(self, job: Job) -> list[JobStatus]:
        """Return the statuses of a job that were told, each change once."""
        statuses: list[JobStatus] = []
        for state in self.history(job):
            if statuses[-1:] != [state.status]:
                statuses.append(state.status)
        return statuses

    def phases(self, job: Job) -> list[Phase]:
        """Return the phases of a job that were told, each change once."""
        phases: list[Phase] = []
        for state in self.history(job):
            if state.phase is not None and phases[-1:] != [state.phase]:
                phases.append(state.phase)
        return phases

    def steps(self) -> list[JobEvent]:
        """Return the steps of all jobs that were told, in order."""
        return [
            event
            for event in self.events
            if isinstance(event, JobEvent) and event.status_changed
        ]

    def of(self, configuration: str) -> list[Job]:
        """Return the jobs of a configuration, oldest first."""
        return [
            job
            for job in self.builder.jobs.values()
            if job.configuration == configuration
        ]


@asynccontextmanager
async def started[BuilderT: Builder](
    builder: BuilderT, *, ready: bool = True
) -> AsyncGenerator[Tenant[BuilderT]]:
    """Run a builder, and wait until it takes jobs."""
    tenant = Tenant(builder)
    await builder.start()
    builder.resume()
    try:
        if ready:
            await tenant.until(lambda: builder.info.state == "ready")
        yield tenant
    finally:
        await builder.stop()
