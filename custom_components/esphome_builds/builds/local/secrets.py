"""Keeps the values of secrets files out of logs.

A value of the secrets file can appear where ESPHome does not know it for one, and so
does not conceal it (`conceal`).
"""

from collections.abc import Iterable, Iterator
import json
import math
import os
from pathlib import Path
import re
from typing import Final

import yaml

from ..conceal import hide
from .files import EXHAUSTED, read
from .references import included
from .yaml_tree import BOOLEAN, Node, Tagged, YamlError, parse

MIN_LENGTH: Final = 4
"""The fewest characters of a value that is hidden."""

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
                found, names = _read(real)
                values += found
                pending += [path.parent / name for name in names]
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
        return hide(text, spans)


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
    names: list[str] = []
    pending = list(documents)
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            values.append(node)
        elif isinstance(node, Tagged):
            if (name := included(node)) is not None:
                names.append(name)
            elif node.tag not in _REFERENCES:
                pending.append(node.node)
        elif node is not None and id(node) not in seen:
            seen.add(id(node))
            pending += node.children
    return values, names


def _in_lines(text: str) -> tuple[list[str], list[str]]:
    """Return what may be a value in a broken file, and the names of included files."""
    values: list[str] = []
    names: list[str] = []
    for line in text.splitlines():
        value = _KEY.sub("", line, count=1).strip()
        if value.startswith(_INCLUDE):
            names.append(value.removeprefix(_INCLUDE).strip())
        elif not value.startswith(("#", *_REFERENCES)) and value.lower() not in _WORDS:
            bare = value.partition(" #")[0].strip()
            values += (value, bare, bare.strip("\"'"))
    return values, names
