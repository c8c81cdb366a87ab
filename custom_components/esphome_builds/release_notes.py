"""What the makers of ESPHome say of a release."""

import asyncio
from http import HTTPStatus
import re
from typing import Final

from aiohttp import ClientError
import orjson

from homeassistant.core import HomeAssistant
from homeassistant.helpers.aiohttp_client import async_get_clientsession

_CHANGELOG: Final = "https://esphome.io/changelog/"
_MAX_BYTES: Final = 512 * 1024
_NOTES: Final = "https://api.github.com/repos/esphome/esphome/releases/tags/"
_RELEASE: Final = re.compile(r"(\d+\.\d+)\.\d+")
_TIMEOUT_SECONDS: Final = 10.0
_VERSION: Final = re.compile(r"[\w.+-]{1,64}")


def release_url(version: str | None) -> str:
    """Return the page about a version, which betas do not have."""
    match = _RELEASE.fullmatch(version or "")
    return f"{_CHANGELOG}{match[1]}.0/" if match else _CHANGELOG


async def async_release_notes(hass: HomeAssistant, version: str | None) -> str | None:
    """Return the notes of a release as Markdown, None where there are none to be had.

    From the releases of the project, as the REST API of GitHub shows them.
    """
    if version is None or _VERSION.fullmatch(version) is None:
        return None
    session = async_get_clientsession(hass)
    try:
        async with (
            asyncio.timeout(_TIMEOUT_SECONDS),
            session.get(f"{_NOTES}{version}") as answer,
        ):
            if answer.status != HTTPStatus.OK:
                return None
            release = orjson.loads(await answer.content.read(_MAX_BYTES))
    except ClientError, TimeoutError, orjson.JSONDecodeError:
        return None
    notes = release.get("body") if isinstance(release, dict) else None
    return notes if isinstance(notes, str) and notes else None
