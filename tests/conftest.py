"""A Home Assistant with its own folder, a fake ESPHome and examples to build."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
import shutil

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.esphome_builds.const import (
    CONF_CONFIG_DIR,
    CONF_ESPHOME,
    CONF_KIND,
    DOMAIN,
)
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component

from .clients import Client
from .fakes import FAKE_VERSION, install_fake
from .helpers import VERSION, async_until_state

type Connect = Callable[..., Awaitable[Client]]

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def find_this_integration(request: pytest.FixtureRequest) -> None:
    """Let Home Assistant find this integration, where there is a Home Assistant."""
    # The recorder has to come first where both are wanted.
    if "recorder_mock" in request.fixturenames:
        request.getfixturevalue("recorder_mock")
    if "hass" in request.fixturenames:
        request.getfixturevalue("enable_custom_integrations")


@pytest.fixture
def hass_config_dir(tmp_path: Path) -> str:
    """Give each Home Assistant a folder of its own, with its cache in it."""
    folder = tmp_path / "hass"
    folder.mkdir()
    return str(folder)


@pytest.fixture
def config_dir(hass_config_dir: str) -> Path:
    """Return a folder with the examples, which the fake builds without a flaw."""
    folder = Path(hass_config_dir) / "esphome"
    folder.mkdir()
    for example in EXAMPLES.glob("*.yaml"):
        shutil.copy(example, folder)
    return folder


@pytest.fixture
def esphome(tmp_path: Path) -> Path:
    """Return an executable that stands in for ESPHome."""
    return install_fake(tmp_path)


@pytest.fixture
def entry(hass: HomeAssistant, config_dir: Path, esphome: Path) -> MockConfigEntry:
    """Return the entry of a local builder, which is not set up."""
    entry = MockConfigEntry(
        domain=DOMAIN,
        title="esphome",
        unique_id=str(config_dir),
        data={
            CONF_KIND: "local",
            CONF_CONFIG_DIR: str(config_dir),
            CONF_ESPHOME: str(esphome),
        },
    )
    entry.add_to_hass(hass)
    return entry


@pytest.fixture
async def builder(hass: HomeAssistant, entry: MockConfigEntry) -> MockConfigEntry:
    """Return the entry of a local builder that is ready."""
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    return entry


@pytest.fixture
async def connect(
    hass: HomeAssistant,
    hass_client_no_auth: ClientSessionGenerator,
    hass_access_token: str,
) -> AsyncGenerator[Connect]:
    """Return what opens websocket connections, an administrator's unless told."""
    async with AsyncExitStack() as stack:

        async def _connect(
            token: str = hass_access_token,
            *,
            coalesce: bool = False,
            compress: bool = False,
        ) -> Client:
            assert await async_setup_component(hass, DOMAIN, {})
            http = await hass_client_no_auth()
            socket = await http.ws_connect(
                "/api/websocket", compress=15 if compress else 0, max_msg_size=0
            )
            client = Client(socket)
            stack.push_async_callback(client.close)
            await client.authenticate(token, coalesce=coalesce)
            return client

        yield _connect


@pytest.fixture
async def client(builder: MockConfigEntry, connect: Connect) -> Client:
    """Return a websocket connection of an administrator, with a builder there."""
    return await connect()
