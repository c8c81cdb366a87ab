"""The scripts of the documents, as they run."""

from pathlib import Path
from typing import Any, Final

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
import yaml

from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component

from .esphome_device import EsphomeDevice
from .fakes import FAKE_VERSION, write_configuration
from .helpers import VERSION, Steps, async_until, async_until_state

DOCS: Final = Path(__file__).parent.parent / "docs"
OUTDATED: Final = ("greenhouse", "kettle", "night-light")


def _documented(page: str, script: str) -> dict[str, Any]:
    """Return a script as a page of the documents shows it."""
    blocks = (DOCS / page).read_text().split("```yaml\n")[1:]
    (found,) = (
        parsed["script"]
        for block in blocks
        if script in (parsed := yaml.safe_load(block.split("```")[0])).get("script", {})
    )
    return {script: found[script]}


@pytest.fixture
async def outdated(hass: HomeAssistant, entry: MockConfigEntry) -> None:
    """Have devices that run an older ESPHome than the builder has."""
    devices = [
        EsphomeDevice(hass, name, f"02:eb:00:00:00:0{number}")
        for number, name in enumerate(OUTDATED)
    ]
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    for device in devices:
        device.connect("2026.9.0")
    await async_until(
        hass,
        EVENT_STATE_CHANGED,
        lambda: (
            sum(state.state == "on" for state in hass.states.async_all("update"))
            == len(OUTDATED)
        ),
    )


@pytest.mark.usefixtures("outdated")
@pytest.mark.local_only("a script does not know of which kind a builder is")
@pytest.mark.parametrize("broken", [False, True])
async def test_build_all_that_is_outdated(
    hass: HomeAssistant, config_dir: Path, *, broken: bool
) -> None:
    """Each is built in turn; after a failure nothing is, and that is told."""
    steps = Steps(hass)
    if broken:
        write_configuration(config_dir, "kettle", "exit 1")
    script = _documented("automations.md", "build_outdated")
    assert await async_setup_component(hass, "persistent_notification", {})
    assert await async_setup_component(hass, "script", {"script": script})

    report: Any = await hass.services.async_call(
        "script", "build_outdated", blocking=True, return_response=True
    )

    told = [
        (event.data["job"]["configuration"], event.data["type"])
        for event in steps.events
    ]
    ends = {"kettle": "failed"} if broken else {}
    built = OUTDATED[:2] if broken else OUTDATED
    assert told == [
        (f"{name}.yaml", step)
        for name in built
        for step in ("queued", "started", ends.get(name, "completed"))
    ]
    assert report["built"] == [f"{name}.yaml" for name in built if name not in ends]
    if broken:
        assert report["failed"] == steps.events[-1].data["job"]
    else:
        assert report["failed"] == {}
