"""Home Assistant is killed while it builds, or stops, and starts again."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
import signal
import sys

import pytest

from custom_components.esphome_builds.builds.models import (
    Cause,
    Job,
    JobEvent,
    JobKind,
    JobStatus,
)
from custom_components.esphome_builds.builds.store import load_jobs

from .conftest import living
from .harness import House, Tenant

_Q, _R = JobStatus.QUEUED, JobStatus.RUNNING


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return folders and a fake for a builder."""
    return House(tmp_path)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is so in another process
            await asyncio.sleep(0.01)


async def until_tried(house: House, count: int) -> None:
    """Wait until a fake was started so many times."""
    await until(lambda: len(house.marks("tries")) == count)


@asynccontextmanager
async def victim(house: House, *requests: str) -> AsyncGenerator[None]:
    """Run a builder in a process of its own, and kill that at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("victim.py")),
        str(house.config_dir.parent),
        *requests,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
        yield
    finally:
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        await process.stdout.read()


def on_disk(house: House) -> list[Job]:
    """Return the jobs as the killed one left them."""
    return load_jobs(house.settings.cache_dir / "jobs.json")


def all_jobs(tenant: Tenant) -> list[Job]:
    """Return the jobs as they are now."""
    return [*tenant.builder.jobs.values()]


async def test_killed_twice(house: House) -> None:
    """A compile that is cut off twice is attempted twice, and never again."""
    house.write("a", "spawn session ignore", "mark tries", "print try", "sleep inf")
    async with victim(house, "compile:a.yaml"):
        await until_tried(house, 1)
    (job,) = on_disk(house)
    assert (job.status, job.attempt) == (_R, 1)
    assert len(living(job.job_id)) == 2

    # The next one ends what the killed one left, and tries again.
    async with victim(house):
        await until_tried(house, 2)
        assert len(living(job.job_id)) == 2
        # Long enough for its log to be on disk.
        await asyncio.sleep(1)
    (again,) = on_disk(house)
    assert (again.job_id, again.status, again.attempt) == (job.job_id, _R, 2)

    async with house.started() as tenant:
        (last,) = all_jobs(tenant)
        assert (last.job_id, last.status) == (job.job_id, JobStatus.INTERRUPTED)
        assert (last.cause, last.attempt) == (Cause.CRASHED, 2)
        assert last.message
        assert last.finished_at is not None
        # It is told to those who listen, once.
        assert [e for e in tenant.events if isinstance(e, JobEvent)] == [
            JobEvent(job=last)
        ]
        assert not living(job.job_id)
        await asyncio.sleep(0.2)
        assert len(house.marks("tries")) == 2
        # The log that was written before is there, and says what happened.
        lines = await tenant.lines(last)
        assert lines[-2:] == [
            "[Home Assistant was restarted; this is the 2nd attempt]",
            "try",
        ]
    (stored,) = on_disk(house)
    assert stored == last


async def test_second_attempt_completes(house: House) -> None:
    """A compile that is cut off once completes, and its upload runs after it."""
    house.write("a", "compile: mark tries", "compile: wait go")
    async with victim(house, "install:a.yaml"):
        await until_tried(house, 1)
    house.touch("go")

    async with house.started() as tenant:
        jobs = await tenant.ended(*all_jobs(tenant))

    assert [(job.status, job.attempt) for job in jobs] == [
        (JobStatus.COMPLETED, 2),
        (JobStatus.COMPLETED, 1),
    ]
    assert [call[1] for call in house.runs()] == ["compile", "compile", "upload"]


async def test_upload_is_never_sent_again(house: House) -> None:
    """An upload that is cut off may have reached the device."""
    house.write("a", "upload: print half way", "upload: sleep inf")
    async with victim(house, "upload:a.yaml"):
        await until(house.runs)

    async with house.started() as tenant:
        (job,) = all_jobs(tenant)
        assert (job.status, job.cause) == (JobStatus.INTERRUPTED, Cause.CRASHED)
        assert (job.kind, job.attempt) == (JobKind.UPLOAD, 1)
        assert not living(job.job_id)
        await asyncio.sleep(0.3)

    assert len(house.runs()) == 1


async def test_what_waits_is_not_lost(house: House) -> None:
    """What waited behind the one that was cut off runs after the restart, in order."""
    house.write("a", "clean: wait go")
    house.write("b")
    async with victim(house, "clean:a.yaml", "compile:b.yaml", "validate:a.yaml"):
        await until(house.runs)

    async with house.started() as tenant:
        clean, build, check = all_jobs(tenant)
        assert (clean.status, clean.cause) == (JobStatus.INTERRUPTED, Cause.CRASHED)
        build, check = await tenant.ended(build, check)

    assert (build.status, build.attempt) == (JobStatus.COMPLETED, 1)
    assert (check.status, check.attempt) == (JobStatus.COMPLETED, 1)


async def test_killed_before_anything_ran(house: House) -> None:
    """A job is on disk when the one who asked has the answer."""
    house.write("a")
    async with victim(house, "compile:a.yaml"):
        pass
    assert [job.configuration for job in on_disk(house)] == ["a.yaml"]
    # What it had started by then ends by itself.
    await until(lambda: not living(folder=house.config_dir.parent))


async def test_stopped_in_order(house: House) -> None:
    """A stop of Home Assistant counts as an attempt, too, and there are two."""
    house.write("a", "mark tries", "print go", "sleep inf")
    for attempt in (1, 2):
        async with house.started() as tenant:
            if attempt == 1:
                await tenant.submit("install", "a.yaml")
            await until_tried(house, attempt)
            build, upload = all_jobs(tenant)
            assert (build.status, build.attempt) == (_R, attempt)
            assert upload.status is _Q

    async with house.started() as tenant:
        build, upload = all_jobs(tenant)
        assert (build.status, build.cause) == (
            JobStatus.INTERRUPTED,
            Cause.HOME_ASSISTANT_STOPPED,
        )
        # Its upload would flash something that was never compiled.
        assert (upload.status, upload.cause) == (
            JobStatus.CANCELLED,
            Cause.PREREQUISITE_FAILED,
        )
        await asyncio.sleep(0.2)

    assert len(house.marks("tries")) == 2
    assert len(house.runs()) == 2


async def test_old_ends_are_not_told_again(house: House) -> None:
    """A restart tells what it ended itself, and nothing of what had ended before."""
    house.write("a", "upload: print go", "upload: sleep inf")
    async with house.started() as tenant:
        await tenant.run("compile", "a.yaml")
        (upload,) = await tenant.submit("upload", "a.yaml")
        await tenant.running(upload)
    async with house.started() as tenant:
        assert not [event for event in tenant.events if isinstance(event, JobEvent)]
        assert len(tenant.builder.jobs) == 2


async def test_log_goes_on(house: House) -> None:
    """Both attempts are in one log, whose numbers go on."""
    house.write("a", "lines 1000", "wait go")
    async with house.started() as tenant:
        (job,) = await tenant.submit("compile", "a.yaml")
        await tenant.running(job)
    assert tenant.job(job).total_lines == 1000
    house.touch("go")

    async with house.started() as tenant:
        (job,) = await tenant.ended(job)
        lines = await tenant.lines(job)

    output = [f"line {number}" for number in range(1000)]
    assert lines == [
        *output,
        "[Home Assistant was restarted; this is the 2nd attempt]",
        *output,
    ]
    assert (job.total_lines, job.elided_lines) == (2001, 0)


@pytest.mark.parametrize("damage", [b"", b'{"version": 1, "jobs": [', b"\0" * 100])
async def test_damaged_file(
    house: House, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged list of jobs is set aside and named, and the builder starts."""
    house.write("a")
    async with house.started() as tenant:
        await tenant.run("compile", "a.yaml")
    path = house.settings.cache_dir / "jobs.json"
    path.write_bytes(damage)

    async with house.started() as tenant:
        assert not tenant.builder.jobs
        job = await tenant.run("compile", "a.yaml")

    (aside,) = path.parent.glob("jobs.json.damaged-*")
    assert aside.read_bytes() == damage
    assert aside.name in caplog.text
    assert on_disk(house) == [job]


async def test_damaged_logs(house: House) -> None:
    """A log that is damaged or gone is no reason not to start."""
    house.write("a", "lines 100")
    async with house.started() as tenant:
        first = await tenant.run("compile", "a.yaml")
        second = await tenant.run("compile", "a.yaml")
    logs = house.settings.cache_dir / "logs"
    (segment,) = (logs / first.job_id).iterdir()
    segment.write_bytes(segment.read_bytes()[:50])
    (segment,) = (logs / second.job_id).iterdir()
    segment.unlink()

    async with house.started() as tenant:
        log = await tenant.builder.open_log(first.job_id)
        assert log.total == 100
        assert log.elided > 80
        log = await tenant.builder.open_log(second.job_id)
        assert (log.total, log.elided) == (100, 100)


async def test_ids_go_on(house: House) -> None:
    """A job that is made after a restart is newer than all before."""
    house.write("a")
    ids = []
    for _ in range(3):
        async with house.started() as tenant:
            ids.append((await tenant.run("validate", "a.yaml")).job_id)

    assert ids == sorted(set(ids))
