"""The entities of configurations: where they are, and how they come and go."""

from collections.abc import Iterable
from pathlib import Path
import time
from unittest.mock import patch

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.esphome_builds.configurations import ConfigurationEntities
from custom_components.esphome_builds.const import CONF_ENTITIES, DOMAIN
from homeassistant.core import EVENT_STATE_CHANGED, HomeAssistant
from homeassistant.helpers import (
    area_registry as ar,
    device_registry as dr,
    entity_registry as er,
)
from homeassistant.helpers.device_registry import EVENT_DEVICE_REGISTRY_UPDATED
from homeassistant.helpers.entity_registry import EVENT_ENTITY_REGISTRY_UPDATED

from .esphome_device import MAC, EsphomeDevice
from .fakes import FAKE_VERSION, write_configuration
from .helpers import VERSION, async_until, async_until_state, shown


def ids(name: str) -> set[str]:
    """Return the entities of a configuration whose device has a name."""
    return {
        f"binary_sensor.{name}_pending_changes",
        f"button.{name}_compile",
        f"button.{name}_install",
        f"event.{name}_build",
        f"sensor.{name}_last_build",
        f"update.{name}_firmware",
    }


# Home Assistant puts the area before the name, and the example is in the kitchen.
KETTLE = ids("kitchen_kettle")
PORCH = ids("porch")
UPDATE = "update.kitchen_kettle_firmware"
_MANY = 300


def entities_of(hass: HomeAssistant, entry: MockConfigEntry, name: str) -> set[str]:
    """Return the ids of what is registered of a configuration."""
    prefix = f"{entry.entry_id}_{name}_"
    entries = er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
    return {one.entity_id for one in entries if one.unique_id.startswith(prefix)}


def devices_of(hass: HomeAssistant, entity_ids: Iterable[str]) -> set[str | None]:
    """Return the devices that entities are on."""
    registry = er.async_get(hass)
    entries = [registry.async_get(entity_id) for entity_id in entity_ids]
    return {entry.device_id for entry in entries if entry is not None}


def own_devices(hass: HomeAssistant, entry: MockConfigEntry) -> dict[str, str]:
    """Return the names and ids of our devices for configurations."""
    devices = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    return {
        device.name or "": device.id
        for device in devices
        if (DOMAIN, entry.entry_id) not in device.identifiers
    }


async def async_until_entities(
    hass: HomeAssistant, entry: MockConfigEntry, name: str, expected: set[str]
) -> None:
    """Wait until a configuration has exactly these entities."""
    await async_until(
        hass,
        EVENT_ENTITY_REGISTRY_UPDATED,
        lambda: entities_of(hass, entry, name) == expected,
    )
    await hass.async_block_till_done()


async def test_on_a_device_of_our_own(
    hass: HomeAssistant, builder: MockConfigEntry
) -> None:
    """Where Home Assistant does not know the device, there is one below the builder."""
    await async_until_entities(hass, builder, "kettle.yaml", KETTLE)

    (device_id,) = devices_of(hass, KETTLE)
    assert device_id is not None
    device = dr.async_get(hass).async_get(device_id)
    assert isinstance(device, dr.DeviceEntry)
    assert (device.name, device.manufacturer) == ("Kettle", "ESPHome")
    assert device.via_device_id is not None
    above = dr.async_get(hass).async_get(device.via_device_id)
    assert above is not None
    assert above.name == "ESPHome Builds (esphome)"
    # One can be enabled by who wants it.
    assert hass.states.get("button.kitchen_kettle_compile") is None
    names = {
        shown(hass, one).name for one in KETTLE - {"button.kitchen_kettle_compile"}
    }
    assert names == {
        "Kettle Build",
        "Kettle Firmware",
        "Kettle Install",
        "Kettle Last build",
        "Kettle Pending changes",
    }


async def test_on_the_device_that_was_there(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    """The page of the ESPHome device has the entities, and no second one exists."""
    known = EsphomeDevice(hass, "kettle", title="Water")

    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)

    await async_until_entities(hass, entry, "kettle.yaml", ids("water"))
    assert devices_of(hass, ids("water")) == {known.device.id}
    assert "Kettle" not in own_devices(hass, entry)


async def test_a_device_comes_and_goes(
    hass: HomeAssistant, builder: MockConfigEntry, device_registry: dr.DeviceRegistry
) -> None:
    """Entities move to the device and back, and stay what they are."""
    await async_until_entities(hass, builder, "kettle.yaml", KETTLE)
    er.async_get(hass).async_update_entity(UPDATE, name="Mine")

    known = EsphomeDevice(hass, "kettle", title="Water")
    await async_until(
        hass,
        EVENT_ENTITY_REGISTRY_UPDATED,
        lambda: devices_of(hass, KETTLE) == {known.device.id},
    )
    await hass.async_block_till_done()
    assert "Kettle" not in own_devices(hass, builder)
    assert entities_of(hass, builder, "kettle.yaml") == KETTLE
    assert shown(hass, "sensor.kitchen_kettle_last_build").name == "Water Last build"

    device_registry.async_remove_device(known.device.id)
    await async_until(
        hass,
        EVENT_DEVICE_REGISTRY_UPDATED,
        lambda: "Kettle" in own_devices(hass, builder),
    )
    await hass.async_block_till_done()
    own = own_devices(hass, builder)["Kettle"]
    assert devices_of(hass, KETTLE) == {own}
    assert shown(hass, UPDATE).name == "Mine"


async def test_another_board(hass: HomeAssistant, builder: MockConfigEntry) -> None:
    """A device whose address changes, since the board was replaced, is followed."""
    known = EsphomeDevice(hass, "kettle")
    old = known.device.id
    await async_until(
        hass, EVENT_ENTITY_REGISTRY_UPDATED, lambda: devices_of(hass, KETTLE) == {old}
    )

    new_mac = MAC.replace("02:", "04:")
    known.register(new_mac)
    hass.config_entries.async_update_entry(known.entry, unique_id=new_mac)

    await async_until(
        hass,
        EVENT_ENTITY_REGISTRY_UPDATED,
        lambda: devices_of(hass, KETTLE) == {known.device.id},
    )
    assert known.device.id != old


async def test_names_with_addresses(
    hass: HomeAssistant, builder: MockConfigEntry
) -> None:
    """A device that has added its address to its name is found, if it is the one."""
    await async_until_entities(hass, builder, "kettle.yaml", KETTLE)
    first = EsphomeDevice(hass, "kettle-000002")
    await async_until(
        hass,
        EVENT_ENTITY_REGISTRY_UPDATED,
        lambda: devices_of(hass, KETTLE) == {first.device.id},
    )

    EsphomeDevice(hass, "kettle-000003", MAC[:-1] + "3")

    # Which of two it is nobody can tell.
    await async_until(
        hass,
        EVENT_DEVICE_REGISTRY_UPDATED,
        lambda: "Kettle" in own_devices(hass, builder),
    )


async def test_a_configuration_comes_and_goes(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path
) -> None:
    """With the file come and go its entities and its device."""
    await async_until_entities(hass, builder, "kettle.yaml", KETTLE)
    name = write_configuration(config_dir, "porch")
    await hass.services.async_call(DOMAIN, "validate", {"configuration": name})
    await async_until_entities(hass, builder, name, PORCH)
    assert "porch" in own_devices(hass, builder)

    (config_dir / name).unlink()
    await hass.services.async_call(DOMAIN, "validate", {"configuration": "kettle.yaml"})

    await async_until_entities(hass, builder, name, set())
    assert "porch" not in own_devices(hass, builder)
    assert all(hass.states.get(one) is None for one in PORCH)


@pytest.mark.local_only("a server forgets a file that is gone only after a while")
async def test_a_file_is_renamed(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path
) -> None:
    """Entities of a file with another name, but of the same device, stay."""
    await async_until_entities(hass, builder, "kettle.yaml", KETTLE)
    er.async_get(hass).async_update_entity(UPDATE, name="Mine")
    (device_id,) = devices_of(hass, KETTLE)

    (config_dir / "kettle.yaml").rename(config_dir / "water.yaml")
    await hass.services.async_call(
        DOMAIN, "validate", {"configuration": "weather-station.yaml"}
    )

    await async_until_entities(hass, builder, "water.yaml", KETTLE)
    assert entities_of(hass, builder, "kettle.yaml") == set()
    assert devices_of(hass, KETTLE) == {device_id}
    assert shown(hass, UPDATE).name == "Mine"
    assert own_devices(hass, builder)["Kettle"] == device_id
    await hass.services.async_call(
        "button", "press", {"entity_id": "button.kitchen_kettle_install"}, blocking=True
    )
    await async_until_state(hass, "sensor.kitchen_kettle_last_build", "completed")


@pytest.mark.local_only("what is looked at is the same for both kinds")
async def test_what_was_removed_meanwhile(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path
) -> None:
    """What went while nothing ran is removed when it is certain."""
    await async_until_entities(hass, builder, "kettle.yaml", KETTLE)
    await hass.config_entries.async_unload(builder.entry_id)
    (config_dir / "kettle.yaml").unlink()

    assert await hass.config_entries.async_setup(builder.entry_id)

    await async_until_entities(hass, builder, "kettle.yaml", set())
    assert "Kettle" not in own_devices(hass, builder)
    assert len(own_devices(hass, builder)) > 1


async def test_without_entities(hass: HomeAssistant, builder: MockConfigEntry) -> None:
    """Who does not want them has none, also of those that were there."""
    await async_until_entities(hass, builder, "kettle.yaml", KETTLE)

    hass.config_entries.async_update_entry(builder, options={CONF_ENTITIES: False})
    await hass.config_entries.async_reload(builder.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    await hass.async_block_till_done()

    assert entities_of(hass, builder, "kettle.yaml") == set()
    assert own_devices(hass, builder) == {}

    hass.config_entries.async_update_entry(builder, options={CONF_ENTITIES: True})
    await hass.config_entries.async_reload(builder.entry_id)
    await async_until_entities(hass, builder, "kettle.yaml", KETTLE)


async def test_nothing_is_left(hass: HomeAssistant, builder: MockConfigEntry) -> None:
    """With the entry go all entities and devices, but not those of others."""
    known = EsphomeDevice(hass, "kettle")
    await async_until(
        hass,
        EVENT_ENTITY_REGISTRY_UPDATED,
        lambda: devices_of(hass, KETTLE) == {known.device.id},
    )

    await hass.config_entries.async_remove(builder.entry_id)
    await hass.async_block_till_done()

    registry = er.async_get(hass)
    assert er.async_entries_for_config_entry(registry, builder.entry_id) == []
    assert own_devices(hass, builder) == {}
    assert dr.async_get(hass).async_get(known.device.id) is not None


async def test_the_area(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path
) -> None:
    """A device of our own is in the area that the configuration names."""
    (config_dir / "porch.yaml").write_text(
        "esphome:\n  name: porch\n  friendly_name: Porch\n  area: Garden\nhost:\n"
    )
    await hass.services.async_call(DOMAIN, "validate", {"configuration": "porch.yaml"})
    await async_until_entities(hass, builder, "porch.yaml", ids("garden_porch"))

    device = dr.async_get(hass).async_get(own_devices(hass, builder)["Porch"])

    assert device is not None
    assert device.area_id is not None
    area = ar.async_get(hass).async_get_area(device.area_id)
    assert area is not None
    assert area.name == "Garden"


async def test_progress_writes_only_what_changes(
    hass: HomeAssistant, builder: MockConfigEntry, config_dir: Path, tmp_path: Path
) -> None:
    """A job's progress is no news for the entities of other configurations."""
    await async_until_entities(hass, builder, "kettle.yaml", KETTLE)
    go = tmp_path / "go"
    name = write_configuration(
        config_dir, "porch", "print Compiling .pioenvs/a.o", f"wait {go}"
    )
    await hass.services.async_call(DOMAIN, "validate", {"configuration": name})
    await async_until_entities(hass, builder, name, PORCH)
    written: list[str] = []
    hass.bus.async_listen(
        EVENT_STATE_CHANGED, lambda event: written.append(event.data["entity_id"])
    )

    await hass.services.async_call(DOMAIN, "install", {"configuration": name})
    go.touch()
    await async_until_state(hass, "sensor.porch_last_build", "completed")
    await async_until_state(hass, "update.porch_firmware", "unknown")

    of_configurations = {one for one in written if "esphome_builds" not in one}
    assert of_configurations <= PORCH


@pytest.mark.local_only("a server of the tests has few configurations")
async def test_many(
    hass: HomeAssistant, entry: MockConfigEntry, config_dir: Path
) -> None:
    """For 300 configurations, all entities are there within two seconds."""
    for number in range(_MANY):
        write_configuration(config_dir, f"device{number}")
    turns: list[float] = []
    sync = ConfigurationEntities._async_sync

    def _measured(self: ConfigurationEntities) -> None:
        before = time.process_time()
        sync(self)
        turns.append(time.process_time() - before)

    with patch.object(ConfigurationEntities, "_async_sync", _measured):
        assert await hass.config_entries.async_setup(entry.entry_id)
        last = f"update.device{_MANY - 1}_firmware"
        await async_until(
            hass, EVENT_STATE_CHANGED, lambda: bool(hass.states.get(last))
        )
        await async_until_state(hass, VERSION, FAKE_VERSION)
        await hass.async_block_till_done()
    registry = er.async_get(hass)
    ours = er.async_entries_for_config_entry(registry, entry.entry_id)

    assert len(ours) > _MANY * 6
    assert sum(turns) < 2
    # Nothing else has to wait for all of them.
    assert max(turns) < 0.5
