"""The real Device Builder server, whose event loop is watched, in its own interpreter.

    python -m bench.peer_server FOLDER_OF_ESPHOME ARGUMENTS…

An empty folder means the `esphome` beside the interpreter, as the server is meant to be
run. `/bench/peaks` tells the longest hold since it was asked for last.
"""

import asyncio
import gc
from pathlib import Path
import sys
from typing import Any

from aiohttp import web
from esphome_device_builder.__main__ import main

from .workload import TICK_SECONDS, LoopWatch

_run_app = web.run_app


def _run_watched(app: web.Application, **options: Any) -> None:  # noqa: ANN401
    """Run what the server would run, with a watch."""
    watches: list[LoopWatch] = []

    async def _start(_: web.Application) -> None:
        watches.append(LoopWatch())

    async def _peaks(_: web.Request) -> web.Response:
        (watch,) = watches
        held = watch.held
        # As in the probe of the other side: not while something is measured.
        gc.collect()
        gc.freeze()
        await asyncio.sleep(2 * TICK_SECONDS)
        watch.held = 0.0
        return web.json_response({"held": held})

    app.on_startup.append(_start)
    app.router.add_get("/bench/peaks", _peaks)
    _run_app(app, **options)


if __name__ == "__main__":
    folder, *arguments = sys.argv[1:]
    if folder:
        sys.executable = str(Path(folder) / "python")
    sys.argv = ["esphome-device-builder", *arguments]
    web.run_app = _run_watched  # type: ignore[assignment]
    main()
