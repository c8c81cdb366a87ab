"""The progress of a job, by the lines that the server sends of all jobs."""

import asyncio
from collections.abc import Callable
from typing import Final

from ..lines import LineSplitter
from ..models import JobKind, Phase
from ..progress import Progress
from ..report import Reporter

_BATCH_SECONDS: Final = 0.1
_MAX_BYTES: Final = 64 * 1024


class Gauge:
    """Looks at output that may have holes, in batches; of a flood only at a part."""

    def __init__(
        self, kind: JobKind, on_report: Callable[[Phase | None, int | None], None]
    ) -> None:
        """Report what is known before the first line."""
        self._splitter = LineSplitter()
        self._chunks: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._reporter = Reporter(Progress(kind), on_report)
        self.nudge = self._reporter.nudge

    def feed(self, chunk: str) -> None:
        """Take what was printed next."""
        if self._size > _MAX_BYTES:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_BATCH_SECONDS, self._look)

    def close(self) -> None:
        """Report nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._reporter.close()

    def _look(self) -> None:
        self._timer = None
        data = "".join(self._chunks).encode("utf-8", "replace")
        self._chunks.clear()
        self._size = 0
        self._reporter.feed(self._splitter.feed(data), self._splitter.redraw)
