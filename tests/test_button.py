"""What the button of a builder does."""

from pathlib import Path
from unittest.mock import patch

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser

from custom_components.esphome_builds.builds.builder import BuilderUnavailableError
from homeassistant.const import STATE_UNKNOWN
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import HomeAssistantError, Unauthorized

from .clients import eventually
from .fakes import write_configuration
from .helpers import CANCEL_ALL, ProcessesOf, Steps, async_act, shown

pytestmark = pytest.mark.usefixtures("builder")


async def _async_press(hass: HomeAssistant) -> None:
    """Press the button, and wait for what it does."""
    await hass.services.async_call(
        "button", "press", {"entity_id": CANCEL_ALL}, blocking=True
    )


async def test_all_jobs_are_ended(
    hass: HomeAssistant, config_dir: Path, processes_of: ProcessesOf
) -> None:
    """What runs and what waits is over when the button is done; nothing else began."""
    steps = Steps(hass)
    # Of one configuration, so that on every host one of them runs.
    name = write_configuration(config_dir, "attic", "sleep inf")
    jobs = await async_act(hass, "install", name)
    jobs += await async_act(hass, "validate", name)
    jobs += await async_act(hass, "clean", name)
    await steps.until(jobs[0], "started")

    await _async_press(hass)

    assert [steps.of(job) for job in jobs] == [
        ["queued", "started", "cancelled"],
        *[["queued", "cancelled"]] * 3,
    ]
    assert processes_of(*jobs) == set()


async def test_it_can_be_pressed_any_time(hass: HomeAssistant) -> None:
    """With nothing to end there is nothing to do."""
    await async_act(hass, "validate", "kettle.yaml", wait=True)
    assert shown(hass, CANCEL_ALL).state == STATE_UNKNOWN

    await _async_press(hass)

    assert shown(hass, CANCEL_ALL).state != STATE_UNKNOWN


async def test_it_says_why_it_failed(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path
) -> None:
    """A builder that cannot be reached is an error that has a text."""
    await async_act(
        hass, "validate", write_configuration(config_dir, "porch", "sleep inf")
    )

    with (
        patch.object(
            type(builder.runtime_data.builder),
            "cancel",
            side_effect=BuilderUnavailableError("No."),
        ),
        pytest.raises(HomeAssistantError, match=r"The builder is not available\. No\."),
    ):
        await _async_press(hass)


async def test_only_administrators_press_it(
    hass: HomeAssistant,
    hass_read_only_user: MockUser,
    config_dir: Path,
    processes_of: ProcessesOf,
) -> None:
    """A user who may control entities may still not end builds."""
    hass_read_only_user.mock_policy({"entities": True})
    name = write_configuration(config_dir, "porch", "sleep inf")
    (job,) = await async_act(hass, "validate", name)
    await eventually(lambda: processes_of(job))

    with pytest.raises(Unauthorized):
        await hass.services.async_call(
            "button",
            "press",
            {"entity_id": CANCEL_ALL},
            blocking=True,
            context=Context(user_id=hass_read_only_user.id),
        )

    assert processes_of(job)
