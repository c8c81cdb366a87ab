"""The jobs on disk: whole or not at all, whatever happens."""

import asyncio
from dataclasses import replace
from datetime import timedelta
import os
from pathlib import Path
import stat
from typing import Any

import orjson
import pytest

from custom_components.esphome_builds.builds import store as store_module
from custom_components.esphome_builds.builds.models import (
    Cause,
    Job,
    JobKind,
    JobStatus,
    Phase,
    Requester,
)
from custom_components.esphome_builds.builds.queue import JobIds
from custom_components.esphome_builds.builds.store import JobStore, load, load_jobs

from .stand_in import NOW, make_job

_IDS = JobIds()


def stored_job(**changes: Any) -> Job:  # noqa: ANN401 - any field
    """Return a job with a real id."""
    return make_job(_IDS.next(NOW), **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the jobs are."""
    return tmp_path / "jobs.json"


async def save(path: Path, *jobs: Job) -> None:
    """Write jobs."""
    store = JobStore(path, lambda: jobs)
    store.changed()
    await store.flush()


def folder(path: Path) -> list[str]:
    """Return the names of all files beside the jobs."""
    return sorted(file.name for file in path.parent.iterdir())


async def test_round_trip(path: Path) -> None:
    """Every field comes back as it was."""
    full = stored_job(
        kind=JobKind.UPLOAD,
        status=JobStatus.FAILED,
        configuration="wohnzimmer-ä.yaml",
        created_at=NOW + timedelta(microseconds=1),
        started_at=NOW + timedelta(seconds=1),
        finished_at=NOW + timedelta(minutes=1),
        phase=Phase.UPLOADING,
        progress=40,
        exit_code=-9,
        cause=Cause.DEVICE_OFFLINE,
        message="The device does not answer.",
        depends_on="0" * 22,
        attempt=2,
        requested_by=Requester(user_id="user", context_id="context"),
        esphome_version="2026.10.0",
        total_lines=123,
        elided_lines=4,
        address="fe80::1%eth0",
        firmware_job_id="1" * 22,
    )
    empty = make_job()
    assert [
        name
        for name in Job.__dataclass_fields__
        if getattr(full, name) == getattr(empty, name)
    ] == ["entry_id"]
    others = [stored_job(kind=kind) for kind in JobKind]
    others += [stored_job(status=status) for status in JobStatus]
    others += [stored_job(requested_by=Requester())]

    await save(path, full, *others)

    assert load_jobs(path) == [full, *others]
    assert all(job.created_at.utcoffset() == timedelta() for job in load_jobs(path))


async def test_order(path: Path) -> None:
    """Jobs come back oldest first."""
    jobs = [stored_job() for _ in range(5)]
    await save(path, *reversed(jobs))

    assert load_jobs(path) == jobs


def test_no_file(path: Path) -> None:
    """Where there was nothing, there are no jobs, and no complaint."""
    assert load_jobs(path) == []
    assert folder(path) == []


def test_unreadable(path: Path) -> None:
    """What cannot be read is an error, and is not set aside."""
    path.mkdir()

    with pytest.raises(IsADirectoryError):
        load_jobs(path)
    assert folder(path) == ["jobs.json"]


def file_with(**changes: Any) -> bytes:  # noqa: ANN401 - any field
    """Return a file with one job, of which some fields are other than they must be."""
    job = orjson.loads(orjson.dumps(make_job("0" * 22)))
    return orjson.dumps({"version": 1, "jobs": [job | changes]})


_DAMAGED = {
    "empty": b"",
    "zeros": bytes(4096),
    "truncated": file_with()[:-20],
    "no JSON": b"jobs:\n  - none",
    "no UTF-8": b'{"version": 1, "jobs": ["\xff"]}',
    "list": b"[]",
    "null": b"null",
    "number": b"1",
    "text": b'"jobs"',
    "deep": b"[" * 100_000,
    "no version": b'{"jobs": []}',
    "newer": b'{"version": 2, "jobs": []}',
    "no jobs": b'{"version": 1}',
    "jobs are null": b'{"version": 1, "jobs": null}',
    "jobs are a number": b'{"version": 1, "jobs": 1}',
    "a job is null": b'{"version": 1, "jobs": [null]}',
    "a job is a list": b'{"version": 1, "jobs": [[]]}',
    "a job is empty": b'{"version": 1, "jobs": [{}]}',
    "a job is a text": b'{"version": 1, "jobs": ["abc"]}',
    "more": file_with(more=1),
    "kind": file_with(kind="bake"),
    "status": file_with(status="sleeping"),
    "cause": file_with(cause="fate"),
    "phase": file_with(phase="moon"),
    "time": file_with(created_at="yesterday"),
    "no time": file_with(created_at=None),
    "time is a number": file_with(started_at=1),
    "time out of range": file_with(finished_at="0001-01-01T00:00:00+14:00"),
    "requester": file_with(requested_by={"user_id": None, "password": "x"}),
    "requester is a text": file_with(requested_by="me"),
    "id is a path": file_with(job_id="../../../etc/passwd"),
    "id is short": file_with(job_id="1"),
    "id with a sign": file_with(job_id="-" + "0" * 21),
    "id with underscores": file_with(job_id="0_" * 11),
    "id is a number": file_with(job_id=1),
    "configuration": file_with(configuration=["a.yaml"]),
    "depends_on": file_with(depends_on=["1"]),
    "attempt": file_with(attempt="1"),
    "progress": file_with(progress="1%"),
    "total_lines": file_with(total_lines=None),
}


@pytest.mark.parametrize("data", _DAMAGED.values(), ids=_DAMAGED)
async def test_damaged(
    path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no list of jobs is set aside and named in the log."""
    path.write_bytes(data)

    assert load_jobs(path) == []

    (aside,) = folder(path)
    assert aside.startswith("jobs.json.damaged-")
    assert path.with_name(aside).read_bytes() == data
    assert aside in caplog.text
    assert str(path) in caplog.text
    jobs = [stored_job()]
    await save(path, *jobs)
    assert load_jobs(path) == jobs


def test_valid_is_not_damaged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The files above are damaged by what is other in them, and nothing else."""
    path.write_bytes(file_with())

    assert load_jobs(path) == [make_job("0" * 22)]
    assert not caplog.text


def test_same_job_twice(path: Path) -> None:
    """A job that is there twice is one job."""
    one = orjson.loads(file_with())["jobs"]
    path.write_bytes(orjson.dumps({"version": 1, "jobs": one * 2}))

    assert load_jobs(path) == [make_job("0" * 22)]


def test_only_three_damaged_files_are_kept(path: Path) -> None:
    """A disk that damages files again and again is not filled with them."""
    for number in range(5):
        path.write_text(f"damaged {number}")
        load_jobs(path)

    kept = folder(path)
    assert [path.with_name(name).read_text() for name in kept] == [
        f"damaged {number}" for number in (2, 3, 4)
    ]


async def test_written_file_is_on_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is forced to disk before it takes its place, and its place after."""
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def _fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("sync folder" if is_folder else "sync file")
        fsync(descriptor)

    def _replace(self: Path, target: Path) -> Path:
        done.append("replace")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", _fsync)
    monkeypatch.setattr(Path, "replace", _replace)

    await save(path, stored_job())

    assert done == ["sync file", "replace", "sync folder"]
    assert folder(path) == ["jobs.json"]


async def test_flush_without_changes(path: Path) -> None:
    """Nothing is written where nothing changed."""
    store = JobStore(path, list)
    await store.flush()

    assert folder(path) == []


async def test_changes_are_written_without_being_asked(path: Path) -> None:
    """A change is on disk soon."""
    store = JobStore(path, lambda: [make_job("0" * 22)])
    store.changed()
    await asyncio.sleep(0.5)

    assert load_jobs(path)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the jobs in each file that is written."""
    counts: list[int] = []
    write = store_module.replace_file

    def _write(path: Path, data: bytes) -> None:
        counts.append(len(orjson.loads(data)["jobs"]))
        write(path, data)

    monkeypatch.setattr(store_module, "replace_file", _write)
    return counts


async def test_many_changes_are_few_writes(path: Path, writes: list[int]) -> None:
    """However many changes come at once, they are written together."""
    jobs: list[Job] = []
    store = JobStore(path, lambda: jobs)
    for _ in range(100):
        jobs.append(stored_job())
        store.changed()
    await store.flush()
    assert writes == [100]

    for _ in range(100):
        jobs.append(stored_job())
        store.changed()
        await asyncio.sleep(0)
    await store.flush()

    assert writes[-1] == 200
    assert len(writes) < 50
    assert load_jobs(path) == jobs


async def test_what_follows_at_once_is_written_with_it(
    path: Path, writes: list[int]
) -> None:
    """The end of a job and what the history forgets for it need one write."""
    jobs: list[Job] = []
    store = JobStore(path, lambda: jobs)

    def _change() -> None:
        jobs.append(stored_job())
        store.changed()

    _change()
    asyncio.get_running_loop().call_soon(_change)
    await store.flush()

    assert writes == [2]


async def test_flush_waits_for_what_is_new(path: Path, writes: list[int]) -> None:
    """A change during a write is written by one more, for which a flush waits."""
    jobs = [stored_job()]
    store = JobStore(path, lambda: jobs)
    store.changed()
    async with asyncio.timeout(5):
        while not writes:  # noqa: ASYNC110
            await asyncio.sleep(0)
    jobs.append(stored_job())
    store.changed()
    await store.flush()

    assert writes == [1, 2]
    assert load_jobs(path) == jobs


async def test_cancelled_flush_does_not_stop_the_write(path: Path) -> None:
    """Who gives up waiting takes nothing with it."""
    store = JobStore(path, lambda: [make_job("0" * 22)])
    store.changed()
    waiting = asyncio.create_task(store.flush())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await store.flush()

    assert len(load_jobs(path)) == 1


async def test_full_disk(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk is told to who waits, leaves the old file, and is not for ever."""
    jobs = [stored_job()]
    store = JobStore(path, lambda: jobs)
    store.changed()
    await store.flush()
    jobs.append(stored_job())

    for _ in range(2):
        path.with_name("jobs.json.new").symlink_to("/dev/full")
        store.changed()
        with pytest.raises(OSError, match="No space left"):
            await store.flush()
        # Nothing half written is left, and what was written before is still there.
        assert folder(path) == ["jobs.json"]
        assert load_jobs(path) == jobs[:1]
    # One message for one trouble.
    assert caplog.text.count("No space left") == 1

    # The disk has space again: what could not be written is written.
    await store.flush()
    assert load_jobs(path) == jobs
    store.changed()
    await store.flush()
    path.with_name("jobs.json.new").symlink_to("/dev/full")
    store.changed()
    with pytest.raises(OSError, match="No space left"):
        await store.flush()
    assert caplog.text.count("No space left") == 2


async def test_retry(path: Path) -> None:
    """What could not be written is written when asked for, and only that."""
    jobs = [stored_job()]
    store = JobStore(path, lambda: jobs)
    store.retry()
    path.with_name("jobs.json.new").symlink_to("/dev/full")
    store.changed()
    with pytest.raises(OSError, match="No space left"):
        await store.flush()
    assert folder(path) == []

    store.retry()
    async with asyncio.timeout(5):
        while not path.exists():  # noqa: ASYNC110 - nothing tells when it does
            await asyncio.sleep(0.01)
    assert load_jobs(path) == jobs
    path.unlink()
    store.retry()
    await asyncio.sleep(0.1)
    assert folder(path) == []


async def test_folder_is_gone(path: Path) -> None:
    """That is an error like any other of the system's."""
    store = JobStore(path.parent / "gone" / "jobs.json", list)
    store.changed()
    with pytest.raises(FileNotFoundError):
        await store.flush()


async def test_jobs_may_change_while_they_are_written(path: Path) -> None:
    """What is written is what there was at one moment."""
    jobs = {number: stored_job() for number in range(500)}
    store = JobStore(path, jobs.values)
    for number in range(500):
        jobs[number] = replace(jobs[number], status=JobStatus.RUNNING)
        store.changed()
        if number % 50 == 0:
            await asyncio.sleep(0.001)
    await store.flush()

    assert load_jobs(path) == [*jobs.values()]


async def test_what_is_stored_beside_the_jobs(path: Path) -> None:
    """Whoever needs more than the jobs finds it with them."""
    store = JobStore(path, list, lambda: {"more": {"a": 1}})
    store.changed()
    await store.flush()
    assert load(path).extra == {"more": {"a": 1}}
    assert load(path.with_name("other.json")).extra == {}


async def test_file_of_an_older_version(path: Path) -> None:
    """A file from before there was anything beside the jobs is understood."""
    path.write_bytes(orjson.dumps({"version": 1, "jobs": []}))
    assert load(path).extra == {}
