"""Following a job: history, then live, then the end; each line once and in order.

The numbers are those of the behaviors of ESPHome Device Builder's own streams that this
project promised to hold.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing
from pathlib import Path
import sys
import tracemalloc

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.esphome_builds.builds import (
    log as log_module,
    log_files as log_files_module,
)
from custom_components.esphome_builds.builds.builder import Builder, UnknownJobError
from custom_components.esphome_builds.builds.follow import SNAPSHOT_LINES, follow
from custom_components.esphome_builds.builds.log_files import LogFiles
from custom_components.esphome_builds.builds.models import (
    Cause,
    EndEvent,
    FollowEvent,
    FollowOverflowEvent,
    FollowSnapshotEvent,
    GapEvent,
    JobEvent,
    JobStatus,
    OutputEvent,
    Phase,
)
from custom_components.esphome_builds.builds.stream import Budget

from .stand_in import StandIn, make_job

_MIB = 1024 * 1024
_ENDED = sorted(status for status in JobStatus if status.ended)

type Pace = Callable[[FollowEvent], Awaitable[object]]


@pytest.fixture
async def builder(tmp_path: Path) -> AsyncGenerator[StandIn]:
    """Return a builder with a job that runs."""
    builder = StandIn(tmp_path, make_job(status=JobStatus.RUNNING))
    yield builder
    await builder.stop()


@pytest.fixture
def budget() -> Budget:
    """Return what one connection may hold."""
    return Budget()


@pytest.fixture
def leftovers() -> Generator[list[object]]:
    """Return the generators that are left for the event loop to finish."""
    found: list[object] = []
    hooks = sys.get_asyncgen_hooks()

    def _note(generator: AsyncGenerator[object]) -> None:
        found.append(repr(generator))
        if hooks.finalizer is not None:
            hooks.finalizer(generator)

    sys.set_asyncgen_hooks(finalizer=_note)
    yield found
    sys.set_asyncgen_hooks(finalizer=hooks.finalizer)


class Follower:
    """Reads a follower's events, checks that they fit together, and keeps them."""

    def __init__(
        self,
        builder: Builder,
        from_line: int | None = None,
        pace: Pace | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Begin to follow job 1."""
        self.events: list[FollowEvent] = []
        self.lines: dict[int, str] = {}
        self.gaps: list[tuple[int, int]] = []
        self.next_line = 0
        self._pace = pace
        self._source = (builder, "1", budget or Budget(), from_line)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with aclosing(follow(*self._source)) as events:
            async for event in events:
                self._take(event)
                if self._pace is not None:
                    await self._pace(event)

    def _take(self, event: FollowEvent) -> None:
        """Check that an event continues the one before."""
        assert not isinstance(
            self.events and self.events[-1], (EndEvent, FollowOverflowEvent)
        )
        assert isinstance(event, FollowSnapshotEvent) == (not self.events)
        self.events.append(event)
        if isinstance(event, FollowSnapshotEvent):
            self.next_line = event.from_line
        if isinstance(event, GapEvent):
            assert event.from_line == self.next_line < event.next_line
            self.gaps.append((event.from_line, event.next_line - 1))
            self.next_line = event.next_line
        elif isinstance(event, (FollowSnapshotEvent, OutputEvent)):
            assert event.from_line == self.next_line
            self.lines |= enumerate(event.lines, event.from_line)
            self.next_line += len(event.lines)
        elif isinstance(event, (EndEvent, FollowOverflowEvent)):
            assert event.next_line == self.next_line

    async def done(self, seconds: float = 10) -> None:
        """Wait until there are no more events."""
        async with asyncio.timeout(seconds):
            await self.task

    @property
    def last(self) -> FollowEvent:
        """Return the newest event."""
        return self.events[-1]

    def of[EventT: FollowEvent](self, kind: type[EventT]) -> list[EventT]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


async def settle() -> None:
    """Let everything happen that can happen now."""
    for _ in range(20):
        await asyncio.sleep(0)


def complete(follower: Follower, first: int, total: int) -> bool:
    """Return whether a follower has all lines, each under its number."""
    return follower.lines == {line: f"line {line}" for line in range(first, total)}


async def test_snapshot_then_live_then_end(builder: StandIn) -> None:
    """Origin 6, 8: history, then what happens, in order, then the end."""
    builder.append(10)
    follower = Follower(builder)
    await settle()
    assert follower.events == [
        FollowSnapshotEvent(
            job=builder.jobs["1"],
            from_line=0,
            lines=tuple(f"line {line}" for line in range(10)),
        )
    ]

    running = builder.change(progress=5)
    builder.append(500)
    changed = builder.change(progress=6)
    builder.append(2)
    ended = await builder.end(exit_code=0)
    await follower.done()

    assert [type(event) for event in follower.events] == [
        FollowSnapshotEvent,
        JobEvent,
        OutputEvent,
        JobEvent,
        OutputEvent,
        EndEvent,
    ]
    assert [event.job for event in follower.of(JobEvent)] == [running, changed]
    assert follower.last == EndEvent(job=ended, next_line=512)
    assert complete(follower, 0, 512)
    assert builder.attached == 0


async def test_snapshot_is_the_end_of_a_long_log(builder: StandIn) -> None:
    """Without a place to start, a follower begins 2,000 lines before the end."""
    builder.append(30_000)
    follower = Follower(builder)
    await builder.end()
    await follower.done()

    (snapshot,) = follower.of(FollowSnapshotEvent)
    assert SNAPSHOT_LINES == 2000
    assert snapshot.from_line == 28_000
    assert complete(follower, 28_000, 30_000)


@pytest.mark.parametrize("from_line", [0, 1, 499, 5000, 26_001, 29_999, 30_000])
async def test_from_a_line(builder: StandIn, from_line: int) -> None:
    """From any line on, everything comes, in events of at most 500 lines and 64 KiB."""
    builder.append(30_000)
    follower = Follower(builder, from_line)
    await settle()
    builder.append(300)
    await builder.end()
    await follower.done()

    assert complete(follower, from_line, 30_300)
    assert len(follower.of(FollowSnapshotEvent)[0].lines) <= SNAPSHOT_LINES
    for event in follower.of(OutputEvent):
        assert len(event.lines) <= 500
        assert sum(len(line) + 1 for line in event.lines) <= 64 * 1024


async def test_from_beyond_the_end(builder: StandIn) -> None:
    """Who wants to start where nothing is yet starts at the end there is."""
    builder.append(10)
    follower = Follower(builder, 1_000_000)
    await settle()
    builder.append(5)
    await builder.end()
    await follower.done()

    assert follower.events[0] == FollowSnapshotEvent(
        job=follower.of(FollowSnapshotEvent)[0].job, from_line=10, lines=()
    )
    assert complete(follower, 10, 15)


async def test_snapshot_is_bounded_in_bytes(builder: StandIn) -> None:
    """Very long lines make a snapshot of fewer lines; the rest follows."""
    builder.append(1000, width=8000)
    follower = Follower(builder)
    await builder.end()
    await follower.done()

    (snapshot,) = follower.of(FollowSnapshotEvent)
    assert 0 < sum(len(line) + 1 for line in snapshot.lines) <= _MIB
    assert len(follower.lines) == 1000
    assert not follower.gaps


async def test_job_changes_while_the_snapshot_is_sent(builder: StandIn) -> None:
    """Origin 7: the snapshot shows the job as it was; the change comes once, after."""
    builder.append(10)
    sent = asyncio.Event()

    async def _pace(event: FollowEvent) -> None:
        if isinstance(event, FollowSnapshotEvent):
            await sent.wait()

    follower = Follower(builder, pace=_pace)
    await settle()
    builder.change(phase=Phase.COMPILING, progress=1)
    builder.append(10)
    builder.change(progress=2)
    sent.set()
    await settle()
    builder.change(progress=3)
    await settle()

    assert follower.of(FollowSnapshotEvent)[0].job.progress is None
    # Of what happened meanwhile the newest is enough.
    assert [event.job.progress for event in follower.of(JobEvent)] == [2, 3]
    assert complete(follower, 0, 20)
    await builder.end()
    await follower.done()


async def test_only_the_job_changes_while_the_snapshot_is_sent(
    builder: StandIn,
) -> None:
    """Origin 6: a change without any output is told as well, once."""
    sent = asyncio.Event()

    async def _pace(_: FollowEvent) -> None:
        await sent.wait()

    builder.append(10)
    follower = Follower(builder, pace=_pace)
    await settle()
    changed = builder.change(progress=7)
    sent.set()
    await settle()

    assert follower.of(JobEvent) == [JobEvent(job=changed)]
    await builder.end()
    await follower.done()
    assert len(follower.of(JobEvent)) == 1


async def test_job_changes_while_the_history_is_sent(builder: StandIn) -> None:
    """Who is far behind still sees how far the job is."""

    async def _pace(event: FollowEvent) -> None:
        if isinstance(event, OutputEvent) and event.from_line == 4000:
            builder.change(progress=50)

    builder.append(10_000)
    follower = Follower(builder, 0, pace=_pace)
    async with asyncio.timeout(10):
        while follower.next_line < 10_000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await builder.end()
    await follower.done()

    (change,) = follower.of(JobEvent)
    position = follower.events.index(change)
    before = follower.events[position - 1]
    assert isinstance(before, OutputEvent)
    assert before.from_line <= 4500


async def test_log_is_trimmed_while_the_snapshot_is_sent(builder: StandIn) -> None:
    """Origin 6: what left memory meanwhile is read from disk."""
    sent = asyncio.Event()

    async def _pace(event: FollowEvent) -> None:
        if isinstance(event, FollowSnapshotEvent):
            await sent.wait()

    builder.append(100)
    follower = Follower(builder, pace=_pace)
    await settle()
    builder.append(50_000)
    sent.set()
    await builder.end()
    await follower.done()

    assert complete(follower, 0, 50_100)
    assert not follower.gaps


async def test_nothing_is_attached_while_behind(builder: StandIn) -> None:
    """Origin 9: who is behind holds nothing in memory, however slow it is."""
    budget = Budget()
    reading = asyncio.Event()

    async def _pace(_: FollowEvent) -> None:
        await reading.wait()

    follower = Follower(builder, pace=_pace, budget=budget)
    await settle()
    tracemalloc.start()
    try:
        for _ in range(100):
            builder.append(500, width=200)
            await builder.log().throttle()
            await asyncio.sleep(0)
        assert tracemalloc.get_traced_memory()[1] < 8 * _MIB
    finally:
        tracemalloc.stop()
    assert builder.attached == 0
    assert (budget.events, budget.bytes) == (0, 0)

    reading.set()
    await builder.end()
    await follower.done()
    assert len(follower.lines) == 50_000
    assert isinstance(follower.last, EndEvent)


async def test_slow_follower_that_catches_up_does_not_overflow(
    builder: StandIn,
) -> None:
    """A follower that is fed from the log ends with every line, at its own pace."""

    async def _pace(_: FollowEvent) -> None:
        await asyncio.sleep(0.001)

    builder.append(20_000)
    follower = Follower(builder, 0, pace=_pace)
    for _ in range(40):
        builder.append(500)
        await asyncio.sleep(0)
    await builder.end()
    await follower.done()

    assert complete(follower, 0, 40_000)
    assert isinstance(follower.last, EndEvent)


async def test_live_follower_that_stops_reading_overflows(builder: StandIn) -> None:
    """Origin 15, 18: it is told where to resume, and there it misses nothing."""
    reading = asyncio.Event()
    budget = Budget()

    async def _pace(event: FollowEvent) -> None:
        if isinstance(event, OutputEvent):
            await reading.wait()

    follower = Follower(builder, pace=_pace, budget=budget)
    await settle()
    other = Follower(builder)
    await settle()
    for _ in range(300):
        builder.append(500, width=50)
        assert budget.bytes <= _MIB
        await asyncio.sleep(0)
    assert (budget.events, budget.bytes) == (0, 0)
    reading.set()
    await follower.done()

    assert isinstance(follower.last, FollowOverflowEvent)
    assert follower.last.next_line == 500
    assert not other.task.done()
    again = Follower(builder, follower.last.next_line)
    await builder.end()
    await again.done()
    await other.done()
    assert len(follower.lines | again.lines) == 150_000
    assert set(follower.lines).isdisjoint(again.lines)
    assert len(other.lines) == 150_000
    assert builder.attached == 0


async def test_many_small_events_overflow_as_well(builder: StandIn) -> None:
    """The number of waiting events is bounded, not only their bytes."""
    reading = asyncio.Event()

    async def _pace(event: FollowEvent) -> None:
        if isinstance(event, JobEvent):
            await reading.wait()

    budget = Budget()
    follower = Follower(builder, pace=_pace, budget=budget)
    await settle()
    for progress in range(1002):
        builder.change(progress=progress % 100)
        await asyncio.sleep(0)
        assert budget.events <= 1000
    reading.set()
    await follower.done()

    assert follower.last == FollowOverflowEvent(next_line=0)


async def test_the_end_fits_into_a_full_queue(builder: StandIn) -> None:
    """Origin 10: a queue that is full of output still takes the job's end."""
    reading = asyncio.Event()

    async def _pace(event: FollowEvent) -> None:
        if isinstance(event, JobEvent):
            await reading.wait()

    budget = Budget(max_events=4)
    follower = Follower(builder, pace=_pace, budget=budget)
    await settle()
    builder.change(progress=1)
    await settle()
    for _ in range(4):
        builder.append(500)
    assert budget.events == 4
    await builder.end(exit_code=3, status=JobStatus.FAILED)
    reading.set()
    await follower.done()

    assert complete(follower, 0, 2000)
    assert isinstance(follower.last, EndEvent)
    assert follower.last.job.exit_code == 3


@pytest.mark.parametrize("status", _ENDED)
@pytest.mark.parametrize("before", [JobStatus.QUEUED, JobStatus.RUNNING])
async def test_every_end_ends_a_follower(
    tmp_path: Path, before: JobStatus, status: JobStatus
) -> None:
    """Origin 11: completed, failed, canceled, interrupted; queued before or running."""
    builder = StandIn(tmp_path, make_job(status=before))
    follower = Follower(builder)
    await settle()
    assert not follower.task.done()
    ended = await builder.end(status=status)
    await follower.done()

    assert follower.last == EndEvent(job=ended, next_line=0)
    assert builder.attached == 0


async def test_only_one_job(builder: StandIn) -> None:
    """Origin 12: of other jobs a follower sees nothing, not even their end."""
    builder._jobs["2"] = make_job("2", status=JobStatus.RUNNING)
    follower = Follower(builder)
    await settle()
    builder.append(1000, "2")
    builder.change("2", progress=50)
    await builder.end("2")
    builder.remove("2")
    await settle()

    assert len(follower.events) == 1
    assert not follower.task.done()
    await builder.end()
    await follower.done()


@pytest.mark.parametrize("from_line", [None, 0, 1500])
async def test_job_that_has_ended(builder: StandIn, from_line: int | None) -> None:
    """Origin 13: the whole history, then the result once, with the exit code."""
    builder.append(1800)
    await builder.end(
        status=JobStatus.FAILED, exit_code=2, cause=Cause.COMPILE_ERROR, message="No."
    )
    follower = Follower(builder, from_line)
    await follower.done()

    assert complete(follower, from_line or 0, 1800)
    assert not follower.of(JobEvent)
    (end,) = follower.of(EndEvent)
    assert (end.job.exit_code, end.job.cause) == (2, Cause.COMPILE_ERROR)
    assert builder.attached == 0


async def test_job_that_ends_while_the_history_is_sent(builder: StandIn) -> None:
    """Origin 13: its end is told once, last of all, after every line."""
    reading = asyncio.Event()

    async def _pace(_: FollowEvent) -> None:
        await reading.wait()

    builder.append(10_000)
    follower = Follower(builder, 0, pace=_pace)
    await settle()
    builder.append(5000)
    builder.change(progress=99)
    await builder.end(exit_code=0)
    reading.set()
    await follower.done()

    assert complete(follower, 0, 15_000)
    assert len(follower.of(EndEvent)) == 1
    assert not follower.of(JobEvent)


async def test_job_that_is_removed(builder: StandIn) -> None:
    """A job that leaves the history under its follower is told to its end."""
    reading = asyncio.Event()

    async def _pace(_: FollowEvent) -> None:
        await reading.wait()

    builder.append(10_000)
    ended = await builder.end()
    follower = Follower(builder, 0, pace=_pace)
    await settle()
    builder.remove()
    reading.set()
    await follower.done()

    assert complete(follower, 0, 10_000)
    assert follower.last == EndEvent(job=ended, next_line=10_000)


@pytest.mark.parametrize("live", [True, False])
async def test_builder_that_stops_before_the_job_runs(
    builder: StandIn, *, live: bool
) -> None:
    """A job that goes on elsewhere later does not keep its followers waiting here."""
    reading = asyncio.Event()

    async def _pace(_: FollowEvent) -> None:
        await reading.wait()

    builder.append(3000)
    follower = Follower(builder, 0, pace=_pace)
    if live:
        reading.set()
    await settle()
    await builder.stop()
    reading.set()
    await follower.done()

    assert complete(follower, 0, 3000)
    assert follower.last == FollowOverflowEvent(next_line=3000)
    assert builder.attached == 0


async def test_unknown_job(builder: StandIn) -> None:
    """There is nothing to follow where there is no job, or is none any more."""
    with pytest.raises(UnknownJobError):
        await anext(follow(builder, "2", Budget()))

    class _Slow(StandIn):
        async def open_log(self, job_id: str) -> log_module.JobLog:
            log = await super().open_log(job_id)
            self.remove(job_id)
            return log

    slow = _Slow(builder._folder, make_job())
    with pytest.raises(UnknownJobError):
        await anext(follow(slow, "1", Budget()))


@pytest.mark.usefixtures("small")
async def test_gap(builder: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are gone for ever are told as a gap, wherever one starts."""
    for name, value in {
        "HEAD_BYTES": 2000,
        "LOG_BYTES": 12_000,
        "SEGMENT_BYTES": 1500,
    }.items():
        monkeypatch.setattr(log_files_module, name, value)
    for _ in range(60):
        builder.append(10, width=80)
        await builder.log().throttle()
        await builder.log()._written(builder.log().total)
    await builder.end()
    ((first, last),) = builder.log().gaps

    for from_line in (0, first - 1, first, first + 1, last, last + 1):
        follower = Follower(builder, from_line)
        await follower.done()
        start = max(first, from_line)
        assert follower.gaps == ([(start, last)] if start <= last else [])
        assert [*follower.lines] == [
            *range(from_line, first),
            *range(max(from_line, last + 1), 600),
        ]


async def test_end_that_is_gone(builder: StandIn, tmp_path: Path) -> None:
    """Lines at the end of a log that a crash took are a gap, and then comes the end."""
    builder.append(100)
    await builder.end()
    builder.logs["1"] = log_module.JobLog(LogFiles(tmp_path / "1"), 150)
    follower = Follower(builder, 90)
    await follower.done()

    assert [type(event) for event in follower.events] == [
        FollowSnapshotEvent,
        GapEvent,
        EndEvent,
    ]
    assert follower.gaps == [(100, 149)]
    assert follower.last == EndEvent(job=builder.jobs["1"], next_line=150)


async def test_fifty_followers_of_a_flood(builder: StandIn) -> None:
    """All get contiguous lines, or an overflow after which they resume."""
    budgets = [Budget() for _ in range(50)]

    def _pace(number: int) -> Pace:
        async def _wait(_: FollowEvent) -> None:
            # Some read at once, some slowly, some hardly.
            await asyncio.sleep((0, 0.001, 0.05)[number % 3])

        return _wait

    followers = [
        Follower(builder, pace=_pace(number), budget=budget)
        for number, budget in enumerate(budgets)
    ]
    await settle()
    for _ in range(60):
        builder.append(500, width=30)
        await builder.log().throttle()
        await asyncio.sleep(0)
    for follower in followers:
        follower._pace = None
    await builder.end()
    for follower in followers:
        await follower.done(30)
        while isinstance(follower.last, FollowOverflowEvent):
            lines = follower.lines
            follower = Follower(builder, follower.last.next_line)  # noqa: PLW2901
            await follower.done(30)
            follower.lines |= lines
        assert isinstance(follower.last, EndEvent)
        assert [*sorted(follower.lines)] == [*range(30_000)]
    assert builder.attached == 0
    assert all((budget.events, budget.bytes) == (0, 0) for budget in budgets)


@pytest.mark.parametrize("turns", range(0, 60, 5))
@pytest.mark.parametrize("lines", [0, 10_000])
async def test_cancelled_anywhere(
    builder: StandIn, lines: int, turns: int, leftovers: list[object]
) -> None:
    """Origin 14: a follower that goes at any await leaves no listener and no task."""
    budget = Budget()
    tasks = asyncio.all_tasks()
    builder.append(lines)
    follower = Follower(builder, 0, budget=budget)
    for turn in range(turns):
        await asyncio.sleep(0)
        if turn % 5 == 0:
            builder.append(500)
            builder.change(progress=turn)
    follower.task.cancel()
    await asyncio.wait([follower.task])

    assert builder.attached == 0
    assert (budget.events, budget.bytes) == (0, 0)
    left = asyncio.all_tasks() - tasks
    assert not {task for task in left if task is not builder.log()._writer}
    assert not leftovers


@pytest.mark.parametrize("count", range(8))
async def test_disconnect_while_an_event_is_sent(
    builder: StandIn, count: int, leftovers: list[object]
) -> None:
    """Origin 14: a follower that is closed between events leaves nothing either."""
    builder.append(3000)
    events = follow(builder, "1", Budget(), 0)
    for number in range(count):
        builder.append(1)
        builder.change(progress=number)
        await anext(events)
    await events.aclose()

    assert builder.attached == 0
    assert not leftovers


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the log's bounds so small that a few lines pass them."""
    for name, value in {
        "BATCH_BYTES": 200,
        "BATCH_LINES": 5,
        "MEMORY_BYTES": 1000,
        "MEMORY_LINES": 20,
    }.items():
        monkeypatch.setattr(log_module, name, value)


_STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 40)),
    st.tuples(st.just("turn"), st.integers(1, 8)),
    st.tuples(st.just("follow"), st.integers(0, 100)),
    st.tuples(st.just("change"), st.integers(0, 99)),
    st.tuples(st.sampled_from(["read", "stop"]), st.integers(0, 5)),
)


class Crowd:
    """A job with followers that come, read, stop reading and resume."""

    def __init__(self, folder: Path) -> None:
        """Start with a job that has no follower."""
        self.builder = StandIn(folder, make_job(status=JobStatus.RUNNING))
        self.budgets: list[Budget] = []
        self.followers: list[Follower] = []
        self.reading: list[asyncio.Event] = []
        self.starts: list[int] = []

    def follow(self, from_line: int) -> None:
        """Let one more follow."""
        reading = asyncio.Event()
        reading.set()

        async def _pace(_: FollowEvent) -> None:
            await reading.wait()

        self.starts.append(min(from_line, self.builder.log().total))
        self.reading.append(reading)
        self.budgets.append(Budget(max_events=6))
        self.followers.append(
            Follower(self.builder, from_line, _pace, self.budgets[-1])
        )

    async def do(self, what: str, number: int) -> None:
        """Let one thing happen."""
        if what == "append":
            self.builder.append(number)
        elif what == "change":
            self.builder.change(progress=number)
        elif what == "follow":
            self.follow(number)
            await asyncio.sleep(0)
        elif what == "turn":
            for _ in range(number):
                await asyncio.sleep(0)
        elif number < len(self.reading):
            if what == "read":
                self.reading[number].set()
            else:
                self.reading[number].clear()
        assert all(budget.events <= 6 for budget in self.budgets)

    async def end(self) -> None:
        """End the job, and let all read to the end."""
        await self.builder.end(exit_code=0)
        for reading in self.reading:
            reading.set()
        for number in range(len(self.followers)):
            await self.followers[number].done()
            while isinstance(last := self.followers[number].last, FollowOverflowEvent):
                follower = Follower(self.builder, last.next_line)
                await follower.done()
                follower.lines |= self.followers[number].lines
                self.followers[number] = follower


@pytest.mark.usefixtures("small")
@settings(max_examples=60)
@given(st.lists(_STEPS, max_size=40))
async def test_any_interleaving(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """However things happen, each follower gets each line once and then the end."""
    crowd = Crowd(tmp_path_factory.mktemp("crowd"))
    try:
        for what, number in steps:
            await crowd.do(what, number)
    finally:
        await crowd.end()

    for follower, start in zip(crowd.followers, crowd.starts, strict=True):
        assert isinstance(follower.last, EndEvent)
        assert follower.last.job.exit_code == 0
        assert not follower.gaps
        assert complete(follower, start, crowd.builder.log().total)
    assert crowd.builder.attached == 0


async def test_lines_that_never_came(builder: StandIn) -> None:
    """A follower who is live is told of lines that are skipped."""
    log = await builder.open_log("1")
    log.append(["a"])
    follower = Follower(builder)
    await asyncio.sleep(0.01)
    log.append(["b"])
    await log.skip(3)
    log.append(["c"])
    await asyncio.sleep(0.2)
    await builder.end()
    await follower.task

    assert follower.lines == {0: "a", 1: "b", 5: "c"}
    assert follower.gaps == [(2, 4)]
