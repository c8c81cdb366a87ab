"""What of the entities goes into Home Assistant's database."""

from pathlib import Path
from typing import Final

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.components.recorder.common import (
    async_wait_recording_done,
)

from homeassistant.components.recorder import Recorder, history
from homeassistant.core import EVENT_STATE_CHANGED, HomeAssistant
from homeassistant.util import dt as dt_util

from .fakes import write_configuration
from .helpers import async_act, async_until_state

STEPS: Final = 1500
UPDATE: Final = "update.porch_firmware"

pytestmark = pytest.mark.usefixtures("recorder_mock")


@pytest.mark.local_only("the progress is counted in the same way")
async def test_a_long_build(
    hass: HomeAssistant,
    recorder_mock: Recorder,
    builder: MockConfigEntry,
    config_dir: Path,
) -> None:
    """A build of many steps adds a row for each percent at most, of what lasts."""
    name = write_configuration(config_dir, "porch", f"compile: compile {STEPS}")
    await async_act(hass, "validate", name, wait=True)
    await async_until_state(hass, "sensor.porch_last_build", "completed")
    written: list[str] = []
    hass.bus.async_listen(
        EVENT_STATE_CHANGED, lambda event: written.append(event.data["entity_id"])
    )
    start = dt_util.utcnow()

    jobs = await async_act(hass, "install", name, wait=True)
    await async_wait_recording_done(hass)

    assert [job["status"] for job in jobs] == ["completed", "completed"]
    assert 1 < written.count(UPDATE) <= 101
    assert all(written.count(entity_id) <= 20 for entity_id in {*written} - {UPDATE}), (
        written
    )
    recorded = await recorder_mock.async_add_executor_job(
        history.state_changes_during_period, hass, start, None, UPDATE
    )
    rows = recorded[UPDATE]
    assert 1 <= len(rows) <= 102
    for attribute in (
        "config_entry_id",
        "configuration",
        "in_progress",
        "online",
        "update_percentage",
    ):
        assert not any(attribute in row.attributes for row in rows)
