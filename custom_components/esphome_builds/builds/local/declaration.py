"""What a YAML file itself says of the device it describes."""

from dataclasses import dataclass
from enum import Enum
import re
from typing import Final

from .yaml_tree import Mapping, Node, Tagged

MAX_TEXT: Final = 1024
"""The most characters of a name, an area or a comment."""

_BLOCKS: Final = ("esphome", "esphomeyaml", "packages")
_MAX_NESTING: Final = 32

# The keys of ESPHome's target platforms (`Platform` in `esphome/const.py`), and the
# older name of `rp2`.
_PLATFORMS: Final = (
    "bk72xx",
    "esp32",
    "esp8266",
    "host",
    "libretiny",
    "ln882x",
    "nrf52",
    "rp2",
    "rp2040",
    "rtl87xx",
)

# `SUBSTITUTION_VARIABLE_PROG` and `JINJA_PROG` of `esphome/expression.py`.
_EXPRESSION: Final = re.compile(r"\$\{[^}]+\}|<%.+?%>")
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w*)\})", re.ASCII)


class Unknown(Enum):
    """Marks what does not stand in the file but may be known from the last build."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN

type Said = str | Unknown | None
"""A value, None where there is none, or `UNKNOWN` where only ESPHome can tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """What the file says; without arguments: nothing that can be understood."""

    name: Said = UNKNOWN
    friendly_name: Said = UNKNOWN
    area: Said = UNKNOWN
    comment: Said = UNKNOWN
    platform: Said = UNKNOWN


def declaration(document: Node) -> Declaration | None:
    """Return what a document says, or None if ESPHome would not build it.

    What makes it buildable may come from packages or from a file that it includes.
    """
    if isinstance(document, Tagged):
        return Declaration()
    if not isinstance(document, Mapping):
        return None
    blocks, complete = document.flat()
    if complete and not any(block in blocks for block in _BLOCKS):
        return None
    fields, all_fields = _flat(blocks.get("esphome"))
    whole = complete and all_fields and "packages" not in blocks
    absent = None if whole else UNKNOWN
    substitutions = _Substitutions(blocks.get("substitutions"))

    def _said(key: str) -> Said:
        return substitutions.resolve(fields[key]) if key in fields else absent

    return Declaration(
        name=_said("name"),
        friendly_name=_said("friendly_name"),
        area=_said("area"),
        comment=_said("comment"),
        platform=next((key for key in _PLATFORMS if key in blocks), UNKNOWN),
    )


def _flat(node: Node) -> tuple[dict[str, Node], bool]:
    """Return what stands in a block and whether that is all of it."""
    return node.flat() if isinstance(node, Mapping) else ({}, node is None)


class _Substitutions:
    """Replaces variables whose values stand in the same file.

    ESPHome's expressions, and values that are more than text, are left to ESPHome.
    """

    def __init__(self, node: Node) -> None:
        """Take the file's `substitutions` block."""
        items, _ = _flat(node)
        self._items = {key.removeprefix("$"): value for key, value in items.items()}
        self._values: dict[str, str | None] = {}

    def resolve(self, node: Node) -> Said:
        """Return what a field says."""
        if isinstance(node, Mapping):
            # An area may have an id beside its name.
            node = node.items.get("name")
        if node is None:
            return None
        text = self._expand(node, 0)
        return UNKNOWN if text is None else text or None

    def _expand(self, node: Node, nesting: int) -> str | None:
        """Return the text with all variables replaced, or None if that is not known."""
        if not isinstance(node, str) or len(node) > MAX_TEXT:
            return None
        parts: list[str] = []
        end = 0
        for match in _VARIABLE.finditer(node):
            value = self._value(match[1] or match[2], nesting)
            if value is None:
                return None
            parts += (node[end : match.start()], value)
            end = match.end()
        text = "".join((*parts, node[end:]))
        unresolved = len(text) > MAX_TEXT or _EXPRESSION.search(text)
        return None if unresolved else text

    def _value(self, name: str, nesting: int) -> str | None:
        if name not in self._values:
            # A variable that leads back to itself meets this and stays unknown.
            self._values[name] = None
            if nesting < _MAX_NESTING:
                self._values[name] = self._expand(self._items.get(name), nesting + 1)
        return self._values[name]
