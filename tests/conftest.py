"""A Home Assistant with its own folder, a fake ESPHome and examples to build."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
import re
import shutil
from types import SimpleNamespace
from typing import Final

from aiohttp import ClientSession
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator
from pytest_socket import enable_socket

from custom_components.esphome_builds.builds.device_builder import link
from custom_components.esphome_builds.builds.local import settings, watch
from custom_components.esphome_builds.builds.local.process import TOKEN_VARIABLE
from custom_components.esphome_builds.const import CONF_KIND, DOMAIN
from homeassistant.const import CONF_URL
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component

from .clients import Client
from .contract.peer import Peer, Watcher, servers
from .fakes import FAKE_VERSION, FakeUv, install_fake
from .helpers import (
    STATUS,
    UPDATE,
    VERSION,
    Job,
    ProcessesOf,
    async_act,
    async_until_state,
    local_entry,
    processes_with,
)

type Connect = Callable[..., Awaitable[Client]]

EXAMPLES: Final = Path(__file__).parent.parent / "examples"
KINDS: Final = ("local", "device_builder")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what has a builder over both kinds, unless it says why it cannot."""
    if not {"builder_kind", "entry"} <= set(metafunc.fixturenames):
        return
    kinds: tuple[str, ...] = KINDS
    if mark := metafunc.definition.get_closest_marker("local_only"):
        if [*map(type, mark.args)] != [str] or not mark.args[0] or mark.kwargs:
            where = metafunc.definition.nodeid
            raise pytest.UsageError(f"{where}: local_only needs a reason")
        kinds = KINDS[:1]
    metafunc.parametrize("builder_kind", kinds, indirect=True)


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
def builder_kind(request: pytest.FixtureRequest) -> str:
    """Return which kind of builder a test is about."""
    kind: str = getattr(request, "param", "local")
    return kind


@pytest.fixture(scope="session")
def any_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Peer]:
    """Return a server for all tests, started when the first of them wants it."""
    enable_socket()
    *_, newest = servers().values()
    peer = Peer(tmp_path_factory.mktemp("server"), newest, fake=True)
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture
async def server(request: pytest.FixtureRequest, builder_kind: str) -> Peer | None:
    """Return the server of the builder, if it needs one, with nothing but examples."""
    if builder_kind == "local":
        return None
    request.getfixturevalue("socket_enabled")
    peer: Peer = request.getfixturevalue("any_server")
    async with ClientSession() as session:
        watcher = await Watcher.connect(session, peer)
        for job in await watcher.call("firmware/get_jobs"):
            await watcher.collect("firmware/cancel", job_id=job["job_id"])
        await watcher.call("firmware/clear")
        for path in peer.config_dir.iterdir():
            if path.name.startswith(".") and path.suffix != ".yaml":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        copy_examples(peer.config_dir)
        peer.fake.with_name(f"{peer.fake.name}.calls").unlink(missing_ok=True)
        await watcher.call("devices/list")
        await watcher.close()
    return peer


def copy_examples(folder: Path) -> None:
    """Copy the examples, which the fake builds without a flaw."""
    for example in EXAMPLES.glob("*.yaml"):
        shutil.copy(example, folder)


@pytest.fixture
def config_dir(hass_config_dir: str, server: Peer | None) -> Path:
    """Return the folder of the configurations, with the examples."""
    if server is not None:
        return server.config_dir
    folder = Path(hass_config_dir) / "esphome"
    folder.mkdir()
    copy_examples(folder)
    return folder


@pytest.fixture
def esphome(tmp_path: Path, server: Peer | None) -> Path:
    """Return an executable that stands in for ESPHome."""
    return install_fake(tmp_path) if server is None else server.fake


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A way to let a builder do without what it stands on, and to end that.

    The reason is a pattern of what the builder says meanwhile.
    """

    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]
    reason: str


@pytest.fixture
async def outage(
    hass: HomeAssistant,
    monkeypatch: pytest.MonkeyPatch,
    esphome: Path,
    server: Peer | None,
) -> AsyncGenerator[Outage]:
    """Return what takes ESPHome away from a local builder, or stops the server."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(link, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(link, "LONGEST_SECONDS", 0.3)
    away = esphome.with_name("away")

    async def _begin() -> None:
        if server is not None:
            await hass.async_add_executor_job(server.stop)
        else:
            esphome.rename(away)
            # The end of a job is a reason to look.
            await async_act(hass, "validate", "kettle.yaml")

    async def _end() -> None:
        if server is None:
            away.rename(esphome)
        elif not server.running:
            await hass.async_add_executor_job(server.start)

    yield Outage(
        begin=_begin,
        end=_end,
        reason=re.escape(f"There is no ESPHome executable at {esphome}.")
        if server is None
        else "ESPHome Device Builder cannot be used: .+",
    )
    if server is not None:
        await _end()


@pytest.fixture
def processes_of(builder_kind: str, config_dir: Path) -> ProcessesOf:
    """Return what finds the processes of jobs; a server marks them with nothing."""

    def _processes_of(*jobs: Job) -> set[int]:
        if builder_kind == "local":
            tokens = {f"{TOKEN_VARIABLE}={job['job_id']}" for job in jobs}
            return processes_with("environ", tokens)
        files = {str(config_dir / job["configuration"]) for job in jobs}
        return processes_with("cmdline", files)

    return _processes_of


@pytest.fixture
def entry(
    hass: HomeAssistant, config_dir: Path, esphome: Path, server: Peer | None
) -> MockConfigEntry:
    """Return the entry of a builder, which is not set up."""
    if server is None:
        entry = local_entry("esphome", config_dir, esphome)
    else:
        entry = MockConfigEntry(
            domain=DOMAIN,
            title="esphome",
            unique_id=server.url,
            data={CONF_KIND: "device_builder", CONF_URL: server.url},
        )
    entry.add_to_hass(hass)
    return entry


@pytest.fixture
async def builder(hass: HomeAssistant, entry: MockConfigEntry) -> MockConfigEntry:
    """Return the entry of a builder that is ready."""
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    return entry


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeUv:
    """Return what installs a fake ESPHome instead of a real one."""
    uv = FakeUv(tmp_path)
    python = SimpleNamespace(executable=str(uv.python))
    monkeypatch.setattr(settings, "sys", python)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    return uv


@pytest.fixture
async def managed(hass: HomeAssistant, config_dir: Path, uv: FakeUv) -> MockConfigEntry:
    """Return the entry of a builder that has installed its ESPHome itself."""
    entry = local_entry("esphome", config_dir, "")
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    await async_until_state(hass, STATUS, "idle")
    await async_until_state(hass, UPDATE, "off")
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
