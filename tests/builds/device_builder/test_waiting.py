"""Uploads by a server to devices that are off, or have to come back."""

import asyncio
from typing import Any

import pytest

from custom_components.esphome_builds.builds import verification as verification_module
from custom_components.esphome_builds.builds.builder import (
    BuilderUnavailableError,
    BuildRequest,
)
from custom_components.esphome_builds.builds.models import (
    Cause,
    Job,
    JobStatus,
    Phase,
    Requester,
    RequestKind,
)
from custom_components.esphome_builds.builds.waiting import OFF

from ..fake_devices import FakeDevices
from .conftest import Connect, Tenant
from .fake_server import (
    CommandRefusedError,
    Connection,
    FakeServer,
    ended,
    server_job,
)
from .test_builder import NAME, _accept, takes, told, until

_Q, _R, _C = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED

CLEAR = "firmware/clear_queued_update"
DEFERRED = "device is offline; update queued for when it reconnects"
MISSED = [
    "ERROR Upload failed after 3 attempts: connecting to 10.0.0.5 failed: timeout\n"
]
SOON = "2099-01-01T00:00:00+00:00"


@pytest.fixture(autouse=True)
def disarms(server: FakeServer) -> None:
    """Let the server know the command."""
    server.handlers[CLEAR] = _accept


async def waiting(tenant: Tenant, job: Job) -> Job:
    """Wait until a job waits for its device; return it."""
    await tenant.until(lambda: tenant.job(job).message == OFF)
    job = tenant.job(job)
    assert (job.status, job.phase, job.started_at) == (_Q, Phase.WAITING, None)
    return job


async def deferred(tenant: Tenant, server: FakeServer) -> tuple[Job, Job]:
    """Let the server put an install off; return the jobs."""
    takes(server, "install", is_deferred_install=True)
    build, upload = await tenant.submit("install", NAME)
    await until(lambda: server.count("firmware/install"))
    server.jobs[:] = [ended("install-1", is_deferred_install=True)]
    await told(tenant, server, "job_completed", server.jobs[0])
    (build,) = await tenant.ended(build)
    assert build.status is _C
    return build, await waiting(tenant, upload)


def theirs(job_id: str = "up", status: str = "queued", **fields: object) -> Any:  # noqa: ANN401 - any job
    """Return an upload of the server."""
    over = status not in ("queued", "running")
    job = ended(job_id, status) if over else server_job(job_id, status=status)
    job |= {"created_at": SOON, "job_type": "upload", "port": "OTA"}
    if status == "running":
        job["started_at"] = SOON
    return job | fields


async def asked(tenant: Tenant, kind: RequestKind) -> list[Job]:
    """Let somebody ask for something; return the jobs."""
    submission = await tenant.builder.submit(
        BuildRequest(
            kind=kind,
            configurations=(NAME,),
            requested_by=Requester(user_id="somebody"),
        )
    )
    return [*submission.jobs]


class TestDeferred:
    """An upload that the server begins when the device is back."""

    async def test_begun(self, server: FakeServer, connect: Connect) -> None:
        """It is the job that waits here, and no other."""
        async with connect() as tenant:
            _, upload = await deferred(tenant, server)
            server.output["up"] = ["INFO Successfully uploaded program.\n"]
            server.jobs.append(theirs())
            await told(tenant, server, "job_queued", theirs())
            assert tenant.job(upload).message is None
            await told(tenant, server, "job_started", theirs(status="running"))
            assert tenant.job(upload).status is _R
            server.jobs[-1] = theirs(status="completed")
            await told(tenant, server, "job_completed", server.jobs[-1])
            (upload,) = await tenant.ended(upload)

            assert upload.status is _C
            assert tenant.statuses(upload) == [_Q, _R, _C]
            assert len(tenant.builder.jobs) == 2
            assert not server.count("firmware/upload")
            assert not server.count(CLEAR)
            lines = await tenant.lines(upload)
            assert lines == ["INFO Successfully uploaded program."]

    async def test_converted(self, server: FakeServer, connect: Connect) -> None:
        """A device that went off during the compile is waited for, too."""
        takes(server, "install")
        async with connect() as tenant:
            _, upload = await tenant.submit("install", NAME)
            await until(lambda: server.count("firmware/install"))
            held = theirs("held", depends_on="install-1")
            await told(tenant, server, "job_queued", held)
            assert tenant.job(upload).message is None
            off = theirs(
                "held",
                "cancelled",
                started_at=None,
                depends_on="install-1",
                error=DEFERRED,
            )
            done = ended("install-1", is_deferred_install=True)
            server.jobs[:] = [done, off]
            await told(tenant, server, "job_completed", done)
            await told(tenant, server, "job_cancelled", off)
            await waiting(tenant, upload)
            # The same is told once more with the next connection.
            await server.connection.ws.close()
            await until(lambda: len(server.connections) > 1)
            await tenant.until(lambda: tenant.builder.info.state == "ready")
            await waiting(tenant, upload)

            await told(tenant, server, "job_started", theirs(status="running"))
            assert tenant.job(upload).status is _R
            assert len(tenant.builder.jobs) == 2

    async def test_failed_there(self, server: FakeServer, connect: Connect) -> None:
        """An upload that failed, and that the server will repeat, waits for that."""
        takes(server, "upload")
        async with connect() as tenant:
            (upload,) = await tenant.submit("upload", NAME)
            await until(lambda: server.count("firmware/upload"))
            await told(tenant, server, "job_started", theirs("upload-1", "running"))
            server.output["upload-1"] = MISSED
            failed = theirs("upload-1", "failed", exit_code=1, is_deferred_install=True)
            server.jobs[:] = [failed]
            await told(tenant, server, "job_failed", failed)
            await waiting(tenant, upload)
            assert tenant.statuses(upload) == [_Q, _R, _Q]

            server.output["up"] = ["INFO Successfully uploaded program.\n"]
            server.jobs.append(theirs(status="completed"))
            await told(tenant, server, "job_started", theirs(status="running"))
            await told(tenant, server, "job_completed", theirs(status="completed"))
            (upload,) = await tenant.ended(upload)
            assert upload.status is _C
            assert await tenant.lines(upload) == [
                MISSED[0].rstrip(),
                "INFO Successfully uploaded program.",
            ]

    async def test_restart(self, server: FakeServer, connect: Connect) -> None:
        """What the server began meanwhile is found, and it is still the same job."""
        async with connect() as tenant:
            _, upload = await deferred(tenant, server)
        async with connect() as tenant:
            await waiting(tenant, upload)
        server.jobs.append(theirs(status="completed"))
        server.output["up"] = ["INFO Successfully uploaded program.\n"]
        async with connect() as tenant:
            (upload,) = await tenant.ended(upload)
            assert upload.status is _C
            assert len(tenant.builder.jobs) == 2

    async def test_cancel(self, server: FakeServer, connect: Connect) -> None:
        """A cancel reaches the server, so that nothing is flashed by surprise."""
        async with connect() as tenant:
            _, upload = await deferred(tenant, server)
            job = await tenant.builder.cancel(upload.job_id)
        assert (job.status, job.cause) == (
            JobStatus.CANCELLED,
            Cause.CANCELLED_BY_USER,
        )
        assert job.message == "The job was canceled."
        assert (CLEAR, {"configuration": NAME}) in server.asked

    async def test_cancel_too_late(self, server: FakeServer, connect: Connect) -> None:
        """What the server has just begun is canceled as any other."""
        async with connect() as tenant:
            _, upload = await deferred(tenant, server)

            async def _cancel(*_: object) -> object:
                await server.connection.tell("job_cancelled", theirs("up", "cancelled"))
                return {}

            server.handlers["firmware/cancel"] = _cancel
            server.jobs.append(theirs())
            job = await tenant.builder.cancel(upload.job_id)
        assert (job.status, job.cause) == (
            JobStatus.CANCELLED,
            Cause.CANCELLED_BY_USER,
        )
        assert ("firmware/cancel", {"job_id": "up"}) in server.asked

    async def test_cannot_cancel(self, server: FakeServer, connect: Connect) -> None:
        """Where the server does not do it, that is said."""

        async def _refuse(*_: object) -> object:
            raise CommandRefusedError("unknown_command", "Unknown.")

        server.handlers[CLEAR] = _refuse
        async with connect() as tenant:
            _, upload = await deferred(tenant, server)
            job = await tenant.builder.cancel(upload.job_id)
        assert job.status is JobStatus.CANCELLED
        assert job.message == (
            "The job was canceled; ESPHome Device Builder may still install it when "
            "the device is back."
        )

    async def test_cancel_without_a_connection(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """What cannot be canceled now stays."""
        async with connect() as tenant:
            _, upload = await deferred(tenant, server)
            await server.stop()
            await tenant.until(lambda: tenant.builder.info.state == "unavailable")
            with pytest.raises(BuilderUnavailableError):
                await tenant.builder.cancel(upload.job_id)
            assert tenant.job(upload).status is _Q

    @pytest.mark.parametrize("connected", [True, False])
    async def test_too_long(
        self, server: FakeServer, connect: Connect, connected: bool
    ) -> None:
        """When it has waited for too long, the server shall not do it either."""
        async with connect() as tenant:
            _, upload = await deferred(tenant, server)
        if not connected:
            await server.stop()
        async with connect(ready=connected, device_wait=0.001) as tenant:
            (upload,) = await tenant.ended(upload)
        assert (upload.status, upload.cause) == (
            JobStatus.FAILED,
            Cause.DEVICE_OFFLINE,
        )
        assert upload.message is not None
        assert upload.message.startswith("The device was off or asleep for 0.001 sec")
        assert ("may still install it" in upload.message) is not connected
        assert server.count(CLEAR) == connected

    async def test_install_again(self, server: FakeServer, connect: Connect) -> None:
        """A newer install takes the place, and stays armed."""
        async with connect() as tenant:
            _, first = await deferred(tenant, server)
            build, second = await tenant.submit("install", NAME)
            await until(lambda: server.count("firmware/install") == 2)
            done = ended("install-2", is_deferred_install=True)
            await told(tenant, server, "job_completed", done)
            build, first = await tenant.ended(build, first)
            await waiting(tenant, second)
        assert (first.status, first.cause) == (JobStatus.CANCELLED, Cause.SUPERSEDED)
        assert not server.count(CLEAR)

    @pytest.mark.parametrize("begun", [True, False])
    async def test_somebody_else_knows_better(
        self, server: FakeServer, connect: Connect, begun: bool
    ) -> None:
        """What is back for Home Assistant need not wait for the server to notice."""
        takes(server, "upload")
        devices = FakeDevices()
        async with connect(devices=devices) as tenant:
            _, upload = await deferred(tenant, server)
            devices.set("kitchen", online=False)
            await waiting(tenant, upload)
            if begun:
                server.jobs.append(theirs())
            devices.connect("kitchen")
            await until(lambda: server.count(CLEAR))
            if begun:
                await tenant.until(lambda: tenant.job(upload).message is None)
                await told(tenant, server, "job_started", theirs(status="running"))
            else:
                await until(lambda: server.count("firmware/upload"))
                running = theirs("upload-1", "running")
                await told(tenant, server, "job_started", running)
            assert tenant.job(upload).status is _R
            assert server.count("firmware/upload") == (not begun)
            assert len(tenant.builder.jobs) == 2

    async def test_back_meanwhile(self, server: FakeServer, connect: Connect) -> None:
        """A device may be back when the compile ends, before its output is here."""
        takes(server, "install", is_deferred_install=True)
        async with connect() as tenant:
            build, upload = await tenant.submit("install", NAME)
            await until(lambda: server.count("firmware/install"))
            done = ended("install-1", is_deferred_install=True)
            server.jobs[:] = [done, theirs()]
            await server.connection.tell("job_completed", done)
            await told(tenant, server, "job_queued", theirs())
            await tenant.ended(build)
            await told(tenant, server, "job_started", theirs(status="running"))
            assert tenant.job(upload).status is _R
            assert len(tenant.builder.jobs) == 2

    async def test_break(self, server: FakeServer, connect: Connect) -> None:
        """What cannot be taken back now is with the next connection."""
        takes(server, "upload")
        devices = FakeDevices()

        async def _break(connection: Connection, *_: object) -> object:
            server.handlers[CLEAR] = _accept
            await connection.ws.close()
            return {}

        async with connect(devices=devices) as tenant:
            _, upload = await deferred(tenant, server)
            server.handlers[CLEAR] = _break
            devices.set("kitchen", online=True)
            await until(lambda: server.count("firmware/upload"))
            assert server.count(CLEAR) == 2
            assert tenant.job(upload).status is _Q

    async def test_cancel_while_it_is_taken_back(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """It is not sent then, and the server is asked only once."""
        answer = asyncio.Event()

        async def _slow(*_: object) -> object:
            await answer.wait()
            return {}

        devices = FakeDevices()
        server.handlers[CLEAR] = _slow
        async with connect(devices=devices) as tenant:
            _, upload = await deferred(tenant, server)
            devices.set("kitchen", online=True)
            await until(lambda: server.count(CLEAR))
            canceling = asyncio.create_task(tenant.builder.cancel(upload.job_id))
            await told(tenant, server, "job_progress", {})
            answer.set()
            job = await canceling
            assert job.message == "The job was canceled."
            assert server.count(CLEAR) == 1
            assert not server.count("firmware/upload")

    async def test_stop_while_it_is_taken_back(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """It waits again after the restart."""

        async def _say_nothing(*_: object) -> object:
            return await asyncio.Event().wait()

        devices = FakeDevices()
        # Nobody waits until the server is given up.
        async with asyncio.timeout(20), connect(devices=devices) as tenant:
            _, upload = await deferred(tenant, server)
            server.handlers[CLEAR] = _say_nothing
            devices.set("kitchen", online=True)
            await until(lambda: server.count(CLEAR))
        devices.set("kitchen", online=False)
        async with connect(devices=devices) as tenant:
            await waiting(tenant, upload)

    async def test_nonsense(self, server: FakeServer, connect: Connect) -> None:
        """A list of jobs that is none tells nothing of what was begun."""

        async def _nonsense(*_: object) -> object:
            return 5

        async with connect() as tenant:
            _, upload = await deferred(tenant, server)
            server.handlers["firmware/get_jobs"] = _nonsense
            job = await tenant.builder.cancel(upload.job_id)
        assert "may still install it" in (job.message or "")


class TestNotHeld:
    """An upload that the server holds, but that nobody shall wait for."""

    async def install(self, tenant: Tenant, server: FakeServer) -> list[Job]:
        """Let the server put an install off; return the jobs when they have ended."""
        takes(server, "install", is_deferred_install=True)
        jobs = await tenant.submit("install", NAME)
        await until(lambda: server.count("firmware/install"))
        server.jobs[:] = [ended("install-1", is_deferred_install=True)]
        await told(tenant, server, "job_completed", server.jobs[0])
        return await tenant.ended(*jobs)

    async def test_install(self, server: FakeServer, connect: Connect) -> None:
        """The server shall not flash it by surprise later."""
        async with connect(device_wait=0.0) as tenant:
            build, upload = await self.install(tenant, server)
        assert (build.status, build.message) == (_C, None)
        assert (upload.status, upload.cause) == (
            JobStatus.FAILED,
            Cause.DEVICE_OFFLINE,
        )
        assert upload.message == "The device is offline, so nothing was sent to it."
        assert (CLEAR, {"configuration": NAME}) in server.asked

    async def test_refused(self, server: FakeServer, connect: Connect) -> None:
        """Where the server does not know how, that is said."""
        del server.handlers[CLEAR]
        async with connect(device_wait=0.0) as tenant:
            _, upload = await self.install(tenant, server)
        assert upload.status is JobStatus.FAILED
        assert upload.message == (
            "The device is offline, so nothing was sent to it; ESPHome Device Builder "
            "may still install it when the device is back."
        )

    async def test_begun(self, server: FakeServer, connect: Connect) -> None:
        """What the server has begun before goes on, and ends as it does."""

        async def _begin(*_: object) -> object:
            server.jobs.append(theirs())
            return {}

        server.handlers[CLEAR] = _begin
        takes(server, "install", is_deferred_install=True)
        async with connect(device_wait=0.0) as tenant:
            build, upload = await tenant.submit("install", NAME)
            await until(lambda: server.count("firmware/install"))
            server.jobs[:] = [ended("install-1", is_deferred_install=True)]
            await told(tenant, server, "job_completed", server.jobs[0])
            await tenant.ended(build)
            await until(lambda: server.count("firmware/get_jobs"))
            await told(tenant, server, "job_completed", theirs(status="completed"))
            (upload,) = await tenant.ended(upload)
            assert upload.status is _C
            assert len(tenant.builder.jobs) == 2

    @pytest.mark.parametrize(
        "end",
        [
            theirs("upload-1", "cancelled", started_at=None, error=DEFERRED),
            theirs("upload-1", "failed", exit_code=1, is_deferred_install=True),
        ],
        ids=["before", "after"],
    )
    async def test_upload(self, server: FakeServer, connect: Connect, end: Any) -> None:  # noqa: ANN401 - any job
        """The same where it was put off before it began, or after it failed."""
        takes(server, "upload")
        async with connect(device_wait=0.0) as tenant:
            (upload,) = await asked(tenant, RequestKind.UPLOAD)
            await until(lambda: server.count("firmware/upload"))
            server.output["upload-1"] = MISSED
            server.jobs[:] = [end]
            await told(tenant, server, "job_cancelled", end)
            (upload,) = await tenant.ended(upload)
        assert upload.message == "The device is offline, so nothing was sent to it."
        assert server.count(CLEAR) == 1

    async def test_of_somebody_else(self, server: FakeServer, connect: Connect) -> None:
        """What others asked the server for is theirs."""
        async with connect(device_wait=0.0) as tenant:
            await told(tenant, server, "job_queued", theirs())
            (upload,) = tenant.builder.jobs.values()
            end = theirs("up", "cancelled", started_at=None, error=DEFERRED)
            await told(tenant, server, "job_cancelled", end)
            (upload,) = await tenant.ended(upload)
        assert (upload.status, upload.cause) == (
            JobStatus.CANCELLED,
            Cause.DEVICE_OFFLINE,
        )
        assert "installs it when the device is back" in (upload.message or "")
        assert not server.count(CLEAR)

    async def test_canceled(self, server: FakeServer, connect: Connect) -> None:
        """What was canceled during the compile is not held either."""
        takes(server, "install", is_deferred_install=True)
        async with connect() as tenant:
            build, upload = await tenant.submit("install", NAME)
            await until(lambda: server.count("firmware/install"))
            await tenant.until(lambda: not tenant.builder._in_doubt(build.job_id))
            canceling = asyncio.create_task(tenant.builder.cancel(upload.job_id))
            done = ended("install-1", is_deferred_install=True)
            await told(tenant, server, "job_completed", done)
            job = await canceling
        assert (job.status, job.message) == (
            JobStatus.CANCELLED,
            "The job was canceled.",
        )
        assert server.count(CLEAR) == 1

    async def test_canceled_in_vain(self, server: FakeServer, connect: Connect) -> None:
        """What was canceled before its compile failed has ended for the former."""
        takes(server, "install")
        async with connect() as tenant:
            build, upload = await tenant.submit("install", NAME)
            await until(lambda: server.count("firmware/install"))
            await tenant.until(lambda: not tenant.builder._in_doubt(build.job_id))
            canceling = asyncio.create_task(tenant.builder.cancel(upload.job_id))
            failed = ended("install-1", "failed", exit_code=1)
            await told(tenant, server, "job_failed", failed)
            job = await canceling
        assert job.cause is Cause.CANCELLED_BY_USER


class TestHeld:
    """An upload to a device that Home Assistant knows to be off."""

    async def test_install(self, server: FakeServer, connect: Connect) -> None:
        """It is compiled for, and sent to when it is back."""
        takes(server, "compile")
        takes(server, "upload")
        devices = FakeDevices(kitchen=False)
        async with connect(devices=devices) as tenant:
            build, upload = await tenant.submit("install", NAME)
            await until(lambda: server.count("firmware/compile"))
            await told(tenant, server, "job_completed", ended("compile-1"))
            await tenant.ended(build)
            await waiting(tenant, upload)
            assert not server.count("firmware/upload")

            devices.connect("kitchen")
            await until(lambda: server.count("firmware/upload"))
            assert not server.count("firmware/install")
            assert not server.count(CLEAR)

    async def test_cancel(self, server: FakeServer, connect: Connect) -> None:
        """What only waits here ends at once, whether there is a connection or not."""
        async with connect(devices=FakeDevices(kitchen=False)) as tenant:
            (upload,) = await tenant.submit("upload", NAME)
            await waiting(tenant, upload)
            await server.stop()
            await tenant.until(lambda: tenant.builder.info.state == "unavailable")
            job = await tenant.builder.cancel(upload.job_id)
        assert job.message == "The job was canceled."

    async def test_too_long(self, server: FakeServer, connect: Connect) -> None:
        """It does not wait for ever."""
        devices = FakeDevices(kitchen=False)
        async with connect(devices=devices, device_wait=0.1) as tenant:
            job = await tenant.run("upload", NAME)
        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.DEVICE_OFFLINE)
        assert not server.count("firmware/upload")

    async def test_no_wait(self, server: FakeServer, connect: Connect) -> None:
        """Where nothing waits, it is sent whatever is known of the device."""
        takes(server, "upload")
        devices = FakeDevices(kitchen=False)
        async with connect(devices=devices, device_wait=0.0) as tenant:
            (upload,) = await tenant.submit("upload", NAME)
            await until(lambda: server.count("firmware/upload"))
            assert tenant.job(upload).message is None

    async def test_again(self, server: FakeServer, connect: Connect) -> None:
        """An upload that did not reach its device waits, also over a restart."""
        takes(server, "upload")
        devices = FakeDevices(kitchen=True)
        async with connect(devices=devices) as tenant:
            (upload,) = await tenant.submit("upload", NAME)
            await until(lambda: server.count("firmware/upload"))
            await told(tenant, server, "job_started", theirs("upload-1", "running"))
            devices.set("kitchen", online=False)
            server.output["upload-1"] = MISSED
            server.jobs[:] = [theirs("upload-1", "failed", exit_code=1)]
            await told(tenant, server, "job_failed", server.jobs[0])
            await waiting(tenant, upload)
        async with connect(devices=devices) as tenant:
            await waiting(tenant, upload)
            assert len(tenant.builder.jobs) == 1
            devices.connect("kitchen")
            await until(lambda: server.count("firmware/upload") == 2)
            # What is told of the attempt before is nothing new.
            await told(tenant, server, "job_failed", server.jobs[0])
            await told(tenant, server, "job_started", theirs("upload-2", "running"))
            assert tenant.job(upload).status is _R
            assert len(tenant.builder.jobs) == 1
            server.output["upload-2"] = ["INFO Successfully uploaded program.\n"]
            server.jobs[1:] = [theirs("upload-2", "completed")]
            await told(tenant, server, "job_completed", server.jobs[1])
            await tenant.until(lambda: tenant.job(upload).phase is Phase.VERIFYING)


class TestVerifying:
    """An upload that has ended when its device is back."""

    async def sent(self, tenant: Tenant, server: FakeServer) -> Job:
        """Let the server install something; return the upload, which waits."""
        takes(server, "install")
        _, upload = await tenant.submit("install", NAME)
        await until(lambda: server.count("firmware/install"))
        await told(tenant, server, "job_completed", ended("install-1"))
        fields = {"depends_on": "install-1"}
        await told(tenant, server, "job_started", theirs("up", "running", **fields))
        server.output["up"] = ["INFO Successfully uploaded program.\n"]
        done = theirs("up", "completed", **fields)
        server.jobs[:] = [ended("install-1"), done]
        await told(tenant, server, "job_completed", done)
        await tenant.until(lambda: tenant.job(upload).phase is Phase.VERIFYING)
        return tenant.job(upload)

    async def test_back(self, server: FakeServer, connect: Connect) -> None:
        """The version that was built has to run there."""
        devices = FakeDevices(kitchen=True)
        async with connect(devices=devices) as tenant:
            upload = await self.sent(tenant, server)
            assert (upload.status, upload.exit_code) == (_R, 0)
            # It is told again with each connection.
            await told(tenant, server, "job_completed", server.jobs[1])
            devices.connect("kitchen", version="2026.9.0")
            assert tenant.job(upload).status is _R
            devices.set("kitchen", version="2026.10.0")
            (upload,) = await tenant.ended(upload)
            assert upload.status is _C
            assert tenant.statuses(upload) == [_Q, _R, _C]
            assert (await tenant.lines(upload))[0] == (
                "INFO Successfully uploaded program."
            )

    async def test_not_back(
        self, server: FakeServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A device that does not come back has not taken it."""
        monkeypatch.setattr(verification_module, "VERIFY_SECONDS", 0.2)
        async with connect(devices=FakeDevices(kitchen=True)) as tenant:
            (upload,) = await tenant.ended(await self.sent(tenant, server))
        assert (upload.status, upload.cause) == (JobStatus.FAILED, Cause.NOT_VERIFIED)

    async def test_restart(self, server: FakeServer, connect: Connect) -> None:
        """The wait goes on after a restart, whether the server is there or not."""
        devices = FakeDevices(kitchen=True)
        async with connect(devices=devices) as tenant:
            upload = await self.sent(tenant, server)
        devices.set("kitchen", online=False)
        async with connect(devices=devices) as tenant:
            assert tenant.job(upload).phase is Phase.VERIFYING
            devices.connect("kitchen", version="2026.10.0")
            (upload,) = await tenant.ended(upload)
        assert upload.status is _C

    async def test_forgotten(self, server: FakeServer, connect: Connect) -> None:
        """What the server no longer knows after a restart is still waited for."""
        devices = FakeDevices(kitchen=True)
        async with connect(devices=devices) as tenant:
            upload = await self.sent(tenant, server)
        server.jobs.clear()
        async with connect(devices=devices) as tenant:
            assert tenant.job(upload).phase is Phase.VERIFYING
            devices.connect("kitchen", version="2026.10.0")
            (upload,) = await tenant.ended(upload)
        assert upload.status is _C

    async def test_cancel(self, server: FakeServer, connect: Connect) -> None:
        """Nobody has to be asked to wait no longer."""
        async with connect(devices=FakeDevices(kitchen=True)) as tenant:
            upload = await self.sent(tenant, server)
            await server.stop()
            await tenant.until(lambda: tenant.builder.info.state == "unavailable")
            job = await tenant.builder.cancel(upload.job_id)
        assert job.message == (
            "The job was canceled; the firmware had been sent already."
        )

    async def test_over_before_it_was_seen(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """A device that may have come back before has to be there, no more."""
        takes(server, "upload")
        devices = FakeDevices(kitchen=True)
        async with connect(devices=devices) as tenant:
            (upload,) = await tenant.submit("upload", NAME)
            await until(lambda: server.count("firmware/upload"))
            server.output["upload-1"] = ["INFO Successfully uploaded program.\n"]
            server.jobs[:] = [theirs("upload-1", "completed")]
            await told(tenant, server, "job_completed", server.jobs[0])
            (upload,) = await tenant.ended(upload)
        assert upload.status is _C
