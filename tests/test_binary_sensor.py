"""What the binary sensor of a builder shows."""

from pathlib import Path

import pytest

from homeassistant.const import STATE_OFF, STATE_ON
from homeassistant.core import HomeAssistant

from .fakes import write_configuration
from .helpers import BUILDING, async_act, async_until_state, shown


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("action", ["validate", "compile", "upload", "clean"])
async def test_on_while_a_job_runs(
    hass: HomeAssistant, config_dir: Path, action: str
) -> None:
    """Whatever kind of job it is, the builder is busy."""
    write_configuration(config_dir, "porch", "sleep inf")
    assert shown(hass, BUILDING).state == STATE_OFF
    assert shown(hass, BUILDING).attributes["device_class"] == "running"

    await async_act(hass, action, "porch.yaml")
    await async_until_state(hass, BUILDING, STATE_ON)

    await async_act(hass, "cancel", "porch.yaml")
    await async_until_state(hass, BUILDING, STATE_OFF)
