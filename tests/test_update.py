"""Which ESPHome a builder has and could have, and how it gets another one."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from freezegun.api import FrozenDateTimeFactory
import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockUser,
    async_capture_events,
    async_fire_time_changed,
)

from custom_components.esphome_builds.const import (
    CONF_BETAS,
    CONF_CONFIG_DIR,
    CONF_ESPHOME,
)
from homeassistant.const import (
    EVENT_STATE_CHANGED,
    STATE_UNAVAILABLE,
    STATE_UNKNOWN,
    EntityCategory,
)
from homeassistant.core import Context, CoreState, HomeAssistant
from homeassistant.exceptions import HomeAssistantError, Unauthorized
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
from homeassistant.util.dt import utcnow

from .clients import eventually
from .fakes import FAKE_VERSION, FakeUv, write_configuration
from .helpers import (
    GO_BACK,
    LAST_BUILD,
    STATUS,
    UPDATE,
    VERSION,
    Steps,
    async_act,
    async_until_state,
    local_entry,
    shown,
)

BETA = "2026.12.0b2"
NEWER = "2026.11.1"
OLDER = "2026.9.3"


async def _async_check(hass: HomeAssistant) -> None:
    """Let the update entity ask for the latest version now."""
    assert await async_setup_component(hass, "homeassistant", {})
    await hass.services.async_call(
        "homeassistant", "update_entity", {"entity_id": UPDATE}, blocking=True
    )


async def _async_update(
    hass: HomeAssistant,
    action: str = "install",
    context: Context | None = None,
    **data: str,
) -> None:
    """Call an action of Home Assistant's for the update entity."""
    await hass.services.async_call(
        "update",
        action,
        {"entity_id": UPDATE, **data},
        blocking=True,
        context=context,
    )


async def _async_offer(hass: HomeAssistant, uv: FakeUv, version: str) -> None:
    """Let a newer version be there, and be seen."""
    uv.offer(version)
    await _async_check(hass)
    assert shown(hass, UPDATE).state == "on"


@pytest.mark.usefixtures("managed")
async def test_what_is_shown(
    hass: HomeAssistant, entity_registry: er.EntityRegistry
) -> None:
    """A builder with the latest ESPHome says so, and where to read about it."""
    state = shown(hass, UPDATE)

    assert state.state == "off"
    assert state.name == "ESPHome Builds (esphome) ESPHome"
    assert state.attributes["installed_version"] == FAKE_VERSION
    assert state.attributes["latest_version"] == FAKE_VERSION
    assert state.attributes["title"] == "ESPHome"
    assert state.attributes["release_url"] == "https://esphome.io/changelog/2026.10.0/"
    assert state.attributes["in_progress"] is False
    assert state.attributes["update_percentage"] is None
    registered = entity_registry.async_get(UPDATE)
    assert registered is not None
    assert registered.entity_category is EntityCategory.CONFIG


async def test_the_first_installation(
    hass: HomeAssistant, config_dir: Path, uv: FakeUv
) -> None:
    """It begins by itself, can be followed, and is no build."""
    uv.block("install: ", "print Downloading a (1MiB)", "print Downloading b (1MiB)")
    entry = local_entry("esphome", config_dir, "")
    entry.add_to_hass(hass)
    steps = Steps(hass)

    assert await hass.config_entries.async_setup(entry.entry_id)
    await eventually(uv.reached)
    await async_until_state(hass, STATUS, "installing")
    state = shown(hass, UPDATE)
    assert state.state == STATE_UNKNOWN
    assert state.attributes["installed_version"] is None
    assert state.attributes["in_progress"] is True
    (build,) = await async_act(hass, "compile", "kettle.yaml")
    assert build["status"] == "queued"
    uv.go()

    state = await async_until_state(hass, UPDATE, "off")
    assert state.attributes["installed_version"] == FAKE_VERSION
    build = await steps.until(build, "completed")
    assert build["esphome_version"] == FAKE_VERSION
    state = await async_until_state(hass, LAST_BUILD, "completed")
    assert state.attributes["job_id"] == build["job_id"]


@pytest.mark.usefixtures("managed")
async def test_it_is_updated(
    hass: HomeAssistant, uv: FakeUv, hass_admin_user: MockUser
) -> None:
    """A new version is offered, installed, and then used; the job tells by whom."""
    await _async_offer(hass, uv, NEWER)
    attributes = shown(hass, UPDATE).attributes
    assert attributes["latest_version"] == NEWER
    assert attributes["release_url"] == "https://esphome.io/changelog/2026.11.0/"
    steps = Steps(hass)
    versions = async_capture_events(hass, EVENT_STATE_CHANGED)

    await _async_update(hass, context=Context(user_id=hass_admin_user.id))

    state = await async_until_state(hass, UPDATE, "off")
    assert state.attributes["installed_version"] == NEWER
    assert state.attributes["in_progress"] is False
    # Nor was it unknown meanwhile.
    assert [
        event.data["new_state"].state
        for event in versions
        if event.data["entity_id"] == VERSION and event.data["new_state"]
    ] == [NEWER]
    job = steps.events[-1].data["job"]
    assert (job["kind"], job["status"]) == ("install_esphome", "completed")
    assert job["requested_by"]["user_id"] == hass_admin_user.id
    # Nothing was built.
    assert shown(hass, LAST_BUILD).state == STATE_UNKNOWN
    (build,) = await async_act(hass, "compile", "kettle.yaml", wait=True)
    assert (build["status"], build["esphome_version"]) == ("completed", NEWER)


@pytest.mark.usefixtures("managed")
async def test_progress_is_shown(hass: HomeAssistant, uv: FakeUv) -> None:
    """It is told how far an installation is, whoever asked, and no second begins."""
    await _async_offer(hass, uv, NEWER)
    packages = ("Downloading a (1MiB)", "Downloading b (1MiB)", " Downloaded a")
    uv.block("install: ", *(f"print {line}" for line in packages))

    (job,) = await async_act(hass, "install_esphome")
    await async_until_attribute(hass, "update_percentage", 50)

    assert shown(hass, UPDATE).state == "on"
    assert shown(hass, UPDATE).attributes["in_progress"] is True
    with pytest.raises(HomeAssistantError, match="already in progress"):
        await _async_update(hass)
    uv.go()
    await async_until_state(hass, UPDATE, "off")
    # It is used before the job has ended.
    await async_until_attribute(hass, "in_progress", value=False)
    assert shown(hass, UPDATE).attributes["update_percentage"] is None
    assert job["kind"] == "install_esphome"


async def async_until_attribute(hass: HomeAssistant, name: str, value: object) -> None:
    """Wait until the update entity shows a value."""
    await eventually(
        lambda: shown(hass, UPDATE).attributes[name] == value,
        lambda: shown(hass, UPDATE),
    )


@pytest.mark.usefixtures("managed")
async def test_a_version_can_be_chosen(hass: HomeAssistant, uv: FakeUv) -> None:
    """Also an older one, of which the newer one then is an update."""
    await _async_update(hass, version=OLDER)

    state = await async_until_state(hass, UPDATE, "on")
    assert state.attributes["installed_version"] == OLDER
    assert state.attributes["latest_version"] == FAKE_VERSION
    with pytest.raises(
        HomeAssistantError, match=r"'\.\./x' is not a version of ESPHome"
    ):
        await _async_update(hass, version="../x")


@pytest.mark.usefixtures("managed")
async def test_a_version_can_be_skipped(hass: HomeAssistant, uv: FakeUv) -> None:
    """One that is not wanted is not offered until there is another."""
    await _async_offer(hass, uv, NEWER)

    await _async_update(hass, "skip")

    assert shown(hass, UPDATE).state == "off"
    assert shown(hass, UPDATE).attributes["skipped_version"] == NEWER
    uv.offer("2026.11.2")
    await _async_check(hass)
    assert shown(hass, UPDATE).state == "on"


@pytest.mark.usefixtures("managed")
async def test_a_failure_says_why(hass: HomeAssistant, uv: FakeUv) -> None:
    """What could not be installed is an error with the reason, and is still offered."""
    await _async_offer(hass, uv, NEWER)
    uv.script("install: print No space left on device", "install: exit 2")

    with pytest.raises(
        HomeAssistantError, match=r"ESPHome could not be installed\. The disk is full"
    ):
        await _async_update(hass)

    await async_until_attribute(hass, "in_progress", value=False)
    state = shown(hass, UPDATE)
    assert state.state == "on"
    assert state.attributes["installed_version"] == FAKE_VERSION
    assert shown(hass, STATUS).state == "idle"


async def test_betas_are_an_option(
    hass: HomeAssistant, managed: MockConfigEntry, uv: FakeUv
) -> None:
    """Betas are offered to those who want them, and then installed."""
    uv.offer(FAKE_VERSION, BETA)
    await _async_check(hass)
    assert shown(hass, UPDATE).state == "off"

    hass.config_entries.async_update_entry(managed, options={CONF_BETAS: True})
    assert await hass.config_entries.async_reload(managed.entry_id)

    state = await async_until_state(hass, UPDATE, "on")
    assert state.attributes["latest_version"] == BETA
    assert state.attributes["release_url"] == "https://esphome.io/changelog/"
    await _async_update(hass)
    state = await async_until_state(hass, UPDATE, "off")
    assert state.attributes["installed_version"] == BETA
    # Who has a beta and wants no more of them has no update to an older release.
    hass.config_entries.async_update_entry(managed, options={})
    assert await hass.config_entries.async_reload(managed.entry_id)
    state = await async_until_state(hass, UPDATE, "off")
    assert state.attributes["latest_version"] == FAKE_VERSION


@pytest.mark.usefixtures("managed")
async def test_nobody_answers(
    hass: HomeAssistant, uv: FakeUv, caplog: pytest.LogCaptureFixture
) -> None:
    """What was known is known, and it is said once that nobody can be asked."""
    await _async_offer(hass, uv, NEWER)
    uv.script(
        "latest: print error: Failed to fetch: `https://x.test/`", "latest: exit 2"
    )

    for _ in range(2):
        await _async_check(hass)

    assert shown(hass, UPDATE).state == "on"
    assert shown(hass, UPDATE).attributes["latest_version"] == NEWER
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert "x.test cannot" in told[0].message


@pytest.mark.usefixtures("managed")
async def test_it_is_asked_again(
    hass: HomeAssistant, uv: FakeUv, freezer: FrozenDateTimeFactory
) -> None:
    """Twice a day somebody is asked, and after an hour where there was no answer."""
    await hass.async_block_till_done(wait_background_tasks=True)
    asked = uv.calls("latest")
    uv.script("latest: exit 2")

    for hours, times in ((11, 0), (2, 1), (0.5, 1), (0.6, 2)):
        freezer.tick(timedelta(hours=hours))
        async_fire_time_changed(hass, utcnow())
        await hass.async_block_till_done(wait_background_tasks=True)
        assert uv.calls("latest") == asked + times


async def test_it_is_asked_when_home_assistant_has_started(
    hass: HomeAssistant, managed: MockConfigEntry, uv: FakeUv
) -> None:
    """Nothing is added to what a start has to do."""
    asked = uv.calls("latest")
    assert await hass.config_entries.async_unload(managed.entry_id)
    hass.set_state(CoreState.starting)

    assert await hass.config_entries.async_setup(managed.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    await hass.async_block_till_done(wait_background_tasks=True)
    assert uv.calls("latest") == asked
    hass.set_state(CoreState.running)
    hass.bus.async_fire("homeassistant_started")

    await async_until_state(hass, UPDATE, "off")
    assert uv.calls("latest") == asked + 1


async def test_unload_ends_the_question(
    hass: HomeAssistant, managed: MockConfigEntry, uv: FakeUv
) -> None:
    """Nobody waits for an answer that nobody wants, and no process is left."""
    assert await hass.config_entries.async_unload(managed.entry_id)
    uv.block("latest: ")
    assert await hass.config_entries.async_setup(managed.entry_id)
    await eventually(uv.reached)

    assert await hass.config_entries.async_unload(managed.entry_id)

    assert shown(hass, UPDATE).state == STATE_UNAVAILABLE
    await eventually(lambda: not _processes_of(uv))


def _processes_of(uv: FakeUv) -> list[Path]:
    """Return what runs of the fake."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if bytes(uv.python) in path.read_bytes():
                found.append(path)
        except OSError:
            continue
    return found


async def test_a_broken_one_is_mended(
    hass: HomeAssistant, managed: MockConfigEntry
) -> None:
    """Where ESPHome itself is gone, it is installed again by itself."""
    cache = Path(hass.config.cache_path("esphome_builds")) / managed.entry_id
    (executable,) = cache.glob("esphome/*/bin/esphome")

    executable.unlink()

    await eventually(lambda: any(cache.glob("esphome/*/bin/esphome")))
    await async_until_state(hass, STATUS, "idle")
    await async_until_state(hass, UPDATE, "off")
    assert shown(hass, VERSION).state == FAKE_VERSION


@pytest.mark.usefixtures("managed")
async def test_go_back(
    hass: HomeAssistant, uv: FakeUv, hass_read_only_user: MockUser
) -> None:
    """The last ESPHome is there while there is one, for administrators."""
    assert shown(hass, GO_BACK).state == STATE_UNAVAILABLE
    await _async_offer(hass, uv, NEWER)
    await _async_update(hass)
    await async_until_state(hass, GO_BACK, STATE_UNKNOWN)
    hass_read_only_user.mock_policy({"entities": True})
    with pytest.raises(Unauthorized):
        await _async_press(hass, Context(user_id=hass_read_only_user.id))
    assert shown(hass, VERSION).state == NEWER

    await _async_press(hass)

    await async_until_state(hass, VERSION, FAKE_VERSION)
    assert shown(hass, UPDATE).state == "on"
    assert uv.calls("install") == 2
    await _async_press(hass)
    await async_until_state(hass, VERSION, NEWER)


async def _async_press(hass: HomeAssistant, context: Context | None = None) -> None:
    """Press the button that goes back."""
    await hass.services.async_call(
        "button", "press", {"entity_id": GO_BACK}, blocking=True, context=context
    )


async def test_an_own_esphome_is_the_users(
    hass: HomeAssistant,
    managed: MockConfigEntry,
    config_dir: Path,
    esphome: Path,
    entity_registry: er.EntityRegistry,
) -> None:
    """Who gives a path has no updates and no way back, until it is empty again."""
    form: Any = await managed.start_reconfigure_flow(hass)
    answer = {CONF_CONFIG_DIR: str(config_dir), CONF_ESPHOME: str(esphome)}
    await hass.config_entries.flow.async_configure(form["flow_id"], answer)
    await hass.async_block_till_done()
    for entity_id in (UPDATE, GO_BACK):
        assert hass.states.get(entity_id) is None
        assert entity_registry.async_get(entity_id) is None
    write_configuration(config_dir, "porch")
    (job,) = await async_act(hass, "validate", "porch.yaml", wait=True)
    assert job["status"] == "completed"

    form = await managed.start_reconfigure_flow(hass)
    del answer[CONF_ESPHOME]
    await hass.config_entries.flow.async_configure(form["flow_id"], answer)

    await async_until_state(hass, UPDATE, "off")
    assert shown(hass, GO_BACK).state == STATE_UNAVAILABLE
