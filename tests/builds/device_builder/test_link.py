"""A connection that is kept for ever."""

import asyncio
import logging

from aiohttp import ClientSession
import pytest

from custom_components.esphome_builds.builds.device_builder import link as link_module
from custom_components.esphome_builds.builds.device_builder.client import (
    Client,
    Credentials,
)
from custom_components.esphome_builds.builds.device_builder.errors import (
    CannotConnectError,
    DeviceBuilderError,
)
from custom_components.esphome_builds.builds.device_builder.link import Link

from .fake_server import FakeServer


class Tries:
    """Uses connections as a test says, and counts them."""

    def __init__(self, server: FakeServer, session: ClientSession) -> None:
        """Prepare a link."""
        self.errors: list[DeviceBuilderError] = []
        self.fault: Exception = CannotConnectError("It went.")
        self.link = Link(
            server.url, Credentials(), session, self._serve, self.errors.append
        )

    async def until(self, count: int) -> None:
        """Run until so many connections have ended."""
        task = asyncio.create_task(self.link.run())
        async with asyncio.timeout(10):
            while len(self.errors) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])

    async def _serve(self, _: Client) -> None:
        self.link.up()
        raise self.fault


@pytest.fixture
def tries(server: FakeServer, session: ClientSession) -> Tries:
    """Return a link to the fake server."""
    return Tries(server, session)


async def test_told_once(tries: Tries, caplog: pytest.LogCaptureFixture) -> None:
    """Each way down is a warning, each way up a line, however many tries it takes."""
    caplog.set_level(logging.INFO, logger=link_module.__name__)

    await tries.until(3)

    records = [it for it in caplog.records if it.name == link_module.__name__]
    levels = [record.levelname for record in records]
    assert levels[:5] == ["WARNING", "INFO", "WARNING", "INFO", "WARNING"]
    assert "It went." in caplog.text


async def test_fault_of_ours(tries: Tries, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged as one, and the next try is made all the same."""
    tries.fault = LookupError("surprise")

    await tries.until(2)

    assert all(isinstance(error, CannotConnectError) for error in tries.errors)
    assert "surprise" in caplog.text


@pytest.mark.parametrize(("stable", "grows"), [(60.0, True), (0.0, False)])
async def test_patience(
    tries: Tries, monkeypatch: pytest.MonkeyPatch, stable: float, grows: bool
) -> None:
    """Tries become rare, and frequent again after a connection that held."""
    pauses: list[float] = []
    pause = tries.link._pause

    def _note(error: DeviceBuilderError) -> float:
        pauses.append(pause(error))
        return 0

    monkeypatch.setattr(tries.link, "_pause", _note)
    monkeypatch.setattr(link_module, "LONGEST_SECONDS", 60.0)
    monkeypatch.setattr(link_module, "_STABLE_SECONDS", stable)

    await tries.until(6)

    assert (pauses[5] > 4 * pauses[0]) is grows
    assert all(it > 0 for it in pauses)


async def test_stop_at_any_time(tries: Tries, session: ClientSession) -> None:
    """Whatever a link waits for when it is stopped, no connection is left."""
    connector = session.connector
    assert connector is not None
    for steps in range(200):
        task = asyncio.create_task(tries.link.run())
        for _ in range(steps):
            if not tries.errors:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert not connector._acquired
        tries.errors.clear()
