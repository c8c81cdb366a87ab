"""Streams over Home Assistant's websocket connections."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from itertools import pairwise
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import Mock

import orjson
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser

from custom_components.esphome_builds.builds.models import OverflowEvent, SnapshotEvent
from custom_components.esphome_builds.const import SIGNAL_BUILDERS, SIGNAL_EVENT
from custom_components.esphome_builds.streams import (
    DATA_CONNECTIONS,
    MAX_STREAMS,
    async_stream,
)
from homeassistant.components.websocket_api import ActiveConnection
from homeassistant.core import HomeAssistant
from homeassistant.helpers.dispatcher import DATA_DISPATCHER
from homeassistant.helpers.http import current_request

from .clients import Client, CommandError, Message, Subscription, eventually, following
from .conftest import Connect
from .fakes import write_configuration

FOLLOW: Final = "esphome_builds/jobs/follow"
SUBSCRIBE: Final = "esphome_builds/subscribe"
MIB: Final = 1024 * 1024


class Wire:
    """A connection without a network, whose buffer fills up when a test says so."""

    def __init__(self, hass: HomeAssistant, user: MockUser) -> None:
        """Connect."""
        self.full = False
        self.sent: list[Message] = []
        logger = logging.getLogger(__name__)
        # In the context of a request, as commands are handled.
        current_request.set(SimpleNamespace(transport=self, remote=None))  # type: ignore[arg-type]
        self.connection = ActiveConnection(
            logger,  # type: ignore[arg-type]
            hass,
            self._send,
            user,
            None,
            None,
        )

    def _send(self, message: bytes | str | Message) -> None:
        self.sent.append(
            message if isinstance(message, dict) else orjson.loads(message)
        )

    def is_closing(self) -> bool:
        """Return that the client is there."""
        return False

    def get_write_buffer_size(self) -> int:
        """Return how much the client has not read yet."""
        return MIB if self.full else 0

    def command(self, msg_id: int, command: str, **fields: Any) -> None:  # noqa: ANN401
        """Receive a command."""
        self.connection.async_handle({"id": msg_id, "type": command, **fields})

    @property
    def events(self) -> list[Message]:
        """Return the events that were sent."""
        return [message["event"] for message in self.sent if message["type"] == "event"]


@pytest.fixture
def wire(
    hass: HomeAssistant, builder: MockConfigEntry, hass_admin_user: MockUser
) -> Generator[Wire]:
    """Return a connection without a network."""
    wire = Wire(hass, hass_admin_user)
    yield wire
    wire.connection.async_handle_close()


@pytest.fixture(autouse=True)
async def nothing_is_left(
    hass: HomeAssistant, builder: MockConfigEntry
) -> AsyncGenerator[None]:
    """Check after each test that no stream left anything behind."""
    before = attached(hass, builder)
    yield
    await eventually(lambda: attached(hass, builder) <= before)


def attached(hass: HomeAssistant, builder: MockConfigEntry) -> Counter[str]:
    """Return how much of each kind is attached that streams attach, too."""
    dispatcher: dict[Any, Any] = hass.data.get(DATA_DISPATCHER, {})
    engine = builder.runtime_data.builder
    found = {
        "connections": len(hass.data.get(DATA_CONNECTIONS, ())),
        "dispatcher": sum(
            len(dispatcher.get(signal, ()))
            for signal in (SIGNAL_EVENT, SIGNAL_BUILDERS)
        ),
        "listeners of the builder": len(engine._listeners),
        "listeners of logs": len(log_listeners(builder)),
        "tasks": sum(
            task.get_name().startswith("esphome_builds stream")
            for task in asyncio.all_tasks()
        ),
    }
    return Counter(found)


def log_listeners(builder: MockConfigEntry) -> list[object]:
    """Return what listens to the logs of a builder."""
    logs = builder.runtime_data.builder._logs._open.values()
    return [listener for log in logs for listener in log._listeners]


async def submit(client: Client, kind: str, *names: str) -> list[str]:
    """Submit and return the ids of the jobs."""
    result = await client.call(
        "esphome_builds/jobs/submit", kind=kind, configurations=names
    )
    return [job["job_id"] for job in result["jobs"]]


async def ended(subscription: Subscription) -> str:
    """Return the code of the error that comes after the last event."""
    with pytest.raises(CommandError) as caught:
        await subscription.next()
    return caught.value.code


async def test_a_snapshot_then_every_event_once_and_in_order(client: Client) -> None:
    """From nothing to a job that has ended; the last event shows what then is."""
    stream = await client.subscribe(SUBSCRIBE)
    snapshot = await stream.next()
    assert snapshot["type"] == "snapshot"
    assert [found["title"] for found in snapshot["builders"]] == ["esphome"]
    assert "kettle.yaml" in {
        found["configuration"] for found in snapshot["configurations"]
    }
    assert snapshot["jobs"] == []

    [job_id] = await submit(client, "validate", "kettle.yaml")
    events = [snapshot]
    while not (
        events[-1]["type"] == "builder"
        and events[-1]["builder"]["running"] == events[-1]["builder"]["queued"] == 0
    ):
        events.append(await stream.next())

    jobs = [event["job"] for event in events if event["type"] == "job"]
    assert {job["job_id"] for job in jobs} == {job_id}
    statuses = [job["status"] for job in jobs]
    assert list(dict.fromkeys(statuses)) == ["queued", "running", "completed"]
    assert statuses == sorted(statuses, key=["queued", "running", "completed"].index)
    assert all(before != after for before, after in pairwise(jobs))
    configurations = [
        event["configuration"] for event in events if event["type"] == "configuration"
    ]
    active = [configuration["active_job_id"] for configuration in configurations]
    assert active == [job_id, None]
    assert configurations[-1]["last_job_id"] == job_id
    running = [
        event["builder"]["running"] for event in events if event["type"] == "builder"
    ]
    assert running in ([1, 0], [0, 1, 0])
    await stream.unsubscribe()


async def test_a_snapshot_has_active_jobs_and_the_newest_ended_ones(
    client: Client, config_dir: Path
) -> None:
    """Not all of the history, and nothing of it twice."""
    write_configuration(config_dir, "long", "sleep inf")
    stream = await client.subscribe(SUBSCRIBE)
    ids = []
    for kind in ("validate", "compile"):
        [job_id] = await submit(client, kind, "kettle.yaml")
        await stream.until_job(job_id, "completed")
        ids.append(job_id)
    active = [
        (await submit(client, kind, "long.yaml"))[0] for kind in ("compile", "clean")
    ]

    again = await client.subscribe(SUBSCRIBE)
    snapshot = await again.next()

    assert [job["job_id"] for job in snapshot["jobs"]] == [ids[-1], *active]
    await client.call("esphome_builds/jobs/cancel", job_id=active[1])
    await client.call("esphome_builds/jobs/cancel", job_id=active[0])


async def test_what_happens_while_the_snapshot_is_sent_comes_after_it(
    hass: HomeAssistant, client: Client, wire: Wire
) -> None:
    """The snapshot is of one moment, however long it takes to send it."""
    wire.full = True
    wire.command(1, SUBSCRIBE)
    await eventually(lambda: wire.sent)
    # One turn for the stream to begin; the snapshot waits in front of the full buffer.
    await asyncio.sleep(0.1)
    other = await client.subscribe(SUBSCRIBE)
    [job_id] = await submit(client, "validate", "kettle.yaml")
    await other.until_job(job_id, "completed")
    assert wire.events == []

    wire.full = False
    await eventually(
        lambda: any(
            event.get("job", {}).get("status") == "completed" for event in wire.events
        )
    )

    assert wire.events[0]["type"] == "snapshot"
    assert wire.events[0]["jobs"] == []
    jobs = [event["job"] for event in wire.events if event["type"] == "job"]
    statuses = dict.fromkeys(job["status"] for job in jobs)
    assert list(statuses) == ["queued", "running", "completed"]


@pytest.mark.local_only(
    "a server keeps 2,000 lines, so the numbers are its own: tests/contract"
)
async def test_a_job_that_ends_while_its_snapshot_is_sent(
    client: Client, wire: Wire, config_dir: Path, tmp_path: Path
) -> None:
    """The follower's snapshot shows it running; all lines and the end come after."""
    go = tmp_path / "go"
    write_configuration(config_dir, "a", "print first", f"wait {go}", "lines 9000")
    stream = await client.subscribe(SUBSCRIBE)
    [job_id] = await submit(client, "compile", "a.yaml")
    await stream.until_job(job_id, "running")
    wire.full = True
    wire.command(1, FOLLOW, job_id=job_id)
    await asyncio.sleep(0.3)
    go.touch()
    # The log is trimmed to 4,000 lines in memory meanwhile.
    await stream.until_job(job_id, "completed")

    wire.full = False
    await eventually(lambda: wire.events and wire.events[-1]["type"] == "end")

    events = wire.events
    assert events[0]["type"] == "snapshot"
    assert events[0]["job"]["status"] == "running"
    lines = [line for event in events for line in event.get("lines", ())]
    assert lines == ["first", *(f"line {number}" for number in range(9000))]
    assert [event["type"] for event in events].count("end") == 1
    assert events[-1]["job"]["status"] == "completed"
    assert events[-1]["job"]["exit_code"] == 0


async def test_only_the_builder_that_was_asked_for(
    hass: HomeAssistant, client: Client, builder: MockConfigEntry
) -> None:
    """A stream of one builder, and one of a builder that does not exist."""
    stream = await client.subscribe(SUBSCRIBE, entry_id=builder.entry_id)
    assert len((await stream.next())["builders"]) == 1
    with pytest.raises(CommandError, match="not_found"):
        await client.subscribe(SUBSCRIBE, entry_id="other")


async def test_a_job_is_followed_to_its_end(client: Client, config_dir: Path) -> None:
    """Snapshot, output, end; then the server has ended the subscription."""
    write_configuration(config_dir, "a", "lines 1500", "exit 3")
    [job_id] = await submit(client, "compile", "a.yaml")

    follower = await client.follow(job_id, from_line=0)
    events = [event async for event in following(follower, 0)]

    lines = [line for event in events for line in event.get("lines", ())]
    assert lines == [f"line {number}" for number in range(1500)]
    assert events[-1]["type"] == "end"
    assert events[-1]["next_line"] == 1500
    assert events[-1]["job"]["status"] == "failed"
    assert events[-1]["job"]["exit_code"] == 3
    for event in events:
        if event["type"] == "output":
            assert len(event["lines"]) <= 500
    with pytest.raises(CommandError, match="not_found"):
        await follower.unsubscribe()


async def test_a_job_that_has_ended_is_followed(
    client: Client, config_dir: Path
) -> None:
    """The last 2,000 lines, or all from a line on, and the end at once."""
    write_configuration(config_dir, "a", "lines 3000")
    [job_id] = await submit(client, "compile", "a.yaml")
    await client.follow_to_end(job_id)

    tail = [event async for event in following(await client.follow(job_id))]
    assert [event["type"] for event in tail] == ["snapshot", "end"]
    assert tail[0]["from_line"] == 1000
    assert len(tail[0]["lines"]) == 2000
    late = [
        event
        async for event in following(await client.follow(job_id, from_line=2990), 2990)
    ]
    assert late[0]["lines"] == [f"line {number}" for number in range(2990, 3000)]
    beyond = await client.follow(job_id, from_line=5000)
    first, last = [event async for event in following(beyond)]
    assert (first["from_line"], first["lines"]) == (3000, [])
    assert last["type"] == "end"


async def test_a_follower_sees_nothing_of_another_job(
    client: Client, config_dir: Path
) -> None:
    """Two jobs that run side by side, each with its own lines."""
    write_configuration(config_dir, "a", *["print this is a", "sleep 0.05"] * 5)
    write_configuration(config_dir, "b", *["print this is b", "sleep 0.05"] * 5)
    jobs = await submit(client, "validate", "a.yaml", "b.yaml")

    outputs = await asyncio.gather(*map(client.follow_to_end, jobs))

    assert [lines for lines, _ in outputs] == [["this is a"] * 5, ["this is b"] * 5]
    assert [end["job"]["job_id"] for _, end in outputs] == jobs


@pytest.mark.parametrize("queued", [False, True])
async def test_a_canceled_job_ends_its_followers(
    client: Client, config_dir: Path, *, queued: bool
) -> None:
    """A job that runs and one that waits."""
    write_configuration(config_dir, "a", "print it runs", "sleep inf")
    [job_id] = await submit(client, "compile", "a.yaml")
    if queued:
        [before], [job_id] = [job_id], await submit(client, "clean", "a.yaml")
    follower = await client.follow(job_id)
    if not queued:
        await follower.until_output()

    await client.call("esphome_builds/jobs/cancel", job_id=job_id)

    end = (await follower.until("end"))[-1]
    assert end["job"]["status"] == "cancelled"
    if queued:
        await client.call("esphome_builds/jobs/cancel", job_id=before)


async def test_there_are_at_most_32_streams_on_a_connection(
    client: Client, connect: Connect, config_dir: Path
) -> None:
    """Of both kinds together; where one ends there is room again."""
    write_configuration(config_dir, "a", "print it runs", "sleep inf")
    [job_id] = await submit(client, "compile", "a.yaml")
    streams = [await client.subscribe(SUBSCRIBE) for _ in range(MAX_STREAMS // 2)]
    streams += [await client.follow(job_id) for _ in range(MAX_STREAMS // 2)]
    for command in (client.subscribe(SUBSCRIBE), client.follow(job_id)):
        with pytest.raises(CommandError, match="too_many_subscriptions"):
            await command

    other = await connect()
    assert await (await other.subscribe(SUBSCRIBE)).next()
    await streams[0].unsubscribe()
    streams[0] = await client.subscribe(SUBSCRIBE)
    with pytest.raises(CommandError, match="too_many_subscriptions"):
        await client.subscribe(SUBSCRIBE)
    await client.call("esphome_builds/jobs/cancel", job_id=job_id)
    # The followers have ended with the job.
    await streams[-1].until("end")
    assert await (await client.subscribe(SUBSCRIBE)).next()


@pytest.mark.parametrize("command", [SUBSCRIBE, FOLLOW])
@pytest.mark.parametrize("way", ["unsubscribe", "disconnect", "stop reading first"])
async def test_nothing_is_left_wherever_a_stream_is_cut_off(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    builder: MockConfigEntry,
    hass_admin_user: MockUser,
    client: Client,
    config_dir: Path,
    command: str,
    way: str,
) -> None:
    """At each await of it, from before its first step until it is live."""
    write_configuration(config_dir, "a", "lines 3000", "spawn hold print", "sleep inf")
    [job_id] = await submit(client, "compile", "a.yaml")
    await (await client.follow(job_id)).until_output()
    await client.close()
    fields = {"job_id": job_id} if command == FOLLOW else {}
    baseline = attached(hass, builder)

    for turns in range(40):
        wire = Wire(hass, hass_admin_user)
        wire.full = way == "stop reading first"
        wire.command(1, command, **fields)
        for _ in range(turns):
            # Longer and longer, since some steps take time in other threads.
            await asyncio.sleep(0 if turns < 20 else turns / 20_000)
        if way == "unsubscribe":
            wire.command(2, "unsubscribe_events", subscription=1)
        wire.connection.async_handle_close()
        await eventually(lambda: attached(hass, builder) <= baseline)
    await builder.runtime_data.builder.cancel(job_id)


async def test_a_client_that_is_gone_leaves_nothing(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    client: Client,
    connect: Connect,
    config_dir: Path,
) -> None:
    """A real connection that is cut in the middle of a flood."""
    write_configuration(config_dir, "a", f"flood {512 * MIB}", "sleep inf")
    [job_id] = await submit(client, "compile", "a.yaml")
    baseline = attached(hass, builder)
    gone = await connect()
    for stream in (await gone.subscribe(SUBSCRIBE), await gone.follow(job_id)):
        await stream.next()
    gone.pause()
    await asyncio.sleep(0.3)

    gone.abort()

    await eventually(lambda: attached(hass, builder) <= baseline)
    await client.call("esphome_builds/jobs/cancel", job_id=job_id)


async def test_a_stream_that_fails_says_so(
    hass: HomeAssistant,
    client: Client,
    builder: MockConfigEntry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Origin 17: an error of ours is logged, told, and costs nobody the connection."""
    stream = await client.subscribe(SUBSCRIBE)
    await stream.next()

    def _fail(_: SnapshotEvent) -> bytes:
        raise RuntimeError("This is not serializable")

    monkeypatch.setattr(SnapshotEvent, "size", 0)
    monkeypatch.setattr(SnapshotEvent, "json", property(_fail))
    await hass.config_entries.async_reload(builder.entry_id)

    assert await ended(stream) == "unknown_error"
    assert "A stream failed" in caplog.text
    caplog.clear()
    assert await client.call("esphome_builds/builders/list")


async def test_a_builder_that_goes_and_comes_gives_a_new_snapshot(
    hass: HomeAssistant, client: Client, builder: MockConfigEntry
) -> None:
    """What was before does not count any more."""
    stream = await client.subscribe(SUBSCRIBE)
    assert (await stream.next())["builders"]

    assert await hass.config_entries.async_unload(builder.entry_id)
    while (event := await stream.next())["type"] != "snapshot" or event["builders"]:
        pass
    assert event["configurations"] == event["jobs"] == []

    assert await hass.config_entries.async_setup(builder.entry_id)
    while (event := await stream.next())["type"] != "snapshot" or not event["builders"]:
        pass
    await eventually(lambda: builder.runtime_data.builder.info.state == "ready")
    [job_id] = await submit(client, "validate", "kettle.yaml")
    await stream.until_job(job_id, "completed")


async def test_a_running_job_ends_with_its_builder(
    hass: HomeAssistant, client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """Its followers get its end before the builder is gone."""
    write_configuration(config_dir, "a", "print it runs", "sleep inf")
    # What else runs on a server goes on there.
    [job_id] = await submit(client, "validate", "a.yaml")
    follower = await client.follow(job_id)
    await follower.until_output()

    assert await hass.config_entries.async_unload(builder.entry_id)

    end = (await follower.until("end"))[-1]
    assert end["job"]["status"] == "interrupted"
    assert end["job"]["cause"] == "home_assistant_stopped"
    assert await hass.config_entries.async_setup(builder.entry_id)


async def test_a_waiting_job_goes_on_with_its_builder(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    client: Client,
    builder: MockConfigEntry,
    config_dir: Path,
    builder_kind: str,
    tmp_path: Path,
) -> None:
    """Its followers are told to come back, and then see it run."""
    go = tmp_path / "go"
    write_configuration(config_dir, "a", f"wait {go}", "print it ran")
    compiling, uploading = await submit(client, "install", "a.yaml")
    followers = [
        await client.follow(job_id) for job_id in (compiling, uploading, uploading)
    ]

    assert await hass.config_entries.async_reload(builder.entry_id)

    if builder_kind == "local":
        interrupted = (await followers.pop(0).until("end"))[-1]
        assert interrupted["job"]["status"] == "interrupted"
    for follower in followers:
        event = (await follower.until("overflow"))[-1]
        assert event == {"type": "overflow", "next_line": 0}
        assert await ended(follower) == "overflow"
    go.touch()
    lines, end = await client.follow_to_end(uploading)
    assert lines == ["it ran"]
    assert end["job"]["status"] == "completed"


@pytest.fixture
def quiet_connections(caplog: pytest.LogCaptureFixture) -> Callable[[], bool]:
    """Return what tells whether Home Assistant never complained of a client."""
    return lambda: "unable to keep up" not in caplog.text


@pytest.mark.local_only(
    "a server drops lines of a flood, so that none of them overflows: tests/contract"
)
async def test_a_client_that_stops_reading_overflows_and_lives(  # noqa: PLR0913, PLR0917
    builder: MockConfigEntry,
    client: Client,
    connect: Connect,
    config_dir: Path,
    tmp_path: Path,
    quiet_connections: Callable[[], bool],
) -> None:
    """A real socket and a real flood; nobody else feels anything of it."""
    go = tmp_path / "go"
    write_configuration(
        config_dir, "a", "print first", f"wait {go}", f"flood {48 * MIB}", "write '\\n'"
    )
    [job_id] = await submit(client, "compile", "a.yaml")
    stalled = await connect()
    follower = await stalled.follow(job_id)
    await follower.until_output()
    other = await client.subscribe(SUBSCRIBE)
    await eventually(lambda: log_listeners(builder))

    stalled.pause()
    go.touch()
    # The follower's listener goes when its queue overflows.
    await eventually(lambda: not log_listeners(builder))
    asked = asyncio.create_task(stalled.call("esphome_builds/builders/list"))
    assert await client.call("esphome_builds/jobs/list")
    done = await other.until_job(job_id, "completed")
    assert not asked.done()
    stalled.resume()

    assert (await asked)["builders"]
    line = 1
    while (event := await follower.next())["type"] != "overflow":
        if "lines" in event:
            assert event["from_line"] == line
            line += len(event["lines"])
    assert event == {"type": "overflow", "next_line": line}
    assert await ended(follower) == "overflow"
    with pytest.raises(CommandError, match="not_found"):
        await follower.unsubscribe()

    # It comes back, and ends with every line that there is.
    rest = await stalled.follow(job_id, from_line=line)
    async for event in following(rest, line):
        line = event.get("next_line", line)
    assert line == done["total_lines"]
    assert quiet_connections()


@pytest.mark.local_only(
    "a server drops lines of a flood, so that none of them overflows: tests/contract"
)
async def test_a_client_that_reads_slowly_ends_with_every_line(
    client: Client,
    connect: Connect,
    config_dir: Path,
    quiet_connections: Callable[[], bool],
) -> None:
    """It overflows and comes back, as often as it takes."""
    write_configuration(config_dir, "a", "lines 200000")
    slow = await connect()

    async def _dawdle() -> None:
        while True:
            slow.pause()
            await asyncio.sleep(0.03)
            slow.resume()
            await asyncio.sleep(0.01)

    dawdling = asyncio.create_task(_dawdle())
    [job_id] = await submit(client, "compile", "a.yaml")
    lines, end = await slow.follow_to_end(job_id)
    dawdling.cancel()
    slow.resume()

    assert slow.overflows
    assert lines == [f"line {number}" for number in range(200_000)]
    assert end["job"]["status"] == "completed"
    assert quiet_connections()


async def test_50_followers_of_a_flood(
    client: Client,
    connect: Connect,
    config_dir: Path,
    quiet_connections: Callable[[], bool],
) -> None:
    """Each gets contiguous lines to the end, or an overflow that says where it is."""
    write_configuration(config_dir, "a", "print first", f"flood {6 * MIB}")
    clients = [
        await connect(coalesce=number % 2 == 0, compress=number < 3)
        for number in range(5)
    ]
    [job_id] = await submit(client, "compile", "a.yaml")

    async def _follow(follower: Subscription) -> Message:
        return [event async for event in following(follower)][-1]

    followers = [await clients[number % 5].follow(job_id) for number in range(50)]
    async with asyncio.TaskGroup() as group:
        following_all = [group.create_task(_follow(one)) for one in followers]

    last = [task.result() for task in following_all]
    assert {event["type"] for event in last} <= {"end", "overflow"}
    totals = {event["next_line"] for event in last if event["type"] == "end"}
    assert len(totals) <= 1
    for one in clients:
        assert await one.call("esphome_builds/builders/list")
    assert quiet_connections()


async def test_a_subscriber_that_stops_reading_overflows_and_comes_back(
    client: Client, wire: Wire, config_dir: Path
) -> None:
    """More events wait than may; the next snapshot puts it right."""
    names = [
        write_configuration(config_dir, f"node{number}", "sleep inf")
        for number in range(200)
    ]
    wire.command(1, SUBSCRIBE)
    await eventually(lambda: wire.events)
    wire.full = True
    for _ in range(4):
        # The one before is superseded: each time 600 events.
        result = await client.call(
            "esphome_builds/jobs/submit",
            kind="compile",
            configurations=names,
            replace=True,
        )
    active = {job["job_id"] for job in result["jobs"]}

    wire.full = False
    await eventually(lambda: wire.sent[-1]["type"] == "result")

    assert wire.events[-1] == {"type": "overflow"}
    assert wire.sent[-1]["error"]["code"] == "overflow"
    wire.command(2, "unsubscribe_events", subscription=1)
    assert wire.sent[-1]["error"]["code"] == "not_found"
    assert len(wire.events) < 1000
    again = await client.subscribe(SUBSCRIBE)
    jobs = (await again.next())["jobs"]
    # What they replaced may still be ending.
    assert active <= {
        job["job_id"] for job in jobs if job["status"] in ("queued", "running")
    }


@pytest.mark.parametrize("told", [True, False])
async def test_an_overflow_is_told_and_then_cut_off(
    hass: HomeAssistant, told: bool
) -> None:
    """Origin 16: the cut comes last, and also where telling fails."""
    sent: list[str] = []
    connection = Mock(subscriptions={})

    def _send(name: str) -> None:
        assert 7 in connection.subscriptions
        sent.append(name)
        if not told:
            raise RuntimeError("The connection broke")

    async def _overflowing() -> AsyncGenerator[OverflowEvent]:
        yield OverflowEvent()

    connection.send_message.side_effect = lambda _: _send("event")
    connection.send_error.side_effect = lambda *_: _send("error") if told else None
    async_stream(hass, connection, 7, _overflowing())
    assert 7 in connection.subscriptions

    await hass.async_block_till_done(wait_background_tasks=True)

    assert sent == (["event", "error"] if told else ["event"])
    assert connection.subscriptions == {}
    assert connection not in hass.data[DATA_CONNECTIONS]
