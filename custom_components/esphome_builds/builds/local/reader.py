"""What stands under paths, and what files say: read once, until they change."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
import hashlib
import os
import stat
import time
from typing import Final

from .files import MAX_BYTES, read, signature
from .references import Content, content, included
from .yaml_tree import Mapping, Node, Sequence, YamlError, parse

SETTLED_NS: Final = 2_000_000_000
"""Age from which on the time of a file tells every later change apart."""

type State = tuple[int, ...] | None
"""What differs when something else stands under a path; None where nothing does."""


class UnknownError(Exception):
    """Nobody can tell what a configuration is made of."""


class UnreadableError(UnknownError):
    """Nobody can tell now; a moment later it may be possible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Secrets:
    """The values of a secrets file, and the files it includes for more of them."""

    values: dict[str, Content]
    includes: tuple[str, ...]


class _Contents[T]:
    """What was understood of files, until they change."""

    def __init__(self, understand: Callable[[bytes], T]) -> None:
        """Begin without a file."""
        self._known: dict[str, tuple[State, T | None]] = {}
        self._understand = understand

    def get(self, path: str, state: State) -> T:
        """Return what a file says; `path` is a real one and `state` how it is now.

        Raises `UnknownError`.
        """
        before, known = self._known.get(path, (None, None))
        if before is None or before != state:
            known, now = self._read(path)
            if settled(now):
                self._known[path] = now, known
        if known is None:
            raise UnknownError
        return known

    def _read(self, path: str) -> tuple[T | None, State]:
        """Return what a file says, None where it cannot be understood."""
        try:
            data, of_data = read(path)
        except OSError as err:
            raise UnreadableError from err
        now = (*of_data, stat.S_IFREG)
        if len(data) > MAX_BYTES:
            return None, now
        try:
            return self._understand(data), now
        except UnicodeDecodeError, YamlError:
            return None, now

    def keep(self, paths: Collection[str]) -> None:
        """Forget all other files."""
        self._known = {
            path: known for path, known in self._known.items() if path in paths
        }


class Reader:
    """Looks at paths once in a round, and reads files again when they have changed."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self.digests = _Contents(_digest)
        self.secrets = _Contents(_understand_secrets)
        self.yaml = _Contents(_understand)
        self._states: dict[str, State] = {}

    def begin(self) -> None:
        """Begin a new round."""
        self._states = {}

    def look(self, path: str) -> State:
        """Return what stands under a path in this round."""
        try:
            return self._states[path]
        except KeyError:
            self._states[path] = state = _look(path)
            return state

    def keep(self, paths: Collection[str]) -> None:
        """Forget what is known of all other files; the paths are real ones."""
        for contents in (self.digests, self.secrets, self.yaml):
            contents.keep(paths)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def is_file(state: State) -> bool:
    """Return whether it is a regular file."""
    return state is not None and stat.S_ISREG(state[-1])


def _look(path: str) -> State:
    """Return what stands under a path."""
    try:
        status = os.stat(path)  # noqa: PTH116 - thousands a scan, Path takes twice as long
    except OSError, ValueError:
        # What is no path leads to nothing, either.
        return None
    return (*signature(status), stat.S_IFMT(status.st_mode))


def settled(state: State) -> bool:
    """Return whether something is old enough to be told from what comes later."""
    return state is None or not 0 <= time.time_ns() - state[0] < SETTLED_NS


def _understand(data: bytes) -> Content:
    """Return what a YAML file says; raise `YamlError` or `UnicodeDecodeError`."""
    return content(_root(data))


def _understand_secrets(data: bytes) -> Secrets:
    """Return the secrets in a file; raise `YamlError` or `UnicodeDecodeError`."""
    values: dict[str, Content] = {}
    includes: list[str] = []
    seen: set[int] = set()
    pending = [_root(data)]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Mapping):
            for key, value in node.items.items():
                values.setdefault(key, content(value))
            pending += reversed(node.merged)
        elif isinstance(node, Sequence):
            pending += reversed(node.children)
        elif (name := included(node)) is not None:
            includes.append(name)
    return Secrets(values=values, includes=tuple(includes))


def _root(data: bytes) -> Node:
    """Return what counts in a YAML file: before it may stand what ESPHome ignores."""
    documents = parse(data.decode())
    return documents[-1] if documents else None
