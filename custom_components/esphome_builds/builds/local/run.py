"""One run of one job: from the command to the verdict."""

from collections.abc import Callable
from typing import Final

from ..conceal import Concealment
from ..diagnosis import Diagnosis, Verdict, stopped
from ..lines import LineSplitter
from ..log import JobLog
from ..models import Cause, Job, JobKind, JobStatus, Phase
from ..report import Reporter
from .process import Command, Ending, Limits, Process
from .secrets import Redactor

_COMMANDS: Final = {
    JobKind.VALIDATE: "config",
    JobKind.COMPILE: "compile",
    JobKind.UPLOAD: "upload",
    JobKind.CLEAN: "clean",
}


def arguments(job: Job) -> list[str]:
    """Return what ESPHome is called with for a job, in the configurations' folder."""
    # As a dashboard, ESPHome prints the progress of an upload, and colors, into a pipe.
    result = ["--dashboard", _COMMANDS[job.kind], job.configuration]
    if job.kind is JobKind.UPLOAD:
        result += ["--device", job.address or "OTA"]
    return result


class JobRun:
    """Runs one job and tells how it goes, at most four times a second."""

    def __init__(
        self,
        job: Job,
        command: Command,
        limits: Limits,
    ) -> None:
        """Prepare; nothing runs yet."""
        self._limits = limits
        self._process = Process(command, limits)
        self._kind = job.kind
        self._diagnosis = Diagnosis.of(job)
        self._cause: Cause | None = None

    @property
    def stopped(self) -> Verdict | None:
        """Return the verdict of a run that was ended from outside before it began."""
        return None if self._cause is None else stopped(self._cause)

    def stop(self, cause: Cause) -> None:
        """End the run; the first cause given is the one that counts."""
        if self._cause is None:
            self._cause = cause
            self._process.stop()

    async def run(
        self,
        log: JobLog,
        redactor: Redactor,
        on_report: Callable[[Phase | None, int | None], None],
    ) -> tuple[Verdict, int | None]:
        """Run to the end; return the verdict and the exit status, if it ran at all.

        Raises `OSError` where the process cannot be started.
        """
        if self.stopped is not None:
            return self.stopped, None
        splitter = LineSplitter(Concealment().remove, redactor.clean)
        reporter = Reporter(self._kind, on_report)

        def _take(lines: list[str], redraw: str | None) -> None:
            if lines:
                log.append(lines)
                self._diagnosis.feed(lines)
            reporter.feed(lines, redraw)

        async def _on_output(data: bytes) -> None:
            _take(splitter.feed(data), splitter.redraw)
            await log.throttle()

        try:
            ending, exit_code = await self._process.run(_on_output)
        finally:
            _take(splitter.close(), None)
            reporter.close()
        return self._verdict(ending, exit_code), exit_code

    def _verdict(self, ending: Ending, exit_code: int) -> Verdict:
        """Return what the run came to."""
        if ending is Ending.EXITED:
            # It was faster than whoever wanted to stop it.
            return self._diagnosis.verdict(exit_code)
        if ending is Ending.STOPPED and self._cause is not None:
            return stopped(self._cause)
        if ending is Ending.IDLE_LIMIT:
            message = f"There was no output for {_minutes(self._limits.idle)}."
        else:
            message = f"The job took longer than {_minutes(self._limits.total)}."
        return Verdict(status=JobStatus.FAILED, cause=Cause.TIMED_OUT, message=message)


def _minutes(seconds: float | None) -> str:
    """Return a limit in words."""
    if seconds is None or seconds < 2 * 60:
        return f"{seconds or 0:g} seconds"
    return f"{seconds / 60:g} minutes"
