"""Where a local builder finds things, and what it may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
import os
from pathlib import Path
import sys
from typing import Final

from ..devices import DEVICE_WAIT_SECONDS
from ..models import JobKind
from .environment import build_environment
from .process import Limits
from .uv import INSTALL_LIMITS

DEFAULT_LIMITS: Final[Mapping[JobKind, Limits]] = {
    JobKind.VALIDATE: Limits(total=10 * 60),
    JobKind.COMPILE: Limits(total=3 * 60 * 60, idle=45 * 60),
    JobKind.UPLOAD: Limits(total=30 * 60, idle=10 * 60),
    JobKind.CLEAN: Limits(total=10 * 60),
    JobKind.INSTALL_ESPHOME: INSTALL_LIMITS,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSettings:
    """Where a builder finds things and what it may use.

    `esphome` is the executable's path, or empty for one that the builder installs by
    and for `python`. `cache_dir` is the builder's own; `tools_dir` holds tool chains
    that several builders may share. `compile_slots` is None for as many as suit the
    host. `build_limit` is how many bytes all build trees together may take, None for
    as many as there are. `device_wait` is for how many seconds an upload waits for a
    device that is off.
    """

    entry_id: str
    title: str
    config_dir: Path
    esphome: str
    cache_dir: Path
    tools_dir: Path
    compile_slots: int | None = None
    build_limit: int | None = None
    device_wait: float = DEVICE_WAIT_SECONDS
    limits: Mapping[JobKind, Limits] = field(default_factory=lambda: DEFAULT_LIMITS)
    python: Path = field(default_factory=lambda: Path(sys.executable))

    @property
    def data_dir(self) -> Path:
        """Return where ESPHome keeps its build trees and metadata."""
        return self.cache_dir / "data"

    @property
    def environments_dir(self) -> Path:
        """Return where the builder installs ESPHome."""
        return self.cache_dir / "esphome"

    @property
    def trash_dir(self) -> Path:
        """Return where what was given up waits to be removed."""
        return self.cache_dir / "trash"

    @property
    def logs_dir(self) -> Path:
        """Return where the logs of jobs are."""
        return self.cache_dir / "logs"

    @property
    def firmware_dir(self) -> Path:
        """Return where the firmwares of earlier builds are kept."""
        return self.cache_dir / "firmware"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of this builder's processes."""
        return build_environment(
            os.environ, data_dir=self.data_dir, tools_dir=self.tools_dir
        )
