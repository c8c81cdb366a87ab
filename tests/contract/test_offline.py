"""An install for a device that a real server knows to be off."""

import asyncio
from collections.abc import AsyncGenerator

from aiohttp import ClientSession
import pytest

from custom_components.esphome_builds.builds.models import Cause, Job, JobStatus, Phase
from custom_components.esphome_builds.builds.waiting import OFF

from ..builds.fake_devices import FakeDevices
from ..clients import PATIENCE
from ..fakes import FAKE_VERSION, fake_calls, write_configuration
from .conftest import Connect, Tenant
from .peer import Peer, Watcher

_Q, _R, _C = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED


class Server:
    """What the server says of its devices."""

    def __init__(self, watcher: Watcher) -> None:
        """Ask as somebody else."""
        self._watcher = watcher

    async def state(self, name: str) -> tuple[str, bool]:
        """Return whether a device is there, and whether an update waits for it."""
        found = await self._watcher.call("devices/list")
        for device in found["configured"]:
            if device["configuration"] == name:
                state = device["runtime_state"]
                return state["state"], state["queued_update"]
        return "missing", False

    async def until_off(self, name: str) -> None:
        """Wait until the server has found that a device is not there."""
        async with asyncio.timeout(PATIENCE):
            while (await self.state(name))[0] != "offline":  # noqa: ASYNC110 - it tells no events
                await asyncio.sleep(0.1)


@pytest.fixture
async def name(
    peer: Peer, watcher: Watcher, session: ClientSession
) -> AsyncGenerator[str]:
    """Return a configuration whose device is off, and known to be."""
    name = write_configuration(peer.config_dir, "off")
    # It looks for devices only while somebody looks at them.
    page = await Watcher.connect(session, peer)
    looking = asyncio.create_task(page.collect("subscribe_events"))
    await Server(watcher).until_off(name)
    yield name
    looking.cancel()
    await asyncio.wait([looking])
    await page.close()


async def deferred(tenant: Tenant, name: str) -> Job:
    """Install something that only can be compiled; return the upload, which waits."""
    build, upload = await tenant.submit("install", name)
    (build,) = await tenant.ended(build)
    assert build.status is _C
    await tenant.until(lambda: tenant.job(upload).message == OFF)
    assert tenant.job(upload).status is _Q
    return upload


async def test_deferred(
    peer: Peer, connect: Connect, watcher: Watcher, name: str
) -> None:
    """An upload waits while the server does, and both stop together.

    When the device is back for Home Assistant before it is for the server, it is sent
    to, and that is all.
    """
    server = Server(watcher)
    devices = FakeDevices()
    async with connect(peer.url, devices=devices) as tenant:
        upload = await deferred(tenant, name)
        assert await server.state(name) == ("offline", True)
        job = await tenant.builder.cancel(upload.job_id)
        assert job.cause is Cause.CANCELLED_BY_USER
        assert await server.state(name) == ("offline", False)

        upload = await deferred(tenant, name)
        assert await server.state(name) == ("offline", True)
        assert not fake_calls(peer.fake, "upload")
        devices.set("off", online=True)
        await tenant.until(lambda: tenant.job(upload).phase is Phase.VERIFYING)
        assert await server.state(name) == ("offline", False)
        devices.connect("off", version=FAKE_VERSION)
        (upload,) = await tenant.ended(upload)

        assert upload.status is _C
        assert tenant.statuses(upload) == [_Q, _R, _C]
        assert len(tenant.builder.jobs) == 4
        assert len(fake_calls(peer.fake, "upload")) == 1


async def test_wait_is_over(
    peer: Peer, connect: Connect, watcher: Watcher, name: str
) -> None:
    """What nobody waits for any more is not sent by the server either."""
    server = Server(watcher)
    async with connect(peer.url, device_wait=0.5) as tenant:
        _, upload = await tenant.ended(*await tenant.submit("install", name))
    assert (upload.status, upload.cause) == (JobStatus.FAILED, Cause.DEVICE_OFFLINE)
    assert upload.message == (
        "The device was off or asleep for 0.5 seconds, so nothing was sent to it."
    )
    assert await server.state(name) == ("offline", False)


async def test_no_wait(
    peer: Peer, connect: Connect, watcher: Watcher, name: str
) -> None:
    """Where nobody waits at all, the server does not either."""
    server = Server(watcher)
    async with connect(peer.url, device_wait=0.0) as tenant:
        build, upload = await tenant.ended(*await tenant.submit("install", name))
    assert (build.status, build.message) == (_C, None)
    assert (upload.status, upload.cause) == (JobStatus.FAILED, Cause.DEVICE_OFFLINE)
    assert upload.message == "The device is offline, so nothing was sent to it."
    assert await server.state(name) == ("offline", False)
