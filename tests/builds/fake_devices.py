"""Devices that come, go and change as a test says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from custom_components.esphome_builds.builds.devices import Device


class FakeDevices:
    """Knows the devices that it is told of, as Home Assistant would."""

    def __init__(self, **online: bool | None) -> None:
        """Know some devices, by their names."""
        self.listeners: list[Callable[[str], None]] = []
        self._devices: dict[str, Device] = {}
        for name, is_online in online.items():
            self.set(name, online=is_online)

    def get(self, name: str) -> Device | None:
        """Return a device, None if it is not known."""
        return self._devices.get(name)

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call the listener with each name that something is different about."""
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def set(self, name: str, **fields: Any) -> None:  # noqa: ANN401 - any field
        """Let something be different about a device."""
        device = self._devices.get(name) or Device(device_id=f"device of {name}")
        self._devices[name] = replace(device, **fields)
        for listener in tuple(self.listeners):
            listener(name)

    def connect(self, name: str, **fields: Any) -> None:  # noqa: ANN401 - same
        """Let a device be there, after it was not."""
        before = self._devices[name].connections
        self.set(name, online=True, connections=before + 1, **fields)
