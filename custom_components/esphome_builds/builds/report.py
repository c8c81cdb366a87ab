"""Tells how far a job is, not more often than anybody can look."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from .models import Phase

REPORT_SECONDS: Final = 0.25
"""Between two reports of the progress of one job."""


class Measure(Protocol):
    """Knows from the output how far a job is."""

    @property
    def phase(self) -> Phase | None:
        """Return what is being done."""
        ...

    @property
    def percent(self) -> int | None:
        """Return how much of that is done, if it is known."""
        ...

    def feed(self, lines: Sequence[str], redraw: str | None = None) -> bool:
        """Take the next lines; return whether that changes anything."""
        ...


class Reporter:
    """Follows the progress of one job and reports it at most four times a second."""

    def __init__(
        self,
        progress: Measure,
        on_report: Callable[[Phase | None, int | None], None],
    ) -> None:
        """Report what is known before the first line."""
        self._progress = progress
        self._on_report = on_report
        self._timer: asyncio.TimerHandle | None = None
        self._report()

    def feed(self, lines: Sequence[str], redraw: str | None = None) -> None:
        """Take the next lines, and after them the one that is being redrawn."""
        changed = self._progress.feed(lines, redraw)
        if lines or changed:
            self.nudge()

    def nudge(self) -> None:
        """Report soon, since something else has changed."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(REPORT_SECONDS, self._report)

    def close(self) -> None:
        """Report nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _report(self) -> None:
        self._timer = None
        self._on_report(self._progress.phase, self._progress.percent)
