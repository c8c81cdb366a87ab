"""Tells how far a job is, not more often than anybody can look."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from .models import JobKind, Phase
from .progress import Progress

REPORT_SECONDS: Final = 0.25
"""Between two reports of the progress of one job."""


class Reporter:
    """Follows the progress of one job and reports it at most four times a second."""

    def __init__(
        self, kind: JobKind, on_report: Callable[[Phase | None, int | None], None]
    ) -> None:
        """Report what is known before the first line."""
        self._progress = Progress(kind)
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
