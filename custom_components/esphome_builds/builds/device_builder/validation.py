"""Checking a configuration on the server, which knows no jobs for that."""

from typing import Final

from ..conceal import Concealment
from ..diagnosis import Verdict
from ..lines import LineSplitter
from ..log import JobLog
from ..models import Job
from .client import Client
from .copies import diagnosis_of
from .errors import ProtocolError
from .output import Inbox

_WAIT_SECONDS: Final = 30.0


async def validate(client: Client, job: Job, log: JobLog) -> tuple[Verdict, int]:
    """Check a job's configuration; return the verdict and ESPHome's exit status.

    Raises `CommandError` where the server refuses, or stops a check that is silent, and
    `CannotConnectError`.
    """
    diagnosis = diagnosis_of(job)
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
