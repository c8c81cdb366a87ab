"""The entities of the configurations: they come, move, and go with them."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable
import re
from typing import Final

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import (
    device_registry as dr,
    entity_registry as er,
    issue_registry as ir,
)
from homeassistant.helpers.dispatcher import async_dispatcher_connect

from .builds.models import (
    BuilderState,
    Configuration,
    ConfigurationEvent,
    ConfigurationRemovedEvent,
    Event,
)
from .const import CONF_ENTITIES, DOMAIN, SIGNAL_EVENT
from .coordinator import BuildCoordinator
from .devices import async_own_device, async_shows_updates, own_device_identifier
from .entity import (
    CONFIGURATION_KEYS,
    ConfigurationEntity,
    async_find_entry,
    configuration_device_info,
    configuration_unique_id,
)

_BATCH: Final = 25
"""Of so many configurations entities are added before something else has its turn."""

_FIRMWARE: Final = "firmware"
_OURS: Final = re.compile(
    rf"(?P<configuration>.+\.ya?ml)_(?:{'|'.join(CONFIGURATION_KEYS)})"
)


class ConfigurationEntities:
    """Keeps the entities of a builder's configurations as the configurations are.

    A file that gets another name, but describes the same device, is no other
    configuration: its entities stay what they are.
    """

    def __init__(self, hass: HomeAssistant, coordinator: BuildCoordinator) -> None:
        """Begin without any; the platforms have said which there can be."""
        self._coordinator = coordinator
        self._due = False
        self._entities: defaultdict[str, list[ConfigurationEntity]]
        self._entities = defaultdict(list)
        self._entry = coordinator.config_entry
        self._hass = hass
        self._issue_id = f"updates_elsewhere_{self._entry.entry_id}"
        self._known: dict[str, Configuration] = {}
        self._wanted: bool = self._entry.options.get(CONF_ENTITIES, True)
        self._was_ready = False

    @callback
    def async_start(self) -> Callable[[], None]:
        """Follow the configurations until the result is called."""
        if not self._wanted:
            self._async_clean_up(())
            return _nothing
        stop_listening = async_dispatcher_connect(
            self._hass, SIGNAL_EVENT, self._async_on_event
        )

        @callback
        def _async_stop() -> None:
            stop_listening()
            ir.async_delete_issue(self._hass, DOMAIN, self._issue_id)

        return _async_stop

    @callback
    def _async_on_event(self, entry_id: str, event: Event) -> None:
        """Look once at all that changes in this turn of the event loop."""
        is_ready = self._coordinator.builder.info.state is BuilderState.READY
        if entry_id == self._entry.entry_id and (
            isinstance(event, ConfigurationEvent | ConfigurationRemovedEvent)
            or is_ready is not self._was_ready
        ):
            self._async_sync_soon()

    @callback
    def _async_sync_soon(self) -> None:
        if not self._due:
            self._due = True
            self._hass.loop.call_soon(self._async_sync)

    @callback
    def _async_sync(self) -> None:
        """Let the entities be those of the configurations there are now."""
        self._due = False
        there = self._coordinator.builder.configurations
        before = self._known
        now = {
            name: configuration
            for name, configuration in there.items()
            if name in before or self._async_is_device(configuration)
        }
        gone = {name: before[name] for name in before.keys() - now.keys()}
        new = {name: now[name] for name in now.keys() - before.keys()}
        for old_name, new_name in _renamed(gone, new):
            self._async_rename(old_name, new_name)
            del gone[old_name], new[new_name]
        for name in gone:
            self._async_remove(name)
        for name in now.keys() & before.keys():
            if _place(before[name]) != _place(now[name]):
                self._async_move(now[name])
        for name in sorted(new)[_BATCH:]:
            del new[name], now[name]
            self._async_sync_soon()
        self._known = now
        self._async_add(new.values())
        is_ready = self._coordinator.builder.info.state is BuilderState.READY
        if is_ready and not self._was_ready:
            # Only now is it certain which configurations there are.
            self._async_clean_up(there)
        self._was_ready = is_ready

    @callback
    def _async_is_device(self, configuration: Configuration) -> bool:
        """Return whether a file describes a device, and is no part of others.

        One that cannot be read now does if it did before.
        """
        return configuration.name is not None or bool(
            self._async_entries(configuration.configuration)
        )

    @callback
    def _async_add(self, configurations: Iterable[Configuration]) -> None:
        """Add the entities of new configurations, all of a platform together."""
        new = tuple(configurations)
        if not new:
            return
        for configuration in new:
            if configuration.device_id is not None:
                self._async_remove_own_device(configuration.configuration, move=True)
        for async_add_entities, make in self._coordinator.configuration_platforms:
            entities = []
            for configuration in new:
                made = make(configuration)
                self._entities[configuration.configuration] += made
                entities += made
            async_add_entities(entities)
        if not self._due:
            # Those that wait for their turn are told of with the last.
            self._async_tell_of_others()

    @callback
    def _async_tell_of_others(self) -> None:
        """Say for which devices another entity shows updates, and ours is disabled."""
        devices = {
            configuration.friendly_name or name
            for name, configuration in self._known.items()
            if async_shows_updates(self._hass, configuration.device_id)
            and (entry := async_find_entry(self._coordinator, name, _FIRMWARE))
            and entry.disabled_by is er.RegistryEntryDisabler.INTEGRATION
        }
        if not devices:
            ir.async_delete_issue(self._hass, DOMAIN, self._issue_id)
            return
        ir.async_create_issue(
            self._hass,
            DOMAIN,
            self._issue_id,
            is_fixable=False,
            severity=ir.IssueSeverity.WARNING,
            translation_key="updates_elsewhere",
            translation_placeholders={
                "builder": self._entry.title,
                "devices": ", ".join(sorted(devices)),
            },
        )

    @callback
    def _async_remove(self, name: str) -> None:
        """Remove the entities of a configuration that is gone, and its device."""
        self._entities.pop(name, None)
        for entry in self._async_entries(name).values():
            er.async_get(self._hass).async_remove(entry.entity_id)
        self._async_remove_own_device(name)

    @callback
    def _async_rename(self, old_name: str, new_name: str) -> None:
        """Let entities and device be those of a file with another name."""
        registry = er.async_get(self._hass)
        for key, entry in self._async_entries(old_name).items():
            unique_id = configuration_unique_id(self._entry.entry_id, new_name, key)
            registry.async_update_entity(entry.entity_id, new_unique_id=unique_id)
        self._entities[new_name] = self._entities.pop(old_name, [])
        for entity in self._entities[new_name]:
            entity.async_rename(new_name)
        entry_id = self._entry.entry_id
        if device := async_own_device(self._hass, entry_id, old_name):
            dr.async_get(self._hass).async_update_device(
                device.id, new_identifiers={own_device_identifier(entry_id, new_name)}
            )

    @callback
    def _async_move(self, configuration: Configuration) -> None:
        """Let the entities be on the device that the configuration has now."""
        device_id = configuration.device_id
        if device_id is None:
            device = dr.async_get(self._hass).async_get_or_create(
                config_entry_id=self._entry.entry_id,
                **configuration_device_info(self._coordinator, configuration),
            )
            device_id = device.id
        registry = er.async_get(self._hass)
        for entry in self._async_entries(configuration.configuration).values():
            registry.async_update_entity(entry.entity_id, device_id=device_id)
        if configuration.device_id is not None:
            self._async_remove_own_device(configuration.configuration)

    @callback
    def _async_remove_own_device(self, name: str, *, move: bool = False) -> None:
        """Remove our own device of a configuration; entities stay if they move.

        What is still on a device when it goes is removed with it.
        """
        device = async_own_device(self._hass, self._entry.entry_id, name)
        if device is None:
            return
        registry = er.async_get(self._hass)
        if move:
            for entry in er.async_entries_for_device(
                registry, device.id, include_disabled_entities=True
            ):
                registry.async_update_entity(entry.entity_id, device_id=None)
        dr.async_get(self._hass).async_remove_device(device.id)

    @callback
    def _async_entries(self, name: str) -> dict[str, er.RegistryEntry]:
        """Return what is registered of a configuration, by its keys."""
        found = {
            key: async_find_entry(self._coordinator, name, key)
            for key in CONFIGURATION_KEYS
        }
        return {key: entry for key, entry in found.items() if entry is not None}

    @callback
    def _async_clean_up(self, wanted: Container[str]) -> None:
        """Remove what an earlier run left of other configurations than these."""
        prefix = f"{self._entry.entry_id}_"
        entities = er.async_get(self._hass)
        for entry in er.async_entries_for_config_entry(entities, self._entry.entry_id):
            match = _OURS.fullmatch(entry.unique_id.removeprefix(prefix))
            if match is not None and match["configuration"] not in wanted:
                entities.async_remove(entry.entity_id)
        devices = dr.async_get(self._hass)
        for device in dr.async_entries_for_config_entry(devices, self._entry.entry_id):
            for domain, identifier in device.identifiers:
                name = identifier.removeprefix(prefix)
                if domain == DOMAIN and name != identifier and name not in wanted:
                    devices.async_remove_device(device.id)


def _renamed(
    gone: dict[str, Configuration], new: dict[str, Configuration]
) -> list[tuple[str, str]]:
    """Return old and new names of files that only have another name now."""
    return [
        (old_name, fitting[0])
        for old_name, old in gone.items()
        if old.name is not None
        and len(fitting := [name for name, one in new.items() if one.name == old.name])
        == 1
        and sum(other.name == old.name for other in gone.values()) == 1
    ]


def _place(configuration: Configuration) -> tuple[object, ...]:
    """Return what says which device the entities are on, and how it looks."""
    if configuration.device_id is not None:
        return (configuration.device_id,)
    return (
        configuration.friendly_name,
        configuration.name,
        configuration.platform,
        configuration.deployed_version,
    )


def _nothing() -> None:
    """Do nothing."""
