"""Websocket clients of Home Assistant that can also stop to read."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from itertools import count
from typing import Any, Final, Self

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
import orjson

PATIENCE: Final = 60.0
"""Seconds after which an answer will not come any more."""

type Message = dict[str, Any]


class CommandError(Exception):
    """Home Assistant answered with an error."""

    def __init__(self, error: Message) -> None:
        """Note what it said."""
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: str = error["code"]


class Subscription:
    """The events of one subscription, in the order in which they came."""

    def __init__(self, client: Client, msg_id: int) -> None:
        """Wait for the first."""
        self.client = client
        self.msg_id = msg_id
        self.error: CommandError | None = None
        self._events: deque[Message] = deque()
        self._news = asyncio.Event()

    def put(self, message: Message) -> None:
        """Take an event, or the error that comes after the last one."""
        if message["type"] == "event":
            self._events.append(message["event"])
        else:
            self.error = CommandError(message["error"])
        self._news.set()

    async def next(self) -> Message:
        """Return the next event; raise the error after the last one."""
        async with asyncio.timeout(PATIENCE):
            while not self._events:
                if self.error is not None:
                    raise self.error
                self.client.check()
                self._news.clear()
                await self._news.wait()
        return self._events.popleft()

    async def until(self, event_type: str) -> list[Message]:
        """Return the events up to the first of a type."""
        events = [await self.next()]
        while events[-1]["type"] != event_type:
            events.append(await self.next())
        return events

    async def until_output(self) -> None:
        """Wait for the first lines of a job's output."""
        while not (await self.next()).get("lines"):
            pass

    async def until_job(self, job_id: str, *statuses: str) -> Message:
        """Return the job once an event shows it with one of the statuses."""
        while True:
            event = await self.next()
            jobs = event["jobs"] if event["type"] == "snapshot" else [event.get("job")]
            for job in jobs:
                if job and job["job_id"] == job_id and job["status"] in statuses:
                    found: Message = job
                    return found

    def waiting(self) -> list[Message]:
        """Return the events that came and were not asked for yet."""
        events = list(self._events)
        self._events.clear()
        return events

    async def unsubscribe(self) -> None:
        """End it; raise `CommandError` if it has ended before."""
        await self.client.call("unsubscribe_events", subscription=self.msg_id)

    def wake(self) -> None:
        """Let whoever waits see that the connection is gone."""
        self._news.set()


class Client:
    """One connection, with any number of commands and subscriptions at a time."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        """Use a socket that is open and not authenticated yet."""
        self.socket = socket
        self.closed = False
        self.overflows = 0
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._reads = asyncio.Event()
        self._reads.set()
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        session: ClientSession,
        url: str,
        token: str,
        *,
        coalesce: bool = False,
        compress: bool = False,
    ) -> Self:
        """Open a connection as Home Assistant's own frontend does, or a plainer one."""
        socket = await session.ws_connect(
            f"{url}/api/websocket", compress=15 if compress else 0, max_msg_size=0
        )
        client = cls(socket)
        await client.authenticate(token, coalesce=coalesce)
        return client

    async def authenticate(self, token: str, *, coalesce: bool = False) -> None:
        """Log in and begin to read."""
        assert (await self.socket.receive_json())["type"] == "auth_required"
        await self.socket.send_json({"type": "auth", "access_token": token})
        assert (await self.socket.receive_json())["type"] == "auth_ok"
        self._reader = asyncio.create_task(self._read())
        if coalesce:
            features = {"coalesce_messages": 1}
            await self.call("supported_features", features=features)

    async def call(self, command: str, **fields: object) -> Any:  # noqa: ANN401 - JSON
        """Return the result of a command; raise `CommandError`."""
        return (await self._send(next(self._ids), command, fields))["result"]

    async def subscribe(self, command: str, **fields: object) -> Subscription:
        """Return a subscription that was accepted; raise `CommandError`."""
        msg_id = next(self._ids)
        self._subscriptions[msg_id] = subscription = Subscription(self, msg_id)
        try:
            await self._send(msg_id, command, fields)
        except CommandError:
            del self._subscriptions[msg_id]
            raise
        return subscription

    async def ping(self) -> None:
        """Return when Home Assistant has answered."""
        await self._send(next(self._ids), "ping", {})

    async def submit(self, kind: str, *names: str, **fields: object) -> list[Message]:
        """Return the jobs of a request."""
        jobs: list[Message] = (
            await self.call(
                "esphome_builds/jobs/submit", kind=kind, configurations=names, **fields
            )
        )["jobs"]
        return jobs

    async def until_job(self, job_id: str, *statuses: str) -> Message:
        """Return the job when it has one of the statuses."""
        subscription = await self.subscribe("esphome_builds/subscribe")
        try:
            # The snapshot has only the newest of the jobs that ended.
            found = await self.call("esphome_builds/jobs/get", job_id=job_id)
            job: Message = found["job"]
            if job["status"] not in statuses:
                job = await subscription.until_job(job_id, *statuses)
        finally:
            await subscription.unsubscribe()
        return job

    async def until_line(self, job_id: str, line: str, from_line: int = 0) -> None:
        """Return when a job has printed a line."""
        subscription = await self.follow(job_id, from_line=from_line)
        while line not in (await subscription.next()).get("lines", ()):
            pass
        with suppress(CommandError):
            # It has ended by itself if the job has.
            await subscription.unsubscribe()

    async def follow(self, job_id: str, **fields: object) -> Subscription:
        """Subscribe to a job's output."""
        return await self.subscribe(
            "esphome_builds/jobs/follow", job_id=job_id, **fields
        )

    async def follow_to_end(self, job_id: str) -> tuple[list[str], Message]:
        """Return all lines of a job and its end; come back after each overflow."""
        lines: list[str] = []
        end: Message = {}
        while not end:
            subscription = await self.follow(job_id, from_line=len(lines))
            async for event in following(subscription, len(lines)):
                lines += event.get("lines", [])
                if event["type"] == "end":
                    end = event
                self.overflows += event["type"] == "overflow"
        return lines, end

    def pause(self) -> None:
        """Read no more, so that the operating system's buffers fill up."""
        self._reads.clear()

    def resume(self) -> None:
        """Read again."""
        self._reads.set()

    async def close(self) -> None:
        """Leave, politely."""
        self.resume()
        await self.socket.close()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    def abort(self) -> None:
        """Leave without a word."""
        if self._reader is not None:
            self._reader.cancel()
        response = self.socket._response
        if response.connection is not None and response.connection.transport:
            response.connection.transport.abort()
        response.close()

    def check(self) -> None:
        """Raise `ConnectionError` if the connection is gone."""
        if self.closed:
            raise ConnectionError("Home Assistant closed the connection")

    async def _send(self, msg_id: int, command: str, fields: Message) -> Message:
        answer = asyncio.get_running_loop().create_future()
        self._answers[msg_id] = answer
        self.check()
        await self.socket.send_json({"id": msg_id, "type": command, **fields})
        message: Message = await asyncio.wait_for(answer, PATIENCE)
        if message["type"] == "result" and not message["success"]:
            raise CommandError(message["error"])
        return message

    async def _read(self) -> None:
        try:
            while True:
                message = await self.socket.receive()
                await self._reads.wait()
                if message.type is not WSMsgType.TEXT:
                    break
                content = orjson.loads(message.data)
                for one in content if isinstance(content, list) else [content]:
                    self._take(one)
        finally:
            self.closed = True
            for subscription in self._subscriptions.values():
                subscription.wake()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("The connection is gone"))
                    # Nobody may be waiting for it.
                    answer.exception()

    def _take(self, message: Message) -> None:
        msg_id = message["id"]
        answer = self._answers.pop(msg_id, None)
        if answer is not None:
            if not answer.done():
                answer.set_result(message)
        elif subscription := self._subscriptions.get(msg_id):
            subscription.put(message)
        else:
            raise AssertionError(f"Nobody asked for {message}")


async def eventually(
    condition: Callable[[], object], what: Callable[[], object] = lambda: None
) -> None:
    """Wait until a condition holds; `what` tells what there was instead."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not condition():
        if loop.time() > end:
            raise TimeoutError(what())
        await asyncio.sleep(0.01)


async def following(
    subscription: Subscription, next_line: int | None = None
) -> AsyncIterator[Message]:
    """Yield a follower's events to the last one and check that nothing is missing.

    The first line has to be `next_line`, if that is given.
    """
    first = await subscription.next()
    assert first["type"] == "snapshot"
    line = first["from_line"]
    assert next_line in (None, line)
    event = first
    while True:
        if "lines" in event:
            assert event["from_line"] == line
            line += len(event["lines"])
        elif event["type"] == "gap":
            assert event["from_line"] == line < event["next_line"]
            line = event["next_line"]
        yield event
        if event["type"] in ("end", "overflow"):
            assert event["next_line"] == line
            break
        event = await subscription.next()
        assert event["type"] != "snapshot"
    if event["type"] == "overflow":
        with suppress(CommandError):
            await subscription.next()
        assert subscription.error is not None
        assert subscription.error.code == "overflow"
