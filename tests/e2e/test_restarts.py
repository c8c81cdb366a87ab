"""What is left of jobs when Home Assistant is killed, stopped, or loses its builder."""

import asyncio
from pathlib import Path

from ..clients import Client
from ..fakes import fake_calls, write_configuration
from .conftest import Connect
from .server import Server, processes_of, wait_for


async def until_line(
    client: Client, job_id: str, line: str, from_line: int = 0
) -> None:
    """Return when a job has printed a line and that is on the disk."""
    await client.until_line(job_id, line, from_line)
    await asyncio.sleep(1)


async def kill_and_start(server: Server) -> None:
    """End Home Assistant without a warning, and start it again."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def test_compile_is_tried_twice(
    faked: Server, connect: Connect, tmp_path: Path
) -> None:
    """Killed in both attempts, it is interrupted for good, with a cause and its log."""
    esphome = tmp_path / "esphome"
    name = write_configuration(
        faked.config_dir, "porch", "print it began", "spawn session", "sleep inf"
    )
    client = await connect(faked)
    (job,) = await client.submit("compile", name)
    job_id = job["job_id"]
    await until_line(client, job_id, "it began")
    left = processes_of(job_id)
    assert left

    await kill_and_start(faked)
    client = await connect(faked)
    running = await client.until_job(job_id, "running")
    assert running["attempt"] == 2
    await until_line(client, job_id, "it began", from_line=1)
    # What the first attempt left was ended, though nobody was its parent any more.
    assert not set(left) & set(processes_of(job_id))

    await kill_and_start(faked)
    client = await connect(faked)
    ended = await client.until_job(job_id, "interrupted")
    assert ended["cause"] == "crashed"
    assert "third time" in ended["message"]
    assert len(fake_calls(esphome, "compile")) == 2
    assert processes_of(job_id) == []
    page = await client.call("esphome_builds/jobs/log", job_id=job_id)
    assert page["lines"].count("it began") == 2
    assert page["total_lines"] == ended["total_lines"] == len(page["lines"])

    await kill_and_start(faked)
    client = await connect(faked)
    job = (await client.call("esphome_builds/jobs/get", job_id=job_id))["job"]
    assert job == ended
    assert len(fake_calls(esphome, "compile")) == 2


async def test_upload_is_never_sent_again(
    faked: Server, connect: Connect, tmp_path: Path
) -> None:
    """It may have reached the device."""
    name = write_configuration(
        faked.config_dir, "porch", "upload: print it began", "upload: sleep inf"
    )
    client = await connect(faked)
    build, upload = await client.submit("install", name)
    await until_line(client, upload["job_id"], "it began")

    await kill_and_start(faked)
    client = await connect(faked)

    ended = await client.until_job(upload["job_id"], "interrupted")
    assert (ended["attempt"], ended["cause"]) == (1, "crashed")
    assert processes_of(upload["job_id"]) == []
    assert len(fake_calls(tmp_path / "esphome", "upload")) == 1
    job = await client.call("esphome_builds/jobs/get", job_id=build["job_id"])
    assert job["job"]["status"] == "completed"


async def test_stop_leaves_no_process(faked: Server, connect: Connect) -> None:
    """Not even one that does not want to end; the job goes on at the next start."""
    name = write_configuration(
        faked.config_dir, "porch", "spawn ignore orphan", "print it began", "sleep inf"
    )
    client = await connect(faked)
    (job,) = await client.submit("compile", name)
    await until_line(client, job["job_id"], "it began")
    assert len(processes_of(job["job_id"])) > 1

    await asyncio.to_thread(faked.stop)
    assert processes_of(job["job_id"]) == []

    await asyncio.to_thread(faked.start)
    client = await connect(faked)
    assert (await client.until_job(job["job_id"], "running"))["attempt"] == 2
    assert "custom_components/esphome_builds" not in faked.log


async def test_removal_leaves_nothing(faked: Server, connect: Connect) -> None:
    """No process, and no file but the configurations."""
    name = write_configuration(faked.config_dir, "porch", "print it began", "sleep inf")
    client = await connect(faked)
    (job,) = await client.submit("compile", name)
    await until_line(client, job["job_id"], "it began")
    cache = faked.folder / ".cache" / "esphome_builds" / faked.entry_id
    assert cache.exists()

    await asyncio.to_thread(faked.remove_builder)

    assert processes_of(job["job_id"]) == []
    assert not cache.exists()
    assert (faked.config_dir / name).exists()


async def test_client_that_leaves_during_a_command(
    faked: Server, connect: Connect
) -> None:
    """Who asked for an end does not have to wait for it; the job ends all the same."""
    name = write_configuration(
        faked.config_dir, "porch", "ignore", "print it began", "sleep inf"
    )
    client = await connect(faked)
    (job,) = await client.submit("compile", name)
    await until_line(client, job["job_id"], "it began")
    leaving = await connect(faked)
    cancel = asyncio.create_task(
        leaving.call("esphome_builds/jobs/cancel", job_id=job["job_id"])
    )
    await asyncio.sleep(0.2)
    cancel.cancel()
    leaving.abort()

    ended = await client.until_job(job["job_id"], "cancelled")

    assert ended["cause"] == "cancelled_by_user"
    await asyncio.to_thread(wait_for, lambda: not processes_of(job["job_id"]), 10)
