"""From a process's bytes, in any chunking, to lines of text.

The work is linear in the bytes read, whatever terminators they hold, and is done in
bulk: a chunk is cleaned as one string, not line by line.
"""

from collections.abc import Callable
import re
from typing import Final

LINE_BYTES: Final = 8 * 1024
"""The most bytes of UTF-8 that one line keeps, its marker included."""

# Twice a line: what hides a secret may make a line shorter before it is cut.
_HELD_BYTES: Final = 2 * LINE_BYTES
_MARKER: Final = " … [line cut here: {:,} more bytes]"
_MARKER_BYTES: Final = 64

# What a terminal would act upon and a log must not: all of C0 but tab, line feed,
# carriage return and the two that frame escape sequences.
_CONTROLS: Final = bytes(set(range(0x20)) - set(b"\a\t\n\r\x1b")) + b"\x7f"
# Every escape sequence but colors (SGR), ECMA-48 with xterm's window titles (OSC).
_SEQUENCE: Final = re.compile(
    r"\x1b(?!\[[0-9;:]*m)"
    r"(?:\[[0-?]*[ -/]*[@-~]?"
    r"|\][^\a\x1b\n]*(?:\a|\x1b\\)?"
    r"|[PX^_][^\x1b\n]*(?:\x1b\\)?"
    r"|[ -~])?"
)
_SGR: Final = re.compile(r"\x1b\[[0-9;:]*m")


type Cleaner = Callable[[str], str]
"""Hides what must not be in a log, in a text of many lines, and keeps their number."""


def plain(text: str) -> str:
    """Return a line without its colors."""
    return _SGR.sub("", text) if "\x1b" in text else text


class LineSplitter:
    r"""Splits output into lines as a terminal would show them in the end.

    A line ends with `\n`. Within it, what follows a bare `\r` replaces what stood
    before (a redraw), so `\r\n` is an ordinary end. Colors stay, all other terminal
    control is removed. A line of more than `LINE_BYTES` is cut and says how much is
    missing.
    """

    def __init__(self, *cleaners: Cleaner) -> None:
        """Start at the beginning of a line; the cleaners are applied in order."""
        self._cleaners = cleaners
        self._held = b""
        self._dropped = 0

    @property
    def redraw(self) -> str | None:
        """Return the newest redraw of the line that has not ended yet."""
        if b"\r" not in self._held:
            return None
        return self._lines(self._held)[0]

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are complete now."""
        data = data.translate(None, _CONTROLS)
        complete, end, rest = data.rpartition(b"\n")
        if not end:
            self._hold(self._held + rest)
            return []
        lines = self._lines(self._held + complete)
        if self._dropped:
            lines[0] = _cut(lines[0], self._dropped)
        self._held, self._dropped = b"", 0
        self._hold(rest)
        return lines

    def close(self) -> list[str]:
        """Return the last line, if it did not end."""
        return self.feed(b"\n") if self._held else []

    def _hold(self, data: bytes) -> None:
        """Keep the visible part of an unfinished line, bounded."""
        shown = data.rstrip(b"\r")
        redrawn = shown.rfind(b"\r") + 1
        if redrawn:
            self._dropped = 0
        kept = shown[redrawn : redrawn + _HELD_BYTES]
        self._dropped += len(shown) - redrawn - len(kept)
        # One `\r` at the end says that whatever comes next replaces this.
        self._held = kept + data[len(shown) : len(shown) + 1]

    def _lines(self, data: bytes) -> list[str]:
        """Return whole lines as clean text."""
        text = data.decode("utf-8", "replace")
        if "\\033[" in text:
            # `esphome --dashboard` prints its escape sequences as text.
            text = text.replace("\\033[", "\x1b[")
        for cleaner in self._cleaners:
            text = cleaner(text)
        if "\x1b" in text:
            text = _SEQUENCE.sub("", text)
        if "\a" in text:
            text = text.replace("\a", "")
        lines = text.split("\n")
        if "\r" in text:
            lines = [_last_redraw(line) for line in lines]
        if max(map(len, lines)) > LINE_BYTES // 4:
            lines = [_cut(line, 0) for line in lines]
        return lines


def _last_redraw(line: str) -> str:
    """Return what a terminal shows of a line with carriage returns in it."""
    return line.rstrip("\r").rpartition("\r")[2]


def _cut(line: str, dropped: int) -> str:
    """Return the line within its limit, with a marker where bytes are missing."""
    data = line.encode()
    if len(data) <= LINE_BYTES and not dropped:
        return line
    kept = data[: LINE_BYTES - _MARKER_BYTES].decode("utf-8", "ignore")
    missing = len(data) - len(kept.encode()) + dropped
    return kept + _MARKER.format(missing)
