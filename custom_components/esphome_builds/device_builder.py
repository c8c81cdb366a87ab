"""From a config entry to a builder that uses an ESPHome Device Builder server."""

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import CONF_PASSWORD, CONF_URL, CONF_USERNAME
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.aiohttp_client import async_get_clientsession

from .builds.device_builder.builder import DeviceBuilder, DeviceBuilderSettings
from .builds.device_builder.client import probe
from .builds.device_builder.wire import ServerInfo
from .devices import EsphomeDevices
from .local import cache_dir, device_wait


@callback
def create_device_builder(hass: HomeAssistant, entry: ConfigEntry) -> DeviceBuilder:
    """Return a builder with the entry's settings; nothing of it runs yet."""
    settings = DeviceBuilderSettings(
        entry_id=entry.entry_id,
        title=entry.title,
        url=entry.data[CONF_URL],
        cache_dir=cache_dir(hass, entry.entry_id),
        username=entry.data.get(CONF_USERNAME),
        password=entry.data.get(CONF_PASSWORD),
        device_wait=device_wait(entry),
    )

    @callback
    def _async_on_invalid_auth() -> None:
        entry.async_start_reauth(hass)

    session = async_get_clientsession(hass)
    return DeviceBuilder(
        settings, session, _async_on_invalid_auth, EsphomeDevices(hass)
    )


async def async_probe(
    hass: HomeAssistant, url: str, username: str | None, password: str | None
) -> ServerInfo:
    """Return what a server is.

    Raises `CannotConnectError`, `InvalidAuthError` or `UnsupportedVersionError`.
    """
    return await probe(url, username, password, async_get_clientsession(hass))


@callback
def async_known_server(hass: HomeAssistant) -> str | None:
    """Return the address of the server that Home Assistant's ESPHome knows, if any."""
    if "esphome" not in hass.config.components:
        return None
    # What it needs is installed only where it is used.
    from homeassistant.components.esphome.dashboard import (  # noqa: PLC0415
        async_get_dashboard,
    )

    dashboard = async_get_dashboard(hass)
    return None if dashboard is None else dashboard.url
