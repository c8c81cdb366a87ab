"""A local builder with a fake ESPHome, and what there is to see of it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from custom_components.esphome_builds.builds.devices import Devices
from custom_components.esphome_builds.builds.local.builder import LocalBuilder
from custom_components.esphome_builds.builds.local.settings import LocalSettings

from ...fakes import fake_calls, install_fake, write_configuration
from ..tenant import Tenant as AnyTenant, started

type Tenant = AnyTenant[LocalBuilder]


class House:
    """A folder of configurations, a fake, and a place for what a builder keeps."""

    def __init__(self, folder: Path) -> None:
        """Make the folders."""
        self.config_dir = folder / "config"
        self.config_dir.mkdir()
        self.fake = install_fake(folder)
        self.settings = LocalSettings(
            entry_id="entry",
            title="house",
            config_dir=self.config_dir,
            esphome=str(self.fake),
            cache_dir=folder / "cache",
            tools_dir=folder / "tools",
            compile_slots=1,
        )

    def write(self, name: str, *script: str) -> str:
        """Write `<name>.yaml` with what the fake shall do; return the file's name."""
        return write_configuration(self.config_dir, name, *script)

    def touch(self, name: str) -> None:
        """Make a file that a fake waits for."""
        (self.config_dir / name).touch()

    def marks(self, name: str) -> list[str]:
        """Return what fakes wrote into a file, a line for each."""
        path = self.config_dir / name
        return path.read_text().splitlines() if path.exists() else []

    def runs(self) -> list[list[str]]:
        """Return the arguments of each call of the fake but those for its version."""
        return [call for call in fake_calls(self.fake) if call != ["version"]]

    @asynccontextmanager
    async def started(
        self,
        settings: LocalSettings | None = None,
        *,
        ready: bool = True,
        devices: Devices | None = None,
    ) -> AsyncGenerator[Tenant]:
        """Run a builder, and wait until it takes jobs."""
        builder = LocalBuilder(settings or self.settings, devices)
        async with started(builder, ready=ready) as tenant:
            yield tenant
