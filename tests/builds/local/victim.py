"""Runs a builder until it is killed, as Home Assistant may be. Not a test.

Called with a folder as `harness.House` makes it, with a builder that manages its own
ESPHome where a fake of uv is in it; submits each request that is named,
such as `compile:a.yaml`, and prints a line when the builder is ready.
"""

import asyncio
import importlib
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[3]
INTEGRATION = "custom_components.esphome_builds"


def engine(name: str) -> Any:  # noqa: ANN401 - modules that are not imported above
    """Import a module of the engine without the integration, which takes seconds."""
    return importlib.import_module(f"{INTEGRATION}.builds.{name}")


async def main(folder: Path, *requests: str) -> None:
    """Run until the end of the world."""
    local = engine("local.builder")
    models = engine("models")
    python = folder / "python"
    settings = engine("local.settings").LocalSettings(
        entry_id="entry",
        title="house",
        config_dir=folder / "config",
        esphome="" if python.exists() else str(folder / "esphome"),
        cache_dir=folder / "cache",
        tools_dir=folder / "tools",
        compile_slots=1,
        python=python,
    )
    builder = local.LocalBuilder(settings)
    await builder.start()
    builder.resume()
    for request in requests:
        kind, _, name = request.partition(":")
        await builder.submit(
            engine("builder").BuildRequest(
                kind=models.RequestKind(kind), configurations=(name,)
            )
        )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.sleep(1000)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    package = ModuleType(INTEGRATION)
    package.__path__ = [str(ROOT / INTEGRATION.replace(".", "/"))]
    sys.modules[INTEGRATION] = package
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
