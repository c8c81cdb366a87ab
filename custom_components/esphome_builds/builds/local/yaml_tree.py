"""Reads YAML into a plain tree that says what stands in a file, and no more.

PyYAML's loaders build what tags, merge keys and aliases stand for, by recursion. Here
its parser's events are put together with a stack: a tag stays a mark, an alias is a
second reference, a merge key is noted. So no content can run code, expand without end
or exhaust the stack; and since libyaml needs quadratic time for deep nesting, reading
ends at the first level that is too deep.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
import re
from typing import Final, Protocol

import yaml

BOOLEAN: Final = "tag:yaml.org,2002:bool"
MAX_DEPTH: Final = 200
"""How deep the blocks of one file may be nested."""

MAX_DOCUMENTS: Final = 2
"""The most documents in one file: of two, the first is ESPHome's "frontmatter"."""

_CORE: Final = "tag:yaml.org,2002:"
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS: Final = yaml.SafeLoader.yaml_implicit_resolvers
_WHOLE_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")

# Tags that leave open what PyYAML makes of a node without one.
_PLAIN_TAGS: Final = frozenset(("!", f"{_CORE}map", f"{_CORE}seq", f"{_CORE}str"))


type _NodeEvent = yaml.ScalarEvent | yaml.CollectionStartEvent


class _Mark(Protocol):
    """A place in the text."""

    line: int


class YamlError(Exception):
    """The text is no YAML; `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        """Note what is wrong and where."""
        super().__init__(problem)
        self.line = line
        self.problem = problem


@dataclass(frozen=True, eq=False, slots=True)
class Tagged:
    """A node that is more than its text: with a tag such as `!include`, or a type.

    Of types, text and decimal whole numbers have no tag: they read as they are written.
    """

    tag: str
    node: Node = None


_MERGE: Final = Tagged(f"{_CORE}merge")
_NO_KEY: Final = Tagged("")


@dataclass(frozen=True, eq=False, slots=True)
class Sequence:
    """A list of nodes."""

    children: list[Node] = field(default_factory=list)

    def add(self, node: Node) -> None:
        """Take the next item."""
        self.children.append(node)


@dataclass(eq=False, slots=True)
class Mapping:
    """A mapping: keys and values, those under a text, and what merge keys refer to.

    `keys` and `children` belong together, one by one. Of keys that stand twice the last
    one counts.
    """

    keys: list[Node] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    items: dict[str, Node] = field(default_factory=dict)
    merged: list[Node] = field(default_factory=list)
    _key: Node = _NO_KEY

    def add(self, node: Node) -> None:
        """Take the next key or value."""
        key = self._key
        if key is _NO_KEY:
            self._key = node
            return
        self._key = _NO_KEY
        self.keys.append(key)
        self.children.append(node)
        if key is _MERGE:
            self.merged.append(node)
        elif isinstance(key, str):
            self.items[key] = node

    def flat(self) -> tuple[dict[str, Node], bool]:
        """Return the items, merged ones included, and whether these are all."""
        result: dict[str, Node] = {}
        complete = True
        seen: set[int] = set()
        pending: list[Node] = [self]
        while pending:
            node = pending.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, Mapping):
                for key, value in node.items.items():
                    result.setdefault(key, value)
                pending.extend(reversed(node.merged))
            elif isinstance(node, Sequence):
                pending.extend(reversed(node.children))
            else:
                complete = False
        return result, complete


type Node = str | Tagged | Sequence | Mapping | None
"""A text is what stands in the file; null is None."""


def parse(text: str) -> list[Node]:
    """Return the documents of a text; raise `YamlError`."""
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.feed(event)
    except yaml.MarkedYAMLError as err:
        problem = err.problem or err.context or "it is not valid"
        raise YamlError(_line(err.problem_mark), problem) from None
    except yaml.reader.ReaderError as err:
        line = text.encode().count(b"\n", 0, err.position) + 1
        raise YamlError(line, "there is a control character") from None
    return composer.documents


class _Composer:
    """Puts events together."""

    def __init__(self) -> None:
        """Start before the first document."""
        self.documents: list[Node] = []
        self._anchors: dict[str, Node] = {}
        self._sinks: list[Callable[[Node], None]] = [self.documents.append]

    def feed(self, event: yaml.Event) -> None:
        """Take the next event."""
        if isinstance(event, yaml.ScalarEvent):
            self._add(event, _scalar(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._sinks.pop()
        elif isinstance(event, yaml.AliasEvent):
            self._sinks[-1](self._target(event))
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors.clear()
            if len(self.documents) == MAX_DOCUMENTS:
                raise YamlError(_line(event.start_mark), "a third document begins")

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        """Open a list or mapping and let what follows go into it."""
        if len(self._sinks) > MAX_DEPTH:
            raise YamlError(
                _line(event.start_mark), f"it is nested over {MAX_DEPTH} levels deep"
            )
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        node = Mapping() if is_mapping else Sequence()
        self._add(event, node)
        self._sinks.append(node.add)

    def _add(self, event: _NodeEvent, node: Node) -> None:
        """Put a node where it belongs, with its tag, and remember its anchor."""
        if event.tag is not None and event.tag not in _PLAIN_TAGS:
            node = Tagged(event.tag, node)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._sinks[-1](node)

    def _target(self, event: yaml.AliasEvent) -> Node:
        anchor = event.anchor or ""
        if anchor not in self._anchors:
            raise YamlError(_line(event.start_mark), "an alias has no anchor")
        return self._anchors[anchor]


def _line(mark: _Mark | None) -> int:
    return mark.line + 1 if mark else 1


def _scalar(event: yaml.ScalarEvent) -> Node:
    """Return the text, or what it means if it is not quoted."""
    value: str = event.value
    tag = _implicit_tag(value) if event.implicit[0] else None
    if tag is None or _WHOLE_NUMBER.fullmatch(value):
        return value
    if tag == f"{_CORE}null":
        return None
    return _MERGE if tag == _MERGE.tag else Tagged(tag, value)


def _implicit_tag(value: str) -> str | None:
    """Return the tag of a plain scalar that is not just text, by YAML 1.1."""
    for tag, pattern in _RESOLVERS.get(value[:1], ()):
        if pattern.match(value):
            return str(tag)
    return None
