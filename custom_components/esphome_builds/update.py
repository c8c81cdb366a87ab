"""The update entity of a builder that installs ESPHome itself."""

from datetime import timedelta
from random import randrange
import re
from typing import Any, Final, override

from homeassistant.components.update import (
    UpdateEntity,
    UpdateEntityDescription,
    UpdateEntityFeature,
)
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.start import async_at_started
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator, UpdateFailed

from .builders import requester
from .builds.local.uv import LatestUnknownError
from .builds.models import Event, Job, JobEvent, JobKind, JobStatus
from .const import DOMAIN, LOGGER, SIGNAL_EVENT
from .coordinator import BuildConfigEntry, BuildCoordinator
from .entity import BuilderEntity, async_forget_entity
from .errors import translated_errors
from .local import async_latest_esphome

# An installation that is asked for must not wait for another one: the builder says no.
PARALLEL_UPDATES = 0

ESPHOME = UpdateEntityDescription(key="esphome", translation_key="esphome")

_CHANGELOG: Final = "https://esphome.io/changelog/"
_INTERVAL: Final = timedelta(hours=12)
_RELEASE: Final = re.compile(r"(\d+\.\d+)\.\d+")
_RETRY: Final = timedelta(hours=1)
# So that not everybody asks at the same time after a power cut.
_SPREAD_SECONDS: Final = 30 * 60


async def async_setup_entry(
    hass: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the update entity, where there is something to update."""
    coordinator = entry.runtime_data
    if not coordinator.builder.info.managed:
        async_forget_entity(coordinator, Platform.UPDATE, ESPHOME)
        return
    latest = LatestEsphome(hass, entry)
    async_add_entities([EsphomeUpdate(coordinator, latest)])

    @callback
    def _async_ask(_: HomeAssistant) -> None:
        entry.async_create_background_task(
            hass, latest.async_refresh(), "latest ESPHome"
        )

    entry.async_on_unload(async_at_started(hass, _async_ask))


class LatestEsphome(DataUpdateCoordinator[str | None]):
    """Asks which ESPHome is the latest; while nobody answers, it is the last known."""

    config_entry: BuildConfigEntry

    def __init__(self, hass: HomeAssistant, entry: BuildConfigEntry) -> None:
        """Prepare; nobody is asked yet."""
        spread = timedelta(seconds=randrange(_SPREAD_SECONDS))  # noqa: S311 - no secret
        super().__init__(
            hass,
            LOGGER,
            config_entry=entry,
            name="latest version of ESPHome",
            update_interval=_INTERVAL + spread,
            always_update=False,
        )

    @override
    async def _async_update_data(self) -> str:
        """Ask, and try again sooner if there is no answer."""
        try:
            return await async_latest_esphome(self.hass, self.config_entry)
        except LatestUnknownError as err:
            raise UpdateFailed(str(err), retry_after=_RETRY.total_seconds()) from err


class EsphomeUpdate(BuilderEntity, UpdateEntity):
    """Shows which ESPHome a builder has and could have, and installs it."""

    _attr_supported_features = (
        UpdateEntityFeature.INSTALL
        | UpdateEntityFeature.PROGRESS
        | UpdateEntityFeature.SPECIFIC_VERSION
    )
    _attr_title = "ESPHome"

    def __init__(self, coordinator: BuildCoordinator, latest: LatestEsphome) -> None:
        """Belong to the builder's device."""
        super().__init__(coordinator, ESPHOME)
        self._latest = latest

    @override
    async def async_added_to_hass(self) -> None:
        """Follow installations, whoever asked for them."""
        await super().async_added_to_hass()
        self.async_on_remove(self._latest.async_add_listener(self.async_write_ha_state))
        self.async_on_remove(
            async_dispatcher_connect(self.hass, SIGNAL_EVENT, self._async_on_event)
        )

    @property
    @override
    def installed_version(self) -> str | None:
        """Return the version that the builder uses."""
        return self.coordinator.data.builder.esphome_version

    @property
    @override
    def latest_version(self) -> str | None:
        """Return the latest version."""
        return self._latest.data

    @property
    @override
    def release_url(self) -> str:
        """Return the page about the latest version, which betas do not have."""
        match = _RELEASE.fullmatch(self.latest_version or "")
        return f"{_CHANGELOG}{match[1]}.0/" if match else _CHANGELOG

    @property
    @override
    def in_progress(self) -> bool:
        """Return whether an ESPHome is being installed, or is about to be."""
        return self._installation is not None

    @property
    @override
    def update_percentage(self) -> int | None:
        """Return how far it is, as far as that is known."""
        installation = self._installation
        return installation.progress if installation else None

    @override
    async def async_update(self) -> None:
        """Ask for the latest version now, which a user can want."""
        await self._latest.async_refresh()

    @override
    async def async_install(
        self, version: str | None, backup: bool, **kwargs: Any
    ) -> None:
        """Install a version, or the latest, and return when it is used."""
        with translated_errors():
            job = await self.coordinator.builder.install_esphome(
                version or self.latest_version,
                requester(self._context) if self._context else None,
            )
        (job,) = await self.coordinator.async_wait([job])
        if job.status is not JobStatus.COMPLETED:
            raise HomeAssistantError(
                translation_domain=DOMAIN,
                translation_key="install_failed",
                translation_placeholders={"reason": job.message or ""},
            )

    @property
    def _installation(self) -> Job | None:
        """Return the installation that runs, or the next one."""
        jobs = self.coordinator.builder.jobs.values()
        return next(
            (
                job
                for job in jobs
                if job.kind is JobKind.INSTALL_ESPHOME and not job.status.ended
            ),
            None,
        )

    @callback
    def _async_on_event(self, entry_id: str, event: Event) -> None:
        """Show how far an installation is, which no other entity shows."""
        if (
            entry_id == self.coordinator.config_entry.entry_id
            and isinstance(event, JobEvent)
            and event.job.kind is JobKind.INSTALL_ESPHOME
        ):
            self.async_write_ha_state()
