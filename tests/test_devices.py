"""Which device of Home Assistant a configuration belongs to."""

import os
from pathlib import Path

import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockModule,
    mock_integration,
)

from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr

from .clients import Client, Message, Subscription
from .fakes import FAKE_VERSION, fake_version
from .helpers import VERSION, async_act, async_until_state

MAC = "02:eb:00:00:00:02"


def _entry(
    hass: HomeAssistant, name: str | None, unique_id: str | None = MAC
) -> MockConfigEntry:
    """Return an entry as Home Assistant's own ESPHome integration makes it."""
    data = {} if name is None else {"device_name": name}
    entry = MockConfigEntry(domain="esphome", data=data, unique_id=unique_id)
    entry.add_to_hass(hass)
    return entry


def _device(hass: HomeAssistant, entry: MockConfigEntry) -> dr.DeviceEntry:
    return dr.async_get(hass).async_get_or_create(
        config_entry_id=entry.entry_id, connections={(dr.CONNECTION_NETWORK_MAC, MAC)}
    )


async def _async_device_ids(client: Client) -> dict[str, str]:
    """Return the devices of those configurations that have one."""
    answer = await client.call("esphome_builds/configurations/list")
    return {
        configuration["configuration"]: configuration["device_id"]
        for configuration in answer["configurations"]
        if configuration["device_id"] is not None
    }


@pytest.fixture
async def news(client: Client) -> Subscription:
    """Return a stream whose snapshot was read already."""
    subscription = await client.subscribe("esphome_builds/subscribe")
    await subscription.next()
    return subscription


async def _async_configuration(news: Subscription) -> Message:
    """Return the next configuration that is told of."""
    configuration: Message = (await news.until("configuration"))[-1]["configuration"]
    return configuration


async def test_a_device_that_was_there_before(
    hass: HomeAssistant, client: Client, builder: MockConfigEntry
) -> None:
    """A device that Home Assistant knows is found at the start."""
    await hass.config_entries.async_unload(builder.entry_id)
    device = _device(hass, _entry(hass, "kettle"))

    assert await hass.config_entries.async_setup(builder.entry_id)

    await async_until_state(hass, VERSION, FAKE_VERSION)
    assert await _async_device_ids(client) == {"kettle.yaml": device.id}


async def test_devices_come_and_go(
    hass: HomeAssistant,
    client: Client,
    news: Subscription,
    device_registry: dr.DeviceRegistry,
) -> None:
    """A configuration gets its device, and loses it, while all goes on."""
    assert await _async_device_ids(client) == {}

    device = _device(hass, _entry(hass, "kettle"))
    told = await _async_configuration(news)
    assert (told["configuration"], told["device_id"]) == ("kettle.yaml", device.id)
    assert await _async_device_ids(client) == {"kettle.yaml": device.id}

    device_registry.async_remove_device(device.id)
    told = await _async_configuration(news)
    assert (told["configuration"], told["device_id"]) == ("kettle.yaml", None)
    assert await _async_device_ids(client) == {}


async def test_a_removed_entry(
    hass: HomeAssistant, client: Client, news: Subscription
) -> None:
    """A device also goes with its entry."""
    # The real one needs packages that are installed when it is first used.
    mock_integration(hass, MockModule("esphome"))
    entry = _entry(hass, "kettle")
    _device(hass, entry)
    await _async_configuration(news)

    await hass.config_entries.async_remove(entry.entry_id)

    assert (await _async_configuration(news))["device_id"] is None


@pytest.mark.parametrize(
    ("name", "unique_id"),
    [("another", MAC), (None, MAC), ("kettle", None), ("kettle", "02:eb:00:00:00:99")],
)
async def test_devices_that_are_of_no_configuration(
    hass: HomeAssistant,
    client: Client,
    news: Subscription,
    name: str | None,
    unique_id: str | None,
) -> None:
    """Only a device with the name, and of the entry with its address, belongs."""
    _device(hass, _entry(hass, name, unique_id))
    await hass.async_block_till_done()

    assert await _async_device_ids(client) == {}
    assert news.waiting() == []


async def test_a_changed_device_is_no_news(
    hass: HomeAssistant,
    client: Client,
    news: Subscription,
    device_registry: dr.DeviceRegistry,
) -> None:
    """A device that is renamed is still the same."""
    device = _device(hass, _entry(hass, "kettle"))
    await _async_configuration(news)

    device_registry.async_update_device(device.id, name_by_user="Teapot")
    await hass.async_block_till_done()

    assert await _async_device_ids(client) == {"kettle.yaml": device.id}
    assert news.waiting() == []


@pytest.mark.parametrize(
    ("software", "version", "available"),
    [
        ("2020.1.0 (Nov 24 2026, 09:00:00)", "2020.1.0", True),
        ("1.2.3 (ESPHome 2020.1.0)", "2020.1.0", True),
        (f"{FAKE_VERSION}b1 (Nov 24 2026, 09:00:00)", f"{FAKE_VERSION}b1", True),
        (FAKE_VERSION, FAKE_VERSION, False),
        ("2099.1.0-dev", "2099.1.0-dev", False),
        ("something else", None, None),
        (None, None, None),
    ],
)
async def test_what_a_device_runs(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    news: Subscription,
    device_registry: dr.DeviceRegistry,
    software: str | None,
    version: str | None,
    available: bool | None,
) -> None:
    """The device has told Home Assistant, and what is older can be updated."""
    device = _device(hass, _entry(hass, "kettle"))
    await _async_configuration(news)

    device_registry.async_update_device(device.id, sw_version=software or "0")
    if software is None:
        device_registry.async_update_device(device.id, sw_version=None)
    await hass.async_block_till_done()

    answer = await news.client.call("esphome_builds/configurations/list")
    (told,) = (one for one in answer["configurations"] if one["device_id"])
    assert told["deployed_version"] == version
    assert told["update_available"] is available


@pytest.mark.local_only("a server tells its version when a connection begins")
async def test_what_another_esphome_changes(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    esphome: Path,
    news: Subscription,
) -> None:
    """A device that was up to date can be updated as soon as the builder is newer."""
    registry = dr.async_get(hass)
    device = _device(hass, _entry(hass, "kettle"))
    assert (await _async_configuration(news))["update_available"] is None
    registry.async_update_device(device.id, sw_version=FAKE_VERSION)
    assert (await _async_configuration(news))["update_available"] is False

    fake_version(esphome, "print Version: 2099.1.0")
    os.utime(esphome, (0, 0))
    await async_act(hass, "validate", "kettle.yaml")

    while not (await _async_configuration(news))["update_available"]:
        pass


async def test_another_release_of_the_integration(
    hass: HomeAssistant, client: Client, news: Subscription
) -> None:
    """Where it holds its devices in another way, the registry is enough."""
    entry = _entry(hass, "kettle")
    entry.runtime_data = object()
    entry.mock_state(hass, ConfigEntryState.LOADED)

    device = _device(hass, entry)

    told = await _async_configuration(news)
    assert (told["device_id"], told["online"]) == (device.id, None)
