"""Looks into a running Home Assistant for tests that only see it from outside."""

import asyncio
import gc
from typing import Any

import voluptuous as vol

from homeassistant.components import websocket_api
from homeassistant.components.websocket_api.http import WebSocketHandler
from homeassistant.core import HomeAssistant
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

    WebSocketHandler._send_message = _send_message  # type: ignore[method-assign]
    hass.async_create_background_task(_watch(), "probe")
    websocket_api.async_register_command(hass, _peaks)
    return True
