"""Which ESPHome device of Home Assistant a configuration belongs to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
import re

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr

_ESPHOME = "esphome"
# The ESPHome integration keeps the device's own name in its entry under this key.
_CONF_DEVICE_NAME = "device_name"
# What it says of a device's software: "2026.10.0 (time of the build)", or where the
# firmware is a project "1.0.0 (ESPHome 2026.10.0)" (`_async_setup_device_registry`).
_SOFTWARE = re.compile(r"(?:.* \(ESPHome )?(\d+\.\d+\.\d+[^\s)]*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownDevice:
    """A device that the ESPHome integration knows, and which ESPHome it runs."""

    device_id: str
    version: str | None


@callback
def async_devices(hass: HomeAssistant) -> dict[str, KnownDevice]:
    """Return the devices that the ESPHome integration knows, by name."""
    return {
        name: KnownDevice(device_id=device.id, version=_version(device.sw_version))
        for name, device in _async_devices(hass)
    }


@callback
def async_device_name(hass: HomeAssistant, device_id: str) -> str | None:
    """Return the ESPHome name of a device, or None if it is none of ESPHome's.

    A part of a device has the name of the device it belongs to.
    """
    if (device := dr.async_get(hass).async_get(device_id)) is None:
        return None
    entry = hass.config_entries.async_get_entry(device.config_entry_id)
    if entry is None or entry.domain != _ESPHOME:
        return None
    name: str | None = entry.data.get(_CONF_DEVICE_NAME)
    return name


@callback
def async_track_devices(
    hass: HomeAssistant, listener: Callable[[], None]
) -> Callable[[], None]:
    """Call the listener when devices came, went, or run something else.

    That is until the result is called.
    """

    @callback
    def _async_on_update(event: Event[dr.EventDeviceRegistryUpdatedData]) -> None:
        data = event.data
        if data["action"] != "update" or "sw_version" in data["changes"]:
            listener()

    return hass.bus.async_listen(dr.EVENT_DEVICE_REGISTRY_UPDATED, _async_on_update)


def _version(software: str | None) -> str | None:
    """Return the version of ESPHome that is in a device's software."""
    match = _SOFTWARE.match(software or "")
    return match and match[1]


@callback
def _async_devices(hass: HomeAssistant) -> Iterator[tuple[str, dr.DeviceEntry]]:
    registry = dr.async_get(hass)
    for entry in hass.config_entries.async_entries(_ESPHOME):
        name = entry.data.get(_CONF_DEVICE_NAME)
        if name and (device := _async_device(registry, entry)):
            yield name, device


@callback
def _async_device(
    registry: dr.DeviceRegistry, entry: ConfigEntry
) -> dr.DeviceEntry | None:
    """Return the main device of an ESPHome entry, whose unique id is its MAC."""
    if entry.unique_id is None:
        return None
    return registry.async_get_device_by_connection(
        (dr.CONNECTION_NETWORK_MAC, entry.unique_id), entry.entry_id
    )
