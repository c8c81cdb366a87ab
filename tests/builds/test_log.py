"""The output of one job, in memory and on disk, while it grows and afterwards."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import batched, pairwise
import logging
from pathlib import Path
from random import Random
import shutil
import time

from hypothesis import HealthCheck, given, settings, strategies as st
import pytest

from custom_components.esphome_builds.builds import (
    log as log_module,
    log_files as log_files_module,
)
from custom_components.esphome_builds.builds.log import (
    BATCH_BYTES,
    BATCH_LINES,
    MEMORY_BYTES,
    MEMORY_LINES,
    UNWRITTEN_BYTES,
    JobLog,
)
from custom_components.esphome_builds.builds.log_files import LogFiles
from custom_components.esphome_builds.builds.models import OutputEvent

_MIB = 1024 * 1024


@asynccontextmanager
async def opened(folder: Path, total: int = 0) -> AsyncGenerator[JobLog]:
    """Open the log in a folder, and close it."""
    log = JobLog(LogFiles(folder), total)
    yield log
    await log.close()


def open_files(folder: Path) -> list[str]:
    """Return the files below a folder that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(f"{folder}/")]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncGenerator[JobLog]:
    """Return an empty log."""
    async with opened(tmp_path / "log") as log:
        yield log


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all bounds so small that a few lines pass them."""
    for name, value in {
        "BATCH_BYTES": 200,
        "BATCH_LINES": 5,
        "MEMORY_BYTES": 2000,
        "MEMORY_LINES": 40,
        "UNWRITTEN_BYTES": 1000,
    }.items():
        monkeypatch.setattr(log_module, name, value)
    for name, value in {
        "HEAD_BYTES": 2000,
        "LOG_BYTES": 12_000,
        "SEGMENT_BYTES": 1500,
        "_MARK_BYTES": 300,
    }.items():
        monkeypatch.setattr(log_files_module, name, value)


def numbered(first: int, count: int, width: int = 0) -> list[str]:
    """Return lines that tell their number, so many characters long."""
    return [
        f"line {number}".ljust(width, ".") for number in range(first, first + count)
    ]


async def everything(log: JobLog, from_line: int = 0) -> dict[int, str]:
    """Read a log page by page; return its lines by number."""
    lines: dict[int, str] = {}
    while (page := await log.page(from_line, BATCH_LINES, BATCH_BYTES)).lines:
        assert page.from_line >= from_line
        assert len(page.lines) <= BATCH_LINES
        lines |= enumerate(page.lines, page.from_line)
        from_line = page.next_line
    return lines


def in_memory(log: JobLog) -> tuple[int, int]:
    """Return how many lines and bytes of text a log really holds."""
    lines = [line for batch, _ in log._batches for line in batch.lines]
    return len(lines), sum(len(line.encode()) + 1 for line in lines)


def test_bounds() -> None:
    """The bounds are the ones that were promised."""
    assert (MEMORY_LINES, MEMORY_BYTES) == (4000, _MIB)
    assert (BATCH_LINES, BATCH_BYTES) == (500, 64 * 1024)
    assert log_module.BATCH_SECONDS == 0.1
    assert log_module.FLUSH_SECONDS <= 1


async def test_batches(log: JobLog) -> None:
    """Lines are told in batches of at most 500 lines and 64 KiB, in order."""
    told: list[OutputEvent] = []
    log.listen(told.append)

    log.append(numbered(0, 1200))
    assert [(event.from_line, len(event.lines)) for event in told] == [
        (0, 500),
        (500, 500),
    ]
    log.append(numbered(1200, 300, width=1000))
    await asyncio.sleep(0.15)

    lines = [line for event in told for line in event.lines]
    assert lines == numbered(0, 1200) + numbered(1200, 300, width=1000)
    next_line = 0
    for event in told:
        assert event.from_line == next_line
        assert sum(len(line) + 1 for line in event.lines) <= BATCH_BYTES
        next_line = event.next_line
    assert next_line == log.total == 1500


async def test_batch_counts_bytes_not_characters(log: JobLog) -> None:
    """Text of many bytes a character makes batches of no more bytes."""
    told: list[OutputEvent] = []
    log.listen(told.append)

    log.append(["€" * 2000] * 30)
    await log.page(0, 1, 1)

    assert all(
        sum(len(line.encode()) + 1 for line in event.lines) <= BATCH_BYTES
        for event in told
    )
    assert in_memory(log) == (30, log._memory_bytes)


async def test_batch_is_told_in_time(log: JobLog) -> None:
    """The first at once, those after it within the tenth of a second and together."""
    told: list[OutputEvent] = []
    log.listen(told.append)

    log.append(["one"])
    assert not told
    assert log.total == 1
    await asyncio.sleep(0.01)
    assert [event.lines for event in told] == [("one",)]

    log.append(["two"])
    await asyncio.sleep(0.05)
    assert len(told) == 1
    log.append(["three"])
    await asyncio.sleep(0.08)
    assert [event.lines for event in told] == [("one",), ("two", "three")]


async def test_no_lines(log: JobLog) -> None:
    """Nothing is nothing."""
    log.append([])

    assert log.total == 0
    assert (await log.page(0, 10, 1000)).lines == ()


async def test_listeners(log: JobLog) -> None:
    """Each listener is told all, the same objects, until it detaches itself."""
    first: list[OutputEvent] = []
    second: list[OutputEvent] = []

    def _only_once(event: OutputEvent) -> None:
        second.append(event)
        detach()

    detach = log.listen(_only_once)
    log.listen(first.append)
    log.append(numbered(0, 1000))

    assert [event.from_line for event in first] == [0, 500]
    assert [event.from_line for event in second] == [0]
    assert second[0] is first[0]


@pytest.mark.parametrize("width", [10, 1000, 8000])
async def test_memory_is_bounded_while_it_grows(log: JobLog, width: int) -> None:
    """Origin 1: memory is trimmed at each batch, not at the end, by lines and bytes."""
    for first in range(0, 20_000, 100):
        log.append(numbered(first, 100, width))
        lines, size = in_memory(log)
        assert lines <= MEMORY_LINES
        assert size <= MEMORY_BYTES
        assert (lines, size) == (log._memory_lines, log._memory_bytes)
        await log.throttle()


async def test_trimming_is_spread(log: JobLog) -> None:
    """Origin 2: it cuts to half of the bound, so it is paid once for as many lines."""
    sizes = []
    for first in range(0, 40_000, 500):
        log.append(numbered(first, 500))
        sizes.append(in_memory(log)[0])
        await log.throttle()

    cuts = [after for before, after in pairwise(sizes) if after < before]
    assert 15 <= len(cuts) <= 20
    assert set(cuts) == {MEMORY_LINES // 2}


async def test_below_the_bound_nothing_changes(log: JobLog) -> None:
    """Origin 3: a log within the bounds is kept whole, and nothing counts as elided."""
    log.append(numbered(0, MEMORY_LINES))

    assert in_memory(log)[0] == MEMORY_LINES
    assert log.elided == 0
    assert log.gaps == []
    log.append(numbered(MEMORY_LINES, 500))
    assert in_memory(log)[0] == MEMORY_LINES // 2
    # What is out of memory is on disk, so it is not elided either.
    assert log.elided == 0
    assert len(await everything(log)) == MEMORY_LINES + 500


@pytest.mark.usefixtures("small")
async def test_elided_adds_up(log: JobLog) -> None:
    """Origin 3: what is nowhere any more is counted, while it grows and at the end."""
    seen = []
    for first in range(0, 2000, 5):
        log.append(numbered(first, 5, 30))
        await log._written(log.total)
        seen.append(log.elided)
    await log.close()

    assert seen == sorted(seen)
    assert seen[0] == 0
    lines = await everything(log)
    assert log.elided == seen[-1] == log.total - len(lines)
    assert seen[-1] > 1500
    ((first, last),) = log.gaps
    assert [*lines] == [*range(first), *range(last + 1, log.total)]
    assert all(line.startswith(f"line {number}.") for number, line in lines.items())


async def test_the_end_loses_nothing(log: JobLog) -> None:
    """Origin 4: closing a log that was trimmed trims no more."""
    for first in range(0, 10_000, 500):
        log.append(numbered(first, 500))
        await log.throttle()
    log.append(["the verdict"])
    before = in_memory(log)[0]
    await log.close()

    assert in_memory(log)[0] == before + 1
    lines = await everything(log)
    assert [*lines.values()] == [*numbered(0, 10_000), "the verdict"]
    assert log.elided == 0


async def test_page_limits(log: JobLog) -> None:
    """A page has no more lines and bytes than asked for, but always a line."""
    log.append(numbered(0, 3000, 100))

    assert len((await log.page(0, 7, _MIB)).lines) == 7
    assert (await log.page(500, 2000, _MIB)).lines == tuple(numbered(500, 2000, 100))
    # In memory the batch is the unit of bytes.
    page = await log.page(0, 2000, BATCH_BYTES)
    assert sum(map(len, page.lines)) <= BATCH_BYTES
    assert (await log.page(0, 10, 1)).lines


async def test_page_from_anywhere(log: JobLog) -> None:
    """A page starts at the line that was asked for, in memory and on disk."""
    log.append(numbered(0, 20_000))

    for line in (0, 1, 499, 500, 501, 9_999, 17_998, 18_000, 19_999):
        page = await log.page(line, 3, _MIB)
        assert page.from_line == line
        assert page.lines == tuple(numbered(line, min(3, 20_000 - line)))


async def test_page_at_the_end(log: JobLog) -> None:
    """At and beyond the end there is nothing, and the end says where that is."""
    log.append(numbered(0, 10))

    for line in (10, 11, 1_000_000):
        page = await log.page(line, 10, 1000)
        assert (page.from_line, page.lines, page.next_line) == (10, (), 10)


async def test_page_tells_what_is_open(log: JobLog) -> None:
    """A page holds lines that were not told yet; listeners hear of them just then."""
    told: list[OutputEvent] = []
    log.listen(told.append)
    log.append(["one"])

    assert (await log.page(0, 10, 1000)).lines == ("one",)
    assert [event.lines for event in told] == [("one",)]
    await asyncio.sleep(0.15)
    assert len(told) == 1


async def test_on_disk_within_a_second(tmp_path: Path) -> None:
    """The log is on disk while it grows, so a crash takes no more than a second."""
    async with opened(tmp_path) as log:
        log.append(["one"])
        await asyncio.sleep(0.3)
        log.append(["two"])
        await asyncio.sleep(0.5)
        assert [*(await everything(JobLog(LogFiles(tmp_path)))).values()][:1] == ["one"]
        await asyncio.sleep(0.5)
        assert [*(await everything(JobLog(LogFiles(tmp_path)))).values()] == [
            "one",
            "two",
        ]


async def test_reopened(tmp_path: Path) -> None:
    """A restart reads what was written and goes on with the next number."""
    async with opened(tmp_path) as log:
        log.append(numbered(0, 10_000))
    async with opened(tmp_path) as log:
        assert log.total == 10_000
        assert log.elided == 0
        log.append(numbered(10_000, 5))
        assert [*(await everything(log)).values()] == numbered(0, 10_005)
    async with opened(tmp_path) as log:
        assert log.total == 10_005


async def test_reopened_without_its_end(tmp_path: Path) -> None:
    """Lines that a crash took are gone, and are not counted a second time."""
    async with opened(tmp_path) as log:
        log.append(numbered(0, 100))
    async with opened(tmp_path, total=150) as log:
        assert log.total == 150
        assert log.gaps == [(100, 149)]
        page = await log.page(100, 10, 1000)
        assert (page.from_line, page.lines) == (150, ())
        log.append(numbered(150, 5))
        assert [*await everything(log)] == [*range(100), *range(150, 155)]
    async with opened(tmp_path) as log:
        assert log.total == 155
        assert log.elided == 50


async def test_reopened_after_it_was_deleted(tmp_path: Path) -> None:
    """A log that was deleted says that its lines are gone, not that there are none."""
    async with opened(tmp_path / "gone", total=1000) as log:
        assert log.total == log.elided == 1000
        page = await log.page(10, 10, 1000)
        assert (page.from_line, page.lines) == (1000, ())


class FullDisk(LogFiles):
    """A disk that takes nothing while it is full."""

    full = False

    def write(self, first: int, data: bytes) -> None:
        """Write, or fail as a full disk does."""
        if self.full:
            raise OSError(28, "No space left on device")
        super().write(first, data)


async def test_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full for a time makes a hole; the build and the numbers go on."""
    files = FullDisk(tmp_path)
    log = JobLog(files)
    log.append(numbered(0, 5000))
    await log.page(0, 1, 1)
    files.full = True
    for first in range(5000, 15_000, 500):
        log.append(numbered(first, 500))
        await log._written(log.total)

    assert caplog.text.count("No space left") == 1
    # Nothing of this is lost while it is in memory.
    assert log.total == 15_000
    start = 15_000 - in_memory(log)[0]
    assert log.gaps == [(5000, start - 1)]
    assert [*await everything(log)] == [*range(5000), *range(start, 15_000)]

    files.full = False
    for first in range(15_000, 25_000, 500):
        log.append(numbered(first, 500))
        await log._written(log.total)
    await log.close()

    assert log.gaps == [(5000, start - 1)]
    assert log.elided == start - 5000
    lines = await everything(log)
    assert [*lines] == [*range(5000), *range(start, 25_000)]
    assert lines[start] == f"line {start}"
    again = JobLog(LogFiles(tmp_path))
    assert (again.total, again.gaps) == (25_000, [(5000, start - 1)])


async def test_full_disk_at_the_end(tmp_path: Path) -> None:
    """A log that is closed is what is on disk, or lines would go unsaid later."""
    files = FullDisk(tmp_path)
    log = JobLog(files)
    log.append(numbered(0, 500))
    await log._written(log.total)
    files.full = True
    log.append(numbered(500, 1500))
    assert not log.gaps
    async with asyncio.timeout(5):
        await log.close()

    assert (log.total, log.elided, log.gaps) == (2000, 1500, [(500, 1999)])
    assert [*await everything(log)] == [*range(500)]
    page = await log.page(500, 10, 1000)
    assert (page.from_line, page.lines) == (2000, ())
    again = JobLog(LogFiles(tmp_path), log.total)
    assert (again.total, again.gaps) == (log.total, log.gaps)


async def test_full_disk_is_bounded(tmp_path: Path) -> None:
    """Nothing waits for a full disk that is not in memory for the readers anyway."""
    files = FullDisk(tmp_path)
    log = JobLog(files)
    files.full = True
    for _ in range(100):
        log.append(["x" * 8000] * 8)
        async with asyncio.timeout(5):
            await log.throttle()
        assert log._unwritten_bytes <= UNWRITTEN_BYTES
    await log.close()

    assert log.total == log.elided == 800


async def test_full_disk_is_tried_again(tmp_path: Path) -> None:
    """What is in memory is on disk soon after that has space, without a new line."""
    files = FullDisk(tmp_path)
    log = JobLog(files)
    files.full = True
    log.append(numbered(0, 1000))
    await log._written(log.total)
    assert files.next_line == 0
    files.full = False
    async with asyncio.timeout(5):
        while files.next_line < 1000:  # noqa: ASYNC110 - nothing tells when it is
            await asyncio.sleep(0.05)
    await log.close()

    assert log.elided == 0


async def test_full_disk_is_logged_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong is told when it begins, again if it begins again."""
    files = FullDisk(tmp_path)
    log = JobLog(files)
    for full in (True, True, False, True):
        files.full = full
        log.append(["line"] * BATCH_LINES)
        await log._written(log.total)
    await log.close()

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


async def test_throttle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader waits while more than a mebibyte waits for the disk, not before."""
    log = JobLog(LogFiles(tmp_path))
    go = asyncio.Event()
    write = log._try_write

    async def _slow(first: int, data: bytes) -> bool:
        await go.wait()
        return await write(first, data)

    monkeypatch.setattr(log, "_try_write", _slow)
    log.append(["x" * 8000] * (UNWRITTEN_BYTES // 8001))
    async with asyncio.timeout(0.2):
        await log.throttle()
    log.append(["x" * 8000] * 10)
    waiting = asyncio.create_task(log.throttle())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    go.set()
    async with asyncio.timeout(1):
        await waiting
    assert log._unwritten_bytes < UNWRITTEN_BYTES
    await log.close()


async def test_waiting_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the disk and is cancelled takes nothing with it."""
    log = JobLog(LogFiles(tmp_path))
    go = asyncio.Event()
    write = log._try_write

    async def _slow(first: int, data: bytes) -> bool:
        await go.wait()
        return await write(first, data)

    monkeypatch.setattr(log, "_try_write", _slow)
    log.append(numbered(0, 30_000, 100))
    waits: list[Callable[[], object]] = [log.throttle, lambda: log.page(0, 10, 1000)]
    for wait in waits:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wait()  # type: ignore[misc]
    go.set()
    await log.close()

    assert [*(await everything(log)).values()] == numbered(0, 30_000, 100)


async def test_page_of_a_flood_does_not_wait_for_its_end(log: JobLog) -> None:
    """Who reads from disk while lines pour in gets its page at once."""
    flooding = True

    async def _flood() -> None:
        first = 0
        while flooding:
            log.append(numbered(first, 500, 100))
            first += 500
            await log.throttle()
            await asyncio.sleep(0)

    flood = asyncio.create_task(_flood())
    await asyncio.sleep(0.2)
    line = 0
    async with asyncio.timeout(5):
        for _ in range(20):
            page = await log.page(line, BATCH_LINES, BATCH_BYTES)
            assert page.from_line == line
            line = page.next_line
    assert line > 5000
    flooding = False
    await flood


async def test_log_deleted_while_it_is_read(tmp_path: Path) -> None:
    """Deleted lines are gone, as a gap; what is in memory is still there."""
    async with opened(tmp_path / "log") as log:
        log.append(numbered(0, 20_000))
        await log._written(log.total)
        shutil.rmtree(tmp_path / "log")

        lines = await everything(log)

        start = 20_000 - in_memory(log)[0]
        assert [*lines] == [*range(start, 20_000)]
        assert log.gaps == [(0, start - 1)]


_STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 60)),
    st.tuples(st.just("page"), st.integers(0, 500)),
    st.tuples(
        st.sampled_from(["restart", "full", "free", "write", "yield"]), st.just(0)
    ),
)


class History:
    """A log that things happen to, and what is known of it."""

    def __init__(self, folder: Path) -> None:
        """Open an empty log."""
        self.folder = folder
        self.told: list[OutputEvent] = []
        self.total = 0
        self.open()

    def open(self) -> None:
        """Open the log, as after a restart."""
        self.files = FullDisk(self.folder)
        self.log = JobLog(self.files, self.total)
        self.log.listen(self.told.append)

    async def do(self, what: str, number: int, random: Random) -> None:
        """Let one thing happen."""
        if what == "append":
            for piece in batched(
                range(self.total, self.total + number), 6, strict=False
            ):
                # What is read at once is about as much as a batch.
                widths = random.choices((0, 30, 150), k=len(piece))
                lines = zip(piece, widths, strict=True)
                self.log.append([numbered(line, 1, width)[0] for line, width in lines])
                self.total += len(piece)
                await self.log.throttle()
        elif what == "page":
            page = await self.log.page(number, random.randrange(1, 30), 500)
            assert page.from_line >= min(number, self.total)
            for line, found in enumerate(page.lines, page.from_line):
                assert found.rstrip(".") == f"line {line}"
        elif what == "restart":
            await self.log.close()
            self.open()
        elif what == "write":
            await self.log._written(self.log.total)
        elif what == "yield":
            await asyncio.sleep(0)
        else:
            self.files.full = what == "full"
        assert self.log.total == self.total
        assert in_memory(self.log)[0] <= log_module.MEMORY_LINES


@pytest.mark.usefixtures("small")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_STEPS, min_size=1, max_size=40), st.randoms())
async def test_any_history(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int]],
    random: Random,
) -> None:
    """Whatever happens, each line is there under its number, or is in a gap."""
    history = History(tmp_path_factory.mktemp("history") / "log")
    try:
        for what, number in steps:
            await history.do(what, number, random)
    finally:
        await history.log.close()

    log, total, told = history.log, history.total, history.told
    lines = await everything(log)
    missing = {n for first, last in log.gaps for n in range(first, last + 1)}
    assert missing | set(lines) == {*range(total)}
    assert len(missing) + len(lines) == total
    assert log.elided == len(missing)
    assert all(line.rstrip(".") == f"line {number}" for number, line in lines.items())
    assert history.files.size <= log_files_module.LOG_BYTES
    assert [n for event in told for n in range(event.from_line, event.next_line)] == [
        *range(total)
    ]
    size = sum(len(line) + 1 for event in told for line in event.lines)
    all_in_memory = total <= log_module.MEMORY_LINES and size <= log_module.MEMORY_BYTES
    if all_in_memory and "restart" not in dict(steps) and not history.files.full:
        assert not missing


async def test_lines_that_never_came(tmp_path: Path) -> None:
    """Lines that were skipped are gone for ever, and the others keep their numbers."""
    async with opened(tmp_path / "log") as log:
        log.append(numbered(0, 3))
        await log.skip(4)
        assert (log.total, log.elided, log.gaps) == (7, 4, [(3, 6)])
        log.append(numbered(7, 2))
        assert [*await everything(log)] == [0, 1, 2, 7, 8]
        page = await log.page(4, 10, _MIB)
        assert (page.from_line, len(page.lines)) == (7, 2)
    async with opened(tmp_path / "log") as log:
        assert [*await everything(log)] == [0, 1, 2, 7, 8]
        assert (log.total, log.gaps) == (9, [(3, 6)])


async def test_skip_at_the_start(log: JobLog) -> None:
    """A log may begin with lines that never came."""
    await log.skip(5)
    log.append(numbered(5, 1))
    assert [*await everything(log)] == [5]
    assert log.gaps == [(0, 4)]


async def test_followed(log: JobLog) -> None:
    """A log knows whether anybody listens."""
    assert not log.followed
    remove = log.listen(lambda _: None)
    assert log.followed
    remove()
    assert not log.followed


class SlowFiles(LogFiles):
    """Files on a disk that takes its time."""

    def write(self, first: int, data: bytes) -> None:
        """Write late."""
        time.sleep(0.02)
        super().write(first, data)

    def close(self) -> None:
        """Close late."""
        time.sleep(0.02)
        super().close()


@pytest.mark.parametrize("milliseconds", [0, 10, 20, 30, 40])
async def test_canceled_while_it_is_closed(tmp_path: Path, milliseconds: int) -> None:
    """Whatever it waits for, everything is written and no file is open afterwards."""
    log = JobLog(SlowFiles(tmp_path))
    log.append(["one", "two"])
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(milliseconds / 1000)

    closing.cancel()
    await asyncio.wait([closing])

    assert (tmp_path / f"{0:012d}.log").read_text() == "one\ntwo\n"
    assert not open_files(tmp_path)
