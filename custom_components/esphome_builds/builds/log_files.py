"""A job's log on disk: a folder of segments with a bounded sum.

Each segment is a text file named by the number of its first line, so numbers stay true
after a crash and whatever is missing between. `cat <folder>/*` shows the whole log: its
head, a notice where the middle was left out, and its tail. Everything here blocks.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
import os
from pathlib import Path
import threading
from typing import Final

HEAD_BYTES: Final = 8 * 1024 * 1024
LOG_BYTES: Final = 32 * 1024 * 1024
SEGMENT_BYTES: Final = 2 * 1024 * 1024
_MARK_BYTES: Final = 64 * 1024
_NOTICE: Final = "[{:,} lines are left out here: a log keeps at most {} MiB]\n"


@dataclass(slots=True)
class _Segment:
    """One file; `marks` are line numbers with their offsets, to find lines quickly."""

    path: Path
    first: int
    count: int = 0
    size: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)

    @property
    def next_line(self) -> int:
        """Return the number of the line after the last."""
        return self.first + self.count

    def grow(self, data: bytes) -> None:
        """Note that lines were written."""
        start = 0
        while start < len(data):
            end = data.find(b"\n", start + _MARK_BYTES) + 1 or len(data)
            if not self.marks or self.size - self.marks[-1][1] >= _MARK_BYTES:
                self.marks.append((self.next_line, self.size))
            self.count += data.count(b"\n", start, end)
            self.size += end - start
            start = end

    def scan(self) -> None:
        """Find out what a file of an earlier run holds."""
        with self.path.open("rb") as file:
            while block := file.read(_MARK_BYTES):
                # A mark may stand only at the start of a line.
                block += file.readline()
                self.grow(block)
                if not block.endswith(b"\n"):
                    # A crash cut it off; nothing is added to this file.
                    self.count += 1

    def read(
        self, from_line: int, max_lines: int, max_bytes: int
    ) -> tuple[list[str], int]:
        """Return lines of this segment, at least one, and their size."""
        line, offset = self.marks[bisect_right(self.marks, (from_line, self.size)) - 1]
        lines: list[bytes] = []
        size = 0
        with self.path.open("rb") as file:
            file.seek(offset)
            for _ in range(from_line - line):
                file.readline()
            stop = min(max_lines, self.next_line - from_line)
            while len(lines) < stop and (text := file.readline()):
                if lines and size + len(text) > max_bytes:
                    break
                lines.append(text)
                size += len(text)
        text = b"".join(lines).removesuffix(b"\n")
        return text.decode("utf-8", "replace").split("\n"), size


class LogFiles:
    """The segments of one log. Calls may come from any thread."""

    def __init__(self, folder: Path) -> None:
        """Read what an earlier run left in the folder, which need not exist.

        Raises `OSError` where that is not possible now.
        """
        self.folder = folder
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        self._segments: list[_Segment] = []
        for path in _listed(folder):
            if path.suffix == ".log" and path.stem.isdecimal():
                segment = _Segment(path, int(path.stem))
                segment.scan()
                if segment.count:
                    self._segments.append(segment)

    @property
    def next_line(self) -> int:
        """Return the number of the line after the last."""
        return self._segments[-1].next_line if self._segments else 0

    @property
    def size(self) -> int:
        """Return the bytes on disk."""
        return sum(segment.size for segment in self._segments)

    def gaps(self, end: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of lines before `end`, first and last, that are missing."""
        expected = 0
        for segment in tuple(self._segments):
            if segment.first > expected:
                yield expected, segment.first - 1
            expected = segment.next_line
        if end > expected:
            yield expected, end - 1

    def write(self, first: int, data: bytes) -> None:
        """Append whole lines; leave nothing of them when that fails with `OSError`."""
        with self._lock:
            segment = self._writable(first)
            assert self._file is not None  # noqa: S101
            try:
                rest = memoryview(data)
                while rest:
                    # A disk that is nearly full takes a part and says so.
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._undo(segment)
                raise
            segment.grow(data)

    def read(
        self, from_line: int, max_lines: int, max_bytes: int
    ) -> tuple[int, list[str]] | None:
        """Return the first lines there are at or after a line, and the number of it.

        A page goes on over segments, but not over a hole.
        """
        first = from_line
        lines: list[str] = []
        size = 0
        with self._lock:
            for segment in tuple(self._segments):
                next_line = first + len(lines)
                if segment.next_line <= next_line:
                    continue
                if lines and (segment.first > next_line or len(lines) == max_lines):
                    break
                first = first if lines else max(first, segment.first)
                start = first + len(lines)
                try:
                    found, read = segment.read(
                        start, max_lines - len(lines), max_bytes - size
                    )
                except FileNotFoundError:
                    # The log was deleted under its reader.
                    self._segments.remove(segment)
                    continue
                if lines and size + read > max_bytes:
                    break
                lines += found
                size += read
        return (first, lines) if lines else None

    def close(self) -> None:
        """Close the file that is open for writing."""
        with self._lock, suppress(OSError):
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _undo(self, segment: _Segment) -> None:
        """Take back half a write; the next one starts a segment of its own."""
        with suppress(OSError):
            self._close()
        if segment.count:
            os.truncate(segment.path, segment.size)
        else:
            self._segments.remove(segment)
            segment.path.unlink(missing_ok=True)

    def _writable(self, first: int) -> _Segment:
        """Return the segment for the line, which is open for writing then."""
        last = self._segments[-1] if self._segments else None
        if (
            self._file is not None
            and last is not None
            and last.next_line == first
            and last.size < SEGMENT_BYTES
        ):
            return last
        self._close()
        self._make_room(first)
        self.folder.mkdir(parents=True, exist_ok=True)
        segment = _Segment(self.folder / f"{first:012d}.log", first)
        self._file = FileIO(segment.path, "w")
        self._segments.append(segment)
        return segment

    def _make_room(self, next_line: int) -> None:
        """Leave out the oldest segments after the head, so that one more fits.

        That one begins with the line.
        """
        while self.size + 2 * SEGMENT_BYTES > LOG_BYTES:
            size = index = 0
            while size < HEAD_BYTES:
                size += self._segments[index].size
                index += 1
            self._segments.pop(index).path.unlink(missing_ok=True)
            tail = self._segments[index:]
            end = tail[0].first if tail else next_line
            self._write_notice(self._segments[index - 1], end)

    def _write_notice(self, before: _Segment, end: int) -> None:
        """Say how much is missing between a segment and a line."""
        missing = end - before.next_line
        notice = _NOTICE.format(missing, LOG_BYTES // 1024 // 1024)
        path = self.folder / f"{before.next_line:012d}.gap"
        path.write_text(notice, encoding="utf-8")


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder, nothing if there is none.

    Not by `glob`, for which a folder that cannot be read is an empty one.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
