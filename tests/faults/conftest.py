"""Servers that build with the fake ESPHome and let tests look into them."""

from collections.abc import Generator
from pathlib import Path

import pytest
from pytest_socket import enable_socket

from ..e2e.conftest import connect, use_sockets
from ..e2e.server import Server
from ..fakes import install_fake

__all__ = ["connect", "use_sockets"]


def start_server(folder: Path) -> Server:
    """Return a server that runs in the folder, with the fake ESPHome beside it."""
    enable_socket()
    server = Server(folder / "server", probe=True)
    server.start()
    server.wait_until_kept(server.add_builder(install_fake(folder)))
    return server


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    """Return a server of the test's own, which may be killed and started again."""
    server = start_server(tmp_path)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Return the server of a module; each test has to leave it running."""
    server = start_server(tmp_path_factory.mktemp("shared"))
    yield server
    server.stop()
