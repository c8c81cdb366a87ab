"""A log on disk: bounded, with its head, its tail and a notice, and true numbers."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
import re
import resource
import shutil
import threading
import time

import pytest

from custom_components.esphome_builds.builds.log_files import (
    HEAD_BYTES,
    LOG_BYTES,
    SEGMENT_BYTES,
    LogFiles,
)

_MIB = 1024 * 1024


def text(first: int, count: int) -> bytes:
    """Return lines of 64 bytes that tell their number."""
    return b"".join(b"line %058d\n" % number for number in range(first, first + count))


def fill(files: LogFiles, first: int, size: int, step: int = _MIB) -> int:
    """Write lines until a log grew by so much; return the number of the next line."""
    for _ in range(size // step):
        files.write(first, text(first, step // 64))
        first += step // 64
    return first


def number(line: str) -> int:
    """Return the number that a line tells."""
    return int(line.removeprefix("line "))


def on_disk(folder: Path) -> int:
    """Return the bytes that a log takes."""
    return sum(path.stat().st_size for path in folder.iterdir())


@contextmanager
def full_disk(limit: int) -> Generator[None]:
    """Let no file grow beyond a size: the system itself refuses, and writes a part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_nothing_is_written_before_the_first_line(tmp_path: Path) -> None:
    """The log of a job that never ran leaves nothing on disk."""
    files = LogFiles(tmp_path / "log")

    assert files.next_line == 0
    assert files.size == 0
    assert files.read(0, 10, 1000) is None
    assert list(files.gaps(0)) == []
    files.close()
    assert not (tmp_path / "log").exists()


def test_lines_by_number(tmp_path: Path) -> None:
    """Every line is found by its number, in pages of bounded lines and bytes."""
    files = LogFiles(tmp_path)
    files.write(0, b"one\ntwo\n\n")
    files.write(3, "four\nfünf\n".encode())

    assert files.next_line == 5
    assert files.read(0, 100, 1000) == (0, ["one", "two", "", "four", "fünf"])
    assert files.read(1, 2, 1000) == (1, ["two", ""])
    assert files.read(0, 100, 8) == (0, ["one", "two"])
    # One line there is always, or nobody would ever get past it.
    assert files.read(3, 100, 1) == (3, ["four"])
    assert files.read(5, 100, 1000) is None
    files.close()


@pytest.mark.parametrize("step", [1024, 64 * 1024, 192 * 1024, _MIB])
def test_every_line_is_found(tmp_path: Path, step: int) -> None:
    """Whatever was written at once, a page starts at the line that was asked for."""
    files = LogFiles(tmp_path)
    size = 5 * _MIB // step * step
    end = fill(files, 0, size, step)

    assert files.next_line == end == size // 64
    for line in (*range(0, end, 997), end - 1, *range(32760, 32776)):
        page = files.read(line, 3, _MIB)
        assert page is not None
        first, lines = page
        assert first == line
        assert [number(found) for found in lines] == [
            *range(line, min(line + len(lines), end))
        ]
        assert lines
    files.close()


def test_finding_a_line_is_quick(tmp_path: Path) -> None:
    """A page costs the same wherever it is, also where much was written at once."""
    files = LogFiles(tmp_path)
    count = 100_000
    files.write(0, b"".join(b"line %d\n" % number for number in range(count)))
    for again in (files, LogFiles(tmp_path)):
        started = time.process_time()
        for line in range(0, count, 100):
            assert again.read(line, 1, 1000) == (line, [f"line {line}"])
        assert time.process_time() - started < 2
    files.close()


def test_cap(tmp_path: Path) -> None:
    """More than 32 MiB keep the head, the tail and a notice of what is left out."""
    files = LogFiles(tmp_path)
    end = 0
    for _ in range(100):
        end = fill(files, end, _MIB)
        assert on_disk(tmp_path) <= LOG_BYTES
        assert files.size <= LOG_BYTES
    files.close()

    assert on_disk(tmp_path) > LOG_BYTES - 3 * SEGMENT_BYTES
    shown = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir())).decode()
    head, notice, tail = re.split(r"^(\[.*\n)", shown, flags=re.MULTILINE)
    assert HEAD_BYTES <= len(head) < HEAD_BYTES + 2 * SEGMENT_BYTES
    head_lines = [number(line) for line in head.splitlines()]
    tail_lines = [number(line) for line in tail.splitlines()]
    assert head_lines == [*range(len(head_lines))]
    assert tail_lines == [*range(end - len(tail_lines), end)]
    missing = end - len(head_lines) - len(tail_lines)
    assert notice == (
        f"[{missing:,} lines are left out here: a log keeps at most 32 MiB]\n"
    )
    assert list(files.gaps(end)) == [(len(head_lines), tail_lines[0] - 1)]


def test_numbers_stay_true_across_the_hole_and_a_restart(tmp_path: Path) -> None:
    """What is left out is skipped by its number, also when the files are read anew."""
    files = LogFiles(tmp_path)
    end = fill(files, 0, 50 * _MIB)
    files.close()
    ((first, last),) = files.gaps(end)

    for again in (files, LogFiles(tmp_path)):
        assert again.next_line == end
        assert list(again.gaps(end)) == [(first, last)]
        assert again.read(first - 1, 5, _MIB) == (first - 1, _lines(first - 1, 1))
        assert again.read(first, 2, _MIB) == (last + 1, _lines(last + 1, 2))
        assert again.read(last, 2, _MIB) == (last + 1, _lines(last + 1, 2))
        assert again.read(end - 2, 5, _MIB) == (end - 2, _lines(end - 2, 2))


def _lines(first: int, count: int) -> list[str]:
    return text(first, count).decode().splitlines()


def test_cap_after_a_restart(tmp_path: Path) -> None:
    """A second attempt writes on in the same log, within the same bound."""
    files = LogFiles(tmp_path)
    end = fill(files, 0, 40 * _MIB)
    files.close()
    again = LogFiles(tmp_path)

    end = fill(again, end, 40 * _MIB)
    again.close()

    assert on_disk(tmp_path) <= LOG_BYTES
    assert len([*tmp_path.glob("*.gap")]) == 1
    assert again.read(0, 1, 100) == (0, _lines(0, 1))
    assert again.read(end - 1, 1, 100) == (end - 1, _lines(end - 1, 1))
    ((first, last),) = again.gaps(end)
    notice = next(tmp_path.glob("*.gap")).read_text()
    assert f"[{last - first + 1:,} lines " in notice


def test_partial_line_of_a_crash(tmp_path: Path) -> None:
    """A last line that was cut off by a crash counts, and nothing is added to it."""
    files = LogFiles(tmp_path)
    files.write(0, b"one\ntwo\n")
    files.close()
    (segment,) = tmp_path.iterdir()
    with segment.open("ab") as file:
        file.write(b"thr")

    again = LogFiles(tmp_path)
    assert again.next_line == 3
    again.write(3, b"four\n")

    # A page goes on over files.
    assert again.read(0, 10, 100) == (0, ["one", "two", "thr", "four"])
    assert again.read(1, 2, 100) == (1, ["two", "thr"])
    assert again.read(0, 10, 11) == (0, ["one", "two", "thr"])
    assert again.read(3, 10, 100) == (3, ["four"])
    assert list(again.gaps(4)) == []
    again.close()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Empty and foreign files are no part of the log."""
    (tmp_path / "000000000000.log").touch()
    (tmp_path / "notes.log").write_text("mine\n")
    (tmp_path / "000000000007.gap").write_text("old\n")

    files = LogFiles(tmp_path)
    assert files.next_line == 0
    files.write(0, b"one\n")
    files.close()

    assert LogFiles(tmp_path).read(0, 10, 100) == (0, ["one"])
    assert (tmp_path / "notes.log").read_text() == "mine\n"


@pytest.mark.parametrize("before", [0, 3])
def test_full_disk_leaves_a_hole(tmp_path: Path, before: int) -> None:
    """A write that fails leaves no half line, and the next is numbered truly."""
    files = LogFiles(tmp_path)
    if before:
        files.write(0, text(0, before))

    with full_disk(before * 64 + 100), pytest.raises(OSError, match="File too large"):
        files.write(before, text(before, 10))
    assert on_disk(tmp_path) == before * 64
    assert files.next_line == before
    files.write(before + 10, text(before + 10, 2))
    files.close()

    for again in (files, LogFiles(tmp_path)):
        assert again.next_line == before + 12
        assert list(again.gaps(before + 12)) == [(before, before + 9)]
        assert again.read(before, 10, _MIB) == (before + 10, _lines(before + 10, 2))
        assert again.read(before + 11, 10, _MIB) == (
            before + 11,
            _lines(before + 11, 1),
        )
        if before:
            assert again.read(0, 10, _MIB) == (0, _lines(0, before))


def test_disk_that_stays_full(tmp_path: Path) -> None:
    """Failing again and again adds up to one hole."""
    files = LogFiles(tmp_path)
    files.write(0, text(0, 1))
    with full_disk(100):
        for first in range(1, 9, 2):
            with pytest.raises(OSError, match="File too large"):
                files.write(first, text(first, 2))

    assert list(files.gaps(9)) == [(1, 8)]
    assert on_disk(tmp_path) == 64
    assert files.read(1, 1, 100) is None
    files.close()


def test_log_is_deleted_under_its_reader(tmp_path: Path) -> None:
    """Deleted lines are gone, as a hole is; they are no error for who reads them."""
    folder = tmp_path / "log"
    files = LogFiles(folder)
    end = fill(files, 0, 5 * _MIB)
    shutil.rmtree(folder)

    assert files.read(0, 10, 1000) is None
    assert list(files.gaps(end)) == [(0, end - 1)]
    # If it still grew it goes on in a new folder.
    files.write(end, text(end, 1))
    assert files.read(0, 10, 1000) == (end, _lines(end, 1))
    files.close()


def test_deleted_in_part(tmp_path: Path) -> None:
    """Where one file is missing the reader goes on with the next."""
    files = LogFiles(tmp_path)
    end = fill(files, 0, 5 * _MIB)
    second = sorted(tmp_path.iterdir())[1]
    second.unlink()
    first = int(second.stem)

    page = files.read(first, 1, 1000)

    assert page is not None
    assert page[0] > first
    assert list(files.gaps(end)) == [(first, page[0] - 1)]
    files.close()


def test_closing_cannot_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job ends also where the system reports the loss of data only on closing."""
    files = LogFiles(tmp_path)
    files.write(0, b"one\n")

    class _Bad:
        def __init__(self, file: FileIO | None) -> None:
            self.file = file

        def close(self) -> None:
            assert self.file is not None
            self.file.close()
            raise OSError

    monkeypatch.setattr(files, "_file", _Bad(files._file))

    files.close()
    files.close()


def test_threads(tmp_path: Path) -> None:
    """Reading while others write finds whole lines with true numbers."""
    files = LogFiles(tmp_path)
    failures: list[BaseException] = []

    def _guarded(work: Callable[[], object]) -> Callable[[], None]:
        def _work() -> None:
            try:
                work()
            except BaseException as err:  # noqa: BLE001 - told in the other thread
                failures.append(err)

        return _work

    def _read() -> None:
        line = 0
        while line < end:
            if (page := files.read(line, 2000, 64 * 1024)) is not None:
                first, lines = page
                assert first >= line
                assert [number(found) for found in lines] == [
                    *range(first, first + len(lines))
                ]
                line = first + len(lines)

    end = 40 * _MIB // 64
    threads = [
        threading.Thread(target=_guarded(work))
        for work in (_read, _read, lambda: fill(files, 0, 40 * _MIB))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    files.close()


def test_folder_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for an empty one, whose lines would be overwritten."""

    def _refuse(path: Path) -> Iterator[Path]:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(Path, "iterdir", _refuse)
    with pytest.raises(OSError, match="Too many open files"):
        LogFiles(tmp_path)
