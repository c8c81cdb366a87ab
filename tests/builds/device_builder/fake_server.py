"""Stands in for an ESPHome Device Builder, and misbehaves as a test wants."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self

from aiohttp import WSMsgType, web

type Handler = Callable[[Connection, str, dict[str, Any]], Awaitable[object]]

GREETING = {
    "server_version": "1.26.0",
    "esphome_version": "2026.10.0",
    "port": 6052,
    "friendly_name": "fake",
    "requires_auth": False,
}


def device(configuration: str = "kitchen.yaml", **changes: object) -> dict[str, Any]:
    """Return a device as the server lists it."""
    fields = {
        "name": configuration.removesuffix(".yaml"),
        "friendly_name": "Kitchen",
        "configuration": configuration,
        "comment": None,
        "area": "",
        "target_platform": "esp32",
        "expected_config_hash": "12345678",
        "has_pending_changes": True,
        "update_available": True,
        "runtime_state": {
            "state": "online",
            "deployed_version": "2026.9.0",
            "deployed_config_hash": "87654321",
        },
    }
    return fields | changes


def server_job(job_id: str = "a", **changes: object) -> dict[str, Any]:
    """Return a job as the server tells of it."""
    fields = {
        "job_id": job_id,
        "configuration": "kitchen.yaml",
        "job_type": "compile",
        "status": "queued",
        "created_at": "2026-11-24T12:00:00+00:00",
        "started_at": None,
        "completed_at": None,
        "exit_code": None,
        "error": None,
        "port": "",
        "depends_on": "",
        "source": "local",
    }
    return fields | changes


def ended(
    job_id: str = "a", status: str = "completed", **changes: object
) -> dict[str, Any]:
    """Return a job that ran and has ended."""
    times: dict[str, object] = {
        "started_at": "2026-11-24T12:00:01+00:00",
        "completed_at": "2026-11-24T12:00:05+00:00",
        "exit_code": 0 if status == "completed" else None,
    }
    return server_job(job_id, **({"status": status} | times | changes))


class Connection:
    """One client of the fake."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        """Use a connection that was accepted."""
        self.ws = ws
        self.jobs_stream: str | None = None

    async def event(self, message_id: str, event: str, data: object) -> None:
        """Send an event of a stream."""
        with suppress(ConnectionError):
            await self.ws.send_json(
                {"message_id": message_id, "event": event, "data": data}
            )

    async def tell(self, event: str, data: object) -> None:
        """Send an event of the stream of all jobs."""
        assert self.jobs_stream is not None
        await self.event(self.jobs_stream, event, data)


class CommandRefusedError(Exception):
    """What a handler raises to refuse."""


class FakeServer:
    """Answers what is needed to be ready; `handlers` come first."""

    def __init__(self) -> None:
        """Serve one device and no job."""
        self.greeting: object = GREETING
        self.devices: object = {"configured": [device()], "importable": []}
        self.jobs: list[object] = []
        self.text: object = "esphome:\n"
        self.output: dict[str, list[str]] = {}
        self.handlers: dict[str, Handler] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.connections: list[Connection] = []
        self.headers: list[dict[str, str]] = []
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connection(self) -> Connection:
        """Return the newest client."""
        return self.connections[-1]

    async def start(self) -> Self:
        """Listen."""
        application = web.Application()
        application.router.add_get("/ws", self._accept)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Leave nothing."""
        if self._runner is not None:
            for connection in self.connections:
                await connection.ws.close()
            await self._runner.cleanup()
            self._runner = None

    def count(self, command: str) -> int:
        """Return how often something was asked."""
        return sum(name == command for name, _ in self.asked)

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        self.headers.append(dict(request.headers))
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        connection = Connection(ws)
        self.connections.append(connection)
        with suppress(ConnectionError):
            if callable(self.greeting):
                await self.greeting(connection)
            elif isinstance(self.greeting, str):
                await ws.send_str(self.greeting)
            else:
                await ws.send_json(self.greeting)
        tasks = set()
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                task = asyncio.create_task(self._answer(connection, message.json()))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        for task in tuple(tasks):
            task.cancel()
        return ws

    async def _answer(self, connection: Connection, message: dict[str, Any]) -> None:
        message_id, command = message["message_id"], message["command"]
        self.asked.append((command, message["args"]))
        handler = self.handlers.get(command) or _HANDLERS.get(command)
        answer: dict[str, object] = {"message_id": message_id}
        try:
            if handler is None:
                raise CommandRefusedError("unknown_command", f"Unknown: {command}")  # noqa: TRY301
            if handler in _HANDLERS.values():
                result = await handler(self, connection, message_id, message["args"])  # type: ignore[call-arg, arg-type]
            else:
                result = await handler(connection, message_id, message["args"])
            answer["result"] = result
        except CommandRefusedError as err:
            answer |= {"error_code": err.args[0], "details": err.args[1]}
        with suppress(ConnectionError):
            await connection.ws.send_json(answer)


async def _list(server: FakeServer, *_: object) -> object:
    return server.devices


async def _get_config(server: FakeServer, *_: object) -> object:
    return server.text


async def _ping(*_: object) -> object:
    return {"pong": True}


async def _follow_jobs(
    server: FakeServer, connection: Connection, message_id: str, _: object
) -> object:
    for job in server.jobs:
        await connection.event(message_id, "snapshot", job)
    connection.jobs_stream = message_id
    return await asyncio.Event().wait()


async def _follow_job(
    server: FakeServer,
    connection: Connection,
    message_id: str,
    arguments: dict[str, Any],
) -> object:
    for line in server.output.get(arguments["job_id"], []):
        await connection.event(message_id, "output", line)
    await connection.event(message_id, "result", {"status": "completed"})
    return None


async def _get_job(
    server: FakeServer, _: Connection, __: str, arguments: dict[str, Any]
) -> object:
    for job in server.jobs:
        if isinstance(job, dict) and job["job_id"] == arguments["job_id"]:
            return job | {"output": server.output.get(job["job_id"], [])}
    return None


async def _get_jobs(server: FakeServer, *_: object) -> object:
    return server.jobs


_HANDLERS: dict[str, Any] = {
    "devices/get_config": _get_config,
    "devices/list": _list,
    "firmware/follow_job": _follow_job,
    "firmware/follow_jobs": _follow_jobs,
    "firmware/get_job": _get_job,
    "firmware/get_jobs": _get_jobs,
    "ping": _ping,
}
