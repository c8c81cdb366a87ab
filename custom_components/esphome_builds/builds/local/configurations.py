"""What is in a folder of ESPHome configurations. All of it blocks."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
import os
from pathlib import Path
import re
import stat
import time
from typing import Final

from ..models import Configuration
from .built import NO_STORAGE, Firmware, Storage, look_at_firmware, read_storage
from .declaration import UNKNOWN, Declaration, Said, declaration
from .files import MAX_BYTES, Signature, find, inside, read
from .yaml_tree import YamlError, parse

MAX_NAME_BYTES: Final = 255
"""The most bytes of a file name, on all usual file systems."""

SETTLED_NS: Final = 2_000_000_000
"""Age from which on the time of a file tells every later change apart.

The clocks of file systems are coarse: one written a moment ago can be written again
without a difference in its signature. So it is read again until it is older.
"""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SECRETS: Final = ("secrets.yaml", "secrets.yml")


class InvalidName(ValueError):  # noqa: N818 - what the name is, not what went wrong
    """The name is not one of a configuration in this folder."""


def is_configuration_name(name: str) -> bool:
    """Return whether a file of this name can be a configuration.

    As `filter_yaml_files` in `esphome/util.py`, and nothing that could be taken for a
    path or an option, or cannot be shown.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return (
        size <= MAX_NAME_BYTES
        and name.endswith((".yaml", ".yml"))
        and not name.startswith((".", "-"))
        and name not in _SECRETS
        and "/" not in name
        and "\\" not in name
        and _CONTROL.search(name) is None
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """What one reading of a YAML file came to; no declaration: nothing to build."""

    signature: Signature | None = None
    declaration: Declaration | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What is known of one file since the last scan."""

    source: _Source = field(default_factory=_Source)
    stored: Signature | None = None
    storage: Storage = field(default_factory=Storage)
    firmware: Firmware = field(default_factory=Firmware)
    configuration: Configuration | None = None


_NOTHING: Final = _Seen()


class ConfigurationFolder:
    """Knows the configurations of a folder, and reads what has changed."""

    def __init__(self, *, entry_id: str, config_dir: Path, data_dir: Path) -> None:
        """Read nothing yet; `data_dir` is where ESPHome keeps what it built."""
        self._entry_id = entry_id
        self._config_dir = config_dir
        self._data_dir = data_dir
        self._storage_dir = str(data_dir / "storage")
        self._seen: dict[str, _Seen] = {}

    def scan(self) -> dict[str, Configuration]:
        """Return the configurations by file name, those unchanged as the same objects.

        Raises `OSError` where the folder cannot be read; whatever is wrong with a file
        stands in the `error` of its configuration.
        """
        seen = {}
        for name, path, now in sorted(self._files()):
            before = self._seen.get(name, _NOTHING)
            try:
                source = _look(name, path, now, before.source)
            except FileNotFoundError:
                # It went away, or something else took its place.
                continue
            seen[name] = self._update(name, source, before)
        self._seen = seen
        return {
            name: file.configuration
            for name, file in seen.items()
            if file.configuration is not None
        }

    def resolve(self, name: str) -> Path:
        """Return the path of a configuration that ESPHome can be called with.

        Raises `InvalidName`, or `FileNotFoundError` where there is no such file.
        """
        if not is_configuration_name(name):
            raise InvalidName(name)
        path = self._config_dir / name
        if path.is_symlink() and inside(str(path), self._config_dir) is None:
            raise InvalidName(name)
        try:
            status = path.stat()
        except FileNotFoundError:
            raise
        except OSError as err:
            raise InvalidName(name) from err
        if not stat.S_ISREG(status.st_mode):
            raise InvalidName(name)
        return path

    def _files(self) -> Iterator[tuple[str, str, Signature]]:
        """Yield name, real path and signature of what can be a configuration."""
        with os.scandir(self._config_dir) as entries:
            for entry in entries:
                if not is_configuration_name(entry.name):
                    continue
                path: str | None = entry.path
                if entry.is_symlink():
                    path = inside(entry.path, self._config_dir)
                if path is not None and (now := find(path)) is not None:
                    yield entry.name, path, now

    def _update(self, name: str, source: _Source, before: _Seen) -> _Seen:
        """Return what is known of a file now, `before` itself where it is the same."""
        if source.declaration is None and source.error is None:
            return _Seen(source=source)
        path = f"{self._storage_dir}/{name}.json"
        storage = before.storage
        if (stored := find(path)) != before.stored:
            storage = read_storage(path, self._data_dir) if stored else NO_STORAGE
        firmware = look_at_firmware(storage, before.firmware)
        if (
            source is before.source
            and storage is before.storage
            and firmware is before.firmware
        ):
            return before
        seen = _Seen(source=source, stored=stored, storage=storage, firmware=firmware)
        configuration = self._configuration(name, seen)
        if configuration == before.configuration:
            configuration = before.configuration
        return replace(seen, configuration=configuration)

    def _configuration(self, name: str, seen: _Seen) -> Configuration:
        """Take what the file says and, where that is not known, the last build."""
        said = seen.source.declaration or Declaration()
        return Configuration(
            entry_id=self._entry_id,
            configuration=name,
            name=_choose(said.name, seen.storage.name),
            friendly_name=_choose(said.friendly_name, seen.storage.friendly_name),
            area=_choose(said.area, seen.storage.area),
            comment=_choose(said.comment, seen.storage.comment),
            platform=_choose(said.platform, seen.storage.platform),
            built_version=seen.firmware.version,
            built_hash=seen.firmware.config_hash,
            error=seen.source.error,
        )


def _choose(said: Said, stored: str | None) -> str | None:
    return stored if said is UNKNOWN else said


def _look(name: str, path: str, now: Signature, before: _Source) -> _Source:
    """Return what a file says; raise `FileNotFoundError` if it is none any more."""
    if now == before.signature:
        return before
    try:
        data, of_data = read(path)
    except FileNotFoundError:
        raise
    except OSError as err:
        return _Source(error=f"{name} cannot be read: {err.strerror}.")
    settled = not 0 <= time.time_ns() - of_data[0] < SETTLED_NS
    return replace(_understand(name, data), signature=of_data if settled else None)


def _understand(name: str, data: bytes) -> _Source:
    """Return what a content says, or the sentence that says why it says nothing."""
    if len(data) > MAX_BYTES:
        return _Source(error=f"{name} is larger than {MAX_BYTES // 1024} KiB.")
    try:
        documents = parse(data.decode())
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        return _Source(error=f"Line {line} of {name} is not UTF-8 text.")
    except YamlError as err:
        problem = f"Line {err.line} of {name} is not valid YAML: {err.problem}."
        return _Source(error=problem)
    return _Source(declaration=declaration(documents[-1] if documents else None))
