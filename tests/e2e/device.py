"""A device: the program that ESPHome's `host` platform builds."""

import asyncio
from contextlib import suppress
import json
import os
from pathlib import Path
import tempfile
from typing import IO, Any, Final, Self

from .server import ESPHOME

_ANSWER_SECONDS: Final = 60.0
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

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        port: int,
        output: IO[bytes],
        memory: tempfile.TemporaryDirectory[str],
    ) -> None:
        """Use a process that `start` made."""
        self._process = process
        self._port = port
        self._output = output
        self._memory = memory

    @classmethod
    async def start(cls, program: Path, port: int) -> Self:
        """Run what was built."""
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is off
        # One that was switched off early ten times would start in its safe mode.
        memory = tempfile.TemporaryDirectory()
        process = await asyncio.create_subprocess_exec(
            program,
            cwd=program.parent,
            env={**os.environ, "ESPHOME_PREFDIR": memory.name},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
        return cls(process, port, output, memory)

    async def ask(self) -> dict[str, Any]:
        """Return the version of the project that it runs, and when that was built."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _ANSWER_SECONDS
        while True:
            process = await asyncio.create_subprocess_exec(
                ESPHOME.with_name("python"),
                "-c",
                _ASK,
                str(self._port),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            output, errors = await process.communicate()
            if process.returncode == 0:
                answer: dict[str, Any] = json.loads(output)
                return answer
            if self._process.returncode is not None or loop.time() > end:
                raise TimeoutError(
                    f"It ended with {self._process.returncode}, did not answer: "
                    f"{errors.decode()[-500:]}\nand said:\n{self._said()}"
                )
            # It is not up yet, or starts again with its new firmware.
            await asyncio.sleep(0.2)

    def _said(self) -> str:
        """Return the end of what it printed."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")[-2000:]

    async def stop(self) -> None:
        """Switch it off."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._output.close()
        self._memory.cleanup()
