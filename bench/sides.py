"""The two real servers, driven alike: each as its own clients drive it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
import os
from pathlib import Path
import signal
import subprocess
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

from aiohttp import ClientSession, ClientWebSocketResponse
import orjson

from tests.clients import Client, CommandError
from tests.e2e.server import ROOT, Server, fetch, free_port, wait_for
from tests.fakes import install_fake, write_configuration

PEER: Final = ROOT / ".local" / "peer" / "bin"
ESPHOME: Final = PEER / "esphome"
"""Both sides and the command line run the same one."""

_PATIENCE: Final = 60.0
_STOP_SECONDS: Final = 30.0


async def run_esphome(folder: Path, data_dir: Path, *arguments: str) -> None:
    """Run one command by hand, in the folder of its configuration."""
    process = await asyncio.create_subprocess_exec(
        ESPHOME,
        *arguments,
        cwd=folder,
        env={**os.environ, "ESPHOME_DATA_DIR": str(data_dir)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


class Connection(Protocol):
    """One websocket connection of a client."""

    async def submit(self, kind: str, *names: str, address: str = "") -> list[str]:
        """Ask for a job for each name; return the ids of those that end last."""
        ...

    async def follow_to_output(self, job_id: str) -> None:
        """Return when the first line of a job has come."""
        ...

    async def follow_to_end(self, job_id: str) -> int:
        """Return how many lines of a job came until its end, each counted once."""
        ...

    async def status(self, job_id: str) -> str:
        """Return the status of a job now."""
        ...

    async def status_at_end(self, job_id: str) -> str:
        """Wait for the end of a job."""
        ...

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        ...

    async def close(self) -> None:
        """Leave."""
        ...


class Side(Protocol):
    """A server in a process of its own."""

    name: str
    config_dir: Path
    data_dir: Path

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        ...

    async def connect(self) -> Connection:
        """Return a new connection."""
        ...

    async def peaks(self) -> float:
        """Return how long the event loop was held at most since the last call."""
        ...

    def write(self, name: str, *script: str) -> str:
        """Write what the fake ESPHome shall do; return the configuration's name."""
        return write_configuration(self.config_dir, name, *script)


class OurConnection:
    """A client of Home Assistant."""

    def __init__(self, client: Client) -> None:
        """Use a client that is logged in."""
        self._client = client

    async def submit(self, kind: str, *names: str, address: str = "") -> list[str]:
        """Ask for a job for each name; return the ids of those that end last."""
        where = {"address": address} if address else {}
        jobs = await self._client.submit(kind, *names, **where)
        last = {job["configuration"]: job["job_id"] for job in jobs}
        return list(last.values())

    async def follow_to_output(self, job_id: str) -> None:
        """Return when the first line of a job has come."""
        subscription = await self._client.follow(job_id)
        await subscription.until_output()

    async def follow_to_end(self, job_id: str) -> int:
        """Return how many lines of a job came until its end, each counted once."""
        lines, _ = await self._client.follow_to_end(job_id)
        return len(lines)

    async def status(self, job_id: str) -> str:
        """Return the status of a job now."""
        result = await self._client.call("esphome_builds/jobs/get", job_id=job_id)
        status: str = result["job"]["status"]
        return status

    async def status_at_end(self, job_id: str) -> str:
        """Wait for the end of a job."""
        ended = ("completed", "failed", "cancelled", "interrupted")
        subscription = await self._client.subscribe("esphome_builds/subscribe")
        while True:
            try:
                job = await subscription.until_job(job_id, *ended)
                break
            except TimeoutError:
                # A long job may be silent for longer than a client has patience.
                continue
        await subscription.unsubscribe()
        status: str = job["status"]
        return status

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        await self._client.call("esphome_builds/jobs/cancel", job_id=job_id)

    async def close(self) -> None:
        """Leave."""
        await self._client.close()


class Ours(Side):
    """Home Assistant with this integration, and nothing else that works."""

    name = "ESPHome Builds"

    def __init__(self, server: Server, session: ClientSession, control: Client) -> None:
        """Use a server that runs and has a builder."""
        self.server = server
        self.config_dir = server.config_dir
        cache = server.folder / ".cache" / "esphome_builds" / server.entry_id
        self.data_dir = cache / "data"
        self.session = session
        self._control = control

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return self.server.pid

    async def connect(self) -> OurConnection:
        """Return a new connection."""
        # As Home Assistant's own frontend connects.
        client = await self.server.connect(self.session, coalesce=True)
        return OurConnection(client)

    async def peaks(self) -> float:
        """Return how long the event loop was held at most since the last call."""
        result = await self._control.call("probe/peaks")
        held: float = result["held"]
        return held


class PeerConnection:
    """A client of Device Builder."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        """Use a socket whose greeting was read."""
        self._socket = socket
        self._ids = count(1)

    async def _send(self, command: str, **arguments: object) -> str:
        message_id = str(next(self._ids))
        await self._socket.send_json(
            {"command": command, "message_id": message_id, "args": arguments}
        )
        return message_id

    async def _answer(self, message_id: str) -> Any:  # noqa: ANN401 - JSON
        """Return the result of a command, and read over everything before it."""
        while True:
            message = orjson.loads((await self._socket.receive()).data)
            if message.get("message_id") != message_id or "event" in message:
                continue
            if "error_code" in message:
                raise CommandError(
                    {"code": message["error_code"], "message": message["details"]}
                )
            return message["result"]

    async def submit(self, kind: str, *names: str, address: str = "") -> list[str]:
        """Ask for a job for each name; return the ids of those that end last."""
        if kind == "install":
            heads = await self._answer(
                await self._send(
                    "firmware/install_bulk", configurations=names, port=address
                )
            )
            known = await self._answer(await self._send("firmware/get_jobs"))
            wanted = {head["job_id"] for head in heads}
            return [job["job_id"] for job in known if job["depends_on"] in wanted]
        jobs = [
            await self._answer(await self._send(f"firmware/{kind}", configuration=name))
            for name in names
        ]
        return [job["job_id"] for job in jobs]

    async def follow_to_output(self, job_id: str) -> None:
        """Return when the first line of a job has come."""
        message_id = await self._send("firmware/follow_job", job_id=job_id)
        while True:
            message = orjson.loads((await self._socket.receive()).data)
            if message["message_id"] == message_id and message["event"] == "output":
                return

    async def follow_to_end(self, job_id: str) -> int:
        """Return how many lines of a job came until its end, each counted once."""
        message_id = await self._send("firmware/follow_job", job_id=job_id)
        lines = 0
        while True:
            message = orjson.loads((await self._socket.receive()).data)
            if message["message_id"] == message_id:
                if message.get("event") == "result":
                    return lines
                lines += message.get("event") == "output"

    async def status(self, job_id: str) -> str:
        """Return the status of a job now."""
        job = await self._answer(await self._send("firmware/get_job", job_id=job_id))
        status: str = job["status"]
        return status

    async def status_at_end(self, job_id: str) -> str:
        """Wait for the end of a job."""
        message_id = await self._send("firmware/follow_job", job_id=job_id)
        while True:
            message = orjson.loads((await self._socket.receive()).data)
            if message["message_id"] == message_id and message.get("event") == "result":
                status: str = message["data"]["status"]
                return status

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        await self._answer(await self._send("firmware/cancel", job_id=job_id))

    async def close(self) -> None:
        """Leave."""
        await self._socket.close()


class Peer(Side):
    """The server of ESPHome Device Builder."""

    name = "Device Builder"

    def __init__(self, folder: Path, session: ClientSession) -> None:
        """Lay its folders out."""
        self.config_dir = folder / "config"
        self.config_dir.mkdir(parents=True)
        self.data_dir = folder / "data"
        self.url = f"http://127.0.0.1:{free_port()}"
        self._session = session
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        assert self._process is not None
        return self._process.pid

    def start(self, esphome: Path) -> None:
        """Start it and wait until it answers; blocking."""
        beside = ""
        if esphome != ESPHOME:
            (esphome.parent / "python").symlink_to(PEER / "python")
            beside = str(esphome.parent)
        port = self.url.rpartition(":")[2]
        with (self._folder / "output.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(PEER / "python", "-m", "bench.peer_server", beside),
                    *(self.config_dir, "--port", port, "--host", "127.0.0.1"),
                ],
                cwd=ROOT,
                env={**os.environ, "ESPHOME_DATA_DIR": str(self.data_dir)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, _PATIENCE)

    def stop(self) -> None:
        """Stop it as an operating system does; blocking."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_STOP_SECONDS)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None
        try:
            fetch(f"{self.url}/bench/peaks")
        except OSError:
            return False
        return True

    async def connect(self) -> PeerConnection:
        """Return a new connection."""
        socket = await self._session.ws_connect(f"{self.url}/ws", max_msg_size=0)
        await socket.receive_json()
        return PeerConnection(socket)

    async def peaks(self) -> float:
        """Return how long the event loop was held at most since the last call."""
        async with self._session.get(f"{self.url}/bench/peaks") as answer:
            held: float = (await answer.json())["held"]
            return held


@asynccontextmanager
async def home_assistant() -> AsyncGenerator[tuple[Server, ClientSession]]:
    """Start a server that has no builder yet, and stop it in the end."""
    with TemporaryDirectory() as folder:
        server = Server(Path(folder) / "server", probe=True)
        await asyncio.to_thread(server.start)
        try:
            async with ClientSession() as session:
                yield server, session
        finally:
            await asyncio.to_thread(server.stop)


@asynccontextmanager
async def ours(esphome: Path | None = None) -> AsyncGenerator[Ours]:
    """Run our side, with a fake ESPHome unless a real one is given."""
    async with home_assistant() as (server, session):
        fake = esphome or install_fake(server.folder, "fake")
        await asyncio.to_thread(server.add_builder, fake)
        control = await server.connect(session)
        side = Ours(server, session, control)
        await side.peaks()
        yield side
        await control.close()


@asynccontextmanager
async def peer(esphome: Path | None = None) -> AsyncGenerator[Peer]:
    """Run the other side, with a fake ESPHome unless a real one is given."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with ClientSession() as session:
            side = Peer(folder, session)
            # It wants its fake to have a name and neighbors.
            await asyncio.to_thread(side.start, esphome or install_fake(folder))
            await side.peaks()
            try:
                yield side
            finally:
                await asyncio.to_thread(side.stop)
