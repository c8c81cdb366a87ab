"""The firmware of an earlier build that is kept to go back to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson


class NoFirmwareError(Exception):
    """There is no such firmware, or what is there is not what was kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptFile:
    """One file of a firmware, as it was when it was kept."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptFirmware:
    """What a build made; the first file is the one to upload.

    Builds that made the same share it: `job_ids` are theirs, the newest last.
    `built_at` is when that was, as the firmware itself says it.
    """

    folder: str
    configuration: str
    job_ids: tuple[str, ...]
    files: tuple[KeptFile, ...]
    kept_at: datetime
    platform: str | None
    version: str | None
    config_hash: str | None
    built_at: str | None = None

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)

    def as_dict(self) -> dict[str, Any]:
        """Return its public form, as `docs/websocket.md` describes it."""
        result: dict[str, Any] = orjson.loads(
            orjson.dumps(
                {
                    "job_id": self.job_ids[-1],
                    "configuration": self.configuration,
                    "version": self.version,
                    "config_hash": self.config_hash,
                    "platform": self.platform,
                    "built_at": self.kept_at,
                    "size": self.size,
                    "files": self.files,
                }
            )
        )
        return result
