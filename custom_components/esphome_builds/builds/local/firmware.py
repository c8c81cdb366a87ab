"""The firmware of earlier builds, kept to go back to.

Each is a folder named by its job, with the files and a small description of them. The
folder gets its name when all of it is on disk, so there are no halves, and no list of
all that could say something else: what damages one leaves the others.

What is kept is what ESPHome calls the firmware (`firmware_bin_path` in its storage
file), which is what an upload sends. For an ESP32 the factory image beside it is kept
as well: it has the boot loader and the partition table, which a blank device needs.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
import hashlib
import logging
import os
from pathlib import Path
import shutil
import threading
from typing import Any, Final

import orjson

from ..kept import KeptFile, KeptFirmware, NoFirmwareError
from ..models import Job
from ..queue import HISTORY_OF_CONFIGURATION
from .built import Firmware, Storage, look_at_firmware, read_storage
from .configurations import is_configuration_name
from .files import find, inside, read

_LOGGER = logging.getLogger(__name__)

ALL_FIRMWARE_BYTES: Final = 512 * 1024**2
"""What is kept of all configurations together; the oldest goes first."""

FIRMWARE_BYTES: Final = 64 * 1024**2
"""A larger file is not kept. The flash of a device has 16 MiB, seldom 32."""

KEPT: Final = 3
"""Different firmwares that are kept of each configuration."""

_DESCRIPTION: Final = "kept.json"
_FACTORY: Final = "firmware.factory.bin"
_FACTORY_PLATFORM: Final = "esp32"
_FIRMWARE: Final = "firmware"
_GONE: Final = ".gone"
_HALF: Final = ".half"
_SUFFIXES: Final = (".bin", ".uf2")
_NAMES: Final = frozenset(
    {_FIRMWARE, _FACTORY, *(f"{_FIRMWARE}{suffix}" for suffix in _SUFFIXES)}
)


class FirmwareStore:
    """Keeps the last firmwares of each configuration, within one bound for all.

    What blocks may be called from any thread, the rest from the event loop, too.
    """

    def __init__(self, folder: Path, *, limit: int = ALL_FIRMWARE_BYTES) -> None:
        """Keep them in a folder of their own; nothing is read yet."""
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        # Replaced whole, so that who reads it needs no lock.
        self._kept: tuple[KeptFirmware, ...] = ()

    @property
    def size(self) -> int:
        """Return the bytes of all that is kept."""
        return sum(kept.size for kept in self._kept)

    def find(self, job_id: str) -> KeptFirmware | None:
        """Return what a job made, None if it is not kept any more."""
        return next((kept for kept in self._kept if job_id in kept.job_ids), None)

    def of(self, configuration: str) -> list[KeptFirmware]:
        """Return what is kept of a configuration, the newest first."""
        found = (kept for kept in self._kept if kept.configuration == configuration)
        return sorted(found, key=_age, reverse=True)

    def load(self) -> None:
        """Find what an earlier run kept, and remove what is none; blocking.

        Raises `OSError` where the folder cannot be read.
        """
        with self._lock:
            self._kept = tuple(self._load())

    def keep(
        self, job: Job, data_dir: Path, *, in_use: Collection[str] = ()
    ) -> KeptFirmware:
        """Keep what a job has just built, and remove what is then too much; blocking.

        To be called before another job of the configuration can start. What the jobs
        `in_use` made stays. Raises `NoFirmwareError`, or `OSError` where there is no
        space for it.
        """
        path = data_dir / "storage" / f"{job.configuration}.json"
        storage = read_storage(str(path), data_dir)
        built = look_at_firmware(storage, Firmware())
        sources = dict(_sources(storage, built, data_dir))
        half = self._folder / f"{job.job_id}{_HALF}"
        with self._lock:
            try:
                files = _copy(sources, half)
                kept = self._settle(
                    half,
                    KeptFirmware(
                        folder=job.job_id,
                        configuration=job.configuration,
                        job_ids=(job.job_id,),
                        files=files,
                        kept_at=datetime.now(UTC),
                        platform=storage.platform,
                        version=built.version or job.esphome_version,
                        config_hash=built.config_hash,
                        built_at=built.built_at,
                    ),
                )
            finally:
                shutil.rmtree(half, ignore_errors=True)
            others = (other for other in self._kept if other.folder != kept.folder)
            self._kept = (*others, kept)
            self._bound(in_use)
        return kept

    def path(self, job_id: str, name: str | None = None) -> Path:
        """Return where a file is that a job made, the one to upload without a name.

        It is read to the end, since what is damaged must not get onto a device, and
        removed if it is. Blocking; raises `NoFirmwareError`.
        """
        with self._lock:
            kept = self.find(job_id)
            if kept is None:
                raise NoFirmwareError(f"The firmware of job {job_id} is not kept.")
            for file in kept.files:
                if name in (None, file.name):
                    return self._checked(kept, file)
        raise NoFirmwareError(f"Job {job_id} made no file {name}.")

    def _checked(self, kept: KeptFirmware, file: KeptFile) -> Path:
        """Return where a file is, if it is still the same."""
        path = self._folder / kept.folder / file.name
        try:
            same = _digest(path) == file.sha256
        except FileNotFoundError:
            same = False
        except OSError as err:
            raise NoFirmwareError(f"{path} cannot be read: {err.strerror}.") from err
        if not same:
            self._remove([kept])
            raise NoFirmwareError(f"{path} was damaged.")
        return path

    def _load(self) -> Iterator[KeptFirmware]:
        for path in _listed(self._folder):
            if path.suffix in (_GONE, _HALF):
                shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                yield _read(path)
            except (KeyError, OSError, TypeError, ValueError) as err:
                _LOGGER.warning("The kept firmware %s is damaged (%s)", path, err)
                shutil.rmtree(path, ignore_errors=True)

    def _settle(self, half: Path, new: KeptFirmware) -> KeptFirmware:
        """Give a firmware its place on disk, or take the one that is the same."""
        for same in self.of(new.configuration):
            if same.files == new.files:
                # Once: after a kill, a job is run for a second time.
                job_ids = tuple(dict.fromkeys((*same.job_ids, *new.job_ids)))
                kept = replace(
                    same,
                    job_ids=job_ids[-HISTORY_OF_CONFIGURATION:],
                    kept_at=new.kept_at,
                )
                _describe(self._folder / kept.folder, kept)
                return kept
        self._remove([kept for kept in self._kept if kept.folder == new.folder])
        _describe(half, new)
        half.rename(self._folder / new.folder)
        _sync(self._folder)
        return new

    def _bound(self, in_use: Collection[str]) -> None:
        """Remove what is too much, of a configuration and of all, the oldest first."""
        surplus: list[KeptFirmware] = []
        for configuration in {kept.configuration for kept in self._kept}:
            surplus += self.of(configuration)[KEPT:]
        size = self.size - sum(kept.size for kept in surplus)
        for kept in sorted(self._kept, key=_age):
            if size <= self._limit:
                break
            if kept not in surplus:
                surplus.append(kept)
                size -= kept.size
        self._remove(
            [kept for kept in surplus if not set(in_use).intersection(kept.job_ids)]
        )

    def _remove(self, surplus: Collection[KeptFirmware]) -> None:
        """Remove firmwares, of which nothing is left to find at the next start."""
        self._kept = tuple(kept for kept in self._kept if kept not in surplus)
        for kept in surplus:
            path = self._folder / kept.folder
            gone = path.with_name(f"{kept.folder}{_GONE}")
            with suppress(OSError):
                path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def _age(kept: KeptFirmware) -> str:
    """Return what sorts by age: ids of jobs do, clocks may be set back."""
    return kept.job_ids[-1]


def _sources(
    storage: Storage, built: Firmware, data_dir: Path
) -> Iterator[tuple[str, Path]]:
    """Yield what to keep, by the name to keep it under; raise `NoFirmwareError`.

    The factory image only if it was made of this firmware: an older one is what a build
    left that made none.
    """
    if storage.firmware is None or built.signature is None:
        raise NoFirmwareError("ESPHome noted no firmware.")
    path = Path(storage.firmware)
    modified, size, *_ = built.signature
    if not 0 < size <= FIRMWARE_BYTES:
        raise NoFirmwareError(f"{path} has {size} bytes.")
    yield f"{_FIRMWARE}{path.suffix if path.suffix in _SUFFIXES else ''}", path
    if storage.platform != _FACTORY_PLATFORM:
        return
    factory = inside(str(path.with_name(_FACTORY)), data_dir)
    found = factory and find(factory)
    if factory and found and found[0] >= modified and 0 < found[1] <= FIRMWARE_BYTES:
        yield _FACTORY, Path(factory)


def _copy(sources: Mapping[str, Path], folder: Path) -> tuple[KeptFile, ...]:
    """Copy files into a new folder; raise `NoFirmwareError` if they change meanwhile.

    A link would change with the next build, which writes into the same file. Where the
    file system can, the copy shares the blocks until then.
    """
    shutil.rmtree(folder, ignore_errors=True)
    # Whoever has a firmware has the passwords in it.
    folder.mkdir(parents=True, mode=0o700)
    files = []
    for name, source in sources.items():
        before = find(str(source))
        target = source.copy(folder / name)
        if before is None or find(str(source)) != before:
            raise NoFirmwareError(f"{source} changed while it was copied.")
        _sync(target)
        files.append(KeptFile(name=name, size=before[1], sha256=_digest(target)))
    return tuple(files)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(folder: Path, kept: KeptFirmware) -> None:
    """Write the description, so that a crash leaves the old one or this."""
    new = folder / f"{_DESCRIPTION}.new"
    new.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2))
    _sync(new)
    new.replace(folder / _DESCRIPTION)
    _sync(folder)


def _sync(path: Path) -> None:
    """Have a file or folder on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder, nothing if there is none."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _read(folder: Path) -> KeptFirmware:
    """Return what is in a folder.

    Raises `OSError`, `KeyError`, `TypeError` or `ValueError` where that is not clear.
    """
    data, _ = read(str(folder / _DESCRIPTION))
    stored = orjson.loads(data)
    kept = KeptFirmware(
        folder=folder.name,
        configuration=_text(stored["configuration"]),
        job_ids=tuple(map(_text, stored["job_ids"])),
        files=tuple(map(_file, stored["files"])),
        kept_at=datetime.fromisoformat(stored["kept_at"]).astimezone(UTC),
        platform=_text_or_none(stored["platform"]),
        version=_text_or_none(stored["version"]),
        config_hash=_text_or_none(stored["config_hash"]),
        built_at=_text_or_none(stored.get("built_at")),
    )
    if not (kept.job_ids and kept.files and is_configuration_name(kept.configuration)):
        raise ValueError("it is of nothing")
    _check_sizes(folder, kept.files)
    return kept


def _check_sizes(folder: Path, files: Iterable[KeptFile]) -> None:
    """Raise `ValueError` if a file is not there as it was."""
    for file in files:
        found = find(str(folder / file.name))
        if file.name not in _NAMES or found is None or found[1] != file.size:
            raise ValueError(f"{file.name} is not what it was")


def _file(stored: dict[str, Any]) -> KeptFile:
    return KeptFile(
        name=_text(stored["name"]),
        size=int(stored["size"]),
        sha256=_text(stored["sha256"]),
    )


def _text(stored: object) -> str:
    if not isinstance(stored, str):
        raise TypeError(f"{stored!r} is no text")
    return stored


def _text_or_none(stored: object) -> str | None:
    return None if stored is None else _text(stored)
