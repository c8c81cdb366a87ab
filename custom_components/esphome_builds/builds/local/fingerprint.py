"""What configurations are made of, each as one digest.

It is of what ESPHome would read on this host: the YAML file, what it includes, the
values of the secrets in all that, and the files that are named there and lie in the
folder of the configurations. Of what comes from the network the reference counts, of
environment variables the name, and of a named file with variables in its name, too.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .closure import Closure
from .reader import Reader, State, UnknownError, UnreadableError, settled

METHOD: Final = 1
"""To be raised when the same files come to another fingerprint than before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """A fingerprint, what it was made from, and which files that are."""

    fingerprint: str | None
    states: dict[str, State] | None
    files: frozenset[str]


class Fingerprints:
    """Takes fingerprints, and reads only what has changed.

    All of it blocks, and must be called from one thread at a time.
    """

    def __init__(self, config_dir: Path) -> None:
        """Read nothing yet."""
        self._config_dir = str(config_dir)
        self._known: dict[str, _Known] = {}
        self._reader = Reader()

    def take(self, name: str) -> str | None:
        """Return the fingerprint of a configuration, None if nobody can tell."""
        self._reader.begin()
        self._known[name] = known = self._take(name)
        return known.fingerprint

    def take_all(self, names: Collection[str]) -> dict[str, str | None]:
        """Return the fingerprints of all configurations; forget what is of others."""
        # A file that many share is looked at once.
        self._reader.begin()
        before = self._known
        self._known = {name: self._take(name) for name in names}
        if self._known != before:
            self._forget()
        return {name: known.fingerprint for name, known in self._known.items()}

    def _take(self, name: str) -> _Known:
        """Return what is known of a configuration now."""
        known = self._known.get(name)
        if (
            known is not None
            and known.states is not None
            and all(
                self._reader.look(path) == then for path, then in known.states.items()
            )
        ):
            return known
        closure = Closure(self._config_dir, self._reader)
        certain = True
        fingerprint = None
        try:
            fingerprint = closure.fingerprint(name)
        except UnknownError as err:
            certain = not isinstance(err, UnreadableError)
        if not all(map(settled, closure.states.values())):
            certain = False
        return _Known(
            fingerprint=fingerprint,
            states=closure.states if certain else None,
            files=frozenset(closure.files),
        )

    def _forget(self) -> None:
        """Forget the files that no configuration is made of any more."""
        self._reader.keep(
            frozenset(path for known in self._known.values() for path in known.files)
        )
