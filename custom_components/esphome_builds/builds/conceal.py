r"""Keeps out of logs what ESPHome conceals.

ESPHome prints a sensitive value between the terminal codes for "conceal" and "reveal",
as `\033[8mhunter2\033[28m` (`represent_sensitive` in `esphome/yaml_util.py`), with the
escape character spelled out when it runs for a dashboard.
"""

import re
from typing import Final

CONCEALED_LINES: Final = 64
"""The most lines that a conceal without an end hides."""

REDACTED: Final = "[secret]"

_SGR: Final = re.compile(r"(?:\x1b|\\{1,4}033)\[([0-9;:]{0,64})m")
_CONCEAL: Final = "8"
_REVEAL: Final = "28"
_RESET: Final = "0"
# How many parameters belong to a color that is given by number or by its parts.
_COLORS: Final = ("38", "48", "58")
_COLOR_LENGTH: Final = {"5": 1, "2": 3}

# Where a conceal began that is older than the piece of output.
_BEFORE: Final = -1

type Span = tuple[int, int]


class Concealment:
    """Removes concealed text from an output that comes in pieces of whole lines.

    A conceal lasts until it is revealed, however far on in its piece, or else for as
    many lines as given, over several pieces. Conceals are counted like brackets, since
    ESPHome conceals the first line of a value that is concealed already, and reveals
    the rest with it.
    """

    def __init__(self, lines: int = CONCEALED_LINES) -> None:
        """Start with nothing concealed."""
        self._lines = lines
        self._depth = 0
        self._remaining = 0

    def remove(self, text: str) -> str:
        """Return the next piece, of as many lines, without what is concealed in it."""
        if not self._depth and "8m" not in text and "8;" not in text:
            return text
        spans, opened = self._pairs(text)
        end = left = 0
        for start in opened:
            if start == _BEFORE:
                end, left = _end(text, 0, self._remaining)
                spans.append((0, end))
            elif start >= end:
                end, left = _end(text, start, self._lines)
                spans.append((start, end))
        self._depth = len(opened) if left else 0
        self._remaining = left
        return hide(text, spans)

    def _pairs(self, text: str) -> tuple[list[Span], list[int]]:
        """Return what is concealed and revealed, and where the other conceals begin."""
        opened = [_BEFORE] * self._depth
        spans: list[Span] = []
        for match in _SGR.finditer(text):
            effect = _effect(match[1])
            if effect == _CONCEAL:
                opened.append(match.start())
            elif effect is not None and opened:
                if effect == _RESET:
                    del opened[1:]
                spans.append((max(0, opened.pop()), match.end()))
        return spans, opened


def _effect(parameters: str) -> str | None:
    """Return the last of the codes that matter here in a "select graphic rendition"."""
    effect = None
    codes = iter(parameters.split(";"))
    for code in codes:
        number = code.lstrip("0") or _RESET
        if number in _COLORS:
            for _ in range(_COLOR_LENGTH.get(next(codes, ""), 0)):
                next(codes, None)
        elif number in (_CONCEAL, _REVEAL, _RESET):
            effect = number
    return effect


def _end(text: str, start: int, lines: int) -> tuple[int, int]:
    """Return where so many lines end, and how many of them are still to come."""
    end = start - 1
    for left in range(lines, 0, -1):
        end = text.find("\n", end + 1)
        if end < 0:
            return len(text), left - 1
    return end, 0


def hide(text: str, spans: list[Span]) -> str:
    """Return a text without what is in the spans, of as many lines."""
    parts: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if start >= end:
            parts += (text[end:start], REDACTED)
            end = start
        if stop > end:
            parts.append("\n" * text.count("\n", end, stop))
            end = stop
    return "".join((*parts, text[end:]))
