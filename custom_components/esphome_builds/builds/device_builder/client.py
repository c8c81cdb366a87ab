"""One connection to a server: greeting, log-in, commands and their streams.

The protocol is that of `esphome_device_builder/api/ws.py`. Nothing that a server sends
is trusted: a message has a largest size and its parts have their types, or else the
connection ends with a `ProtocolError` and whoever used it tries another one. Neither
passwords nor tokens are ever part of a message that is logged or raised.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
import logging
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import (
    ClientError,
    ClientSession,
    ClientWebSocketResponse,
    ClientWSTimeout,
    WSCloseCode,
    WSMsgType,
    WSServerHandshakeError,
)
import orjson

from .errors import (
    CannotConnectError,
    CommandError,
    InvalidAuthError,
    ProtocolError,
    TooMuchError,
)
from .wire import Message, ServerInfo, parse_info, parse_message

_LOGGER = logging.getLogger(__name__)

COMMAND_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 15.0
DEFAULT_PORT: Final = 6052
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What a server that asks for it is told; `repr` shows none of it."""

    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        """Return that there are some, at most."""
        return f"Credentials({'set' if self.username else 'none'})"


def server_url(text: str) -> str:
    """Return the address of a server as it is stored: with scheme and port.

    Raises `ValueError` where the text is no address of a server.
    """
    text = text.strip()
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not the address of a server")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("more than the address of a server")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port
    if port is None and "://" not in text:
        port = DEFAULT_PORT
    where = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{where}{parts.path.rstrip('/')}"


class _Call:
    """A command under way, whose events go to a callback."""

    def __init__(self, on_event: Callable[[str, Any], None] | None) -> None:
        """Wait for the answer."""
        self.on_event = on_event
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class Client:
    """A connection that was greeted and is logged in."""

    def __init__(self, ws: ClientWebSocketResponse, info: ServerInfo) -> None:
        """Use a connection that `connect` made."""
        self.info = info
        self.shut_down = False
        self.token: str | None = None
        self._ws = ws
        self._calls: dict[str, _Call] = {}
        self._ids = count(1)
        self._error: CannotConnectError | None = None
        self._reader = asyncio.create_task(self._read(), name="device builder reader")

    @property
    def error(self) -> CannotConnectError | None:
        """Return why the connection has ended, if it has."""
        return self._error

    async def close(self) -> None:
        """End the connection and everything that waits for it.

        Whoever is canceled while the server has time to answer ends it at once.
        """
        self._reader.cancel()
        try:
            await asyncio.wait([self._reader])
        except asyncio.CancelledError:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            raise
        finally:
            # A reader that never began has closed nothing.
            await self._close_socket()

    async def command(
        self,
        command: str,
        *,
        seconds: float = COMMAND_SECONDS,
        **arguments: Any,  # noqa: ANN401 - whatever JSON can say
    ) -> Any:  # noqa: ANN401 - as above
        """Return the answer to a command.

        Raises `CommandError` where the server refuses, and `CannotConnectError` where
        no answer comes: then the connection is of no use any more.
        """
        async with self.stream(command, None, **arguments) as call:
            try:
                async with asyncio.timeout(seconds):
                    return await call
            except TimeoutError as err:
                self._fail(CannotConnectError("The server does not answer any more."))
                raise CannotConnectError("The server did not answer.") from err

    @asynccontextmanager
    async def stream(
        self,
        command: str,
        on_event: Callable[[str, Any], None] | None,
        **arguments: Any,  # noqa: ANN401 - whatever JSON can say
    ) -> AsyncGenerator[asyncio.Future[Any]]:
        """Send a command and give its events to the callback, until the block ends.

        What is given to the block is the answer that the server sends at last. When the
        block ends before that, the server is asked to stop.
        """
        if self._error is not None:
            raise self._error
        message_id = str(next(self._ids))
        call = self._calls[message_id] = _Call(on_event)
        try:
            await self._send(message_id, command, arguments)
            yield call.answer
        finally:
            del self._calls[message_id]
            if call.answer.done():
                # Whoever did not want to know need not hear of it later.
                call.answer.cancelled() or call.answer.exception()
            elif on_event is not None and self._error is None:
                with suppress(CannotConnectError):
                    await self._send(
                        str(next(self._ids)),
                        "devices/stop_stream",
                        {"stream_id": message_id},
                    )

    async def log_in(self, credentials: Credentials) -> None:
        """Tell the server who is there; raise `InvalidAuthError` if it refuses."""
        try:
            answer = await self.command(
                "auth/login",
                username=credentials.username or "",
                password=credentials.password or "",
            )
        except CommandError as err:
            if err.code == "not_authenticated":
                raise InvalidAuthError(
                    "The server does not accept the user name and the password."
                ) from None
            raise CannotConnectError(f"The log-in failed: {err}.") from None
        token = answer.get("token") if isinstance(answer, dict) else None
        self.token = token if isinstance(token, str) else None

    async def _send(
        self, message_id: str, command: str, arguments: dict[str, Any]
    ) -> None:
        message = {"message_id": message_id, "command": command, "args": arguments}
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await self._ws.send_str(orjson.dumps(message).decode())
        except (ClientError, OSError, RuntimeError, TimeoutError) as err:
            self._fail(CannotConnectError("The connection broke."))
            raise CannotConnectError("The connection broke.") from err

    def _fail(self, error: CannotConnectError) -> None:
        """End the connection because of an error; the first one counts."""
        if self._error is None:
            self._error = error
            self._reader.cancel()

    async def _read(self) -> None:
        """Take messages until the connection ends, then end all that waits."""
        error: CannotConnectError
        try:
            error = await self._read_all()
        except ProtocolError as err:
            error = err
        except Exception as err:
            _LOGGER.exception("Unexpected error while reading from the server")
            error = ProtocolError(f"Something unexpected came: {type(err).__name__}.")
        except asyncio.CancelledError:
            error = CannotConnectError("The connection was closed.")
        self._error = self._error or error
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(self._error)
        await self._close_socket()

    async def _close_socket(self) -> None:
        with suppress(Exception):
            await self._ws.close()

    async def _read_all(self) -> CannotConnectError:
        while True:
            message = await self._ws.receive()
            match message.type:
                case WSMsgType.TEXT:
                    self._take(message.data)
                case WSMsgType.CLOSE | WSMsgType.CLOSING | WSMsgType.CLOSED:
                    return self._closed()
                case WSMsgType.ERROR:
                    if self._ws.close_code == WSCloseCode.MESSAGE_TOO_BIG:
                        raise TooMuchError("The server sent too much at once.")
                    return CannotConnectError("The connection broke.")

    def _closed(self) -> CannotConnectError:
        if self._ws.close_code == WSCloseCode.GOING_AWAY:
            self.shut_down = True
            return CannotConnectError("The server was stopped.")
        if self._ws.close_code == WSCloseCode.MESSAGE_TOO_BIG:
            return TooMuchError("The server sent too much at once.")
        return CannotConnectError("The connection was closed.")

    def _take(self, text: str) -> None:
        """Give a message to the command that it belongs to."""
        message = parse_message(_json(text))
        if message is None or (call := self._calls.get(message.message_id)) is None:
            return
        if message.event is not None:
            if call.on_event is not None:
                call.on_event(message.event, message.data)
        elif not call.answer.done():
            _answer(call.answer, message)


def _answer(answer: asyncio.Future[Any], message: Message) -> None:
    if message.error_code is None:
        answer.set_result(message.data)
    else:
        answer.set_exception(CommandError(message.error_code, message.data or ""))


def _json(text: str) -> object:
    try:
        data: object = orjson.loads(text)
    except ValueError as err:
        raise ProtocolError("The server sent something that is not JSON.") from err
    return data


async def connect(
    url: str,
    credentials: Credentials,
    session: ClientSession,
    token: str | None = None,
) -> Client:
    """Return a new connection to a server, logged in if that is necessary.

    A token of an earlier connection is tried first. Whoever uses the connection has to
    ask something again and again, to know that it is still one.

    Raises `CannotConnectError`, `InvalidAuthError` or `UnsupportedVersionError`.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            ws = await session.ws_connect(
                f"{url}/ws",
                headers=headers,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=ClientWSTimeout(ws_close=2.0),
            )
    except WSServerHandshakeError as err:
        raise CannotConnectError(
            f"No Device Builder answers there (status {err.status})."
        ) from None
    except (ClientError, OSError, TimeoutError, ValueError) as err:
        raise CannotConnectError(_why(err)) from None
    try:
        return await _greet(ws, credentials, token)
    except BaseException:
        with suppress(Exception):
            await ws.close()
        raise


async def _greet(
    ws: ClientWebSocketResponse, credentials: Credentials, token: str | None
) -> Client:
    """Hear what the server is, and log in."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            message = await ws.receive()
    except TimeoutError:
        raise CannotConnectError("The server does not say what it is.") from None
    if message.type is not WSMsgType.TEXT:
        raise ProtocolError("What answers there is not ESPHome Device Builder.")
    info = parse_info(_json(message.data))
    info.check()
    client = Client(ws, info)
    client.token = token
    if info.requires_auth:
        try:
            await client.log_in(credentials)
        except BaseException:
            await client.close()
            raise
    return client


async def probe(
    url: str, username: str | None, password: str | None, session: ClientSession
) -> ServerInfo:
    """Return what a server is, after a log-in if it wants one.

    Raises `CannotConnectError`, `InvalidAuthError` or `UnsupportedVersionError`.
    """
    credentials = Credentials(username=username, password=password)
    client = await connect(url, credentials, session)
    await client.close()
    if client.info.friendly_name is None and client.token is not None:
        # The name is told only to those who are known from the beginning.
        client = await connect(url, credentials, session, client.token)
        await client.close()
    return client.info


def _why(err: BaseException) -> str:
    """Return in words why there is no connection."""
    if isinstance(err, TimeoutError):
        return "It does not answer."
    if isinstance(err, OSError) and err.strerror:
        return f"{err.strerror}."
    return "There is no connection."
