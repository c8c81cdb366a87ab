"""Real servers, real ESPHome, real devices."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
import shutil

from aiohttp import ClientSession
import pytest
from pytest_socket import enable_socket

from ..clients import Client
from ..fakes import install_fake
from .server import ESPHOME, ROOT, Server

type Connect = Callable[[Server], Awaitable[Client]]

# What the demonstration shows is what the tests check.
AUTOMATIONS = (ROOT / "demo" / "configuration.yaml").read_text()


@pytest.fixture(autouse=True)
def use_sockets(socket_enabled: None) -> None:
    """Let the tests talk to a server of their own."""


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Return a server that builds the examples with the real ESPHome."""
    enable_socket()
    server = Server(tmp_path_factory.mktemp("real"), AUTOMATIONS)
    for file in (ROOT / "examples").glob("*.yaml"):
        shutil.copy(file, server.config_dir)
    server.start()
    server.add_builder(ESPHOME)
    yield server
    server.stop()


@pytest.fixture
def faked(tmp_path: Path) -> Generator[Server]:
    """Return a server that builds with the fake ESPHome and may be killed."""
    server = Server(tmp_path / "faked")
    server.start()
    server.add_builder(install_fake(tmp_path))
    yield server
    server.destroy()


@pytest.fixture
async def connect() -> AsyncGenerator[Connect]:
    """Return what connects to a server, as often as wanted."""
    clients: list[Client] = []
    async with ClientSession() as session:

        async def _connect(server: Server) -> Client:
            client = await server.connect(session)
            clients.append(client)
            return client

        yield _connect
        for client in clients:
            await client.close()
