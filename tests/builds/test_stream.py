"""One subscription: bounded, in order, and ended loudly or not at all.

The numbers are those of the behaviors of ESPHome Device Builder's own streams that this
project promised to hold.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings, strategies as st
import orjson
import pytest

from custom_components.esphome_builds.builds.builder import snapshot
from custom_components.esphome_builds.builds.models import (
    Event,
    JobEvent,
    JobStatus,
    Phase,
    SnapshotEvent,
)
from custom_components.esphome_builds.builds.stream import (
    CONNECTION_BYTES,
    CONNECTION_EVENTS,
    STREAM_BYTES,
    STREAM_EVENTS,
    Budget,
    Stream,
    StreamOverflowError,
)

from .stand_in import StandIn, make_job


@dataclass(frozen=True)
class Item:
    """Something to send."""

    number: int = 0
    size: int = 1


class Source:
    """Something to listen to."""

    def __init__(self) -> None:
        """Start with nobody listening."""
        self.listeners: list[Callable[[Item], None]] = []

    def listen(self, listener: Callable[[Item], None]) -> Callable[[], None]:
        """Attach a listener."""
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def send(self, *items: Item) -> None:
        """Tell all listeners."""
        for item in items:
            for listener in tuple(self.listeners):
                listener(item)


@pytest.fixture
def source() -> Source:
    """Return something to listen to."""
    return Source()


@pytest.fixture
def budget() -> Budget:
    """Return what one connection may hold."""
    return Budget()


async def soon[ResultT](stream: Stream[ResultT]) -> ResultT:  # type: ignore[type-var]
    """Return the next event, which must be there."""
    async with asyncio.timeout(1):
        return await anext(stream)


def test_bounds() -> None:
    """The bounds are the ones that were promised."""
    assert (STREAM_EVENTS, STREAM_BYTES) == (1000, 1024**2)
    assert (CONNECTION_EVENTS, CONNECTION_BYTES) == (4000, 4 * 1024**2)


async def test_events_come_in_order(source: Source, budget: Budget) -> None:
    """Origin 8: what was told first comes first, waited for or not."""
    with Stream[Item](budget) as stream:
        stream.attach(source.listen)
        source.send(Item(1), Item(2))
        assert (await soon(stream)).number == 1
        source.send(Item(3))
        assert [(await soon(stream)).number for _ in range(2)] == [2, 3]
        waiting = asyncio.create_task(soon(stream))
        await asyncio.sleep(0)
        source.send(Item(4), Item(5))
        assert (await waiting).number == 4
        assert (await soon(stream)).number == 5


async def test_iteration(source: Source, budget: Budget) -> None:
    """A stream is read with `async for` until it overflows."""
    seen = []

    async def _read(stream: Stream[Item]) -> None:
        async for item in stream:
            seen.append(item.number)
            if item.number == 2:
                source.send(Item(3, STREAM_BYTES + 1))

    with Stream[Item](budget) as stream:
        stream.attach(source.listen)
        source.send(Item(1), Item(2))
        with pytest.raises(StreamOverflowError):
            await _read(stream)
    assert seen == [1, 2]


async def test_snapshot_then_events_once(tmp_path: Path, budget: Budget) -> None:
    """Origin 6: what happens while the snapshot is sent comes after it, once."""
    builder = StandIn(tmp_path, make_job())
    with Stream[SnapshotEvent | Event](budget) as stream:
        builder.change(phase=Phase.WAITING)
        stream.attach(builder.listen)
        first = snapshot(builder)
        builder.change(progress=1)
        # The snapshot is being sent.
        await asyncio.sleep(0)
        builder.change(progress=2)

        assert [job.phase for job in first.jobs] == [Phase.WAITING]
        events = [await soon(stream) for _ in range(2)]
        assert [
            event.job.progress for event in events if isinstance(event, JobEvent)
        ] == [1, 2]
    assert builder.attached == 0


async def test_snapshot_is_frozen(tmp_path: Path) -> None:
    """Origin 7: what changes while the snapshot is sent does not change in it."""
    builder = StandIn(tmp_path, make_job("1"), make_job("2"))
    before = snapshot(builder)

    builder.change("1", status=JobStatus.RUNNING, progress=50)
    builder.remove("2")

    assert [(job.job_id, job.progress) for job in before.jobs] == [
        ("1", None),
        ("2", None),
    ]
    # Its JSON is made when it is sent, from what it was and not from what is now.
    jobs = orjson.loads(before.json)["jobs"]
    assert [(job["job_id"], job["progress"]) for job in jobs] == [
        ("1", None),
        ("2", None),
    ]


async def test_snapshot_holds_active_and_newest_jobs(tmp_path: Path) -> None:
    """Of what has ended only the newest of each configuration is told."""
    completed = {"status": JobStatus.COMPLETED}
    builder = StandIn(
        tmp_path,
        make_job("1", **completed),
        make_job("2", configuration="a.yaml", **completed),
        make_job("3", status=JobStatus.FAILED),
        make_job("4", configuration="b.yaml"),
        make_job("5", status=JobStatus.RUNNING),
        make_job("6"),
    )

    told = snapshot(builder)

    assert [job.job_id for job in told.jobs] == ["2", "3", "4", "5", "6"]
    assert [one.configuration for one in told.configurations] == [
        "a.yaml",
        "b.yaml",
        "kitchen.yaml",
    ]
    assert told.builders == (builder.info,)
    assert snapshot() == SnapshotEvent(builders=(), configurations=(), jobs=())


@pytest.mark.parametrize(
    ("size", "fit"), [(0, STREAM_EVENTS), (1, STREAM_EVENTS), (4096, 256), (4097, 255)]
)
async def test_queue_is_bounded(
    source: Source, budget: Budget, size: int, fit: int
) -> None:
    """Origin 9, 15: a stream holds 1,000 events and 1 MiB; one more ends it."""
    with Stream[Item](budget) as stream:
        stream.attach(source.listen)
        for number in range(fit):
            source.send(Item(number, size))
        assert (budget.events, budget.bytes) == (fit, fit * size)
        assert len(source.listeners) == 1

        source.send(Item(fit, size))

        # Everything it held is free at once, whether or not somebody reads.
        assert (budget.events, budget.bytes) == (0, 0)
        assert source.listeners == []
        assert not stream._events
        for _ in range(2):
            with pytest.raises(StreamOverflowError):
                await soon(stream)
    assert (budget.events, budget.bytes) == (0, 0)


async def test_reading_makes_room(source: Source, budget: Budget) -> None:
    """Origin 9: who keeps up never overflows, however much there is."""
    with Stream[Item](budget) as stream:
        stream.attach(source.listen)
        source.send(*(Item(number, 1000) for number in range(900)))
        for number in range(5_000):
            source.send(Item(900 + number, 1000))
            assert (await soon(stream)).number == number
        assert (budget.events, budget.bytes) == (900, 900_000)
    assert (budget.events, budget.bytes) == (0, 0)


async def test_overflow_wakes_a_waiting_consumer(
    source: Source, budget: Budget
) -> None:
    """Origin 15: nobody waits for ever for a stream that is gone."""
    with Stream[Item](budget) as stream:
        stream.attach(source.listen)
        waiting = asyncio.create_task(soon(stream))
        await asyncio.sleep(0)
        source.send(Item(0, STREAM_BYTES + 1))
        with pytest.raises(StreamOverflowError):
            await waiting


async def test_overflow_is_the_last_thing(source: Source, budget: Budget) -> None:
    """Origin 15: after an overflow nothing gets in, not even an end."""
    with Stream[Item](budget) as stream:
        stream.attach(source.listen)
        source.send(Item(0, STREAM_BYTES + 1))
        stream.put(Item(1))
        stream.put(Item(2), last=True)
        with pytest.raises(StreamOverflowError):
            await soon(stream)
    assert (budget.events, budget.bytes) == (0, 0)


async def test_one_connection_shares_a_budget(source: Source) -> None:
    """The stream that would pass the connection's bounds ends; others go on."""
    budget = Budget(max_events=5, max_bytes=100)
    with Stream[Item](budget) as first, Stream[Item](budget) as second:
        for number in range(4):
            first.put(Item(number, 10))
        second.put(Item(0, 10))
        second.put(Item(1, 10))
        with pytest.raises(StreamOverflowError):
            await soon(second)
        assert (budget.events, budget.bytes) == (4, 40)
        assert [(await soon(first)).number for _ in range(4)] == [0, 1, 2, 3]

        first.put(Item(4, 101))
        with pytest.raises(StreamOverflowError):
            await soon(first)
    assert (budget.events, budget.bytes) == (0, 0)


async def test_exact_fit(source: Source) -> None:
    """What fills the connection's bounds to the last byte fits."""
    budget = Budget(max_events=2, max_bytes=100)
    with Stream[Item](budget) as stream:
        stream.put(Item(0, 60))
        stream.put(Item(1, 40))
        assert (budget.events, budget.bytes) == (2, 100)
        assert [(await soon(stream)).number for _ in range(2)] == [0, 1]


async def test_connection_bounds(source: Source, budget: Budget) -> None:
    """Five streams that are within their own bounds can be too much together."""
    streams = [Stream[Item](budget) for _ in range(5)]
    for stream in streams[:4]:
        for _ in range(STREAM_EVENTS):
            stream.put(Item(0, STREAM_BYTES // STREAM_EVENTS))
    assert budget.events == CONNECTION_EVENTS
    streams[4].put(Item())

    with pytest.raises(StreamOverflowError):
        await soon(streams[4])
    for stream in streams[:4]:
        assert await soon(stream)
        stream.close()
    assert (budget.events, budget.bytes) == (0, 0)


async def test_the_last_event_always_fits(source: Source, budget: Budget) -> None:
    """Origin 10: an end arrives though the queue is full, and nothing after it."""
    with Stream[Item](budget) as stream:
        stream.attach(source.listen)
        for number in range(STREAM_EVENTS):
            source.send(Item(number))
        stream.put(Item(-1, STREAM_BYTES), last=True)

        assert source.listeners == []
        source.send(Item(-2))
        numbers = [(await soon(stream)).number for _ in range(STREAM_EVENTS + 1)]
        assert numbers == [*range(STREAM_EVENTS), -1]
    assert (budget.events, budget.bytes) == (0, 0)


async def test_listener_that_is_told_after_it_went(budget: Budget) -> None:
    """A source that is telling many may still tell one that has just gone."""
    source = Source()
    with Stream[Item](budget) as stream:
        stream.attach(source.listen)
        (put,) = source.listeners
    put(Item())

    assert (budget.events, budget.bytes) == (0, 0)


async def test_error_while_attaching(source: Source, budget: Budget) -> None:
    """Origin 14: where one of several sources fails, none is left attached."""

    def _fail(_: Callable[[Item], None]) -> Callable[[], None]:
        raise RuntimeError("no")

    def _attach_all() -> None:
        with Stream[Item](budget) as stream:
            stream.attach(source.listen)
            stream.attach(source.listen)
            source.send(Item())
            stream.attach(_fail)

    with pytest.raises(RuntimeError, match="no"):
        _attach_all()
    assert source.listeners == []
    assert (budget.events, budget.bytes) == (0, 0)


async def test_overflow_while_attaching(source: Source, budget: Budget) -> None:
    """Origin 14: one that overflows at once is not left attached."""

    def _listen(listener: Callable[[Item], None]) -> Callable[[], None]:
        detach = source.listen(listener)
        listener(Item(0, STREAM_BYTES + 1))
        return detach

    with Stream[Item](budget) as stream:
        stream.attach(_listen)
        with pytest.raises(StreamOverflowError):
            await soon(stream)
    assert source.listeners == []


async def test_closing_detaches_all(source: Source, budget: Budget) -> None:
    """Origin 14: closing frees everything, and can be done twice."""
    other = Source()
    stream = Stream[Item](budget)
    stream.attach(source.listen)
    stream.attach(other.listen)
    source.send(Item(1))
    other.send(Item(2))
    stream.close()
    stream.close()

    assert source.listeners == other.listeners == []
    assert (budget.events, budget.bytes) == (0, 0)


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_anywhere(source: Source, budget: Budget, turns: int) -> None:
    """Origin 14: a consumer that is canceled at any await leaves nothing behind."""
    seen: list[int] = []

    async def _consume() -> None:
        with Stream[Item](budget) as stream:
            stream.attach(source.listen)
            await asyncio.sleep(0)
            async for item in stream:
                seen.append(item.number)
                await asyncio.sleep(0)

    task = asyncio.create_task(_consume())
    for turn in range(turns):
        await asyncio.sleep(0)
        if turn % 3:
            source.send(Item(turn))
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert source.listeners == []
    assert (budget.events, budget.bytes) == (0, 0)
    assert seen == sorted(set(seen))


async def test_cancelled_wait_loses_nothing(source: Source, budget: Budget) -> None:
    """Who gives up waiting, and waits again, gets what came meanwhile."""
    with Stream[Item](budget) as stream:
        stream.attach(source.listen)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        source.send(Item(7))
        waiting.cancel()
        await asyncio.wait([waiting])

        assert (await soon(stream)).number == 7


async def test_streams_do_not_see_each_other(budget: Budget) -> None:
    """Origin 12: a stream has what its own sources tell, and nothing else."""
    mine, other = Source(), Source()
    with Stream[Item](budget) as first, Stream[Item](budget) as second:
        first.attach(mine.listen)
        second.attach(other.listen)
        mine.send(Item(1))
        other.send(Item(2))
        assert (await soon(first)).number == 1
        assert (await soon(second)).number == 2
        assert not first._events


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "read", "last", "close"]),
            st.integers(0, 2),
            st.integers(0, 60),
        ),
        max_size=60,
    )
)
async def test_books_are_right(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is done, the budget is what waits, and order and bounds are kept."""
    budget = Budget(max_events=12, max_bytes=300)
    streams = [Stream[Item](budget) for _ in range(3)]
    waits: list[list[Item]] = [[], [], []]
    gone = [False] * 3
    for number, (what, which, size) in enumerate(steps):
        stream, wait = streams[which], waits[which]
        item = Item(number, size)
        if what == "put":
            held = [item for wait in waits for item in wait]
            fits = len(held) < 12 and sum(item.size for item in held) + size <= 300
            stream.put(item)
            if not gone[which] and fits:
                wait.append(item)
            else:
                gone[which] = True
                wait.clear()
        elif what == "last":
            stream.put(item, last=True)
            if not gone[which]:
                wait.append(item)
        elif what == "close":
            stream.close()
            gone[which] = True
            wait.clear()
        elif wait:
            assert await soon(stream) is wait.pop(0)
        elif gone[which]:
            with pytest.raises(StreamOverflowError):
                await soon(stream)
        assert budget.events == sum(map(len, waits))
        assert budget.bytes == sum(item.size for wait in waits for item in wait)
    for stream in streams:
        stream.close()
    assert (budget.events, budget.bytes) == (0, 0)
