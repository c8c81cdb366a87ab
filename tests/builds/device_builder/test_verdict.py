"""What the end of a job on the server means."""

from typing import Any

import pytest

from custom_components.esphome_builds.builds.device_builder.verdict import (
    CANCELED,
    SHUT_DOWN,
    UNKNOWN_END,
    refused,
    verdict,
    where,
)
from custom_components.esphome_builds.builds.device_builder.wire import parse_job
from custom_components.esphome_builds.builds.diagnosis import Diagnosis
from custom_components.esphome_builds.builds.models import Cause, JobKind, JobStatus

from ..stand_in import make_job
from .fake_server import server_job


@pytest.mark.parametrize(
    ("kind", "fields", "cause", "words"),
    [
        (
            "compile",
            {"exit_code": 2},
            Cause.UNKNOWN,
            "ESPHome ended with exit code 2 and did not say why.",
        ),
        (
            "compile",
            {"exit_code": -9},
            Cause.OUT_OF_MEMORY,
            "most likely because the host ran out of memory",
        ),
        (
            "compile",
            {
                "source": "remote",
                "source_label": "attic",
                "error": "remote build: receiver not reachable: closed",
            },
            Cause.BUILDER_UNAVAILABLE,
            "The build server attic was lost during the build.",
        ),
        (
            "compile",
            {
                "source": "remote",
                "error": "remote build: download_artifacts failed: "
                "download_artifacts: no live peer-link session to attic:6055",
            },
            Cause.BUILDER_UNAVAILABLE,
            "The build server that it ran on was lost during the build.",
        ),
        (
            "compile",
            {
                "source": "remote",
                "source_label": "attic",
                "error": "remote build: download_artifacts failed: "
                "download_artifacts: receiver rejected (pack_failed): no session",
            },
            Cause.UNKNOWN,
            "What the build server attic built could not be fetched: receiver rej",
        ),
        (
            "compile",
            {
                "source": "remote",
                "error": "remote build: materialise IO error: No space left",
            },
            Cause.UNKNOWN,
            "the build server that it ran on built could not be fetched: No space",
        ),
        (
            "compile",
            {
                "source": "remote",
                "source_label": "attic",
                "error": "remote build: compile failed",
            },
            Cause.UNKNOWN,
            "Compiling failed on the build server attic, and ESPHome did not say why.",
        ),
        (
            "compile",
            {
                "source": "remote",
                "error": "remote build: bundle failed: esphome bundle timed out",
            },
            Cause.UNKNOWN,
            "Bundle failed: esphome bundle timed out.",
        ),
        (
            "compile",
            {"error": "no compatible build server"},
            Cause.UNKNOWN,
            "no compatible build server.",
        ),
        (
            "upload",
            {"error": "Chip mismatch: config expects esp32 but it has esp8266."},
            Cause.WRONG_DEVICE,
            "Chip mismatch: config expects esp32 but it has esp8266.",
        ),
        (
            "upload",
            {"exit_code": 1, "is_deferred_install": True},
            Cause.DEVICE_OFFLINE,
            "when the device is back",
        ),
        (
            "compile",
            {"exit_code": 1, "is_deferred_install": True},
            Cause.UNKNOWN,
            "exit",
        ),
    ],
)
def test_failed(kind: str, fields: dict[str, Any], cause: Cause, words: str) -> None:
    """A failure has a cause and one sentence."""
    job = make_job(kind=JobKind(kind))
    server = parse_job(server_job() | {"status": "failed", "job_type": kind} | fields)

    found = verdict(job, server, Diagnosis.of(job))

    assert (found.status, found.cause) == (JobStatus.FAILED, cause)
    assert found.message is not None
    assert words in found.message
    assert found.message.endswith(".")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("", Cause.CANCELLED_BY_USER),
        ("prerequisite job did not complete successfully", Cause.PREREQUISITE_FAILED),
        (
            "device is offline; update queued for when it reconnects",
            Cause.DEVICE_OFFLINE,
        ),
    ],
)
def test_canceled(error: str, cause: Cause) -> None:
    """Why a job was canceled is in the server's words, or known to the builder."""
    job = make_job()
    server = parse_job(server_job(status="cancelled", error=error))

    found = verdict(job, server, Diagnosis.of(job), CANCELED)

    assert (found.status, found.cause) == (JobStatus.CANCELLED, cause)
    assert error or verdict(job, server, Diagnosis.of(job), SHUT_DOWN) == SHUT_DOWN


def test_completed() -> None:
    """All is well, and where it ran is told."""
    job = make_job()
    for fields, words in (
        ({}, None),
        ({"source": "remote", "source_label": "attic"}, "build server attic"),
        ({"is_deferred_install": True}, "when the device is back"),
    ):
        server = parse_job(server_job() | {"status": "completed"} | fields)
        found = verdict(job, server, Diagnosis.of(job))
        assert (found.status, found.cause) == (JobStatus.COMPLETED, None)
        assert words is None or words in (found.message or "")
        assert found.message is None or words is not None


def test_unknown_status() -> None:
    """A status of the future is no crash."""
    server = parse_job(server_job(status="paused"))
    assert verdict(make_job(), server, Diagnosis.of(make_job())) == UNKNOWN_END


def test_where() -> None:
    """Where a job runs is told where that is not the server itself."""
    assert where(parse_job(server_job())) is None
    remote = parse_job(server_job(source="remote"))
    assert where(remote) == "It runs on the build server of that name."


def test_refused() -> None:
    """The server's words become one sentence."""
    assert refused("Nope. Never!\n").message == (
        "ESPHome Device Builder refused this job: Nope; never."
    )
