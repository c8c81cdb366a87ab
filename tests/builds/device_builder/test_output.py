"""A log that is kept like the output on a server."""

import asyncio
from pathlib import Path

import pytest

from custom_components.esphome_builds.builds.device_builder import (
    output as output_module,
)
from custom_components.esphome_builds.builds.device_builder.output import (
    Copy,
    Inbox,
    _StreamReader,
)
from custom_components.esphome_builds.builds.diagnosis import Diagnosis
from custom_components.esphome_builds.builds.log import JobLog
from custom_components.esphome_builds.builds.log_files import LogFiles

from ..stand_in import make_job


def trimmed(count: int) -> str:
    """Return what the server says where it has dropped lines."""
    return f"... [output trimmed: {count} earlier line(s) elided]\n"


def entries(first: int, end: int) -> list[str]:
    """Return lines as the server keeps them."""
    return [f"line {number}\n" for number in range(first, end)]


async def lines(log: JobLog) -> dict[int, str]:
    """Return what is in a log, by number."""
    found: dict[int, str] = {}
    line = 0
    while (page := await log.page(line, 1000, 1024**2)).lines:
        found |= enumerate(page.lines, page.from_line)
        line = page.next_line
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """Return a copy of nothing yet."""
    log = JobLog(LogFiles(tmp_path / "log"))
    return Copy(log, Diagnosis.of(make_job()), 0)


async def test_growth(copy: Copy) -> None:
    """What is known already is not taken again."""
    assert await copy.take_all(entries(0, 3), ended=False) == 3
    assert await copy.take_all(entries(0, 5), ended=False) == 2
    assert await copy.take_all(entries(0, 5), ended=False) == 0
    assert await lines(copy.log) == {it: f"line {it}" for it in range(5)}
    await copy.log.close()


async def test_hole(copy: Copy) -> None:
    """What the server has dropped is a gap, and what follows has its true number."""
    await copy.take_all(entries(0, 3), ended=False)
    await copy.take_all([trimmed(10), *entries(10, 12)], ended=False)
    await copy.take_all([trimmed(11), *entries(11, 14)], ended=True)

    assert await lines(copy.log) == {
        it: f"line {it}" for it in (0, 1, 2, 10, 11, 12, 13)
    }
    assert copy.log.gaps == [(3, 9)]
    assert (copy.log.total, copy.log.elided) == (14, 7)
    await copy.log.close()


async def test_unfinished_line(copy: Copy) -> None:
    """A line without an end is taken when the job has ended, and once."""
    await copy.take_all([*entries(0, 2), "par"], ended=False)
    assert copy.log.total == 2
    await copy.take_all([*entries(0, 2), "partial"], ended=True)
    await copy.take_all([*entries(0, 2), "partial"], ended=True)
    assert (await lines(copy.log))[2] == "partial"
    assert copy.log.total == 3
    await copy.log.close()


@pytest.mark.parametrize(
    "again",
    [
        ["other 0\n", "other 1\n", "other 2\n", "other 3\n"],
        ["other 0\n"],
    ],
)
async def test_begun_anew(copy: Copy, again: list[str]) -> None:
    """The output of another run comes after that of the first."""
    await copy.take_all(entries(0, 3), ended=False)
    await copy.take_all(again, ended=True)
    assert copy.base == 3
    assert [*(await lines(copy.log)).values()] == [
        "line 0",
        "line 1",
        "line 2",
        *(line.strip() for line in again),
    ]
    await copy.log.close()


async def test_redraws(copy: Copy) -> None:
    """A line that was drawn over is the last of what was drawn, with one number."""
    await copy.take_all(["10%\r", "100%\r\n", "next\n"], ended=False)
    assert [*(await lines(copy.log)).values()] == ["100%", "next"]
    await copy.log.close()


class TestStream:
    """What comes of a stream is certain or not taken."""

    async def test_history_and_live(self, copy: Copy) -> None:
        """A stream begins with what is known already."""
        await copy.take_all(entries(0, 3), ended=False)
        reader = _StreamReader(copy)
        assert await reader.take([])
        assert await reader.take(entries(0, 5))
        assert copy.log.total == 3
        assert reader.holds
        assert await reader.take(["line 5\n"])
        assert copy.log.total == 5
        assert await reader.take([])
        assert copy.log.total == 6
        assert not reader.holds
        assert await lines(copy.log) == {it: f"line {it}" for it in range(6)}
        await copy.log.close()

    async def test_burst(self, copy: Copy) -> None:
        """Of a burst, which may lack something, nothing is taken."""
        reader = _StreamReader(copy)
        assert await reader.take(entries(0, 10))
        assert not await reader.take(entries(10, 10 + output_module.BURST_LINES))
        assert copy.log.total == 0

    async def test_hole(self, copy: Copy) -> None:
        """A stream that begins later than what is known goes back to a snapshot."""
        reader = _StreamReader(copy)
        assert not await reader.take([trimmed(5), *entries(5, 8)])
        assert copy.log.total == 0

    async def test_no_longer_than_is_safe(self, copy: Copy) -> None:
        """A stream is given up before the server can have dropped something."""
        reader = _StreamReader(copy)
        taken = 0
        while await reader.take(entries(taken, taken + 500)):
            taken += 500
        assert taken <= output_module.STREAM_LINES
        assert await lines(copy.log) == {
            it: f"line {it}" for it in range(copy.log.total)
        }
        await copy.log.close()


class TestInbox:
    """What waits between a connection and whoever uses it."""

    async def test_bounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is too much is given up, and said to be."""
        monkeypatch.setattr(output_module, "MAX_BYTES", 10)
        inbox = Inbox()
        inbox.put("output", "12345")
        assert inbox.take() == ["12345"]
        inbox.put("output", "1234567890")
        assert not inbox.overflowed
        inbox.put("output", "1")
        inbox.put("output", "2")
        assert inbox.overflowed
        assert inbox.take() == []

    async def test_what_is_no_output(self) -> None:
        """Other events are not taken for output."""
        inbox = Inbox()
        inbox.put("output", 5)
        inbox.put("something", "x")
        assert inbox.take() == []
        inbox.put("result", {"code": 0})
        assert inbox.ended
        assert inbox.result == {"code": 0}

    async def test_wait(self) -> None:
        """Whoever waits is woken, or has waited long enough."""
        inbox = Inbox()
        await inbox.wait(0.01)
        asyncio.get_running_loop().call_later(0.01, inbox.close)
        await inbox.wait(5)
        assert inbox.ended
