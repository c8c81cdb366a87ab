"""What the diagnostics of a builder tell, and what they keep to themselves."""

from dataclasses import replace
from pathlib import Path
import shutil
from typing import Any

import orjson
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser
from pytest_homeassistant_custom_component.components.diagnostics import (
    get_diagnostics_for_config_entry,
    get_diagnostics_for_device,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.esphome_builds.builds.findings import Finding, Obstacle, Severity
from custom_components.esphome_builds.builds.usage import Measured, Usage
from custom_components.esphome_builds.const import CONF_COMPILE_LIMIT, DOMAIN
from custom_components.esphome_builds.local import cache_dir
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers import device_registry as dr, entity_registry as er
from homeassistant.setup import async_setup_component

from .builds.local.test_firmware import Builds
from .builds.stand_in import NOW
from .clients import eventually
from .esphome_device import MAC, EsphomeDevice
from .fakes import FAKE_VERSION, write_configuration
from .helpers import VERSION, async_act, async_until_state

REDACTED = "**REDACTED**"
SECRETS = {"wifi_password": "correct-horse-battery", "api_key": "YXBpIGtleSBhcGkga2V5"}


@pytest.fixture(autouse=True)
async def diagnostics(hass: HomeAssistant) -> None:
    """Set up what the diagnostics of an entry are downloaded from."""
    assert await async_setup_component(hass, "diagnostics", {})


async def _async_told(
    hass: HomeAssistant, hass_client: ClientSessionGenerator, entry: MockConfigEntry
) -> dict[str, Any]:
    """Download the diagnostics."""
    told = await get_diagnostics_for_config_entry(hass, hass_client, entry)
    assert isinstance(told, dict)
    return told


async def test_what_is_told(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    builder_kind: str,
    config_dir: Path,
    hass_client: ClientSessionGenerator,
) -> None:
    """Settings, state and jobs are there, so that nobody has to ask for them."""
    hass.config_entries.async_update_entry(entry, options={CONF_COMPILE_LIMIT: 7})
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    write_configuration(config_dir, "porch", "exit 1")
    jobs = await async_act(hass, "compile", "kettle.yaml", "porch.yaml", wait=True)

    told = await _async_told(hass, hass_client, entry)

    assert told["entry"] == {
        "data": dict(entry.data),
        "options": {"compile_limit": 7},
    }
    cache = hass.config.cache_path(DOMAIN)
    assert told["settings"]["cache_dir"] == f"{cache}/{entry.entry_id}"
    assert told["builder"] == {
        "entry_id": entry.entry_id,
        "kind": builder_kind,
        "title": "esphome",
        "state": "ready",
        "esphome_version": FAKE_VERSION,
        "running": 0,
        "queued": 0,
        "message": None,
        "managed": False,
        "previous_version": None,
        "obstacles": [],
        "disk_usage": None,
    }
    assert told["disk_usage"] is None
    assert told["firmware"] == []
    names = [one["configuration"] for one in told["configurations"]]
    # A server also lists what others include.
    assert [name for name in names if name != "common.yaml"] == [
        *("greenhouse.yaml", "kettle.yaml", "night-light.yaml"),
        *("porch.yaml", "weather-station.yaml"),
    ]
    assert told["job_count"] == {"completed": 1, "failed": 1}
    assert [job["job_id"] for job in told["jobs"]] == [job["job_id"] for job in jobs]


@pytest.mark.local_only("a server has no limits and no tools that we know")
async def test_the_settings_of_a_local_builder(
    hass: HomeAssistant, builder: MockConfigEntry, hass_client: ClientSessionGenerator
) -> None:
    """What limits its jobs, with what was changed by options."""
    hass.config_entries.async_update_entry(builder, options={CONF_COMPILE_LIMIT: 7})

    told = await _async_told(hass, hass_client, builder)

    cache = hass.config.cache_path(DOMAIN)
    assert told["settings"] == {
        "cache_dir": f"{cache}/{builder.entry_id}",
        "tools_dir": f"{cache}/tools",
        "limits": {
            "validate": {"total": 600, "idle": None},
            "compile": {"total": 420, "idle": 2700},
            "upload": {"total": 1800, "idle": 600},
            "clean": {"total": 600, "idle": None},
            "install_esphome": {"total": 3600, "idle": 900},
        },
    }


async def test_the_newest_jobs_are_told(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    hass_client: ClientSessionGenerator,
) -> None:
    """Of a long history there is the end."""
    names = [
        write_configuration(config_dir, f"room{n}", "sleep inf") for n in range(51)
    ]
    jobs = await async_act(hass, "compile", *names)
    await async_act(hass, "cancel", *names)

    told = await _async_told(hass, hass_client, builder)

    assert [job["job_id"] for job in told["jobs"]] == [job["job_id"] for job in jobs][
        1:
    ]
    assert told["job_count"] == {"cancelled": 51}


async def test_no_secret_is_told(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    hass_admin_user: MockUser,
    builder_kind: str,
    hass_client: ClientSessionGenerator,
) -> None:
    """Neither what a build printed, nor a broken file, nor who asked is told."""
    lines = [f"{name}: {value}" for name, value in SECRETS.items()]
    (config_dir / "secrets.yaml").write_text("\n".join(lines))
    write_configuration(
        config_dir,
        "porch",
        *(f"print ERROR Invalid value {value}" for value in SECRETS.values()),
        "exit 2",
    )
    (config_dir / "broken.yaml").write_text(
        f"esphome:\n  name: x\nwifi:\n  password: {SECRETS['wifi_password']}: [\n"
    )
    context = Context(user_id=hass_admin_user.id)
    jobs = await async_act(hass, "compile", "porch.yaml", context=context, wait=True)
    assert [job["status"] for job in jobs] == ["failed"]

    told = await _async_told(hass, hass_client, builder)

    (job,) = told["jobs"]
    assert job["requested_by"] == {
        "user_id": REDACTED,
        "context_id": REDACTED,
        "unattended": False,
    }
    (broken,) = (
        one for one in told["configurations"] if one["configuration"] == "broken.yaml"
    )
    # A server does not say what is wrong with a file.
    assert (broken["error"] is None) == (builder_kind == "device_builder")
    text = orjson.dumps(told).decode()
    for hidden in (*SECRETS.values(), hass_admin_user.id, context.id):
        assert hidden not in text


@pytest.mark.local_only("of a server nothing of this is known")
async def test_what_was_found_measured_and_kept(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    hass_client: ClientSessionGenerator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the facts, since somebody else has to understand it from them."""
    Builds(cache_dir(hass, builder.entry_id)).build(b"content", "attic.yaml")
    attic = write_configuration(config_dir, "attic")
    (job,) = await async_act(hass, "compile", attic, wait=True)
    kind = type(builder.runtime_data.builder)
    measured = Measured(size=7, entries=3, measured_at=NOW, complete=False)
    monkeypatch.setattr(kind, "usage", Usage(parts={"logs": measured}))
    finding = Finding(
        obstacle=Obstacle.COMPILER_MISSING,
        severity=Severity.REFUSE,
        facts={"languages": "C"},
        platforms=frozenset({"host", "esp32"}),
    )
    everywhere = replace(finding, platforms=None)
    monkeypatch.setattr(kind, "findings", (finding, everywhere))
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/bin/{name}")

    told = await _async_told(hass, hass_client, builder)

    assert told["disk_usage"] == {
        "logs": {
            "size": 7,
            "entries": 3,
            "measured_at": NOW.isoformat(),
            "complete": False,
        }
    }
    shown = {
        "obstacle": "compiler_missing",
        "severity": "refuse",
        "facts": {"languages": "C"},
        "kinds": ["compile"],
        "platforms": ["esp32", "host"],
    }
    assert told["findings"] == [shown, {**shown, "platforms": None}]
    (firmware,) = told["firmware"]
    assert firmware["job_id"] == job["job_id"]
    assert firmware["configuration"] == attic
    assert told["ccache"] is True


def _own_device(
    hass: HomeAssistant, entry: MockConfigEntry, *path: str
) -> dr.DeviceEntry | None:
    """Return the device of a builder, or of one of its configurations."""
    identifier = "_".join((entry.entry_id, *path))
    return dr.async_get(hass).async_get_device_by_identifier(
        (DOMAIN, identifier), entry.entry_id
    )


async def test_what_is_told_of_a_builders_device(
    hass: HomeAssistant, builder: MockConfigEntry, hass_client: ClientSessionGenerator
) -> None:
    """It is what is told of the builder."""
    device = _own_device(hass, builder)
    assert device is not None

    told = await get_diagnostics_for_device(hass, hass_client, builder, device)

    assert told == await _async_told(hass, hass_client, builder)


async def test_what_is_told_of_a_configuration(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    hass_client: ClientSessionGenerator,
    hass_admin_user: MockUser,
) -> None:
    """Its jobs with their causes and its entities, and nothing of others."""
    (config_dir / "secrets.yaml").write_text("key: correct-horse-battery\n")
    porch = write_configuration(
        config_dir, "porch", "print ERROR Not so: correct-horse-battery", "exit 2"
    )
    context = Context(user_id=hass_admin_user.id)
    jobs = await async_act(
        hass, "compile", "kettle.yaml", porch, context=context, wait=True
    )
    await eventually(lambda: hass.states.get("sensor.porch_last_build") is not None)
    device = _own_device(hass, builder, porch)
    assert device is not None

    told: Any = await get_diagnostics_for_device(hass, hass_client, builder, device)

    assert told["builder"]["title"] == "esphome"
    assert told["configuration"]["configuration"] == porch
    (job,) = told["jobs"]
    assert job["job_id"] == jobs[1]["job_id"]
    assert job["cause"] == jobs[1]["cause"] is not None
    assert job["requested_by"]["user_id"] == REDACTED
    assert told["entities"]["last_build"] == {
        "entity_id": "sensor.porch_last_build",
        "disabled_by": None,
        "state": "failed",
    }
    assert told["entities"]["compile"] == {
        "entity_id": "button.porch_compile",
        "disabled_by": "integration",
        "state": None,
    }
    assert told["entities"]["updates_shown_by_esphome"] is False
    assert told["firmware"] == []
    assert told["firmware_size"] == 0
    assert "correct-horse-battery" not in orjson.dumps(told).decode()
    assert "kettle" not in orjson.dumps(told).decode()


async def test_what_is_told_of_a_device_of_esphome(
    hass: HomeAssistant, entry: MockConfigEntry, hass_client: ClientSessionGenerator
) -> None:
    """Its own page offers what the ESPHome integration says, so the builder tells."""
    known = EsphomeDevice(hass, "kettle")
    er.async_get(hass).async_get_or_create(
        "update",
        "esphome",
        MAC.upper(),
        config_entry=known.entry,
        device_id=known.device.id,
    )
    assert await hass.config_entries.async_setup(entry.entry_id)
    await eventually(lambda: hass.states.get("sensor.kettle_last_build") is not None)

    told = await _async_told(hass, hass_client, entry)

    assert _own_device(hass, entry, "kettle.yaml") is None
    kettle = told["entities"]["kettle.yaml"]
    assert kettle["updates_shown_by_esphome"] is True
    assert kettle["firmware"]["disabled_by"] == "integration"
    night_light = told["entities"]["night-light.yaml"]
    assert night_light["updates_shown_by_esphome"] is False
