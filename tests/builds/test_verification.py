"""Whether a device is back, and what is wrong with one that is not."""

from typing import Any

import pytest

from custom_components.esphome_builds.builds.devices import Device
from custom_components.esphome_builds.builds.verification import (
    Expected,
    is_back,
    shortcoming,
)

EXPECTED = Expected(version="2026.10.0", built_at="today")


def device(**fields: Any) -> Device:  # noqa: ANN401 - any field
    """Return a device that is back, or other than that."""
    values = {
        "online": True,
        "version": "2026.10.0",
        "built_at": "today",
        "connections": 2,
    }
    return Device(device_id="it", **(values | fields))


@pytest.mark.parametrize(
    ("found", "connections", "sentence"),
    [
        (device(), 1, None),
        # Nobody knows how often it had connected.
        (device(), None, None),
        # It does not say when it was built.
        (device(built_at=None), 1, None),
        (None, 1, "has not come back within 5 minutes"),
        (device(online=False), 1, "has not come back within 5 minutes"),
        (device(online=None), 1, "has not come back within 5 minutes"),
        (device(), 2, "has not come back within 5 minutes"),
        (
            device(version="2026.9.0"),
            1,
            "came back with ESPHome 2026.9.0 instead of 2026.10.0",
        ),
        (
            device(built_at="yesterday"),
            1,
            "came back with another build than that: the one of yesterday",
        ),
    ],
)
def test_is_back(
    found: Device | None, connections: int | None, sentence: str | None
) -> None:
    """It has connected again, and runs what was sent."""
    assert is_back(found, connections, EXPECTED) is (sentence is None)
    if sentence is not None:
        assert shortcoming(found, connections, EXPECTED) == (
            f"The firmware was sent, but the device {sentence}."
        )


def test_says_nothing() -> None:
    """A device that does not say what it runs is not one that runs something else."""
    found = device(version=None)
    assert not is_back(found, 1, EXPECTED)
    assert shortcoming(found, 1, EXPECTED) == (
        "The firmware was sent and the device came back, but it does not say which "
        "ESPHome it runs."
    )


def test_nothing_is_known() -> None:
    """Where it is not known what was sent, to be back is enough."""
    assert is_back(device(version=None, built_at=None), 1, Expected())
