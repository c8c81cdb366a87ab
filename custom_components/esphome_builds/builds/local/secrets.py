r"""Keeps out of logs what must not be there: secrets, and what ESPHome conceals.

ESPHome prints a sensitive value between the terminal codes for "conceal" and "reveal",
as `\033[8mhunter2\033[28m` (`represent_sensitive` in `esphome/yaml_util.py`), with the
escape character spelled out when it runs for a dashboard. A value of the secrets file
can also appear where ESPHome does not know it for one.
"""

from collections.abc import Iterable, Iterator
import json
import math
import os
from pathlib import Path
import re
from typing import Final

import yaml

from .files import EXHAUSTED, read
from .yaml_tree import BOOLEAN, Mapping, Node, Tagged, YamlError, parse

CONCEALED_LINES: Final = 64
"""The most lines that a conceal without an end hides."""

MIN_LENGTH: Final = 4
"""The fewest characters of a value that is hidden."""

REDACTED: Final = "[secret]"

# Beside a file that a configuration includes there can be secrets of its own; ESPHome
# looks there first (`construct_secret` in `esphome/yaml_util.py`).
_FILES: Final = (
    "secrets.yaml",
    "secrets.yml",
    "[!.]*/secrets.yaml",
    "[!.]*/secrets.yml",
)
_INCLUDE: Final = "!include"
_MAX_FILES: Final = 64
# What is tagged so stands for something else; the name of a secret is no secret.
_REFERENCES: Final = (_INCLUDE, "!env_var", "!secret", BOOLEAN)

_KEY: Final = re.compile(r"\s*+(?:-\s++)*+(?:[^:#]++:(?:\s++|$))?")
_WORDS: Final = frozenset(("false", "null", "true"))

# Where PyYAML folds a long text when ESPHome prints a configuration.
_FOLD: Final = r"(?: |\n *|\\\n *\\ )"
_NOT_IN_CPP: Final = re.compile(rb"[^ !#-\[\]-~]")
_SIMPLE: Final = re.compile(r"[ !#-&(-\[\]-~]*")

# Up to this length CPython searches a string with an algorithm that is three times as
# fast on logs (`FASTSEARCH` in `Objects/stringlib/fastsearch.h`).
_WINDOW: Final = 29_000

_PROBE: Final = 64
_STEP: Final = _WINDOW - _PROBE

_SGR: Final = re.compile(r"(?:\x1b|\\{1,4}033)\[([0-9;:]{0,64})m")
_CONCEAL: Final = "8"
_REVEAL: Final = "28"
_RESET: Final = "0"
# How many parameters belong to a color that is given by number or by its parts.
_COLORS: Final = ("38", "48", "58")
_COLOR_LENGTH: Final = {"5": 1, "2": 3}

# Where a conceal began that is older than the piece of output.
_BEFORE: Final = -1

type _Span = tuple[int, int]


class Redactor:
    """Hides the values of a folder's secrets files.

    Values of fewer than `MIN_LENGTH` characters, and true and false, stay: they cannot
    be found without destroying the log. Of a value with several lines each one counts.
    """

    def __init__(self, values: Iterable[str]) -> None:
        """Prepare for the values, in all the ways in which they can be printed."""
        forms = {form for value in values for form in _forms(value)}
        self._forms = [(_probe(form), form) for form in forms]

    @classmethod
    def load(cls, config_dir: Path) -> Redactor:
        """Read the secrets of a folder and the files they include; blocking.

        Where a file is missing there is nothing to hide. One that is no YAML is taken
        line by line, so that a slip in it does not uncover the rest. Raises `OSError`
        where nobody can tell now.
        """
        values: list[str] = []
        pending = [path for name in _FILES for path in config_dir.glob(name)]
        seen: set[str] = set()
        while pending and len(seen) < _MAX_FILES:
            path = pending.pop()
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                found, included = _read(real)
                values += found
                pending += [path.parent / name for name in included]
        return cls(values)

    def clean(self, text: str) -> str:
        """Return the text, of whole lines and as many of them, without the secrets."""
        windows = [text[at : at + _WINDOW] for at in range(0, len(text), _STEP)]
        spans = [
            match.span()
            for probe, form in self._forms
            if any(probe in window for window in windows)
            for match in _pattern(form).finditer(text)
        ]
        return _hide(text, spans)


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
        return _hide(text, spans)

    def _pairs(self, text: str) -> tuple[list[_Span], list[int]]:
        """Return what is concealed and revealed, and where the other conceals begin."""
        opened = [_BEFORE] * self._depth
        spans: list[_Span] = []
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


def _hide(text: str, spans: list[_Span]) -> str:
    """Return the text without what is in the spans, of as many lines."""
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


def _probe(form: str) -> str:
    """Return a part that is there wherever the form is, folded or not."""
    return max(form.split(" "), key=len)[:_PROBE]


def _pattern(form: str) -> re.Pattern[str]:
    return re.compile(re.escape(form).replace(r"\ ", _FOLD))


def _forms(value: str) -> Iterator[str]:
    """Yield the ways in which the lines of a value can be printed."""
    for line in re.split(r"[\r\n]+", value):
        text = line.strip()
        if len(text) < MIN_LENGTH:
            continue
        yield text
        if not _SIMPLE.fullmatch(text):
            yield _cpp(text)
            yield json.dumps(text)[1:-1]
            yield json.dumps(text, ensure_ascii=False)[1:-1]
            yield repr(text)[1:-1]
            yield text.replace("'", "''")
            yield _yaml(text)


def _cpp(text: str) -> str:
    """Return a text as in C++ (`cpp_string_escape` in `esphome/helpers.py`)."""
    data = text.encode("utf-8", "surrogatepass")
    return _NOT_IN_CPP.sub(lambda match: b"\\%03o" % ord(match[0]), data).decode()


def _yaml(text: str) -> str:
    """Return a text as ESPHome prints it in YAML, in double quotes, without these."""
    dumped: str = yaml.safe_dump(
        text, allow_unicode=True, default_style='"', width=math.inf
    )
    return dumped.strip()[1:-1]


def _read(path: str) -> tuple[list[str], list[str]]:
    """Return the values in a file and the names of the files it includes."""
    try:
        data, _ = read(path)
    except OSError as err:
        if err.errno in EXHAUSTED:
            # What can be read a moment later by ESPHome would not be hidden.
            raise
        return [], []
    try:
        return _in_tree(parse(data.decode()))
    except UnicodeDecodeError, YamlError:
        return _in_lines(data.decode("utf-8", "replace"))


def _in_tree(documents: list[Node]) -> tuple[list[str], list[str]]:
    """Return all texts but the keys, and the names of included files."""
    values: list[str] = []
    included: list[str] = []
    pending = list(documents)
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            values.append(node)
        elif isinstance(node, Tagged):
            if node.tag == _INCLUDE:
                included += _included(node.node)
            elif node.tag not in _REFERENCES:
                pending.append(node.node)
        elif node is not None and id(node) not in seen:
            seen.add(id(node))
            pending += node.children
    return values, included


def _included(node: Node) -> list[str]:
    """Return the file name in an `!include`, which can have variables beside it."""
    if isinstance(node, Mapping):
        node = node.items.get("file")
    return [node] if isinstance(node, str) else []


def _in_lines(text: str) -> tuple[list[str], list[str]]:
    """Return what may be a value in a broken file, and the names of included files."""
    values: list[str] = []
    included: list[str] = []
    for line in text.splitlines():
        value = _KEY.sub("", line, count=1).strip()
        if value.startswith(_INCLUDE):
            included.append(value.removeprefix(_INCLUDE).strip())
        elif not value.startswith(("#", *_REFERENCES)) and value.lower() not in _WORDS:
            bare = value.partition(" #")[0].strip()
            values += (value, bare, bare.strip("\"'"))
    return values, included
