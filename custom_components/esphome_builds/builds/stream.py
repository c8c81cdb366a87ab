"""The one primitive behind every subscription: a bounded queue that ends loudly.

A stream gets events from the listeners that were attached to it and hands them to one
consumer in order. What would pass a bound is not dropped in silence: the stream
overflows, which frees all it held and is the last thing its consumer sees.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Protocol, Self

CONNECTION_BYTES: Final = 4 * 1024 * 1024
CONNECTION_EVENTS: Final = 4000
STREAM_BYTES: Final = 1024 * 1024
STREAM_EVENTS: Final = 1000


class Sized(Protocol):
    """An event that knows what it costs to hold."""

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        ...


type Listen[EventT] = Callable[[Callable[[EventT], None]], Callable[[], None]]
"""Attaches a listener and returns what detaches it."""


class StreamOverflowError(Exception):
    """The consumer did not keep up; the stream has ended."""


class Budget:
    """What may wait in all streams of one connection together."""

    def __init__(
        self, max_events: int = CONNECTION_EVENTS, max_bytes: int = CONNECTION_BYTES
    ) -> None:
        """Start with nothing waiting."""
        self._max_events = max_events
        self._max_bytes = max_bytes
        self.events = 0
        self.bytes = 0

    def fits(self, size: int) -> bool:
        """Return whether one more event may wait."""
        return self.events < self._max_events and self.bytes + size <= self._max_bytes


class Stream[EventT: Sized]:
    """One subscription. A context manager: on exit nothing of it is left anywhere."""

    def __init__(self, budget: Budget) -> None:
        """Make a stream that nothing is attached to yet."""
        self._budget = budget
        self._listeners = ExitStack()
        self._events: deque[EventT] = deque()
        self._bytes = 0
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stream."""
        self.close()

    def close(self) -> None:
        """Detach all listeners and free what waits."""
        self._closed = True
        self._listeners.close()
        self._release(len(self._events), self._bytes)
        self._events.clear()

    def attach(self, listen: Listen[EventT]) -> None:
        """Let events in from one more source, for as long as the stream lives."""
        self._listeners.callback(listen(self.put))

    def put(self, event: EventT, *, last: bool = False) -> None:
        """Let an event wait for the consumer, or overflow.

        The `last` event ends the attachments and always has a place, so that a consumer
        never waits for an end that did not fit.
        """
        if self._closed:
            # A source that was telling several listeners when this one went.
            return
        size = event.size
        if last:
            self._listeners.close()
        elif not self._fits(size):
            # Give up everything but the news of it.
            self.close()
            self._wake()
            return
        self._events.append(event)
        self._release(-1, -size)
        self._wake()

    def __aiter__(self) -> Self:
        """Return the stream."""
        return self

    async def __anext__(self) -> EventT:
        """Wait for the next event; raise `StreamOverflowError` after an overflow."""
        while not self._events:
            if self._closed:
                raise StreamOverflowError
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        self._release(1, event.size)
        return event

    def _fits(self, size: int) -> bool:
        """Return whether one more event is within every bound."""
        return (
            len(self._events) < STREAM_EVENTS
            and self._bytes + size <= STREAM_BYTES
            and self._budget.fits(size)
        )

    def _release(self, events: int, size: int) -> None:
        """Give back what events took of the bounds."""
        self._bytes -= size
        self._budget.events -= events
        self._budget.bytes -= size

    def _wake(self) -> None:
        """Let the consumer look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
