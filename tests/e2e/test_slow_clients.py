"""Floods of output over real connections, as a real Home Assistant sends them."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession
import pytest
from pytest_socket import enable_socket

from ..clients import Client, CommandError, following
from ..fakes import install_fake, write_configuration
from .conftest import Connect
from .server import Server

FOLLOWERS: Final = 32
MIB: Final = 1024 * 1024


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Return a server that tells how much waited in front of its connections."""
    enable_socket()
    folder = tmp_path_factory.mktemp("flooded")
    server = Server(folder / "server", probe=True)
    server.start()
    server.add_builder(install_fake(folder))
    yield server
    server.stop()


async def submit(client: Client, name: str) -> str:
    """Return the id of a job that has begun."""
    (job,) = await client.submit("compile", name)
    job_id: str = job["job_id"]
    return job_id


async def total_lines(client: Client, job_id: str) -> int:
    """Return how many lines a job has printed when it has ended."""
    stream = await client.subscribe("esphome_builds/subscribe")
    job: dict[str, Any] = await stream.until_job(job_id, "completed")
    lines: int = job["total_lines"]
    return lines


async def test_home_assistant_keeps_up_with_what_we_send(
    flooded: Server, connect: Connect
) -> None:
    """All that is allowed on each kind of connection, and hardly anything waits."""
    name = write_configuration(flooded.config_dir, "flood", f"flood {MIB}")
    control = await connect(flooded)
    async with ClientSession() as session:
        clients = [
            await flooded.connect(session, coalesce=coalesce, compress=compress)
            for coalesce in (False, True)
            for compress in (False, True)
        ]
        await control.call("probe/peaks")
        job_id = await submit(control, name)

        results = await asyncio.gather(
            *(
                client.follow_to_end(job_id)
                for client in clients
                for _ in range(FOLLOWERS)
            )
        )

        total = await total_lines(control, job_id)
        assert {len(lines) for lines, _ in results} == {total}
        # Home Assistant cuts a connection where 4,096 wait, or 1,024 for long. Here 32
        # are the answers to the subscriptions; without the pace there are 200 to 900.
        peaks = await control.call("probe/peaks")
        assert peaks["pending"] < 150
        for client in clients:
            assert await client.call("esphome_builds/builders/list")
            await client.close()
    assert "unable to keep up" not in flooded.log


async def test_a_client_that_stops_reading(
    flooded: Server, connect: Connect, tmp_path: Path
) -> None:
    """Its stream overflows and its connection lives; others see nothing of it."""
    go = tmp_path / "go"
    name = write_configuration(
        flooded.config_dir, "stall", "print first", f"wait {go}", f"flood {64 * MIB}"
    )
    stalled, other = await connect(flooded), await connect(flooded)
    job_id = await submit(other, name)
    follower = await stalled.follow(job_id)
    await follower.until_output()

    stalled.pause()
    go.touch()
    asked = asyncio.create_task(stalled.call("esphome_builds/builders/list"))
    total = await total_lines(other, job_id)
    assert await other.call("esphome_builds/builders/list")
    assert not asked.done()
    stalled.resume()

    assert (await asked)["builders"]
    line = (await follower.until("overflow"))[-1]["next_line"]
    with pytest.raises(CommandError, match="overflow"):
        await follower.next()
    with pytest.raises(CommandError, match="not_found"):
        await follower.unsubscribe()
    assert 0 < line < total
    again = await stalled.follow(job_id, from_line=line)
    events = [event async for event in following(again, line)]
    assert events[-1]["type"] == "end"
    assert events[-1]["next_line"] == total
    assert "unable to keep up" not in flooded.log


async def test_a_client_that_reads_slowly(
    flooded: Server, connect: Connect, tmp_path: Path
) -> None:
    """It ends with every line, however often it has to come back."""
    go = tmp_path / "go"
    # More than fits into the sockets' own buffers.
    count = 1_500_000
    name = write_configuration(
        flooded.config_dir, "slow", f"wait {go}", f"lines {count}"
    )
    slow, other = await connect(flooded), await connect(flooded)
    job_id = await submit(other, name)
    following_slowly = asyncio.create_task(slow.follow_to_end(job_id))
    # Commands of one connection are done in order: it follows when this is answered.
    await asyncio.sleep(0)
    await slow.call("esphome_builds/builders/list")

    async def _dawdle() -> None:
        slow.pause()
        go.touch()
        await total_lines(other, job_id)
        while True:
            slow.resume()
            await asyncio.sleep(0.04)
            slow.pause()
            await asyncio.sleep(0.01)

    dawdling = asyncio.create_task(_dawdle())
    lines, end = await following_slowly
    dawdling.cancel()
    slow.resume()

    assert slow.overflows
    assert lines == [f"line {number}" for number in range(count)]
    assert end["job"]["status"] == "completed"
    assert "unable to keep up" not in flooded.log
