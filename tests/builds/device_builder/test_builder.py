"""The builder with a fake server: what it makes of what it is told, and of rubbish."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from custom_components.esphome_builds.builds.builder import (
    BuilderUnavailableError,
    BuildRequest,
    InvalidRequestError,
    UnknownConfigurationError,
)
from custom_components.esphome_builds.builds.device_builder import (
    builder as builder_module,
    checks as checks_module,
    client as client_module,
    copies as copies_module,
    output as output_module,
)
from custom_components.esphome_builds.builds.device_builder.ties import Ties
from custom_components.esphome_builds.builds.models import (
    BuilderState,
    Cause,
    ConfigurationRemovedEvent,
    Job,
    JobEvent,
    JobKind,
    JobStatus,
    Phase,
    RequestKind,
)
from custom_components.esphome_builds.builds.store import Stored

from ..stand_in import make_job
from .conftest import Connect, Tenant
from .fake_server import (
    GREETING,
    CommandRefusedError,
    Connection,
    FakeServer,
    device,
    ended,
    server_job,
)

_Q, _R, _C = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED
NAME = "kitchen.yaml"


def takes(server: FakeServer, command: str, **answer: object) -> None:
    """Let the server take a request for a job."""

    async def _take(_: Connection, __: str, arguments: dict[str, Any]) -> object:
        job = server_job(
            f"{command}-{server.count(f'firmware/{command}')}",
            job_type="compile" if command == "install" else command,
            configuration=arguments["configuration"],
        )
        job |= answer
        server.jobs.append(job)
        return job

    server.handlers[f"firmware/{command}"] = _take


async def told(tenant: Tenant, server: FakeServer, event: str, job: object) -> None:
    """Let the server tell of a job, and wait until that is heard."""
    await server.connection.tell(event, job)
    client = tenant.builder._client
    assert client is not None
    await client.command("ping")


async def _accept(*_: object) -> object:
    return {}


async def _refuse(*_: object) -> object:
    raise CommandRefusedError("not_found", "It is gone.")


async def until(condition: Any) -> None:  # noqa: ANN401
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the server tells no events
            await asyncio.sleep(0.01)


class TestConfigurations:
    """What is known of the server's devices."""

    async def test_fields(self, connect: Connect) -> None:
        """A device of the server is a configuration; what is unknown is null."""
        async with connect() as tenant:
            (found,) = tenant.builder.configurations.values()
        assert found.as_dict() | {"entry_id": ""} == {
            "entry_id": "",
            "configuration": NAME,
            "name": "kitchen",
            "friendly_name": "Kitchen",
            "area": None,
            "comment": None,
            "platform": "esp32",
            "built_version": None,
            "built_hash": "12345678",
            "deployed_version": "2026.9.0",
            "deployed_hash": "87654321",
            "online": True,
            "update_available": True,
            "pending_changes": True,
            "device_id": None,
            "active_job_id": None,
            "last_job_id": None,
            "error": None,
        }

    @pytest.mark.parametrize(
        ("deployed", "newer"),
        [("2026.9.9", True), ("2026.10.0", False), ("2026.11.0", False), ("", None)],
    )
    async def test_update(
        self, server: FakeServer, connect: Connect, deployed: str, newer: bool | None
    ) -> None:
        """An update is what is newer, not what is another."""
        state = {"state": "unknown", "deployed_version": deployed}
        server.devices = {"configured": [device(runtime_state=state)]}
        async with connect() as tenant:
            (found,) = tenant.builder.configurations.values()
        assert found.update_available is newer
        assert found.online is None

    async def test_few_fields(self, server: FakeServer, connect: Connect) -> None:
        """A server that tells little is understood, as is one of other shape."""
        server.devices = {
            "configured": [
                {"configuration": "a.yaml"},
                {"configuration": "b.yaml", "state": "offline"},
            ]
        }
        async with connect() as tenant:
            first, second = tenant.builder.configurations.values()
        assert (first.name, first.online, first.pending_changes) == (None, None, None)
        assert second.online is False

    async def test_changes(
        self,
        server: FakeServer,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """New and removed devices are noticed."""
        monkeypatch.setattr(builder_module, "LOOK_SECONDS", 0.05)
        async with connect() as tenant:
            server.devices = {"configured": [device("new.yaml")]}
            await tenant.until(lambda: [*tenant.builder.configurations] == ["new.yaml"])
            assert any(
                isinstance(it, ConfigurationRemovedEvent) for it in tenant.events
            )

    async def test_written_a_moment_ago(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """A request for a name that is not known looks again before it is refused."""
        takes(server, "compile")
        async with connect() as tenant:
            server.devices = {"configured": [device("new.yaml")]}
            assert await tenant.submit("compile", "new.yaml")
            with pytest.raises(UnknownConfigurationError):
                await tenant.submit("compile", "nobody.yaml")
            server.devices = 5
            with pytest.raises(BuilderUnavailableError):
                await tenant.submit("compile", "nobody.yaml")

    @pytest.mark.parametrize("devices", [5, {"configured": 5}, {"configured": [5]}])
    async def test_nonsense(
        self, server: FakeServer, connect: Connect, devices: object
    ) -> None:
        """A list of devices that is none is an error, until there is one again."""
        async with connect() as tenant:
            good, server.devices = server.devices, devices
            tenant.builder._look_soon()
            await tenant.until(
                lambda: tenant.builder.info.state is BuilderState.UNAVAILABLE
            )
            assert "makes no sense" in (tenant.builder.info.message or "")
            server.devices = good
            await tenant.until(lambda: tenant.builder.info.state is BuilderState.READY)
            assert [*tenant.builder.configurations] == [NAME]


class TestMirror:
    """Jobs as the server tells of them."""

    async def test_history(self, server: FakeServer, connect: Connect) -> None:
        """What ended long ago is here without being told as news."""
        server.jobs = [
            ended("a"),
            ended("b", "failed", job_type="upload", port="OTA", exit_code=1),
            ended("c", job_type="rename"),
            ended("d", job_type="clean", source="remote"),
            ended("e", configuration=".esphome/.remote_builds/x/y.yaml"),
        ]
        server.output["a"] = ["kept\n"]
        async with connect() as tenant:
            first, second = tenant.builder.jobs.values()
            assert (first.kind, first.status) == (JobKind.COMPILE, _C)
            assert (second.kind, second.status) == (JobKind.UPLOAD, JobStatus.FAILED)
            assert (second.exit_code, second.cause) == (1, Cause.UNKNOWN)
            assert first.duration == 4
            assert second.address is None
            assert first.requested_by is None
            assert not tenant.steps()
            # Its output is fetched when somebody wants it.
            assert server.count("firmware/follow_job") == 0
            assert await tenant.lines(first) == ["kept"]
            assert tenant.job(first).total_lines == 1
            assert await tenant.lines(first) == ["kept"]
            assert server.count("firmware/follow_job") == 1

    async def test_long_history(
        self, server: FakeServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of what ended long ago there is no more than there is room for."""
        monkeypatch.setattr(builder_module, "HISTORY", 2)
        server.jobs = [ended("a"), ended("b"), ended("c"), server_job("d")]
        async with connect() as tenant:
            statuses = [job.status for job in tenant.builder.jobs.values()]
        assert sorted(statuses) == sorted([_C, _C, _Q])

    async def test_steps(self, server: FakeServer, connect: Connect) -> None:
        """Each step of somebody else's job is told once."""
        async with connect() as tenant:
            await told(tenant, server, "job_queued", server_job())
            (job,) = tenant.builder.jobs.values()
            assert job.status is _Q
            configuration = tenant.builder.configurations[NAME]
            assert configuration.active_job_id == job.job_id
            running = server_job(status="running", started_at="2026-11-24T12:00:01Z")
            await told(tenant, server, "job_started", running)
            # An answer that was faster than the stream.
            await told(tenant, server, "job_queued", server_job())
            assert tenant.job(job).status is _R
            server.output["a"] = [
                "... [output trimmed: 10 earlier line(s) elided]\n",
                "INFO Compiling app...\n",
                "error: x\r\n",
            ]
            await told(tenant, server, "job_completed", ended())
            await told(tenant, server, "job_completed", ended())
            (job,) = await tenant.ended(job)
            assert tenant.statuses(job) == [_Q, _R, _C]
            assert (job.total_lines, job.elided_lines) == (12, 10)
            log = await tenant.builder.open_log(job.job_id)
            assert log.gaps == [(0, 9)]
            await told(tenant, server, "job_started", running)
            assert tenant.job(job) == job

    async def test_progress(self, server: FakeServer, connect: Connect) -> None:
        """Phase and percentage come from lines that anybody may miss."""
        async with connect() as tenant:
            running = server_job(status="running", progress=7)
            await told(tenant, server, "job_started", running)
            (job,) = tenant.builder.jobs.values()
            assert job.progress == 7
            lines = ["INFO Compiling app...\n", "[1/4] Compiling a.cpp\n"]
            for line in [*lines, "[2/4] Compiling b.cpp\n"]:
                await server.connection.tell(
                    "job_output", {"job_id": "a", "line": line}
                )
            await tenant.until(lambda: tenant.job(job).progress == 50)
            assert tenant.job(job).phase is Phase.COMPILING
            other = {"job_id": "unknown", "line": "x\n"}
            await told(tenant, server, "job_output", other)

    async def test_remote(self, server: FakeServer, connect: Connect) -> None:
        """Where a job runs is told, and that a build server was lost is a cause."""
        remote = {"source": "remote", "source_label": "attic", "status": "running"}
        async with connect() as tenant:
            pending = server_job(source="remote_pending")
            await told(tenant, server, "job_queued", pending)
            (job,) = tenant.builder.jobs.values()
            assert job.message == "It waits for a build server."
            running = server_job(**remote, source_esphome_version="2026.9.1")
            await told(tenant, server, "job_started", running)
            job = tenant.job(job)
            assert job.message == "It runs on the build server attic."
            assert job.esphome_version == "2026.9.1"
            again = running | {"started_at": "2026-11-24T13:00:00Z"}
            await told(tenant, server, "job_started", again)
            error = "remote build: server lost mid-build 4x (timeout)"
            lost = ended(status="failed") | {
                "source": "remote",
                "source_label": "attic",
                "error": error,
            }
            await told(tenant, server, "job_failed", lost)
            (job,) = await tenant.ended(job)
            assert (job.status, job.cause) == (
                JobStatus.FAILED,
                Cause.BUILDER_UNAVAILABLE,
            )
            assert job.message == "The build server attic was lost during the build."

    @pytest.mark.parametrize("known", [True, False])
    async def test_upload_that_was_not_told(
        self, server: FakeServer, connect: Connect, known: bool
    ) -> None:
        """An upload whose beginning was lost is asked for when its compile ended."""
        takes(server, "install")
        async with connect() as tenant:
            build, upload = await tenant.submit("install", NAME)
            await until(lambda: server.count("firmware/install"))
            if known:
                server.jobs.append(
                    ended("up", job_type="upload", depends_on="install-1", port="OTA")
                )
            await told(tenant, server, "job_completed", ended("install-1"))
            build, upload = await tenant.ended(build, upload)
            assert build.status is _C
            assert upload.status is (_C if known else JobStatus.INTERRUPTED)

    async def test_break_before_an_upload_is_found(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """An upload that is not there after a break is not sent again."""
        takes(server, "install")

        async def _break(connection: Connection, *_: object) -> object:
            await connection.ws.close()
            return []

        server.handlers["firmware/get_jobs"] = _break
        async with connect() as tenant:
            build, upload = await tenant.submit("install", NAME)
            await until(lambda: server.count("firmware/install"))
            server.jobs[:] = [ended("install-1")]
            await told(tenant, server, "job_completed", server.jobs[0])
            build, upload = await tenant.ended(build, upload)
            assert build.status is _C
            assert (upload.status, upload.cause) == (
                JobStatus.INTERRUPTED,
                Cause.BUILDER_UNAVAILABLE,
            )
            assert not server.count("firmware/upload")
            assert len(server.connections) == 2

    async def test_silent_job(
        self,
        server: FakeServer,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A job whose end was lost by the server's stream is asked for."""
        takes(server, "compile")
        async with connect() as tenant:
            jobs = await tenant.submit("compile", NAME)
            await until(lambda: server.count("firmware/compile"))
            server.jobs[:] = [ended("compile-1")]
            monkeypatch.setattr(builder_module, "LOOK_SECONDS", 0.05)
            tenant.builder._look_soon()
            (job,) = await tenant.ended(*jobs)
            assert job.status is _C

    async def test_forgotten_job(self, server: FakeServer, connect: Connect) -> None:
        """A job that the server has no longer when it is back ended somehow."""
        takes(server, "compile")
        async with connect() as tenant:
            jobs = await tenant.submit("compile", NAME)
            await until(lambda: server.count("firmware/compile"))
            server.jobs.clear()
            await server.connection.ws.close()
            (job,) = await tenant.ended(*jobs)
            assert (job.status, job.cause) == (
                JobStatus.INTERRUPTED,
                Cause.BUILDER_UNAVAILABLE,
            )


class TestRequests:
    """What is asked of the server."""

    @pytest.mark.parametrize(
        ("kind", "address", "command", "port"),
        [
            ("compile", None, "compile", None),
            ("clean", None, "clean", None),
            ("upload", None, "upload", "OTA"),
            ("upload", "10.0.0.1", "upload", "10.0.0.1"),
            ("install", None, "install", "OTA"),
            ("install", "10.0.0.1", "install", "10.0.0.1"),
        ],
    )
    async def test_commands(  # noqa: PLR0913, PLR0917 - what is varied
        self,
        server: FakeServer,
        connect: Connect,
        kind: str,
        address: str | None,
        command: str,
        port: str | None,
    ) -> None:
        """Each kind of request is one command."""
        takes(server, command)
        async with connect() as tenant:
            await tenant.submit(kind, NAME, address=address)
            await until(lambda: server.count(f"firmware/{command}"))
        (arguments,) = (it for name, it in server.asked if command in name)
        expected = {"configuration": NAME} | ({"port": port} if port else {})
        assert arguments == expected

    async def test_refused(self, server: FakeServer, connect: Connect) -> None:
        """What the server refuses has failed, with its words."""

        async def _refuse(*_: object) -> object:
            raise CommandRefusedError("invalid_args", "kitchen is being renamed")

        server.handlers["firmware/install"] = _refuse
        async with connect() as tenant:
            build, upload = await tenant.ended(*await tenant.submit("install", NAME))
            assert build.status is JobStatus.FAILED
            assert build.message == (
                "ESPHome Device Builder refused this job: kitchen is being renamed."
            )
            assert upload.status in (JobStatus.FAILED, JobStatus.CANCELLED)

    async def test_full_disk(
        self, server: FakeServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is asked for that a restart would not know of."""

        async def _fail() -> None:
            raise OSError(28, "No space left on device")

        takes(server, "compile")
        async with connect() as tenant:
            with monkeypatch.context() as patch:
                patch.setattr(tenant.builder._store, "flush", _fail)
                job = await tenant.run("compile", NAME)
        assert job.status is JobStatus.FAILED
        assert job.message == (
            "ESPHome Device Builder refused this job: the list of jobs cannot be "
            "stored here."
        )
        assert not server.count("firmware/compile")

    async def test_held_back(self, server: FakeServer, connect: Connect) -> None:
        """Nothing is sent for a configuration that the server works on, in any way."""
        takes(server, "compile")
        rename = server_job(
            "r", job_type="rename", configuration="a", new_name="kitchen"
        )
        server.jobs = [rename]
        async with connect() as tenant:
            (job,) = await tenant.submit("compile", NAME)
            await asyncio.sleep(0.1)
            assert server.count("firmware/compile") == 0
            assert tenant.job(job).status is _Q
            await told(
                tenant, server, "job_completed", rename | {"status": "completed"}
            )
            await until(lambda: server.count("firmware/compile") == 1)

    async def test_install_after_a_compile(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """An install that attaches to a compile uploads after it, on its own."""
        takes(server, "compile")
        takes(server, "upload")
        async with connect() as tenant:
            (build,) = await tenant.submit("compile", NAME)
            await until(lambda: server.count("firmware/compile") == 1)
            same, upload = await tenant.submit("install", NAME)
            assert same.job_id == build.job_id
            await told(tenant, server, "job_completed", ended("compile-1"))
            await until(lambda: server.count("firmware/upload") == 1)
            await told(
                tenant, server, "job_completed", ended("upload-1", job_type="upload")
            )
            (upload,) = await tenant.ended(upload)
            assert upload.status is _C

    @pytest.mark.parametrize(("text", "attached"), [("esphome:", True), (None, False)])
    async def test_attach_to_what_runs(
        self, server: FakeServer, connect: Connect, text: object, attached: bool
    ) -> None:
        """A request attaches to what runs only if that is known to be the same."""
        takes(server, "compile")
        server.text = text
        async with connect() as tenant:
            (job,) = await tenant.submit("compile", NAME)
            running = server_job("compile-1", status="running")
            await told(tenant, server, "job_started", running)
            await tenant.until(lambda: tenant.job(job).status is _R)
            (second,) = await tenant.submit("compile", NAME)
            assert (second.job_id == job.job_id) is attached

    async def test_no_attaching_after_a_restart(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """Of what ran before, nobody knows any more what it works on."""
        takes(server, "compile")
        server.jobs = [server_job("a", status="running")]
        async with connect() as tenant:
            (job,) = tenant.builder.jobs.values()
            assert job.status is _R
        async with connect() as tenant:
            (second,) = await tenant.submit("compile", NAME)
            assert second.job_id != job.job_id

    async def test_ended_by_two(self, server: FakeServer, connect: Connect) -> None:
        """Whoever wanted the end first is the cause."""
        takes(server, "compile")
        server.handlers["firmware/cancel"] = _accept
        async with connect() as tenant:
            (job,) = await tenant.submit("compile", NAME)
            running = server_job("compile-1", status="running")
            await told(tenant, server, "job_started", running)
            await tenant.until(lambda: tenant.job(job).status is _R)
            await tenant.submit("compile", NAME, replace=True)
            canceling = asyncio.create_task(tenant.builder.cancel(job.job_id))
            await until(lambda: server.count("firmware/cancel") == 2)
            end = ended("compile-1", status="cancelled")
            await told(tenant, server, "job_cancelled", end)
            job = await canceling
            assert (job.status, job.cause) == (JobStatus.CANCELLED, Cause.SUPERSEDED)

    async def test_text_that_cannot_be_read(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """What a server refuses to show may be another one."""
        takes(server, "compile")
        async with connect() as tenant:
            (job,) = await tenant.submit("compile", NAME)
            running = server_job("compile-1", status="running")
            await told(tenant, server, "job_started", running)
            await tenant.until(lambda: tenant.job(job).status is _R)
            server.handlers["devices/get_config"] = _refuse
            (second,) = await tenant.submit("compile", NAME)
            assert second.job_id != job.job_id

    async def test_cancel_while_it_is_sent(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """A job that is canceled before the server answered is canceled there then."""
        takes(server, "compile")
        take, go = server.handlers["firmware/compile"], asyncio.Event()

        async def _slow(connection: Connection, *rest: Any) -> object:  # noqa: ANN401
            await go.wait()
            return await take(connection, *rest)

        async def _cancel(connection: Connection, *_: object) -> object:
            await connection.tell(
                "job_cancelled", ended("compile-1", "cancelled", started_at=None)
            )
            return None

        server.handlers |= {"firmware/compile": _slow, "firmware/cancel": _cancel}
        async with connect() as tenant:
            (job,) = await tenant.submit("compile", NAME)
            await until(lambda: server.count("firmware/compile"))
            task = asyncio.create_task(tenant.builder.cancel(job.job_id))
            await asyncio.sleep(0.05)
            go.set()
            job = await task
            assert (job.status, job.cause) == (
                JobStatus.CANCELLED,
                Cause.CANCELLED_BY_USER,
            )

    async def test_server_that_does_not_cancel(
        self,
        server: FakeServer,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Nobody waits for ever, and no job is called ended that is not."""
        monkeypatch.setattr(builder_module, "CANCEL_SECONDS", 0.1)
        takes(server, "compile", status="running")
        async with connect() as tenant:
            (job,) = await tenant.submit("compile", NAME)
            await tenant.until(lambda: tenant.job(job).status is _R)
            with pytest.raises(BuilderUnavailableError):
                await tenant.builder.cancel(job.job_id)
            assert tenant.job(job).status is _R

    async def test_broken_validate(self, server: FakeServer, connect: Connect) -> None:
        """A check that the server refuses, or tells no end of, has failed."""

        async def _refuse(*_: object) -> object:
            raise CommandRefusedError("unavailable", "Too many concurrent runs")

        async def _no_result(*_: object) -> object:
            return None

        server.handlers["devices/validate"] = _refuse
        async with connect() as tenant:
            job = await tenant.run("validate", NAME)
            assert job.message is not None
            assert "Too many" in job.message
            server.handlers["devices/validate"] = _no_result
            job = await tenant.run("validate", NAME)
            assert (job.status, job.attempt) == (JobStatus.INTERRUPTED, 2)
            assert job.cause is Cause.BUILDER_UNAVAILABLE

    async def test_stop_during_a_check(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """A check that Home Assistant does not wait for has ended with it."""

        async def _say_nothing(*_: object) -> object:
            return await asyncio.Event().wait()

        server.handlers["devices/validate"] = _say_nothing
        async with connect() as tenant:
            (job,) = await tenant.submit("validate", NAME)
            await until(lambda: server.count("devices/validate"))
        assert tenant.job(job).cause is Cause.HOME_ASSISTANT_STOPPED

    async def test_check_that_fails_here(
        self,
        server: FakeServer,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A mistake of ours is the end of one check, and of no other."""

        async def _valid(connection: Connection, message_id: str, _: object) -> object:
            await connection.event(message_id, "result", {"code": 0})
            return None

        server.handlers["devices/validate"] = _valid
        async with connect() as tenant:
            with monkeypatch.context() as patch:
                patch.setattr(checks_module, "LineSplitter", None)
                job = await tenant.run("validate", NAME)
            assert job.message == "ESPHome Builds had an internal error."
            assert f"Job {job.job_id} failed unexpectedly" in caplog.text
            caplog.clear()
            assert (await tenant.run("validate", NAME)).status is _C


class TestRubbish:
    """A server that misbehaves: an error, bounded memory, and another try."""

    @pytest.mark.parametrize(
        "job",
        [
            5,
            {},
            server_job() | {"job_id": 5},
            server_job(job_type=None),
            server_job(status=["queued"]),
            server_job(created_at="yesterday"),
            server_job(exit_code="0"),
            server_job(progress=True),
            server_job(output=[1]),
            server_job(output={}),
            server_job(is_deferred_install="yes"),
        ],
        ids=str,
    )
    async def test_wrong_types(
        self, server: FakeServer, connect: Connect, job: object
    ) -> None:
        """What has another type than ever ends the connection, and nothing else."""
        server.jobs = [job]
        async with connect(ready=False) as tenant:
            await tenant.until(lambda: len(server.connections) > 1)
            assert tenant.builder.info.state is BuilderState.UNAVAILABLE
            assert tenant.builder.info.message
            server.jobs = []
            await tenant.until(lambda: tenant.builder.info.state is BuilderState.READY)
            assert not tenant.builder.jobs

    @pytest.mark.parametrize(
        ("event", "data"),
        [
            ("job_queued", None),
            ("job_output", {"job_id": 5, "line": "x"}),
            ("job_output", {"job_id": "a", "line": None}),
        ],
    )
    async def test_wrong_events(
        self, server: FakeServer, connect: Connect, event: str, data: object
    ) -> None:
        """The same while all was well before."""
        async with connect() as tenant:
            await server.connection.tell(event, data)
            await tenant.until(lambda: len(server.connections) == 2)
            await tenant.until(lambda: tenant.builder.info.state is BuilderState.READY)

    @pytest.mark.parametrize(
        ("event", "data"),
        [
            ("job_moved_to_mars", 5),
            ("job_progress", {"job_id": "a"}),
            ("job_output", 5),
        ],
    )
    async def test_unknown_events(
        self, server: FakeServer, connect: Connect, event: str, data: object
    ) -> None:
        """What is not known is ignored."""
        async with connect() as tenant:
            await told(tenant, server, event, data)
            assert len(server.connections) == 1

    async def test_endless_snapshot(
        self,
        server: FakeServer,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A server that tells no end of jobs is left, and tried again."""
        monkeypatch.setattr(builder_module, "_MAX_SERVER_JOBS", 50)

        async def _endless(
            connection: Connection, message_id: str, _: object
        ) -> object:
            number = 0
            while not connection.ws.closed:
                number += 1
                await connection.event(message_id, "snapshot", server_job(f"j{number}"))
                await asyncio.sleep(0)
            return None

        server.handlers["firmware/follow_jobs"] = _endless
        async with connect(ready=False) as tenant:
            await tenant.until(lambda: len(server.connections) > 2)
            assert not tenant.builder.jobs
            del server.handlers["firmware/follow_jobs"]
            await tenant.until(lambda: tenant.builder.info.state is BuilderState.READY)

    async def test_no_answer_to_the_first_questions(
        self,
        server: FakeServer,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A server that falls silent is left, and tried again."""
        monkeypatch.setattr(builder_module, "SEED_SECONDS", 0.1)

        async def _silent(*_: object) -> object:
            await asyncio.sleep(0.3)
            return None

        server.handlers["ping"] = _silent
        async with connect(ready=False) as tenant:
            await tenant.until(lambda: len(server.connections) > 1)
            del server.handlers["ping"]
            await tenant.until(lambda: tenant.builder.info.state is BuilderState.READY)

    async def test_no_stream(self, server: FakeServer, connect: Connect) -> None:
        """A server without a command that is needed is unavailable, not a crash."""

        async def _refuse(*_: object) -> object:
            raise CommandRefusedError("unknown_command", "Unknown command")

        server.handlers["firmware/follow_jobs"] = _refuse
        async with connect(ready=False) as tenant:
            await tenant.until(lambda: len(server.connections) > 1)
            server.handlers["firmware/follow_jobs"] = _none
            await tenant.until(lambda: len(server.connections) > 3)
            server.handlers.clear()
            server.handlers["devices/list"] = _refuse
            await tenant.until(lambda: len(server.connections) > 5)
            server.handlers.clear()
            await tenant.until(lambda: tenant.builder.info.state is BuilderState.READY)

    async def test_flood_of_stored_output(
        self,
        server: FakeServer,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Of more stored output than is taken nothing is, and the job ends."""
        monkeypatch.setattr(output_module, "MAX_ENTRIES", 100)
        server.output["a"] = ["x\n"] * 200
        async with connect() as tenant:
            await told(tenant, server, "job_started", server_job(status="running"))
            (job,) = tenant.builder.jobs.values()
            await told(tenant, server, "job_completed", ended())
            (job,) = await tenant.ended(job)
            assert (job.status, job.total_lines) == (_C, 0)

    async def test_huge_line(
        self,
        server: FakeServer,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Output with a message that is too large is given up after one try."""
        monkeypatch.setattr(client_module, "MAX_MESSAGE_BYTES", 10_000)
        server.output["a"] = ["x" * 20_000]
        async with connect() as tenant:
            await told(tenant, server, "job_started", server_job(status="running"))
            (job,) = tenant.builder.jobs.values()
            server.jobs = [ended()]
            await told(tenant, server, "job_completed", ended())
            (job,) = await tenant.ended(job)
            assert (job.status, job.total_lines) == (_C, 0)
            assert server.count("firmware/follow_job") == 1


async def _none(*_: object) -> object:
    return None


class TestAccess:
    """A server that does not let us in."""

    async def test_invalid(
        self,
        server: FakeServer,
        connect: Connect,
        caplog: pytest.LogCaptureFixture,
        tmp_path: Path,
    ) -> None:
        """It is told once, and nothing secret is anywhere."""
        server.greeting = GREETING | {"requires_auth": True}

        async def _refuse(*_: object) -> object:
            raise CommandRefusedError("not_authenticated", "Invalid credentials")

        server.handlers["auth/login"] = _refuse
        calls: list[bool] = []
        async with connect(
            ready=False, on_invalid_auth=lambda: calls.append(True)
        ) as it:
            await it.until(lambda: it.builder.info.state is BuilderState.UNAVAILABLE)
            assert it.builder.auth_invalid
            assert calls == [True]
            assert "hunter2" not in repr(it.builder._settings)
            told = "".join(event.json.decode() for event in it.events)
        stored = (tmp_path / "cache" / "jobs.json").read_text()
        assert "hunter2" not in caplog.text + told + stored

    async def test_too_old(self, server: FakeServer, connect: Connect) -> None:
        """Why an old server is not used is said in plain words."""
        server.greeting = GREETING | {"server_version": "1.5.0"}
        async with connect(ready=False) as tenant:
            await tenant.until(
                lambda: tenant.builder.info.state is BuilderState.UNAVAILABLE
            )
            assert "1.14 or newer" in (tenant.builder.info.message or "")


class TestFollowing:
    """The output of a job that runs, for as long as somebody wants it."""

    @pytest.fixture
    async def running(
        self, server: FakeServer, connect: Connect
    ) -> AsyncGenerator[tuple[Tenant, Job]]:
        """Return a job that runs on the server."""
        server.jobs = [server_job("a", status="running")]
        server.output["a"] = ["first\n", "second\n"]
        async with connect() as tenant:
            (job,) = tenant.builder.jobs.values()
            yield tenant, job

    async def test_stream_that_ends(
        self, server: FakeServer, running: tuple[Tenant, Job]
    ) -> None:
        """What has come is there; the end itself is told by the other stream."""
        tenant, job = running
        log = await tenant.builder.open_log(job.job_id)
        await until(lambda: server.count("firmware/follow_job") == 1)
        assert log.total == 2
        assert tenant.job(job).status is _R

    @pytest.mark.parametrize("answer", [None, ended("a")])
    async def test_job_that_has_ended_there(
        self, server: FakeServer, running: tuple[Tenant, Job], answer: object
    ) -> None:
        """Nothing is followed that has no more to say."""

        async def _get_job(*_: object) -> object:
            return answer

        server.handlers["firmware/get_job"] = _get_job
        tenant, job = running
        log = await tenant.builder.open_log(job.job_id)
        assert log.total == 0
        assert server.count("firmware/follow_job") == 0

    async def test_follower_who_leaves(
        self,
        server: FakeServer,
        running: tuple[Tenant, Job],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """When nobody wants it any more, the server is asked to stop."""
        monkeypatch.setattr(copies_module, "FOLLOWED_SECONDS", 0.2)
        monkeypatch.setattr(output_module, "IDLE_SECONDS", 0.05)

        async def _say_nothing(*_: object) -> object:
            return await asyncio.Event().wait()

        server.handlers["firmware/follow_job"] = _say_nothing
        tenant, job = running
        await tenant.builder.open_log(job.job_id)
        await until(lambda: server.count("devices/stop_stream") == 1)

    async def test_refused(
        self, server: FakeServer, running: tuple[Tenant, Job]
    ) -> None:
        """A job whose output the server does not give ends as it did."""
        server.handlers["firmware/follow_job"] = _refuse
        tenant, job = running
        await tenant.builder.open_log(job.job_id)
        await until(lambda: server.count("firmware/follow_job") == 1)
        await told(tenant, server, "job_completed", ended("a"))
        (job,) = await tenant.ended(job)
        assert (job.status, job.total_lines) == (_C, 2)

    async def test_stop_while_it_is_followed(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """Home Assistant goes, and finds the job and its lines when it is back."""
        server.jobs = [server_job("a", status="running")]
        server.output["a"] = ["src/main.cpp:3:5: error: no such thing\n"]
        async with connect() as tenant:
            (job,) = tenant.builder.jobs.values()
            log = await tenant.builder.open_log(job.job_id)
            await tenant.until(lambda: tenant.job(job).total_lines == 1)
        assert not log.followed
        server.output["a"].append("more\n")
        async with connect() as tenant:
            await told(tenant, server, "job_failed", ended("a", "failed", exit_code=1))
            (job,) = await tenant.ended(job)
            assert (job.status, job.total_lines) == (JobStatus.FAILED, 2)
            assert job.cause is Cause.COMPILE_ERROR
            await server.stop()
            # What is here needs no server.
            assert (await tenant.builder.open_log(job.job_id)).total == 2

    async def test_late_and_without_a_server(
        self, server: FakeServer, connect: Connect
    ) -> None:
        """The output of a job that nobody followed cannot be got while it is gone."""
        server.jobs = [ended("a")]
        server.output["a"] = ["first\n"]
        async with connect() as tenant:
            (job,) = tenant.builder.jobs.values()
            await server.stop()
            await tenant.until(
                lambda: tenant.builder.info.state is BuilderState.UNAVAILABLE
            )
            assert (await tenant.builder.open_log(job.job_id)).total == 0


async def test_restart_with_damaged_ties(
    server: FakeServer, connect: Connect, tmp_path: Path
) -> None:
    """What ties jobs to the server's may be damaged, and the jobs are there still."""
    takes(server, "compile")
    async with connect() as tenant:
        (job,) = await tenant.submit("compile", NAME)
        await until(lambda: server.count("firmware/compile"))
        await until(lambda: tenant.builder._ties._ours)
    path = tmp_path / "cache" / "jobs.json"
    text = path.read_text()
    assert '"id":"compile-1"' in text
    path.write_text(text.replace('"id":"compile-1"', '"id":7'))
    server.jobs = [ended("compile-1", created_at=job.created_at.isoformat())]
    async with connect() as tenant:
        (job,) = await tenant.ended(job)
        assert job.status is _C
        assert len(tenant.builder.jobs) == 1


async def test_cannot_start(connect: Connect, tmp_path: Path) -> None:
    """Where a folder cannot be made there is a sentence for it."""
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BuilderUnavailableError), suppress(AttributeError):
        async with connect():
            pass


async def test_request_before_the_first_connection(
    server: FakeServer, connect: Connect
) -> None:
    """It waits until it is known whether the server can be used."""
    takes(server, "compile")
    async with connect(ready=False) as tenant:
        assert tenant.builder.info.state is BuilderState.CONNECTING
        (job,) = await tenant.submit("compile", NAME)
        assert job.status is _Q
    await server.stop()
    async with connect(ready=False) as tenant:
        with pytest.raises(BuilderUnavailableError, match="cannot be used"):
            await tenant.submit("compile", NAME)


async def test_stop_before_the_first_connection(
    server: FakeServer, connect: Connect
) -> None:
    """Who waits for it is told."""
    over = asyncio.Event()

    async def _say_nothing(_: Connection) -> None:
        await over.wait()

    server.greeting = _say_nothing
    async with connect(ready=False) as tenant:
        waiting = asyncio.create_task(tenant.submit("compile", NAME))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    with pytest.raises(BuilderUnavailableError):
        await asyncio.wait_for(waiting, 5)
    over.set()


async def test_quiet_is_no_step(connect: Connect, server: FakeServer) -> None:
    """History is told as change of no step, so that no automation runs."""
    server.jobs = [ended()]
    async with connect() as tenant:
        events = [it for it in tenant.events if isinstance(it, JobEvent)]
        assert [it.status_changed for it in events] == [False]
        job: Job = events[0].job
        assert job.status is _C


class TestTies:
    """Which job is which on the server."""

    def test_stored(self) -> None:
        """What is stored is what is loaded, of jobs that are known."""
        ties = Ties()
        ties.promise("1")
        ties.tie("1", "past")
        ties.tie("1", "a")
        ties.put_back("1", armed=True)
        ties.promise("2", chained=True)
        ties.promise("3")
        jobs = [make_job("1"), make_job("2")]
        found = Ties()
        found.load(Stored(jobs=jobs, extra=ties.stored()))
        assert set(found.jobs) == {"1", "2"}
        assert (found.server_id("1"), found.ours("a")) == ("a", "1")
        # What is told of the attempt before is of the same job.
        assert found.ours("past") == "1"
        assert found.waits("1")
        assert found.armed("1")
        assert not found.armed("2")
        assert "2" in found
        assert found.server_id("2") is None
        found.keep({"2"})
        assert found.ours("a") is None
        assert found.ours(None) is None

    @pytest.mark.parametrize("extra", [5, {"1": 5}, {"1": {"id": 5, "base": "x"}}])
    def test_damaged(self, extra: object) -> None:
        """What cannot be understood is left out."""
        found = Ties()
        found.load(Stored(jobs=[make_job("1")], extra={"server": extra}))
        assert found.server_id("1") is None


async def test_check_canceled_before_it_began(
    server: FakeServer, connect: Connect
) -> None:
    """A check that never began ends all the same."""
    async with connect() as tenant:
        submitted = asyncio.create_task(tenant.submit("validate", NAME))
        await asyncio.sleep(0)
        (job,) = tenant.builder.jobs.values()
        job = await tenant.builder.cancel(job.job_id)
        assert (job.status, job.cause) == (
            JobStatus.CANCELLED,
            Cause.CANCELLED_BY_USER,
        )
        await submitted
        assert server.count("devices/validate") == 0
        assert (await tenant.run("validate", NAME)).status.ended


async def test_its_esphome_is_not_ours(connect: Connect) -> None:
    """Nothing is installed on a server, and no firmware of it is kept here."""
    async with connect() as tenant:
        with pytest.raises(InvalidRequestError, match="does not install ESPHome"):
            await tenant.builder.install_esphome("2026.10.0")
        with pytest.raises(InvalidRequestError, match="does not install ESPHome"):
            await tenant.builder.go_back()
        with pytest.raises(InvalidRequestError, match="keeps no firmware"):
            await tenant.builder.submit(
                BuildRequest(
                    kind=RequestKind.UPLOAD,
                    configurations=(next(iter(tenant.builder.configurations)),),
                    firmware_job_id="1" * 22,
                )
            )
        assert not tenant.builder.jobs
