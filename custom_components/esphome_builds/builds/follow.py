"""Following the output of one job: history, then live, then the end."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Final

from .builder import Builder, UnknownJobError
from .log import BATCH_BYTES, BATCH_LINES, JobLog
from .models import (
    EndEvent,
    Event,
    FollowEvent,
    FollowOverflowEvent,
    FollowSnapshotEvent,
    GapEvent,
    Job,
    JobEvent,
    OutputEvent,
)
from .stream import Budget, Stream, StreamOverflowError

SNAPSHOT_BYTES: Final = 1024 * 1024
SNAPSHOT_LINES: Final = 2000


async def follow(
    builder: Builder, job_id: str, budget: Budget, from_line: int | None = None
) -> AsyncGenerator[FollowEvent]:
    """Yield a snapshot, then every line from there on once and in order, then the end.

    Starts at `from_line`, or 2,000 lines before the end of the log. While the consumer
    is behind, it is fed pages of the log at its own pace and nothing waits for it in
    memory. When it has caught up, events wait in a queue within `budget`. If it then
    does not keep up, or the builder is stopped while the job waits there for its turn,
    the last event is an overflow that says where to resume.

    Raises `UnknownJobError`.
    """
    log = await builder.open_log(job_id)
    # Lines never change, so the job is all that has to be frozen here.
    if (job := builder.jobs.get(job_id)) is None:
        raise UnknownJobError(job_id)
    start = max(0, log.total - SNAPSHOT_LINES) if from_line is None else from_line
    start = min(start, log.total)
    page = await log.page(start, SNAPSHOT_LINES, SNAPSHOT_BYTES)
    # A hole at the start of the snapshot is told after it, as any other.
    lines = page.lines if page.from_line == start else ()
    yield FollowSnapshotEvent(job=job, from_line=start, lines=lines)
    reader = _Reader(builder, log, job, start + len(lines))
    async with aclosing(reader.catch_up()) as events:
        async for event in events:
            yield event
    with Stream[OutputEvent | Event](budget) as stream:
        # No turn of the loop since the last look at the log: what comes, comes here.
        async with aclosing(reader.go_live(stream)) as events:
            async for event in events:
                yield event


class _Reader:
    """How far one follower has come."""

    def __init__(self, builder: Builder, log: JobLog, job: Job, line: int) -> None:
        """Start after the snapshot."""
        self._builder = builder
        self._log = log
        self._job = job
        self._line = line

    async def catch_up(self) -> AsyncGenerator[FollowEvent]:
        """Yield pages until there is nothing more to read, and changes of the job."""
        while self._line < self._log.total:
            page = await self._log.page(self._line, BATCH_LINES, BATCH_BYTES)
            if page.from_line > self._line:
                yield GapEvent(from_line=self._line, next_line=page.from_line)
            self._line = page.next_line
            if page.lines:
                yield OutputEvent(from_line=page.from_line, lines=page.lines)
            if (change := self._changed()) is not None:
                yield change

    async def go_live(
        self, stream: Stream[OutputEvent | Event]
    ) -> AsyncGenerator[FollowEvent]:
        """Yield what happens until the job has ended, or there is no way to go on."""
        stream.attach(self._log.listen)
        stream.attach(partial(_listen_to_job, self._builder, self._job.job_id))
        stopped = self._builder.stopped
        if (change := self._changed()) is not None:
            yield change
        with suppress(StreamOverflowError):
            while not (self._job.status.ended or stopped):
                event = await anext(stream)
                if isinstance(event, OutputEvent):
                    if event.from_line > self._line:
                        yield GapEvent(from_line=self._line, next_line=event.from_line)
                    self._line = event.next_line
                    yield event
                elif isinstance(event, JobEvent):
                    self._job = event.job
                    if not self._job.status.ended:
                        yield event
                else:
                    stopped = True
        if self._job.status.ended:
            yield EndEvent(job=self._job, next_line=self._line)
        else:
            yield FollowOverflowEvent(next_line=self._line)

    def _changed(self) -> JobEvent | None:
        """Return the job's change since the last look; its end is told last of all."""
        job = self._builder.jobs.get(self._job.job_id, self._job)
        changed = job is not self._job and not job.status.ended
        self._job = job
        return JobEvent(job=job) if changed else None


def _listen_to_job(
    builder: Builder, job_id: str, put: Callable[..., None]
) -> Callable[[], None]:
    """Attach a listener to one job; the last event always has a place in the queue."""

    def _on_event(event: Event) -> None:
        if isinstance(event, JobEvent) and event.job.job_id == job_id:
            put(event, last=event.job.status.ended)
        elif builder.stopped:
            put(event, last=True)

    return builder.listen(_on_event)
