"""The output of one job: bounded in memory and on disk while it grows.

Lines have absolute numbers, the first is 0, for as long as the job is known, so that a
reader can leave and come back anywhere. The newest lines are in memory; all but a hole
in the middle of a very long log are on disk (`log_files`).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
import logging
from typing import Final

from .log_files import LogFiles
from .models import OutputEvent

_LOGGER = logging.getLogger(__name__)

BATCH_BYTES: Final = 64 * 1024
BATCH_LINES: Final = 500
BATCH_SECONDS: Final = 0.1
FLUSH_SECONDS: Final = 0.5
MEMORY_BYTES: Final = 1024 * 1024
MEMORY_LINES: Final = 4000
# What may wait for the disk before the reader of the process has to wait, too.
UNWRITTEN_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Consecutive lines of a log.

    `from_line` is later than the line asked for where that one is gone; `next_line` is
    where the next page starts.
    """

    from_line: int
    lines: tuple[str, ...]

    @property
    def next_line(self) -> int:
        """Return the number of the line after the last."""
        return self.from_line + len(self.lines)


class JobLog:
    """Takes lines, keeps what fits, and tells listeners of each batch.

    A batch has at most 500 lines and 64 KiB and is at most 100 ms old; the same object
    is the memory's unit, the disk's unit and the event of all followers.
    """

    def __init__(self, files: LogFiles, total: int = 0) -> None:
        """Continue where the files end, or after `total` lines if some are lost."""
        self._files = files
        self._listeners: list[Callable[[OutputEvent], None]] = []
        self._batches: deque[tuple[OutputEvent, int]] = deque()
        self._memory_lines = 0
        self._memory_bytes = 0
        self._open: list[str] = []
        self._open_bytes = 0
        self._open_timer: asyncio.TimerHandle | None = None
        self._open_until = 0.0
        self._next_batch = max(files.next_line, total)
        self._unwritten: list[tuple[int, bytes]] = []
        self._unwritten_bytes = 0
        self._write_timer: asyncio.TimerHandle | None = None
        self._writer: asyncio.Task[bool] | None = None
        self._closing = False
        self._disk_failed = False

    @property
    def total(self) -> int:
        """Return the number of lines so far, which is the number of the next one."""
        return self._next_batch + len(self._open)

    @property
    def elided(self) -> int:
        """Return how many lines are neither on disk nor in memory any more."""
        return sum(last - first + 1 for first, last in self.gaps)

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Return the ranges of lines, first and last, that are gone for ever."""
        known = self._unwritten[0][0] if self._unwritten else self._next_batch
        memory = self._memory_start
        return [
            (first, min(last, memory - 1))
            for first, last in self._files.gaps(known)
            if first < memory
        ]

    @property
    def followed(self) -> bool:
        """Return whether anybody listens."""
        return bool(self._listeners)

    def listen(self, listener: Callable[[OutputEvent], None]) -> Callable[[], None]:
        """Call the listener with each batch from now on, until the result is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def append(self, lines: Sequence[str]) -> None:
        """Add lines, none of which holds a line feed or more than 8 KiB."""
        ascii_only = all(map(str.isascii, lines))
        for line in lines:
            size = len(line) + 1 if ascii_only else len(line.encode()) + 1
            if self._open_bytes + size > BATCH_BYTES:
                self._close_batch()
            self._open.append(line)
            self._open_bytes += size
            if len(self._open) >= BATCH_LINES:
                self._close_batch()
        if self._open and self._open_timer is None:
            loop = asyncio.get_running_loop()
            # At once after a silence, so that nobody waits for the first lines.
            self._open_timer = loop.call_at(self._open_until, self._close_batch)

    async def skip(self, count: int) -> None:
        """Count lines that were printed but never came here: they are gone for ever."""
        self._close_batch()
        await self._written(self._next_batch)
        self._batches.clear()
        self._memory_lines = self._memory_bytes = 0
        self._next_batch += count

    async def throttle(self) -> None:
        """Wait while the disk is behind by more than may wait in memory."""
        while self._unwritten_bytes > UNWRITTEN_BYTES:
            if not await asyncio.shield(self._start_writing()):
                # No more waits than is in memory.
                break

    async def page(self, from_line: int, max_lines: int, max_bytes: int) -> Page:
        """Return the next lines there are at or after a line; none at the log's end."""
        self._close_batch()
        if from_line >= self._next_batch:
            return Page(from_line=self._next_batch, lines=())
        if from_line < self._memory_start:
            await self._written(self._memory_start)
            page = await asyncio.to_thread(
                self._files.read, from_line, max_lines, max_bytes
            )
            if page is not None and page[0] < self._memory_start:
                return Page(from_line=page[0], lines=tuple(page[1]))
        # Where the disk took nothing, what is in memory comes next.
        start = max(from_line, self._memory_start)
        return self._memory_page(start, max_lines, max_bytes)

    def resume(self) -> None:
        """Take the lines of another run, after the log was closed."""
        self._closing = False

    async def close(self) -> None:
        """Publish and write what waits; more may come after `resume`, or with a close.

        What the disk does not take now is gone, so that it is not gone later, unsaid.
        Whoever is canceled while this takes its time leaves no file open either.
        """
        # From now on nothing is written by the clock, when the file may be closed.
        self._closing = True
        self._close_batch()
        ending = asyncio.create_task(self._write_to_the_end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise

    async def _write_to_the_end(self) -> None:
        """Write what waits, and close the file."""
        await self._written(self._next_batch)
        if self._unwritten:
            self._forget()
        await asyncio.to_thread(self._files.close)

    @property
    def _memory_start(self) -> int:
        """Return the number of the first line that is in memory."""
        return self._batches[0][0].from_line if self._batches else self._next_batch

    def _close_batch(self) -> None:
        """Make one event of the lines that are open."""
        if self._open_timer is not None:
            self._open_timer.cancel()
            self._open_timer = None
        if not self._open:
            return
        batch = OutputEvent(from_line=self._next_batch, lines=tuple(self._open))
        self._next_batch = batch.next_line
        self._keep(batch, self._open_bytes)
        self._open.clear()
        self._open_bytes = 0
        self._open_until = asyncio.get_running_loop().time() + BATCH_SECONDS
        for listener in tuple(self._listeners):
            listener(batch)

    def _keep(self, batch: OutputEvent, size: int) -> None:
        """Put a batch into memory, and in line for the disk."""
        self._batches.append((batch, size))
        self._memory_lines += len(batch.lines)
        self._memory_bytes += size
        if self._memory_lines > MEMORY_LINES or self._memory_bytes > MEMORY_BYTES:
            self._trim()
        text = ("\n".join(batch.lines) + "\n").encode()
        self._unwritten.append((batch.from_line, text))
        self._unwritten_bytes += len(text)
        self._write_later()

    def _trim(self) -> None:
        """Cut back to half of the bounds, so that the cost is spread over as much."""
        while (
            self._memory_lines > MEMORY_LINES // 2
            or self._memory_bytes > MEMORY_BYTES // 2
        ):
            batch, size = self._batches.popleft()
            self._memory_lines -= len(batch.lines)
            self._memory_bytes -= size

    def _memory_page(self, from_line: int, max_lines: int, max_bytes: int) -> Page:
        """Return a page of what is in memory, which `from_line` must be."""
        lines: list[str] = []
        size = 0
        for batch, batch_size in self._batches:
            if batch.next_line <= from_line:
                continue
            if len(lines) == max_lines or (lines and size + batch_size > max_bytes):
                break
            skip = max(0, from_line - batch.from_line)
            lines += batch.lines[skip : skip + max_lines - len(lines)]
            size += batch_size
        return Page(from_line=from_line, lines=tuple(lines))

    def _write_later(self) -> None:
        """Let what waits be written in time."""
        if self._write_timer is None and self._writer is None and not self._closing:
            loop = asyncio.get_running_loop()
            self._write_timer = loop.call_later(FLUSH_SECONDS, self._start_writing)

    def _start_writing(self) -> asyncio.Task[bool]:
        """Write what waits, in a task that nobody who waits for it can cancel."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return self._writer

    async def _written(self, end: int) -> None:
        """Wait until all lines before one are on disk, or could not be written."""
        while self._unwritten and self._unwritten[0][0] < end:
            if not await asyncio.shield(self._start_writing()):
                break

    async def _write(self) -> bool:
        """Write what waits now; whoever waits for that need not wait for more.

        Return whether that worked. If not, what is in memory is tried again later, and
        the build goes on without the rest.
        """
        waiting = tuple(self._unwritten)
        data = b"".join(text for _, text in waiting)
        written = False
        try:
            written = await self._try_write(waiting[0][0], data)
        finally:
            end = self._next_batch if written else self._memory_start
            done = [len(text) for line, text in waiting if line < end]
            del self._unwritten[: len(done)]
            self._unwritten_bytes -= sum(done)
            self._writer = None
            if self._unwritten:
                self._write_later()
        return written

    def _forget(self) -> None:
        """Let the log be what is on disk."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        self._unwritten.clear()
        self._unwritten_bytes = 0
        self._batches.clear()
        self._memory_lines = self._memory_bytes = 0

    async def _try_write(self, first: int, data: bytes) -> bool:
        """Write, and return whether the disk took it."""
        try:
            await asyncio.to_thread(self._files.write, first, data)
        except OSError as err:
            if not self._disk_failed:
                _LOGGER.warning("Cannot write the log %s: %s", self._files.folder, err)
            self._disk_failed = True
            return False
        self._disk_failed = False
        return True
