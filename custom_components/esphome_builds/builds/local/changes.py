"""Tells whether a configuration is another one than a device was built from.

A device says when its firmware was built, and so which build it runs. Of each build it
is noted here what its configuration was made of when ESPHome began to read it.

ESPHome lets that time stand when its own configuration is the same, even if it builds
another firmware, since C++ that is included is another. So of each time it is also
noted which firmware it was last, and what a device runs that says it: not that one
before it was sent.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
import hashlib
import logging
from pathlib import Path
import threading
from typing import Any, Final

import orjson

from ..kept import KeptFirmware, NoFirmwareError
from ..models import Job
from ..store import replace_file
from .built import Firmware, look_at_firmware, read_storage
from .fingerprint import METHOD, Fingerprints
from .settings import LocalSettings

_LOGGER = logging.getLogger(__name__)

BUILDS: Final = 10
"""Of so many builds of each configuration it is known what they were made of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Build:
    """What was last built with one time in it, as fingerprints where they are known.

    `firmware` is its digest, `made_of` its configuration, and `runs` the configuration
    of what runs on a device that says this time.
    """

    firmware: str
    made_of: str | None
    runs: str | None


type _Builds = Mapping[str, Mapping[str, _Build]]
"""By configuration and by the time in the firmware, the newest last."""


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
        made_of = self._begun.get(job.job_id)
        try:
            built_at, firmware = self._built(name)
            before = self._of(name, built_at)
            runs = made_of if before is None else before.runs
            if before is not None and before.firmware == firmware:
                # It is the same for the device, too: the newest word on it counts.
                made_of = made_of or before.made_of
                runs = made_of if before.runs == before.made_of else before.runs
            build = _Build(firmware=firmware, made_of=made_of, runs=runs)
            self._put(name, built_at, build, {name, *configurations})
        except NoFirmwareError as err:
            _LOGGER.debug("It is not noted what %s was built from: %s", name, err)
        except OSError as err:
            _LOGGER.warning("It is not noted what %s was built from: %s", name, err)

    def sent(self, job: Job, kept: KeptFirmware | None) -> None:
        """Note what a job has sent, without a kept firmware what was built; blocking.

        That is no reason for it to fail.
        """
        name = job.configuration
        try:
            if kept is None:
                built_at, firmware = self._built(name)
            else:
                built_at, firmware = kept.built_at or "", kept.files[0].sha256
            if (build := self._of(name, built_at)) is not None:
                runs = build.made_of if build.firmware == firmware else None
                self._put(name, built_at, replace(build, runs=runs), self._builds)
        except NoFirmwareError as err:
            _LOGGER.debug("It is not noted what %s was sent: %s", name, err)
        except OSError as err:
            _LOGGER.warning("It is not noted what %s was sent: %s", name, err)

    def forget(self, job_id: str) -> None:
        """Let go of a job that has ended."""
        self._begun.pop(job_id, None)

    def pending(self, configuration: str, built_at: str | None) -> bool | None:
        """Return whether a device's firmware was built from something else.

        None is the answer where that is not known.
        """
        now = self._now.get(configuration)
        build = self._of(configuration, built_at or "")
        if now is None or build is None or build.runs is None:
            return None
        return now != build.runs

    def _of(self, name: str, built_at: str) -> _Build | None:
        return self._builds.get(name, {}).get(built_at)

    def _built(self, name: str) -> tuple[str, str]:
        """Return when a configuration was built, and a digest of what that made.

        Raises `NoFirmwareError` where there is nothing, else `OSError`.
        """
        path = self._data_dir / "storage" / f"{name}.json"
        storage = read_storage(str(path), self._data_dir)
        built_at = look_at_firmware(storage, Firmware()).built_at
        if storage.firmware is None or built_at is None:
            raise NoFirmwareError("ESPHome noted no firmware.")
        with Path(storage.firmware).open("rb") as file:
            return built_at, hashlib.file_digest(file, "sha256").hexdigest()

    def _put(
        self, name: str, built_at: str, build: _Build, names: Collection[str]
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
                built_at: build,
            }
            builds[name] = dict([*of_this.items()][-BUILDS:])
            self._builds = builds
            replace_file(self._path, orjson.dumps({"method": METHOD, "builds": builds}))


def _understand(stored: Any) -> _Builds:  # noqa: ANN401 - whatever is in the file
    """Return what was stored; raise `KeyError`, `TypeError` or `ValueError`."""
    if stored["method"] != METHOD:
        return {}
    return {
        name: {built_at: _build(build) for built_at, build in _object(of_name).items()}
        for name, of_name in _object(stored["builds"]).items()
    }


def _build(stored: object) -> _Build:
    build = _Build(**_object(stored))
    for value in (build.firmware, build.made_of or "", build.runs or ""):
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no text")
    return build


def _object(stored: object) -> dict[str, Any]:
    if not isinstance(stored, dict):
        raise TypeError(f"{stored!r} is no object")
    return stored
