"""Which jobs an automation means: what its triggers and conditions have in common."""

from typing import Any, Final

import voluptuous as vol

from homeassistant.components.event import DOMAIN as EVENT_DOMAIN
from homeassistant.const import CONF_OPTIONS, CONF_TARGET
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import config_validation as cv, entity_registry as er
from homeassistant.helpers.target import (
    TargetSelection,
    async_extract_referenced_entity_ids,
)

from .builders import async_coordinators
from .builds.models import JobKind
from .const import ATTR_CONFIG_ENTRY_ID, ATTR_CONFIGURATION, ATTR_KIND, DOMAIN

_KINDS: Final = [kind.value for kind in JobKind]
_NAMES: Final = vol.All(cv.ensure_list, [cv.string])

SELECTION_SCHEMA: Final = vol.Schema(
    {
        vol.Optional(CONF_TARGET): cv.TARGET_FIELDS,
        vol.Required(CONF_OPTIONS, default=dict): {
            vol.Optional(ATTR_CONFIG_ENTRY_ID, default=list): _NAMES,
            vol.Optional(ATTR_CONFIGURATION, default=list): _NAMES,
            vol.Optional(ATTR_KIND, default=list): vol.All(
                cv.ensure_list, [vol.In(_KINDS)]
            ),
        },
    }
)
"""What a user can narrow; what is left out or empty narrows nothing."""


class JobSelection:
    """Tells whether a job is among those that a target and options mean."""

    def __init__(
        self,
        hass: HomeAssistant,
        target: dict[str, Any] | None,
        options: dict[str, Any] | None,
    ) -> None:
        """Take what `SELECTION_SCHEMA` returns."""
        options = options or {}
        self._configurations = frozenset(options.get(ATTR_CONFIGURATION, ()))
        self._entry_ids = frozenset(options.get(ATTR_CONFIG_ENTRY_ID, ()))
        self._hass = hass
        self._kinds = frozenset(options.get(ATTR_KIND, ()))
        self._target = TargetSelection(target or {})

    @property
    def has_target(self) -> bool:
        """Return whether it depends on what is where, which a user can change."""
        return self._target.has_any_target

    @callback
    def matches(self, entry_id: str, configuration: str, kind: str) -> bool:
        """Return whether a job is meant that is such a one."""
        return (
            self._matches_kind(kind)
            and (not self._entry_ids or entry_id in self._entry_ids)
            and (not self._configurations or configuration in self._configurations)
            and (not self.has_target or self._is_targeted(entry_id, configuration))
        )

    def _matches_kind(self, kind: str) -> bool:
        """Return whether a kind is meant.

        The installation of an ESPHome is no build, so it has to be named.
        """
        return kind in self._kinds if self._kinds else kind != JobKind.INSTALL_ESPHOME

    def _is_targeted(self, entry_id: str, configuration: str) -> bool:
        """Return whether the target has the events of a configuration or its builder.

        It is looked at each time, since devices move and labels change.
        """
        selected = async_extract_referenced_entity_ids(self._hass, self._target)
        targeted = selected.referenced | selected.indirectly_referenced
        registry = er.async_get(self._hass)
        builds, build = (
            registry.async_get_entity_id(EVENT_DOMAIN, DOMAIN, f"{entry_id}_{key}")
            for key in ("builds", f"{configuration}_build")
        )
        if build is None:
            # A user can do without entities of configurations.
            device_id = self._device_id(entry_id, configuration)
            return builds in targeted or device_id in selected.referenced_devices
        return build in targeted or builds in targeted

    def _device_id(self, entry_id: str, name: str) -> str | None:
        """Return the device of a configuration, as far as it is known."""
        for coordinator in async_coordinators(self._hass):
            if coordinator.config_entry.entry_id == entry_id:
                found = coordinator.builder.configurations.get(name)
                return None if found is None else found.device_id
        return None
