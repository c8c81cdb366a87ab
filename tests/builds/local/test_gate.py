"""A builder looks at its host before each job: what it refuses, delays and tells."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from custom_components.esphome_builds.builds.findings import (
    Finding,
    Obstacle,
    Severity,
    texts,
)
from custom_components.esphome_builds.builds.local import (
    gate as module,
    host as host_module,
    watch as watch_module,
)
from custom_components.esphome_builds.builds.local.host import Memory
from custom_components.esphome_builds.builds.models import (
    BuilderEvent,
    Cause,
    JobStatus,
    Phase,
)

from .harness import House, Tenant

_LIMIT = "ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT"
_MIB = 1024**2
_GIB = 1024 * _MIB


class Host:
    """Answers what a test says where the system would be asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have enough of everything."""
        self.memory = Memory(total=64 * _GIB, available=64 * _GIB)
        self.free = 64 * _GIB
        self.no_compiler_for: tuple[str, ...] = ()
        self.problem: str | None = None
        self.looks = 0
        self.error: Exception | None = None
        monkeypatch.setattr(host_module, "ask_memory", self._ask_memory)
        monkeypatch.setattr(host_module, "ask_cores", lambda: 4)
        monkeypatch.setattr(host_module, "ask_problem", lambda _: self.problem)
        monkeypatch.setattr(host_module, "ask_file_system", lambda _: (True, self.free))
        monkeypatch.setattr(
            host_module, "ask_compilers", lambda _: self.no_compiler_for
        )

    def _ask_memory(self) -> Memory:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.memory

    def leave(self, available: int) -> None:
        """Leave so much memory free."""
        self.memory = replace(self.memory, available=available)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a host on which all is well, and which is looked at all the time."""
    monkeypatch.setattr(watch_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(module, "CONFIRM_SECONDS", 0.0)
    return Host(monkeypatch)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return folders for a builder."""
    return House(tmp_path)


async def looked(tenant: Tenant, host: Host) -> None:
    """Wait until the host was looked at from now on, and that is taken over."""
    before = host.looks
    await tenant.until(lambda: host.looks > before + 1)


def names(tenant: Tenant) -> list[Obstacle]:
    """Return what is found."""
    return [finding.obstacle for finding in tenant.builder.findings]


class TestRefused:
    """What can only fail fails at once."""

    async def test_no_compiler(self, house: House, host: Host) -> None:
        """It says why, in the job and in its log, and nothing was started."""
        house.write("a")
        host.no_compiler_for = ("C++",)
        async with house.started() as tenant:
            job = await tenant.run("compile", "a.yaml")
            lines = await tenant.lines(job)
            check = await tenant.run("validate", "a.yaml")

        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.TOOLCHAIN_MISSING)
        assert "no compiler for C++" in (job.message or "")
        assert lines == [job.message]
        assert tenant.statuses(job) == ["queued", "running", "failed"]
        assert check.status is JobStatus.COMPLETED
        assert [call[1] for call in house.runs()] == ["config"]

    async def test_looked_at_before_each_job(
        self, house: House, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What became so a moment ago counts, and what was mended, too."""
        monkeypatch.setattr(module, "LOOK_SECONDS", 1000.0)
        house.write("a")
        async with house.started() as tenant:
            assert (await tenant.run("compile", "a.yaml")).cause is None
            host.free = 100 * _MIB
            job = await tenant.run("compile", "a.yaml")
            host.free = 64 * _GIB
            assert (await tenant.run("compile", "a.yaml")).cause is None

        assert job.cause is Cause.DISK_FULL
        assert "100 MiB free" in (job.message or "")

    async def test_install_waits_for_its_build(self, house: House, host: Host) -> None:
        """An upload whose build is refused is not sent."""
        house.write("a")
        host.no_compiler_for = ("C",)
        async with house.started() as tenant:
            build, upload = await tenant.ended(
                *await tenant.submit("install", "a.yaml")
            )

        assert build.cause is Cause.TOOLCHAIN_MISSING
        assert upload.cause is Cause.PREREQUISITE_FAILED

    async def test_other_platforms(self, house: House, host: Host) -> None:
        """Nothing is refused or told for what there is no configuration of."""
        house.write("a")
        path = house.config_dir / "a.yaml"
        path.write_text(path.read_text().replace("host:", "esp32:"))
        host.no_compiler_for = ("C",)
        async with house.started() as tenant:
            assert (await tenant.run("compile", "a.yaml")).cause is None
            assert names(tenant) == []
            house.write("b")
            await tenant.until(lambda: names(tenant) == [Obstacle.COMPILER_MISSING])
            await tenant.until(lambda: tenant.builder.info.obstacles != ())
            assert tenant.builder.info.obstacles == ("compiler_missing",)
            (house.config_dir / "b.yaml").unlink()
            await tenant.until(lambda: tenant.builder.info.obstacles == ())


class TestWarned:
    """What may go wrong is said, and tried."""

    async def test_first_line(self, house: House, host: Host) -> None:
        """It is the first line of the log."""
        house.write("a", "print hello")
        path = house.config_dir / "a.yaml"
        path.write_text(path.read_text().replace("host:", "esp32:"))
        host.free = _GIB
        async with house.started() as tenant:
            job = await tenant.run("compile", "a.yaml")
            first, *rest = await tenant.lines(job)

        assert job.status is JobStatus.COMPLETED
        assert first.startswith("[There are only 1 GiB free at ")
        assert rest == ["hello"]


class TestHeld:
    """A build waits while there is no memory for it."""

    async def test_waits(self, house: House, host: Host) -> None:
        """It is queued and says why; others go on; it starts when it can."""
        for name in ("a", "b", "c"):
            house.write(name)
        host.leave(100 * _MIB)
        async with house.started() as tenant:
            one, two = await tenant.submit("compile", "a.yaml", "b.yaml")
            await tenant.until(lambda: tenant.job(two).message is not None)
            for job in map(tenant.job, (one, two)):
                assert (job.status, job.phase) == (JobStatus.QUEUED, Phase.WAITING)
                assert "only 100 MiB of memory free" in (job.message or "")
            for kind in ("validate", "clean", "upload"):
                job = await tenant.run(kind, "c.yaml")
                assert job.status is JobStatus.COMPLETED
            host.leave(64 * _GIB)
            jobs = await tenant.ended(one, two)

        for job in jobs:
            assert not any(
                state.message
                for state in tenant.history(job)
                if state.status is JobStatus.RUNNING
            )
            assert (job.status, job.message) == (JobStatus.COMPLETED, None)
            assert tenant.statuses(job) == ["queued", "running", "completed"]

    async def test_asked_twice(
        self, house: House, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To ask again while the host is looked at is not to have waited for long."""
        house.write("a")
        host.leave(100 * _MIB)
        async with house.started() as tenant:
            take_over = tenant.builder._gate._steady.take

            def _take(*arguments: Any) -> tuple[Finding, ...]:  # noqa: ANN401 - same
                tenant.builder._pump()
                return take_over(*arguments)

            monkeypatch.setattr(tenant.builder._gate._steady, "take", _take)
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.until(lambda: tenant.job(job).phase is Phase.WAITING)
            for _ in range(3):
                await looked(tenant, host)
            assert tenant.job(job).status is JobStatus.QUEUED

    async def test_given_up(
        self, house: House, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After its time it fails."""
        house.write("a")
        host.leave(100 * _MIB)
        async with house.started() as tenant:
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.until(lambda: tenant.job(job).phase is Phase.WAITING)
            monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)
            (job,) = await tenant.ended(job)
            lines = await tenant.lines(job)

        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.OUT_OF_MEMORY)
        assert (job.message or "").startswith("The job waited for too long. ")
        assert lines == [job.message]
        assert house.runs() == []

    async def test_our_own_builds_do_not_count(
        self, house: House, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While another build takes the memory, the time does not run."""
        house.write("a", "print hello", "wait go")
        house.write("b")
        monkeypatch.setattr(module, "WAIT_SECONDS", 0.001)
        async with house.started(replace(house.settings, compile_slots=2)) as tenant:
            (one,) = await tenant.submit("compile", "a.yaml")
            await tenant.running(one)
            host.leave(100 * _MIB)
            (two,) = await tenant.submit("compile", "b.yaml")
            await tenant.until(lambda: tenant.job(two).phase is Phase.WAITING)
            for _ in range(3):
                await looked(tenant, host)
            assert tenant.job(two).status is JobStatus.QUEUED
            host.leave(64 * _GIB)
            house.touch("go")
            for job in await tenant.ended(one, two):
                assert job.status is JobStatus.COMPLETED

    async def test_canceled(self, house: House, host: Host) -> None:
        """It can be canceled, and is forgotten."""
        house.write("a")
        host.leave(100 * _MIB)
        async with house.started() as tenant:
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.until(lambda: tenant.job(job).phase is Phase.WAITING)
            job = await tenant.builder.cancel(job.job_id)
            assert (job.status, job.phase) == (JobStatus.CANCELLED, None)
            assert tenant.builder._gate.held == {}

    async def test_restart(self, house: House, host: Host) -> None:
        """A restart changes nothing for a job that waits."""
        house.write("a")
        host.leave(100 * _MIB)
        async with house.started() as tenant:
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.until(lambda: tenant.job(job).phase is Phase.WAITING)
        host.leave(64 * _GIB)
        async with house.started() as tenant:
            (job,) = await tenant.ended(job)

        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)


class TestTold:
    """What is found is told, and not more often than it changes for good."""

    async def test_comes_and_goes(
        self, house: House, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory that is low for a moment is nothing to tell, nor that it is not."""
        async with house.started() as tenant:
            monkeypatch.setattr(module, "CONFIRM_SECONDS", 1000.0)
            host.leave(100 * _MIB)
            await looked(tenant, host)
            assert names(tenant) == []
            monkeypatch.setattr(module, "CONFIRM_SECONDS", 0.0)
            await tenant.until(lambda: names(tenant) == [Obstacle.MEMORY_LOW])
            assert [*tenant.builder.info.obstacles] == ["memory_low"]
            monkeypatch.setattr(module, "CONFIRM_SECONDS", 1000.0)
            host.leave(64 * _GIB)
            await looked(tenant, host)
            assert names(tenant) == [Obstacle.MEMORY_LOW]
            monkeypatch.setattr(module, "CONFIRM_SECONDS", 0.0)
            await tenant.until(lambda: names(tenant) == [])
            assert tenant.builder.info.obstacles == ()

    async def test_as_it_is_now(self, house: House, host: Host) -> None:
        """The facts are those of the last look."""
        host.leave(100 * _MIB)
        async with house.started() as tenant:
            await tenant.until(lambda: names(tenant) == [Obstacle.MEMORY_LOW])
            host.leave(50 * _MIB)
            await tenant.until(
                lambda: tenant.builder.findings[0].facts["available"] == 50 * _MIB
            )

    async def test_scarce(self, house: House, host: Host) -> None:
        """Fewer compilers are no obstacle, but known."""
        host.leave(_GIB)
        async with house.started() as tenant:
            await tenant.until(lambda: names(tenant) == [Obstacle.MEMORY_SCARCE])
            assert tenant.builder.info.obstacles == ()

    async def test_folder(self, house: House, host: Host) -> None:
        """What lasts is told at once, and an event tells it."""
        async with house.started() as tenant:
            host.problem = "Read-only file system"
            await tenant.until(
                lambda: tenant.builder.info.obstacles == ("not_writable",)
            )
            (event,) = [
                event
                for event in tenant.events
                if isinstance(event, BuilderEvent) and event.builder.obstacles
            ]
            assert event.builder == tenant.builder.info

    @pytest.mark.usefixtures("host")
    async def test_old_esphome(self, house: House) -> None:
        """As soon as the version is known, it is judged."""
        house.fake.with_name("esphome.version").write_text("print Version: 2025.1.0\n")
        async with house.started() as tenant:
            await tenant.until(lambda: names(tenant) == [Obstacle.ESPHOME_OLD])

    async def test_cannot_look(
        self, house: House, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An error of ours does not keep jobs from running."""
        house.write("a", "environment")
        host.error = RuntimeError("ours")
        async with house.started() as tenant:
            job = await tenant.run("compile", "a.yaml")
            assert not any(_LIMIT in line for line in await tenant.lines(job))

        assert job.status is JobStatus.COMPLETED
        assert "RuntimeError: ours" in caplog.text

    async def test_no_look_on_its_own(
        self, house: House, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a job there is one look in a minute, and one for a new version."""
        monkeypatch.setattr(module, "LOOK_SECONDS", 1000.0)
        async with house.started() as tenant:
            await tenant.until(lambda: host.looks == 2)
            for _ in range(3):
                await tenant.builder._watch.look()
            assert host.looks == 2

    @pytest.mark.usefixtures("host")
    async def test_stopped_during_a_look(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that does not answer does not keep a builder from stopping."""
        monkeypatch.setattr(module, "_STOP_SECONDS", 0.0)
        release = asyncio.Event()

        async def _for_ever(function: Callable[..., object], *args: object) -> object:
            if function is host_module.look:
                await release.wait()
            return function(*args)

        async with house.started() as tenant:
            monkeypatch.setattr(asyncio, "to_thread", _for_ever)
            tenant.builder._gate._look()
        assert tenant.builder.stopped


class TestCompilers:
    """A build starts as many compilers as cores and memory bear."""

    @staticmethod
    async def limit(tenant: Tenant, job_id: str) -> tuple[list[str], str | None]:
        """Return the notes on top of a log, and how many compilers were allowed."""
        lines = await tenant.lines(tenant.builder.jobs[job_id])
        notes = [line for line in lines if line.startswith("[")]
        limits = [line for line in lines if line.startswith(_LIMIT)]
        return notes, limits[0].partition("=")[2] if limits else None

    @pytest.mark.parametrize(
        ("available", "notes", "limit"),
        [
            (64 * _GIB, [], None),
            (1800 * _MIB, ["[The free memory is enough for 3 of 4 compilers.]"], "3"),
            (600 * _MIB, ["[The free memory is enough for 1 of 4 compilers.]"], "1"),
        ],
    )
    async def test_alone(
        self,
        available: int,
        notes: list[str],
        limit: str | None,
        house: House,
        host: Host,
    ) -> None:
        """One alone may use all cores if there is memory for it."""
        house.write("a", "environment")
        host.leave(available)
        async with house.started() as tenant:
            job = await tenant.run("compile", "a.yaml")
            assert await self.limit(tenant, job.job_id) == (notes, limit)

    async def test_set_by_the_user(
        self, house: House, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the user has said is so."""
        monkeypatch.setenv(_LIMIT, "7")
        house.write("a", "environment")
        host.leave(600 * _MIB)
        async with house.started() as tenant:
            job = await tenant.run("compile", "a.yaml")
            assert await self.limit(tenant, job.job_id) == ([], "7")

    @pytest.mark.usefixtures("host")
    async def test_other_builders(self, house: House, tmp_path: Path) -> None:
        """What another builder compiles counts as well."""
        (tmp_path / "other").mkdir()
        other = House(tmp_path / "other")
        other.settings = replace(other.settings, entry_id="other")
        other.write("a", "print hello", "wait go")
        house.write("a", "environment")
        async with other.started() as neighbor, house.started() as tenant:
            (one,) = await neighbor.submit("compile", "a.yaml")
            await neighbor.running(one)
            job = await tenant.run("compile", "a.yaml")
            assert await self.limit(tenant, job.job_id) == ([], "2")
            other.touch("go")
            await neighbor.ended(one)
            job = await tenant.run("compile", "a.yaml")
            assert await self.limit(tenant, job.job_id) == ([], None)


@pytest.mark.parametrize("obstacle", Obstacle)
@pytest.mark.parametrize("severity", Severity)
def test_sentences(obstacle: Obstacle, severity: Severity) -> None:
    """Each finding has one sentence, with its facts as a person reads them."""
    facts: dict[str, str | int] = {
        "architecture": "riscv64",
        "available": 100 * _MIB,
        "compilers": 1,
        "cores": 4,
        "free": 100 * _MIB,
        "languages": "C",
        "loader": "/lib/ld-musl-x86_64.so.1",
        "minimum": 512 * _MIB,
        "needed": 2 * _GIB,
        "oldest": "3.12",
        "path": "/config",
        "problem": "Read-only file system",
        "python": "3.11",
        "swap": 0,
        "total": 300 * _MIB,
        "version": "2025.1.0",
    }
    finding = Finding(obstacle=obstacle, severity=severity, facts=facts)

    assert finding.sentence.endswith(".")
    assert "{" not in finding.sentence
    assert texts(facts)["needed"] == "2 GiB"
    assert isinstance(finding.cause, Cause)
