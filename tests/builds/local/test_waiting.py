"""Uploads that wait for a device that is off, and go out by themselves."""

from dataclasses import replace
from pathlib import Path

import pytest

from custom_components.esphome_builds.builds import queue as queue_module
from custom_components.esphome_builds.builds.models import (
    Cause,
    Job,
    JobEvent,
    JobStatus,
    Phase,
)
from custom_components.esphome_builds.builds.waiting import OFF

from ...fakes import FAKE_VERSION
from ..fake_devices import FakeDevices
from .harness import House, Tenant

_Q, _R, _C = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED

MISSED = (
    (
        "upload: print ERROR Upload failed after 3 attempts: "
        "connecting to 10.0.0.5 failed: timed out"
    ),
    "upload: exit 1",
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return folders and a fake for a builder."""
    return House(tmp_path)


async def waiting(tenant: Tenant, job: Job) -> Job:
    """Wait until a job waits for its device; return it."""
    await tenant.until(lambda: tenant.job(job).message == OFF)
    job = tenant.job(job)
    assert (job.status, job.phase, job.started_at) == (_Q, Phase.WAITING, None)
    return job


def uploads(house: House) -> list[str]:
    """Return the files whose firmware was sent, or tried to be."""
    return [call[2] for call in house.runs() if call[1] == "upload"]


async def test_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An install compiles, and its upload starts when the device is there again.

    It takes no slot, and the device is not compiled for twice.
    """
    monkeypatch.setattr(queue_module, "UPLOAD_SLOTS", 1)
    house.write("a")
    house.write("b")
    devices = FakeDevices(a=False, b=True)
    async with house.started(devices=devices) as tenant:
        build, upload = await tenant.submit("install", "a.yaml")
        await tenant.ended(build)
        upload = await waiting(tenant, upload)
        assert upload.message == (
            "The device is off or asleep; the upload starts when it is back."
        )
        assert tenant.builder.info.queued == 1
        (other,) = await tenant.submit("upload", "b.yaml")
        await tenant.until(lambda: tenant.job(other).phase is Phase.VERIFYING)

        devices.connect("a")
        await tenant.until(lambda: tenant.job(upload).phase is Phase.VERIFYING)
        assert tenant.job(upload).message is None
        devices.connect("a", version=FAKE_VERSION)
        await tenant.ended(upload)

        assert tenant.statuses(upload) == [_Q, _R, _C]
        assert [call[1] for call in house.runs() if call[2] == "a.yaml"] == [
            "compile",
            "upload",
        ]


@pytest.mark.parametrize(
    ("online", "address", "wait"),
    [
        # Nobody waits.
        (False, None, 0.0),
        # It may be another device.
        (False, "10.0.0.7", 3600.0),
        # It is not known whether the device is there.
        (None, None, 3600.0),
    ],
)
async def test_at_once(
    house: House, online: bool | None, address: str | None, wait: float
) -> None:
    """An upload that may reach its device is tried at once."""
    house.write("a", *MISSED)
    settings = replace(house.settings, device_wait=wait)
    async with house.started(settings, devices=FakeDevices(a=online)) as tenant:
        job = await tenant.run("upload", "a.yaml", address=address)

    assert (job.status, job.cause) == (JobStatus.FAILED, Cause.DEVICE_OFFLINE)
    assert tenant.statuses(job) == [_Q, _R, JobStatus.FAILED]
    assert uploads(house) == ["a.yaml"]


async def test_too_long(house: House) -> None:
    """An upload does not wait for ever, and no timer is left of it."""
    house.write("a")
    house.write("b")
    settings = replace(house.settings, device_wait=0.2)
    devices = FakeDevices(a=False, b=False)
    async with house.started(settings, devices=devices) as tenant:
        build, upload = await tenant.submit("install", "a.yaml")
        (other,) = await tenant.submit("upload", "b.yaml")
        build, upload, other = await tenant.ended(build, upload, other)
        assert tenant.builder._wait_timer is None

    assert build.status is _C
    for job in (upload, other):
        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.DEVICE_OFFLINE)
        assert job.message == (
            "The device was off or asleep for 0.2 seconds, so nothing was sent to it."
        )
        assert job.finished_at is not None
    assert build.finished_at is not None
    assert upload.finished_at is not None
    # The compile does not count.
    assert (upload.finished_at - build.finished_at).total_seconds() >= 0.2
    assert not uploads(house)
    assert not devices.listeners


async def test_restart(house: House) -> None:
    """What waits still does after a restart, and its time goes on."""
    house.write("a")
    devices = FakeDevices(a=False)
    async with house.started(devices=devices) as tenant:
        (upload,) = await tenant.submit("upload", "a.yaml")
        await waiting(tenant, upload)
        timer = tenant.builder._wait_timer
        assert timer is not None
    assert timer.cancelled()

    async with house.started(devices=devices) as tenant:
        await waiting(tenant, upload)
        # Nothing is told of it.
        assert not [event for event in tenant.events if isinstance(event, JobEvent)]

    settings = replace(house.settings, device_wait=0.001)
    async with house.started(settings, devices=devices) as tenant:
        (upload,) = await tenant.ended(upload)
    assert upload.cause is Cause.DEVICE_OFFLINE
    assert not uploads(house)


async def test_cancel(house: House) -> None:
    """What waits can be canceled."""
    house.write("a")
    async with house.started(devices=FakeDevices(a=False)) as tenant:
        (upload,) = await tenant.submit("upload", "a.yaml")
        await waiting(tenant, upload)
        job = await tenant.builder.cancel(upload.job_id)

    assert (job.status, job.cause) == (JobStatus.CANCELLED, Cause.CANCELLED_BY_USER)
    assert not uploads(house)


async def test_others_go_on(house: House) -> None:
    """Nothing waits for an upload that waits, and a newer one takes its place."""
    house.write("a")
    devices = FakeDevices(a=False)
    async with house.started(devices=devices) as tenant:
        _, first = await tenant.submit("install", "a.yaml")
        await waiting(tenant, first)

        (same,) = await tenant.submit("upload", "a.yaml")
        assert same.job_id == first.job_id
        check = await tenant.run("validate", "a.yaml")
        assert check.status is _C
        house.write("a", "compile: mark started", "compile: wait go")
        build, second = await tenant.submit("install", "a.yaml")
        await tenant.until(lambda: house.marks("started") != [])
        found = tenant.builder.configurations["a.yaml"]
        await tenant.until(
            lambda: (
                tenant.builder.configurations["a.yaml"].active_job_id == build.job_id
            )
        )
        assert found.name == "a"
        # The device is there, but what would be sent is being built.
        devices.connect("a")
        devices.set("a", online=False)
        assert tenant.job(first).status is _Q
        house.touch("go")
        (first,) = await tenant.ended(first)
        assert (first.status, first.cause) == (JobStatus.CANCELLED, Cause.SUPERSEDED)
        await waiting(tenant, second)
        assert tenant.job(build).status is _C
    assert not uploads(house)


async def test_back_during_the_compile(house: House) -> None:
    """A device that comes back while its firmware is built gets it at once."""
    house.write("a", "compile: mark started", "compile: wait go")
    devices = FakeDevices(a=False)
    async with house.started(devices=devices) as tenant:
        build, upload = await tenant.submit("install", "a.yaml")
        await tenant.until(lambda: house.marks("started") != [])
        devices.connect("a")
        house.touch("go")
        await tenant.until(lambda: tenant.job(upload).phase is Phase.VERIFYING)

    assert OFF not in [job.message for job in tenant.history(upload)]
    assert tenant.job(build).status is _C


async def test_flapping(house: House) -> None:
    """A device that is gone again before anything has begun is waited for."""
    house.write("a")
    devices = FakeDevices(a=False)
    async with house.started(devices=devices) as tenant:
        (upload,) = await tenant.submit("upload", "a.yaml")
        await waiting(tenant, upload)
        for _ in range(5):
            devices.connect("a")
            devices.set("a", online=False)
        await tenant.run("validate", "a.yaml")
        await waiting(tenant, upload)
        assert not uploads(house)

        devices.connect("a")
        await tenant.until(lambda: tenant.job(upload).phase is Phase.VERIFYING)
    assert uploads(house) == ["a.yaml"]


async def test_two_at_once(house: House) -> None:
    """Two devices that come back in one turn are both sent to, each once."""
    for name in "ab":
        house.write(name)
    devices = FakeDevices(a=False, b=False)
    async with house.started(devices=devices) as tenant:
        jobs = await tenant.submit("upload", "a.yaml", "b.yaml")
        for job in jobs:
            await waiting(tenant, job)
        devices.connect("a")
        devices.connect("b")
        await tenant.until(
            lambda: all(tenant.job(job).phase is Phase.VERIFYING for job in jobs)
        )
    assert sorted(uploads(house)) == ["a.yaml", "b.yaml"]


class TestAgain:
    """An upload that did not reach its device."""

    async def test_asleep(self, house: House) -> None:
        """It waits until a device that sleeps is awake once more."""
        house.write("a", *MISSED)
        devices = FakeDevices(a=True)
        devices.set("a", sleeps=True)
        async with house.started(devices=devices) as tenant:
            (upload,) = await tenant.submit("upload", "a.yaml")
            await waiting(tenant, upload)
            assert tenant.statuses(upload) == [_Q, _R, _Q]
            assert (await tenant.lines(upload))[-1] == f"[{OFF}]"
            assert tenant.job(upload).total_lines == 2
            # It is still taken for awake, which does not mean that it is.
            devices.set("a", version="2026.9.0")
            await tenant.run("validate", "a.yaml")
            await waiting(tenant, upload)
            assert uploads(house) == ["a.yaml"]

            house.write("a")
            devices.connect("a")
            await tenant.until(lambda: tenant.job(upload).phase is Phase.VERIFYING)
            devices.connect("a")
            (upload,) = await tenant.ended(upload)

            assert upload.status is _C
            assert tenant.statuses(upload) == [_Q, _R, _Q, _R, _C]
            lines = await tenant.lines(upload)
            assert lines[1] == f"[{OFF}]"
            assert len(lines) == upload.total_lines > 5
        assert uploads(house) == ["a.yaml"] * 2

    async def test_switched_off(self, house: House) -> None:
        """It waits for a device that was switched off meanwhile."""
        house.write("a", "upload: mark started", "upload: wait go", *MISSED)
        devices = FakeDevices(a=True)
        async with house.started(devices=devices) as tenant:
            (upload,) = await tenant.submit("upload", "a.yaml")
            await tenant.until(lambda: house.marks("started") != [])
            devices.set("a", online=False)
            house.touch("go")
            await waiting(tenant, upload)
            job = await tenant.builder.cancel(upload.job_id)
        assert job.cause is Cause.CANCELLED_BY_USER

    @pytest.mark.parametrize(
        ("device", "address", "script"),
        [
            ({"online": True}, None, MISSED),
            ({"online": True, "sleeps": True}, "10.0.0.7", MISSED),
            # Something may have been sent.
            (
                {"online": True, "sleeps": True},
                None,
                ("upload: print INFO Connected to 10.0.0.5", *MISSED),
            ),
            (
                {"online": True, "sleeps": True},
                None,
                (
                    "upload: print Uploading: [=    ] 20% ",
                    "upload: print ERROR OTA upload to 10.0.0.5 port 80 failed: gone",
                    "upload: exit 1",
                ),
            ),
            # That has nothing to do with the device.
            (
                {"online": True, "sleeps": True},
                None,
                ("upload: print oh", "upload: exit 1"),
            ),
        ],
    )
    async def test_fails(
        self,
        house: House,
        device: dict[str, bool],
        address: str | None,
        script: tuple[str, ...],
    ) -> None:
        """It fails where it may have been sent, or there is nothing to wait for."""
        house.write("a", *script)
        devices = FakeDevices(a=True)
        devices.set("a", **device)
        async with house.started(devices=devices) as tenant:
            job = await tenant.run("upload", "a.yaml", address=address)
        assert job.status is JobStatus.FAILED
        assert uploads(house) == ["a.yaml"]

    async def test_not_after_its_time(self, house: House) -> None:
        """It fails once it has waited for long enough, as ESPHome says it."""
        house.write("a", "upload: mark started", "upload: wait go", *MISSED)
        devices = FakeDevices(a=True)
        settings = replace(house.settings, device_wait=0.001)
        async with house.started(settings, devices=devices) as tenant:
            (upload,) = await tenant.submit("upload", "a.yaml")
            await tenant.until(lambda: house.marks("started") != [])
            devices.set("a", online=False)
            house.touch("go")
            (upload,) = await tenant.ended(upload)
        assert upload.cause is Cause.DEVICE_OFFLINE
        assert upload.message is not None
        assert "did not answer" in upload.message
