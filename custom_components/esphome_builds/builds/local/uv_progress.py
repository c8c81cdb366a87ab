"""Follows how far an installation is, by what uv prints where nobody watches it.

The texts are those of uv 0.13 (https://github.com/astral-sh/uv).
"""

from collections.abc import Sequence
import re
from typing import Final

from ..models import Phase

# Only large packages are announced, nearly all of them at the same time.
_MARK: Final = re.compile(
    r"Downloading (?P<announced>\S+) \("
    r"| Downloaded (?P<downloaded>\S+)"
    r"|(?P<installed>Installed \d{1,6} packages? in )"
)
# Enough of a line to know it by.
_MAX_LINE: Final = 400


class InstallProgress:
    """Follows all steps of one installation; the percentage only rises."""

    def __init__(self) -> None:
        """Start before the first line of the output."""
        self.phase = Phase.DOWNLOADING
        self.percent: int | None = None
        self._announced = 0
        self._downloaded = 0

    def feed(
        self,
        lines: Sequence[str],
        redraw: str | None = None,  # noqa: ARG002 - uv draws nothing into a pipe
    ) -> bool:
        """Take the next lines; return whether phase or percentage are other now."""
        before = (self.phase, self.percent)
        for line in lines:
            if mark := _MARK.match(line[:_MAX_LINE]):
                self._take(str(mark.lastgroup))
        return (self.phase, self.percent) != before

    def _take(self, mark: str) -> None:
        """Go on by one line."""
        if mark == "installed":
            # What is left is to try it.
            self.phase, self.percent = Phase.VERIFYING, None
        elif self.phase is Phase.DOWNLOADING:
            self._announced += mark == "announced"
            self._downloaded += mark == "downloaded"
            done = 100 * self._downloaded // max(self._announced, self._downloaded, 1)
            self.percent = max(done, self.percent or 0)
