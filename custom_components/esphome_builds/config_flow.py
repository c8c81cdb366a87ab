"""Adding a builder, and changing it."""

import os
from pathlib import Path
from typing import Any, Final, override

import voluptuous as vol

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigFlow,
    ConfigFlowResult,
    OptionsFlowWithReload,
)
from homeassistant.const import UnitOfTime
from homeassistant.core import callback
from homeassistant.helpers.selector import (
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    TextSelector,
)

from .builds.local.builder import DEFAULT_LIMITS
from .builds.local.environment import EsphomeFailedError, EsphomeMissingError
from .builds.models import BuilderKind, JobKind
from .const import (
    CONF_COMPILE_IDLE_LIMIT,
    CONF_COMPILE_LIMIT,
    CONF_COMPILE_SLOTS,
    CONF_CONFIG_DIR,
    CONF_ESPHOME,
    CONF_KIND,
    CONF_UPLOAD_LIMIT,
    DOMAIN,
)
from .coordinator import BuildConfigEntry
from .local import async_test_esphome

_MAX_MINUTES: Final = 24 * 60
_MAX_SLOTS: Final = 16


def _number(maximum: int, unit: str | None = None) -> vol.All:
    """Return a field for a whole number from 1 on."""
    config = NumberSelectorConfig(min=1, max=maximum, mode=NumberSelectorMode.BOX)
    if unit is not None:
        config["unit_of_measurement"] = unit
    return vol.All(NumberSelector(config), vol.Coerce(int))


def _limit(option: str, seconds: float | None) -> dict[vol.Marker, vol.All]:
    """Return a field for a time limit in minutes."""
    default = vol.UNDEFINED if seconds is None else round(seconds / 60)
    return {
        vol.Required(option, default=default): _number(_MAX_MINUTES, UnitOfTime.MINUTES)
    }


_LOCAL: Final = vol.Schema(
    {
        vol.Required(CONF_CONFIG_DIR): TextSelector(),
        vol.Optional(CONF_ESPHOME): TextSelector(),
    }
)
_OPTIONS: Final = vol.Schema(
    {
        # Without a number it is the host's size that counts.
        vol.Optional(CONF_COMPILE_SLOTS): _number(_MAX_SLOTS),
        **_limit(CONF_COMPILE_LIMIT, DEFAULT_LIMITS[JobKind.COMPILE].total),
        **_limit(CONF_COMPILE_IDLE_LIMIT, DEFAULT_LIMITS[JobKind.COMPILE].idle),
        **_limit(CONF_UPLOAD_LIMIT, DEFAULT_LIMITS[JobKind.UPLOAD].total),
    }
)


class BuildsConfigFlow(ConfigFlow, domain=DOMAIN):
    """Adds a builder, or changes where it finds things."""

    VERSION = 1
    MINOR_VERSION = 1

    @staticmethod
    @callback
    @override
    def async_get_options_flow(config_entry: BuildConfigEntry) -> BuildsOptionsFlow:
        """Return the flow that changes how a builder works."""
        return BuildsOptionsFlow()

    @override
    async def async_step_user(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the kind of builder."""
        return self.async_show_menu(
            step_id="user", menu_options=[BuilderKind.LOCAL.value]
        )

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Show the form of the builder's kind again."""
        return await self.async_step_local(user_input)

    async def async_step_local(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the folder and for ESPHome, and try both."""
        errors: dict[str, str] = {}
        if user_input is not None:
            given = user_input[CONF_CONFIG_DIR].strip()
            esphome = user_input.get(CONF_ESPHOME, "").strip()
            folder = await self.hass.async_add_executor_job(
                _find_folder, self.hass.config.config_dir, given
            )
            if folder is None:
                errors[CONF_CONFIG_DIR] = "config_dir_missing"
            try:
                await async_test_esphome(self.hass, esphome)
            except EsphomeMissingError:
                errors[CONF_ESPHOME] = "esphome_missing"
            except EsphomeFailedError:
                errors[CONF_ESPHOME] = "esphome_failed"
            if folder is not None and not errors:
                return await self._async_finish(folder, esphome)
        return self.async_show_form(
            step_id="local",
            data_schema=self.add_suggested_values_to_schema(
                _LOCAL, user_input or self._suggested_values()
            ),
            errors=errors,
        )

    def _suggested_values(self) -> dict[str, Any]:
        """Return what the form shows first."""
        if self.source == SOURCE_RECONFIGURE:
            return dict(self._get_reconfigure_entry().data)
        return {CONF_CONFIG_DIR: self.hass.config.path("esphome")}

    async def _async_finish(self, folder: Path, esphome: str) -> ConfigFlowResult:
        """Make or change the entry, unless another one has the folder."""
        await self.async_set_unique_id(str(folder), raise_on_progress=False)
        title = folder.name or str(folder)
        data = {
            CONF_KIND: BuilderKind.LOCAL.value,
            CONF_CONFIG_DIR: str(folder),
            CONF_ESPHOME: esphome,
        }
        if self.source != SOURCE_RECONFIGURE:
            self._abort_if_unique_id_configured()
            return self.async_create_entry(title=title, data=data)
        entry = self._get_reconfigure_entry()
        if entry.unique_id == self.unique_id:
            # The folder is the same, so a title that was chosen stays.
            title = entry.title
        else:
            self._abort_if_unique_id_configured()
        return self.async_update_reload_and_abort(
            entry, unique_id=self.unique_id, title=title, data=data
        )


class BuildsOptionsFlow(OptionsFlowWithReload):
    """Changes how a local builder works."""

    async def async_step_init(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for all options at once."""
        if user_input is not None:
            return self.async_create_entry(data=user_input)
        return self.async_show_form(
            step_id="init",
            data_schema=self.add_suggested_values_to_schema(
                _OPTIONS, self.config_entry.options
            ),
        )


def _find_folder(base: str, given: str) -> Path | None:
    """Return the real path of a folder, or None if it cannot be read; blocking."""
    if not given:
        return None
    try:
        folder = Path(base, Path(given).expanduser()).resolve(strict=True)
        os.scandir(folder).close()
    except OSError, RuntimeError, ValueError:
        return None
    return folder
