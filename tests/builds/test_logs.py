"""All logs of a builder: each opened once, and bounded together."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from custom_components.esphome_builds.builds import logs as module
from custom_components.esphome_builds.builds.log import JobLog
from custom_components.esphome_builds.builds.logs import ALL_LOGS_BYTES, Logs

_KIB = 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where the logs are."""
    return tmp_path / "logs"


@pytest.fixture
async def logs(folder: Path) -> AsyncGenerator[Logs]:
    """Return the logs of a builder, none yet."""
    logs = Logs(folder)
    yield logs
    for log in [*logs._open.values()]:
        await log.close()


async def write(logs: Logs, job_id: str, kibibytes: int) -> JobLog:
    """Write the log of a job."""
    log = await logs.open(job_id, 0)
    log.append(["x" * 1023] * kibibytes)
    await log.close()
    return log


def names(folder: Path) -> list[str]:
    """Return the jobs that have a log on disk."""
    return sorted(path.name for path in folder.iterdir())


def test_bound() -> None:
    """The bound is the one that was promised."""
    assert ALL_LOGS_BYTES == 256 * 1024 * 1024


async def test_opened_once(logs: Logs, folder: Path) -> None:
    """Who opens a log gets the same as everybody else, also at the same time."""
    first, second = await asyncio.gather(logs.open("1", 0), logs.open("1", 0))

    assert first is second
    assert await logs.open("2", 0) is not first
    # Looking at a log makes no folder.
    assert not folder.exists()


async def test_who_holds_a_log_hears_of_it(logs: Logs) -> None:
    """A log that somebody follows stays the same, whatever else is opened."""
    followed = await logs.open("1", 0)
    for number in range(100, 200):
        await logs.open(str(number), 0)

    assert await logs.open("1", 0) is followed


async def test_logs_that_nobody_holds_are_let_go(logs: Logs) -> None:
    """Reading many old logs does not fill the memory."""
    for number in range(100):
        await write(logs, f"{number:03}", 1)

    assert len(logs._open) <= 10
    assert (await logs.open("000", 0)).total == 1


async def test_lost_lines(logs: Logs) -> None:
    """A log whose file is gone still knows how long it was."""
    assert (await logs.open("1", 50)).elided == 50


async def test_nothing_to_enforce(logs: Logs) -> None:
    """Without any log there is nothing to do."""
    assert await logs.enforce(["1"], []) == []


async def test_within_the_bound(logs: Logs, folder: Path) -> None:
    """Within the bound all logs of known jobs stay."""
    for number in range(3):
        await write(logs, str(number), 1)

    assert await logs.enforce(["0", "1", "2", "3"], []) == []
    assert names(folder) == ["0", "1", "2"]


async def test_oldest_first(
    logs: Logs, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much goes, oldest first, and no more than that."""
    monkeypatch.setattr(module, "ALL_LOGS_BYTES", 100 * _KIB)
    for number in range(6):
        await write(logs, str(number), 25)
    jobs = [str(number) for number in range(6)]

    assert await logs.enforce(jobs, []) == ["0", "1"]
    assert names(folder) == ["2", "3", "4", "5"]
    assert await logs.enforce(jobs, []) == []


async def test_growing_logs_stay(
    logs: Logs, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of a job that runs is never taken from it, however old and large."""
    monkeypatch.setattr(module, "ALL_LOGS_BYTES", 10 * _KIB)
    for number in range(3):
        await write(logs, str(number), 25)

    assert await logs.enforce(["0", "1", "2"], ["0"]) == ["1", "2"]
    assert names(folder) == ["0"]


async def test_unknown_jobs(logs: Logs, folder: Path) -> None:
    """Logs of jobs that left the history go."""
    for number in range(4):
        await write(logs, str(number), 1)

    assert await logs.enforce(["1", "3"], []) == ["0", "2"]
    assert names(folder) == ["1", "3"]


async def test_newer_than_known(logs: Logs, folder: Path) -> None:
    """A log that was made while this looked is left alone."""
    await write(logs, "1", 1)
    await write(logs, "3", 1)

    assert await logs.enforce(["2"], []) == ["1"]
    assert names(folder) == ["3"]


async def test_deleted_log_is_opened_anew(logs: Logs) -> None:
    """Who opens a deleted log later is told what is gone; who holds it, too."""
    log = await write(logs, "1", 50)
    await logs.enforce(["2"], [])

    again = await logs.open("1", 50)

    assert again is not log
    assert again.gaps == [(0, 49)]


async def test_strange_files(logs: Logs, folder: Path) -> None:
    """What is no log is left alone, and is not in the way."""
    await write(logs, "1", 1)
    (folder / "0").write_text("a file where only folders are")

    assert await logs.enforce(["2"], []) == ["1"]
    assert names(folder) == ["0"]
