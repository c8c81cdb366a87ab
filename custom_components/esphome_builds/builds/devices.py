"""What is known of the devices that firmware is for, by whoever talks to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

DEVICE_WAIT_SECONDS: Final = 24 * 60 * 60.0
"""For so long an upload waits for a device that is off, if nobody says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device as it is at one moment. What is not known is None.

    `version` is that of the ESPHome it runs. `built_at` is when its firmware was built,
    in the words of the build itself (`build_time_str` of `build_info.json`), so it
    tells one build from another. `connections` is how often it has connected up to now:
    where that is another number, it was away meanwhile. `address` is an IP address that
    it was reached at.
    """

    device_id: str
    address: str | None = None
    online: bool | None = None
    sleeps: bool = False
    version: str | None = None
    built_at: str | None = None
    connections: int = 0


class Devices(Protocol):
    """The devices there are. All of it must be called from the event loop."""

    def get(self, name: str) -> Device | None:
        """Return the device that calls itself so, None if it is not known."""
        ...

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call the listener with each name whose device came, went or changed.

        That is until the result is called.
        """
        ...


class NoDevices:
    """Nobody knows of any device."""

    def get(self, name: str) -> Device | None:  # noqa: ARG002 - the protocol has it
        """Return None."""
        return None

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:  # noqa: ARG002 - same
        """Never call the listener."""
        return lambda: None
