"""Whether a device is back, and what is wrong with one that is not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from custom_components.esphome_builds.builds.devices import Device
from custom_components.esphome_builds.builds.diagnosis import Verdict
from custom_components.esphome_builds.builds.log import JobLog
from custom_components.esphome_builds.builds.logs import Logs
from custom_components.esphome_builds.builds.models import Job, JobStatus
from custom_components.esphome_builds.builds.verification import (
    Expected,
    Verifications,
    is_back,
    shortcoming,
)

from .fake_devices import FakeDevices
from .stand_in import make_job

EXPECTED = Expected(version="2026.10.0", built_at="today")


def device(**fields: Any) -> Device:  # noqa: ANN401 - any field
    """Return a device that is back, or other than that."""
    values: dict[str, Any] = {
        "online": True,
        "version": "2026.10.0",
        "built_at": "today",
        "connections": 2,
    }
    return Device(device_id="it", **(values | fields))


@pytest.mark.parametrize(
    ("found", "connections", "sentence"),
    [
        (device(), 1, None),
        # Nobody knows how often it had connected.
        (device(), None, None),
        # It does not say when it was built.
        (device(built_at=None), 1, None),
        (None, 1, "has not come back within 5 minutes"),
        (device(online=False), 1, "has not come back within 5 minutes"),
        (device(online=None), 1, "has not come back within 5 minutes"),
        (device(), 2, "has not come back within 5 minutes"),
        (
            device(version="2026.9.0"),
            1,
            "came back with ESPHome 2026.9.0 instead of 2026.10.0",
        ),
        (
            device(built_at="yesterday"),
            1,
            "came back with another build than that: the one of yesterday",
        ),
    ],
)
def test_is_back(
    found: Device | None, connections: int | None, sentence: str | None
) -> None:
    """It has connected again, and runs what was sent."""
    assert is_back(found, connections, EXPECTED) is (sentence is None)
    if sentence is not None:
        assert shortcoming(found, connections, EXPECTED) == (
            f"The firmware was sent, but the device {sentence}."
        )


def test_says_nothing() -> None:
    """A device that does not say what it runs is not one that runs something else."""
    found = device(version=None)
    assert not is_back(found, 1, EXPECTED)
    assert shortcoming(found, 1, EXPECTED) == (
        "The firmware was sent and the device came back, but it does not say which "
        "ESPHome it runs."
    )


def test_nothing_is_known() -> None:
    """Where it is not known what was sent, to be back is enough."""
    assert is_back(device(version=None, built_at=None), 1, Expected())


async def test_without_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can be read, a device is waited for nevertheless."""
    (tmp_path / "logs").touch()
    devices = FakeDevices(kitchen=True)
    ended: asyncio.Future[tuple[str, Verdict, JobLog | None]] = asyncio.Future()

    async def _expect(_: Job) -> Expected:
        raise OSError(5, "Input/output error")

    waits = Verifications(
        Logs(tmp_path / "logs"),
        lambda _: devices.get("kitchen"),
        _expect,
        lambda *end: ended.set_result(end),
    )
    waits.start(make_job("1"), 0)
    assert "1" in waits
    devices.connect("kitchen")
    waits.wake()
    job_id, verdict, log = await asyncio.wait_for(ended, 20)
    assert (job_id, verdict.status, log) == ("1", JobStatus.COMPLETED, None)
    assert "1" not in waits
    assert "It is not known what 1 sent" in caplog.text
    await waits.close()
    await waits.ended("1")
