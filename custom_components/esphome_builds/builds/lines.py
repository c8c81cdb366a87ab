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
    r"|[ -/]+[0-~]?"
    r"|[0-~])?"
)
# The same as a single character of the upper half, which terminals act upon, too.
_UPPER_CONTROLS: Final = re.compile(r"[\x80-\x9f]")
_SGR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_SGR_CUT_OFF: Final = re.compile(r"\x1b(?:\[[0-9;:]*)?\Z")


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
        self._redrawn = False

    @property
    def redraw(self) -> str | None:
        """Return how a line that has not ended looks now, if it is being redrawn.

        To be recognized, not to be shown: the cleaners did not see it.
        """
        return _text(_last_redraw(self._held)) if self._redrawn else None

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are complete now."""
        data = data.translate(None, _CONTROLS)
        first, end, data = data.partition(b"\n")
        self._hold(self._held + first)
        if not end:
            return []
        complete, end, rest = data.rpartition(b"\n")
        lines = self._lines(self._held + end + complete)
        self._held, self._dropped, self._redrawn = b"", 0, False
        self._hold(rest)
        return lines

    def close(self) -> list[str]:
        """Return the last line, if it did not end."""
        return self.feed(b"\n") if self._held else []

    def _hold(self, data: bytes) -> None:
        """Keep the visible part of an unfinished line, bounded."""
        shown = data.rstrip(b"\r")
        start = shown.rfind(b"\r") + 1
        if start:
            self._dropped = 0
        kept = shown[start : start + _HELD_BYTES]
        self._dropped += len(shown) - start - len(kept)
        self._redrawn = self._redrawn or len(shown) < len(data) or start > 0
        # One `\r` at the end says that whatever comes next replaces this.
        self._held = kept + data[len(shown) : len(shown) + 1]

    def _lines(self, data: bytes) -> list[str]:
        """Return whole lines, the first of which was held, as clean text."""
        if b"\r" in data:
            data = b"\n".join(map(_last_redraw, data.split(b"\n")))
        text = _text(data)
        # Last, so that what was removed cannot have stood in the middle of a secret.
        for cleaner in self._cleaners:
            text = cleaner(text)
        lines = text.split("\n")
        # A character has at most four bytes.
        if self._dropped or max(map(len, lines)) > LINE_BYTES // 4:
            lines = [_cut(lines[0], self._dropped), *map(_cut, lines[1:])]
        return lines


def _text(data: bytes) -> str:
    """Return output as text in which only colors are left of terminal control."""
    text = data.decode("utf-8", "replace")
    if not text.isascii():
        text = _UPPER_CONTROLS.sub("", text)
    if "\\033[" in text:
        # `esphome --dashboard` prints its escape sequences as text.
        text = text.replace("\\033[", "\x1b[")
    if "\x1b" in text:
        text = _SEQUENCE.sub("", text)
    if "\a" in text:
        text = text.replace("\a", "")
    return text


def _last_redraw(line: bytes) -> bytes:
    """Return what a terminal shows of a line with carriage returns in it."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _cut(line: str, dropped: int = 0) -> str:
    """Return the line within its limit, with a marker where bytes are missing."""
    data = line.encode()
    if len(data) <= LINE_BYTES and not dropped:
        return line
    kept = data[: LINE_BYTES - _MARKER_BYTES].decode("utf-8", "ignore")
    kept = _SGR_CUT_OFF.sub("", kept)
    missing = len(data) - len(kept.encode()) + dropped
    return kept + _MARKER.format(missing)
