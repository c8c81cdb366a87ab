"""More requests, clients and reloads at once than anybody will ever make."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
import random
from statistics import median
import time
from typing import Any, Final

from aiohttp import ClientSession, TCPConnector
import pytest

from custom_components.esphome_builds.builds.queue import (
    HISTORY,
    UPLOAD_SLOTS,
    VALIDATE_SLOTS,
)

from ..clients import Client, CommandError, Subscription, following
from ..e2e.conftest import Connect
from ..e2e.server import Server
from ..fakes import write_configuration
from . import aftermath

COMPILE_SLOTS: Final = 2
CONNECTIONS: Final = 10
GUESTS: Final = 100
KINDS: Final = ("clean", "compile", "install", "upload", "validate")
LANES: Final = {
    "clean": "compile",
    "compile": "compile",
    "upload": "upload",
    "validate": "validate",
}
MARGINS: Final = {"blocks": 20_000, "rss": 24 * 1024 * 1024}
"""What may be more than after the warm-up: of 1.2 million small pieces of memory those
for some hundred jobs more in the history; of 250 MiB what lies in between of them."""

PING_PATIENCE: Final = 10.0
"""Nothing may be held up for so long, however busy the machine."""

PING_SECONDS: Final = 0.5
"""What is quick in the middle of it, where two cores do all, the requests included."""

REQUESTS: Final = 1000
SLOTS: Final = {
    "compile": COMPILE_SLOTS,
    "upload": UPLOAD_SLOTS,
    "validate": VALIDATE_SLOTS,
}

type Job = dict[str, Any]


@pytest.fixture(scope="module")
def loaded(shared: Server) -> Server:
    """Return a server with as many lanes as on the smallest host that has two."""
    shared.set_options(
        compile_slots=COMPILE_SLOTS,
        compile_limit=60,
        compile_idle_limit=60,
        upload_limit=60,
    )
    return shared


@asynccontextmanager
async def pinging(client: Client) -> AsyncGenerator[list[float]]:
    """Return how long each answer took while this is open, in seconds."""
    times: list[float] = []

    async def _ping() -> None:
        while True:
            began_at = time.monotonic()
            await client.ping()
            times.append(time.monotonic() - began_at)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(_ping())
    try:
        yield times
    finally:
        task.cancel()
        await asyncio.wait([task])


def check_order(jobs: list[Job]) -> None:
    """Check that no lane ran more than it has slots, nor a configuration two at once.

    Jobs of one configuration ran in the order in which they were made.
    """
    ran = [job for job in sorted(jobs, key=_job_id) if job["started_at"]]
    for lane, most in SLOTS.items():
        steps = sorted(
            (moment, change)
            for job in ran
            if LANES[job["kind"]] == lane
            for moment, change in ((job["started_at"], 1), (job["finished_at"], -1))
        )
        running = 0
        for _, change in steps:
            running += change
            assert running <= most
    last: dict[str, str] = defaultdict(str)
    for job in ran:
        assert job["started_at"] >= last[job["configuration"]], job
        last[job["configuration"]] = job["finished_at"]


def _job_id(job: Job) -> str:
    job_id: str = job["job_id"]
    return job_id


async def test_a_thousand_requests(loaded: Server, connect: Connect) -> None:
    """All are answered; the same request has the same job; nothing else is held up."""
    server, dice = loaded, random.Random(1)
    go = server.folder / "go"
    names = [
        write_configuration(server.config_dir, f"many_{n}", f"wait {go}")
        for n in range(120)
    ]
    requests = [
        (dice.choice(KINDS), dice.sample(names, dice.choice((1, 1, 1, 2, 5))))
        for _ in range(REQUESTS)
    ]
    control = await connect(server)
    clients = [await connect(server) for _ in range(CONNECTIONS)]
    await control.submit("validate", names[0])

    made: dict[str, Job] = {}
    attached = 0
    async with pinging(control) as pings:
        answers = await asyncio.gather(
            *(
                clients[n % CONNECTIONS].call(
                    "esphome_builds/jobs/submit", kind=kind, configurations=chosen
                )
                for n, (kind, chosen) in enumerate(requests)
            )
        )
        for (kind, chosen), answer in zip(requests, answers, strict=True):
            count = 2 if kind == "install" else 1
            assert len(answer["jobs"]) == count * len(chosen)
            assert {job["configuration"] for job in answer["jobs"]} == set(chosen)
            attached += len(answer["attached"])
            made |= {job["job_id"]: job for job in answer["jobs"]}
        # Nothing has ended, so who asks for the same has to get the same.
        assert len(made) + attached == sum(len(one["jobs"]) for one in answers) + 1
        same = Counter(
            (job["configuration"], job["kind"], job["depends_on"])
            for job in made.values()
        )
        assert set(same.values()) == {1}
        assert len(made) > HISTORY

        dropped = dice.sample(sorted(made), len(made) * 4 // 5)
        ends = await asyncio.gather(
            *(
                clients[n % CONNECTIONS].call("esphome_builds/jobs/cancel", job_id=one)
                for n, one in enumerate(dropped)
            ),
            return_exceptions=True,
        )
        for end in ends:
            # It may have left the history by then.
            if isinstance(end, BaseException):
                assert isinstance(end, CommandError)
                assert end.code == "not_found"
            else:
                assert end["job"]["status"] in aftermath.ENDED
        go.touch()
        for job_id in sorted(set(made) - set(dropped)):
            try:
                await control.until_job(job_id, *aftermath.ENDED)
            except CommandError as err:
                assert err.code == "not_found"  # noqa: PT017 - as above

    assert median(pings) < PING_SECONDS
    assert max(pings) < PING_PATIENCE
    jobs = await aftermath.check(server)
    assert len(jobs) == HISTORY
    check_order(jobs)


class Guest:
    """A client that does what it likes, and leaves as it likes."""

    def __init__(self, server: Server, dice: random.Random) -> None:
        """Make one that has not come yet."""
        self._server = server
        self._dice = dice

    async def come_and_go(self, session: ClientSession, seconds: float) -> None:
        """Come back again and again for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            client = await self._server.connect(
                session,
                coalesce=self._dice.random() < 0.5,
                compress=self._dice.random() < 0.5,
            )
            try:
                for _ in range(self._dice.randrange(1, 8)):
                    await self._do_anything(client)
            except CommandError as err:
                # The second is a job that left the history.
                expected = ("overflow", "not_found", "too_many_subscriptions")
                assert err.code in expected  # noqa: PT017 - or all is well
            await self._leave(client)

    async def _do_anything(self, client: Client) -> None:
        does = (self._follow, self._follow, self._watch, self._pause, self._submit)
        await self._dice.choice(does)(client)

    async def _follow(self, client: Client) -> None:
        """Follow any job, from any point, for a while; no line may be missing."""
        page = await client.call("esphome_builds/jobs/list", limit=10)
        if not page["jobs"]:
            return
        job = self._dice.choice(page["jobs"])
        start = self._dice.choice(({}, {"from_line": 0}))
        subscription = await client.follow(job["job_id"], **start)
        events = following(subscription, start.get("from_line"))
        with suppress(TimeoutError, StopAsyncIteration):
            async with asyncio.timeout(self._dice.random()):
                while True:
                    await anext(events)
        await self._unsubscribe(subscription)

    async def _watch(self, client: Client) -> None:
        """Look at all jobs for a while."""
        subscription = await client.subscribe("esphome_builds/subscribe")
        assert (await subscription.next())["type"] == "snapshot"
        await asyncio.sleep(self._dice.random() / 2)
        await self._unsubscribe(subscription)

    async def _pause(self, client: Client) -> None:
        """Follow a flood and read nothing for a while."""
        await self._follow(client)
        client.pause()
        await asyncio.sleep(self._dice.random() * 2)
        client.resume()
        await client.ping()

    async def _submit(self, client: Client) -> None:
        """Ask for something that is done soon."""
        if self._dice.random() < 0.2:
            await client.submit("validate", f"short_{self._dice.randrange(5)}.yaml")

    async def _unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription, or forget to."""
        if self._dice.random() < 0.5:
            with suppress(CommandError):
                await subscription.unsubscribe()

    async def _leave(self, client: Client) -> None:
        """Leave politely or not, perhaps when it has not read for a while."""
        if self._dice.random() < 0.3:
            client.pause()
            await asyncio.sleep(self._dice.random() * 2)
        if self._dice.random() < 0.5:
            await client.close()
        else:
            client.abort()


async def crowd(server: Server, seconds: float, seed: int) -> None:
    """Let a hundred guests come and go."""
    async with (
        ClientSession(connector=TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as group,
    ):
        for n in range(GUESTS):
            guest = Guest(server, random.Random(f"{seed} {n}"))
            group.create_task(guest.come_and_go(session, seconds))


def write_storm(server: Server) -> list[str]:
    """Write configurations that print for hours, and some that are done soon."""
    for n in range(5):
        write_configuration(server.config_dir, f"short_{n}", f"print short {n}")
    steps = ("lines 300", "sleep 0.1") * 20_000
    return [
        write_configuration(server.config_dir, f"storm_{n}", *steps)
        for n in range(COMPILE_SLOTS)
    ]


@contextmanager
def away() -> Generator[None]:
    """Take an error that says that the builder is not there just now."""
    try:
        yield
    except CommandError as err:
        assert err.code in ("builder_unavailable", "not_found")  # noqa: PT017 - or all is well


async def cancel_all(client: Client) -> None:
    """End all jobs."""
    jobs = await aftermath.all_jobs(client)
    active = [job["job_id"] for job in jobs if job["status"] not in aftermath.ENDED]
    await asyncio.gather(
        *(client.call("esphome_builds/jobs/cancel", job_id=one) for one in active)
    )


async def check_census(client: Client, before: dict[str, int]) -> None:
    """Check that nothing is more than it was, and memory hardly."""
    deadline = time.monotonic() + aftermath.PATIENCE
    while True:
        now = await client.call("probe/census")
        grown = {
            name: (before[name], now[name])
            for name in before
            if now[name] > before[name] + MARGINS.get(name, 0)
        }
        if not grown:
            break
        assert time.monotonic() < deadline, grown
        await asyncio.sleep(0.5)


@pytest.mark.parametrize(
    "seconds", [5, pytest.param(600, marks=pytest.mark.long)], ids=str
)
async def test_a_crowd_that_comes_and_goes(
    loaded: Server, connect: Connect, seconds: float
) -> None:
    """Nothing is left of a hundred clients; what they take is what they took before."""
    server = loaded
    client = await connect(server)
    before: dict[str, int] = {}
    for seed, length in enumerate((max(5, seconds / 10), seconds)):
        storm = await client.submit("compile", *write_storm(server))
        await crowd(server, length, seed)
        for job in storm:
            await client.until_job(job["job_id"], "running")
        await cancel_all(client)
        await aftermath.check(server)
        # After the first time everything is loaded and every pool has its size.
        before = before or await client.call("probe/census")
    await check_census(client, before)


async def reload_under_load(
    server: Server, connect: Connect, times: int, dice: random.Random
) -> None:
    """Load the builder again and again while it builds, is asked and is followed."""
    storm = write_storm(server)

    async def _ask(guest: Client) -> None:
        while True:
            kind, name = dice.choice(KINDS), f"short_{dice.randrange(5)}.yaml"
            with away():
                await guest.submit(kind, name)
            await asyncio.sleep(dice.random() / 5)

    async def _follow(guest: Client) -> None:
        while True:
            with away():
                for job in await guest.submit("compile", *storm):
                    async for _ in following(await guest.follow(job["job_id"])):
                        pass
            await asyncio.sleep(0.05)

    guests = [await connect(server) for _ in range(4)]
    tasks = [
        asyncio.create_task(work(guest))
        for work, guest in zip((_ask, _ask, _follow, _follow), guests, strict=True)
    ]
    for _ in range(times):
        await asyncio.sleep(dice.random() / 2)
        await asyncio.to_thread(server.reload_builder)
    assert not [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for guest in guests:
        await guest.close()
    # What was asked for last may be done only now, with nobody there to hear of it.
    await asyncio.sleep(1)


@pytest.mark.parametrize(
    "times", [10, pytest.param(100, marks=pytest.mark.long)], ids=str
)
async def test_reloads(loaded: Server, connect: Connect, times: int) -> None:
    """Nothing is left of a builder that was loaded again.

    A job that is stopped twice is interrupted, and what cannot be answered while the
    builder is away is answered with an error that says so.
    """
    server, dice = loaded, random.Random(2)
    client = await connect(server)
    before: dict[str, int] = {}
    for count in (5, times):
        await reload_under_load(server, connect, count, dice)
        await cancel_all(client)
        jobs = await aftermath.check(server)
        before = before or await client.call("probe/census")
    interrupted = [job for job in jobs if job["status"] == "interrupted"]
    assert {job["cause"] for job in interrupted} <= {"home_assistant_stopped"}
    check_order(jobs)
    await check_census(client, before)
    name = write_configuration(server.config_dir, "stopped", "wait never")
    (job,) = await client.submit("compile", name)
    for _ in range(2):
        await client.until_job(job["job_id"], "running")
        await asyncio.to_thread(server.reload_builder)
    ended = await client.until_job(job["job_id"], *aftermath.ENDED)
    assert (ended["status"], ended["cause"]) == (
        "interrupted",
        "home_assistant_stopped",
    )
