"""One connection: its beginning, its bounds, and what it never tells."""

import asyncio
from typing import Any

from aiohttp import ClientSession
import pytest

from custom_components.esphome_builds.builds.device_builder import (
    client as client_module,
)
from custom_components.esphome_builds.builds.device_builder.client import (
    Credentials,
    connect,
    probe,
    server_url,
)
from custom_components.esphome_builds.builds.device_builder.errors import (
    CannotConnectError,
    CommandError,
    InvalidAuthError,
    ProtocolError,
    TooMuchError,
    UnsupportedVersionError,
)

from .fake_server import GREETING, CommandRefusedError, Connection, FakeServer

NOBODY = Credentials()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("kitchen", "http://kitchen:6052"),
        (" kitchen.local ", "http://kitchen.local:6052"),
        ("a.local:80", "http://a.local:80"),
        ("[::1]", "http://[::1]:6052"),
        ("http://kitchen", "http://kitchen"),
        ("https://kitchen/builder/", "https://kitchen/builder"),
        ("https://kitchen:8443", "https://kitchen:8443"),
    ],
)
def test_url(text: str, url: str) -> None:
    """A plain host gets scheme and port; what is there stays."""
    assert server_url(text) == url
    assert server_url(url) == url


@pytest.mark.parametrize(
    "text",
    ["", "http://", "ftp://kitchen", "http://a:b@kitchen", "kitchen?a", "a:port"],
)
def test_no_url(text: str) -> None:
    """What is no address, or more than one, is refused."""
    with pytest.raises(ValueError, match=r"."):
        server_url(text)


def test_credentials_are_not_shown() -> None:
    """Neither name nor password is in what is shown of them."""
    credentials = Credentials(username="user", password="hunter2")
    assert "user" not in repr(credentials)
    assert "hunter2" not in repr(credentials)


async def test_probe(server: FakeServer, session: ClientSession) -> None:
    """A server says what it is."""
    info = await probe(server.url, None, None, session)
    assert info.server_version == "1.26.0"
    assert info.esphome_version == "2026.10.0"
    assert info.friendly_name == "fake"


async def test_probe_with_login(server: FakeServer, session: ClientSession) -> None:
    """The name is told to those who are known from the beginning."""

    async def _greet(connection: Connection) -> None:
        known = "Authorization" in server.headers[-1]
        await connection.ws.send_json(
            GREETING
            | {"requires_auth": not known, "friendly_name": "fake" if known else ""}
        )

    async def _login(_: Connection, __: str, arguments: dict[str, Any]) -> object:
        if arguments != {"username": "user", "password": "hunter2"}:
            raise CommandRefusedError("not_authenticated", "Invalid credentials")
        return {"token": "secret"}

    server.greeting = _greet
    server.handlers["auth/login"] = _login
    info = await probe(server.url, "user", "hunter2", session)
    assert info.friendly_name == "fake"
    assert server.headers[-1]["Authorization"] == "Bearer secret"
    with pytest.raises(InvalidAuthError) as error:
        await probe(server.url, "user", "other", session)
    assert "other" not in str(error.value)


async def test_locked_out(server: FakeServer, session: ClientSession) -> None:
    """Too many wrong passwords are no wrong password."""

    async def _login(*_: object) -> object:
        raise CommandRefusedError("rate_limited", "try again in 300s")

    server.greeting = GREETING | {"requires_auth": True}
    server.handlers["auth/login"] = _login
    with pytest.raises(CannotConnectError, match="300s"):
        await probe(server.url, "user", "hunter2", session)


@pytest.mark.parametrize("version", ["1.13.9", "1.0.0", "0.9"])
async def test_too_old(
    server: FakeServer, session: ClientSession, version: str
) -> None:
    """A server that is too old is told so in plain words."""
    server.greeting = GREETING | {"server_version": version}
    with pytest.raises(UnsupportedVersionError, match=r"1\.14 or newer"):
        await probe(server.url, None, None, session)


@pytest.mark.parametrize("version", ["1.14.0", "1.27.0b1", "2.0.0", "dev"])
async def test_new_enough(
    server: FakeServer, session: ClientSession, version: str
) -> None:
    """Newer servers are, and unknown ones may be."""
    server.greeting = GREETING | {"server_version": version, "new": [1]}
    assert (await probe(server.url, None, None, session)).server_version == version


@pytest.mark.parametrize(
    "greeting",
    ["rubbish", "[]", "{}", '{"server_version": 1}', '{"server_version": ""}'],
)
async def test_no_greeting(
    server: FakeServer, session: ClientSession, greeting: str
) -> None:
    """Something else that answers there is no Device Builder."""
    server.greeting = greeting
    with pytest.raises(ProtocolError):
        await probe(server.url, None, None, session)


async def test_silence(
    server: FakeServer, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What says nothing is not waited for, before or after the greeting."""
    monkeypatch.setattr(client_module, "CONNECT_SECONDS", 0.2)

    async def _slow(_: object) -> None:
        await asyncio.sleep(0.4)

    async def _silent(*_: object) -> object:
        return await asyncio.Event().wait()

    server.greeting = _slow
    with pytest.raises(CannotConnectError):
        await probe(server.url, None, None, session)
    await asyncio.sleep(0.4)
    server.greeting = GREETING
    server.handlers["ping"] = _silent
    client = await connect(server.url, NOBODY, session)
    with pytest.raises(CannotConnectError):
        await client.command("ping", seconds=0.2)
    assert client.error is not None
    with pytest.raises(CannotConnectError):
        await client.command("ping")
    await client.close()


async def test_closed_at_once(server: FakeServer, session: ClientSession) -> None:
    """A connection that ends before it began is none."""

    async def _close(connection: Connection) -> None:
        await connection.ws.close()

    server.greeting = _close
    with pytest.raises(ProtocolError):
        await probe(server.url, None, None, session)


async def test_nobody_there(server: FakeServer, session: ClientSession) -> None:
    """Where nothing listens, or something else, there is a sentence for it."""
    with pytest.raises(CannotConnectError, match="404"):
        await probe(f"{server.url}/other", None, None, session)
    await server.stop()
    with pytest.raises(CannotConnectError):
        await probe(server.url, None, None, session)


async def test_refused_command(server: FakeServer, session: ClientSession) -> None:
    """A refusal ends a command and not the connection."""
    client = await connect(server.url, NOBODY, session)
    with pytest.raises(CommandError) as error:
        await client.command("nonsense")
    assert error.value.code == "unknown_command"
    assert await client.command("ping") == {"pong": True}
    await client.close()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("rubbish", ProtocolError),
        ("[1]", ProtocolError),
        ('{"message_id": 5}', ProtocolError),
        ('{"message_id": "1", "event": {}}', ProtocolError),
        ('{"message_id": "1", "error_code": []}', ProtocolError),
        ('"' + "x" * (client_module.MAX_MESSAGE_BYTES + 1) + '"', TooMuchError),
    ],
    ids=["rubbish", "list", "number", "event", "code", "huge"],
)
async def test_rubbish(
    server: FakeServer, session: ClientSession, text: str, error: type[Exception]
) -> None:
    """Whoever waits learns that the server makes no sense."""

    async def _rubbish(connection: Connection, *_: object) -> object:
        await connection.ws.send_str(text)
        return await asyncio.Event().wait()

    server.handlers["ping"] = _rubbish
    client = await connect(server.url, NOBODY, session)
    with pytest.raises(error):
        await client.command("ping")
    await client.close()


@pytest.mark.parametrize(
    "text", ["{}", '{"message_id": "77", "result": 1}', '{"message_id": ""}']
)
async def test_what_belongs_to_nothing(
    server: FakeServer, session: ClientSession, text: str
) -> None:
    """A message that nobody waits for is ignored."""

    async def _more(connection: Connection, *_: object) -> object:
        await connection.ws.send_str(text)
        return "answer"

    server.handlers["ping"] = _more
    client = await connect(server.url, NOBODY, session)
    assert await client.command("ping") == "answer"
    await client.close()


async def test_stream_is_stopped(server: FakeServer, session: ClientSession) -> None:
    """Who leaves a stream tells the server."""
    client = await connect(server.url, NOBODY, session)
    events: list[str] = []
    async with client.stream(
        "firmware/follow_jobs", lambda event, _: events.append(event)
    ):
        assert await client.command("ping")
        await server.connection.tell("job_new_in_2030", {})
        assert await client.command("ping")
    assert await client.command("ping")
    assert events == ["job_new_in_2030"]
    assert ("devices/stop_stream", {"stream_id": "1"}) in server.asked
    await client.close()


async def test_end_of_the_server(server: FakeServer, session: ClientSession) -> None:
    """A server that goes says so, and all that waits ends."""

    async def _go(connection: Connection, *_: object) -> object:
        await connection.ws.close(code=1001)
        return None

    server.handlers["ping"] = _go
    client = await connect(server.url, NOBODY, session)
    with pytest.raises(CannotConnectError):
        await client.command("ping")
    assert client.shut_down
    await client.close()


async def test_message_too_large_for_the_server_too(
    server: FakeServer, session: ClientSession
) -> None:
    """A server that ends the connection for its size says why."""

    async def _refuse(connection: Connection, *_: object) -> object:
        await connection.ws.close(code=1009)
        return None

    server.handlers["ping"] = _refuse
    client = await connect(server.url, NOBODY, session)
    with pytest.raises(TooMuchError):
        await client.command("ping")
    await client.close()


async def test_broken_frame(server: FakeServer, session: ClientSession) -> None:
    """What is no frame of the protocol ends the connection."""

    async def _break(connection: Connection, *_: object) -> object:
        transport = connection.ws._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.write(b"\xff\xff\xff\xff")
        return await asyncio.Event().wait()

    server.handlers["ping"] = _break
    client = await connect(server.url, NOBODY, session)
    with pytest.raises(CannotConnectError, match="broke"):
        await client.command("ping")
    await client.close()


async def test_fault_of_ours(server: FakeServer, session: ClientSession) -> None:
    """Whoever takes events and fails ends the connection, and nothing hangs."""

    def _fail(_: str, __: object) -> None:
        raise LookupError

    client = await connect(server.url, NOBODY, session)
    async with client.stream("firmware/follow_jobs", _fail) as answer:
        assert await client.command("ping")
        await server.connection.tell("job_queued", {})
        with pytest.raises(ProtocolError, match="LookupError"):
            await answer
    await client.close()


async def test_send_that_fails(
    server: FakeServer, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that takes nothing more is none, before any reader knows."""
    client = await connect(server.url, NOBODY, session)

    async def _fail(_: str) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(client._ws, "send_str", _fail)
    with pytest.raises(CannotConnectError):
        await client.command("ping")
    assert client.error is not None
    await client.close()


@pytest.mark.parametrize(
    ("hangs", "why"), [(True, "does not answer"), (False, "is no connection")]
)
async def test_no_handshake(
    session: ClientSession, monkeypatch: pytest.MonkeyPatch, hangs: bool, why: str
) -> None:
    """What accepts a connection and says nothing is told in words."""
    monkeypatch.setattr(client_module, "CONNECT_SECONDS", 0.2)
    over = asyncio.Event()

    async def _accept(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if hangs:
            await over.wait()
        writer.close()

    listener = await asyncio.start_server(_accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(CannotConnectError, match=why):
        await probe(f"http://127.0.0.1:{port}", None, None, session)
    over.set()
    listener.close()
    await listener.wait_closed()
