"""All that a YAML file is made of: what it refers to, and what that refers to."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
import glob
import hashlib
import os
import re
import stat
from typing import Final

from .files import MAX_BYTES, inside
from .reader import Reader, State, UnknownError, UnreadableError, is_file
from .references import Content, Kind, Reference

MAX_ALL_BYTES: Final = 32 * 1024 * 1024
"""Of a configuration with more than that to read, no fingerprint is taken."""

MAX_DEPTH: Final = 20
"""How deep includes may be nested; as `MAX_INCLUDE_DEPTH` in ESPHome's packages."""

MAX_PARTS: Final = 20_000
"""The most that may go into one fingerprint, however few files it comes from."""

MAX_PATHS: Final = 2000
"""The most paths that one configuration may be made of."""

_BYTE_CODE: Final = "__pycache__"
_EXPRESSION: Final = re.compile(r"<%.+?%>|\$\{[^}]*\}|\$\w+")
_MAX_TEXT: Final = 512
_SECRETS: Final = "secrets.yaml"
_UNUSED: Final = ("secrets.yaml", "secrets.yml")


class Closure:
    """Follows all references from one file on.

    `states` are the paths that were looked at, as they were then: where one is another,
    the fingerprint may be. `files` are those that were read.
    """

    def __init__(self, config_dir: str, reader: Reader) -> None:
        """Begin with nothing."""
        self.files: set[str] = set()
        self.states: dict[str, State] = {}
        self._bytes = 0
        self._config_dir = config_dir
        self._reader = reader
        self._included: dict[str, int] = {}
        self._parts: list[bytes] = []

    def fingerprint(self, name: str) -> str:
        """Return what the configuration of a name is made of; raise `UnknownError`."""
        self._yaml(self._join(self._config_dir, name), 0)
        return hashlib.sha256(b"".join(self._parts)).hexdigest()

    def _yaml(self, path: str, depth: int) -> None:
        """Add a YAML file, and all it refers to."""
        if (real := self._open(path)) is None:
            return
        found = self._reader.yaml.get(real, self.states[path])
        self._content(found, os.path.dirname(path), depth)  # noqa: PTH120 - a text

    def _content(self, found: Content, folder: str, depth: int) -> None:
        """Add what stands in a file in a folder."""
        if depth > MAX_DEPTH:
            raise UnknownError
        self._put(found.digest)
        for reference in found.references:
            self._follow(reference, folder, depth)

    def _follow(self, reference: Reference, folder: str, depth: int) -> None:
        """Add what a reference in a file in a folder leads to."""
        text = reference.text
        if len(text) > _MAX_TEXT:
            raise UnknownError
        match reference.kind:
            case Kind.FILE:
                self._named(text)
            case Kind.FOLDER:
                self._included_folder(self._join(folder, text), depth)
            case Kind.INCLUDE if _EXPRESSION.search(text):
                self._included_any(folder, text, depth)
            case Kind.INCLUDE:
                self._yaml(self._join(folder, text), depth + 1)
            case Kind.SECRET:
                self._secret(text, folder, depth)

    def _included_folder(self, top: str, depth: int) -> None:
        """Add the YAML files below a folder, as ESPHome finds them (`find_files`)."""
        for path in self._below(top):
            name = os.path.basename(path)  # noqa: PTH119 - a text
            if name.endswith(".yaml") and name not in _UNUSED:
                self._put(os.path.relpath(path, top).encode(errors="surrogateescape"))
                self._yaml(path, depth + 1)

    def _included_any(self, folder: str, text: str, depth: int) -> None:
        """Add all files that a name with variables can mean.

        Of folders with variables in their names nobody can tell; nor if the name is
        made of nothing else.
        """
        head, tail = os.path.split(text)
        fixed = [glob.escape(part) for part in _EXPRESSION.split(tail)]
        if _EXPRESSION.search(head) or not "".join(fixed).removesuffix(".yaml"):
            raise UnknownError
        top = self._join(folder, head)
        for name, _ in self._entries(top):
            if fnmatchcase(name, "*".join(fixed)):
                self._yaml(self._join(top, name), depth + 1)

    def _secret(self, name: str, folder: str, depth: int) -> None:
        """Add the value of a secret, looked for as in `construct_secret` of ESPHome."""
        for place in dict.fromkeys((folder, self._config_dir)):
            path = self._join(place, _SECRETS)
            if is_file(self._look(path)):
                if not self._secret_in(path, name, depth, set()):
                    self._put(b"missing")
                return
        self._put(b"missing")

    def _secret_in(self, path: str, name: str, depth: int, seen: set[str]) -> bool:
        """Add the value of a secret if a file has it; return whether it has."""
        state = self._look(path)
        if depth > MAX_DEPTH or not is_file(state):
            raise UnknownError
        real = self._count(path)
        if real in seen:
            return False
        seen.add(real)
        secrets = self._reader.secrets.get(real, state)
        folder = os.path.dirname(path)  # noqa: PTH120 - a text
        if (value := secrets.values.get(name)) is not None:
            self._content(value, folder, depth + 1)
            return True
        return any(
            self._secret_in(self._join(folder, other), name, depth + 1, seen)
            for other in secrets.includes
        )

    def _named(self, text: str) -> None:
        """Add what a text names, if it does and that lies in the folder."""
        path = self._join(self._config_dir, text)
        state = self._look(path)
        if state is None or inside(path, self._config_dir) is None:
            # The folder itself is not inside, either: too much is in it.
            return
        if is_file(state):
            self._file(path)
        elif stat.S_ISDIR(state[-1]):
            for below in self._below(path):
                if inside(below, self._config_dir) is not None:
                    name = os.path.relpath(below, path)
                    self._put(name.encode(errors="surrogateescape"))
                    self._file(below)

    def _file(self, path: str) -> None:
        """Add a file of any kind; of a large one, its time and size."""
        state = self._look(path)
        if state is None or not is_file(state):
            return
        if state[1] > MAX_BYTES:
            self._put(b"%d %d" % state[:2])
            return
        real = self._count(path)
        self._put(self._reader.digests.get(real, state))

    def _below(self, top: str) -> Iterator[str]:
        """Yield what is below a folder but hidden things, in a certain order."""
        pending = [top]
        while pending:
            folder = pending.pop()
            for name, is_folder in self._entries(folder):
                path = self._join(folder, name)
                if not is_folder:
                    yield path
                elif name != _BYTE_CODE:
                    pending.append(path)

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        """Return the names in a folder but hidden ones, and which are folders."""
        state = self._look(folder)
        if state is None or not stat.S_ISDIR(state[-1]):
            return []
        try:
            with os.scandir(folder) as entries:
                return sorted(
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if not entry.name.startswith(".")
                )
        except OSError as err:
            raise UnreadableError from err

    def _open(self, path: str) -> str | None:
        """Return where to read a YAML file, None if there is nothing to add."""
        state = self._look(path)
        if state is None:
            self._put(b"missing")
            return None
        if not is_file(state):
            raise UnknownError
        real = os.path.realpath(path)
        if (number := self._included.get(real)) is not None:
            # It was added before, or is being added.
            self._put(b"again %d" % number)
            return None
        self._included[real] = len(self._included)
        return self._count(path)

    def _count(self, path: str) -> str:
        """Return where to read a file, if there is not too much to read."""
        real = os.path.realpath(path)
        if real not in self.files:
            self.files.add(real)
            state = self.states[path]
            self._bytes += state[1] if state else 0
        if self._bytes > MAX_ALL_BYTES:
            raise UnknownError
        return real

    def _look(self, path: str) -> State:
        """Return what stands under a path, if there are not too many."""
        self.states[path] = state = self._reader.look(path)
        if len(self.states) > MAX_PATHS:
            raise UnknownError
        return state

    def _join(self, folder: str, name: str) -> str:
        return os.path.join(folder, name)  # noqa: PTH118 - a text, for speed

    def _put(self, part: bytes) -> None:
        self._parts += (b"%d:" % len(part), part)
        if len(self._parts) > MAX_PARTS:
            raise UnknownError
