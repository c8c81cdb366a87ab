"""What one YAML tree says, as a digest, and to what else it refers."""

from dataclasses import dataclass
from enum import StrEnum
import hashlib
import re
from typing import Final

from .yaml_tree import Mapping, Node, Sequence, Tagged

_ENCODING_ERRORS: Final = "surrogatepass"
_INCLUDE: Final = "!include"
_INCLUDE_FOLDER: Final = "!include_dir_"
_SECRET: Final = "!secret"  # noqa: S105 - a tag

# What ESPHome takes for a path whatever it looks like: a folder of components or C++.
_PATH_KEYS: Final = ("includes", "includes_c", "path", "source")
_PATH: Final = re.compile(r"[^\x00-\x1f\"$*:;<>?\\{|}]{1,255}")
_EXTENSION: Final = re.compile(r".*\.[A-Za-z]\w{0,15}")
_YAML: Final = (".yaml", ".yml")

# It says that what stands beside it comes from there, and not from this host.
_URL: Final = "url"


class Kind(StrEnum):
    """What a reference leads to."""

    FILE = "file"
    FOLDER = "folder"
    INCLUDE = "include"
    SECRET = "secret"  # noqa: S105 - no secret itself


@dataclass(frozen=True, slots=True)
class Reference:
    """Something that a tree needs: a path, or the name of a secret.

    A FILE may be none: it is a text that ESPHome may take for a path.
    """

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """The digest of a tree, which no comment and no white space changes, and more.

    Names of secrets are not in it, since only their values make a difference.
    """

    digest: bytes
    references: tuple[Reference, ...]


def included(node: Node) -> str | None:
    """Return the name of the file whose content a node stands for, if it does for one.

    It can have variables beside it.
    """
    if not isinstance(node, Tagged) or node.tag != _INCLUDE:
        return None
    name = node.node
    if isinstance(name, Mapping):
        name = name.items.get("file")
    return name if isinstance(name, str) else None


def content(node: Node) -> Content:
    """Return what a tree says."""
    reading = _Reading()
    reading.read(node)
    text = "".join(reading.parts)
    return Content(
        hashlib.sha256(text.encode(errors=_ENCODING_ERRORS)).digest(),
        tuple(reading.references),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node stands: under which key, and whether its texts may be paths."""

    key: str = ""
    paths: bool = True


_ANYWHERE: Final = _Place()
_NO_PATHS: Final = _Place(paths=False)


class _Reading:
    """Reads a tree from its root on, and puts down all of it without ambiguity."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.parts: list[str] = []
        # In the order in which they stand, each once, with its place among them.
        self.references: dict[Reference, int] = {}
        self._pending: list[tuple[Node, _Place]] = []
        self._seen: dict[int, int] = {}

    def read(self, root: Node) -> None:
        """Read a tree, of which what has an alias is read once."""
        self._pending.append((root, _ANYWHERE))
        while self._pending:
            node, place = self._pending.pop()
            if node is None:
                self.parts.append("n")
            elif isinstance(node, str):
                self._text(node, place)
            elif isinstance(node, Tagged):
                self._tagged(node)
            elif id(node) in self._seen:
                self.parts.append(f"a{self._seen[id(node)]};")
            else:
                self._seen[id(node)] = len(self._seen)
                self._collection(node, place)

    def _text(self, text: str, place: _Place) -> None:
        self._put(text)
        if place.paths and _may_be_path(text, place.key):
            self._refer(Kind.FILE, text)

    def _tagged(self, node: Tagged) -> None:
        self._put(node.tag)
        if node.tag == _SECRET and isinstance(node.node, str):
            # With its place, since two of them may be the same secret or not.
            self.parts.append(f"s{self._refer(Kind.SECRET, node.node)};")
            return
        if (name := included(node)) is not None:
            self._refer(Kind.INCLUDE, name)
        elif node.tag.startswith(_INCLUDE_FOLDER) and isinstance(node.node, str):
            self._refer(Kind.FOLDER, node.node)
        self._pending.append((node.node, _NO_PATHS))

    def _collection(self, node: Sequence | Mapping, place: _Place) -> None:
        kind = "l" if isinstance(node, Sequence) else "m"
        self.parts.append(f"{kind}{len(node.children)};")
        if isinstance(node, Sequence):
            self._pending += [(child, place) for child in reversed(node.children)]
            return
        paths = place.paths and _URL not in node.items
        for key, child in zip(
            reversed(node.keys), reversed(node.children), strict=True
        ):
            name = key if isinstance(key, str) else ""
            self._pending.append((child, _Place(name, paths)))
            self._pending.append((key, _NO_PATHS))

    def _refer(self, kind: Kind, text: str) -> int:
        """Note a reference; return its place among all."""
        return self.references.setdefault(Reference(kind, text), len(self.references))

    def _put(self, text: str) -> None:
        self.parts.append(f"{len(text)}:{text}")


def _may_be_path(text: str, key: str) -> bool:
    """Return whether ESPHome may take a text for the path of a file or folder.

    YAML is included and never just named.
    """
    return (
        _PATH.fullmatch(text) is not None
        and not text.endswith(_YAML)
        and (key in _PATH_KEYS or "/" in text or _EXTENSION.fullmatch(text) is not None)
    )
