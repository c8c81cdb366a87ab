"""Twelve real devices get new firmware over the air."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
import shutil
import subprocess
from tempfile import TemporaryDirectory
import time
from typing import Final

from tests.e2e.server import free_port

from .pairs import Figure, Measure, Sample, Samplers, Unit
from .sides import ESPHOME, Side, ours, peer, run_esphome

SHELL_LOOP: Final = "shell loop"

_ADDRESS: Final = "127.0.0.1"
_DEVICES: Final = 12
_LOOK_SECONDS: Final = 0.05
_PATIENCE: Final = 300.0
_YAML: Final = """\
esphome:
  name: {name}
  project:
    name: esphome-builds.fleet
    version: "{version}"
host:
logger:
api:
  port: {api_port}
  reboot_timeout: 0s
ota:
  - platform: esphome
    port: {ota_port}
sensor:
  - platform: template
    name: Answer
    lambda: return 42;
switch:
  - platform: template
    name: Switch
    optimistic: true
"""

# No side may find in the compiler's cache what another one put there.
_versions = count(1)


class _Fleet:
    """The devices of one side: programs that run and say what they are."""

    def __init__(self, config_dir: Path, data_dir: Path, folder: Path) -> None:
        """Choose names and ports."""
        self._config_dir = config_dir
        self._data_dir = data_dir
        self._folder = folder
        self._ports = {
            f"device-{number}": (free_port(), free_port()) for number in range(_DEVICES)
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self.updated_at = 0.0

    @property
    def names(self) -> list[str]:
        """Return the configurations."""
        return [f"{name}.yaml" for name in self._ports]

    def write(self) -> str:
        """Write all configurations with a version of their own; return it."""
        version = f"1.0.{next(_versions)}"
        for name, (api_port, ota_port) in self._ports.items():
            text = _YAML.format(
                name=name, version=version, api_port=api_port, ota_port=ota_port
            )
            (self._config_dir / f"{name}.yaml").write_text(text)
        return version

    def switch_on(self) -> None:
        """Run what was built; where it was built it will be replaced."""
        for name in self._ports:
            folder = self._folder / name
            folder.mkdir(parents=True)
            build = self._data_dir / "build" / name / ".pioenvs" / name
            program = shutil.copy(build / "program", folder)
            with (folder / "output.log").open("wb") as log:
                self._processes.append(
                    subprocess.Popen([program], cwd=folder, stdout=log, stderr=log)
                )

    def switch_off(self) -> None:
        """End all programs."""
        for process in self._processes:
            process.kill()
            process.wait()

    async def until_all_run(self, version: str) -> None:
        """Return when each device has said that it is of a version."""
        waiting = set(self._ports)
        async with asyncio.timeout(_PATIENCE):
            while waiting:
                for name in tuple(waiting):
                    log = (self._folder / name / "output.log").read_bytes()
                    if f"version {version}".encode() in log:
                        waiting.remove(name)
                        self.updated_at = time.perf_counter()
                await asyncio.sleep(_LOOK_SECONDS)


async def _roll_out(
    fleet: _Fleet, install: Callable[[list[str]], Awaitable[None]]
) -> Sample:
    """Install a new version; the time is up when the last device runs it."""
    version = await asyncio.to_thread(fleet.write)
    started = time.perf_counter()
    updated = asyncio.create_task(fleet.until_all_run(version))
    try:
        await install(fleet.names)
        await updated
    finally:
        updated.cancel()
    # It is the devices that count, not what is said of them.
    return {"wall": fleet.updated_at - started}


async def _by_server(side: Side, kind: str, names: list[str]) -> None:
    """Let a server do something with all configurations."""
    connection = await side.connect()
    address = _ADDRESS if kind == "install" else ""
    for job_id in await connection.submit(kind, *names, address=address):
        status = await connection.status_at_end(job_id)
        assert status == "completed", status
    await connection.close()


async def _by_hand(folder: Path, data_dir: Path, names: list[str]) -> None:
    """Do what one does in a shell: `esphome run` would run the program here."""
    for name in names:
        await run_esphome(folder, data_dir, "compile", name)
        await run_esphome(folder, data_dir, "upload", name, "--device", _ADDRESS)


async def _compile_by_hand(folder: Path, data_dir: Path, names: list[str]) -> None:
    """Compile for the first time."""
    for name in names:
        await run_esphome(folder, data_dir, "compile", name)


@asynccontextmanager
async def _sides() -> AsyncGenerator[Samplers]:
    """Build and switch on a fleet for each side."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with AsyncExitStack() as stack:
            samplers: Samplers = {}

            async def _add(
                name: str,
                config_dir: Path,
                data_dir: Path,
                build: Callable[[list[str]], Awaitable[None]],
                install: Callable[[list[str]], Awaitable[None]],
            ) -> None:
                fleet = _Fleet(config_dir, data_dir, folder / name)
                fleet.write()
                await build(fleet.names)
                fleet.switch_on()
                stack.callback(fleet.switch_off)
                samplers[name] = partial(_roll_out, fleet, install)

            for server in (ours(ESPHOME), peer(ESPHOME)):
                side = await stack.enter_async_context(server)
                await _add(
                    side.name,
                    side.config_dir,
                    side.data_dir,
                    partial(_by_server, side, "compile"),
                    partial(_by_server, side, "install"),
                )
            config_dir, data_dir = folder / "config", folder / "data"
            config_dir.mkdir()
            await _add(
                SHELL_LOOP,
                config_dir,
                data_dir,
                partial(_compile_by_hand, config_dir, data_dir),
                partial(_by_hand, config_dir, data_dir),
            )
            yield samplers


FLEET: Final = Measure(
    title=f"{_DEVICES} devices, until the last one runs its new firmware",
    figures={"wall": Figure(title="", unit=Unit.SECONDS)},
    sides=_sides,
)
