"""The devices of Home Assistant's own ESPHome integration."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
import re
from typing import TYPE_CHECKING

from homeassistant.config_entries import (
    SIGNAL_CONFIG_ENTRY_CHANGED,
    ConfigEntry,
    ConfigEntryChange,
    ConfigEntryState,
)
from homeassistant.const import CONF_HOST, Platform
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.util.network import is_ip_address

from .builds.devices import Device
from .const import DOMAIN

if TYPE_CHECKING:
    # What it needs is installed only where it is used.
    from homeassistant.components.esphome.entry_data import RuntimeEntryData

_ESPHOME = "esphome"
# The ESPHome integration keeps the device's own name in its entry under this key.
_CONF_DEVICE_NAME = "device_name"
# What it says of a device's software: "2026.10.0 (time of the build)", or where the
# firmware is a project "1.0.0 (ESPHome 2026.10.0)" (`_async_setup_device_registry`).
_SOFTWARE = re.compile(r"(?:.* \(ESPHome )?(\d+\.\d+\.\d+[^\s)]*)")
# Of what the integration holds of a loaded entry (`RuntimeEntryData`).
_USED = ("async_subscribe_device_updated", "available", "device_info", "has_deep_sleep")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """What an entry of the integration says: a device, and the names it is known by."""

    name: str
    shared_name: str | None
    device: Device


class EsphomeDevices:
    """What the ESPHome integration knows of its devices, by the names they have.

    A device whose name ends in its address, since several have the same firmware, is
    also known by the name without that, as long as it is the only one.
    """

    def __init__(self, hass: HomeAssistant) -> None:
        """Prepare; nothing is known before somebody listens."""
        self._connections: dict[str, int] = {}
        self._hass = hass
        self._known: dict[str, _Known] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._names: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._stop_tracking: list[Callable[[], None]] = []
        self._subscribed: dict[str, tuple[object, Callable[[], None]]] = {}

    def get(self, name: str) -> Device | None:
        """Return the device that calls itself so, None if it is not known."""
        found = [self._known[entry_id] for entry_id in self._names.get(name, ())]
        own = [known for known in found if known.name == name]
        if not own and len(found) > 1:
            return None
        return next((known.device for known in (*own, *found)), None)

    @callback
    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call the listener with each name whose device came, went or changed."""
        if not self._listeners:
            self._async_start()
        self._listeners.append(listener)

        @callback
        def _async_stop() -> None:
            self._listeners.remove(listener)
            if not self._listeners:
                self._async_stop()

        return _async_stop

    @callback
    def _async_start(self) -> None:
        self._stop_tracking = [
            async_dispatcher_connect(
                self._hass, SIGNAL_CONFIG_ENTRY_CHANGED, self._async_on_entry
            ),
            self._hass.bus.async_listen(
                dr.EVENT_DEVICE_REGISTRY_UPDATED, self._async_on_registry
            ),
        ]
        for entry in self._hass.config_entries.async_entries(_ESPHOME):
            self._async_on_entry(ConfigEntryChange.ADDED, entry)

    @callback
    def _async_stop(self) -> None:
        while self._stop_tracking:
            self._stop_tracking.pop()()
        for entry_id in tuple(self._subscribed):
            self._async_unsubscribe(entry_id)

    @callback
    def _async_on_entry(self, change: ConfigEntryChange, entry: ConfigEntry) -> None:
        """Follow a device from when its entry is loaded on."""
        if entry.domain != _ESPHOME:
            return
        entry_id = entry.entry_id
        runtime = _runtime(entry)
        subscribed, _ = self._subscribed.get(entry_id, (None, None))
        if subscribed is not runtime:
            self._async_unsubscribe(entry_id)
        if runtime is not None and entry_id not in self._subscribed:
            stop = runtime.async_subscribe_device_updated(
                partial(self._async_update, entry)
            )
            self._subscribed[entry_id] = (runtime, stop)
        if change is ConfigEntryChange.REMOVED:
            self._async_take(entry_id, None)
        else:
            self._async_update(entry)

    @callback
    def _async_unsubscribe(self, entry_id: str) -> None:
        if entry_id in self._subscribed:
            _, stop = self._subscribed.pop(entry_id)
            stop()

    @callback
    def _async_on_registry(
        self, event: Event[dr.EventDeviceRegistryUpdatedData]
    ) -> None:
        """Take over what the registry says of a device."""
        device_id = event.data["device_id"]
        if device := dr.async_get(self._hass).async_get(device_id):
            entry_ids = {device.config_entry_id}
        else:
            entry_ids = {
                entry_id
                for entry_id, known in self._known.items()
                if known.device.device_id == device_id
            }
        for entry_id in entry_ids:
            entry = self._hass.config_entries.async_get_entry(entry_id)
            if entry is not None and entry.domain == _ESPHOME:
                self._async_update(entry)

    @callback
    def _async_update(self, entry: ConfigEntry) -> None:
        """Take over what is known of an entry's device now."""
        self._async_take(entry.entry_id, self._look(entry))

    @callback
    def _async_take(self, entry_id: str, known: _Known | None) -> None:
        before = self._known.pop(entry_id, None)
        if known is not None:
            self._known[entry_id] = known
        if known == before:
            return
        names: dict[str, None] = {}
        for one in filter(None, (before, known)):
            names |= dict.fromkeys(filter(None, (one.name, one.shared_name)))
        for name in names:
            self._names[name].pop(entry_id, None)
            if known is not None and name in (known.name, known.shared_name):
                self._names[name][entry_id] = None
        for listener in tuple(self._listeners):
            for name in names:
                listener(name)

    def _look(self, entry: ConfigEntry) -> _Known | None:
        """Return what an entry and its device say."""
        registry = dr.async_get(self._hass)
        name: str | None = entry.data.get(_CONF_DEVICE_NAME)
        device = _async_device(registry, entry)
        if not name or device is None:
            return None
        known = Device(
            device_id=device.id,
            address=_address(entry.data.get(CONF_HOST)),
            version=_version(device.sw_version),
            connections=self._connections.get(entry.entry_id, 0),
        )
        if (runtime := _runtime(entry)) is not None:
            known = self._with_runtime(entry.entry_id, known, runtime)
        return _Known(name=name, shared_name=_shared_name(name, entry), device=known)

    def _with_runtime(
        self, entry_id: str, device: Device, runtime: RuntimeEntryData
    ) -> Device:
        """Return a device with what the connection to it tells."""
        before = self._known.get(entry_id)
        was_online = before is not None and before.device.online
        if runtime.available and not was_online:
            self._connections[entry_id] = device.connections + 1
        info = runtime.device_info
        return replace(
            device,
            online=runtime.available,
            sleeps=runtime.has_deep_sleep,
            version=(info and info.esphome_version) or device.version,
            built_at=(info and info.compilation_time) or None,
            connections=self._connections.get(entry_id, 0),
        )


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
def async_shows_updates(hass: HomeAssistant, device_id: str | None) -> bool:
    """Return whether the ESPHome integration shows updates from its dashboard.

    The entity for that has the device's address as its unique id
    (`ESPHomeDashboardUpdateEntity`), and is disabled unless somebody wants it.
    """
    device = dr.async_get(hass).async_get(device_id) if device_id else None
    if not isinstance(device, dr.DeviceEntry):
        return False
    addresses = {
        address.upper()
        for kind, address in device.connections
        if kind == dr.CONNECTION_NETWORK_MAC
    }
    entries = er.async_entries_for_device(er.async_get(hass), device.id)
    return any(
        entry.domain == Platform.UPDATE
        and entry.platform == _ESPHOME
        and entry.unique_id.upper() in addresses
        for entry in entries
    )


def own_device_identifier(entry_id: str, configuration: str) -> tuple[str, str]:
    """Return what tells the device that we make for a configuration from others."""
    return DOMAIN, f"{entry_id}_{configuration}"


@callback
def async_own_device(
    hass: HomeAssistant, entry_id: str, configuration: str
) -> dr.DeviceEntry | None:
    """Return the device that we have made for a configuration, if there is one."""
    return dr.async_get(hass).async_get_device_by_identifier(
        own_device_identifier(entry_id, configuration), entry_id
    )


def _runtime(entry: ConfigEntry) -> RuntimeEntryData | None:
    """Return what the integration holds of a device while its entry is loaded.

    Nobody has promised that: where it is something else, it is as if there was none,
    and what the registry says of the device has to do.
    """
    if entry.state is not ConfigEntryState.LOADED:
        return None
    runtime = getattr(entry, "runtime_data", None)
    return runtime if all(hasattr(runtime, name) for name in _USED) else None


def _address(host: str | None) -> str | None:
    """Return where a device is, if that is an address and no name to be looked up."""
    return host if host and is_ip_address(host) else None


def _shared_name(name: str, entry: ConfigEntry) -> str | None:
    """Return the name of the firmware, where the device has added its address to it.

    That is what `name_add_mac_suffix` does.
    """
    address = (entry.unique_id or "").replace(":", "")
    shared, _, suffix = name.rpartition("-")
    return shared if suffix and suffix == address[-6:] else None


def _version(software: str | None) -> str | None:
    """Return the version of ESPHome that is in a device's software."""
    match = _SOFTWARE.match(software or "")
    return match and match[1]


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
