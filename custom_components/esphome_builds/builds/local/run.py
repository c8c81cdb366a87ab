"""One run of one job: from its commands to the verdict."""

import asyncio
from collections.abc import Coroutine, Sequence
import errno
from pathlib import Path
from typing import Final, Protocol

from ..conceal import Concealment
from ..diagnosis import Verdict, stopped
from ..lines import LineSplitter
from ..log import JobLog
from ..models import Cause, Job, JobKind, JobStatus
from ..report import Reporter
from .process import Command, Ending, Limits, Process
from .secrets import Redactor

_COMMANDS: Final = {
    JobKind.VALIDATE: "config",
    JobKind.COMPILE: "compile",
    JobKind.UPLOAD: "upload",
    JobKind.CLEAN: "clean",
}


def arguments(
    job: Job, firmware: Path | None = None, known_address: str | None = None
) -> list[str]:
    """Return what ESPHome is called with for a job, in the configurations' folder.

    An upload sends the given firmware, without one what was built last. It is
    sent to the known address, and if nobody is there to where the name leads.
    """
    # As a dashboard, ESPHome prints the progress of an upload, and colors, into a pipe.
    result = ["--dashboard", _COMMANDS[job.kind], job.configuration]
    if job.kind is JobKind.UPLOAD:
        places = (job.address,) if job.address else (known_address, "OTA")
        for place in filter(None, places):
            result += ["--device", place]
    if firmware is not None:
        result += ["--file", str(firmware)]
    return result


class Listener(Protocol):
    """Listens to the output of all commands, and says how it ended."""

    def feed(self, lines: Sequence[str]) -> None:
        """Take the next lines of the output."""
        ...

    def verdict(self, exit_code: int) -> Verdict:
        """Say how it ended, by the exit status of the last command that was run."""
        ...


class EndedEarlyError(Exception):
    """A job has ended before its process was started."""

    def __init__(self, verdict: Verdict) -> None:
        """Note the verdict."""
        super().__init__(verdict.message)
        self.verdict = verdict


def failed(cause: Cause | None, message: str) -> Verdict:
    """Return the verdict for a job that cannot do what it shall."""
    return Verdict(status=JobStatus.FAILED, cause=cause, message=message)


def failed_with(err: OSError) -> Verdict:
    """Return the verdict where the system refused something before the process ran."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return failed(Cause.DISK_FULL, "There is no space left on the disk.")
    return failed(Cause.UNKNOWN, f"The job could not be started: {err.strerror}.")


class JobRun:
    """Runs the commands of one job, each if the one before it ended with 0."""

    def __init__(self, limits: Limits) -> None:
        """Prepare; nothing runs yet. The limits are for all commands together."""
        self._cause: Cause | None = None
        self._limits = limits
        self._process: Process | None = None
        self._question: asyncio.Task[str] | None = None

    @property
    def stopped(self) -> Verdict | None:
        """Return the verdict of a run that was ended from outside before it began."""
        return None if self._cause is None else stopped(self._cause)

    def stop(self, cause: Cause) -> None:
        """End the run; the first cause given is the one that counts."""
        if self._cause is not None:
            return
        self._cause = cause
        if self._process is not None:
            self._process.stop()
        if self._question is not None:
            self._question.cancel()

    async def ask(self, question: Coroutine[None, None, str]) -> str:
        """Return the answer to what must be known first; raise `EndedEarlyError`."""
        self._question = asyncio.create_task(question)
        if self.stopped is not None:
            self._question.cancel()
        await asyncio.wait([self._question])
        if self.stopped is not None:
            raise EndedEarlyError(self.stopped)
        return self._question.result()

    async def run(
        self,
        commands: Sequence[Command],
        listener: Listener,
        log: JobLog,
        redactor: Redactor,
        reporter: Reporter,
    ) -> tuple[Verdict, int | None]:
        """Run to the end; return the verdict and the last exit status, if any ran.

        Raises `OSError` where a process cannot be started.
        """
        output = _Output(listener, log, redactor, reporter)
        ending, exit_code = Ending.EXITED, None
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            for command in commands:
                if self.stopped is not None:
                    return self.stopped, exit_code
                limits = self._left(loop.time() - started)
                self._process = Process(command, limits)
                ending, exit_code = await output.take_from(self._process)
                if ending is not Ending.EXITED or exit_code:
                    break
        finally:
            reporter.close()
        if ending is Ending.EXITED and exit_code is not None:
            # It was faster than whoever wanted to stop it.
            return listener.verdict(exit_code), exit_code
        return self._ended(ending), exit_code

    def _left(self, elapsed: float) -> Limits:
        """Return the limits of a command that begins so late."""
        if (total := self._limits.total) is not None:
            total = max(0.0, total - elapsed)
        return Limits(total=total, idle=self._limits.idle)

    def _ended(self, ending: Ending) -> Verdict:
        """Return what a run came to that did not end by itself."""
        if ending is Ending.STOPPED and self._cause is not None:
            return stopped(self._cause)
        if ending is Ending.IDLE_LIMIT:
            message = f"There was no output for {_minutes(self._limits.idle)}."
        else:
            message = f"The job took longer than {_minutes(self._limits.total)}."
        return Verdict(status=JobStatus.FAILED, cause=Cause.TIMED_OUT, message=message)


class _Output:
    """Passes the output of processes on to all who want it, in clean lines."""

    def __init__(
        self, listener: Listener, log: JobLog, redactor: Redactor, reporter: Reporter
    ) -> None:
        """Begin before the first process."""
        self._listener = listener
        self._log = log
        self._redactor = redactor
        self._reporter = reporter

    async def take_from(self, process: Process) -> tuple[Ending, int]:
        """Run a process; return its end. Raises `OSError` if it cannot be started."""
        splitter = LineSplitter(Concealment().remove, self._redactor.clean)

        async def _on_output(data: bytes) -> None:
            self._take(splitter.feed(data), splitter.redraw)
            await self._log.throttle()

        try:
            return await process.run(_on_output)
        finally:
            self._take(splitter.close(), None)

    def _take(self, lines: list[str], redraw: str | None) -> None:
        if lines:
            self._log.append(lines)
            self._listener.feed(lines)
        self._reporter.feed(lines, redraw)


def _minutes(seconds: float | None) -> str:
    """Return a limit in words."""
    if seconds is None or seconds < 2 * 60:
        return f"{seconds or 0:g} seconds"
    return f"{seconds / 60:g} minutes"
