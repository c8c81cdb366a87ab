"""The update entities: of ESPHome where we install it, and of devices' firmware."""

from datetime import timedelta
from random import randrange
from typing import Any, Final, override

from homeassistant.components.update import (
    UpdateDeviceClass,
    UpdateEntity,
    UpdateEntityDescription,
    UpdateEntityFeature,
)
from homeassistant.const import Platform
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.start import async_at_started
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator, UpdateFailed

from .builders import requester
from .builds.builder import BuildRequest
from .builds.local.uv import LatestUnknownError
from .builds.models import (
    Configuration,
    Event,
    Job,
    JobEvent,
    JobKind,
    JobStatus,
    Phase,
    RequestKind,
)
from .builds.versions import is_older
from .const import (
    ATTR_CONFIG_ENTRY_ID,
    ATTR_CONFIGURATION,
    ATTR_ONLINE,
    DOMAIN,
    LOGGER,
    SIGNAL_EVENT,
)
from .coordinator import BuildConfigEntry, BuildCoordinator
from .devices import async_shows_updates
from .entity import BuilderEntity, ConfigurationEntity, async_forget_entity
from .errors import translated_errors
from .local import async_latest_esphome
from .release_notes import async_release_notes, release_url

# An installation that is asked for must not wait for another one: the builder says no.
PARALLEL_UPDATES = 0

ESPHOME = UpdateEntityDescription(key="esphome", translation_key="esphome")
FIRMWARE = UpdateEntityDescription(
    key="firmware",
    translation_key="firmware",
    device_class=UpdateDeviceClass.FIRMWARE,
)

# Of the progress of an installation, in percent.
_COMPILED: Final = 80
_UPLOADED: Final = 95

_INTERVAL: Final = timedelta(hours=12)
_RETRY: Final = timedelta(hours=1)
# So that not everybody asks at the same time after a power cut.
_SPREAD_SECONDS: Final = 30 * 60


async def async_setup_entry(
    hass: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the update entities of a builder and its configurations."""
    coordinator = entry.runtime_data
    coordinator.async_add_for_configurations(
        async_add_entities,
        lambda configuration: [FirmwareUpdate(coordinator, configuration, FIRMWARE)],
    )
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


class _EsphomeRelease(UpdateEntity):
    """Shows a version of ESPHome."""

    _attr_title = "ESPHome"

    @property
    @override
    def release_url(self) -> str:
        """Return the page about the latest version."""
        return release_url(self.latest_version)

    @override
    async def async_release_notes(self) -> str | None:
        """Return the notes of the latest version."""
        return await async_release_notes(self.hass, self.latest_version)


class EsphomeUpdate(BuilderEntity, _EsphomeRelease):
    """Shows which ESPHome a builder has and could have, and installs it."""

    _attr_supported_features = (
        UpdateEntityFeature.INSTALL
        | UpdateEntityFeature.PROGRESS
        | UpdateEntityFeature.RELEASE_NOTES
        | UpdateEntityFeature.SPECIFIC_VERSION
    )

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
            raise _install_failed(job)

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


class FirmwareUpdate(ConfigurationEntity, _EsphomeRelease):
    """Shows which ESPHome a device runs and could run, and installs it."""

    _attr_supported_features = (
        UpdateEntityFeature.INSTALL
        | UpdateEntityFeature.PROGRESS
        | UpdateEntityFeature.RELEASE_NOTES
    )
    _unrecorded_attributes = frozenset(
        {ATTR_CONFIG_ENTRY_ID, ATTR_CONFIGURATION, ATTR_ONLINE}
    )

    def __init__(
        self,
        coordinator: BuildCoordinator,
        configuration: Configuration,
        description: UpdateEntityDescription,
    ) -> None:
        """Belong to a configuration; where there is another of the kind, wait."""
        super().__init__(coordinator, configuration, description)
        self._percentage = 0
        self._upload_id: str | None = None
        self._attr_entity_registry_enabled_default = not async_shows_updates(
            coordinator.hass, configuration.device_id
        )

    @property
    @override
    def installed_version(self) -> str | None:
        """Return the version that the device really runs, None if that is unknown."""
        configuration = self.configuration
        return configuration.deployed_version if configuration else None

    @property
    @override
    def latest_version(self) -> str | None:
        """Return the version that the builder would install."""
        return self.coordinator.data.builder.esphome_version

    @property
    @override
    def in_progress(self) -> bool:
        """Return whether firmware is on its way, also while that waits for a device."""
        return self._upload is not None

    @property
    @override
    def extra_state_attributes(self) -> dict[str, Any]:
        """Return what actions need, and whether the device can be reached now."""
        configuration = self.configuration
        return {
            ATTR_CONFIG_ENTRY_ID: self.coordinator.config_entry.entry_id,
            ATTR_CONFIGURATION: self._name,
            ATTR_ONLINE: configuration.online if configuration else None,
        }

    @override
    def version_is_newer(self, latest_version: str, installed_version: str) -> bool:
        """Return whether the device runs something older than the builder has."""
        return is_older(installed_version, latest_version) is True

    @override
    async def async_install(
        self, version: str | None, backup: bool, **kwargs: Any
    ) -> None:
        """Build and send; return when the device runs it.

        Where the device is off, it is sent when the device is back, which nobody waits
        for here.
        """
        with translated_errors():
            submission = await self.coordinator.builder.submit(
                BuildRequest(
                    kind=RequestKind.INSTALL,
                    configurations=(self._name,),
                    requested_by=requester(self._context or Context(), unattended=True),
                )
            )
        jobs = await self.coordinator.async_wait(submission.jobs, self._is_over)
        for job in jobs:
            if job.status.ended and job.status is not JobStatus.COMPLETED:
                raise _install_failed(job)

    @override
    async def async_added_to_hass(self) -> None:
        """Show what is on its way already."""
        await super().async_added_to_hass()
        self._async_follow()

    @callback
    @override
    def _async_on_change(self) -> None:
        """Show how far it is."""
        self._async_follow()
        super()._async_on_change()

    @callback
    def _async_follow(self) -> None:
        """Take over how far compile and upload are together, which only rises."""
        if (upload := self._upload) is None:
            self._attr_update_percentage = None
            return
        before = self.coordinator.builder.jobs.get(upload.depends_on or "")
        percentage = _percentage(upload, before)
        if upload.job_id != self._upload_id:
            self._upload_id, self._percentage = upload.job_id, 0
        self._percentage = max(self._percentage, percentage)
        self._attr_update_percentage = self._percentage

    def _is_over(self, job: Job) -> bool:
        """Return whether a job has ended, or waits for a device that is off."""
        return job.status.ended or self._waits_for_device(job)

    def _waits_for_device(self, job: Job) -> bool:
        configuration = self.configuration
        before = self.coordinator.builder.jobs.get(job.depends_on or "")
        return (
            job.kind is JobKind.UPLOAD
            and job.status is JobStatus.QUEUED
            and (before is None or before.status is JobStatus.COMPLETED)
            and configuration is not None
            and configuration.online is False
        )

    @property
    def _upload(self) -> Job | None:
        """Return the upload that runs or waits, if there is one."""
        configuration = self.configuration
        if configuration is None or configuration.active_job_id is None:
            return None
        return next(
            (
                job
                for job in self.coordinator.builder.jobs.values()
                if job.configuration == self._name
                and job.kind is JobKind.UPLOAD
                and not job.status.ended
            ),
            None,
        )


def _percentage(upload: Job, before: Job | None) -> int:
    """Return how far an upload, and the compile that it waits for, are."""
    if before is not None and not before.status.ended:
        return (before.progress or 0) * _COMPILED // 100
    if upload.phase is Phase.VERIFYING:
        return _UPLOADED
    return _COMPILED + (upload.progress or 0) * (_UPLOADED - _COMPILED) // 100


def _install_failed(job: Job) -> HomeAssistantError:
    """Return the error that says why an installation failed."""
    return HomeAssistantError(
        translation_domain=DOMAIN,
        translation_key="install_failed",
        translation_placeholders={"reason": job.message or ""},
    )
