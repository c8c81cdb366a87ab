"""What the tests against a real server share."""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession
import pytest
from pytest_socket import enable_socket

from custom_components.esphome_builds.builds.device_builder import (
    builder as builder_module,
    link as link_module,
)
from custom_components.esphome_builds.builds.device_builder.builder import (
    DeviceBuilder,
    DeviceBuilderSettings,
)
from custom_components.esphome_builds.builds.devices import Devices

from ..builds.tenant import Tenant as AnyTenant, started
from .peer import Peer, Watcher, servers

type Tenant = AnyTenant[DeviceBuilder]
type Connect = Callable[..., AbstractAsyncContextManager[Tenant]]

NEWEST: Final = [*servers()][-1]


@pytest.fixture(autouse=True)
def use_sockets(socket_enabled: None) -> None:
    """Let the tests talk to a server of their own."""


@pytest.fixture(scope="module")
def version() -> str:
    """Return the version of the server."""
    return NEWEST


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory, version: str) -> Generator[Peer]:
    """Return a server whose ESPHome is a fake, for all tests of a module."""
    enable_socket()
    folder = tmp_path_factory.mktemp("peer")
    peer = Peer(folder, servers()[version], fake=True)
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture
async def session() -> AsyncGenerator[ClientSession]:
    """Return what connects."""
    async with ClientSession() as session:
        yield session


@pytest.fixture
def connect(tmp_path: Path, session: ClientSession) -> Connect:
    """Return what makes a builder for a server."""
    numbers = count()

    @asynccontextmanager
    async def _connect(
        url: str,
        *,
        ready: bool = True,
        devices: Devices | None = None,
        **settings: object,
    ) -> AsyncGenerator[Tenant]:
        fields: dict[str, Any] = {
            "entry_id": "entry",
            "title": "server",
            "url": url,
            "cache_dir": tmp_path / f"cache{next(numbers)}",
        }
        known = DeviceBuilderSettings(**(fields | settings))
        builder = DeviceBuilder(known, session, devices=devices)
        async with started(builder, ready=ready) as tenant:
            yield tenant

    return _connect


@pytest.fixture(autouse=True)
async def clear(
    request: pytest.FixtureRequest, session: ClientSession
) -> AsyncGenerator[None]:
    """Leave no job on a server that other tests use, too."""
    yield
    if "peer" in request.fixturenames:
        watcher = await Watcher.connect(session, request.getfixturevalue("peer"))
        for job in await watcher.call("firmware/get_jobs"):
            if job["status"] in ("queued", "running"):
                await watcher.collect("firmware/cancel", job_id=job["job_id"])
        await watcher.close()


@pytest.fixture
async def tenant(peer: Peer, connect: Connect) -> AsyncGenerator[Tenant]:
    """Return a builder that takes jobs."""
    async with connect(peer.url) as tenant:
        yield tenant


@pytest.fixture
async def watcher(peer: Peer, session: ClientSession) -> AsyncGenerator[Watcher]:
    """Return somebody else."""
    watcher = await Watcher.connect(session, peer)
    yield watcher
    await watcher.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon, and look often."""
    monkeypatch.setattr(link_module, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(link_module, "LONGEST_SECONDS", 0.3)
    monkeypatch.setattr(builder_module, "LOOK_SECONDS", 1.0)
