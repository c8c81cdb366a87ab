"""A real ESPHome Device Builder in a process of its own, and what is seen of it."""

import asyncio
from contextlib import suppress
import os
from pathlib import Path
import re
import signal
import socket
import subprocess
import time
from typing import Any, Final, Self

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from ..e2e.server import ROOT, free_port
from ..fakes import install_fake

PASSWORD: Final = "correct horse"
PATIENCE: Final = 60.0
USERNAME: Final = "user"

_ENVIRONMENT: Final = ROOT / ".local" / "peer"
_PACKAGES: Final = "lib/python3*/site-packages"
_FAKE: Final = """\
#!/bin/sh
for word in "$@"; do
    case "$word" in --only-generate|--version|idedata) echo "Version: 1"; exit 0;; esac
done
exec "{fake}" "$@"
"""


def servers() -> dict[str, Path]:
    """Return where the packages of installed servers are, by version, oldest first."""
    places = (*(ROOT / ".local" / "servers").glob("*"), *_ENVIRONMENT.glob(_PACKAGES))
    found = {}
    for place in places:
        for path in place.glob("esphome_device_builder-*.dist-info"):
            found[path.name.partition("-")[2].removesuffix(".dist-info")] = place
    return {version: found[version] for version in sorted(found, key=_parts)}


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


class Peer:
    """A server on one folder, as often as it is started.

    `packages` is one of the values of `servers()`. With `fake`, what it runs for
    ESPHome is `tests.fake_esphome`. One that is `headless` only builds for another.
    """

    def __init__(
        self,
        folder: Path,
        packages: Path,
        *,
        fake: bool,
        login: bool = False,
        headless: bool = False,
    ) -> None:
        """Lay the folder out."""
        self.config_dir = folder / "config"
        self.config_dir.mkdir(parents=True)
        self.folder = folder
        self.port = free_port()
        self.login = login
        self._headless = headless
        self._process: subprocess.Popen[bytes] | None = None
        self._python = _ENVIRONMENT / "bin" / "python"
        self._variables = {
            name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ
        }
        if login:
            self._variables |= {
                "ESPHOME_USERNAME": USERNAME,
                "ESPHOME_PASSWORD": PASSWORD,
            }
        (needs,) = _ENVIRONMENT.glob(_PACKAGES)
        self._variables["PYTHONPATH"] = f"{packages}:{needs}"
        if fake:
            self._python = self._disguise()

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Return whether it was started, and not ended since."""
        return self._process is not None

    @property
    def fake(self) -> Path:
        """Return the executable that stands in for ESPHome."""
        return self.folder / "fake" / "esphome"

    def start(self) -> Self:
        """Start it, and wait until it answers; blocking."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._python,
                    "-m",
                    "esphome_device_builder",
                    *self._listening(),
                    self.config_dir,
                ],
                cwd=self.config_dir,
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            assert self._process.poll() is None, self.log
            time.sleep(0.05)
        raise TimeoutError

    def _listening(self) -> tuple[str, ...]:
        """Return the arguments that say what it serves, and where."""
        if not self._headless:
            return ("--host", "127.0.0.1", "--port", str(self.port))
        return (
            "--remote-build-only",
            "--remote-build-host",
            "127.0.0.1",
            "--remote-build-port",
            str(self.port),
        )

    @property
    def log(self) -> str:
        """Return what it has printed."""
        return (self.folder / "server.log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal; blocking."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _disguise(self) -> Path:
        """Make an environment whose ESPHome is another; return its interpreter.

        The server calls what lies beside its interpreter (`helpers/sibling_cli.py`).
        """
        folder = self.folder / "environment"
        (folder / "bin").mkdir(parents=True)
        (self.folder / "fake").mkdir()
        fake = install_fake(self.folder / "fake")
        script = folder / "bin" / "esphome"
        script.write_text(_FAKE.format(fake=fake))
        script.chmod(0o755)
        configuration = (_ENVIRONMENT / "pyvenv.cfg").read_text()
        (folder / "pyvenv.cfg").write_text(configuration)
        interpreter = folder / "bin" / "python"
        interpreter.symlink_to((_ENVIRONMENT / "bin" / "python").resolve())
        return interpreter


class Watcher:
    """A client of the server that knows nothing of ours, as its own page is one."""

    def __init__(self, ws: ClientWebSocketResponse) -> None:
        """Use a connection that was greeted."""
        self._ws = ws
        self._count = 0

    @classmethod
    async def connect(cls, session: ClientSession, peer: Peer) -> Self:
        """Connect to a server without a login."""
        ws = await session.ws_connect(f"{peer.url}/ws", max_msg_size=0)
        await ws.receive_json()
        return cls(ws)

    async def close(self) -> None:
        """Leave."""
        await self._ws.close()

    async def call(self, command: str, **arguments: object) -> Any:  # noqa: ANN401
        """Return the answer to a command."""
        _, answer = await self.collect(command, **arguments)
        assert "error_code" not in answer, answer
        return answer["result"]

    async def collect(
        self, command: str, **arguments: object
    ) -> tuple[list[str], dict[str, Any]]:
        """Return the output that a command streams, and its answer."""
        self._count += 1
        message_id = f"w{self._count}"
        await self._ws.send_json(
            {"message_id": message_id, "command": command, "args": arguments}
        )
        output: list[str] = []
        async with asyncio.timeout(PATIENCE * 2):
            while True:
                message = await self._ws.receive()
                assert message.type is WSMsgType.TEXT, message
                data = message.json()
                if data["message_id"] != message_id:
                    continue
                if data.get("event") == "output":
                    output.append(data["data"])
                elif "event" not in data or data["event"] is None:
                    return output, data


class Proxy:
    """Stands between a client and a server, and does to bytes what a test says."""

    def __init__(self, port: int) -> None:
        """Lead to a port."""
        self.port = 0
        self.delay = 0.0
        self.limit: int | None = None
        self.deaf = False
        self.silent = False
        self._to = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0

    async def start(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut(self) -> None:
        """Cut all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def refuse(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def stop(self) -> None:
        """Leave nothing."""
        await self.refuse()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, ours}
        try:
            await asyncio.gather(
                self._pass(reader, ours, back=False),
                self._pass(theirs, writer, back=True),
            )
        except OSError:
            pass
        finally:
            self._writers -= {writer, ours}
            writer.transport.abort()
            ours.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool
    ) -> None:
        while data := await reader.read(65536):
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.silent if back else self.deaf:
                continue
            if back and self.limit is not None:
                data = data[: self.limit]
                self.limit -= len(data)
            writer.write(data)
            await writer.drain()
            if back and self.limit == 0:
                # In the middle of a frame.
                self.limit = None
                raise ConnectionResetError
        writer.transport.abort()
