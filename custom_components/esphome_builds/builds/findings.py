"""What can stand in the way of jobs, known before they start."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .models import Cause, JobKind
from .usage import readable_size

BUILDS: Final = frozenset({JobKind.COMPILE})
"""The jobs that make a firmware."""

SIZES: Final = frozenset({"available", "free", "minimum", "needed", "swap", "total"})
"""Facts that are bytes."""


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

    @property
    def cause(self) -> Cause:
        """Return why a job fails for it."""
        return _CAUSES.get(self.obstacle, Cause.UNKNOWN)

    @property
    def sentence(self) -> str:
        """Return what it is, for a person."""
        sentences = _SENTENCES if self.severity is Severity.REFUSE else _MILDER
        sentence = sentences.get(self.obstacle, _SENTENCES[self.obstacle])
        return sentence.format_map(texts(self.facts))


def worst_first(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings in the order of what they mean for a job."""
    order = tuple(Severity)
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def texts(facts: Mapping[str, str | int]) -> dict[str, str]:
    """Return facts as a person reads them."""
    return {
        name: readable_size(int(fact)) if name in SIZES else str(fact)
        for name, fact in facts.items()
    }


_CAUSES: Final = {
    Obstacle.ARCHITECTURE: Cause.TOOLCHAIN_MISSING,
    Obstacle.COMPILER_MISSING: Cause.TOOLCHAIN_MISSING,
    Obstacle.DISK_FULL: Cause.DISK_FULL,
    Obstacle.MEMORY_LOW: Cause.OUT_OF_MEMORY,
    Obstacle.MEMORY_SMALL: Cause.OUT_OF_MEMORY,
    Obstacle.MUSL: Cause.TOOLCHAIN_MISSING,
    Obstacle.NOT_EXECUTABLE: Cause.TOOLCHAIN_MISSING,
    Obstacle.PYTHON_OLD: Cause.ESPHOME_MISSING,
}

_SENTENCES: Final = {
    Obstacle.ARCHITECTURE: (
        "There are no tool chains of ESPHome for a host with {architecture}."
    ),
    Obstacle.COMPILER_MISSING: (
        "This host has no compiler for {languages}, which a configuration for the host "
        "itself needs."
    ),
    Obstacle.DISK_FULL: (
        "There are only {free} free at {path}, and a build needs {needed}."
    ),
    Obstacle.DISK_LOW: (
        "There are only {free} free at {path}, and the tool chain of another platform "
        "may need {needed}."
    ),
    Obstacle.ESPHOME_OLD: (
        "ESPHome {version} is older than {oldest}, so not all that it does is known."
    ),
    Obstacle.MEMORY_LOW: (
        "There are only {available} of memory free, and a build needs {minimum}."
    ),
    Obstacle.MEMORY_SCARCE: (
        "The free memory is enough for {compilers} of {cores} compilers at a time."
    ),
    Obstacle.MEMORY_SMALL: (
        "There are only {total} of memory in all, and a build needs {minimum}."
    ),
    Obstacle.MUSL: (
        "The tool chains of ESPHome need the C library glibc, and this system has musl."
    ),
    Obstacle.NOT_EXECUTABLE: (
        "Programs at {path} cannot be run, since its file system is mounted noexec."
    ),
    Obstacle.NOT_WRITABLE: "Nothing can be written at {path}: {problem}.",
    Obstacle.PYTHON_OLD: (
        "ESPHome needs Python {oldest}, and Home Assistant runs with {python}."
    ),
}

# Where it need not go wrong.
_MILDER: Final = {
    Obstacle.ARCHITECTURE: (
        "Some tool chains of ESPHome do not exist for a host with {architecture}."
    ),
    Obstacle.MUSL: (
        "The tool chains of ESPHome are made for the C library glibc, and some do not "
        "work with what this system has in its place."
    ),
}
