"""A local builder that installs its own ESPHome, with a fake uv in its place."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
import shutil

import pytest

from custom_components.esphome_builds.builds.builder import (
    BuilderUnavailableError,
    InvalidRequestError,
)
from custom_components.esphome_builds.builds.local import (
    environments as environments_module,
    installer as installer_module,
    watch as watch_module,
)
from custom_components.esphome_builds.builds.local.environments import MARKER
from custom_components.esphome_builds.builds.local.process import Limits
from custom_components.esphome_builds.builds.local.settings import (
    DEFAULT_LIMITS,
)
from custom_components.esphome_builds.builds.models import (
    BuilderState,
    Cause,
    Job,
    JobKind,
    JobStatus,
    Phase,
    Requester,
)

from ...fakes import FAKE_VERSION, install_fake_uv
from .conftest import living
from .harness import House as AnyHouse, Tenant
from .test_restart import on_disk, until, victim

NEWER = "2026.11.0"
OLDER = "2026.9.1"
OLDEST = "2026.8.0"

STEPS = ("latest: ", "venv: ", "install: ", "trial: ")


class House(AnyHouse):
    """Folders for a builder that has to install its ESPHome itself."""

    def __init__(self, folder: Path) -> None:
        """Make the folders, and what stands in for Python and uv."""
        super().__init__(folder)
        self.folder = folder
        self.python = install_fake_uv(folder)
        self.managed = replace(self.settings, esphome="", python=self.python)

    def script(self, *lines: str) -> None:
        """Say what uv does before it does its work."""
        text = "".join(f"{line}\n" for line in lines)
        self.python.with_name("python.script").write_text(text)

    def offer(self, version: str) -> None:
        """Let a version be the latest."""
        self.python.with_name("python.latest").write_text(f"{version}\n")

    def calls(self) -> list[str]:
        """Return the steps that uv was asked for."""
        path = self.python.with_name("python.calls")
        return path.read_text().splitlines() if path.exists() else []

    def folders(self) -> list[str]:
        """Return the versions of which there is a folder."""
        root = self.managed.environments_dir
        return sorted(path.name.rpartition("-")[0] for path in root.iterdir())

    def block(self, step: str, *first: str) -> None:
        """Let a step of an installation wait in silence, at its beginning."""
        lines = (
            *first,
            f"mark {self.folder / 'reached'}",
            f"wait {self.folder / 'go'}",
        )
        self.script(*(f"{step}{line}" for line in lines))

    def reached(self) -> bool:
        """Return whether the step that waits has begun."""
        return (self.folder / "reached").exists()

    def go(self) -> None:
        """Let what waits go on, now and from now on."""
        (self.folder / "go").touch()


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at what there is many times a second."""
    monkeypatch.setattr(watch_module, "LOOK_SECONDS", 0.05)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return folders for a builder that has no ESPHome yet."""
    return House(tmp_path)


def installations(tenant: Tenant) -> list[Job]:
    """Return the jobs that install ESPHome, oldest first."""
    return tenant.of("")


async def installed(tenant: Tenant, version: str | None = None) -> Job:
    """Install a version, and wait until it is used."""
    (job,) = await tenant.ended(await tenant.builder.install_esphome(version))
    assert job.status is JobStatus.COMPLETED
    await used(tenant, job.esphome_version)
    return job


async def used(tenant: Tenant, version: str | None) -> None:
    """Wait until a version is used."""
    await tenant.until(
        lambda: (
            tenant.builder.info.state is BuilderState.READY
            and tenant.builder.info.esphome_version == version
        )
    )


class TestFirst:
    """A builder without any ESPHome."""

    async def test_the_latest_is_installed(self, house: House) -> None:
        """It installs the latest by itself, and what waits for that then runs."""
        house.write("a")
        house.block("install: ")
        async with house.started(house.managed, ready=False) as tenant:
            await tenant.until(house.reached)
            await tenant.until(lambda: tenant.builder.info.message is not None)
            info = tenant.builder.info
            assert info.state is BuilderState.CONNECTING
            assert info.message == "ESPHome is being installed."
            assert (info.running, info.queued, info.esphome_version) == (1, 0, None)
            (build,) = await tenant.submit("compile", "a.yaml")
            assert build.status is JobStatus.QUEUED
            house.go()
            (build,) = await tenant.ended(build)
            (job,) = installations(tenant)
            info = tenant.builder.info
            lines = await tenant.lines(job)

        assert (build.status, build.esphome_version) == (
            JobStatus.COMPLETED,
            FAKE_VERSION,
        )
        assert job.kind is JobKind.INSTALL_ESPHOME
        assert (job.configuration, job.requested_by, job.attempt) == ("", None, 1)
        assert (job.status, job.exit_code, job.cause) == (JobStatus.COMPLETED, 0, None)
        assert (job.esphome_version, job.progress) == (FAKE_VERSION, 100)
        assert tenant.phases(job) == [Phase.DOWNLOADING]
        assert tenant.statuses(job) == [
            JobStatus.QUEUED,
            JobStatus.RUNNING,
            JobStatus.COMPLETED,
        ]
        assert (info.state, info.message) == (BuilderState.READY, None)
        assert lines[0] == "Looking for the latest ESPHome"
        assert lines[-1] == f"Version: {FAKE_VERSION}"
        assert job.total_lines == len(lines)
        assert house.calls() == ["latest", "venv", "install"]
        assert house.folders() == [FAKE_VERSION]

    async def test_it_is_there_after_a_restart(self, house: House) -> None:
        """What was installed once is used from then on."""
        async with house.started(house.managed) as tenant:
            assert len(installations(tenant)) == 1
        async with house.started(house.managed) as tenant:
            assert len(installations(tenant)) == 1
            assert tenant.builder.info.esphome_version == FAKE_VERSION

    @pytest.mark.parametrize(
        ("step", "text", "cause"),
        [
            ("latest: ", "error: Failed to fetch: `https://x.test/`", "x.test cannot"),
            ("install: ", "No space left on device", "The disk is full"),
        ],
    )
    async def test_failure(
        self, house: House, step: str, text: str, cause: str
    ) -> None:
        """One that fails says why, and so does the builder; it is not tried again."""
        house.script(f"{step}print {text}", f"{step}exit 2")
        async with house.started(house.managed, ready=False) as tenant:
            await tenant.until(lambda: len(installations(tenant)) == 1)
            (job,) = await tenant.ended(*installations(tenant))
            await tenant.until(lambda: "not installed" in str(tenant.builder.info))
            info = tenant.builder.info
            assert tenant.builder.info.state is BuilderState.CONNECTING
            for _ in range(5):
                await tenant.builder._watch.look()
            assert len(installations(tenant)) == 1
            lines = await tenant.lines(job)

        assert job.status is JobStatus.FAILED
        assert cause in (job.message or "")
        assert (info.message or "").endswith(job.message or "?")
        assert cause in "\n".join(lines) or text in lines
        assert house.folders() == []

    async def test_failure_is_no_end(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is tried again when somebody asks, and after a while by itself."""
        house.script("install: exit 2")
        async with house.started(house.managed, ready=False) as tenant:
            await tenant.until(lambda: len(installations(tenant)) == 1)
            await tenant.ended(*installations(tenant))
            asked = await tenant.builder.install_esphome(None)
            assert (await tenant.ended(asked))[0].status is JobStatus.FAILED
            house.script()
            monkeypatch.setattr(installer_module, "RETRY", timedelta(0))
            await used(tenant, FAKE_VERSION)

            statuses = [job.status for job in installations(tenant)]
        assert statuses[:2] == [JobStatus.FAILED] * 2
        assert statuses[-1] is JobStatus.COMPLETED

    async def test_canceled(self, house: House) -> None:
        """A user who cancels it is not asked again at once, and has to install it."""
        house.block("venv: ")
        async with house.started(house.managed, ready=False) as tenant:
            await tenant.until(house.reached)
            (job,) = installations(tenant)
            assert (await tenant.builder.cancel(job.job_id)).status is (
                JobStatus.CANCELLED
            )
            await tenant.until(lambda: "canceled" in str(tenant.builder.info.message))
            assert len(installations(tenant)) == 1
            house.go()
            assert (await installed(tenant)).requested_by is None

    async def test_lost(self, house: House) -> None:
        """One that is of no use to another Python is installed again, the same one."""
        async with house.started(house.managed) as tenant:
            await installed(tenant, OLDER)
        (marker,) = house.managed.environments_dir.glob(f"{OLDER}-*/{MARKER}")
        marker.write_text(marker.read_text().replace(environments_module.ABI, "other"))
        house.script("install: exit 1")
        async with house.started(house.managed, ready=False) as tenant:
            await tenant.until(lambda: len(installations(tenant)) == 3)
            (job,) = await tenant.ended(installations(tenant)[-1])
            assert (job.status, job.esphome_version) == (JobStatus.FAILED, OLDER)
        house.script()
        jobs_file = house.managed.cache_dir / "jobs.json"
        # That it can not be installed is long ago.
        finished = (job.as_dict()["finished_at"])[:10]
        jobs_file.write_text(jobs_file.read_text().replace(finished, "2026-01-01"))

        async with house.started(house.managed) as tenant:
            # What cannot be had any more is no reason to have none.
            assert tenant.builder.info.esphome_version == FAKE_VERSION

    async def test_removed(self, house: House) -> None:
        """One that somebody removed is installed again, the same one, at once."""
        house.write("a")
        async with house.started(house.managed) as tenant:
            await installed(tenant, OLDER)
            (folder,) = house.managed.environments_dir.glob(f"{OLDER}-*")
            shutil.rmtree(folder)
            await tenant.until(lambda: len(installations(tenant)) == 3)
            (again,) = await tenant.ended(installations(tenant)[-1])
            await used(tenant, OLDER)
            build = await tenant.run("compile", "a.yaml")

        assert (again.status, again.requested_by) == (JobStatus.COMPLETED, None)
        assert (build.status, build.esphome_version) == (JobStatus.COMPLETED, OLDER)


class TestUpgrade:
    """A builder that has an ESPHome, and gets another."""

    async def test_upgrade(self, house: House) -> None:
        """Builds go on with the old one, until the new one was tried."""
        house.write("a")
        house.offer(OLDEST)
        async with house.started(house.managed) as tenant:
            await installed(tenant, OLDER)
            house.block("install: ")
            user = Requester(user_id="me")
            job = await tenant.builder.install_esphome(NEWER, user)
            await tenant.until(house.reached)
            build = await tenant.run("compile", "a.yaml")
            assert build.esphome_version == OLDER
            house.go()
            (job,) = await tenant.ended(job)
            await used(tenant, NEWER)
            build = await tenant.run("compile", "a.yaml")

        assert (job.status, job.requested_by) == (JobStatus.COMPLETED, user)
        assert (build.status, build.esphome_version) == (JobStatus.COMPLETED, NEWER)
        assert house.folders() == sorted((OLDER, NEWER))

    async def test_what_runs_keeps_its_own(self, house: House) -> None:
        """No environment is removed under a build, but at the end of it."""
        house.write("a", "print hello", "wait built")
        house.offer(OLDEST)
        async with house.started(house.managed) as tenant:
            (build,) = await tenant.submit("compile", "a.yaml")
            await tenant.running(build)
            await installed(tenant, OLDER)
            await installed(tenant, NEWER)
            assert house.folders() == sorted((OLDEST, OLDER, NEWER))
            house.touch("built")
            (build,) = await tenant.ended(build)
            assert (build.status, build.esphome_version) == (
                JobStatus.COMPLETED,
                OLDEST,
            )
            assert house.folders() == sorted((OLDER, NEWER))

    async def test_go_back(self, house: House) -> None:
        """Who went back builds with the old one, and can go forward again."""
        async with house.started(house.managed) as tenant:
            with pytest.raises(InvalidRequestError, match="no other ESPHome"):
                await tenant.builder.go_back()
            await installed(tenant, NEWER)
            for version in (FAKE_VERSION, NEWER):
                assert await tenant.builder.go_back() == version
                await used(tenant, version)

    async def test_go_back_cannot_be_written(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the disk takes nothing, all stays as it is."""
        async with house.started(house.managed) as tenant:
            await installed(tenant, NEWER)
            monkeypatch.setattr(environments_module, "_replace", _full)
            with pytest.raises(BuilderUnavailableError, match="No space"):
                await tenant.builder.go_back()
            monkeypatch.undo()
            assert tenant.builder.info.esphome_version == NEWER

    async def test_twice_at_once(self, house: House) -> None:
        """The same asked for again is the same job; another one comes after it."""
        async with house.started(house.managed) as tenant:
            house.block("latest: ")
            house.offer(NEWER)
            first = await tenant.builder.install_esphome(None)
            await tenant.until(house.reached)
            again = await tenant.builder.install_esphome(None)
            older = await tenant.builder.install_esphome(OLDER)
            also = await tenant.builder.install_esphome(OLDER)
            assert (first.job_id, older.job_id) == (again.job_id, also.job_id)
            assert older.status is JobStatus.QUEUED
            house.go()
            first, older = await tenant.ended(first, older)

        assert (first.esphome_version, older.esphome_version) == (NEWER, OLDER)
        assert first.finished_at is not None
        assert older.started_at is not None
        assert first.finished_at <= older.started_at
        assert house.calls().count("install") == 3

    async def test_latest_while_it_is_installed(self, house: House) -> None:
        """The latest is the same job also when it is known which one that is."""
        async with house.started(house.managed) as tenant:
            house.block("install: ")
            house.offer(NEWER)
            first = await tenant.builder.install_esphome(None)
            await tenant.until(house.reached)
            assert tenant.job(first).esphome_version == NEWER
            again = await tenant.builder.install_esphome(None)
            house.go()
            await tenant.ended(first)

        assert first.job_id == again.job_id

    async def test_latest_is_there(self, house: House) -> None:
        """To ask for the latest changes nothing if it is there; by name it does."""
        async with house.started(house.managed) as tenant:
            job = await installed(tenant)
            lines = await tenant.lines(job)
            assert house.calls().count("install") == 1
            await installed(tenant, FAKE_VERSION)
            assert house.calls().count("install") == 2

        assert lines[-1] == f"ESPHome {FAKE_VERSION} is installed already"
        assert house.folders() == [FAKE_VERSION]

    @pytest.mark.parametrize("step", STEPS)
    async def test_canceled(self, house: House, step: str) -> None:
        """Canceled in any step it leaves nothing, and the old one goes on."""
        async with house.started(house.managed) as tenant:
            house.block(step, "spawn session")
            house.offer(NEWER)
            version = None if step == "latest: " else NEWER
            job = await tenant.builder.install_esphome(version)
            await tenant.until(house.reached)
            job = await tenant.builder.cancel(job.job_id)
            assert (job.status, job.cause) == (
                JobStatus.CANCELLED,
                Cause.CANCELLED_BY_USER,
            )
            assert not living(job.job_id)
            assert house.folders() == [FAKE_VERSION]
            assert tenant.builder.info.esphome_version == FAKE_VERSION
            assert tenant.builder.info.state is BuilderState.READY
            assert tenant.phases(job)[:1] == [Phase.DOWNLOADING]

    async def test_canceled_before_it_runs(self, house: House) -> None:
        """One that waits is canceled at once."""
        async with house.started(house.managed) as tenant:
            house.block("install: ")
            first = await tenant.builder.install_esphome(NEWER)
            second = await tenant.builder.install_esphome(OLDER)
            second = await tenant.builder.cancel(second.job_id)
            assert second.status is JobStatus.CANCELLED
            assert second.started_at is None
            await tenant.builder.cancel(first.job_id)

    async def test_another_version_than_asked_for(self, house: House) -> None:
        """What does not say that it is the one is not used."""
        async with house.started(house.managed) as tenant:
            house.script(f"trial: print Version: {OLDEST}", "trial: exit 0")
            (job,) = await tenant.ended(await tenant.builder.install_esphome(NEWER))
            assert (job.status, job.cause) == (JobStatus.FAILED, Cause.ESPHOME_MISSING)
            assert "does not work" in (job.message or "")
            assert tenant.builder.info.esphome_version == FAKE_VERSION
            assert house.folders() == [FAKE_VERSION]

    async def test_cannot_be_switched(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the last step cannot be written down the old one goes on."""
        async with house.started(house.managed) as tenant:
            monkeypatch.setattr(environments_module, "_replace", _full)
            (job,) = await tenant.ended(await tenant.builder.install_esphome(NEWER))
            assert (job.status, job.cause) == (JobStatus.FAILED, Cause.DISK_FULL)
            assert tenant.builder.info.esphome_version == FAKE_VERSION
            assert house.folders() == [FAKE_VERSION]

    async def test_cannot_be_tidied(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That old ones stay is no reason for a job to fail."""
        async with house.started(house.managed) as tenant:
            environments = tenant.builder._managed().environments
            monkeypatch.setattr(environments, "_unneeded", _full)
            assert (await installed(tenant, NEWER)).status is JobStatus.COMPLETED

    async def test_limits(self, house: House) -> None:
        """All steps together have one limit."""
        house.script("venv: sleep 0.5", "install: sleep 0.5", "trial: sleep inf")
        limits = {**DEFAULT_LIMITS, JobKind.INSTALL_ESPHOME: Limits(total=1.5)}
        settings = replace(house.managed, limits=limits)
        async with house.started(settings, ready=False) as tenant:
            await tenant.until(lambda: len(installations(tenant)) == 1)
            (job,) = await tenant.ended(*installations(tenant))

        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.TIMED_OUT)
        assert (job.duration or 0) < 4

    @pytest.mark.parametrize(
        "version", ["", "latest", "2026.10", "2026.10.0 --index x", "../2026.10.0"]
    )
    async def test_no_version(self, house: House, version: str) -> None:
        """What is no version of ESPHome makes no job."""
        async with house.started(house.managed) as tenant:
            with pytest.raises(InvalidRequestError, match="not a version"):
                await tenant.builder.install_esphome(version)
            assert len(installations(tenant)) == 1

    async def test_stopped(self, house: House) -> None:
        """A builder that is stopped installs nothing."""
        async with house.started(house.managed) as tenant:
            pass
        with pytest.raises(BuilderUnavailableError):
            await tenant.builder.install_esphome(None)

    async def test_not_managed(self, house: House) -> None:
        """An ESPHome of the user's own is the user's."""
        async with house.started() as tenant:
            with pytest.raises(InvalidRequestError):
                await tenant.builder.install_esphome(NEWER)
            with pytest.raises(InvalidRequestError):
                await tenant.builder.go_back()
            assert not installations(tenant)
        assert not house.managed.environments_dir.exists()


class TestRestart:
    """Home Assistant is killed, or stops, while an ESPHome is installed."""

    @pytest.mark.parametrize("step", STEPS)
    async def test_killed(self, house: House, step: str) -> None:
        """It is done again, once, and no half of the first time is left."""
        house.block(step, "spawn session ignore")
        async with victim(house):
            await until(house.reached)
        (job,) = on_disk(house)
        assert (job.kind, job.status) == (JobKind.INSTALL_ESPHOME, JobStatus.RUNNING)
        house.go()

        async with house.started(house.managed) as tenant:
            (again,) = await tenant.ended(*installations(tenant))
            assert again.job_id == job.job_id
            assert (again.status, again.attempt) == (JobStatus.COMPLETED, 2)
            assert house.folders() == [FAKE_VERSION]
            lines = await tenant.lines(again)

        assert "[Home Assistant was restarted; this is the 2nd attempt]" in lines
        assert not living(job.job_id)

    async def test_killed_after_the_switch(self, house: House) -> None:
        """What was switched to is not installed a second time."""
        async with house.started(house.managed) as tenant:
            (job,) = installations(tenant)
        text = (house.managed.cache_dir / "jobs.json").read_text()
        text = text.replace('"completed"', '"running"')
        (house.managed.cache_dir / "jobs.json").write_text(text)

        async with house.started(house.managed) as tenant:
            (job,) = await tenant.ended(*installations(tenant))
            assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)

        assert house.calls() == ["latest", "venv", "install"]

    async def test_stopped_twice(self, house: House) -> None:
        """A stop of Home Assistant counts as an attempt, too, and there are two."""
        house.block("install: ")
        for attempt in (1, 2):
            async with house.started(house.managed, ready=False) as tenant:
                await tenant.until(lambda: bool(installations(tenant)))
                await tenant.until(house.reached)
                (job,) = installations(tenant)
                assert job.attempt == attempt
                (house.folder / "reached").unlink()
        async with house.started(house.managed, ready=False) as tenant:
            (job,) = installations(tenant)
            assert (job.status, job.cause) == (
                JobStatus.INTERRUPTED,
                Cause.HOME_ASSISTANT_STOPPED,
            )
            await tenant.until(lambda: tenant.builder.info.message is not None)
            assert "not installed" in (tenant.builder.info.message or "")
            assert len(installations(tenant)) == 1
        assert house.folders() == []


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")
