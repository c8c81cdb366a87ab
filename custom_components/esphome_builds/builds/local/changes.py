"""Tells whether a configuration is another one than a device was built from.

A device says when its firmware was built, and so which build it runs. Of each build it
is noted here what its configuration was made of when ESPHome began to read it.
"""

from collections.abc import Collection, Mapping
import logging
import threading
from typing import Any, Final

import orjson

from ..models import Job
from ..store import replace_file
from .built import Firmware, look_at_firmware, read_storage
from .fingerprint import METHOD, Fingerprints
from .settings import LocalSettings

_LOGGER = logging.getLogger(__name__)

BUILDS: Final = 10
"""Of so many builds of each configuration it is known what they were made of."""

type _Builds = Mapping[str, Mapping[str, str]]
"""Fingerprints, by configuration and by when it was built, the newest last."""


class Changes:
    """Compares what configurations are now with what they were.

    What blocks may be called from any thread, the rest from the event loop, too.
    """

    def __init__(self, settings: LocalSettings) -> None:
        """Prepare; nothing is read yet."""
        self._begun: dict[str, str | None] = {}
        # Replaced whole, so that who reads it needs no lock.
        self._builds: _Builds = {}
        self._data_dir = settings.data_dir
        self._fingerprints = Fingerprints(settings.config_dir)
        self._lock = threading.Lock()
        self._now: Mapping[str, str | None] = {}
        self._path = settings.cache_dir / "builds.json"

    def load(self) -> None:
        """Read what an earlier run noted; blocking.

        What is damaged is as unknown as what was never noted. Raises `OSError` where
        the file cannot be read.
        """
        try:
            self._builds = _understand(orjson.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return
        except (KeyError, TypeError, ValueError) as err:
            _LOGGER.warning("The list of builds %s is damaged (%s)", self._path, err)

    def look(self, configurations: Collection[str]) -> None:
        """Look at all configurations there are; blocking."""
        with self._lock:
            self._now = self._fingerprints.take_all(configurations)

    def begin(self, job: Job) -> None:
        """Note what a job builds that begins now; blocking."""
        name = job.configuration
        with self._lock:
            self._begun[job.job_id] = now = self._fingerprints.take(name)
            # The last look may be older than what is built now.
            self._now = {**self._now, name: now}

    def record(self, job: Job, configurations: Collection[str]) -> None:
        """Note what a job has built, which is no reason for it to fail; blocking.

        To be called before another job of the configuration can start. What there was
        of others than these `configurations` is forgotten.
        """
        name = job.configuration
        try:
            path = self._data_dir / "storage" / f"{name}.json"
            storage = read_storage(str(path), self._data_dir)
            built_at = look_at_firmware(storage, Firmware()).built_at
            fingerprint = self._begun.get(job.job_id)
            if built_at is not None and fingerprint is not None:
                self._put(name, built_at, fingerprint, {name, *configurations})
        except OSError as err:
            _LOGGER.warning("It is not noted what %s was built from: %s", name, err)

    def forget(self, job_id: str) -> None:
        """Let go of a job that has ended."""
        self._begun.pop(job_id, None)

    def pending(self, configuration: str, built_at: str | None) -> bool | None:
        """Return whether a device's firmware was built from something else.

        None is the answer where that is not known.
        """
        now = self._now.get(configuration)
        then = self._builds.get(configuration, {}).get(built_at or "")
        return None if now is None or then is None else now != then

    def _put(
        self, name: str, built_at: str, fingerprint: str, names: Collection[str]
    ) -> None:
        """Take a build over, the newest word on it, and write all down."""
        with self._lock:
            builds = {
                other: of_other
                for other, of_other in self._builds.items()
                if other in names
            }
            of_this = {
                **{
                    at: one
                    for at, one in builds.get(name, {}).items()
                    if at != built_at
                },
                built_at: fingerprint,
            }
            builds[name] = dict([*of_this.items()][-BUILDS:])
            self._builds = builds
            replace_file(self._path, orjson.dumps({"method": METHOD, "builds": builds}))


def _understand(stored: Any) -> _Builds:  # noqa: ANN401 - whatever is in the file
    """Return what was stored; raise `KeyError`, `TypeError` or `ValueError`."""
    if stored["method"] != METHOD:
        return {}
    return {
        name: {
            built_at: _text(fingerprint) for built_at, fingerprint in of_name.items()
        }
        for name, of_name in _object(stored["builds"]).items()
        if _object(of_name)
    }


def _object(stored: object) -> dict[str, Any]:
    if not isinstance(stored, dict):
        raise TypeError(f"{stored!r} is no object")
    return stored


def _text(stored: object) -> str:
    if not isinstance(stored, str):
        raise TypeError(f"{stored!r} is no text")
    return stored
