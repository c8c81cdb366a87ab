"""Looks into a running Home Assistant for tests that only see it from outside."""

import asyncio
import ctypes
import gc
from pathlib import Path
import sys
from typing import Any

import voluptuous as vol

from homeassistant.components import websocket_api
from homeassistant.components.websocket_api.const import DATA_CONNECTIONS
from homeassistant.components.websocket_api.http import WebSocketHandler
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.dispatcher import DATA_DISPATCHER
from homeassistant.helpers.typing import ConfigType

TICK_SECONDS = 0.005


class Peaks:
    """The worst that was seen since it was asked for last."""

    pending = 0
    held = 0.0


async def async_setup(hass: HomeAssistant, config: ConfigType) -> bool:
    """Watch the event loop and what waits in front of websocket connections."""
    peaks = Peaks()
    send_message = WebSocketHandler._send_message

    def _send_message(
        self: WebSocketHandler, message: str | bytes | dict[str, Any]
    ) -> None:
        send_message(self, message)
        if self._message_queue:
            peaks.pending = max(peaks.pending, len(self._message_queue))

    async def _watch() -> None:
        before = hass.loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = hass.loop.time()
            peaks.held = max(peaks.held, now - before - TICK_SECONDS)
            before = now

    @websocket_api.websocket_command(
        {
            vol.Required("type"): "probe/set",
            vol.Required("module"): str,
            vol.Required("name"): str,
            vol.Required("value"): float,
        }
    )
    @callback
    def _set(
        _: HomeAssistant,
        connection: websocket_api.ActiveConnection,
        msg: dict[str, Any],
    ) -> None:
        """Give a number of a module another value, so that no test waits for long."""
        module = sys.modules[msg["module"]]
        assert hasattr(module, msg["name"])
        setattr(module, msg["name"], msg["value"])
        connection.send_result(msg["id"])

    @websocket_api.websocket_command({vol.Required("type"): "probe/peaks"})
    @websocket_api.async_response
    async def _peaks(
        hass: HomeAssistant,
        connection: websocket_api.ActiveConnection,
        msg: dict[str, Any],
    ) -> None:
        """Tell the peaks and forget them."""
        result = {"pending": peaks.pending, "held": peaks.held}
        # To look through Home Assistant's large heap holds the loop for 200 ms. That is
        # done now, so that it does not happen while something is measured.
        gc.collect()
        gc.freeze()
        await asyncio.sleep(2 * TICK_SECONDS)
        peaks.pending, peaks.held = 0, 0.0
        connection.send_result(msg["id"], result)

    @websocket_api.websocket_command({vol.Required("type"): "probe/census"})
    @websocket_api.async_response
    async def _census(
        hass: HomeAssistant,
        connection: websocket_api.ActiveConnection,
        msg: dict[str, Any],
    ) -> None:
        """Tell how much there is of what must not grow."""
        memory = await hass.async_add_executor_job(count_memory)
        connection.send_result(msg["id"], {**count_objects(hass), **memory})

    WebSocketHandler._send_message = _send_message  # type: ignore[method-assign]
    hass.async_create_background_task(_watch(), "probe")
    websocket_api.async_register_command(hass, _peaks)
    websocket_api.async_register_command(hass, _set)
    websocket_api.async_register_command(hass, _census)
    return True


def count_objects(hass: HomeAssistant) -> dict[str, int]:
    """Return how many there are of what tests want to see back where it was."""
    builders = [
        entry.runtime_data.builder
        for entry in hass.config_entries.async_loaded_entries("esphome_builds")
    ]
    listeners = hass.data.get(DATA_DISPATCHER, {})
    connections = hass.data.get("esphome_builds_connections", {})
    return {
        "builder_listeners": sum(len(one._listeners) for one in builders),
        "builders": len(builders),
        "bus_listeners": sum(hass.bus.async_listeners().values()),
        "connections": hass.data[DATA_CONNECTIONS],
        "log_listeners": sum(
            len(log._listeners) for one in builders for log in one._logs._open.values()
        ),
        "signal_listeners": sum(
            len(listeners.get(f"esphome_builds_{signal}", ()))
            for signal in ("builder_event", "builders")
        ),
        "streams": sum(shared.streams for shared in connections.values()),
        "tasks": len(asyncio.all_tasks()),
    }


def count_memory() -> dict[str, int]:
    """Return the open files, objects and bytes of memory of this process; blocking."""
    # What nobody needs any more is no leak, nor what the allocator keeps for later.
    gc.unfreeze()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return {
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "rss": int(status.partition("VmRSS:")[2].split()[0]) * 1024,
    }
