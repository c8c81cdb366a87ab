"""Home Assistant killed, or asked to stop, at every moment of a job's life.

One kill meets jobs at several moments at once. That a job has ended but is not saved
yet is made to last with a FIFO in the place of the file that the list of jobs is
written to, which blocks whoever opens it.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Generator
from contextlib import suppress
import os
from pathlib import Path
import time
from typing import Any, Final

import pytest

from custom_components.esphome_builds.builds.queue import HISTORY, MAX_ACTIVE

from ..clients import Client, CommandError, eventually
from ..e2e.conftest import Connect
from ..e2e.server import Server, processes_of
from ..fakes import fake_runs, write_configuration
from . import aftermath
from .conftest import start_server

GIB: Final = 1024 * 1024 * 1024
SLOTS: Final = 16
STOP_SECONDS: Final = 20.0
"""For a grace of five, what Home Assistant itself has to do, and a busy machine."""

type Job = dict[str, Any]


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Return a server on which many jobs run at once; it may be killed and started."""
    server = start_server(tmp_path_factory.mktemp("mortal"))
    server.set_options(
        compile_slots=SLOTS,
        compile_limit=60,
        compile_idle_limit=60,
        upload_limit=60,
    )
    yield server
    # What a failed test left blocked would never stop.
    server.kill()


def runs(server: Server) -> Counter[str]:
    """Return how often a process was started for each job."""
    return Counter(job_id for job_id, _ in fake_runs(server.esphome))


async def until_ended(client: Client, job_ids: Collection[str]) -> dict[str, Job]:
    """Return the jobs when all of them have ended."""
    return {
        job_id: await client.until_job(job_id, *aftermath.ENDED) for job_id in job_ids
    }


async def fill(client: Client, names: Collection[str]) -> set[str]:
    """Ask for uploads until no more are taken; return the jobs."""
    queued: set[str] = set()
    try:
        for n in range(MAX_ACTIVE):
            jobs = await client.submit("upload", *names, address=f"10.0.0.{n}")
            queued |= {job["job_id"] for job in jobs}
    except CommandError as err:
        assert err.code == "builder_unavailable"  # noqa: PT017 - at some time it comes
    assert len(queued) < MAX_ACTIVE
    return queued


async def test_killed_before_the_end(
    mortal: Server, connect: Connect, tmp_path: Path
) -> None:
    """Waiting, just spawned, printing, flashing, and being asked for.

    Builds go on as the second attempt and what the first left is gone; an upload is
    not sent again; what waited, waits; every request that was answered is known.
    """
    server, go = mortal, tmp_path / "go"
    write = server.config_dir
    silent = write_configuration(write, "silent", "spawn session", f"wait {go}")
    began = write_configuration(
        write, "began", "print it began", "spawn ignore orphan", f"wait {go}"
    )
    pair = write_configuration(write, "pair", f"compile: wait {go}")
    flashing = write_configuration(
        write, "flashing", "upload: print it began", f"upload: wait {go}"
    )
    more = [write_configuration(write, f"more_{n}", f"wait {go}") for n in range(20)]
    client = await connect(server)
    (spawned,) = await client.submit("compile", silent)
    (printing,) = await client.submit("compile", began)
    built, waiting = await client.submit("install", pair)
    _, flash = await client.submit("install", flashing)
    (queued,) = await client.submit("validate", silent)
    for job in (printing, flash):
        await client.until_line(job["job_id"], "it began")
    await eventually(lambda: runs(server)[spawned["job_id"]])
    await eventually(lambda: runs(server)[built["job_id"]])
    left = {
        process.pid
        for job in (spawned, printing, flash)
        for process in processes_of(job["job_id"])
    }
    # What a process was just started for, or is just started for, and what just waits.
    asked = [asyncio.create_task(client.submit("compile", name)) for name in more]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)

    await asyncio.to_thread(server.kill)
    assert len(left & {process.pid for process in server.processes()}) >= 3
    answers = await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.to_thread(server.start)

    client = await connect(server)
    answered = [one[0]["job_id"] for one in answers if isinstance(one, list)]
    assert len(answered) > 0
    resumed = [spawned, printing, built]
    for job in resumed:
        assert (await client.until_job(job["job_id"], "running"))["attempt"] == 2
    waits = await client.until_job(waiting["job_id"], "queued")
    assert (waits["attempt"], waits["phase"]) == (1, "waiting")
    assert (await client.until_job(queued["job_id"], "queued"))["attempt"] == 1
    assert not left & {process.pid for process in server.processes()}
    ended = await client.until_job(flash["job_id"], "interrupted")
    assert (ended["attempt"], ended["cause"]) == (1, "crashed")
    go.touch()
    all_ended = await until_ended(
        client,
        [job["job_id"] for job in (*resumed, waiting, queued)] + answered,
    )

    assert {job["status"] for job in all_ended.values()} == {"completed"}
    jobs = {job["job_id"]: job for job in await aftermath.check(server)}
    started = runs(server)
    for job_id, job in jobs.items():
        # One that was to start just when it was killed may not have been started.
        assert job["attempt"] - 1 <= started[job_id] <= job["attempt"]
    assert [started[job["job_id"]] for job in resumed] == [2, 2, 2]
    assert started[flash["job_id"]] == 1


async def test_killed_while_many_end(
    mortal: Server, connect: Connect, tmp_path: Path
) -> None:
    """Some have ended, some are about to, some are ended and not saved.

    Whatever it was for each, an upload is started once at most, and the end is true.
    """
    server, go = mortal, tmp_path / "go"
    write = server.config_dir
    client = await connect(server)
    jobs: list[Job] = []
    for n in range(SLOTS):
        script = (f"wait {go}", f"sleep {n * 0.03}", f"print line {n}")
        name = write_configuration(write, f"end_{n}", *script)
        kind = ("install", "upload", "compile", "validate")[n % 4]
        jobs += await client.submit(kind, name)
    running = [job for job in jobs if job["kind"] == "compile"]
    await eventually(lambda: all(runs(server)[job["job_id"]] for job in running))
    watch = await client.subscribe("esphome_builds/subscribe")

    go.touch()
    ended: set[str] = set()
    while len(ended) < 4:
        event = await watch.next()
        if event["type"] == "job" and event["job"]["status"] in aftermath.ENDED:
            ended.add(event["job"]["job_id"])
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)

    client = await connect(server)
    await until_ended(client, [job["job_id"] for job in jobs])
    ids = {job["job_id"] for job in jobs}
    after = [job for job in await aftermath.check(server) if job["job_id"] in ids]
    started = runs(server)
    for job in after:
        count = started[job["job_id"]]
        if job["kind"] == "upload" and job["status"] == "interrupted":
            assert job["cause"] == "crashed"
            assert count <= 1
        else:
            assert job["status"] == "completed"
            assert max(1, job["attempt"] - 1) <= count <= job["attempt"]
    attempts = Counter(job["attempt"] for job in after if job["kind"] != "upload")
    # It was killed in the middle of it, or this shows nothing.
    assert attempts[1]
    assert attempts[2]


async def test_killed_before_the_end_is_saved(
    mortal: Server, connect: Connect, tmp_path: Path
) -> None:
    """What is not on the disk did not happen: a build is built again.

    Nor does anything begin then: an upload whose start cannot be saved could be
    flashed twice, and a request that cannot be saved is not answered.
    """
    server, go = mortal, tmp_path / "go"
    script = ("print it began", f"wait {go}", "print it is done")
    names = [
        write_configuration(server.config_dir, name, *script)
        for name in ("saved", "sent", "both", "late")
    ]
    client = await connect(server)
    (build,) = await client.submit("compile", names[0])
    (flash,) = await client.submit("upload", names[1])
    before, after = await client.submit("install", names[2])
    for job in (build, flash, before):
        await client.until_line(job["job_id"], "it began")
    await asyncio.sleep(1)
    fifo = server.cache / "jobs.json.new"
    os.mkfifo(fifo)

    go.touch()
    for job in (build, flash, before):
        await client.until_job(job["job_id"], "completed")
    await client.until_job(after["job_id"], "running")
    late = asyncio.create_task(client.submit("validate", names[3]))
    await asyncio.sleep(1)
    await client.ping()
    assert not late.done()
    assert not runs(server)[after["job_id"]]
    await asyncio.to_thread(server.kill)
    fifo.unlink()
    with suppress(ConnectionError):
        await late
    await asyncio.to_thread(server.start)

    client = await connect(server)
    ids = [job["job_id"] for job in (build, flash, before, after)]
    ended = list((await until_ended(client, ids)).values())
    assert [job["status"] for job in ended] == [
        "completed",
        "interrupted",
        "completed",
        "completed",
    ]
    assert [job["attempt"] for job in ended] == [2, 1, 2, 1]
    assert [runs(server)[job_id] for job_id in ids] == [2, 1, 2, 1]
    page = await client.call("esphome_builds/jobs/log", job_id=flash["job_id"])
    assert page["lines"] == ["it began", "it is done"]
    await aftermath.check(server)


async def test_stopped_with_all_it_can_take(
    mortal: Server, connect: Connect, tmp_path: Path
) -> None:
    """Builds that ignore SIGTERM, uploads, floods, followers and a full queue.

    It stops in seconds and leaves nothing. After the start builds go on, an upload
    that ran is not sent again, and what waited waits.
    """
    server, go = mortal, tmp_path / "go"
    write = server.config_dir
    began = ("print it began", f"wait {go}")
    stubborn = [write_configuration(write, f"no_{n}", "ignore", *began) for n in "abc"]
    flood = [write_configuration(write, f"flood_{n}", f"flood {GIB}") for n in "ab"]
    flashing = [
        write_configuration(write, f"flash_{step}", step, *began)
        for step in ("ignore", "spawn ignore orphan", "spawn session")
    ]
    crowd = [write_configuration(write, f"one_{n}", f"wait {go}") for n in range(100)]
    client, full = await connect(server), await connect(server)
    builds = await client.submit("compile", *stubborn)
    floods = await client.submit("compile", *flood)
    flashes = await client.submit("upload", *flashing)
    for job in (*builds, *flashes):
        await client.until_line(job["job_id"], "it began")
    # One lane is held by these; what follows waits behind them or for them.
    queued = await fill(full, crowd)
    for job in (*floods, *builds):
        follower = await full.follow(job["job_id"])
        await follower.until_output()
    await full.subscribe("esphome_builds/subscribe")

    began_at = time.monotonic()
    await asyncio.to_thread(server.stop)
    assert time.monotonic() - began_at < STOP_SECONDS

    assert not server.processes()
    assert not {"running"} & set(aftermath.stored(server).values())
    go.touch()
    await asyncio.to_thread(server.start)
    client = await connect(server)
    after = await until_ended(client, [job["job_id"] for job in (*builds, *flashes)])
    assert {after[job["job_id"]]["status"] for job in builds} == {"completed"}
    assert {after[job["job_id"]]["attempt"] for job in builds} == {2}
    for job in flashes:
        ended = after[job["job_id"]]
        assert (ended["status"], ended["attempt"]) == ("interrupted", 1)
        assert ended["cause"] == "home_assistant_stopped"
        assert runs(server)[job["job_id"]] == 1
    jobs = await aftermath.all_jobs(client)
    waiting = {job["job_id"]: job for job in jobs if job["status"] == "queued"}
    assert len(queued & set(waiting)) > MAX_ACTIVE // 2
    assert {job["attempt"] for job in waiting.values()} == {1}
    await client.call(
        "call_service",
        domain="esphome_builds",
        service="cancel",
        service_data={"configuration": flood + crowd},
    )
    jobs = await aftermath.check(server)
    assert len(jobs) == HISTORY
