"""What ESPHome noted of a configuration when it last built it.

ESPHome writes `storage/<file>.json` (`esphome/storage_json.py`) and `build_info.json`
(`esphome/writer.py`) *before* it compiles, the second one only if the build is a
different one. So they describe the firmware only where that is newer than they are.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from .declaration import MAX_TEXT
from .files import EXHAUSTED, Signature, find, inside, read

_MAX_HASH: Final = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """What the storage file says; paths only where they lead into ESPHome's folder."""

    name: str | None = None
    friendly_name: str | None = None
    area: str | None = None
    comment: str | None = None
    platform: str | None = None
    version: str | None = None
    firmware: str | None = None
    build_info: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Firmware:
    """A firmware file and what is known of it.

    `built_at` is what the firmware says of that, too (`build_time_str`).
    """

    signature: Signature | None = None
    build_info: Signature | None = None
    version: str | None = None
    config_hash: str | None = None
    built_at: str | None = None


NO_STORAGE: Final = Storage()
_NO_FIRMWARE: Final = Firmware()


def read_storage(path: str, data_dir: Path) -> Storage:
    """Return what a storage file says, and nothing of what is wrong in it."""
    content = _read_json(path)
    build_path = _path(content.get("build_path"), data_dir)
    return Storage(
        name=_text(content.get("name")),
        friendly_name=_text(content.get("friendly_name")),
        area=_text(content.get("area")),
        comment=_text(content.get("comment")),
        platform=_text(content.get("core_platform")),
        version=_text(content.get("esphome_version")),
        firmware=_path(content.get("firmware_bin_path"), data_dir),
        build_info=build_path and f"{build_path}/build_info.json",
    )


def look_at_firmware(storage: Storage, before: Firmware) -> Firmware:
    """Return what is known of the firmware; `before` is the answer of the last time.

    While ESPHome compiles, or after it failed, the firmware is still the one of before.
    """
    firmware = find(storage.firmware) if storage.firmware else None
    build_info = find(storage.build_info) if storage.build_info else None
    if firmware is None:
        return _NO_FIRMWARE
    if (firmware, build_info) == (before.signature, before.build_info):
        return before
    if build_info is None or firmware[0] >= build_info[0]:
        return _read_firmware(storage, firmware, build_info)
    known = before if before.signature == firmware else Firmware(signature=firmware)
    return replace(known, build_info=build_info)


def _read_firmware(
    storage: Storage, firmware: Signature, build_info: Signature | None
) -> Firmware:
    """Return what the files beside a finished firmware say of it."""
    content = _read_json(storage.build_info) if storage.build_info else {}
    config_hash = content.get("config_hash")
    return Firmware(
        signature=firmware,
        build_info=build_info,
        version=_text(content.get("esphome_version")) or storage.version,
        config_hash=_hash(config_hash),
        built_at=_text(content.get("build_time_str")),
    )


def _hash(value: object) -> str | None:
    """Return a hash as the device announces it (`format_hex` in `mdns_component`)."""
    if type(value) is not int or not 0 <= value <= _MAX_HASH:
        return None
    return f"{value:08x}"


def _path(value: object, data_dir: Path) -> str | None:
    """Return a recorded path if it leads into ESPHome's folder."""
    if not isinstance(value, str) or "\0" in value or not value.startswith("/"):
        return None
    return inside(value, data_dir)


def _read_json(path: str) -> dict[str, Any]:
    """Return the object in a file, empty if there is none.

    Raises `OSError` where nobody can tell now.
    """
    try:
        data, _ = read(path)
        content = orjson.loads(data)
    except (OSError, orjson.JSONDecodeError) as err:
        if isinstance(err, OSError) and err.errno in EXHAUSTED:
            raise
        return {}
    return content if isinstance(content, dict) else {}


def _text(value: object) -> str | None:
    """Return a text fit to be shown."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT else None
