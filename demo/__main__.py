"""Shows the whole way: a configuration is built and flashed onto a running device."""

import argparse
import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
import shutil
import signal
import socket
import sys
from typing import Final

from aiohttp import ClientSession

from tests.clients import Client, Message
from tests.e2e.device import Device
from tests.e2e.server import ESPHOME, ROOT, Server, free_port

CONFIGURATION: Final = "weather-station.yaml"
DEVICE_PORT: Final = 16053
FOLDER: Final = ROOT / ".local" / "demo"
PORT: Final = 8123

_BAR: Final = 30
_BOLD: Final = "\033[1m"
_CLEAR: Final = "\r\033[K"
_DIM: Final = "\033[2m"
_GREEN: Final = "\033[32m"
_RED: Final = "\033[31m"
_RESET: Final = "\033[0m"
# Of these names are the entities of the builder and of the device.
_SHOWN: Final = ("esphome_builds", "weather_station")


class DemoError(Exception):
    """Something did not go as it should."""


def say(text: str, style: str = _BOLD) -> None:
    """Print a line of the demonstration itself."""
    print(f"{style}{text}{_RESET}", flush=True)


class Screen:
    """Prints the output of jobs as it comes, with a bar below where that can be."""

    def __init__(self) -> None:
        """Print a bar only where it can be drawn over."""
        self._bar = ""
        self._terminal = sys.stdout.isatty()

    def show(self, event: Message) -> None:
        """Print an event of a follower."""
        self._print("", end=_CLEAR if self._bar else "")
        for line in event.get("lines", ()):
            self._print(f"{_DIM}│{_RESET} {line}")
        if self._terminal and (job := event.get("job")) is not None:
            self._bar = self._draw(job) if event["type"] != "end" else ""
        self._print(self._bar, end="")

    def _draw(self, job: Message) -> str:
        progress = job["progress"]
        done = (progress or 0) * _BAR // 100
        bar = "█" * done + "░" * (_BAR - done)
        percent = "" if progress is None else f" {progress} %"
        return f"{bar} {job['phase'] or job['status']}{percent}"

    def _print(self, text: str, end: str = "\n") -> None:
        print(text, end=end, flush=True)


async def run_job(client: Client, screen: Screen, kind: str, **fields: object) -> None:
    """Submit, follow every job of it live, and fail if one does."""
    result = await client.call(
        "esphome_builds/jobs/submit",
        kind=kind,
        configurations=[CONFIGURATION],
        **fields,
    )
    for job in result["jobs"]:
        say(f"\n▶ {job['kind']} {job['configuration']}")
        subscription = await client.follow(job["job_id"], from_line=0)
        event: Message = {"type": ""}
        while event["type"] != "end":
            event = await subscription.next()
            screen.show(event)
        ended = event["job"]
        if ended["status"] != "completed":
            raise DemoError(f"{ended['kind']} {ended['status']}: {ended['message']}")
        say(f"✓ {ended['kind']} completed", _GREEN)


def change_version(server: Server) -> None:
    """Make the configuration the next version of itself, as its author would."""
    path = server.config_dir / CONFIGURATION
    path.write_text(path.read_text().replace("version: 1.0.0", "version: 1.1.0"))


def show_states(server: Server) -> None:
    """Print what Home Assistant shows of it."""
    say("\nWhat Home Assistant shows:")
    for state in server.request("/api/states"):
        entity_id = state["entity_id"]
        if entity_id.startswith(("input_t", "counter.")) or any(
            word in entity_id for word in _SHOWN
        ):
            print(f"  {entity_id:<58} {state['state']}")


async def demonstrate(server: Server, stack: AsyncExitStack) -> None:
    """Do everything there is to see; raise `DemoError` or whatever goes wrong."""
    say("Starting Home Assistant (the very first time it installs its frontend)")
    stack.callback(server.stop)
    await asyncio.to_thread(server.start)
    for step in ("core_config", "analytics", "integration"):
        answer = {"client_id": f"{server.url}/", "redirect_uri": f"{server.url}/"}
        await asyncio.to_thread(
            server.request,
            f"/api/onboarding/{step}",
            answer if step == "integration" else {},
        )
    say("Adding ESPHome Builds with the configurations of examples/")
    await asyncio.to_thread(server.add_builder, ESPHOME)

    session = await stack.enter_async_context(ClientSession())
    client = await server.connect(session)
    stack.push_async_callback(client.close)
    screen = Screen()
    await run_job(client, screen, "compile")

    device = await Device.start(server.built_program(CONFIGURATION), DEVICE_PORT)
    stack.push_async_callback(device.stop)
    version = (await device.ask())["version"]
    say(f"\nThe device is switched on and runs version {version}")
    say("Home Assistant's own ESPHome integration connects to it")
    await asyncio.to_thread(server.add_device, DEVICE_PORT)
    say("Its YAML becomes version 1.1.0; that is now installed over the air")
    change_version(server)
    await run_job(client, screen, "install")
    version = (await device.ask())["version"]
    if version != "1.1.0":
        raise DemoError(f"The device runs version {version}")
    say(f"The device is back and runs version {version}", _GREEN)
    await asyncio.to_thread(show_states, server)


def make_server() -> Server:
    """Lay out a new Home Assistant, on its usual port if that is free."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
            port = PORT
        except OSError:
            port = free_port()
    automations = Path(__file__).with_name("configuration.yaml").read_text()
    extra = f"frontend:\nhistory:\nlogbook:\n{automations}"
    server = Server(FOLDER, extra, port=port, install=True)
    for file in (ROOT / "examples").glob("*.yaml"):
        shutil.copy(file, server.config_dir)
    return server


async def main() -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end when all is shown")
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    end = asyncio.current_task()
    assert end is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.cancel)
    server = make_server()
    async with AsyncExitStack() as stack:
        try:
            await demonstrate(server, stack)
        except Exception as err:  # noqa: BLE001, the log says more than a traceback
            say(f"\n✗ {type(err).__name__}: {err}", _RED)
            print(f"Home Assistant's log is {server.folder / 'output.log'}")
            return 1
        if not options.once:
            say(f"\nOpen {server.url} (user demo, password demo). Ctrl+C ends it.")
            await asyncio.Event().wait()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except asyncio.CancelledError:
        # All that was started has been stopped.
        sys.exit(0)
