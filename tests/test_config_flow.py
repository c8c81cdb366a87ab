"""Adding, changing and tuning a builder, as a user does it."""

from collections.abc import Callable
import os
from pathlib import Path
from typing import Any

import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    get_schema_suggested_value,
)

from custom_components.esphome_builds.builds.local import host
from custom_components.esphome_builds.const import (
    CONF_BETAS,
    CONF_BUILD_LIMIT,
    CONF_COMPILE_IDLE_LIMIT,
    CONF_COMPILE_LIMIT,
    CONF_COMPILE_SLOTS,
    CONF_CONFIG_DIR,
    CONF_DEVICE_WAIT,
    CONF_ENTITIES,
    CONF_ESPHOME,
    CONF_FAILURE_ISSUES,
    CONF_KIND,
    CONF_UPLOAD_LIMIT,
    DOMAIN,
)
from custom_components.esphome_builds.local import local_settings
from homeassistant.config_entries import SOURCE_USER, ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType, InvalidData
from homeassistant.helpers.translation import async_get_translations

from .clients import eventually
from .fakes import (
    FakeUv,
    fake_calls,
    fake_version,
    install_fake,
    write_configuration,
)
from .helpers import RUNNING, async_act, async_until_state

pytestmark = pytest.mark.local_only("another form: see test_config_flow_device_builder")

type Flow = Any


async def _async_start(hass: HomeAssistant) -> Flow:
    """Return the form of a local builder, chosen from the menu."""
    menu = await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": SOURCE_USER}
    )
    assert menu["type"] is FlowResultType.MENU
    assert menu["menu_options"] == ["local", "device_builder"]
    form = await hass.config_entries.flow.async_configure(
        menu["flow_id"], {"next_step_id": "local"}
    )
    assert form["type"] is FlowResultType.FORM
    assert form["step_id"] == "local"
    assert form["errors"] == {}
    return form


async def _async_submit(
    hass: HomeAssistant, flow: Flow, config_dir: Path | str, esphome: Path | str = ""
) -> Flow:
    """Fill the form in."""
    answer = {CONF_CONFIG_DIR: str(config_dir)}
    if esphome:
        answer[CONF_ESPHOME] = str(esphome)
    return await hass.config_entries.flow.async_configure(flow["flow_id"], answer)


def _suggested(form: Flow) -> dict[str, Any]:
    return {
        key: get_schema_suggested_value(form["data_schema"].schema, key)
        for key in (CONF_CONFIG_DIR, CONF_ESPHOME)
    }


async def test_a_builder_is_added(
    hass: HomeAssistant, config_dir: Path, esphome: Path
) -> None:
    """The menu leads to a form, and a folder that can be read to an entry."""
    form = await _async_start(hass)
    assert _suggested(form) == {CONF_CONFIG_DIR: str(config_dir), CONF_ESPHOME: None}

    result = await _async_submit(hass, form, config_dir, esphome)

    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["title"] == "esphome"
    assert result["options"] == {}
    assert result["data"] == {
        CONF_KIND: "local",
        CONF_CONFIG_DIR: str(config_dir),
        CONF_ESPHOME: str(esphome),
    }
    entry = result["result"]
    assert entry.unique_id == str(config_dir)
    assert entry.state is ConfigEntryState.LOADED


async def test_no_path_means_an_esphome_of_its_own(
    hass: HomeAssistant,
    config_dir: Path,
    esphome: Path,
    uv: FakeUv,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a path ESPHome is installed, whatever is on PATH."""
    monkeypatch.setenv("PATH", f"{esphome.parent}:/usr/bin:/bin")
    form = await _async_submit(hass, await _async_start(hass), config_dir / "none")
    assert form["errors"] == {CONF_CONFIG_DIR: "config_dir_missing"}

    result = await _async_submit(hass, form, config_dir, " ")

    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["data"][CONF_ESPHOME] == ""
    (job,) = await async_act(hass, "validate", "kettle.yaml", wait=True)
    assert job["status"] == "completed"
    assert uv.calls("install") == 1
    assert fake_calls(esphome) == []


def _musl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ask_loader", lambda _: "/lib/ld-musl-x86_64.so.1")
    monkeypatch.setattr(host, "ask_glibc", lambda _: False)


def _old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ask_python", lambda: (3, 11))


def _no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ask_file_system", lambda _: (False, None))


def _no_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ask_problem", lambda _: "Read-only file system")


@pytest.mark.parametrize(
    ("prevent", "error", "words"),
    [
        (_musl, "musl", "use ESPHome Device Builder"),
        (_old_python, "python_old", "needs Python 3.12 or newer"),
        (_no_programs, "not_executable", "/esphome_builds are not allowed to run"),
        (_no_writing, "not_writable", "/esphome_builds. Read-only file system."),
    ],
)
async def test_what_makes_it_impossible_is_said(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    config_dir: Path,
    esphome: Path,
    prevent: Callable[[pytest.MonkeyPatch], None],
    error: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said before an entry is made, and one's own ESPHome is still a way."""
    prevent(monkeypatch)
    texts = await async_get_translations(hass, "en", "config", {DOMAIN})

    form = await _async_submit(hass, await _async_start(hass), config_dir)

    assert form["errors"] == {CONF_ESPHOME: error}
    text = texts[f"component.{DOMAIN}.config.error.{error}"]
    assert words in text.format(**form["description_placeholders"])
    assert not hass.config_entries.async_entries(DOMAIN)
    result = await _async_submit(hass, form, config_dir, esphome)
    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_what_is_only_a_warning_is_no_error(
    hass: HomeAssistant,
    config_dir: Path,
    uv: FakeUv,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On musl with a stand-in for glibc it may work; a full disk can be mended."""
    _musl(monkeypatch)
    monkeypatch.setattr(host, "ask_glibc", lambda _: True)
    monkeypatch.setattr(host, "ask_file_system", lambda _: (True, 0))

    result = await _async_submit(hass, await _async_start(hass), config_dir)

    assert result["type"] is FlowResultType.CREATE_ENTRY
    await eventually(lambda: uv.calls("install") == 1)


@pytest.fixture
def home(config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's home, which has a folder of configurations, too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "devices").mkdir()
    (config_dir.parent / "link").symlink_to(config_dir)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("esphome", "hass/esphome"),
        ("  ./esphome/../esphome ", "hass/esphome"),
        ("~/devices", "devices"),
        ("link", "hass/esphome"),
    ],
)
async def test_folders_are_found(
    hass: HomeAssistant, home: Path, esphome: Path, given: str, folder: str
) -> None:
    """A path starts at Home Assistant's folder or at home; links are followed."""
    result = await _async_submit(hass, await _async_start(hass), given, esphome)

    expected = home / folder
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["title"] == expected.name
    assert result["data"][CONF_CONFIG_DIR] == str(expected)
    assert result["result"].unique_id == str(expected)


def _no_folder(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return f"{config_dir}/none", str(esphome)


def _no_name(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return " ", str(esphome)


def _a_file(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return f"{config_dir}/kettle.yaml", str(esphome)


def _a_nul(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return f"{config_dir}\0", str(esphome)


def _nobody(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return "~nobody-has-this-name/esphome", str(esphome)


def _a_loop(config_dir: Path, esphome: Path) -> tuple[str, str]:
    (config_dir / "loop").symlink_to("loop")
    return f"{config_dir}/loop", str(esphome)


def _no_executable(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return str(config_dir), f"{esphome}-none"


def _no_executable_of_nobody(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return str(config_dir), "~nobody-has-this-name/esphome"


def _no_executable_with_nul(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return str(config_dir), f"{esphome}\0"


def _not_executable(config_dir: Path, esphome: Path) -> tuple[str, str]:
    esphome.chmod(0o644)
    return str(config_dir), str(esphome)


def _another_program(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return str(config_dir), "/bin/true"


def _a_failure(config_dir: Path, esphome: Path) -> tuple[str, str]:
    fake_version(esphome, "print Version: 2026.10.0", "exit 1")
    return str(config_dir), str(esphome)


def _no_program(config_dir: Path, esphome: Path) -> tuple[str, str]:
    esphome.write_text("#!/no/such/interpreter\n")
    return str(config_dir), str(esphome)


def _nothing(config_dir: Path, esphome: Path) -> tuple[str, str]:
    return f"{config_dir}/none", f"{esphome}-none"


@pytest.mark.parametrize(
    ("make", "errors"),
    [
        (_no_folder, {CONF_CONFIG_DIR: "config_dir_missing"}),
        (_no_name, {CONF_CONFIG_DIR: "config_dir_missing"}),
        (_a_file, {CONF_CONFIG_DIR: "config_dir_missing"}),
        (_a_nul, {CONF_CONFIG_DIR: "config_dir_missing"}),
        (_nobody, {CONF_CONFIG_DIR: "config_dir_missing"}),
        (_a_loop, {CONF_CONFIG_DIR: "config_dir_missing"}),
        (_no_executable, {CONF_ESPHOME: "esphome_missing"}),
        (_no_executable_of_nobody, {CONF_ESPHOME: "esphome_missing"}),
        (_no_executable_with_nul, {CONF_ESPHOME: "esphome_missing"}),
        (_not_executable, {CONF_ESPHOME: "esphome_missing"}),
        (_another_program, {CONF_ESPHOME: "esphome_failed"}),
        (_a_failure, {CONF_ESPHOME: "esphome_failed"}),
        (_no_program, {CONF_ESPHOME: "esphome_failed"}),
        (
            _nothing,
            {CONF_CONFIG_DIR: "config_dir_missing", CONF_ESPHOME: "esphome_missing"},
        ),
    ],
)
async def test_errors_can_be_put_right(
    hass: HomeAssistant,
    config_dir: Path,
    esphome: Path,
    make: Callable[[Path, Path], tuple[str, str]],
    errors: dict[str, str],
) -> None:
    """What is wrong is said at its field, what was typed stays, and one goes on."""
    good = install_fake(esphome.parent, "good")
    bad = make(config_dir, esphome)

    form = await _async_submit(hass, await _async_start(hass), *bad)

    assert form["type"] is FlowResultType.FORM
    assert form["errors"] == errors
    assert tuple(_suggested(form).values()) == bad
    assert not hass.config_entries.async_entries(DOMAIN)

    result = await _async_submit(hass, form, config_dir, good)

    assert result["type"] is FlowResultType.CREATE_ENTRY


async def test_the_same_folder_twice_is_refused(
    hass: HomeAssistant, entry: MockConfigEntry, config_dir: Path, esphome: Path
) -> None:
    """Two builders of one folder are refused, also by another name of it."""
    link = config_dir.parent / "link"
    link.symlink_to(config_dir)

    result = await _async_submit(hass, await _async_start(hass), link, esphome)

    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "already_configured"
    assert hass.config_entries.async_entries(DOMAIN) == [entry]


async def test_the_executable_is_changed(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path, tmp_path: Path
) -> None:
    """The form shows what is set, and what is new is used at once."""
    hass.config_entries.async_update_entry(builder, title="My devices")
    other = install_fake(tmp_path, "other")

    form: Flow = await builder.start_reconfigure_flow(hass)
    assert form["step_id"] == "local"
    assert _suggested(form) == {
        CONF_CONFIG_DIR: str(config_dir),
        CONF_ESPHOME: builder.data[CONF_ESPHOME],
    }
    result = await _async_submit(hass, form, config_dir, other)
    await hass.async_block_till_done()

    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "reconfigure_successful"
    assert builder.data[CONF_ESPHOME] == str(other)
    assert builder.title == "My devices"
    await async_act(hass, "validate", "kettle.yaml", wait=True)
    assert fake_calls(other, "config")


async def test_the_folder_is_changed(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    esphome: Path,
    tmp_path: Path,
) -> None:
    """The builder takes the name of its new folder and knows its configurations."""
    folder = tmp_path / "devices"
    folder.mkdir()
    write_configuration(folder, "porch")

    form = await builder.start_reconfigure_flow(hass)
    result: Flow = await _async_submit(hass, form, tmp_path / "none", esphome)
    assert result["errors"] == {CONF_CONFIG_DIR: "config_dir_missing"}
    result = await _async_submit(hass, result, folder, esphome)
    await hass.async_block_till_done()

    assert result["reason"] == "reconfigure_successful"
    assert builder.title == "devices"
    assert builder.unique_id == builder.data[CONF_CONFIG_DIR] == str(folder)
    (job,) = await async_act(hass, "validate", "porch.yaml", wait=True)
    assert job["status"] == "completed"


async def test_the_folder_of_another_builder_is_refused(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    esphome: Path,
    tmp_path: Path,
) -> None:
    """A builder cannot be moved to a folder that another one has."""
    folder = tmp_path / "devices"
    folder.mkdir()
    other = await _async_submit(hass, await _async_start(hass), folder, esphome)
    assert other["type"] is FlowResultType.CREATE_ENTRY
    before = dict(builder.data)

    form = await builder.start_reconfigure_flow(hass)
    result = await _async_submit(hass, form, folder, esphome)

    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "already_configured"
    assert builder.data == before


async def _async_change_options(
    hass: HomeAssistant, entry: MockConfigEntry, options: dict[str, Any]
) -> Flow:
    """Fill in the form of the options."""
    form = await hass.config_entries.options.async_init(entry.entry_id)
    assert form["type"] is FlowResultType.FORM
    assert form["step_id"] == "init"
    result = await hass.config_entries.options.async_configure(form["flow_id"], options)
    await hass.async_block_till_done()
    return result


async def test_options_take_effect(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path, tmp_path: Path
) -> None:
    """With two slots two compiles run side by side, at once after the change."""
    go = tmp_path / "go"
    for name in ("attic", "cellar"):
        write_configuration(config_dir, name, f"wait {go}")

    result = await _async_change_options(hass, builder, {CONF_COMPILE_SLOTS: 2.0})

    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert builder.options == {
        CONF_ENTITIES: True,
        CONF_FAILURE_ISSUES: True,
        CONF_DEVICE_WAIT: 24,
        CONF_COMPILE_SLOTS: 2,
        CONF_COMPILE_LIMIT: 180,
        CONF_COMPILE_IDLE_LIMIT: 45,
        CONF_UPLOAD_LIMIT: 30,
        CONF_BUILD_LIMIT: 20,
    }
    assert {type(value) for value in builder.options.values()} == {bool, int}
    await async_act(hass, "compile", "attic.yaml", "cellar.yaml")
    await async_until_state(hass, RUNNING, "2")
    go.touch()
    await async_until_state(hass, RUNNING, "0")


async def test_slots_can_be_automatic_again(
    hass: HomeAssistant, builder: MockConfigEntry
) -> None:
    """A field that is left empty means what it means at first."""
    limits = {
        CONF_ENTITIES: False,
        CONF_FAILURE_ISSUES: False,
        CONF_DEVICE_WAIT: 0,
        CONF_COMPILE_LIMIT: 60,
        CONF_COMPILE_IDLE_LIMIT: 10,
        CONF_UPLOAD_LIMIT: 5,
        CONF_BUILD_LIMIT: 0,
    }
    await _async_change_options(hass, builder, {CONF_COMPILE_SLOTS: 3, **limits})
    form: Flow = await hass.config_entries.options.async_init(builder.entry_id)
    schema = form["data_schema"].schema
    assert get_schema_suggested_value(schema, CONF_COMPILE_SLOTS) == 3
    assert get_schema_suggested_value(schema, CONF_UPLOAD_LIMIT) == 5

    await _async_change_options(hass, builder, limits)

    assert builder.options == limits


@pytest.mark.parametrize(
    "options",
    [
        {CONF_COMPILE_SLOTS: 0},
        {CONF_COMPILE_SLOTS: 17},
        {CONF_COMPILE_LIMIT: 0},
        {CONF_UPLOAD_LIMIT: 1441},
        {CONF_BUILD_LIMIT: -1},
        {CONF_BETAS: True},
    ],
)
async def test_options_have_bounds(
    hass: HomeAssistant, builder: MockConfigEntry, options: dict[str, int]
) -> None:
    """No slots, or no time, would be a builder that cannot build."""
    form = await hass.config_entries.options.async_init(builder.entry_id)

    with pytest.raises(InvalidData):
        await hass.config_entries.options.async_configure(form["flow_id"], options)

    assert builder.options == {}


@pytest.mark.parametrize(("limit", "size"), [(0, None), (3, 3 * 1024**3)])
async def test_build_files_have_a_limit(
    hass: HomeAssistant, builder: MockConfigEntry, limit: int, size: int | None
) -> None:
    """It is in GiB, and can be none."""
    assert local_settings(hass, builder).build_limit == 20 * 1024**3

    await _async_change_options(hass, builder, {CONF_BUILD_LIMIT: limit})

    assert local_settings(hass, builder).build_limit == size


async def test_betas_can_be_wanted(
    hass: HomeAssistant, managed: MockConfigEntry
) -> None:
    """Where the integration installs ESPHome, betas are an option, at first none."""
    await _async_change_options(hass, managed, {})
    assert managed.options[CONF_BETAS] is False

    await _async_change_options(hass, managed, {CONF_BETAS: True})

    assert managed.options[CONF_BETAS] is True


async def test_the_root_can_be_a_folder(hass: HomeAssistant, esphome: Path) -> None:
    """Even a folder without a name gives an entry with a title."""
    result = await _async_submit(hass, await _async_start(hass), os.sep, esphome)

    assert result["title"] == os.sep
