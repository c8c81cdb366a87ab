"""Adding a builder, and changing it."""

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any, Final, override
from urllib.parse import urlsplit

import voluptuous as vol

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntry,
    ConfigFlow,
    ConfigFlowResult,
    OptionsFlowWithReload,
)
from homeassistant.const import (
    CONF_PASSWORD,
    CONF_URL,
    CONF_USERNAME,
    UnitOfInformation,
    UnitOfTime,
)
from homeassistant.core import callback
from homeassistant.helpers.selector import (
    BooleanSelector,
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)
from homeassistant.helpers.service_info.zeroconf import ZeroconfServiceInfo

from .builds.device_builder.client import server_url
from .builds.device_builder.errors import (
    CannotConnectError,
    InvalidAuthError,
    UnsupportedVersionError,
)
from .builds.device_builder.wire import ServerInfo
from .builds.devices import DEVICE_WAIT_SECONDS
from .builds.local.environment import EsphomeFailedError, EsphomeMissingError
from .builds.local.settings import DEFAULT_LIMITS
from .builds.models import BuilderKind, JobKind
from .const import (
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
from .coordinator import BuildConfigEntry
from .device_builder import async_known_server, async_probe
from .local import DEFAULT_BUILD_LIMIT, async_obstacle, async_test_esphome

_MAX_GIB: Final = 10_000
_MAX_HOURS: Final = 30 * 24
_MAX_MINUTES: Final = 24 * 60
_MAX_SLOTS: Final = 16


def _number(maximum: int, unit: str | None = None, minimum: int = 1) -> vol.All:
    """Return a field for a whole number."""
    config = NumberSelectorConfig(min=minimum, max=maximum, mode=NumberSelectorMode.BOX)
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
_LOGIN: Final = vol.Schema(
    {
        vol.Optional(CONF_USERNAME): TextSelector(
            TextSelectorConfig(autocomplete="username")
        ),
        vol.Optional(CONF_PASSWORD): TextSelector(
            TextSelectorConfig(
                type=TextSelectorType.PASSWORD, autocomplete="current-password"
            )
        ),
    }
)
_DEVICE_BUILDER: Final = vol.Schema(
    {
        vol.Required(CONF_URL): TextSelector(
            TextSelectorConfig(type=TextSelectorType.URL)
        ),
        **_LOGIN.schema,
    }
)
_OPTIONS: Final = vol.Schema(
    {
        vol.Required(CONF_ENTITIES, default=True): BooleanSelector(),
        vol.Required(CONF_FAILURE_ISSUES, default=True): BooleanSelector(),
        vol.Required(
            CONF_DEVICE_WAIT, default=round(DEVICE_WAIT_SECONDS / 3600)
        ): _number(_MAX_HOURS, UnitOfTime.HOURS, minimum=0),
    }
)
_LOCAL_OPTIONS: Final = _OPTIONS.extend(
    {
        # Without a number it is the host's size that counts.
        vol.Optional(CONF_COMPILE_SLOTS): _number(_MAX_SLOTS),
        **_limit(CONF_COMPILE_LIMIT, DEFAULT_LIMITS[JobKind.COMPILE].total),
        **_limit(CONF_COMPILE_IDLE_LIMIT, DEFAULT_LIMITS[JobKind.COMPILE].idle),
        **_limit(CONF_UPLOAD_LIMIT, DEFAULT_LIMITS[JobKind.UPLOAD].total),
        vol.Required(CONF_BUILD_LIMIT, default=DEFAULT_BUILD_LIMIT): _number(
            _MAX_GIB, UnitOfInformation.GIBIBYTES, minimum=0
        ),
    }
)
_MANAGED_OPTIONS: Final = _LOCAL_OPTIONS.extend(
    {vol.Required(CONF_BETAS, default=False): BooleanSelector()}
)


class BuildsConfigFlow(ConfigFlow, domain=DOMAIN):
    """Adds a builder, or changes where it finds things."""

    VERSION = 1
    MINOR_VERSION = 1

    _found_url: str | None = None

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
            step_id="user", menu_options=[kind.value for kind in BuilderKind]
        )

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Show the form of the builder's kind again."""
        if self._get_reconfigure_entry().data[CONF_KIND] == BuilderKind.LOCAL:
            return await self.async_step_local(user_input)
        return await self.async_step_device_builder(user_input)

    async def async_step_local(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the folder and for ESPHome, and try both."""
        errors: dict[str, str] = {}
        facts: dict[str, str] = {}
        if user_input is not None:
            given = user_input[CONF_CONFIG_DIR].strip()
            esphome = user_input.get(CONF_ESPHOME, "").strip()
            folder = await self.hass.async_add_executor_job(
                _find_folder, self.hass.config.config_dir, given
            )
            if folder is None:
                errors[CONF_CONFIG_DIR] = "config_dir_missing"
            problem, facts = await self._async_try_esphome(esphome)
            if problem is not None:
                errors[CONF_ESPHOME] = problem
            if folder is not None and not errors:
                return await self._async_finish(folder, esphome)
        return self.async_show_form(
            step_id="local",
            data_schema=self.add_suggested_values_to_schema(
                _LOCAL, user_input or self._suggested_values()
            ),
            description_placeholders=facts,
            errors=errors,
        )

    async def _async_try_esphome(
        self, esphome: str
    ) -> tuple[str | None, dict[str, str]]:
        """Return what is wrong with an executable, and what a text about it needs.

        Without one, it is what makes it impossible to install ESPHome.
        """
        try:
            if esphome:
                await async_test_esphome(self.hass, esphome)
            elif (finding := await async_obstacle(self.hass)) is not None:
                facts = {name: str(fact) for name, fact in finding.facts.items()}
                return finding.obstacle.value, facts
        except EsphomeMissingError:
            return "esphome_missing", {}
        except EsphomeFailedError:
            return "esphome_failed", {}
        return None, {}

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

    @override
    async def async_step_zeroconf(
        self, discovery_info: ZeroconfServiceInfo
    ) -> ConfigFlowResult:
        """Offer a server that was found, unless it is there already."""
        hosts = (discovery_info.host, discovery_info.hostname.rstrip("."))
        for host in hosts:
            url = server_url(f"{host}:{discovery_info.port}")
            self._async_abort_entries_match({CONF_URL: url})
        self._found_url = server_url(f"{hosts[0]}:{discovery_info.port}")
        await self.async_set_unique_id(self._found_url)
        try:
            info = await async_probe(self.hass, self._found_url, None, None)
        except InvalidAuthError:
            name = discovery_info.name.partition(".")[0]
        except CannotConnectError:
            return self.async_abort(reason="cannot_connect")
        except UnsupportedVersionError:
            return self.async_abort(reason="unsupported_version")
        else:
            name = _title(self._found_url, info)
        self.context["title_placeholders"] = {"name": name}
        return await self.async_step_device_builder()

    async def async_step_device_builder(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the server and for who we are there, and try it."""
        errors: dict[str, str] = {}
        if user_input is not None:
            try:
                url = server_url(user_input[CONF_URL])
            except ValueError:
                errors[CONF_URL] = "invalid_url"
            else:
                login = self._login(user_input)
                info = await self._async_try(url, login, errors)
                if info is not None:
                    return await self._async_finish_server(url, login, info)
        return self.async_show_form(
            step_id="device_builder",
            data_schema=self.add_suggested_values_to_schema(
                _DEVICE_BUILDER, user_input or self._suggested_server()
            ),
            errors=errors,
        )

    async def async_step_reauth(self, _: Mapping[str, Any]) -> ConfigFlowResult:
        """Begin to ask for who we are, since the server does not know us any more."""
        return await self.async_step_reauth_confirm()

    async def async_step_reauth_confirm(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for user name and password, and try them."""
        entry = self._get_reauth_entry()
        errors: dict[str, str] = {}
        if user_input is not None:
            login = self._login(user_input)
            if await self._async_try(entry.data[CONF_URL], login, errors) is not None:
                return self.async_update_reload_and_abort(
                    entry, data=_without_login(entry) | login
                )
        return self.async_show_form(
            step_id="reauth_confirm",
            data_schema=self.add_suggested_values_to_schema(
                _LOGIN, {CONF_USERNAME: entry.data.get(CONF_USERNAME)}
            ),
            description_placeholders={"url": entry.data[CONF_URL]},
            errors=errors,
        )

    def _suggested_server(self) -> dict[str, Any]:
        """Return what the form shows first; a password is never shown."""
        if self.source == SOURCE_RECONFIGURE:
            data = self._get_reconfigure_entry().data
            return {key: data.get(key) for key in (CONF_URL, CONF_USERNAME)}
        return {CONF_URL: self._found_url or async_known_server(self.hass)}

    def _login(self, user_input: dict[str, Any]) -> dict[str, str]:
        """Return user name and password, or nothing where none is given.

        In a builder that is changed, the password may stay what it is.
        """
        username = user_input.get(CONF_USERNAME, "").strip()
        if not username:
            return {}
        password = user_input.get(CONF_PASSWORD, "")
        if not password and self.source == SOURCE_RECONFIGURE:
            data = self._get_reconfigure_entry().data
            if data.get(CONF_USERNAME) == username:
                password = data[CONF_PASSWORD]
        return {CONF_USERNAME: username, CONF_PASSWORD: password}

    async def _async_try(
        self, url: str, login: Mapping[str, str], errors: dict[str, str]
    ) -> ServerInfo | None:
        """Return what the server is, or note what is wrong."""
        try:
            return await async_probe(
                self.hass, url, login.get(CONF_USERNAME), login.get(CONF_PASSWORD)
            )
        except CannotConnectError:
            errors["base"] = "cannot_connect"
        except InvalidAuthError:
            errors["base"] = "invalid_auth"
        except UnsupportedVersionError:
            errors["base"] = "unsupported_version"
        return None

    async def _async_finish_server(
        self, url: str, login: dict[str, str], info: ServerInfo
    ) -> ConfigFlowResult:
        """Make or change the entry, unless another one has the server."""
        await self.async_set_unique_id(url, raise_on_progress=False)
        data = {CONF_KIND: BuilderKind.DEVICE_BUILDER.value, CONF_URL: url, **login}
        if self.source != SOURCE_RECONFIGURE:
            self._abort_if_unique_id_configured()
            return self.async_create_entry(title=_title(url, info), data=data)
        entry = self._get_reconfigure_entry()
        if entry.unique_id != url:
            self._abort_if_unique_id_configured()
        return self.async_update_reload_and_abort(entry, unique_id=url, data=data)


def _title(url: str, info: ServerInfo) -> str:
    """Return what a builder is called: as the server calls itself, or its host."""
    return info.friendly_name or urlsplit(url).hostname or url


def _without_login(entry: ConfigEntry) -> dict[str, Any]:
    return {key: entry.data[key] for key in (CONF_KIND, CONF_URL)}


class BuildsOptionsFlow(OptionsFlowWithReload):
    """Changes how a builder works."""

    async def async_step_init(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for all options at once."""
        if user_input is not None:
            return self.async_create_entry(data=user_input)
        return self.async_show_form(
            step_id="init",
            data_schema=self.add_suggested_values_to_schema(
                _options(self.config_entry), self.config_entry.options
            ),
        )


def _options(entry: ConfigEntry) -> vol.Schema:
    """Return what there is to choose; how it builds, a server decides for itself."""
    if entry.data[CONF_KIND] != BuilderKind.LOCAL:
        return _OPTIONS
    return _LOCAL_OPTIONS if entry.data[CONF_ESPHOME] else _MANAGED_OPTIONS


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
