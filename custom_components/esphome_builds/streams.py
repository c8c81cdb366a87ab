"""Sending streams over websocket connections without harming the connection.

Home Assistant queues what is sent, without back-pressure, and cuts the whole connection
when 4,096 messages wait. So the streams of a connection send one after another, only
while the client reads (its transport's buffer is nearly empty) and only as fast as Home
Assistant can compress and write. What has to wait, waits in the stream's bounded queue.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from homeassistant.components.websocket_api import ActiveConnection
from homeassistant.components.websocket_api.messages import construct_event_message
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.http import current_request
from homeassistant.util.hass_dict import HassKey

from .builds.models import OverflowEvent
from .builds.stream import Budget
from .const import DOMAIN, LOGGER

MAX_STREAMS: Final = 32
"""On one connection."""

ERR_OVERFLOW: Final = "overflow"
ERR_TOO_MANY_SUBSCRIPTIONS: Final = "too_many_subscriptions"

_BUFFER_BYTES: Final = 64 * 1024
_BURST_SECONDS: Final = 0.05
_BYTES_PER_SECOND: Final = 8 * 1024 * 1024
# What a message costs beside its payload, so that many small ones are limited as well.
_MESSAGE_BYTES: Final = 2 * 1024
_POLL_SECONDS: Final = 0.05


class Payload(Protocol):
    """An event that has its JSON ready."""

    @property
    def json(self) -> bytes:
        """Return the event as a JSON object."""
        ...


@dataclass(slots=True)
class _Connection:
    """What all streams of one connection share."""

    transport: asyncio.WriteTransport | None
    budget: Budget = field(default_factory=Budget)
    streams: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    free_at: float = 0.0

    async def async_send(
        self, connection: ActiveConnection, msg_id: int, event: Payload
    ) -> None:
        """Send when what was sent before is on its way and the client reads."""
        async with self.turn:
            # Home Assistant compresses in the executor, message by message. A turn of
            # our own there takes as long on a host that is slow or has much to do.
            await asyncio.to_thread(_pass)
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self.free_at - loop.time() - _BURST_SECONDS))
            while not self._reads:  # noqa: ASYNC110 - nothing tells when it does
                await asyncio.sleep(_POLL_SECONDS)
            payload = event.json
            connection.send_message(construct_event_message(msg_id, payload))
            cost = (len(payload) + _MESSAGE_BYTES) / _BYTES_PER_SECOND
            self.free_at = max(self.free_at, loop.time()) + cost

    @property
    def _reads(self) -> bool:
        """Return whether the client takes what is sent, or is gone for good."""
        return (
            self.transport is None
            or self.transport.is_closing()
            or self.transport.get_write_buffer_size() <= _BUFFER_BYTES
        )


DATA_CONNECTIONS: HassKey[dict[ActiveConnection, _Connection]] = HassKey(
    f"{DOMAIN}_connections"
)


def _pass() -> None:
    """Do nothing."""


@callback
def async_can_stream(
    hass: HomeAssistant, connection: ActiveConnection, msg_id: int
) -> Budget | None:
    """Return the budget of a connection, or answer that it has too many streams."""
    shared = _async_shared(hass, connection)
    if shared.streams < MAX_STREAMS:
        return shared.budget
    connection.send_error(
        msg_id,
        ERR_TOO_MANY_SUBSCRIPTIONS,
        f"A connection can have {MAX_STREAMS} subscriptions to builds",
    )
    return None


@callback
def async_stream(
    hass: HomeAssistant,
    connection: ActiveConnection,
    msg_id: int,
    events: AsyncGenerator[Payload],
) -> None:
    """Send events until they end, overflow, or the client is gone or has enough."""
    shared = _async_shared(hass, connection)
    shared.streams += 1
    hass.data[DATA_CONNECTIONS][connection] = shared
    task = hass.async_create_background_task(
        _async_send_all(hass, connection, msg_id, events),
        f"{DOMAIN} stream {msg_id}",
        eager_start=False,
    )
    task.add_done_callback(lambda _: _async_done(hass, connection))
    connection.subscriptions[msg_id] = task.cancel
    connection.send_result(msg_id)


@callback
def _async_shared(hass: HomeAssistant, connection: ActiveConnection) -> _Connection:
    """Return what a connection's streams share."""
    connections = hass.data.setdefault(DATA_CONNECTIONS, {})
    if (shared := connections.get(connection)) is not None:
        return shared
    # Set while a command of the connection is handled, and copied into our task.
    request = current_request.get()
    transport = None if request is None else request.transport
    if TYPE_CHECKING:
        assert transport is None or isinstance(transport, asyncio.WriteTransport)
    return _Connection(transport)


@callback
def _async_done(hass: HomeAssistant, connection: ActiveConnection) -> None:
    """Forget a connection after its last stream."""
    shared = hass.data[DATA_CONNECTIONS][connection]
    shared.streams -= 1
    if not shared.streams:
        del hass.data[DATA_CONNECTIONS][connection]


async def _async_send_all(
    hass: HomeAssistant,
    connection: ActiveConnection,
    msg_id: int,
    events: AsyncGenerator[Payload],
) -> None:
    """Send each event when there is room for it."""
    shared = hass.data[DATA_CONNECTIONS][connection]
    try:
        async with aclosing(events):
            async for event in events:
                await shared.async_send(connection, msg_id, event)
                if isinstance(event, OverflowEvent):
                    # Clients in JavaScript hear of the event only; others of both.
                    connection.send_error(
                        msg_id,
                        ERR_OVERFLOW,
                        "It cannot go on; please subscribe again",
                    )
    except OSError as err:
        LOGGER.warning("A stream had to end: %s", err)
        reason = f"A log cannot be read: {err.strerror}"
        connection.send_error(msg_id, "builder_unavailable", reason)
    except Exception:  # noqa: BLE001, as websocket_api itself does
        LOGGER.exception("A stream failed")
        connection.send_error(msg_id, "unknown_error", "The stream failed")
    finally:
        connection.subscriptions.pop(msg_id, None)
