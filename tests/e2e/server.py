"""A real Home Assistant in a process of its own, with this integration in it.

What starts and stops it blocks, so that one server can outlive a test's event loop.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
import json
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from aiohttp import ClientSession

from tests.clients import Client, CommandError

ROOT: Final = Path(__file__).parents[2]
ESPHOME: Final = ROOT / ".local" / "esphome" / "bin" / "esphome"
HASS: Final = Path(sys.executable).with_name("hass")

_CLIENT_ID: Final = "http://127.0.0.1/"
_PATIENCE: Final = 120.0
_POLL_SECONDS: Final = 0.05
_PROBE: Final = Path(__file__).with_name("probe")
_CONFIGURATION: Final = """\
http:
  server_host: 127.0.0.1
  server_port: {port}
logger:
  default: warning
"""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process, as the system shows it."""

    pid: int
    command: str


class Server:
    """Home Assistant on one folder, as often as it is started."""

    def __init__(  # noqa: PLR0913 - each of them is for a few tests only
        self,
        folder: Path,
        extra: str = "",
        *,
        port: int | None = None,
        install: bool = False,
        probe: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Lay the folder out; `extra` is added to the configuration.

        `install` lets Home Assistant install what its integrations need. `probe` adds
        what looks into it for tests. `environment` is what it has beside our own.
        """
        port = port or free_port()
        self.folder = folder
        self.config_dir = folder / "esphome"
        self.entry_id = ""
        self.esphome = ESPHOME
        self.url = f"http://127.0.0.1:{port}"
        self.token = ""
        self._environment = environment or {}
        self._options = () if install else ("--skip-pip",)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_read = 0
        self.config_dir.mkdir(parents=True)
        (folder / "custom_components").mkdir()
        (folder / "custom_components" / "esphome_builds").symlink_to(
            ROOT / "custom_components" / "esphome_builds"
        )
        if probe:
            extra += "probe:\n"
            shutil.copytree(_PROBE, folder / "custom_components" / "probe")
        (folder / "configuration.yaml").write_text(
            _CONFIGURATION.format(port=port) + extra
        )

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Return everything that was logged since the first start."""
        return (self.folder / "output.log").read_text(errors="replace")

    @property
    def cache(self) -> Path:
        """Return the folder of the builder: jobs, logs and build trees."""
        return self.folder / ".cache" / "esphome_builds" / self.entry_id

    def new_log(self) -> str:
        """Return what was logged since this was called last."""
        log = self.log
        start, self._log_read = self._log_read, len(log)
        return log[start:]

    def processes(self) -> list[Process]:
        """Return the living processes of all builders, whatever they do."""
        return _processes(f"ESPHOME_DATA_DIR={self.folder}/".encode())

    def start(self) -> None:
        """Start it and wait until it runs; the first time, make a user."""
        with (self.folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                [HASS, "--config", self.folder, *self._options],
                cwd=self.folder,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(self._answers, _PATIENCE)
            if not self.token:
                self.token = self._make_user()
                asyncio.run(self._keep_port())
            wait_for(self._runs, _PATIENCE)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it as an operating system does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self) -> None:
        """End it without a chance to do anything about it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def destroy(self) -> None:
        """Kill it, and what its builders run after an end that they could not see."""
        self.kill()
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def request(self, path: str, data: object = None) -> Any:  # noqa: ANN401 - JSON
        """Get a path, or post data to it, as the administrator."""
        return fetch(f"{self.url}{path}", data, self.token)

    def add_builder(self, esphome: Path, config_dir: Path | None = None) -> str:
        """Add a local builder; return the id of the entry, which is kept."""
        self.esphome = esphome
        self.entry_id = self._add(
            "local",
            config_dir=str(config_dir or self.config_dir),
            esphome=str(esphome),
        )
        return self.entry_id

    def add_managed_builder(self) -> str:
        """Add a local builder that installs its ESPHome; return the id of the entry."""
        self.entry_id = self._add("local", config_dir=str(self.config_dir))
        return self.entry_id

    def add_device_builder(self, **answers: str) -> str:
        """Add a builder for a server by `url`; return the id of the entry."""
        return self._add("device_builder", **answers)

    def add_device(self, port: int) -> None:
        """Let Home Assistant's own ESPHome integration connect to a device here."""
        path = "/api/config/config_entries/flow"
        flow = self.request(path, {"handler": "esphome"})
        flow = self.request(
            f"{path}/{flow['flow_id']}", {"host": "127.0.0.1", "port": port}
        )
        assert flow["type"] == "create_entry", flow

    def _add(self, kind: str, **answers: str) -> str:
        """Go through the config flow; return the id of the entry."""
        path = "/api/config/config_entries/flow"
        flow = self.request(path, {"handler": "esphome_builds"})
        path = f"{path}/{flow['flow_id']}"
        self.request(path, {"next_step_id": kind})
        flow = self.request(path, answers)
        assert flow["type"] == "create_entry", flow
        entry_id: str = flow["result"]["entry_id"]
        return entry_id

    def set_options(self, **options: int) -> None:
        """Change how the builder works, which loads it again; the rest is default."""
        path = "/api/config/config_entries/options/flow"
        flow = self.request(path, {"handler": self.entry_id})
        flow = self.request(f"{path}/{flow['flow_id']}", options)
        assert flow["type"] == "create_entry", flow
        self.wait_until_kept(*options)

    def reload_builder(self) -> None:
        """Unload the entry and load it again."""
        path = f"/api/config/config_entries/entry/{self.entry_id}/reload"
        self.request(path, {})

    def wait_until_kept(self, *words: str) -> None:
        """Wait until the entries on the disk say something, as after a kill they will.

        Home Assistant takes its time to save them.
        """
        path = self.folder / ".storage" / "core.config_entries"

        def _says() -> bool:
            text = path.read_text() if path.exists() else ""
            return all(word in text for word in words)

        wait_for(_says, _PATIENCE)

    def remove_builder(self) -> None:
        """Delete the entry."""
        path = f"/api/config/config_entries/entry/{self.entry_id}"
        fetch(f"{self.url}{path}", token=self.token, method="DELETE")

    def built_program(self, configuration: str) -> Path:
        """Return the program of the last build, from ESPHome's own notes."""
        storage = self.cache / "data" / "storage"
        notes = json.loads((storage / f"{configuration}.json").read_text())
        return Path(notes["firmware_bin_path"])

    def state(self, entity_id: str) -> dict[str, Any]:
        """Return the state of an entity."""
        state: dict[str, Any] = self.request(f"/api/states/{entity_id}")
        return state

    async def connect(
        self, session: ClientSession, *, coalesce: bool = False, compress: bool = False
    ) -> Client:
        """Return a new websocket connection of the administrator."""
        return await Client.connect(
            session, self.url, self.token, coalesce=coalesce, compress=compress
        )

    def _answers(self) -> bool:
        """Return whether the port is open."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"Home Assistant ended at its start:\n{self.log}")
        with suppress(OSError):
            return bool(fetch(f"{self.url}/api/onboarding"))
        return False

    def _runs(self) -> bool:
        """Return whether everything is set up."""
        return bool(self.request("/api/config")["state"] == "RUNNING")

    def _make_user(self) -> str:
        """Go through as much of the onboarding as is needed; return a token."""
        user = fetch(
            f"{self.url}/api/onboarding/users",
            {
                "client_id": _CLIENT_ID,
                "name": "Demo",
                "username": "demo",
                "password": "demo",
                "language": "en",
            },
        )
        grant = {
            "client_id": _CLIENT_ID,
            "grant_type": "authorization_code",
            "code": user["auth_code"],
        }
        answer = fetch(f"{self.url}/auth/token", urlencode(grant).encode())
        token: str = answer["access_token"]
        return token

    async def _keep_port(self) -> None:
        """Say that the port works, or Home Assistant takes it back after minutes."""
        async with ClientSession() as session:
            client = await self.connect(session)
            with suppress(CommandError):
                await client.call("http/config/promote")
            await client.close()


def fetch(
    url: str, data: object = None, token: str = "", method: str | None = None
) -> Any:  # noqa: ANN401 - JSON
    """Get a resource, or post data to it."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if data is not None and not isinstance(data, bytes):
        headers["Content-Type"] = "application/json"
        data = json.dumps(data).encode()
    request = Request(url, data, headers, method=method)
    with urlopen(request, timeout=_PATIENCE) as answer:
        content = answer.read()
        is_json = answer.headers.get_content_type() == "application/json"
        return json.loads(content) if is_json else content.decode()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def processes_of(job_id: str) -> list[Process]:
    """Return the living processes of a job, whoever their parent is now."""
    return _processes(f"ESPHOME_BUILDS_JOB={job_id}".encode())


def _processes(mark: bytes) -> list[Process]:
    """Return the living processes with a variable that begins with the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            variables = (path / "environ").read_bytes().split(b"\0")
            if state not in "ZX" and any(one.startswith(mark) for one in variables):
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append(
                    Process(
                        pid=int(path.name), command=command.decode(errors="replace")
                    )
                )
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds; blocking."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(_POLL_SECONDS)
