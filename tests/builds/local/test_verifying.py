"""Uploads that have ended when their device is back and runs what was sent."""

import asyncio
import json
from pathlib import Path
import shutil

import pytest

from custom_components.esphome_builds.builds import (
    queue as queue_module,
    verification as verification_module,
)
from custom_components.esphome_builds.builds.builder import BuildRequest
from custom_components.esphome_builds.builds.models import (
    Cause,
    Job,
    JobStatus,
    Phase,
    RequestKind,
)

from ...fakes import FAKE_VERSION
from ..fake_devices import FakeDevices
from .harness import House, Tenant
from .test_firmware import Builds

_Q, _R, _C = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED

BUILT_AT = "2026-11-24 20:00:00 +0000"
VERSION = "2026.10.1"
WAITS = "[Waiting until the device is back and runs the new firmware]"


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return folders and a fake for a builder."""
    return House(tmp_path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no device have more time than a moment."""
    monkeypatch.setattr(verification_module, "VERIFY_SECONDS", 0.3)


async def verifying(tenant: Tenant, job: Job) -> Job:
    """Wait until a job waits for its device to come back; return it."""
    await tenant.until(lambda: tenant.job(job).phase is Phase.VERIFYING)
    job = tenant.job(job)
    assert (job.status, job.exit_code, job.finished_at) == (_R, 0, None)
    return job


def built(house: House, content: bytes = b"new", built_at: str = BUILT_AT) -> None:
    """Leave what ESPHome leaves of a build."""
    firmware = Builds(house.settings.cache_dir).build(content, "a.yaml", name="a")
    info = firmware.parents[2] / "build_info.json"
    found = json.loads(info.read_text()) | {"build_time_str": built_at}
    info.write_text(json.dumps(found))
    # It is newer than what was noted before it.
    firmware.write_bytes(content)


async def test_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An install has ended when the device is back with the version that was built.

    Meanwhile others may upload, but nothing is done for the same device.
    """
    monkeypatch.setattr(queue_module, "UPLOAD_SLOTS", 1)
    house.write("a")
    house.write("b")
    devices = FakeDevices(a=True)
    devices.set("a", version="2026.9.0")
    async with house.started(devices=devices) as tenant:
        _, upload = await tenant.submit("install", "a.yaml")
        await verifying(tenant, upload)
        (later,) = await tenant.submit("validate", "a.yaml")
        assert (await tenant.run("upload", "b.yaml")).status is _C
        await tenant.until(lambda: tenant.builder.info.running == 1)

        devices.set("a", online=False)
        devices.connect("a")
        # The version is known a moment after.
        await tenant.run("validate", "b.yaml")
        assert tenant.job(later).status is _Q
        devices.set("a", version=FAKE_VERSION)
        upload, later = await tenant.ended(upload, later)

        assert (upload.status, upload.cause, upload.message) == (_C, None, None)
        assert (upload.exit_code, upload.progress, upload.phase) == (0, 100, None)
        assert tenant.statuses(upload) == [_Q, _R, _C]
        assert tenant.phases(upload)[-1] is Phase.VERIFYING
        lines = await tenant.lines(upload)
        assert lines[-2:] == [
            WAITS,
            "[The device is back and runs the new firmware.]",
        ]
        assert len(lines) == upload.total_lines
    assert not devices.listeners


async def test_same_firmware_again(house: House) -> None:
    """Where nothing is different, to have been away is enough."""
    house.write("a")
    house.write("b")
    built(house)
    devices = FakeDevices(a=True)
    devices.set("a", version=VERSION, built_at=BUILT_AT)
    async with house.started(devices=devices) as tenant:
        (upload,) = await tenant.submit("upload", "a.yaml")
        await verifying(tenant, upload)
        devices.set("a", sleeps=True)
        await tenant.run("validate", "b.yaml")
        assert tenant.job(upload).status is _R
        devices.connect("a")
        (upload,) = await tenant.ended(upload)
    assert upload.status is _C


@pytest.mark.parametrize("address", [None, "10.0.0.7"])
async def test_nobody_knows(house: House, address: str | None) -> None:
    """Where the device is not known, or another may be meant, an upload just ends."""
    house.write("a")
    devices = FakeDevices(a=None if address is None else True)
    async with house.started(devices=devices) as tenant:
        job = await tenant.run("upload", "a.yaml", address=address)
    assert job.status is _C
    assert Phase.VERIFYING not in tenant.phases(job)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (None, "the device has not come back within 0.005 minutes."),
        ({"online": False}, "the device has not come back within 0.005 minutes."),
        (
            {"version": "2026.9.0", "built_at": BUILT_AT},
            "the device came back with ESPHome 2026.9.0 instead of 2026.10.1.",
        ),
        (
            {"version": VERSION, "built_at": "2026-11-23 08:00:00 +0000"},
            (
                "the device came back with another build than that: the one of "
                "2026-11-23 08:00:00 +0000."
            ),
        ),
    ],
)
@pytest.mark.usefixtures("impatient")
async def test_not_verified(
    house: House, fields: dict[str, object] | None, sentence: str
) -> None:
    """An install that does not do what it shall is no success."""
    house.write("a")
    built(house)
    devices = FakeDevices(a=True)
    async with house.started(devices=devices) as tenant:
        (upload,) = await tenant.submit("upload", "a.yaml")
        await verifying(tenant, upload)
        if fields is not None:
            devices.connect("a")
            devices.set("a", **fields)
        (upload,) = await tenant.ended(upload)
        assert (upload.status, upload.cause) == (
            JobStatus.FAILED,
            Cause.NOT_VERIFIED,
        )
        assert upload.message == f"The firmware was sent, but {sentence}"
        assert (upload.exit_code, upload.progress) == (0, None)
        assert (await tenant.lines(upload))[-1] == f"[{upload.message}]"


async def test_kept_firmware(house: House) -> None:
    """What is expected is what was sent, not what was built last."""
    house.write("a")
    devices = FakeDevices(a=True)
    async with house.started(devices=devices) as tenant:
        built(house, b"old", "2026-11-20 00:00:00 +0000")
        old = await tenant.run("compile", "a.yaml")
        built(house)
        await tenant.run("compile", "a.yaml")
    async with house.started(devices=devices) as tenant:
        submission = await tenant.builder.submit(
            BuildRequest(
                kind=RequestKind.UPLOAD,
                configurations=("a.yaml",),
                firmware_job_id=old.job_id,
            )
        )
        (upload,) = submission.jobs
        await verifying(tenant, upload)
        devices.connect("a", version=VERSION, built_at=BUILT_AT)
        devices.set("a", built_at="2026-11-20 00:00:00 +0000")
        (upload,) = await tenant.ended(upload)
    assert upload.status is _C


async def test_cancel(house: House) -> None:
    """A cancel says that the device has the firmware already."""
    house.write("a")
    async with house.started(devices=FakeDevices(a=True)) as tenant:
        (upload,) = await tenant.submit("upload", "a.yaml")
        await verifying(tenant, upload)
        job = await tenant.builder.cancel(upload.job_id)

        assert (job.status, job.cause) == (JobStatus.CANCELLED, Cause.CANCELLED_BY_USER)
        assert job.message == (
            "The job was canceled; the firmware had been sent already."
        )
        assert (await tenant.lines(job))[-1] == f"[{job.message}]"


async def test_replace(house: House) -> None:
    """A newer upload does not wait for the device to come back from the one before."""
    house.write("a")
    devices = FakeDevices(a=True)
    async with house.started(devices=devices) as tenant:
        (first,) = await tenant.submit("upload", "a.yaml")
        await verifying(tenant, first)
        (same,) = await tenant.submit("upload", "a.yaml")
        assert same.job_id == first.job_id
        (second,) = await tenant.submit("upload", "a.yaml", replace=True)
        (first,) = await tenant.ended(first)
        assert (first.status, first.cause) == (JobStatus.CANCELLED, Cause.SUPERSEDED)
        assert first.message == (
            "The job was replaced by a newer one; the firmware had been sent already."
        )
        await verifying(tenant, second)


async def test_stop(house: House) -> None:
    """A restart is no reason to send it again, or not to look after it."""
    house.write("a")
    devices = FakeDevices(a=True)
    async with house.started(devices=devices) as tenant:
        _, upload = await tenant.submit("install", "a.yaml")
        upload = await verifying(tenant, upload)
    stopped = tenant.job(upload)
    assert (stopped.status, stopped.phase) == (_R, Phase.VERIFYING)

    devices.set("a", online=None)
    async with house.started(devices=devices) as tenant:
        await verifying(tenant, upload)
        # As often as it had connected counts only as long as somebody counts.
        devices.set("a", online=True, version="2026.9.0")
        await tenant.builder.open_log(upload.job_id)
        assert tenant.job(upload).status is _R
        devices.set("a", version=FAKE_VERSION)
        (upload,) = await tenant.ended(upload)
        lines = await tenant.lines(upload)

    assert (upload.status, upload.exit_code) == (_C, 0)
    assert lines.count(WAITS) == 2
    assert len([call for call in house.runs() if call[1] == "upload"]) == 1


async def test_kill(house: House, tmp_path: Path) -> None:
    """What a kill leaves is enough to go on."""
    house.write("a")
    devices = FakeDevices(a=True)
    async with house.started(devices=devices) as tenant:
        (upload,) = await tenant.submit("upload", "a.yaml")
        await verifying(tenant, upload)
        await tenant.builder._store.flush()
        cache = house.settings.cache_dir
        await asyncio.to_thread(shutil.copytree, cache, tmp_path / "left")
    shutil.rmtree(cache)
    (tmp_path / "left").rename(cache)

    async with house.started(devices=devices) as tenant:
        (upload,) = await tenant.ended(upload)
    assert upload.status is _C


@pytest.mark.usefixtures("impatient")
async def test_not_back_after_a_restart(house: House) -> None:
    """A restart begins the time anew, and that has an end."""
    house.write("a")
    devices = FakeDevices(a=True)
    async with house.started(devices=devices) as tenant:
        (upload,) = await tenant.submit("upload", "a.yaml")
        await verifying(tenant, upload)
        devices.set("a", online=False)
    async with house.started(devices=devices) as tenant:
        (upload,) = await tenant.ended(upload)
    assert upload.cause is Cause.NOT_VERIFIED
