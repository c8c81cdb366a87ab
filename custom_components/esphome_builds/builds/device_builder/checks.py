"""Checks of configurations, which are jobs only here: a server knows none for them."""

import asyncio
from collections.abc import Callable
import logging
from typing import Final

from ..conceal import Concealment
from ..diagnosis import INTERNAL_ERROR, Diagnosis, Verdict, stopped
from ..lines import LineSplitter
from ..log import JobLog
from ..logs import Logs
from ..models import Cause, Job
from .client import Client
from .errors import CannotConnectError, CommandError, ProtocolError
from .output import Inbox
from .verdict import CUT_OFF, refused

_LOGGER = logging.getLogger(__name__)

_WAIT_SECONDS: Final = 30.0

type OnEnd = Callable[[str, Verdict, int | None, JobLog | None], None]


class Checks:
    """Runs checks side by side, and tells how each has ended.

    That is a job's id, the verdict (`CUT_OFF` where the connection broke), the exit
    status and the log, if there are any.
    """

    def __init__(self, logs: Logs, on_end: OnEnd) -> None:
        """Start with none."""
        self._causes: dict[str, Cause] = {}
        self._logs = logs
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[tuple[Verdict, int | None, JobLog]]] = {}

    def __contains__(self, job_id: str) -> bool:
        """Return whether a job is being checked."""
        return job_id in self._tasks

    def start(self, job: Job, client: Client) -> None:
        """Begin to check what a job asks for."""
        task = asyncio.create_task(self._run(job, client))
        self._tasks[job.job_id] = task
        task.add_done_callback(lambda _: self._on_done(job.job_id))

    def cancel(self, job_id: str, cause: Cause) -> None:
        """End a check; the first cause given is the one that counts."""
        self._causes.setdefault(job_id, cause)
        self._tasks[job_id].cancel()

    async def close(self) -> None:
        """End all checks, since Home Assistant stops."""
        tasks = [*self._tasks.values()]
        for job_id in self._tasks:
            self.cancel(job_id, Cause.HOME_ASSISTANT_STOPPED)
        if tasks:
            await asyncio.wait(tasks)

    def _on_done(self, job_id: str) -> None:
        """Tell of an end, also of one that came before the beginning."""
        task = self._tasks.pop(job_id)
        cause = self._causes.pop(job_id, Cause.CANCELLED_BY_USER)
        if task.cancelled():
            self._on_end(job_id, stopped(cause), None, None)
        else:
            self._on_end(job_id, *task.result())

    async def _run(
        self, job: Job, client: Client
    ) -> tuple[Verdict, int | None, JobLog]:
        """Check one configuration, whatever happens."""
        exit_code = None
        log = await self._logs.open(job.job_id, job.total_lines)
        try:
            end, exit_code = await _check(client, job, log)
        except CommandError as err:
            end = refused(str(err))
        except CannotConnectError:
            end = CUT_OFF
        except asyncio.CancelledError:
            end = stopped(self._causes.get(job.job_id, Cause.CANCELLED_BY_USER))
        except Exception:
            _LOGGER.exception("Job %s failed unexpectedly", job.job_id)
            end = INTERNAL_ERROR
        await log.close()
        return end, exit_code, log


async def _check(client: Client, job: Job, log: JobLog) -> tuple[Verdict, int]:
    """Check a job's configuration; return the verdict and ESPHome's exit status.

    Raises `CommandError` where the server refuses, or stops a check that is silent, and
    `CannotConnectError`.
    """
    diagnosis = Diagnosis.of(job)
    splitter = LineSplitter(Concealment().remove)
    inbox = Inbox()
    async with client.stream(
        "devices/validate",
        inbox.put,
        configuration=job.configuration,
        show_secrets=False,
    ) as answer:
        answer.add_done_callback(inbox.close)
        ended = False
        while not ended:
            await inbox.wait(_WAIT_SECONDS)
            ended = inbox.ended
            entries = "".join(f"{line}\n" for line in inbox.take())
            lines = splitter.feed(entries.encode("utf-8", "replace"))
            log.append(lines)
            diagnosis.feed(lines)
            await log.throttle()
        if answer.done():
            answer.result()
    code = inbox.result.get("code") if isinstance(inbox.result, dict) else None
    if not isinstance(code, int):
        raise ProtocolError("The server does not say how a check ended.")
    return diagnosis.verdict(code), code
