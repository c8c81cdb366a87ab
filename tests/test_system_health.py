"""What the page of system information shows of builders."""

from dataclasses import replace
import json
from pathlib import Path
import shutil
from typing import Any, Final

import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    get_system_health_info,
)

from custom_components.esphome_builds.builds.findings import Finding, Obstacle, Severity
from custom_components.esphome_builds.const import DOMAIN
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component

from .clients import eventually
from .conftest import Outage
from .fakes import FAKE_VERSION, write_configuration
from .helpers import RUNNING, STATUS, async_act, async_until_state, local_entry

INTEGRATION: Final = Path(__file__).parent.parent / "custom_components" / DOMAIN
VERSION: Final = json.loads((INTEGRATION / "manifest.json").read_bytes())["version"]
EVERYTHING: Final = {
    "version",
    "builders",
    "esphome",
    "environment",
    "preflight",
    "queue",
    "disk_usage",
    "ccache",
    "device_builder",
}


@pytest.fixture(autouse=True)
async def health(hass: HomeAssistant) -> None:
    """Set up what shows it."""
    assert await async_setup_component(hass, DOMAIN, {})
    assert await async_setup_component(hass, "system_health", {})


async def told(hass: HomeAssistant) -> dict[str, Any]:
    """Return what is shown, when all of it is there."""
    info = await get_system_health_info(hass, DOMAIN)
    if "device_builder" in info:
        info["device_builder"] = await info["device_builder"]
    return info


def test_all_has_texts() -> None:
    """What is shown has a name, and nothing else has one."""
    texts = json.loads((INTEGRATION / "translations" / "en.json").read_bytes())

    assert set(texts["system_health"]["info"]) == EVERYTHING


async def test_no_builder(hass: HomeAssistant) -> None:
    """There is the version, at least."""
    assert await told(hass) == {"version": VERSION}


async def test_a_builder(
    hass: HomeAssistant, builder: MockConfigEntry, builder_kind: str, config_dir: Path
) -> None:
    """All that is known of the only builder, without its title."""
    write_configuration(config_dir, "porch", "sleep inf")
    await async_act(hass, "install", "porch.yaml")
    await async_until_state(hass, RUNNING, "1")

    info = await told(hass)

    expected = {
        "version": VERSION,
        "builders": "ready",
        "esphome": FAKE_VERSION,
        "queue": "1 running, 1 queued",
    }
    assert info.items() >= expected.items()
    assert info.keys() <= EVERYTHING
    if builder_kind == "local":
        assert info["environment"] == "an executable of its own"
        assert {"preflight", "ccache"} <= info.keys()
        assert "device_builder" not in info
    else:
        assert info["environment"] == "the server"
        assert info["device_builder"] == "ok"
        assert info.keys().isdisjoint({"preflight", "ccache", "disk_usage"})
    await async_act(hass, "cancel", "porch.yaml")


async def test_a_builder_that_is_away(
    hass: HomeAssistant, builder: MockConfigEntry, outage: Outage, builder_kind: str
) -> None:
    """It says why."""
    await outage.begin()
    await async_until_state(hass, STATUS, "unavailable")

    info = await told(hass)

    assert info["builders"].startswith("unavailable (")
    if builder_kind == "device_builder":
        # What Home Assistant shows as an error.
        assert info["device_builder"]["type"] == "failed"
        assert info["device_builder"]["error"]


@pytest.mark.local_only("of a server nothing of this is known")
async def test_what_is_found(
    hass: HomeAssistant, builder: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sentence for each, also what needs nobody's care."""
    engine = builder.runtime_data.builder
    finding = Finding(
        obstacle=Obstacle.MEMORY_SCARCE,
        severity=Severity.WARN,
        facts={"compilers": 1, "cores": 4},
    )
    monkeypatch.setattr(type(engine), "findings", ())
    assert (await told(hass))["preflight"] == "nothing"

    monkeypatch.setattr(type(engine), "findings", (finding, finding))
    assert (await told(hass))["preflight"] == f"{finding.sentence} {finding.sentence}"


@pytest.mark.local_only("the server is asked for its version, not how it came by it")
async def test_an_esphome_of_ones_own(
    hass: HomeAssistant, builder: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who installed it, and what one can go back to; and what all of it takes."""
    engine = builder.runtime_data.builder
    info = replace(engine.info, managed=True, disk_usage=1536 * 1024**2)
    monkeypatch.setattr(type(engine), "info", info)
    assert (await told(hass))["environment"] == "this integration"
    assert (await told(hass))["disk_usage"] == "1.5 GiB"

    info = replace(info, previous_version="2026.9.3")
    monkeypatch.setattr(type(engine), "info", info)
    assert (await told(hass))["environment"] == "this integration, 2026.9.3 before"


@pytest.mark.local_only("a server's ccache is its own affair")
async def test_ccache(
    hass: HomeAssistant, builder: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether builds find it, and what it would be good for."""
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/bin/{name}")
    assert (await told(hass))["ccache"] == "found"

    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert (await told(hass))["ccache"].startswith("not found; with it, ")


@pytest.mark.local_only("two of one kind are enough")
async def test_two_builders(
    hass: HomeAssistant, builder: MockConfigEntry, esphome: Path, tmp_path: Path
) -> None:
    """Each has its title before it, also one that is not loaded."""
    folder = tmp_path / "workshop"
    folder.mkdir()
    other = local_entry("workshop", folder, esphome)
    other.add_to_hass(hass)
    info = await told(hass)
    assert info["builders"] == "esphome: ready; workshop: not_loaded"
    assert info["esphome"] == FAKE_VERSION

    assert await hass.config_entries.async_setup(other.entry_id)
    await eventually(lambda: other.runtime_data.builder.info.esphome_version)

    info = await told(hass)
    assert info["builders"] == "esphome: ready; workshop: ready"
    assert info["esphome"] == f"esphome: {FAKE_VERSION}; workshop: {FAKE_VERSION}"
