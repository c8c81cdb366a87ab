"""The output of a job on the server, copied into a log of ours.

The server numbers nothing, but it says how many lines it has dropped from the beginning
of what it keeps (`_trim_job_output` in its `controllers/firmware/helpers.py`), so what
it keeps stands at true numbers. Of its stream it drops lines without a word when 4,000
wait there, and to make room for the end it drops the two oldest. So only as much is
taken from one stream as cannot have lost anything, and what comes in a flood is taken
from snapshots instead, with explicit gaps.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..conceal import Concealment
from ..diagnosis import Diagnosis
from ..lines import LineSplitter
from ..log import JobLog
from .client import Client
from .wire import parse_job, trimmed

BURST_LINES: Final = 1000
"""So many lines at once may have come from a stream that lost some."""

FETCH_SECONDS: Final = 120.0
FLOOD_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 1.0
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_ENTRIES: Final = 50_000
STREAM_LINES: Final = 3500
"""What is taken of one stream before it is begun anew; the server lets 4,000 wait."""

TICK_SECONDS: Final = 0.1

_CALM_LINES: Final = 500
_COMPARED_LINES: Final = 20
_RUNNING: Final = "running"


class Inbox:
    """Holds what comes from a stream until it is fetched, within bounds."""

    def __init__(self) -> None:
        """Start empty."""
        self.ended = False
        self.result: Any = None
        self.overflowed = False
        self._entries: list[str] = []
        self._size = 0
        self._something = asyncio.Event()

    def put(self, event: str, data: Any) -> None:  # noqa: ANN401 - checked here
        """Take an event; give all up when it is too much."""
        if event == "result":
            self.ended = True
            self.result = data
        elif event != "output" or not isinstance(data, str) or self.overflowed:
            return
        else:
            self._entries.append(data)
            self._size += len(data)
            if len(self._entries) > MAX_ENTRIES or self._size > MAX_BYTES:
                self.overflowed = True
                self._entries.clear()
        self._something.set()

    def close(self, _: object = None) -> None:
        """Let nobody wait any longer: nothing comes any more."""
        self.ended = True
        self._something.set()

    async def wait(self, seconds: float) -> None:
        """Wait until something is there, for so long at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._something.wait()
        except TimeoutError:
            pass

    def take(self) -> list[str]:
        """Return what has come since the last time."""
        if not self.ended:
            self._something.clear()
        entries, self._entries, self._size = self._entries, [], 0
        return entries


class Copy:
    """A log that is kept like the output on the server."""

    def __init__(self, log: JobLog, diagnosis: Diagnosis, base: int) -> None:
        """Put the server's first line at number `base` of the log."""
        self.log = log
        self.diagnosis = diagnosis
        self.base = base
        self._busy = asyncio.Lock()

    @property
    def have(self) -> int:
        """Return how many of the server's lines are in the log, or known to be gone."""
        return self.log.total - self.base

    async def take_all(self, entries: Sequence[str], *, ended: bool) -> int:
        """Take everything that the server has now; return how much that was news."""
        dropped = trimmed(entries[0]) if entries else None
        splitter = LineSplitter(Concealment().remove)
        kept = entries if dropped is None else entries[1:]
        lines = splitter.feed("".join(kept).encode("utf-8", "replace"))
        if ended:
            lines += splitter.close()
        first = dropped or 0
        async with self._busy:
            before = self.log.total
            if await self._begins_anew(first, lines):
                # It runs again, and the output of the run before is not there any more.
                self.base = before
            await self._take(first, lines)
            return self.log.total - before

    async def take(self, first: int, lines: list[str]) -> None:
        """Take consecutive lines, of which only the new ones count."""
        async with self._busy:
            await self._take(first, lines)

    async def _take(self, first: int, lines: list[str]) -> None:
        if first > self.have:
            await self.log.skip(first - self.have)
        if new := lines[self.have - first :]:
            self.log.append(new)
            self.diagnosis.feed(new)
            await self.log.throttle()

    async def _begins_anew(self, first: int, lines: list[str]) -> bool:
        """Return whether this is not the output that the log has the beginning of."""
        end = min(self.have, first + len(lines))
        if self.have > first + len(lines):
            return True
        start = max(first, end - _COMPARED_LINES)
        if start >= end:
            return False
        page = await self.log.page(self.base + start, end - start, MAX_BYTES)
        if page.from_line != self.base + start:
            return False
        theirs = lines[start - first : end - first]
        return list(page.lines) != theirs[: len(page.lines)]


async def stored_output(client: Client, server_id: str) -> list[str]:
    """Return what the server has kept of the output of a job that has ended.

    Raises `CommandError`, or `CannotConnectError`. Of more than is taken, nothing is.
    """
    inbox = Inbox()
    async with (
        asyncio.timeout(FETCH_SECONDS),
        client.stream("firmware/follow_job", inbox.put, job_id=server_id) as answer,
    ):
        answer.add_done_callback(inbox.close)
        while not (inbox.ended or inbox.overflowed):
            await inbox.wait(FETCH_SECONDS)
            # Not one by one, where there are many.
            await asyncio.sleep(0.02)
        if answer.done():
            answer.result()
        return inbox.take()


class Tap:
    """Copies the output of a running job for as long as somebody wants it."""

    def __init__(
        self,
        client: Client,
        server_id: str,
        copy: Copy,
        wanted: Callable[[], bool],
        on_growth: Callable[[], None],
    ) -> None:
        """Prepare; nothing is asked for yet."""
        self._on_growth = on_growth
        self.first_look = asyncio.Event()
        self._client = client
        self._server_id = server_id
        self._copy = copy
        self._wanted = wanted

    async def run(self) -> None:
        """Copy until the job has ended or nobody wants it any more."""
        try:
            while self._wanted() and (news := await self._look()) is not None:
                self.first_look.set()
                if news > _CALM_LINES:
                    await asyncio.sleep(FLOOD_SECONDS)
                elif await self._stream():
                    return
        finally:
            self.first_look.set()

    async def _look(self) -> int | None:
        """Take all there is; return how many lines are news, or None at the end."""
        answer = await self._client.command("firmware/get_job", job_id=self._server_id)
        if answer is None:
            return None
        job = parse_job(answer)
        if job.status != _RUNNING:
            return None
        news = await self._copy.take_all(job.output, ended=False)
        self._on_growth()
        return news

    async def _stream(self) -> bool:
        """Take what comes; return whether that was all there will ever be."""
        inbox = Inbox()
        async with self._client.stream(
            "firmware/follow_job", inbox.put, job_id=self._server_id
        ) as answer:
            answer.add_done_callback(inbox.close)
            reader = _StreamReader(self._copy)
            while self._wanted():
                await inbox.wait(TICK_SECONDS if reader.holds else IDLE_SECONDS)
                await asyncio.sleep(TICK_SECONDS)
                if inbox.ended:
                    return True
                entries = inbox.take()
                if inbox.overflowed or not await reader.take(entries):
                    return False
                self._on_growth()
        return True


class _StreamReader:
    """Numbers the lines of one stream, and takes them when they are certain.

    What comes is held for a moment: when it was the last of a flood that ended with the
    job, lines may be missing in it, and then it is not taken at all.
    """

    def __init__(self, copy: Copy) -> None:
        """Start before the first entry."""
        self._copy = copy
        self._splitter = LineSplitter(Concealment().remove)
        self._number: int | None = None
        self._held: list[str] = []
        self._fresh = 0

    @property
    def holds(self) -> bool:
        """Return whether something waits to be certain."""
        return bool(self._held)

    async def take(self, entries: list[str]) -> bool:
        """Take what came since the last time; return whether to go on."""
        if self._number is None and entries:
            dropped = trimmed(entries[0])
            self._number = dropped or 0
            entries = entries if dropped is None else entries[1:]
        number = self._number or 0
        lines = self._splitter.feed("".join(entries).encode("utf-8", "replace"))
        self._number = None if self._number is None else number + len(lines)
        expected = self._copy.have + len(self._held)
        if number > expected:
            return False
        fresh = lines[expected - number :]
        self._fresh += len(fresh)
        if len(self._held) + len(fresh) > BURST_LINES or self._fresh > STREAM_LINES:
            return False
        await self._copy.take(self._copy.have, self._held)
        self._held = fresh
        return True
