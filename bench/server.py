"""What the integration costs a real Home Assistant, measured from outside."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
import os
from pathlib import Path
import shutil
from statistics import median
from tempfile import TemporaryDirectory
import time
from typing import Final

from aiohttp import ClientSession

from custom_components.esphome_builds.builds.local.environment import build_environment
from tests.clients import Client
from tests.e2e.server import ESPHOME, ROOT, Server
from tests.fakes import install_fake, write_configuration

_COMPILES: Final = 9
_CONFIGURATIONS: Final = 100
_FLOOD_BYTES: Final = 4 * 1024 * 1024
_IDLE_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 15.0
_STARTS: Final = 3


@asynccontextmanager
async def _running(extra: str = "") -> AsyncGenerator[tuple[Server, ClientSession]]:
    """Start a server that has no builder yet, and stop it in the end."""
    with TemporaryDirectory() as folder:
        server = Server(Path(folder) / "server", extra)
        probe = ROOT / "tests" / "e2e" / "probe"
        shutil.copytree(probe, server.folder / "custom_components" / "probe")
        await asyncio.to_thread(server.start)
        try:
            async with ClientSession() as session:
                yield server, session
        finally:
            await asyncio.to_thread(server.stop)


async def measure_overhead() -> str:
    """Compile what did not change, by hand and through Home Assistant, in turns."""
    name = "night-light.yaml"
    async with _running() as (server, session):
        for file in (ROOT / "examples").glob("*.yaml"):
            shutil.copy(file, server.config_dir)
        await asyncio.to_thread(server.add_builder, ESPHOME)
        client = await server.connect(session)
        await _compile(client, name)
        by_hand, through = [], []
        for _ in range(_COMPILES):
            by_hand.append(await _compile_by_hand(server, name))
            through.append(await _compile(client, name))
        await client.close()
    longer = median(through) - median(by_hand)
    return (
        f"| a compile without a change through Home Assistant, {median(through):.2f} s "
        f"| {longer * 1000:+.0f} ms to the same command by hand "
        "| at most +150 ms |"
    )


async def _compile(client: Client, name: str) -> float:
    """Compile through Home Assistant; return the seconds until a client knows it."""
    stream = await client.subscribe("esphome_builds/subscribe")
    await stream.next()
    started = time.perf_counter()
    result = await client.call(
        "esphome_builds/jobs/submit", kind="compile", configurations=[name]
    )
    job = await stream.until_job(result["jobs"][0]["job_id"], "completed", "failed")
    seconds = time.perf_counter() - started
    assert job["status"] == "completed", job
    await stream.unsubscribe()
    return seconds


async def _compile_by_hand(server: Server, name: str) -> float:
    """Compile with the command alone, which has the same low priority."""
    data_dir = server.built_program(name).parents[4]
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", "10", ESPHOME, "--dashboard", "compile", name),
        cwd=server.config_dir,
        env=build_environment(
            os.environ, data_dir=data_dir, tools_dir=data_dir.parents[1] / "tools"
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    await process.communicate()
    assert process.returncode == 0
    return time.perf_counter() - started


async def measure_idle() -> str:
    """Let Home Assistant do nothing, without a builder and with a large one."""
    async with _running() as (server, _):
        before = await _idle_load(server)
        text = (ROOT / "examples" / "night-light.yaml").read_text()
        shutil.copy(ROOT / "examples" / "common.yaml", server.config_dir)
        for number in range(_CONFIGURATIONS):
            renamed = text.replace("name: night-light", f"name: light-{number}")
            (server.config_dir / f"light-{number}.yaml").write_text(renamed)
        await asyncio.to_thread(server.add_builder, ESPHOME)
        after = await _idle_load(server)
    return (
        f"| {_CONFIGURATIONS} configurations and nothing to do, {_IDLE_SECONDS:.0f} s "
        f"| {after:.2%} of a core; without a builder {before:.2%} | not measurable |"
    )


async def _idle_load(server: Server) -> float:
    """Return how much of a core a server takes while nobody wants anything of it."""
    await asyncio.sleep(_SETTLE_SECONDS)
    before = _processor_seconds(server.pid)
    await asyncio.sleep(_IDLE_SECONDS)
    return (_processor_seconds(server.pid) - before) / _IDLE_SECONDS


def _processor_seconds(pid: int) -> float:
    """Return the time that a process has had a processor."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def measure_setup() -> str:
    """Start Home Assistant with a builder in it, several times."""
    seconds = []
    async with _running() as (server, session):
        for file in (ROOT / "examples").glob("*.yaml"):
            shutil.copy(file, server.config_dir)
        await asyncio.to_thread(server.add_builder, ESPHOME)
        for _ in range(_STARTS):
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            client = await server.connect(session)
            took = await client.call("integration/setup_info")
            seconds += [
                one["seconds"] for one in took if one["domain"] == "esphome_builds"
            ]
            await client.close()
    return (
        f"| setup at Home Assistant's start, {len(seconds)} times "
        f"| {median(seconds) * 1000:.0f} ms | under 100 ms |"
    )


async def measure_streams(followers: int) -> str:
    """Follow a flood on one connection; return a row of the table."""
    async with _running("probe:\n") as (server, session):
        name = write_configuration(server.config_dir, "flood", f"flood {_FLOOD_BYTES}")
        await asyncio.to_thread(server.add_builder, install_fake(server.folder, "fake"))
        client = await server.connect(session, coalesce=True, compress=True)
        await client.call("probe/peaks")
        started = time.perf_counter()
        result = await client.call(
            "esphome_builds/jobs/submit", kind="compile", configurations=[name]
        )
        job_id = result["jobs"][0]["job_id"]
        received = await asyncio.gather(
            *(client.follow_to_end(job_id) for _ in range(followers))
        )
        seconds = time.perf_counter() - started
        peaks = await client.call("probe/peaks")
        await client.close()
    lines = sum(len(lines) for lines, _ in received)
    return (
        f"| a flood to {followers} followers on one real connection "
        f"| {lines / seconds:,.0f} lines/s, {peaks['pending']} messages waited and the "
        f"loop was held for {peaks['held'] * 1000:.0f} ms at most "
        "| under 1,024 messages |"
    )
