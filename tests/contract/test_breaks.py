"""What becomes of jobs when the server or the way to it fails."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
import signal

from aiohttp import ClientSession
import pytest

from custom_components.esphome_builds.builds.builder import BuilderUnavailableError
from custom_components.esphome_builds.builds.device_builder.client import probe
from custom_components.esphome_builds.builds.device_builder.errors import (
    InvalidAuthError,
)
from custom_components.esphome_builds.builds.models import (
    BuilderEvent,
    Cause,
    JobStatus,
)

from ..fakes import fake_calls, write_configuration
from .conftest import Connect, Tenant
from .peer import Peer, Proxy, Watcher, servers
from .test_jobs import followed, lines_of

pytestmark = pytest.mark.usefixtures("impatient")

_Q, _R, _C = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED


@pytest.fixture
async def proxy(peer: Peer) -> AsyncGenerator[Proxy]:
    """Return a way to the server that can be disturbed."""
    proxy = await Proxy(peer.port).start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def own_peer(tmp_path: Path, version: str) -> AsyncGenerator[Peer]:
    """Return a server that a test may kill."""
    peer = Peer(tmp_path / "own", servers()[version], fake=True)
    await asyncio.to_thread(peer.start)
    yield peer
    await asyncio.to_thread(peer.stop)


def url(proxy: Proxy) -> str:
    """Return where a proxy listens."""
    return f"http://127.0.0.1:{proxy.port}"


def downs(tenant: Tenant) -> list[str]:
    """Return the states of the builder that were told, each change once."""
    states: list[str] = []
    for event in tenant.events:
        if isinstance(event, BuilderEvent) and states[-1:] != [event.builder.state]:
            states.append(event.builder.state)
    return states


async def until_down(tenant: Tenant) -> None:
    """Wait until the builder says that it has no server."""
    await tenant.until(lambda: tenant.builder.info.state == "unavailable")


async def until_up(tenant: Tenant) -> None:
    """Wait until the builder takes jobs."""
    await tenant.until(lambda: tenant.builder.info.state == "ready")


class TestProxy:
    """A way to the server that cuts, delays and truncates."""

    async def test_cut_while_following(
        self,
        peer: Peer,
        proxy: Proxy,
        connect: Connect,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A follower goes on where it was, and what was printed meanwhile is there."""
        name = write_configuration(
            peer.config_dir,
            "cut",
            "compile: lines 10",
            "compile: wait cut-1",
            "compile: lines 100",
            "compile: mark cut-marked",
            "compile: wait cut-2",
            "compile: print end",
        )
        async with connect(url(proxy)) as tenant:
            (job,) = await tenant.submit("compile", name)
            await tenant.until(lambda: tenant.job(job).status is _R)
            task = asyncio.create_task(followed(tenant, job))
            await tenant.until(lambda: tenant.job(job).total_lines == 10)
            caplog.clear()
            await proxy.refuse()
            await until_down(tenant)
            assert tenant.builder.info.message
            assert tenant.job(job).status is _R
            (peer.config_dir / "cut-1").touch()
            marked = peer.config_dir / "cut-marked"
            await tenant.until(marked.exists)
            # What was printed may still be on its way into the server.
            await asyncio.sleep(1)
            await proxy.start()
            await until_up(tenant)
            (peer.config_dir / "cut-2").touch()

            lines = lines_of(await task)

            assert [*lines.values()] == [
                *(f"line {number}" for number in range(10)),
                *(f"line {number}" for number in range(100)),
                "end",
            ]
            assert tenant.statuses(job) == [_Q, _R, _C]
            assert tenant.job(job).attempt == 1
            levels = [
                it.levelname for it in caplog.records if "Device Builder" in it.msg
            ]
            assert levels == ["WARNING", "INFO"]

    async def test_ended_meanwhile(
        self, peer: Peer, proxy: Proxy, connect: Connect, watcher: Watcher
    ) -> None:
        """What ended during a break ends here once, with its status and output."""
        names = [
            write_configuration(
                peer.config_dir,
                f"meanwhile-{code}",
                "compile: print x",
                "compile: wait meanwhile-go",
                f"compile: exit {code}",
            )
            for code in (0, 1)
        ]
        async with connect(url(proxy)) as tenant:
            jobs = await tenant.submit("compile", *names)
            await tenant.until(lambda: tenant.job(jobs[0]).status is _R)
            await proxy.refuse()
            await until_down(tenant)
            with pytest.raises(BuilderUnavailableError):
                await tenant.submit("clean", *names)
            with pytest.raises(BuilderUnavailableError):
                await tenant.builder.cancel(jobs[0].job_id)
            (peer.config_dir / "meanwhile-go").touch()
            other = write_configuration(peer.config_dir, "meanwhile-other")
            theirs = await watcher.call("firmware/compile", configuration=other)
            while True:
                told = await watcher.call("firmware/get_jobs")
                if all(it["completed_at"] for it in told):
                    break
                await asyncio.sleep(0.05)
            assert theirs["job_id"]
            await proxy.start()

            first, second = await tenant.ended(*jobs)

            assert (first.status, second.status) == (_C, JobStatus.FAILED)
            assert await tenant.lines(second) == ["x"]
            for job in (first, second):
                steps = [
                    it.job.status
                    for it in tenant.steps()
                    if it.job.job_id == job.job_id
                ]
                assert steps == [_Q, _R, job.status]
            # What somebody else did meanwhile came, too.
            await tenant.until(lambda: bool(tenant.of(other)))

    @pytest.mark.parametrize("kind", ["compile", "upload", "install"])
    async def test_lost_answer(
        self, peer: Peer, proxy: Proxy, connect: Connect, kind: str
    ) -> None:
        """A request whose answer was lost is found, and never sent twice."""
        name = write_configuration(peer.config_dir, f"lost-{kind}", "print x")
        async with connect(url(proxy)) as tenant:
            proxy.silent = True
            jobs = await tenant.submit(kind, name)
            await asyncio.sleep(0.5)
            assert all(tenant.job(job).status is _Q for job in jobs)
            proxy.cut()
            proxy.silent = False

            ended = await tenant.ended(*jobs)

            assert {job.status for job in ended} == {_C}
            calls = [it for it in fake_calls(peer.fake) if name in " ".join(it)]
            assert len(calls) == len(jobs)

    @pytest.mark.parametrize("kind", ["compile", "upload", "install"])
    async def test_lost_request(
        self, peer: Peer, proxy: Proxy, connect: Connect, kind: str
    ) -> None:
        """A request that did not arrive is sent again, unless it flashes a device."""
        name = write_configuration(peer.config_dir, f"gone-{kind}", "print x")
        async with connect(url(proxy)) as tenant:
            proxy.deaf = True
            jobs = await tenant.submit(kind, name)
            await asyncio.sleep(0.5)
            proxy.cut()
            proxy.deaf = False

            for job in await tenant.ended(*jobs):
                if kind == "compile":
                    assert job.status is _C
                else:
                    assert job.status is JobStatus.INTERRUPTED
                    assert job.cause is Cause.BUILDER_UNAVAILABLE
                    assert job.message
            calls = [it for it in fake_calls(peer.fake) if name in " ".join(it)]
            assert len(calls) == (kind == "compile")

    @pytest.mark.parametrize("limit", [1, 100, 700, 3000])
    async def test_truncated(
        self, peer: Peer, proxy: Proxy, connect: Connect, limit: int
    ) -> None:
        """A connection that ends in the middle of a message is one that is lost."""
        name = write_configuration(peer.config_dir, f"short-{limit}", "print x")
        proxy.limit = limit
        async with connect(url(proxy)) as tenant:
            proxy.limit = limit
            jobs = await tenant.submit("compile", name)
            (job,) = await tenant.ended(*jobs)
            assert job.status is _C
            assert await tenant.lines(job) == ["x"]

    async def test_delayed(self, peer: Peer, proxy: Proxy, connect: Connect) -> None:
        """A slow way changes nothing but the time."""
        name = write_configuration(peer.config_dir, "slow")
        proxy.delay = 0.1
        async with connect(url(proxy)) as tenant:
            build, upload = await tenant.ended(*await tenant.submit("install", name))
            assert (build.status, upload.status) == (_C, _C)
            assert tenant.statuses(build) == tenant.statuses(upload) == [_Q, _R, _C]

    async def test_validate_is_done_again(
        self, peer: Peer, proxy: Proxy, connect: Connect
    ) -> None:
        """A check, which lives only as long as its connection, is done again once."""
        name = write_configuration(
            peer.config_dir, "check", "config: print x", "config: wait check-1"
        )
        async with connect(url(proxy)) as tenant:
            (job,) = await tenant.submit("validate", name)
            await tenant.until(lambda: tenant.job(job).status is _R)
            proxy.cut()
            await tenant.until(lambda: tenant.job(job).attempt == 2)
            (peer.config_dir / "check-1").touch()
            (job,) = await tenant.ended(job)
            assert job.status is _C


class TestServer:
    """A server that is killed, stopped and started again."""

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    async def test_restart_in_the_middle_of_a_build(
        self, own_peer: Peer, connect: Connect, number: signal.Signals
    ) -> None:
        """What the server makes of its jobs is what is told here."""
        config_dir = own_peer.config_dir
        first, second = (
            write_configuration(
                config_dir,
                name,
                f"compile: print {name}",
                "compile: lines 20",
                "compile: wait go",
            )
            for name in ("first", "second")
        )
        async with connect(own_peer.url) as tenant:
            (build,) = await tenant.submit("compile", first)
            waiting = await tenant.submit("install", second)
            await tenant.until(lambda: tenant.job(build).status is _R)
            task = asyncio.create_task(followed(tenant, build))
            await tenant.until(lambda: tenant.job(build).total_lines == 21)
            await asyncio.to_thread(own_peer.stop, number)
            await until_down(tenant)
            (config_dir / "go").touch()
            await asyncio.to_thread(own_peer.start)
            await until_up(tenant)

            jobs = await tenant.ended(build, *waiting)
            lines = lines_of(await task)

            if number is signal.SIGKILL:
                assert [job.status for job in jobs] == [_C] * 3
                assert jobs[0].attempt == 2
                assert [*lines.values()][:21] == [*lines.values()][-21:]
                # The server says so where it had the output of before on its disk.
                assert lines[21] == "first" or "restarted" in lines[21]
            else:
                assert jobs[0].status is JobStatus.CANCELLED
                assert jobs[0].cause is Cause.BUILDER_UNAVAILABLE
                assert [job.status for job in jobs[1:]] == [_C] * 2
                assert len(lines) == 21
            assert downs(tenant)[-3:] == ["ready", "unavailable", "ready"]

    async def test_we_restart(
        self, peer: Peer, connect: Connect, tmp_path: Path
    ) -> None:
        """What runs on the server goes on without us, and is ours when we are back."""
        name = write_configuration(
            peer.config_dir, "restart", "compile: lines 5", "compile: wait restart-1"
        )
        cache_dir = tmp_path / "cache"
        async with connect(peer.url, cache_dir=cache_dir) as tenant:
            jobs = await tenant.submit("install", name)
            (held,) = await tenant.submit("clean", name)
            await tenant.until(lambda: tenant.job(jobs[0]).status is _R)
        assert tenant.job(jobs[0]).status is _R
        (peer.config_dir / "restart-1").touch()
        async with connect(peer.url, cache_dir=cache_dir) as tenant:
            build, upload, clean = await tenant.ended(*jobs, held)
            assert (build.status, upload.status, clean.status) == (_C, _C, _C)
            assert (await tenant.lines(build)) == [f"line {it}" for it in range(5)]
            assert len(tenant.of(name)) == 3
        # What has been seen is not seen again.
        async with connect(peer.url, cache_dir=cache_dir) as tenant:
            assert len(tenant.of(name)) == 3
            assert not [it for it in tenant.steps() if it.job.configuration == name]


class TestLogin:
    """A server that asks who is there."""

    async def test_login(
        self, tmp_path: Path, version: str, connect: Connect, session: ClientSession
    ) -> None:
        """With the right password all is as without, with a wrong one nothing is."""
        peer = Peer(tmp_path / "login", servers()[version], fake=True, login=True)
        name = write_configuration(peer.config_dir, "secret")
        await asyncio.to_thread(peer.start)
        try:
            info = await probe(peer.url, "user", "correct horse", session)
            assert info.server_version == version
            for user, password in (("user", "wrong"), (None, None)):
                with pytest.raises(InvalidAuthError) as error:
                    await probe(peer.url, user, password, session)
                assert "wrong" not in str(error.value)
            async with connect(
                peer.url, username="user", password="correct horse"
            ) as tenant:
                assert (await tenant.run("compile", name)).status is _C
                await asyncio.to_thread(peer.stop)
                await until_down(tenant)
                await asyncio.to_thread(peer.start)
                await until_up(tenant)
            async with connect(
                peer.url, ready=False, username="user", password="wrong"
            ) as tenant:
                await until_down(tenant)
                assert tenant.builder.auth_invalid
                assert "wrong" not in (tenant.builder.info.message or "")
        finally:
            await asyncio.to_thread(peer.stop)
        assert "correct horse" not in repr(tenant.builder._settings)
