"""The blueprints, as automations that are made of them run."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
import shutil
from typing import Any, Final

import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    async_fire_time_changed,
    async_mock_service,
)

from custom_components.esphome_builds.builds.models import Event, JobEvent, Phase
from custom_components.esphome_builds.const import DOMAIN, SIGNAL_EVENT
from homeassistant.components.automation.helpers import async_get_blueprints
from homeassistant.components.blueprint.models import Blueprint
from homeassistant.components.persistent_notification import (
    Notification,
    UpdateType,
    async_register_callback,
)
from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core import HomeAssistant, ServiceCall, callback
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util

from .clients import eventually
from .esphome_device import EsphomeDevice
from .fakes import FAKE_VERSION, FakeUv, write_configuration
from .helpers import UPDATE, VERSION, Steps, async_act, async_until, async_until_state

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "blueprints" / "automation" / DOMAIN
BLUEPRINTS: Final = sorted(path.name for path in FOLDER.glob("*.yaml"))
SOURCE: Final = "https://github.com/esphome-builds/esphome-builds/blob/main/blueprints"

LOCAL: Final = pytest.mark.local_only("no blueprint knows of which kind a builder is")
OLD: Final = "2026.9.0"
NAMES: Final = ("greenhouse", "kettle", "night-light", "weather-station")

type Use = Callable[..., Awaitable[None]]


@pytest.fixture
async def use(hass: HomeAssistant) -> AsyncGenerator[Use]:
    """Return what makes an automation of a blueprint."""
    await hass.async_add_executor_job(
        shutil.copytree,
        FOLDER,
        Path(hass.config.path("blueprints", "automation", DOMAIN)),
    )

    async def _use(name: str, **inputs: Any) -> None:  # noqa: ANN401 - YAML
        automation = {
            "id": "mine",
            "alias": "mine",
            "use_blueprint": {"path": f"{DOMAIN}/{name}.yaml", "input": inputs},
        }
        assert await async_setup_component(
            hass, "automation", {"automation": automation}
        )
        await hass.async_block_till_done()
        (state,) = hass.states.async_all("automation")
        assert state.state == "on"

    yield _use
    for state in hass.states.async_all("automation"):
        # It waits for its time.
        await hass.services.async_call(
            "automation", "turn_off", {"entity_id": state.entity_id}, blocking=True
        )


def _telling(*names: str) -> list[dict[str, Any]]:
    """Return actions that tell what the variables are."""
    data = {name: f"{{{{ {name} }}}}" for name in names}
    return [{"action": "test.tell", "data": data}]


@pytest.fixture
def told(hass: HomeAssistant) -> list[ServiceCall]:
    """Return what actions of blueprints tell."""
    return async_mock_service(hass, "test", "tell")


@pytest.fixture
async def notified(hass: HomeAssistant) -> dict[str, tuple[str | None, str]]:
    """Return the notifications that a user sees, by their ids."""
    notified = {}

    @callback
    def _async_on_change(_: UpdateType, changed: dict[str, Notification]) -> None:
        for notification_id, one in changed.items():
            notified[notification_id] = (one["title"], one["message"])

    assert await async_setup_component(hass, "persistent_notification", {})
    async_register_callback(hass, _async_on_change)
    return notified


def _submitted(steps: Steps) -> list[tuple[str, str]]:
    """Return configuration and kind of each job that was made, in order."""
    return [
        (event.data["job"]["configuration"], event.data["job"]["kind"])
        for event in steps.events
        if event.data["type"] == "queued"
    ]


def test_there_are_blueprints() -> None:
    """All that the documents promise are there, and linked."""
    text = (ROOT / "docs" / "automations.md").read_text()

    assert BLUEPRINTS == [
        "new_esphome.yaml",
        "nightly_compile.yaml",
        "nightly_updates.yaml",
        "notify_failed_build.yaml",
    ]
    for name in BLUEPRINTS:
        address = f"{SOURCE}/automation/{DOMAIN}/{name}"
        escaped = address.replace(":", "%3A").replace("/", "%2F")
        assert f"blueprint_import/?blueprint_url={escaped})" in text


@pytest.mark.parametrize("name", BLUEPRINTS)
async def test_a_blueprint_is_complete(
    hass: HomeAssistant, use: Use, name: str
) -> None:
    """Home Assistant loads it; each input has a name, a selector and a default."""
    await use(name.removesuffix(".yaml"))

    blueprint = await async_get_blueprints(hass).async_get_blueprint(f"{DOMAIN}/{name}")

    assert isinstance(blueprint, Blueprint)
    assert blueprint.validate() is None
    metadata = blueprint.metadata
    assert metadata["source_url"] == f"{SOURCE}/automation/{DOMAIN}/{name}"
    assert metadata["homeassistant"] == {"min_version": "2026.10.0"}
    assert metadata["author"] == "ESPHome Builds"
    assert len(metadata["name"]) < 60
    assert metadata["description"].endswith(".")
    for section in metadata["input"].values():
        assert section["name"]
        assert section["icon"].startswith("mdi:")
    for one in blueprint.inputs.values():
        assert one["name"]
        assert one["selector"]
        assert "default" in one


# A build fails


@LOCAL
@pytest.mark.usefixtures("builder")
async def test_a_failure_is_told(
    hass: HomeAssistant,
    config_dir: Path,
    use: Use,
    notified: dict[str, tuple[str | None, str]],
) -> None:
    """With nothing changed, each failure is a notification with its reason."""
    await use("notify_failed_build")
    write_configuration(config_dir, "porch", "exit 1")

    (failed, _) = await async_act(hass, "install", "porch.yaml", wait=True)
    await async_act(hass, "compile", "kettle.yaml", wait=True)
    await hass.async_block_till_done()

    assert notified == {
        "esphome_builds_failed_porch_yaml": (
            "porch.yaml: build failed",
            failed["message"],
        )
    }


@LOCAL
async def test_failures_can_be_chosen(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    use: Use,
    told: list[ServiceCall],
) -> None:
    """Only what is chosen is told, with what actions of one's own need."""
    for name in ("porch", "shed"):
        write_configuration(config_dir, name, "exit 1")
    entity_id = er.async_get(hass).async_get_or_create(
        "event", DOMAIN, f"{builder.entry_id}_porch.yaml_build", config_entry=builder
    )
    await use(
        "notify_failed_build",
        target={"entity_id": entity_id.entity_id},
        kinds=["compile"],
        actions=_telling("name", "kind", "reason", "job"),
    )

    await async_act(hass, "validate", "porch.yaml", wait=True)
    await async_act(hass, "compile", "shed.yaml", wait=True)
    (job,) = await async_act(hass, "compile", "porch.yaml", wait=True)
    await hass.async_block_till_done()

    (call,) = told
    assert call.data["name"] == "porch.yaml"
    assert call.data["kind"] == "build"
    assert call.data["reason"] == job["message"]
    assert call.data["job"]["job_id"] == job["job_id"]


# At night


@pytest.fixture
def start() -> datetime:
    """Return when the night begins, which nobody has to wait for."""
    return dt_util.now().replace(microsecond=0) + timedelta(minutes=1)


@pytest.fixture
async def fleet(
    hass: HomeAssistant, entry: MockConfigEntry
) -> dict[str, EsphomeDevice]:
    """Return devices that are online, run an old version, and take what is sent."""
    fleet = {
        name: EsphomeDevice(hass, name, f"02:eb:00:00:00:0{number}")
        for number, name in enumerate(NAMES)
    }
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    for device in fleet.values():
        device.connect(OLD)
    await async_until(
        hass,
        EVENT_STATE_CHANGED,
        lambda: len(_outdated(hass)) == len(NAMES),
    )
    back: set[str] = set()

    @callback
    def _async_on_event(_: str, event: Event) -> None:
        if isinstance(event, JobEvent) and event.job.phase is Phase.VERIFYING:
            name = event.job.configuration.removesuffix(".yaml")
            if event.job.job_id not in back:
                back.add(event.job.job_id)
                hass.loop.call_soon(_restart, fleet[name])

    stop = async_dispatcher_connect(hass, SIGNAL_EVENT, _async_on_event)
    entry.async_on_unload(stop)
    return fleet


def _restart(device: EsphomeDevice) -> None:
    """Let a device come back with what was sent to it."""
    device.disconnect()
    device.connect(FAKE_VERSION, built_at="")


def _time(moment: datetime) -> str:
    """Return a time of day as inputs have it."""
    return moment.strftime("%H:%M:%S")


def _night(start: datetime) -> dict[str, str]:
    """Return the inputs for a window of two hours."""
    return {"start": _time(start), "end": _time(start + timedelta(hours=2))}


def _outdated(hass: HomeAssistant) -> list[str]:
    """Return the update entities of configurations that have an update."""
    return [
        state.entity_id
        for state in hass.states.async_all("update")
        if state.state == "on" and state.attributes.get("configuration")
    ]


async def _async_until_done(hass: HomeAssistant) -> None:
    """Return when the automation has done all it had to."""
    await async_until(
        hass,
        EVENT_STATE_CHANGED,
        lambda: hass.states.async_all("automation")[0].attributes["current"] == 0,
    )
    await hass.async_block_till_done()


async def _async_run(hass: HomeAssistant, start: datetime) -> None:
    """Let it be the time, and return when the automation has begun."""
    async_fire_time_changed(hass, start + timedelta(seconds=1))
    await async_until(
        hass,
        EVENT_STATE_CHANGED,
        lambda: hass.states.async_all("automation")[0].attributes["last_triggered"],
    )


@LOCAL
async def test_updates_one_after_another(
    hass: HomeAssistant,
    fleet: dict[str, EsphomeDevice],
    start: datetime,
    use: Use,
    notified: dict[str, tuple[str | None, str]],
) -> None:
    """Devices that are online are updated in turn; others, and some, are left."""
    steps = Steps(hass)
    fleet["greenhouse"].disconnect()
    await hass.services.async_call(
        "update",
        "skip",
        {"entity_id": "update.night_light_firmware"},
        blocking=True,
    )
    await use(
        "nightly_updates",
        **_night(start),
        excluded=[fleet["weather-station"].device.id],
    )
    await hass.async_block_till_done()
    fleet["kettle"].connect(OLD)

    await _async_run(hass, start)
    await _async_until_done(hass)

    assert _submitted(steps) == [("kettle.yaml", "compile"), ("kettle.yaml", "upload")]
    assert notified["esphome_builds_updates"] == (
        "ESPHome updates",
        "Updated: Kettle.\nStill to be updated: Greenhouse.",
    )


@LOCAL
async def test_no_two_updates_at_once(
    hass: HomeAssistant,
    fleet: dict[str, EsphomeDevice],
    start: datetime,
    use: Use,
    told: list[ServiceCall],
) -> None:
    """Each device is done before the next one begins; each is done once."""
    steps = Steps(hass)
    await use(
        "nightly_updates",
        **_night(start),
        actions=_telling("installed", "failed", "reason", "left"),
    )

    await _async_run(hass, start)
    await _async_until_done(hass)

    assert _submitted(steps) == [
        (f"{name}.yaml", kind) for name in NAMES for kind in ("compile", "upload")
    ]
    order = [
        (event.data["job"]["configuration"], event.data["type"])
        for event in steps.events
    ]
    # Six steps of the jobs of each.
    assert [name for name, _ in order] == [
        f"{name}.yaml" for name in NAMES for _ in range(6)
    ]
    (call,) = told
    assert call.data == {
        "installed": ["Greenhouse", "Kettle", "Night-Light", "Weather-Station"],
        "failed": "",
        "reason": "",
        "left": [],
    }
    assert _outdated(hass) == []


@LOCAL
async def test_nothing_after_a_failure(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    fleet: dict[str, EsphomeDevice],
    start: datetime,
    config_dir: Path,
    use: Use,
    told: list[ServiceCall],
) -> None:
    """What failed is told with its reason, and nothing else is started."""
    steps = Steps(hass)
    write_configuration(config_dir, "kettle", "exit 1")
    await use(
        "nightly_updates",
        **_night(start),
        actions=_telling("installed", "failed", "reason", "left"),
    )

    await _async_run(hass, start)
    await _async_until_done(hass)

    assert [name for name, _ in _submitted(steps)] == [
        *("greenhouse.yaml", "greenhouse.yaml", "kettle.yaml", "kettle.yaml")
    ]
    (call,) = told
    failed = next(
        event.data["job"] for event in steps.events if event.data["type"] == "failed"
    )
    assert call.data == {
        "installed": ["Greenhouse"],
        "failed": "Kettle",
        "reason": failed["message"],
        "left": ["Night-Light", "Weather-Station"],
    }


@LOCAL
async def test_nothing_after_the_window(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    fleet: dict[str, EsphomeDevice],
    start: datetime,
    config_dir: Path,
    use: Use,
    told: list[ServiceCall],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What runs at the end is finished; a second start meanwhile does nothing."""
    steps = Steps(hass)
    ready, go = config_dir / "ready", config_dir / "go"
    write_configuration(config_dir, "greenhouse", f"mark {ready}", f"wait {go}")
    await use(
        "nightly_updates",
        **_night(start),
        actions=_telling("installed", "left"),
    )
    await _async_run(hass, start)
    await eventually(ready.exists)
    await hass.services.async_call(
        "automation", "trigger", {"entity_id": "automation.mine"}, blocking=True
    )

    later = start + timedelta(hours=2)
    monkeypatch.setattr(dt_util, "now", lambda *_: later)
    go.touch()
    await _async_until_done(hass)

    assert [name for name, _ in _submitted(steps)] == ["greenhouse.yaml"] * 2
    (call,) = told
    assert call.data["installed"] == ["Greenhouse"]
    assert call.data["left"] == ["Kettle", "Night-Light", "Weather-Station"]


@LOCAL
async def test_a_device_that_goes_off_keeps_nobody_waiting(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    fleet: dict[str, EsphomeDevice],
    start: datetime,
    config_dir: Path,
    use: Use,
    told: list[ServiceCall],
) -> None:
    """The others go on after a time; its update goes out when it is back."""
    steps = Steps(hass)
    ready, go = config_dir / "ready", config_dir / "go"
    write_configuration(
        config_dir, "greenhouse", f"compile: mark {ready}", f"compile: wait {go}"
    )
    for name in ("night-light", "weather-station"):
        fleet[name].disconnect()
    await use(
        "nightly_updates",
        **_night(start),
        patience={"seconds": 3},
        actions=_telling("installed", "failed", "left"),
    )

    await _async_run(hass, start)
    await eventually(ready.exists)
    fleet["greenhouse"].disconnect()
    go.touch()
    await _async_until_done(hass)

    assert [name for name, _ in _submitted(steps)] == [
        *("greenhouse.yaml", "greenhouse.yaml", "kettle.yaml", "kettle.yaml")
    ]
    (call,) = told
    assert call.data == {
        "installed": ["Kettle"],
        "failed": "",
        "left": ["Greenhouse", "Night-Light", "Weather-Station"],
    }
    await async_act(hass, "cancel", "greenhouse.yaml")


@LOCAL
async def test_a_builder_that_is_gone_is_told(
    hass: HomeAssistant,
    fleet: dict[str, EsphomeDevice],
    start: datetime,
    use: Use,
    told: list[ServiceCall],
) -> None:
    """Where nothing can be started the night is over, and it is said."""
    await use(
        "nightly_updates",
        **_night(start),
        actions=_telling("installed", "failed", "reason"),
    )
    hass.services.async_remove(DOMAIN, "install")
    async_mock_service(
        hass,
        DOMAIN,
        "install",
        response={"jobs": []},
        raise_exception=ServiceValidationError("There is no such configuration"),
    )

    await _async_run(hass, start)
    await _async_until_done(hass)

    (call,) = told
    assert call.data == {
        "installed": [],
        "failed": "Greenhouse",
        "reason": "It could not be started.",
    }


@LOCAL
async def test_builds_at_night(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    fleet: dict[str, EsphomeDevice],
    start: datetime,
    config_dir: Path,
    use: Use,
    notified: dict[str, tuple[str | None, str]],
) -> None:
    """All that could be installed is built, nothing is sent, and it is told."""
    steps = Steps(hass)
    write_configuration(config_dir, "kettle", "exit 1")
    fleet["night-light"].disconnect()
    await use(
        "nightly_compile",
        start=_time(start),
        excluded=[fleet["weather-station"].device.id],
    )

    await _async_run(hass, start)
    await _async_until_done(hass)

    assert sorted(_submitted(steps)) == [
        ("greenhouse.yaml", "compile"),
        ("kettle.yaml", "compile"),
        ("night-light.yaml", "compile"),
    ]
    failed = next(
        event.data["job"] for event in steps.events if event.data["type"] == "failed"
    )
    title, message = notified["esphome_builds_ready"]
    assert title == "ESPHome firmware"
    assert message == (
        "Ready to be installed: Greenhouse, Night-Light.\n"
        f"Failed: Kettle: {failed['message']}"
    )


# A new ESPHome


@LOCAL
async def test_a_new_esphome_is_told(
    hass: HomeAssistant,
    managed: MockConfigEntry,
    uv: FakeUv,
    use: Use,
    notified: dict[str, tuple[str | None, str]],
) -> None:
    """A version that can be installed is told once, not that none is new."""
    await use("new_esphome", updates=[UPDATE])
    await _async_ask(hass)
    assert notified == {}

    uv.offer("2026.11.2")
    await _async_ask(hass)

    ((title, message),) = notified.values()
    assert title == "ESPHome 2026.11.2"
    assert message == (
        "ESPHome Builds (esphome) can install ESPHome 2026.11.2; it had 2026.10.0 "
        "before. [What is new](https://esphome.io/changelog/2026.11.0/)"
    )


async def _async_ask(hass: HomeAssistant) -> None:
    """Let the builder ask for the latest version."""
    assert await async_setup_component(hass, "homeassistant", {})
    await hass.services.async_call(
        "homeassistant", "update_entity", {"entity_id": UPDATE}, blocking=True
    )
    await hass.async_block_till_done()


@LOCAL
async def test_a_new_esphome_of_others_is_told(
    hass: HomeAssistant, builder: MockConfigEntry, use: Use, told: list[ServiceCall]
) -> None:
    """A builder that has got another version is told, a restart of it is not."""
    await use(
        "new_esphome",
        versions=[VERSION],
        actions=_telling("version", "previous", "installed", "builder", "url"),
    )
    for state in ("unavailable", FAKE_VERSION, "2026.11.0", "unknown", "2026.11.0"):
        hass.states.async_set(VERSION, state)
    await hass.async_block_till_done()

    (call,) = told
    assert call.data == {
        "version": "2026.11.0",
        "previous": FAKE_VERSION,
        "installed": True,
        "builder": "ESPHome Builds (esphome)",
        "url": "",
    }
