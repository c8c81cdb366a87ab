"""What tests with a fake server share."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from aiohttp import ClientSession
import pytest

from custom_components.esphome_builds.builds.device_builder import link as link_module
from custom_components.esphome_builds.builds.device_builder.builder import (
    DeviceBuilder,
    DeviceBuilderSettings,
)
from custom_components.esphome_builds.builds.devices import (
    DEVICE_WAIT_SECONDS,
    Devices,
)

from ..tenant import Tenant as AnyTenant, started
from .fake_server import FakeServer

type Tenant = AnyTenant[DeviceBuilder]
type Connect = Callable[..., AbstractAsyncContextManager[Tenant]]


@pytest.fixture(autouse=True)
def use_sockets(socket_enabled: None) -> None:
    """Let the tests talk to a server of their own."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(link_module, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(link_module, "LONGEST_SECONDS", 0.1)


@pytest.fixture
async def session() -> AsyncGenerator[ClientSession]:
    """Return what connects."""
    async with ClientSession() as session:
        yield session


@pytest.fixture
async def server() -> AsyncGenerator[FakeServer]:
    """Return a server that behaves."""
    server = await FakeServer().start()
    yield server
    await server.stop()


@pytest.fixture
def connect(tmp_path: Path, session: ClientSession, server: FakeServer) -> Connect:
    """Return what makes a builder for the server."""

    @asynccontextmanager
    async def _connect(
        *,
        ready: bool = True,
        on_invalid_auth: Callable[[], None] | None = None,
        devices: Devices | None = None,
        device_wait: float = DEVICE_WAIT_SECONDS,
    ) -> AsyncGenerator[Tenant]:
        settings = DeviceBuilderSettings(
            entry_id="entry",
            title="server",
            url=server.url,
            cache_dir=tmp_path / "cache",
            username="user",
            password="hunter2",
            device_wait=device_wait,
        )
        builder = DeviceBuilder(settings, session, on_invalid_auth, devices)
        async with started(builder, ready=ready) as tenant:
            yield tenant

    return _connect
