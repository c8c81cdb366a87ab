"""A device: the program that ESPHome's `host` platform builds."""

import asyncio
from contextlib import suppress
import json
from pathlib import Path
from typing import Any, Final, Self

from .server import ESPHOME

_ANSWER_SECONDS: Final = 20.0
# Runs where ESPHome's API client is installed.
_ASK: Final = """
import asyncio, json, sys
from aioesphomeapi import APIClient

async def ask():
    client = APIClient("127.0.0.1", int(sys.argv[1]), None)
    await client.connect(login=True)
    info = await client.device_info()
    await client.disconnect()
    print(json.dumps({"version": info.project_version, "built": info.compilation_time}))

asyncio.run(asyncio.wait_for(ask(), 5))
"""


class Device:
    """A program that runs, answers ESPHome's native API and takes firmware."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        """Use a process that `start` made."""
        self._process = process
        self._port = port

    @classmethod
    async def start(cls, program: Path, port: int) -> Self:
        """Run what was built."""
        process = await asyncio.create_subprocess_exec(
            program,
            cwd=program.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return cls(process, port)

    async def ask(self) -> dict[str, Any]:
        """Return the version of the project that it runs, and when that was built."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            while True:
                process = await asyncio.create_subprocess_exec(
                    ESPHOME.with_name("python"),
                    "-c",
                    _ASK,
                    str(self._port),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                )
                output, _ = await process.communicate()
                if process.returncode == 0:
                    answer: dict[str, Any] = json.loads(output)
                    return answer
                # It is not up yet, or starts again with its new firmware.
                await asyncio.sleep(0.2)

    async def stop(self) -> None:
        """Switch it off."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
