"""What ESPHome is called with, and what a run that was ended comes to."""

from pathlib import Path

import pytest

from custom_components.esphome_builds.builds.diagnosis import stopped
from custom_components.esphome_builds.builds.local import run as module
from custom_components.esphome_builds.builds.local.process import Command, Limits
from custom_components.esphome_builds.builds.local.run import (
    EndedEarlyError,
    JobRun,
    arguments,
)
from custom_components.esphome_builds.builds.local.secrets import Redactor
from custom_components.esphome_builds.builds.local.uv_failures import InstallDiagnosis
from custom_components.esphome_builds.builds.local.uv_progress import InstallProgress
from custom_components.esphome_builds.builds.log import JobLog
from custom_components.esphome_builds.builds.log_files import LogFiles
from custom_components.esphome_builds.builds.models import Cause, JobKind, JobStatus
from custom_components.esphome_builds.builds.report import REPORT_SECONDS, Reporter

from ..stand_in import make_job


def test_reports() -> None:
    """Progress comes at most four times a second."""
    assert REPORT_SECONDS == 0.25


@pytest.mark.parametrize(
    ("kind", "address", "expected"),
    [
        (JobKind.VALIDATE, None, ["config", "kitchen.yaml"]),
        (JobKind.COMPILE, None, ["compile", "kitchen.yaml"]),
        (JobKind.CLEAN, None, ["clean", "kitchen.yaml"]),
        (JobKind.UPLOAD, None, ["upload", "kitchen.yaml", "--device", "OTA"]),
        (JobKind.UPLOAD, "10.1", ["upload", "kitchen.yaml", "--device", "10.1"]),
    ],
)
def test_arguments(kind: JobKind, address: str | None, expected: list[str]) -> None:
    """Each kind of job is one command, which never asks which device is meant."""
    job = make_job(kind=kind, address=address)

    assert arguments(job) == ["--dashboard", *expected]


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (Cause.CANCELLED_BY_USER, JobStatus.CANCELLED),
        (Cause.SUPERSEDED, JobStatus.CANCELLED),
        (Cause.HOME_ASSISTANT_STOPPED, JobStatus.INTERRUPTED),
    ],
)
def test_stopped(cause: Cause, status: JobStatus) -> None:
    """Whoever ended a job stands in its verdict, with a sentence."""
    verdict = stopped(cause)

    assert (verdict.status, verdict.cause) == (status, cause)
    assert verdict.message
    assert verdict.message.endswith(".")


async def test_stopped_before_its_process_starts(tmp_path: Path) -> None:
    """A job that was ended that early never starts anything."""
    started = tmp_path / "started"
    command = Command(
        argv=("touch", str(started)), cwd=tmp_path, environment={}, token="token"
    )
    run = JobRun(Limits())
    log = JobLog(LogFiles(tmp_path / "log"))
    run.stop(Cause.SUPERSEDED)

    result = await run.run(
        [command],
        InstallDiagnosis(),
        log,
        Redactor(()),
        Reporter(InstallProgress(), lambda *_: None),
    )

    assert result == (stopped(Cause.SUPERSEDED), None)
    assert not started.exists()
    await log.close()


async def test_stopped_before_its_question() -> None:
    """What was ended that early asks nothing either."""
    asked = []

    async def _ask() -> str:
        asked.append(True)
        return "2026.10.0"

    run = JobRun(Limits())
    assert await run.ask(_ask()) == "2026.10.0"
    run.stop(Cause.HOME_ASSISTANT_STOPPED)
    run.stop(Cause.CANCELLED_BY_USER)
    with pytest.raises(EndedEarlyError) as raised:
        await run.ask(_ask())

    assert raised.value.verdict == stopped(Cause.HOME_ASSISTANT_STOPPED)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("kind", "address", "expected"),
    [
        (JobKind.UPLOAD, None, ["--device", "OTA", "--file", "/kept/firmware.bin"]),
        (JobKind.UPLOAD, "10.1", ["--device", "10.1", "--file", "/kept/firmware.bin"]),
    ],
)
def test_kept_firmware(kind: JobKind, address: str | None, expected: list[str]) -> None:
    """An upload can send another file than the one that was built last."""
    job = make_job(kind=kind, address=address)

    words = arguments(job, Path("/kept/firmware.bin"))

    assert words == ["--dashboard", "upload", "kitchen.yaml", *expected]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "0.5 seconds"),
        (90, "90 seconds"),
        (120, "2 minutes"),
        (45 * 60, "45 minutes"),
        (3 * 60 * 60, "180 minutes"),
    ],
)
def test_limits_in_words(seconds: float, words: str) -> None:
    """A limit is told as a person would say it."""
    assert module._minutes(seconds) == words
