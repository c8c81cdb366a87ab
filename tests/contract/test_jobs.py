"""Every kind of job on a real server, by us and by others."""

import asyncio
from contextlib import aclosing

import pytest

from custom_components.esphome_builds.builds.builder import UnknownConfigurationError
from custom_components.esphome_builds.builds.follow import follow
from custom_components.esphome_builds.builds.models import (
    Cause,
    EndEvent,
    FollowEvent,
    FollowSnapshotEvent,
    GapEvent,
    Job,
    JobKind,
    JobStatus,
    OutputEvent,
    Phase,
)
from custom_components.esphome_builds.builds.stream import Budget

from ..clients import eventually
from ..fakes import fake_calls, write_configuration
from .conftest import Connect, Tenant
from .peer import Peer, Watcher

_Q, _R, _C = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED


async def followed(tenant: Tenant, job: Job) -> list[FollowEvent]:
    """Return all that a follower is told."""
    events: list[FollowEvent] = []
    async with aclosing(follow(tenant.builder, job.job_id, Budget())) as told:
        events.extend([event async for event in told])
    return events


def lines_of(events: list[FollowEvent]) -> dict[int, str]:
    """Return the lines that were told, by number; each once and in order."""
    lines: dict[int, str] = {}
    expected = -1
    for event in events:
        if isinstance(event, GapEvent):
            assert event.from_line == expected
            expected = event.next_line
        elif isinstance(event, OutputEvent | FollowSnapshotEvent):
            assert event.from_line == (event.from_line if expected < 0 else expected)
            expected = event.from_line + len(event.lines)
            lines.update(enumerate(event.lines, event.from_line))
    end = events[-1]
    assert isinstance(end, EndEvent)
    assert end.next_line == expected
    return lines


class TestKinds:
    """One job, from its request to its end."""

    @pytest.mark.parametrize(
        ("kind", "arguments"),
        [
            ("validate", ["--dashboard", "config"]),
            ("compile", ["--dashboard", "compile"]),
            ("upload", ["--dashboard", "upload", "--device", "OTA"]),
            ("clean", ["--dashboard", "clean"]),
        ],
    )
    async def test_each_kind(
        self, peer: Peer, tenant: Tenant, kind: str, arguments: list[str]
    ) -> None:
        """Each kind of job is one call of ESPHome on the server."""
        name = write_configuration(peer.config_dir, f"kind-{kind}")

        job = await tenant.run(kind, name)

        assert (job.kind, job.status) == (JobKind(kind), _C)
        assert (job.exit_code, job.cause, job.message) == (0, None, None)
        assert (job.phase, job.progress, job.attempt) == (None, 100, 1)
        assert job.started_at
        assert job.finished_at
        assert tenant.statuses(job) == [_Q, _R, _C]
        lines = await tenant.lines(job)
        assert len(lines) == job.total_lines > 0
        (call,) = (it for it in fake_calls(peer.fake) if f"kind-{kind}" in " ".join(it))
        assert [word for word in call if not word.endswith(".yaml")] == arguments

    @pytest.mark.parametrize("address", [None, "127.0.0.1", "kitchen.local"])
    async def test_install(
        self, peer: Peer, tenant: Tenant, address: str | None
    ) -> None:
        """An install is a compile and an upload, each with its own output."""
        name = write_configuration(peer.config_dir, f"install-{address}")

        jobs = await tenant.submit("install", name, address=address)
        build, upload = await tenant.ended(*jobs)

        assert (build.kind, build.status) == (JobKind.COMPILE, _C)
        assert (upload.kind, upload.status) == (JobKind.UPLOAD, _C)
        assert upload.depends_on == build.job_id
        assert upload.address == address
        assert tenant.statuses(build) == tenant.statuses(upload) == [_Q, _R, _C]
        assert (await tenant.lines(build))[-1] == (
            "INFO Successfully compiled program."
        )
        assert (await tenant.lines(upload))[-1] == (
            "INFO Successfully uploaded program."
        )
        call = next(it for it in fake_calls(peer.fake, "upload") if name in it[-3])
        assert call[-2:] == ["--device", address or "OTA"]
        order = [event.job.job_id for event in tenant.steps() if event.job.status == _C]
        assert order == [build.job_id, upload.job_id]

    async def test_failure(self, peer: Peer, tenant: Tenant) -> None:
        """Our own diagnosis says why a build failed, and ends what waits for it."""
        name = write_configuration(
            peer.config_dir,
            "failure",
            "compile: print src/main.cpp:3:5: fatal error: x.h: No such file",
            "compile: print cc1plus: No space left on device",
            "compile: exit 2",
        )

        build, upload = await tenant.ended(*await tenant.submit("install", name))

        assert (build.status, build.exit_code) == (JobStatus.FAILED, 2)
        assert build.cause is Cause.DISK_FULL
        assert (upload.status, upload.cause) == (
            JobStatus.CANCELLED,
            Cause.PREREQUISITE_FAILED,
        )

    @pytest.mark.parametrize("kind", ["compile", "upload", "clean", "validate"])
    async def test_word_in_the_output(
        self, peer: Peer, tenant: Tenant, kind: str
    ) -> None:
        """What the server takes for an error is none, unless it acts on that."""
        name = write_configuration(
            peer.config_dir, f"word-{kind}", "print note: ImportError"
        )

        job = await tenant.run(kind, name)

        assert job.exit_code == 0
        if kind == "compile":
            assert job.status is JobStatus.FAILED
            assert job.message is not None
            assert "succeeded" in job.message
        else:
            assert job.status is _C

    async def test_unknown_configuration(self, tenant: Tenant) -> None:
        """A name that the server does not know is refused at once."""
        with pytest.raises(UnknownConfigurationError):
            await tenant.submit("compile", "nobody.yaml")

    async def test_concealed(self, peer: Peer, tenant: Tenant) -> None:
        """What ESPHome conceals is in no log."""
        name = write_configuration(peer.config_dir, "concealed", "concealed hunter2")

        for kind in ("validate", "compile"):
            lines = await tenant.lines(await tenant.run(kind, name))
            assert lines
            assert "hunter2" not in "".join(lines)


class TestOutput:
    """What a follower sees."""

    async def test_live(self, peer: Peer, tenant: Tenant, watcher: Watcher) -> None:
        """A follower sees lines while they come, and all that others see."""
        name = write_configuration(
            peer.config_dir,
            "live",
            "compile: print first",
            "compile: wait live-1",
            "compile: lines 50",
            "compile: redraws 0.2",
            "compile: print",
            "compile: wait live-2",
            r"compile: write b'last \xe2\x9c\x93 \xff without an end'",
        )
        (job,) = await tenant.submit("compile", name)
        await tenant.until(lambda: tenant.job(job).status is _R)
        task = asyncio.create_task(followed(tenant, job))
        await tenant.until(lambda: tenant.job(job).total_lines == 1)
        (peer.config_dir / "live-1").touch()
        await tenant.until(lambda: tenant.job(job).total_lines == 52)
        (peer.config_dir / "live-2").touch()
        events = await task

        jobs = await watcher.call("firmware/get_jobs", configuration=name)
        theirs, _ = await watcher.collect(
            "firmware/follow_job", job_id=jobs[0]["job_id"]
        )
        text = "".join(theirs).replace("\r\n", "\n").removesuffix("\n")
        assert [*lines_of(events).values()] == [
            line.rpartition("\r")[2] for line in text.split("\n")
        ]
        assert await tenant.lines(job) == [*lines_of(events).values()]
        assert not any(isinstance(event, GapEvent) for event in events)

    async def test_progress_without_a_follower(
        self, peer: Peer, tenant: Tenant
    ) -> None:
        """Phase and progress are known of a job that nobody follows."""
        name = write_configuration(
            peer.config_dir,
            "progress",
            "compile: compile 20",
            "compile: wait progress-1",
            "upload: upload",
        )
        build, upload = await tenant.submit("install", name)
        await tenant.until(lambda: tenant.job(build).progress == 100)
        assert tenant.job(build).status is _R
        assert tenant.job(build).phase is Phase.COMPILING
        (peer.config_dir / "progress-1").touch()
        await tenant.ended(build, upload)

    async def test_flood(self, peer: Peer, tenant: Tenant) -> None:
        """Of a million lines, those that are kept have their true numbers."""
        name = write_configuration(
            peer.config_dir, "flood", "compile: print first", "compile: lines 1000000"
        )
        (job,) = await tenant.submit("compile", name)

        events = await followed(tenant, job)

        job = tenant.job(job)
        assert job.status is _C
        assert job.total_lines == 1_000_001
        lines = lines_of(events)
        assert job.elided_lines == 1_000_001 - len(lines)
        assert len(lines) >= 2000
        wrong = [
            (number, line)
            for number, line in lines.items()
            if line != (f"line {number - 1}" if number else "first")
        ]
        assert not wrong[:10]

    async def test_burst_at_the_end(self, peer: Peer, tenant: Tenant) -> None:
        """What the server drops of its stream when a job ends is not missed."""
        name = write_configuration(
            peer.config_dir,
            "burst",
            "compile: print first",
            "compile: wait burst-1",
            "compile: lines 30000",
            "compile: exit 1",
        )
        (job,) = await tenant.submit("compile", name)
        task = asyncio.create_task(followed(tenant, job))
        await tenant.until(lambda: tenant.job(job).total_lines == 1)
        (peer.config_dir / "burst-1").touch()

        lines = lines_of(await task)

        assert tenant.job(job).total_lines == 30_001
        assert lines[30_000] == "line 29999"
        assert all(
            line == f"line {number - 1}" for number, line in lines.items() if number
        )

    async def test_long_line(self, peer: Peer, connect: Connect) -> None:
        """A line too long for one message costs that output and nothing else."""
        name = write_configuration(
            peer.config_dir, "long", "compile: long 12000000", "compile: exit 1"
        )
        async with connect(peer.url) as tenant:
            (job,) = await tenant.submit("compile", name)
            (job,) = await tenant.ended(job)

            assert (job.status, job.exit_code) == (JobStatus.FAILED, 1)
            await tenant.until(lambda: tenant.builder.info.state == "ready")


class TestOthers:
    """Two clients at once."""

    async def test_job_of_somebody_else(
        self, peer: Peer, tenant: Tenant, watcher: Watcher
    ) -> None:
        """What somebody else starts is here, too, to be followed and attached to."""
        name = write_configuration(
            peer.config_dir, "other", "compile: print hello", "compile: wait other-1"
        )
        await tenant.builder._look(tenant.builder._client)  # type: ignore[arg-type]
        theirs = await watcher.call("firmware/install", configuration=name)
        await tenant.until(lambda: len(tenant.of(name)) == 2)
        upload, build = sorted(tenant.of(name), key=lambda it: it.kind, reverse=True)
        assert build.requested_by is None
        await tenant.until(lambda: tenant.job(build).status is _R)
        (attached,) = await tenant.submit("compile", name)
        assert attached.job_id == build.job_id
        assert theirs["depends_on"] == ""

        (peer.config_dir / "other-1").touch()
        build, upload = await tenant.ended(build, upload)

        assert (build.status, upload.status) == (_C, _C)
        assert (await tenant.lines(build))[0] == "hello"

    async def test_no_build_is_killed(
        self, peer: Peer, tenant: Tenant, watcher: Watcher
    ) -> None:
        """A request waits for what is active there, which the server would kill."""
        name = write_configuration(
            peer.config_dir, "killed", "compile: wait killed-1", "clean: print cleaned"
        )
        await watcher.call("firmware/compile", configuration=name)
        await tenant.until(lambda: bool(tenant.of(name)))
        (theirs,) = tenant.of(name)
        (clean,) = await tenant.submit("clean", name)
        await asyncio.sleep(0.5)
        assert tenant.job(clean).status is _Q
        (peer.config_dir / "killed-1").touch()

        theirs, clean = await tenant.ended(theirs, clean)

        assert (theirs.status, clean.status) == (_C, _C)

    async def test_changed_meanwhile(self, peer: Peer, tenant: Tenant) -> None:
        """Nothing attaches to a build of what a configuration was before."""
        name = write_configuration(
            peer.config_dir,
            "changed",
            "compile: print old",
            f"compile: mark {peer.config_dir / 'changed-0'}",
            "compile: wait changed-1",
        )
        (first,) = await tenant.submit("compile", name)
        await eventually((peer.config_dir / "changed-0").exists)
        (same,) = await tenant.submit("compile", name)
        assert same.job_id == first.job_id
        write_configuration(peer.config_dir, "changed", "compile: print new")
        (second,) = await tenant.submit("compile", name)
        assert second.job_id != first.job_id
        (peer.config_dir / "changed-1").touch()

        first, second = await tenant.ended(first, second)

        assert (first.status, second.status) == (_C, _C)
        assert await tenant.lines(first) == ["old"]
        assert await tenant.lines(second) == ["new"]

    async def test_replace(self, peer: Peer, tenant: Tenant) -> None:
        """A request that replaces cancels the one before and runs after it."""
        name = write_configuration(
            peer.config_dir, "replace", "compile: print x", "compile: wait replace-1"
        )
        (first,) = await tenant.submit("compile", name)
        await tenant.until(lambda: tenant.job(first).status is _R)
        (same,) = await tenant.submit("compile", name)
        (second,) = await tenant.submit("compile", name, replace=True)
        assert same.job_id == first.job_id != second.job_id
        (first,) = await tenant.ended(first)
        assert (first.status, first.cause) == (JobStatus.CANCELLED, Cause.SUPERSEDED)
        (peer.config_dir / "replace-1").touch()
        (second,) = await tenant.ended(second)
        assert second.status is _C

    async def test_superseded_by_somebody_else(
        self, peer: Peer, tenant: Tenant, watcher: Watcher
    ) -> None:
        """Where somebody else's request kills our build, that is what is said."""
        name = write_configuration(peer.config_dir, "ours", "compile: wait ours-1")
        (job,) = await tenant.submit("compile", name)
        await tenant.until(lambda: tenant.job(job).status is _R)
        await watcher.call("firmware/compile", configuration=name)
        (job,) = await tenant.ended(job)
        assert (job.status, job.cause) == (JobStatus.CANCELLED, Cause.SUPERSEDED)
        (peer.config_dir / "ours-1").touch()
        await tenant.until(lambda: all(it.status.ended for it in tenant.of(name)))


class TestCancel:
    """Ending jobs."""

    @pytest.mark.parametrize("kind", ["compile", "upload", "clean", "validate"])
    async def test_running(self, peer: Peer, tenant: Tenant, kind: str) -> None:
        """A running job has ended when the call returns."""
        name = write_configuration(
            peer.config_dir, f"cancel-{kind}", "print x", "sleep inf"
        )
        (job,) = await tenant.submit(kind, name)
        await tenant.until(lambda: tenant.job(job).status is _R)

        job = await tenant.builder.cancel(job.job_id)

        assert (job.status, job.cause) == (
            JobStatus.CANCELLED,
            Cause.CANCELLED_BY_USER,
        )
        again = await tenant.builder.cancel(job.job_id)
        assert again == job

    async def test_waiting(self, peer: Peer, tenant: Tenant) -> None:
        """A job that waits, there or here, ends without a process."""
        names = [
            write_configuration(
                peer.config_dir, f"wait-{number}", "print x", "sleep inf"
            )
            for number in range(2)
        ]
        first, second = await tenant.submit("compile", *names)
        (held,) = await tenant.submit("clean", names[0])
        await tenant.until(lambda: tenant.job(first).status is _R)

        for job in (held, second, first):
            ended = await tenant.builder.cancel(job.job_id)
            assert ended.status is JobStatus.CANCELLED

        assert not any("wait-1" in it[-1] for it in fake_calls(peer.fake))

    async def test_install(self, peer: Peer, tenant: Tenant) -> None:
        """An upload ends with its compile, and a compile goes on without its upload."""
        name = write_configuration(peer.config_dir, "both", "compile: wait both-1")
        build, upload = await tenant.submit("install", name)
        await tenant.until(lambda: tenant.job(build).status is _R)
        await tenant.builder.cancel(build.job_id)
        (upload,) = await tenant.ended(upload)
        assert upload.cause is Cause.PREREQUISITE_FAILED

        build, upload = await tenant.submit("install", name)
        await tenant.until(lambda: tenant.job(build).status is _R)
        await tenant.builder.cancel(upload.job_id)
        (peer.config_dir / "both-1").touch()
        (build,) = await tenant.ended(build)
        assert build.status is _C
