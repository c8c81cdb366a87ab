"""What the makers of ESPHome say of a release."""

import pytest
from pytest_homeassistant_custom_component.test_util.aiohttp import AiohttpClientMocker

from custom_components.esphome_builds.release_notes import async_release_notes
from homeassistant.core import HomeAssistant


@pytest.mark.parametrize("version", [None, "", "../../other", "1.2.3?a=b", "9" * 65])
async def test_no_version(
    hass: HomeAssistant, aioclient_mock: AiohttpClientMocker, version: str | None
) -> None:
    """Of what is no version nobody is asked."""
    assert await async_release_notes(hass, version) is None
    assert aioclient_mock.mock_calls == []
