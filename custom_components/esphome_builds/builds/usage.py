"""How much space a builder takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one place takes on disk, in bytes; not complete: that is what was seen."""

    size: int
    entries: int
    measured_at: datetime
    complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What all places take, by the names that they were given."""

    parts: Mapping[str, Measured]

    @property
    def total(self) -> int:
        """Return the bytes of all places together."""
        return sum(part.size for part in self.parts.values())

    @property
    def complete(self) -> bool:
        """Return whether everything was counted."""
        return all(part.complete for part in self.parts.values())


def readable_size(size: int) -> str:
    """Return bytes as a person reads them, such as 1.5 GiB."""
    number, unit = size / 1024**2, "MiB"
    if number >= 1000:  # noqa: PLR2004 - four digits are hard to read
        number, unit = number / 1024, "GiB"
    digits = 1 if number < 10 else 0  # noqa: PLR2004 - a second digit is enough
    return f"{number:.{digits}f} {unit}".replace(".0 ", " ")
