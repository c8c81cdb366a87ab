"""The local builder with real processes: from a request to the end of its jobs."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from itertools import pairwise
import logging
import os
from pathlib import Path
import shutil
import time
from typing import Any

import pytest

from custom_components.esphome_builds.builds import (
    logs as logs_module,
    queue as queue_module,
    store as store_module,
)
from custom_components.esphome_builds.builds.builder import (
    MAX_CONFIGURATIONS,
    Builder,
    BuilderUnavailableError,
    BuildRequest,
    InvalidRequestError,
    UnknownConfigurationError,
    UnknownJobError,
)
from custom_components.esphome_builds.builds.follow import follow
from custom_components.esphome_builds.builds.local import (
    environment as environment_module,
    watch as watch_module,
)
from custom_components.esphome_builds.builds.local.builder import LocalBuilder
from custom_components.esphome_builds.builds.local.process import Limits
from custom_components.esphome_builds.builds.local.settings import DEFAULT_LIMITS
from custom_components.esphome_builds.builds.models import (
    BuilderEvent,
    BuilderState,
    Cause,
    ConfigurationEvent,
    ConfigurationRemovedEvent,
    EndEvent,
    Event,
    JobEvent,
    JobKind,
    JobRemovedEvent,
    JobStatus,
    OutputEvent,
    Phase,
    Requester,
    RequestKind,
)
from custom_components.esphome_builds.builds.store import load_jobs
from custom_components.esphome_builds.builds.stream import STREAM_EVENTS, Budget

from ...fakes import FAKE_VERSION, fake_calls, fake_version
from ..tenant import Tenant as AnyTenant
from .conftest import living
from .harness import House, Tenant

_Q, _R = JobStatus.QUEUED, JobStatus.RUNNING


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return folders and a fake for a builder."""
    return House(tmp_path)


@pytest.fixture
async def tenant(house: House) -> AsyncGenerator[Tenant]:
    """Return a builder that takes jobs."""
    async with house.started() as tenant:
        yield tenant


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the folder and the executable many times a second."""
    monkeypatch.setattr(watch_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch_module, "_RETRY_SECONDS", 0.1)


def counts(tenant: Tenant) -> tuple[int, int]:
    """Return how many jobs run and wait, as the builder tells."""
    return tenant.builder.info.running, tenant.builder.info.queued


def count_in(words: list[list[str]], command: str) -> int:
    """Return how often a command was called."""
    return sum(command in call for call in words)


class TestJobs:
    """One job, from its request to its end."""

    @pytest.mark.parametrize(
        ("kind", "arguments"),
        [
            ("validate", ["config", "a.yaml"]),
            ("compile", ["compile", "a.yaml"]),
            ("upload", ["upload", "a.yaml", "--device", "OTA"]),
            ("clean", ["clean", "a.yaml"]),
        ],
    )
    async def test_each_kind(
        self, house: House, tenant: Tenant, kind: str, arguments: list[str]
    ) -> None:
        """Each kind of job is one call of ESPHome."""
        house.write("a")

        job = await tenant.run(kind, "a.yaml")

        assert (job.kind, job.status) == (JobKind(kind), JobStatus.COMPLETED)
        assert (job.exit_code, job.cause, job.message) == (0, None, None)
        assert (job.phase, job.progress, job.attempt) == (None, 100, 1)
        assert job.esphome_version == FAKE_VERSION
        assert job.started_at is not None
        assert job.finished_at is not None
        assert job.created_at <= job.started_at <= job.finished_at
        assert job.duration is not None
        assert job.duration > 0
        assert house.runs() == [["--dashboard", *arguments]]
        assert tenant.statuses(job) == [_Q, _R, JobStatus.COMPLETED]
        lines = await tenant.lines(job)
        assert job.total_lines == len(lines) > 0
        assert job.elided_lines == 0

    async def test_install(self, house: House, tenant: Tenant) -> None:
        """An install compiles, then uploads to the address that was named."""
        house.write("a")

        build, upload = await tenant.submit("install", "a.yaml", address="10.0.0.7")
        assert upload.depends_on == build.job_id
        assert upload.phase is Phase.WAITING
        build, upload = await tenant.ended(build, upload)

        assert (build.status, upload.status) == (JobStatus.COMPLETED,) * 2
        assert (build.address, upload.address) == (None, "10.0.0.7")
        assert house.runs() == [
            ["--dashboard", "compile", "a.yaml"],
            ["--dashboard", "upload", "a.yaml", "--device", "10.0.0.7"],
        ]
        assert build.finished_at is not None
        assert upload.started_at is not None
        assert build.finished_at <= upload.started_at

    async def test_requester(self, house: House, tenant: Tenant) -> None:
        """Who asked stands in the job."""
        house.write("a")
        requester = Requester(user_id="me", context_id="here")
        submission = await tenant.builder.submit(
            BuildRequest(
                kind=RequestKind.VALIDATE,
                configurations=("a.yaml",),
                requested_by=requester,
            )
        )

        (job,) = await tenant.ended(*submission.jobs)

        assert job.requested_by == requester
        assert job.entry_id == "entry"

    async def test_progress_and_phases(self, house: House, tenant: Tenant) -> None:
        """How far a job is, is told while it runs."""
        house.write("a", "compile 50", "sleep 0.4", "print done")

        job = await tenant.run("compile", "a.yaml")

        assert Phase.COMPILING in tenant.phases(job) or (
            Phase.LINKING in tenant.phases(job)
        )
        told = [state.progress for state in tenant.history(job) if state.progress]
        assert told == sorted(told)
        assert told[-1] == 100

    async def test_progress_of_an_upload(self, house: House, tenant: Tenant) -> None:
        """A progress bar that is drawn over itself is told, too."""
        steps = [
            step
            for percent in (10, 40, 80)
            for step in (
                f"write '\\rUploading: [====    ] {percent}% '",
                "sleep 0.3",
            )
        ]
        house.write("a", *steps, "write 'Done\\r\\n'")

        job = await tenant.run("upload", "a.yaml")

        told = [state.progress for state in tenant.history(job) if state.progress]
        assert told == [10, 40, 80, 100]

    async def test_four_reports_a_second(self, house: House, tenant: Tenant) -> None:
        """However much a job prints, its changes come at most four times a second."""
        house.write("a", *["lines 100", "sleep 0.03"] * 40)

        job = await tenant.run("compile", "a.yaml")

        assert job.started_at is not None
        seconds = (job.duration or 0) + 0.25
        told = [state for state in tenant.history(job) if state.status is _R]
        # The first two tell the start, before and after the process is there.
        assert 4 <= len(told) <= 4 * seconds + 2

    async def test_failure(self, house: House, tenant: Tenant) -> None:
        """A job that fails says why, and what its exit status was."""
        house.write("a", "print ERROR something is wrong", "exit 3")

        job = await tenant.run("compile", "a.yaml")

        assert (job.status, job.exit_code) == (JobStatus.FAILED, 3)
        assert job.cause is not None
        assert job.message
        assert job.progress is None
        assert await tenant.lines(job) == ["ERROR something is wrong"]

    async def test_crash(self, house: House, tenant: Tenant) -> None:
        """A process that a signal ends has failed."""
        house.write("a", "signal SEGV")

        job = await tenant.run("compile", "a.yaml")

        assert (job.status, job.exit_code) == (JobStatus.FAILED, -11)
        assert job.cause is Cause.CRASHED

    async def test_no_output(self, house: House, tenant: Tenant) -> None:
        """A job that prints nothing has an empty log."""
        house.write("a", "exit 0")

        job = await tenant.run("compile", "a.yaml")

        assert (job.status, job.total_lines) == (JobStatus.COMPLETED, 0)
        assert await tenant.lines(job) == []

    @pytest.mark.parametrize(
        ("limits", "script", "words"),
        [
            (Limits(total=0.6), ["redraws inf"], "took longer than 0.6 seconds"),
            (Limits(idle=0.6), ["print hi", "sleep inf"], "no output for 0.6 seconds"),
        ],
    )
    async def test_time_limits(
        self, house: House, limits: Limits, script: list[str], words: str
    ) -> None:
        """A job that takes too long, or says nothing for too long, has failed."""
        house.write("a", *script)
        settings = replace(
            house.settings, limits={**DEFAULT_LIMITS, JobKind.COMPILE: limits}
        )
        async with house.started(settings) as tenant:
            job = await tenant.run("compile", "a.yaml")

        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.TIMED_OUT)
        assert words in (job.message or "")
        assert not living(job.job_id)

    def test_default_limits(self) -> None:
        """Every kind of job has a limit."""
        assert set(DEFAULT_LIMITS) == set(JobKind)
        assert all(limits.total for limits in DEFAULT_LIMITS.values())

    async def test_environment(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A build runs in the folder and sees what it needs, and no token of ours."""
        for name in ("SUPERVISOR_TOKEN", "HASSIO_TOKEN", "DB_PASSWORD", "WHATEVER"):
            monkeypatch.setenv(name, "very-secret")
        house.write("a", "environment")
        async with house.started() as tenant:
            job = await tenant.run("compile", "a.yaml")
            lines = await tenant.lines(job)

        variables = dict(line.split("=", 1) for line in lines)
        assert "very-secret" not in "\n".join(lines)
        # The shell that starts the fake tells the folder.
        assert variables["PWD"] == str(house.config_dir)
        assert variables["ESPHOME_DATA_DIR"] == str(house.settings.data_dir)
        assert variables["ESPHOME_BUILDS_JOB"] == job.job_id

    async def test_secrets(self, house: House) -> None:
        """Values of secrets.yaml, and what ESPHome conceals, are in no log or event."""
        (house.config_dir / "secrets.yaml").write_text("wifi: hunter2000\n")
        house.write(
            "a",
            "print the password is hunter2000!",
            "concealed swordfish99",
            "write 'and hunter'",
            "sleep 0.1",
            "write '2000 again\\n'",
            "print ERROR hunter2000 is wrong",
            "exit 2",
        )

        async with house.started() as tenant:
            job = await tenant.run("compile", "a.yaml")
            lines = await tenant.lines(job)

        assert len(lines) == 4
        events = b"".join(event.json for event in tenant.events).decode()
        files = "".join(
            path.read_text() for path in house.settings.cache_dir.rglob("*.*")
        )
        for text in ("\n".join(lines), events, files):
            assert "hunter2000" not in text
            assert "swordfish99" not in text

    async def test_log_is_on_disk_while_the_job_runs(
        self, house: House, tenant: Tenant
    ) -> None:
        """A crash of Home Assistant takes no more than a second of a log."""
        house.write("a", "lines 2000", "wait go")
        (job,) = await tenant.submit("compile", "a.yaml")
        await tenant.running(job)
        await asyncio.sleep(1)

        folder = house.settings.cache_dir / "logs" / job.job_id
        text = "".join(path.read_text() for path in sorted(folder.iterdir()))
        assert text.splitlines() == [f"line {number}" for number in range(2000)]
        house.touch("go")
        await tenant.ended(job)

    async def test_flood(self, house: House, tenant: Tenant) -> None:
        """A build that prints without end is kept within bounds, its numbers true."""
        house.write("a", f"flood {80 * 1024**2}", "print", "print the end", "exit 1")

        job = await tenant.run("compile", "a.yaml")

        assert job.status is JobStatus.FAILED
        log = await tenant.builder.open_log(job.job_id)
        assert job.total_lines == log.total > 500_000
        assert 0 < job.elided_lines == log.elided < job.total_lines
        page = await log.page(job.total_lines - 1, 10, 10_000)
        assert page.lines == ("the end",)
        folder = house.settings.cache_dir / "logs" / job.job_id
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 32 * 1024**2


class TestRequests:
    """What can be asked for, and what cannot."""

    async def test_bad_name_among_many(self, house: House, tenant: Tenant) -> None:
        """All names are checked before any job is made."""
        names = [house.write(f"c{number}") for number in range(199)]

        with pytest.raises(UnknownConfigurationError) as err:
            await tenant.submit("compile", *names, "none.yaml")

        assert err.value.configuration == "none.yaml"
        assert not tenant.builder.jobs
        assert not [event for event in tenant.events if isinstance(event, JobEvent)]

    @pytest.mark.parametrize(
        "name",
        [
            "../outside.yaml",
            "sub/a.yaml",
            "/etc/passwd",
            "a.yaml\0",
            "a.yaml\n",
            "-a.yaml",
            "--help",
            ".hidden.yaml",
            "secrets.yaml",
            "link.yaml",
            "folder.yaml",
            "a",
            "",
            "a.txt",
            "A.YAML",
        ],
    )
    async def test_names(self, house: House, tenant: Tenant, name: str) -> None:
        """Only a configuration of this folder has a name that is taken."""
        house.write("a")
        house.write("-a")
        house.write(".hidden")
        (house.config_dir / "secrets.yaml").write_text("a: b\n")
        (house.config_dir / "folder.yaml").mkdir()
        outside = house.config_dir.parent / "outside.yaml"
        outside.write_text("esphome:\n  name: x\n")
        (house.config_dir / "link.yaml").symlink_to(outside)
        for kind in RequestKind:
            with pytest.raises(UnknownConfigurationError):
                await tenant.submit(kind, name)
        assert not tenant.builder.jobs

    @pytest.mark.parametrize("count", [0, MAX_CONFIGURATIONS + 1])
    async def test_how_many(self, tenant: Tenant, count: int) -> None:
        """A request names between one and 200 configurations."""
        with pytest.raises(InvalidRequestError):
            await tenant.submit("compile", *["a.yaml"] * count)

    @pytest.mark.parametrize(
        "address",
        [
            "kitchen.local",
            "192.168.1.2",
            "fe80::1%eth0",
            "a_b-c",
            "10.0.0.1:6053",
            "OTA",
            "x" * 253,
        ],
    )
    async def test_addresses(self, house: House, tenant: Tenant, address: str) -> None:
        """A host name or an address goes to ESPHome as it is."""
        house.write("a")

        job = await tenant.run("upload", "a.yaml", address=address)

        assert job.address == address
        assert house.runs()[-1][-2:] == ["--device", address]

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "-1",
            "--help",
            "/dev/ttyUSB0",
            "a b",
            "a\n",
            "a;b",
            "$(id)",
            "a'b",
            "ä.local",
            "a\0",
            "x" * 254,
        ],
    )
    async def test_no_addresses(
        self, house: House, tenant: Tenant, address: str
    ) -> None:
        """What is neither could be taken for something else, and is refused."""
        house.write("a")
        for kind in ("upload", "install"):
            with pytest.raises(InvalidRequestError):
                await tenant.submit(kind, "a.yaml", address=address)
        assert not tenant.builder.jobs

    @pytest.mark.parametrize("kind", ["validate", "compile", "clean"])
    async def test_address_for_nothing(
        self, house: House, tenant: Tenant, kind: str
    ) -> None:
        """Only what is sent somewhere has an address."""
        house.write("a")
        with pytest.raises(InvalidRequestError):
            await tenant.submit(kind, "a.yaml", address="10.0.0.1")

    async def test_new_file(self, house: House, tenant: Tenant) -> None:
        """A file that was written a moment ago can be built at once."""
        house.write("new")

        assert (await tenant.run("validate", "new.yaml")).status == "completed"

    async def test_folder_that_cannot_be_read(
        self, house: House, tenant: Tenant
    ) -> None:
        """Without its folder a builder takes nothing, and says so."""
        shutil.rmtree(house.config_dir)
        with pytest.raises(BuilderUnavailableError, match="cannot be read"):
            await tenant.submit("compile", "a.yaml")
        house.config_dir.mkdir()

    async def test_attach(self, house: House, tenant: Tenant) -> None:
        """The same request again is the same job, queued or running."""
        house.write("a", "wait go")
        jobs = await tenant.submit("install", "a.yaml")
        await tenant.until(lambda: tenant.job(jobs[0]).status is _R)

        submission = await tenant.builder.submit(
            BuildRequest(kind=RequestKind.INSTALL, configurations=("a.yaml",))
        )

        assert [job.job_id for job in submission.jobs] == [job.job_id for job in jobs]
        assert submission.attached == tuple(job.job_id for job in jobs)
        assert submission.jobs[0] == tenant.job(jobs[0])
        house.touch("go")
        await tenant.ended(*jobs)
        assert len(house.runs()) == 2

    async def test_changed_file_is_not_attached(
        self, house: House, tenant: Tenant
    ) -> None:
        """What compiles an older file is not what is asked for now."""
        house.write("a", "compile: mark old", "wait go")
        old = await tenant.submit("install", "a.yaml")
        await tenant.until(lambda: house.marks("old") != [])
        house.write("a", "compile: mark new", "print different")

        new = await tenant.submit("install", "a.yaml")

        assert {job.job_id for job in old}.isdisjoint(job.job_id for job in new)
        again = await tenant.submit("install", "a.yaml")
        assert [job.job_id for job in again] == [job.job_id for job in new]
        house.touch("go")
        jobs = await tenant.ended(*old, *new)
        assert [job.status for job in jobs] == [JobStatus.COMPLETED] * 4
        assert [call[1] for call in house.runs()] == ["compile", "upload"] * 2
        assert len(house.marks("old")) == len(house.marks("new")) == 1

    @pytest.mark.parametrize("what", ["time", "size", "file"])
    async def test_any_change_counts(
        self, house: House, tenant: Tenant, what: str
    ) -> None:
        """A file is another one by its time, its size, or when it was replaced."""
        house.write("a", "print go", "wait go")
        (old,) = await tenant.submit("compile", "a.yaml")
        await tenant.running(old)
        path = house.config_dir / "a.yaml"
        status = path.stat()
        if what == "file":
            path.rename(path.with_name("before"))
            shutil.copy2(path.with_name("before"), path)
        elif what == "size":
            path.write_text(path.read_text() + "#\n")
        if what == "time":
            os.utime(path)
        else:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

        (new,) = await tenant.submit("compile", "a.yaml")

        assert new.job_id != old.job_id
        house.touch("go")
        await tenant.ended(old, new)

    async def test_replace_what_runs(self, house: House, tenant: Tenant) -> None:
        """Replacing ends what is in the way, as superseded, and starts anew."""
        house.write("a", "compile: mark started", "compile: print go", "wait go")
        old = await tenant.submit("install", "a.yaml")
        await tenant.running(old[0])

        new = await tenant.submit("install", "a.yaml", replace=True)

        for job in await tenant.ended(*old):
            assert (job.status, job.cause) == (
                JobStatus.CANCELLED,
                Cause.SUPERSEDED,
            )
            assert job.message
        house.touch("go")
        assert [job.status for job in await tenant.ended(*new)] == (
            [JobStatus.COMPLETED] * 2
        )
        assert count_in(house.runs(), "upload") == 1

    async def test_replace_what_waits(self, house: House, tenant: Tenant) -> None:
        """The same for what has not begun, the upload before its compile."""
        house.write("first", "wait go")
        house.write("a")
        (first,) = await tenant.submit("compile", "first.yaml")
        old = await tenant.submit("install", "a.yaml")

        new = await tenant.submit("install", "a.yaml", replace=True)

        assert [
            (job.status, job.cause) for job in (tenant.job(job) for job in old)
        ] == [(JobStatus.CANCELLED, Cause.SUPERSEDED)] * 2
        house.touch("go")
        await tenant.ended(first, *new)

    async def test_two_requests_at_once(self, house: House, tenant: Tenant) -> None:
        """Two who ask at the same moment get the same job."""
        house.write("a")

        (first,), (second,) = await asyncio.gather(
            tenant.submit("compile", "a.yaml"), tenant.submit("compile", "a.yaml")
        )

        assert first.job_id == second.job_id
        await tenant.ended(first)
        assert len(house.runs()) == 1

    async def test_lanes(self, house: House, tenant: Tenant) -> None:
        """A quick check and an upload do not wait for a compile."""
        for name in ("a", "b", "c"):
            house.write(name, "compile: wait go")
        build, waiting = await tenant.submit("compile", "a.yaml", "b.yaml")
        check, upload = [
            (await tenant.submit(kind, "c.yaml"))[0] for kind in ("validate", "upload")
        ]

        await tenant.ended(check, upload)

        assert tenant.job(build).status is _R
        assert tenant.job(waiting).status is _Q
        await tenant.until(lambda: counts(tenant) == (1, 1))
        house.touch("go")
        await tenant.ended(build, waiting)
        await tenant.until(lambda: counts(tenant) == (0, 0))

    async def test_failed_compile_is_not_flashed(
        self, house: House, tenant: Tenant
    ) -> None:
        """An upload whose compile fails never starts, and says why."""
        house.write("a", "compile: exit 1")

        upload = await tenant.run("install", "a.yaml")

        assert (upload.status, upload.cause) == (
            JobStatus.CANCELLED,
            Cause.PREREQUISITE_FAILED,
        )
        assert upload.message
        assert upload.exit_code is None
        assert count_in(house.runs(), "upload") == 0

    async def test_too_many(
        self, house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More jobs than can wait are refused."""
        monkeypatch.setattr(queue_module, "MAX_ACTIVE", 1)
        house.write("a")
        with pytest.raises(BuilderUnavailableError, match="Too many"):
            await tenant.submit("compile", "a.yaml")
        assert not tenant.builder.jobs


class TestCancel:
    """Ending jobs from outside."""

    async def test_queued(self, house: House, tenant: Tenant) -> None:
        """A job that waits is canceled at once, and never starts."""
        house.write("a", "wait go")
        house.write("b")
        first, second = await tenant.submit("compile", "a.yaml", "b.yaml")

        job = await tenant.builder.cancel(second.job_id)

        assert (job.status, job.cause) == (
            JobStatus.CANCELLED,
            Cause.CANCELLED_BY_USER,
        )
        assert job.finished_at is not None
        assert job.message
        assert tenant.builder.jobs[job.job_id] is job
        house.touch("go")
        await tenant.ended(first)
        await asyncio.sleep(0.1)
        assert len(house.runs()) == 1

    async def test_running(self, house: House, tenant: Tenant) -> None:
        """A job that runs is canceled when its processes are gone."""
        house.write("a", "spawn session", "print go", "sleep inf")
        (job,) = await tenant.submit("compile", "a.yaml")
        await tenant.running(job)

        job = await tenant.builder.cancel(job.job_id)

        assert (job.status, job.cause) == (
            JobStatus.CANCELLED,
            Cause.CANCELLED_BY_USER,
        )
        assert job.exit_code == -15
        assert not living(job.job_id)
        assert await tenant.lines(job) == ["go"]
        assert tenant.statuses(job) == [_Q, _R, JobStatus.CANCELLED]

    @pytest.mark.usefixtures("short_grace")
    async def test_stubborn(self, house: House, tenant: Tenant) -> None:
        """Also one whose descendants do not want to go."""
        house.write(
            "a",
            "ignore",
            "spawn ignore",
            "spawn orphan session ignore",
            "print go",
            "sleep inf",
        )
        (job,) = await tenant.submit("compile", "a.yaml")
        await tenant.running(job)

        job = await tenant.builder.cancel(job.job_id)

        assert job.status is JobStatus.CANCELLED
        assert not living(job.job_id)

    @pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
    async def test_while_it_starts(
        self, house: House, tenant: Tenant, turns: int
    ) -> None:
        """There is no moment at which a job cannot be canceled."""
        house.write("a", "sleep inf")
        (job,) = await tenant.submit("compile", "a.yaml")
        for _ in range(turns):
            await asyncio.sleep(0)

        job = await tenant.builder.cancel(job.job_id)

        assert job.status is JobStatus.CANCELLED

    async def test_install(self, house: House, tenant: Tenant) -> None:
        """Canceling a compile ends the upload that waits for it."""
        house.write("a", "print go", "sleep inf")
        build, upload = await tenant.submit("install", "a.yaml")
        await tenant.running(build)

        await tenant.builder.cancel(build.job_id)

        job = tenant.job(upload)
        assert (job.status, job.cause) == (
            JobStatus.CANCELLED,
            Cause.PREREQUISITE_FAILED,
        )

    async def test_twice(self, house: House, tenant: Tenant) -> None:
        """Two who cancel both get the end, and the first cause is the one."""
        house.write("a", "print go", "sleep inf")
        (job,) = await tenant.submit("compile", "a.yaml")
        await tenant.running(job)

        first, second = await asyncio.gather(
            tenant.builder.cancel(job.job_id, Cause.SUPERSEDED),
            tenant.builder.cancel(job.job_id),
        )

        assert first == second == tenant.job(job)
        assert first.cause is Cause.SUPERSEDED
        assert len([state for state in tenant.history(job) if state.status.ended]) == 1

    async def test_ended(self, house: House, tenant: Tenant) -> None:
        """Canceling what has ended changes nothing."""
        house.write("a")
        job = await tenant.run("compile", "a.yaml")
        told = len(tenant.events)

        assert await tenant.builder.cancel(job.job_id) is job
        assert len(tenant.events) == told

    async def test_unknown(self, tenant: Tenant) -> None:
        """There must be a job."""
        with pytest.raises(UnknownJobError):
            await tenant.builder.cancel("none")
        with pytest.raises(UnknownJobError):
            await tenant.builder.open_log("none")

    async def test_whoever_waits_may_go(self, house: House, tenant: Tenant) -> None:
        """A canceled command does not keep the job from its end."""
        house.write("a", "print go", "sleep inf")
        (job,) = await tenant.submit("compile", "a.yaml")
        await tenant.running(job)
        waiting = asyncio.create_task(tenant.builder.cancel(job.job_id))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

        (job,) = await tenant.ended(job)

        assert job.status is JobStatus.CANCELLED

    async def test_next_job_starts(self, house: House, tenant: Tenant) -> None:
        """A place that becomes free is taken."""
        house.write("a", "print go", "sleep inf")
        house.write("b")
        first, second = await tenant.submit("compile", "a.yaml", "b.yaml")
        await tenant.running(first)
        await tenant.builder.cancel(first.job_id)

        assert (await tenant.ended(second))[0].status is JobStatus.COMPLETED


class TestEvents:
    """What listeners are told."""

    async def test_once_and_in_order(self, house: House, tenant: Tenant) -> None:
        """Each change is told once, and the last one told is what is so."""
        names = [house.write(name, "compile 5") for name in ("a", "b", "c")]
        jobs = await tenant.submit("install", *names)
        await tenant.ended(*jobs)
        await tenant.until(lambda: tenant.builder.info.running == 0)

        for job in jobs:
            states = tenant.history(job)
            assert tenant.statuses(job) == [_Q, _R, JobStatus.COMPLETED]
            assert states[-1] == tenant.job(job)
            # No event without a change.
            assert all(before != after for before, after in pairwise(states))
            lines = [state.total_lines for state in states]
            assert lines == sorted(lines)
        configurations = {
            event.configuration.configuration: event.configuration
            for event in tenant.events
            if isinstance(event, ConfigurationEvent)
        }
        assert configurations == tenant.builder.configurations
        infos = [e.builder for e in tenant.events if isinstance(e, BuilderEvent)]
        assert infos[-1] == tenant.builder.info

    @pytest.mark.usefixtures("quick_looks")
    async def test_configurations(self, house: House, tenant: Tenant) -> None:
        """What appears in the folder, is built there, and goes, is told."""
        house.write("a")
        jobs = await tenant.submit("install", "a.yaml")
        assert tenant.builder.configurations["a.yaml"].active_job_id == jobs[0].job_id
        await tenant.ended(*jobs)
        await tenant.until(
            lambda: tenant.builder.configurations["a.yaml"].active_job_id is None
        )
        assert tenant.builder.configurations["a.yaml"].last_job_id == jobs[1].job_id

        (house.config_dir / "a.yaml").unlink()
        await tenant.until(lambda: not tenant.builder.configurations)
        assert (
            ConfigurationRemovedEvent(entry_id="entry", configuration="a.yaml")
            in tenant.events
        )

    async def test_listener_that_fails(
        self, house: House, tenant: Tenant, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What one listener does wrong concerns no other, and no job."""
        house.write("a")

        def _fail(_: Event) -> None:
            raise RuntimeError("mine")

        detach = tenant.builder.listen(_fail)
        last: list[Event] = []
        tenant.builder.listen(last.append)
        job = await tenant.run("compile", "a.yaml")
        detach()

        assert job.status is JobStatus.COMPLETED
        assert last[0] in tenant.events
        assert "A listener failed on job" in caplog.text

    async def test_listener_that_goes(self, house: House, tenant: Tenant) -> None:
        """A listener that detaches itself when it is told hears no more."""
        house.write("a")
        heard: list[Event] = []

        def _once(event: Event) -> None:
            heard.append(event)
            detach()

        detach = tenant.builder.listen(_once)
        behind: list[Event] = []
        tenant.builder.listen(behind.append)
        told = len(tenant.events)
        await tenant.run("compile", "a.yaml")

        assert len(heard) == 1
        # Whoever is behind it in the list misses nothing for that.
        assert behind == tenant.events[told:]

    async def test_many_at_once(self, house: House, tenant: Tenant) -> None:
        """200 installs fit into the queue of a subscriber, as do their cancels."""
        names = [house.write(f"c{number}") for number in range(MAX_CONFIGURATIONS)]
        house.write("first", "wait go")
        (first,) = await tenant.submit("compile", "first.yaml")

        told = len(tenant.events)
        jobs = await tenant.submit("install", *names)
        assert len(jobs) == 2 * MAX_CONFIGURATIONS
        assert len(tenant.events) - told < STREAM_EVENTS

        told = len(tenant.events)
        await asyncio.gather(*(tenant.builder.cancel(job.job_id) for job in jobs[::-1]))
        assert len(tenant.events) - told < STREAM_EVENTS
        assert {tenant.job(job).cause for job in jobs} == {Cause.CANCELLED_BY_USER}
        house.touch("go")
        await tenant.ended(first)

    async def test_follower(self, house: House, tenant: Tenant) -> None:
        """Who follows a job from when it waits gets every line, and the end."""
        house.write("a", "wait go")
        house.write("b", "lines 5000", "exit 4")
        first, job = await tenant.submit("compile", "a.yaml", "b.yaml")
        lines: list[str] = []
        ends: list[EndEvent] = []

        async def _follow() -> None:
            async for event in follow(tenant.builder, job.job_id, Budget()):
                if isinstance(event, OutputEvent):
                    lines.extend(event.lines)
                elif isinstance(event, EndEvent):
                    ends.append(event)

        following = asyncio.create_task(_follow())
        await asyncio.sleep(0.1)
        # Many other logs are looked at meanwhile.
        for other in [first] * 20:
            await tenant.builder.open_log(other.job_id)
        house.touch("go")
        await asyncio.wait_for(following, 10)

        assert lines == [f"line {number}" for number in range(5000)]
        assert [end.job.exit_code for end in ends] == [4]


class TestHistory:
    """What is kept of what was."""

    async def test_logs_go_with_their_jobs(
        self, house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A job that leaves the history takes its log with it, and is told."""
        monkeypatch.setattr(queue_module, "HISTORY", 2)
        house.write("a")
        jobs = [await tenant.run("validate", "a.yaml") for _ in range(4)]
        logs = house.settings.cache_dir / "logs"
        await tenant.until(lambda: len(tenant.builder.jobs) == 2)
        async with asyncio.timeout(5):
            while len([*logs.iterdir()]) > 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        gone = [job.job_id for job in jobs[:2]]
        assert [e.job_id for e in tenant.events if isinstance(e, JobRemovedEvent)] == (
            gone
        )
        assert sorted(path.name for path in logs.iterdir()) == (
            [job.job_id for job in jobs[2:]]
        )
        for job_id in gone:
            with pytest.raises(UnknownJobError):
                await tenant.builder.open_log(job_id)

    async def test_logs_of_jobs_that_end_meanwhile(
        self, house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What leaves the history while logs are deleted takes its log with it, too."""
        monkeypatch.setattr(queue_module, "HISTORY", 1)
        enforce = logs_module._enforce

        def _slowly(*arguments: Any) -> list[str]:  # noqa: ANN401 - passed on
            removed = enforce(*arguments)
            time.sleep(0.5)
            return removed

        monkeypatch.setattr(logs_module, "_enforce", _slowly)
        house.write("a", "print 1")
        for _ in range(3):
            last = await tenant.run("validate", "a.yaml")

        logs = house.settings.cache_dir / "logs"
        await tenant.until(
            lambda: [path.name for path in logs.iterdir()] == [last.job_id]
        )

    async def test_forgotten_jobs_do_not_come_back(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A job that leaves the history leaves the file, without another change."""
        house.write("a")
        async with house.started() as tenant:
            jobs = [await tenant.run("validate", "a.yaml") for _ in range(3)]
        stored = house.settings.cache_dir / "jobs.json"
        before = stored.stat().st_ino
        monkeypatch.setattr(queue_module, "HISTORY", 2)
        tenant = AnyTenant(LocalBuilder(house.settings))
        await tenant.builder.start()
        await tenant.until(lambda: stored.stat().st_ino != before)

        tenant.builder.resume()

        await tenant.until(lambda: len(load_jobs(stored)) == 2)
        assert [job.job_id for job in load_jobs(stored)] == (
            [job.job_id for job in jobs[1:]]
        )
        await tenant.builder.stop()

    async def test_too_large_logs(
        self, house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When all logs are too large the oldest goes, and its job says so."""
        monkeypatch.setattr(logs_module, "ALL_LOGS_BYTES", 30_000)
        house.write("a", "lines 1500")
        first = await tenant.run("validate", "a.yaml")
        second = await tenant.run("validate", "a.yaml")
        third = await tenant.run("validate", "a.yaml")

        await tenant.until(lambda: tenant.job(first).elided_lines == 1500)

        log = await tenant.builder.open_log(first.job_id)
        assert (log.total, log.elided) == (1500, 1500)
        assert len(await tenant.lines(third)) == 1500
        assert tenant.job(second).elided_lines == 0

    async def test_log_of_a_job_that_waits_is_empty(
        self, house: House, tenant: Tenant
    ) -> None:
        """A log can be read before there is one."""
        house.write("a", "wait go")
        house.write("b")
        first, second = await tenant.submit("compile", "a.yaml", "b.yaml")

        assert await tenant.lines(second) == []
        house.touch("go")
        await tenant.ended(first, second)
        assert len(await tenant.lines(second)) > 0


class TestStop:
    """Home Assistant stops, or the entry is unloaded."""

    @pytest.mark.usefixtures("short_grace")
    async def test_running(self, house: House) -> None:
        """What runs is interrupted, and nothing of it is left."""
        house.write("a", "ignore", "spawn session ignore", "print go", "sleep inf")
        house.write("b")
        async with house.started() as tenant:
            build, upload, waiting, _ = await tenant.submit(
                "install", "a.yaml", "b.yaml"
            )
            await tenant.running(build)

        job = tenant.job(build)
        assert (job.status, job.cause) == (
            JobStatus.INTERRUPTED,
            Cause.HOME_ASSISTANT_STOPPED,
        )
        assert job.message
        assert not living(job.job_id)
        # What waits, waits for the next start.
        assert tenant.job(upload).status is _Q
        assert tenant.job(waiting).status is _Q
        assert tenant.statuses(build) == [_Q, _R, JobStatus.INTERRUPTED]

    async def test_takes_nothing_more(self, house: House) -> None:
        """After its stop a builder refuses."""
        house.write("a")
        async with house.started() as tenant:
            pass
        with pytest.raises(BuilderUnavailableError):
            await tenant.submit("compile", "a.yaml")
        assert not house.runs()

    async def test_before_anything(self, house: House) -> None:
        """A builder that never began, or has just begun, can be stopped."""
        builder = LocalBuilder(house.settings)
        await builder.stop()
        builder = LocalBuilder(house.settings)
        await builder.start()
        await builder.stop()
        async with house.started(ready=False):
            pass

    async def test_who_waits_for_the_first_look(self, house: House) -> None:
        """A request that came too early is answered, not left waiting."""
        house.write("a")
        tenant = AnyTenant(LocalBuilder(house.settings))
        await tenant.builder.start()
        waiting = asyncio.create_task(tenant.submit("compile", "a.yaml"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await tenant.builder.stop()

        with pytest.raises(BuilderUnavailableError):
            await asyncio.wait_for(waiting, 5)

    async def test_while_the_version_is_asked(self, house: House) -> None:
        """An ESPHome that does not answer does not hold the stop up."""
        fake_version(house.fake, "print go", "sleep inf")
        started = time.monotonic()
        async with house.started(ready=False) as tenant:
            await asyncio.sleep(0.3)
            assert tenant.builder.info.state is BuilderState.CONNECTING

        assert time.monotonic() - started < 5

    async def test_stop_while_a_job_asks_for_the_version(self, house: House) -> None:
        """Nor does one that was put there a moment ago hold up the jobs that began."""
        house.write("a")
        async with house.started() as tenant:
            fake_version(house.fake, "sleep inf")
            os.utime(house.fake, (1, 1))
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.until(lambda: count_in(fake_calls(house.fake), "version") == 2)
            started = time.monotonic()

        assert time.monotonic() - started < 5
        assert tenant.job(job).status is JobStatus.INTERRUPTED

    async def test_stop_while_jobs_start(self, house: House) -> None:
        """A job that is about to start is interrupted as well."""
        house.write("a", "sleep inf")
        async with house.started() as tenant:
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.until(lambda: tenant.job(job).status is JobStatus.RUNNING)

        assert tenant.job(job).status is JobStatus.INTERRUPTED


class TestUnavailable:
    """What a builder stands on goes away, and comes back."""

    async def test_no_folder_at_the_start(self, house: House) -> None:
        """Without its folder a builder does not start."""
        house.config_dir.rmdir()
        with pytest.raises(BuilderUnavailableError, match=str(house.config_dir)):
            await LocalBuilder(house.settings).start()

    async def test_no_place_for_jobs(self, house: House) -> None:
        """Nor without a place for what it keeps."""
        house.settings.cache_dir.write_text("in the way")
        with pytest.raises(BuilderUnavailableError):
            await LocalBuilder(house.settings).start()

    @pytest.mark.usefixtures("quick_looks")
    async def test_folder(self, house: House, tenant: Tenant) -> None:
        """A folder that goes away makes the builder unavailable until it is back."""
        house.write("a")
        await tenant.until(lambda: "a.yaml" in tenant.builder.configurations)
        away = house.config_dir.with_name("away")
        house.config_dir.rename(away)
        await tenant.until(lambda: tenant.builder.info.state == "unavailable")
        assert str(house.config_dir) in (tenant.builder.info.message or "")
        with pytest.raises(BuilderUnavailableError, match=str(house.config_dir)):
            await tenant.submit("compile", "a.yaml")

        away.rename(house.config_dir)
        await tenant.until(lambda: tenant.builder.info.state == "ready")
        assert tenant.builder.info.message is None
        assert (await tenant.run("compile", "a.yaml")).status == "completed"

    @pytest.mark.usefixtures("quick_looks")
    async def test_executable(
        self, house: House, tenant: Tenant, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An ESPHome that goes away and comes back as it was is used again."""
        house.write("a")
        away = house.fake.with_name("away")
        house.fake.rename(away)
        await tenant.until(lambda: tenant.builder.info.state == "unavailable")
        assert str(house.fake) in (tenant.builder.info.message or "")
        with pytest.raises(BuilderUnavailableError):
            await tenant.submit("compile", "a.yaml")
        await asyncio.sleep(0.2)
        # It is told once, when it begins.
        ours = [r for r in caplog.records if "esphome_builds" in r.name]
        assert [record.levelno for record in ours] == [logging.WARNING]

        away.rename(house.fake)
        await tenant.until(lambda: tenant.builder.info.state == "ready")
        assert (await tenant.run("compile", "a.yaml")).status == "completed"

    @pytest.mark.usefixtures("quick_looks")
    async def test_executable_that_goes_while_it_is_looked_at(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that was found and is gone a moment later is missing."""
        gone = house.fake.with_name("gone")
        monkeypatch.setattr(watch_module, "find_esphome", lambda _: gone)
        async with house.started(ready=False) as tenant:
            await tenant.until(lambda: tenant.builder.info.state == "unavailable")
            assert str(gone) in (tenant.builder.info.message or "")

    @pytest.mark.usefixtures("quick_looks")
    async def test_new_version(self, house: House, tenant: Tenant) -> None:
        """Another ESPHome in the same place is asked for its version."""
        assert tenant.builder.info.esphome_version == FAKE_VERSION
        house.write("a")
        fake_version(house.fake, "print Version: 2027.1.0")
        os.utime(house.fake, (1, 1))

        await tenant.until(lambda: tenant.builder.info.esphome_version == "2027.1.0")

        assert (await tenant.run("compile", "a.yaml")).esphome_version == "2027.1.0"
        assert count_in(fake_calls(house.fake), "version") == 2

    async def test_new_version_a_moment_ago(self, house: House, tenant: Tenant) -> None:
        """A job is told apart from those of the version before, before any look."""
        house.write("a")
        fake_version(house.fake, "print Version: 2027.1.0")
        os.utime(house.fake, (1, 1))

        assert (await tenant.run("compile", "a.yaml")).esphome_version == "2027.1.0"
        await tenant.until(lambda: tenant.builder.info.esphome_version == "2027.1.0")

    async def test_no_esphome_since_a_moment(
        self, house: House, tenant: Tenant
    ) -> None:
        """What another program does with a configuration counts for nothing."""
        house.write("a")
        house.fake.write_text("#!/bin/sh\n")

        job = await tenant.run("compile", "a.yaml")

        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.ESPHOME_MISSING)
        assert str(house.fake) in (job.message or "")

    @pytest.mark.usefixtures("quick_looks")
    async def test_new_one_that_is_slow(self, house: House, tenant: Tenant) -> None:
        """Nothing starts with a version that nobody knows yet."""
        house.write("a")
        await tenant.until(lambda: "a.yaml" in tenant.builder.configurations)
        fake_version(
            house.fake, f"wait {house.config_dir / 'go'}", "print Version: 2027.1.0"
        )
        os.utime(house.fake, (1, 1))
        await tenant.until(lambda: tenant.builder.info.state == "connecting")
        assert tenant.builder.info.esphome_version is None
        (job,) = await tenant.submit("compile", "a.yaml")
        assert tenant.job(job).status is _Q
        house.touch("go")

        (job,) = await tenant.ended(job)
        assert (job.status, job.esphome_version) == ("completed", "2027.1.0")

    @pytest.mark.usefixtures("quick_looks")
    async def test_idle(self, house: House, tenant: Tenant) -> None:
        """An ESPHome that answered is not asked again and again, nor a file read."""
        house.write("a")
        await tenant.until(lambda: "a.yaml" in tenant.builder.configurations)
        told = len(tenant.events)
        await asyncio.sleep(0.5)

        assert count_in(fake_calls(house.fake), "version") == 1
        assert len(tenant.events) == told

    @pytest.mark.usefixtures("quick_looks")
    async def test_not_esphome(self, house: House) -> None:
        """What does not answer as ESPHome is asked again later."""
        fake_version(house.fake, "print garbage")
        async with house.started(ready=False) as tenant:
            assert tenant.builder.info.state is BuilderState.CONNECTING
            await tenant.until(lambda: tenant.builder.info.state == "unavailable")
            fake_version(house.fake)
            await tenant.until(lambda: tenant.builder.info.state == "ready")

    @pytest.mark.usefixtures("quick_looks")
    async def test_hanging(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        """What does not answer at all is given up, and the folder is known before."""
        monkeypatch.setattr(environment_module, "VERSION_SECONDS", 0.5)
        fake_version(house.fake, "sleep inf")
        house.write("a")
        async with house.started(ready=False) as tenant:
            await tenant.until(lambda: "a.yaml" in tenant.builder.configurations)
            assert tenant.builder.info.state is BuilderState.CONNECTING
            # What is asked for until then waits.
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.until(lambda: tenant.builder.info.state == "unavailable")
            assert tenant.job(job).status is _Q
            fake_version(house.fake)
            (job,) = await tenant.ended(job)
            assert job.status is JobStatus.COMPLETED

    async def test_executable_is_gone_when_a_job_starts(
        self, house: House, tenant: Tenant
    ) -> None:
        """A job that cannot start has failed, and says why."""
        house.write("b")

        def _on_event(event: object) -> None:
            job = getattr(event, "job", None)
            if job is not None and job.status is JobStatus.RUNNING:
                house.fake.unlink(missing_ok=True)

        tenant.builder.listen(_on_event)
        job = await tenant.run("compile", "b.yaml")

        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.ESPHOME_MISSING)
        assert str(house.fake) in (job.message or "")

    async def test_file_is_gone_when_a_job_starts(
        self, house: House, tenant: Tenant
    ) -> None:
        """The same for its file."""
        house.write("a", "wait go")
        house.write("b")
        first, second = await tenant.submit("compile", "a.yaml", "b.yaml")
        (house.config_dir / "b.yaml").unlink()
        house.touch("go")

        first, second = await tenant.ended(first, second)

        assert first.status is JobStatus.COMPLETED
        assert (second.status, second.cause) == (
            JobStatus.FAILED,
            Cause.INVALID_CONFIG,
        )
        assert "b.yaml" in (second.message or "")
        assert second.exit_code is None

    async def test_full_disk(self, house: House, tenant: Tenant) -> None:
        """A job whose start cannot be noted does not start."""
        house.write("a", "mark started")
        new = house.settings.cache_dir / "jobs.json.new"
        write = store_module.replace_file

        def _full(path: Path, data: bytes) -> None:
            new.symlink_to("/dev/full")
            write(path, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store_module, "replace_file", _full)
            job = await tenant.run("compile", "a.yaml")

        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.DISK_FULL)
        assert job.message
        assert house.marks("started") == []
        # With space again it is as before.
        assert (await tenant.run("compile", "a.yaml")).status == "completed"

    async def test_system_refuses(
        self, house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A job that the system does not start says what the system said."""
        house.write("a")

        def _refuse() -> tuple[int, int]:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe", _refuse)
            job = await tenant.run("compile", "a.yaml")

        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.UNKNOWN)
        assert "Too many open files" in (job.message or "")

    async def test_internal_error(
        self,
        house: House,
        tenant: Tenant,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """An error of ours ends the job, is logged, and stops nothing else."""
        house.write("a", "spawn session", "print go", "sleep inf")
        house.write("b")

        def _fail(*_: object) -> bool:
            raise RuntimeError("ours")

        with monkeypatch.context() as patch:
            patch.setattr(
                "custom_components.esphome_builds.builds.progress.Progress.feed", _fail
            )
            job = await tenant.run("compile", "a.yaml")

        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.UNKNOWN)
        assert "internal error" in (job.message or "")
        assert "RuntimeError: ours" in caplog.text
        assert not living(job.job_id)
        assert (await tenant.run("compile", "b.yaml")).status == "completed"


async def test_compiles_share_the_cores(house: House) -> None:
    """Side by side they start no more compilers together than one does alone."""
    cores = len(os.sched_getaffinity(0))
    limit = f"ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT={-(-cores // 2)}"
    for name in ("a", "b"):
        house.write(name, "environment")

    async with house.started(replace(house.settings, compile_slots=2)) as tenant:
        both = await tenant.ended(*await tenant.submit("compile", "a.yaml", "b.yaml"))
        alone = await tenant.run("compile", "a.yaml")
        other = await tenant.run("validate", "a.yaml")

        for job in both:
            assert limit in await tenant.lines(job)
        for job in (alone, other):
            assert not any("PROCESS_LIMIT" in line for line in await tenant.lines(job))


def test_is_a_builder(house: House) -> None:
    """A local builder is what those above it expect."""
    builder: Builder = LocalBuilder(house.settings)

    assert builder.info.state is BuilderState.CONNECTING
    assert not builder.jobs
    assert not builder.configurations
