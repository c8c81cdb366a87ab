"""The whole way with real parts: Home Assistant, ESPHome, compiler, devices."""

import asyncio
from collections.abc import AsyncGenerator
import os
from pathlib import Path
import re
import subprocess
from typing import Any, Final

import pytest

from ..clients import Client
from .conftest import Connect
from .device import Device
from .server import ESPHOME, Server, processes_of

pytestmark = pytest.mark.real

LOCALHOST: Final = "127.0.0.1"

_ESCAPES: Final = re.compile(r"(?:\x1b|\\033)\[[0-9;]*m")
_NUMBERS: Final = re.compile(r"\[\d+/\d+\]|\d+\.\d+ seconds|build_time_str=.*|/tmp/\S+")


def plain(lines: list[str]) -> list[str]:
    """Return lines without colors, times, paths and the order of parallel compilers."""
    return [_NUMBERS.sub("…", _ESCAPES.sub("", line)).rstrip() for line in lines]


def by_hand(server: Server, data_dir: Path, *arguments: str) -> list[str]:
    """Return what the same command prints when it is started by hand."""
    result = subprocess.run(
        [ESPHOME, "--dashboard", *arguments],
        cwd=server.config_dir,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "ESPHOME_DATA_DIR": str(data_dir),
            "PLATFORMIO_FORCE_ANSI": "true",
            "FORCE_COLOR": "1",
            "CLICOLOR_FORCE": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    text = result.stdout.decode().replace("\r\n", "\n").removesuffix("\n")
    # Of what is drawn over, a terminal shows the last.
    return [line.rpartition("\r")[2] for line in text.split("\n")]


async def run(
    client: Client, kind: str, configuration: str, **fields: object
) -> tuple[dict[str, Any], list[str]]:
    """Submit, follow to the end; return the last job of it and its lines."""
    result = await client.call(
        "esphome_builds/jobs/submit",
        kind=kind,
        configurations=[configuration],
        **fields,
    )
    end: dict[str, Any] = {}
    lines: list[str] = []
    for job in result["jobs"]:
        lines, end = await client.follow_to_end(job["job_id"])
        assert end["job"]["total_lines"] == len(lines)
        assert processes_of(job["job_id"]) == []
    found: dict[str, Any] = end["job"]
    return found, lines


@pytest.fixture
async def client(real: Server, connect: Connect) -> Client:
    """Return a connection to the server with the real ESPHome."""
    return await connect(real)


@pytest.fixture
async def station(real: Server, client: Client) -> AsyncGenerator[Device]:
    """Return a weather station that is switched on."""
    job, _ = await run(client, "compile", "weather-station.yaml")
    assert job["status"] == "completed", job["message"]
    device = await Device.start(real.built_program("weather-station.yaml"), 16053)
    yield device
    await device.stop()


async def test_validate_prints_what_esphome_prints(
    real: Server, client: Client, tmp_path: Path
) -> None:
    """Line for line, and what ESPHome conceals is gone, not hidden."""
    job, lines = await run(client, "validate", "night-light.yaml")
    expected = await asyncio.to_thread(
        by_hand, real, tmp_path, "config", "night-light.yaml"
    )
    assert job["status"] == "completed"
    assert job["esphome_version"] == "2026.10.0"
    assert plain(lines) == plain(expected)

    job, lines = await run(client, "validate", "kettle.yaml")
    assert job["status"] == "completed"
    assert not any("\x1b[8m" in line for line in lines)


async def test_compile_prints_what_esphome_prints(
    real: Server, client: Client, tmp_path: Path
) -> None:
    """Line for line, but for the order in which compilers end that run in parallel."""
    job, lines = await run(client, "compile", "greenhouse.yaml")
    expected = await asyncio.to_thread(
        by_hand, real, tmp_path, "compile", "greenhouse.yaml"
    )
    assert job["status"] == "completed"
    assert (job["progress"], job["exit_code"], job["cause"]) == (100, 0, None)
    assert sorted(plain(lines)) == sorted(plain(expected))

    listed = await client.call("esphome_builds/configurations/list")
    (built,) = (
        configuration
        for configuration in listed["configurations"]
        if configuration["configuration"] == "greenhouse.yaml"
    )
    assert built["built_version"] == "2026.10.0"
    assert re.fullmatch("[0-9a-f]{8}", built["built_hash"])


async def test_install_flashes_a_running_device(
    real: Server, client: Client, station: Device
) -> None:
    """The device runs the new version, sensors and automations have seen it."""
    assert (await station.ask())["version"] == "1.0.0"
    path = real.config_dir / "weather-station.yaml"
    path.write_text(path.read_text().replace("version: 1.0.0", "version: 1.1.0"))
    count = int(real.state("counter.firmware_built")["state"])

    upload, lines = await run(
        client, "install", "weather-station.yaml", address=LOCALHOST
    )

    assert (upload["kind"], upload["status"]) == ("upload", "completed")
    assert upload["depends_on"] is not None
    assert any("100% Done" in line for line in lines)
    assert (await station.ask())["version"] == "1.1.0"
    assert (
        real.state("sensor.esphome_builds_esphome_last_build")["state"] == "completed"
    )
    assert int(real.state("counter.firmware_built")["state"]) == count + 2
    said = real.state("input_text.last_word")["state"]
    assert said.startswith("weather-station.yaml: upload completed after")

    # What was built is sent again, without a compile.
    upload, _ = await run(client, "upload", "weather-station.yaml", address=LOCALHOST)
    assert upload["status"] == "completed"
    assert upload["depends_on"] is None
    assert (await station.ask())["version"] == "1.1.0"


async def test_clean_deletes_the_build(
    real: Server, client: Client, station: Device
) -> None:
    """The build files are gone, and an upload says what is missing."""
    assert real.built_program("weather-station.yaml").exists()
    job, _ = await run(client, "clean", "weather-station.yaml")
    assert job["status"] == "completed"
    assert not real.built_program("weather-station.yaml").exists()

    job, _ = await run(client, "upload", "weather-station.yaml", address=LOCALHOST)
    assert (job["status"], job["cause"]) == ("failed", "prerequisite_failed")
    assert job["message"] == (
        "There is no firmware of weather-station.yaml to upload; compile it first."
    )


@pytest.mark.parametrize(
    ("right", "wrong", "kind", "cause", "message"),
    [
        (
            "platform: template",
            "platfrom: template",  # codespell:ignore
            "validate",
            "invalid_config",
            r"broken\.yaml, line \d+: .*platform",
        ),
        (
            "esphome:",
            "esphome: [",
            "validate",
            "invalid_config",
            r"broken\.yaml, line \d+: .*not valid YAML",
        ),
        (
            "return 14.0f",
            "return degrees +",
            "compile",
            "compile_error",
            r"broken\.yaml, line \d+: 'degrees' was not declared in this scope",
        ),
    ],
)
async def test_mistakes_are_found(  # noqa: PLR0913, PLR0917
    real: Server,
    client: Client,
    right: str,
    wrong: str,
    kind: str,
    cause: str,
    message: str,
) -> None:
    """A mistake in the YAML or in a lambda: the sentence names file and line."""
    text = (real.config_dir / "weather-station.yaml").read_text()
    assert right in text
    broken = text.replace(right, wrong, 1).replace(
        "name: weather-station", "name: broken"
    )
    (real.config_dir / "broken.yaml").write_text(broken)

    job, _ = await run(client, kind, "broken.yaml")

    assert (job["status"], job["cause"]) == ("failed", cause)
    assert re.match(message, job["message"]), job["message"]
    (real.config_dir / "broken.yaml").unlink()


async def test_tool_chain_that_cannot_be_downloaded(
    real: Server, client: Client
) -> None:
    """An ESP32 needs tools from servers that are out of reach here."""
    (real.config_dir / "esp.yaml").write_text(
        "esphome:\n  name: esp\nesp32:\n  board: esp32dev\nlogger:\n"
    )
    job, _ = await run(client, "compile", "esp.yaml")
    assert (job["status"], job["cause"]) == ("failed", "download_failed")
    assert "esp.yaml" in job["message"]


async def test_device_that_is_switched_off(client: Client, station: Device) -> None:
    """The sentence names the device."""
    await station.stop()
    job, _ = await run(client, "upload", "weather-station.yaml", address=LOCALHOST)
    assert (job["status"], job["cause"]) == ("failed", "device_offline")
    assert LOCALHOST in job["message"]


async def test_wrong_password(real: Server, client: Client) -> None:
    """A device takes the password of the firmware that it runs."""
    job, _ = await run(client, "compile", "kettle.yaml")
    assert job["status"] == "completed", job["message"]
    kettle = await Device.start(real.built_program("kettle.yaml"), 16054)
    path = real.config_dir / "kettle.yaml"
    right = path.read_text()
    try:
        await kettle.ask()
        path.write_text(right.replace("!secret kettle_ota_password", "wrong-one"))
        job, _ = await run(client, "upload", "kettle.yaml", address=LOCALHOST)
        path.write_text(right)
    finally:
        await kettle.stop()
    assert (job["status"], job["cause"]) == ("failed", "authentication_failed")
    assert LOCALHOST in job["message"]
