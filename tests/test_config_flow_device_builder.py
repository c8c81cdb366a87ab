"""Adding and changing an ESPHome Device Builder, as a user does it."""

import asyncio
from collections.abc import AsyncGenerator
from ipaddress import ip_address
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    get_schema_suggested_value,
)

from custom_components.esphome_builds.const import CONF_KIND, DOMAIN
from homeassistant.config_entries import (
    SOURCE_REAUTH,
    SOURCE_USER,
    SOURCE_ZEROCONF,
    ConfigEntryState,
)
from homeassistant.const import CONF_PASSWORD, CONF_URL, CONF_USERNAME
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers.service_info.zeroconf import ZeroconfServiceInfo

from .builds.device_builder.fake_server import (
    GREETING,
    CommandRefusedError,
    Connection,
    FakeServer,
)

LOGIN: Final = {CONF_USERNAME: "anna", CONF_PASSWORD: "correct horse"}

type Flow = Any


@pytest.fixture(autouse=True)
def use_sockets(socket_enabled: None) -> None:
    """Let the tests talk to a server of their own."""


@pytest.fixture
async def server() -> AsyncGenerator[FakeServer]:
    """Return a server that wants no login."""
    server = await FakeServer().start()
    yield server
    await server.stop()


@pytest.fixture
def locked(server: FakeServer) -> FakeServer:
    """Return a server that knows one user."""

    async def _login(_: Connection, __: str, arguments: dict[str, Any]) -> object:
        if arguments != {"username": "anna", "password": LOGIN[CONF_PASSWORD]}:
            raise CommandRefusedError("not_authenticated", "Invalid credentials")
        return {"token": "token", "expires_at": "2026-12-24T12:00:00+00:00"}

    server.greeting = GREETING | {"requires_auth": True}
    server.handlers["auth/login"] = _login
    return server


def entry_of(server: FakeServer, **login: str) -> MockConfigEntry:
    """Return the entry of a server."""
    return MockConfigEntry(
        domain=DOMAIN,
        title="cellar",
        unique_id=server.url,
        data={CONF_KIND: "device_builder", CONF_URL: server.url, **login},
    )


async def async_start(hass: HomeAssistant) -> Flow:
    """Return the form of a server, chosen from the menu."""
    menu = await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": SOURCE_USER}
    )
    form = await hass.config_entries.flow.async_configure(
        menu["flow_id"], {"next_step_id": "device_builder"}
    )
    assert (form["type"], form["step_id"]) == (FlowResultType.FORM, "device_builder")
    return form


async def async_submit(hass: HomeAssistant, flow: Flow, **answer: str) -> Flow:
    """Fill the form in, and let the builder be loaded if that was all."""
    result = await hass.config_entries.flow.async_configure(flow["flow_id"], answer)
    await hass.async_block_till_done()
    return result


async def test_server_without_login(hass: HomeAssistant, server: FakeServer) -> None:
    """A host and a port are enough; the builder is called what the server is."""
    form = await async_start(hass)

    done = await async_submit(hass, form, url=f"127.0.0.1:{server.port}")

    assert done["type"] is FlowResultType.CREATE_ENTRY
    assert done["title"] == "fake"
    assert done["data"] == {CONF_KIND: "device_builder", CONF_URL: server.url}
    assert done["result"].unique_id == server.url
    await hass.async_block_till_done()
    assert done["result"].state is ConfigEntryState.LOADED
    assert done["result"].supports_options


async def test_server_with_login(hass: HomeAssistant, locked: FakeServer) -> None:
    """What was wrong can be put right in the same form."""
    form = await async_start(hass)
    for wrong in ({}, LOGIN | {CONF_PASSWORD: "battery staple"}):
        form = await async_submit(hass, form, url=locked.url, **wrong)
        assert form["errors"] == {"base": "invalid_auth"}

    done = await async_submit(hass, form, url=locked.url, **LOGIN)

    assert done["type"] is FlowResultType.CREATE_ENTRY
    assert done["data"] == {CONF_KIND: "device_builder", CONF_URL: locked.url, **LOGIN}


@pytest.mark.parametrize("url", ["", "ftp://host", "http://a:b@host", "http://"])
async def test_no_address(hass: HomeAssistant, url: str) -> None:
    """What cannot be the address of a server is said at its field."""
    form = await async_submit(hass, await async_start(hass), url=url)

    assert form["errors"] == {CONF_URL: "invalid_url"}


async def test_nobody_there(hass: HomeAssistant, server: FakeServer) -> None:
    """A server that cannot be reached can be tried again."""
    await server.stop()
    form = await async_submit(hass, await async_start(hass), url=server.url)
    assert form["errors"] == {"base": "cannot_connect"}

    await server.start()
    done = await async_submit(hass, form, url=server.url)
    assert done["type"] is FlowResultType.CREATE_ENTRY


async def test_old_server(hass: HomeAssistant, server: FakeServer) -> None:
    """One that is too old is told apart from one that is not there."""
    server.greeting = GREETING | {"server_version": "1.2.0"}

    form = await async_submit(hass, await async_start(hass), url=server.url)

    assert form["errors"] == {"base": "unsupported_version"}


async def test_server_twice(hass: HomeAssistant, server: FakeServer) -> None:
    """A server is one builder."""
    entry_of(server).add_to_hass(hass)

    done = await async_submit(hass, await async_start(hass), url=server.url)

    assert (done["type"], done["reason"]) == (
        FlowResultType.ABORT,
        "already_configured",
    )


def found(server: FakeServer) -> ZeroconfServiceInfo:
    """Return what the network tells of a server."""
    return ZeroconfServiceInfo(
        ip_address=ip_address("127.0.0.1"),
        ip_addresses=[ip_address("127.0.0.1")],
        port=server.port,
        hostname="cellar.local.",
        type="_esphomebuilder._tcp.local.",
        name="cellar._esphomebuilder._tcp.local.",
        properties={"server_version": "1.26.0"},
    )


async def async_find(hass: HomeAssistant, server: FakeServer) -> Flow:
    """Return what comes of a server that is found in the network."""
    return await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": SOURCE_ZEROCONF}, data=found(server)
    )


@pytest.mark.parametrize("known", [True, False])
async def test_known_to_esphome(
    hass: HomeAssistant, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """The server that the ESPHome integration knows is filled in.

    That integration needs much that is not installed here, so a module is in its place.
    """
    url = "http://esphome.local:6052"
    dashboard = ModuleType("homeassistant.components.esphome.dashboard")
    found = SimpleNamespace(url=url) if known else None
    dashboard.async_get_dashboard = lambda _: found  # type: ignore[attr-defined]
    for module in (ModuleType("homeassistant.components.esphome"), dashboard):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    hass.config.components.add("esphome")

    form = await async_start(hass)

    suggested = get_schema_suggested_value(form["data_schema"].schema, CONF_URL)
    assert suggested == (url if known else None)


async def test_found(hass: HomeAssistant, server: FakeServer) -> None:
    """A server in the network is offered under its name, once."""
    form = await async_find(hass, server)
    assert form["step_id"] == "device_builder"
    assert (
        get_schema_suggested_value(form["data_schema"].schema, CONF_URL) == server.url
    )
    (flow,) = hass.config_entries.flow.async_progress()
    assert flow["context"]["title_placeholders"] == {"name": "fake"}

    done = await async_submit(hass, form, url=server.url)
    assert done["type"] is FlowResultType.CREATE_ENTRY

    again = await async_find(hass, server)
    assert again["reason"] == "already_configured"


async def test_found_with_login(hass: HomeAssistant, locked: FakeServer) -> None:
    """One that wants a login is offered under the name that the network has for it."""
    form = await async_find(hass, locked)
    (flow,) = hass.config_entries.flow.async_progress()
    assert flow["context"]["title_placeholders"] == {"name": "cellar"}

    done = await async_submit(hass, form, url=locked.url, **LOGIN)
    assert done["data"][CONF_USERNAME] == "anna"


async def test_found_by_its_name(hass: HomeAssistant, server: FakeServer) -> None:
    """One that was added by its name is not offered by its address."""
    url = f"http://cellar.local:{server.port}"
    MockConfigEntry(
        domain=DOMAIN, data={CONF_KIND: "device_builder", CONF_URL: url}
    ).add_to_hass(hass)

    assert (await async_find(hass, server))["reason"] == "already_configured"


async def test_found_and_gone(hass: HomeAssistant, server: FakeServer) -> None:
    """Nothing is offered that cannot be used."""
    server.greeting = GREETING | {"server_version": "1.2.0"}
    assert (await async_find(hass, server))["reason"] == "unsupported_version"

    await server.stop()
    assert (await async_find(hass, server))["reason"] == "cannot_connect"


async def test_login_that_is_not_valid_any_more(
    hass: HomeAssistant, locked: FakeServer
) -> None:
    """The user is asked again, and the builder works again."""
    entry = entry_of(locked, username="anna", password="old")
    entry.add_to_hass(hass)
    await hass.config_entries.async_setup(entry.entry_id)
    async with asyncio.timeout(10):
        while not (flows := hass.config_entries.flow.async_progress()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    (flow,) = flows
    assert flow["context"]["source"] == SOURCE_REAUTH
    form: Flow = await hass.config_entries.flow.async_configure(flow["flow_id"])
    assert form["step_id"] == "reauth_confirm"
    assert form["description_placeholders"]["url"] == locked.url
    form = await async_submit(hass, form, username="anna", password="older")
    assert form["errors"] == {"base": "invalid_auth"}

    done = await async_submit(hass, form, **LOGIN)

    assert done["reason"] == "reauth_successful"
    assert entry.data[CONF_PASSWORD] == LOGIN[CONF_PASSWORD]
    await hass.async_block_till_done()
    async with asyncio.timeout(10):
        while entry.runtime_data.builder.info.state != "ready":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_reconfigure(hass: HomeAssistant, locked: FakeServer) -> None:
    """The password is not shown, and stays where none is given."""
    entry = entry_of(locked, **LOGIN)
    entry.add_to_hass(hass)
    form: Flow = await entry.start_reconfigure_flow(hass)
    assert form["step_id"] == "device_builder"
    schema = form["data_schema"].schema
    assert get_schema_suggested_value(schema, CONF_USERNAME) == "anna"
    assert get_schema_suggested_value(schema, CONF_PASSWORD) is None

    # It has moved.
    await locked.stop()
    locked.port = 0
    await locked.start()
    done = await async_submit(hass, form, url=locked.url, username="anna")

    assert done["reason"] == "reconfigure_successful"
    assert entry.data == {CONF_KIND: "device_builder", CONF_URL: locked.url, **LOGIN}
    assert entry.unique_id == locked.url
    assert entry.title == "cellar"


async def test_reconfigure_to_a_server_that_is_there(
    hass: HomeAssistant, server: FakeServer
) -> None:
    """Two builders cannot become one."""
    entry_of(server).add_to_hass(hass)
    other = MockConfigEntry(
        domain=DOMAIN,
        unique_id="http://other:6052",
        data={CONF_KIND: "device_builder", CONF_URL: "http://other:6052"},
    )
    other.add_to_hass(hass)

    done = await async_submit(
        hass, await other.start_reconfigure_flow(hass), url=server.url
    )

    assert done["reason"] == "already_configured"
    assert other.data[CONF_URL] == "http://other:6052"
