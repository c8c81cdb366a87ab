"""A local builder keeps the firmware of its builds, and sends an older one again."""

from dataclasses import replace
from pathlib import Path

import pytest

from custom_components.esphome_builds.builds.builder import (
    BuildRequest,
    InvalidRequestError,
    Submission,
)
from custom_components.esphome_builds.builds.local.firmware import KEPT, FirmwareStore
from custom_components.esphome_builds.builds.models import (
    Cause,
    Job,
    JobStatus,
    RequestKind,
)

from .harness import House as AnyHouse, Tenant
from .test_firmware import Builds


class House(AnyHouse):
    """Folders for a builder, whose fake leaves firmware as ESPHome does."""

    def __init__(self, folder: Path) -> None:
        """Make the folders."""
        super().__init__(folder)
        self.builds = Builds(self.settings.cache_dir)
        self.write("kitchen")

    async def build(
        self, tenant: Tenant, content: bytes, configuration: str = "kitchen.yaml"
    ) -> Job:
        """Build something; return its job."""
        self.builds.build(content, configuration)
        return await tenant.run("compile", configuration)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return folders for a builder."""
    return House(tmp_path)


def kept_of(tenant: Tenant) -> list[str]:
    """Return the jobs whose firmware is kept, the newest first."""
    kept = tenant.builder.firmware_of("kitchen.yaml")
    return [job_id for one in kept for job_id in reversed(one.job_ids)]


async def upload(
    tenant: Tenant,
    job_id: str,
    *names: str,
    kind: RequestKind = RequestKind.UPLOAD,
    address: str | None = None,
) -> Submission:
    """Ask for the upload of what a job built."""
    return await tenant.builder.submit(
        BuildRequest(
            kind=kind,
            configurations=names or ("kitchen.yaml",),
            address=address,
            firmware_job_id=job_id,
        )
    )


async def test_kept_and_sent(house: House) -> None:
    """What a build made is kept when its end is told, and can be sent later."""
    async with house.started() as tenant:
        found: list[bool] = []

        def _on_event(event: object) -> None:
            job = getattr(event, "job", None)
            if job is not None and job.status is JobStatus.COMPLETED:
                found.append(job.job_id in kept_of(tenant))

        stop = tenant.builder.listen(_on_event)
        first = await house.build(tenant, b"one")
        stop()
        second = await house.build(tenant, b"two")
        submission = await upload(tenant, first.job_id, address="10.0.0.7")
        (job,) = await tenant.ended(*submission.jobs)

        assert found == [True]
        assert (job.status, job.firmware_job_id) == (JobStatus.COMPLETED, first.job_id)
        path = await tenant.builder.firmware_file(first.job_id)
        assert path.read_bytes() == b"one"
        assert house.runs()[-1] == [
            *("--dashboard", "upload", "kitchen.yaml"),
            *("--device", "10.0.0.7", "--file", str(path)),
        ]
        assert second.job_id in kept_of(tenant)
    async with house.started() as tenant:
        assert kept_of(tenant) == [second.job_id, first.job_id]
        assert tenant.job(job).firmware_job_id == first.job_id


async def test_only_what_completed(house: House) -> None:
    """A build that failed, and anything but a build, leaves nothing to keep."""
    house.write("kitchen", "compile: exit 1")
    async with house.started() as tenant:
        await house.build(tenant, b"one")
        await tenant.run("validate", "kitchen.yaml")
        assert kept_of(tenant) == []


async def test_each_upload_is_its_own(house: House) -> None:
    """Uploads of other firmware are other jobs, of the same the same."""
    house.write("kitchen", "upload: print hello", "upload: wait go")
    async with house.started() as tenant:
        first = await house.build(tenant, b"one")
        await house.build(tenant, b"two")
        (newest,) = await tenant.submit("upload", "kitchen.yaml")
        older = await upload(tenant, first.job_id)
        again = await upload(tenant, first.job_id)
        assert older.attached == ()
        assert again.attached == (older.jobs[0].job_id,)
        assert newest.job_id != older.jobs[0].job_id
        house.touch("go")
        await tenant.ended(newest, *older.jobs)
    assert [("--file" in call) for call in house.runs()[2:]] == [False, True]


async def test_not_removed_before_it_is_sent(house: House) -> None:
    """What an upload waits to send stays, however many builds there are meanwhile."""
    house.write("kitchen", "upload: print hello", "upload: wait go")
    async with house.started() as tenant:
        first = await house.build(tenant, b"one")
        submission = await upload(tenant, first.job_id)
        await tenant.running(submission.jobs[0])
        # As what other jobs of this configuration would keep, which wait for it here.
        for number in range(KEPT + 1):
            house.builds.build(b"%d" % number)
            job = replace(first, job_id=f"{int(first.job_id, 16) + number + 1:022x}")
            await tenant.builder._keeper.keep(job, tenant.builder.jobs)
        assert first.job_id in kept_of(tenant)
        assert len(kept_of(tenant)) == KEPT + 1
        house.touch("go")
        (job,) = await tenant.ended(*submission.jobs)
        assert job.status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    ("kind", "names", "words"),
    [
        (RequestKind.INSTALL, (), "Only an upload"),
        (RequestKind.COMPILE, (), "Only an upload"),
        (RequestKind.UPLOAD, ("kitchen.yaml", "other.yaml"), "one configuration"),
        (RequestKind.UPLOAD, ("other.yaml",), "is kept"),
    ],
)
async def test_no_sense(
    house: House, kind: RequestKind, names: tuple[str, ...], words: str
) -> None:
    """A firmware is sent by an upload, of the configuration that it is of."""
    house.write("other")
    async with house.started() as tenant:
        job = await house.build(tenant, b"one")
        with pytest.raises(InvalidRequestError, match=words):
            await upload(tenant, job.job_id, *names, kind=kind)
        assert len(tenant.builder.jobs) == 1


async def test_not_kept(house: House) -> None:
    """Nothing is sent in the place of what is gone."""
    async with house.started() as tenant:
        with pytest.raises(InvalidRequestError, match="is kept"):
            await upload(tenant, "1" * 22)
        assert not tenant.builder.jobs


async def test_damaged(house: House) -> None:
    """What was damaged meanwhile does not get onto a device."""
    async with house.started() as tenant:
        first = await house.build(tenant, b"one")
        path = await tenant.builder.firmware_file(first.job_id)
        path.write_bytes(b"eno")
        submission = await upload(tenant, first.job_id)
        (job,) = await tenant.ended(*submission.jobs)

    assert (job.status, job.cause) == (JobStatus.FAILED, Cause.PREREQUISITE_FAILED)
    assert "damaged" in (job.message or "")
    assert all("upload" not in call for call in house.runs())


async def test_cannot_be_kept(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A build has completed also where there is no space to keep what it made."""
    house.settings.firmware_dir.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FirmwareStore, "load", lambda _: None)
        async with house.started() as tenant:
            job = await house.build(tenant, b"one")

    assert job.status is JobStatus.COMPLETED
    assert "The firmware of kitchen.yaml cannot be kept" in caplog.text
