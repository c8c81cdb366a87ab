"""What can stand in the way of jobs, known before they start."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .models import JobKind

BUILDS: Final = frozenset({JobKind.COMPILE})
"""The jobs that make a firmware."""


class Obstacle(StrEnum):
    """What can stand in the way."""

    ARCHITECTURE = "architecture"
    COMPILER_MISSING = "compiler_missing"
    DISK_FULL = "disk_full"
    DISK_LOW = "disk_low"
    ESPHOME_OLD = "esphome_old"
    MEMORY_LOW = "memory_low"
    MEMORY_SCARCE = "memory_scarce"
    MEMORY_SMALL = "memory_small"
    MUSL = "musl"
    NOT_EXECUTABLE = "not_executable"
    NOT_WRITABLE = "not_writable"
    PYTHON_OLD = "python_old"


class Severity(StrEnum):
    """What it means for a job: it must not start, has to wait, or may go wrong."""

    REFUSE = "refuse"
    WAIT = "wait"
    WARN = "warn"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One obstacle, with what a sentence about it needs, and whom it concerns.

    `platforms` is None where it does not matter for which a firmware is built.
    """

    obstacle: Obstacle
    severity: Severity
    facts: Mapping[str, str | int]
    kinds: frozenset[JobKind] = BUILDS
    platforms: frozenset[str] | None = None

    def concerns(self, kind: JobKind, platform: str | None) -> bool:
        """Return whether it stands in the way of such a job.

        Of an unknown platform (None) nothing is said that holds for some only.
        """
        return kind in self.kinds and (
            self.platforms is None or platform in self.platforms
        )
