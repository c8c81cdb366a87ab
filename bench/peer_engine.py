"""Device Builder's own job and stream code in its own interpreter: one sample as JSON.

Its controller gets what it asks its application for: a bus, a folder, background tasks.
"""

import asyncio
import json
import os
from pathlib import Path
from statistics import median
import sys
from tempfile import TemporaryDirectory
import time
from types import SimpleNamespace
from typing import Any, Final

from aiohttp import WSMsgType
from esphome.core import CORE
from esphome_device_builder.api.ws import WebSocketClient
from esphome_device_builder.controllers.firmware.controller import FirmwareController
from esphome_device_builder.helpers.event_bus import EventBus
from esphome_device_builder.models import FirmwareJob, JobStatus, JobType

from tests.fakes import install_fake, write_configuration

from .workload import LINES_TO_FOLLOWERS, frame_writer, write_output

HISTORY: Final = 500
_LOG_LINES: Final = 20
_SAVES: Final = 50

type Sample = dict[str, float]


class _Socket:
    """What a connection is to the server's client object, for nobody."""

    def __init__(self) -> None:
        """Make frames as aiohttp's server does."""
        self._writer = frame_writer()
        self.lines = 0

    async def send_json(self, data: Any, *, dumps: Any) -> None:  # noqa: ANN401 - JSON
        """Send one message, as aiohttp's `WebSocketResponse` does."""
        self.lines += data.get("event") == "output"
        await self._writer.send_frame(dumps(data).encode(), WSMsgType.TEXT)


class _Application:
    """What the controller asks its application for."""

    def __init__(self, folder: Path) -> None:
        """Have no devices and no build servers."""
        self.bus = EventBus()
        self.devices = None
        self.remote_build_offloader = None
        self.remote_build_receiver = None
        self.settings = SimpleNamespace(
            config_dir=folder,
            prebuilt_esphome_environment=True,
            rel_path=folder.joinpath,
        )
        self.tasks: set[asyncio.Task[Any]] = set()

    def create_background_task(self, coroutine: Any) -> asyncio.Task[Any]:  # noqa: ANN401
        """Run something."""
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        return task


async def _stop(application: _Application) -> None:
    for task in application.tasks:
        task.cancel()
    await asyncio.wait(application.tasks)


async def fan_out(folder: Path, followers: int) -> Sample:
    """Run a job that prints very much, with so many who follow it."""
    lines = LINES_TO_FOLLOWERS[followers]
    output = folder / "output"
    write_output(output, lines)
    name = write_configuration(
        folder, "flood", f"wait {folder / 'go'}", f"replay {output}"
    )
    application = _Application(folder)
    controller = FirmwareController(application)
    await controller.start()
    job = await controller.compile(configuration=name)
    sockets = [_Socket() for _ in range(followers)]
    tasks = [
        asyncio.create_task(
            controller.follow_job(
                job_id=job.job_id,
                client=WebSocketClient(socket, application),
                message_id="1",
            )
        )
        for socket in sockets
    ]
    await asyncio.sleep(0.5)
    started = time.process_time()
    (folder / "go").touch()
    while not job.is_terminal:  # noqa: ASYNC110 - looking costs nothing
        await asyncio.sleep(0.05)
    await asyncio.gather(*tasks)
    seconds = time.process_time() - started
    assert job.status is JobStatus.COMPLETED
    await _stop(application)
    received = sum(socket.lines for socket in sockets)
    return {
        "cpu": seconds / lines / max(1, followers),
        "lost": 1 - received / (lines * followers) if followers else 0.0,
    }


def _history() -> dict[str, FirmwareJob]:
    """Return ended jobs: of each configuration it keeps the newest of each kind."""
    jobs = {}
    for number in range(HISTORY):
        job = FirmwareJob(
            job_id=f"{number:012x}",
            configuration=f"device-{number // 2}.yaml",
            job_type=JobType.UPLOAD if number % 2 else JobType.COMPILE,
            created_at=f"2026-11-24T{number // 60:02}:{number % 60:02}:00+00:00",
        )
        job.mark_running()
        job.mark_terminal(JobStatus.COMPLETED)
        job.exit_code = 0
        job.output = [f"line {line}\n" for line in range(_LOG_LINES)]
        jobs[job.job_id] = job
    return jobs


async def restart(folder: Path) -> Sample:
    """Start a controller that has 500 ended jobs, until it has taken another."""
    before = FirmwareController(_Application(folder))
    before.state.jobs = _history()
    await before._persist_jobs()  # noqa: SLF001 - nothing public saves
    name = write_configuration(folder, "night")
    application = _Application(folder)
    started = time.perf_counter()
    controller = FirmwareController(application)
    await controller.start()
    await controller.compile(configuration=name)
    seconds = time.perf_counter() - started
    assert len(controller.state.jobs) >= HISTORY
    await _stop(application)
    return {"wall": seconds}


async def save(folder: Path) -> Sample:
    """Save one change of one of 500 jobs, again and again."""
    controller = FirmwareController(_Application(folder))
    jobs = controller.state.jobs = _history()
    await controller._persist_jobs()  # noqa: SLF001 - as above
    took = []
    for job, _ in zip(jobs.values(), range(_SAVES), strict=False):
        job.exit_code = 1
        started = time.perf_counter()
        await controller._persist_jobs()  # noqa: SLF001 - as above
        took.append(time.perf_counter() - started)
    return {"wall": median(took)}


async def main(name: str, *arguments: str) -> None:
    """Take one sample and print it."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # It takes the ESPHome that lies beside its interpreter.
        sys.executable = str(install_fake(folder).with_name("python"))
        os.environ["ESPHOME_DATA_DIR"] = str(folder / "data")
        CORE.config_path = folder / "___"
        match name:
            case "fan-out":
                sample = await fan_out(folder, int(arguments[0]))
            case "restart":
                sample = await restart(folder)
            case "save":
                sample = await save(folder)
    print(json.dumps(sample))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
