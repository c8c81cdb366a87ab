"""A device as Home Assistant's own ESPHome integration holds it, without a network."""

from typing import Final
from unittest.mock import AsyncMock

from aioesphomeapi import DeviceInfo
from aioesphomeapi.client import APIClient
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockModule,
    mock_integration,
)

from homeassistant.components.esphome.entry_data import (
    ESPHomeStorage,
    RuntimeEntryData,
)
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr

MAC: Final = "02:eb:00:00:00:02"


class EsphomeDevice:
    """An entry of the integration, which is loaded, and its device."""

    def __init__(
        self, hass: HomeAssistant, name: str, mac: str = MAC, title: str | None = None
    ) -> None:
        """Add the entry and the device, which is not connected."""
        self._hass = hass
        # The real one would want a network to disconnect from.
        mock_integration(
            hass, MockModule("esphome", async_unload_entry=AsyncMock(return_value=True))
        )
        self.entry = MockConfigEntry(
            domain="esphome", data={"device_name": name}, unique_id=mac
        )
        self.entry.add_to_hass(hass)
        self.runtime = RuntimeEntryData(
            client=APIClient("127.0.0.1", 6053, None),
            entry_id=self.entry.entry_id,
            title=name,
            store=ESPHomeStorage(hass, 1, f"esphome.{self.entry.entry_id}"),
        )
        self.entry.runtime_data = self.runtime
        self.entry.mock_state(hass, ConfigEntryState.LOADED)
        self._name, self._mac, self._title = name, mac, title or name.title()
        self.register(mac)

    def register(self, mac: str) -> None:
        """Put the device into the registry."""
        self.device = dr.async_get(self._hass).async_get_or_create(
            config_entry_id=self.entry.entry_id,
            connections={(dr.CONNECTION_NETWORK_MAC, mac)},
            manufacturer="espressif",
            name=self._title,
        )

    def connect(
        self, version: str, built_at: str = "2026-11-24 09:00:00 +0000", **more: object
    ) -> None:
        """Let it connect with a firmware."""
        self.runtime.device_info = DeviceInfo.from_dict(
            {
                "name": self._name,
                "mac_address": self._mac.upper(),
                "esphome_version": version,
                "compilation_time": built_at,
                **more,
            }
        )
        self.runtime.available = True
        self.runtime.async_update_device_state()

    def disconnect(self) -> None:
        """Let it be gone."""
        self.runtime.available = False
        self.runtime.async_update_device_state()
