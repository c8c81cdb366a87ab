"""Servers that build with the fake ESPHome and let tests look into them."""

from collections.abc import Generator
from pathlib import Path

import pytest
from pytest_socket import enable_socket

from ..clients import eventually
from ..e2e.conftest import connect, use_sockets
from ..e2e.server import Server
from ..fakes import fake_runs, install_fake

__all__ = ["connect", "use_sockets"]


def start_server(folder: Path) -> Server:
    """Return a server that runs in the folder, with the fake ESPHome beside it."""
    enable_socket()
    server = Server(folder / "server", probe=True)
    server.start()
    server.add_builder(install_fake(folder))
    return server


async def until_run(server: Server, job_id: str, count: int = 1) -> None:
    """Wait until a job's process was started so often, and does what it shall do."""
    await eventually(
        lambda: sum(run[0] == job_id for run in fake_runs(server.esphome)) == count,
        lambda: fake_runs(server.esphome),
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Return the server of a module; each test has to leave it running."""
    server = start_server(tmp_path_factory.mktemp("shared"))
    yield server
    server.stop()
