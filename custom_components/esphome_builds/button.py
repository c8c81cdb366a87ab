"""Buttons of a builder and its configurations."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import override

from homeassistant.components.button import ButtonEntity, ButtonEntityDescription
from homeassistant.const import EntityCategory, Platform
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import Unauthorized
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .builders import requester
from .builds.builder import BuildRequest
from .builds.models import RequestKind
from .coordinator import BuildConfigEntry
from .entity import BuilderEntity, ConfigurationEntity, async_forget_entity
from .errors import translated_errors

# Whoever presses a button again must not wait for what the first press is ending.
PARALLEL_UPDATES = 0


@dataclass(frozen=True, kw_only=True)
class ConfigurationButtonDescription(ButtonEntityDescription):
    """A button, and what it asks the builder for."""

    kind: RequestKind


CANCEL_ALL = ButtonEntityDescription(key="cancel_all", translation_key="cancel_all")
GO_BACK = ButtonEntityDescription(
    key="go_back", translation_key="go_back", entity_category=EntityCategory.CONFIG
)

COMPILE = ConfigurationButtonDescription(
    key="compile",
    translation_key="compile",
    entity_category=EntityCategory.CONFIG,
    entity_registry_enabled_default=False,
    kind=RequestKind.COMPILE,
)
INSTALL = ConfigurationButtonDescription(
    key="install",
    translation_key="install",
    entity_category=EntityCategory.CONFIG,
    kind=RequestKind.INSTALL,
)


async def async_setup_entry(
    _: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the buttons of a builder and its configurations."""
    coordinator = entry.runtime_data
    async_add_entities([CancelAllButton(coordinator, CANCEL_ALL)])
    if coordinator.builder.info.managed:
        async_add_entities([GoBackButton(coordinator, GO_BACK)])
    else:
        async_forget_entity(coordinator, Platform.BUTTON, GO_BACK)
    coordinator.async_add_for_configurations(
        async_add_entities,
        lambda configuration: [
            ConfigurationButton(coordinator, configuration, description)
            for description in (COMPILE, INSTALL)
        ],
    )


class _AdminButton(ButtonEntity):
    """A button that, as with the actions, only an administrator may press."""

    @override
    async def async_press(self) -> None:
        """Do what the button is for; raise `Unauthorized` for any other user."""
        await self._async_check_user()
        with translated_errors():
            await self._async_act()

    @abstractmethod
    async def _async_act(self) -> None:
        """Do what the button is for; raise `BuildError`."""

    async def _async_check_user(self) -> None:
        """Raise `Unauthorized` for a user who is no administrator."""
        if self._context is None or self._context.user_id is None:
            return
        user = await self.hass.auth.async_get_user(self._context.user_id)
        if user is None or not user.is_admin:
            raise Unauthorized(context=self._context, entity_id=self.entity_id)


class CancelAllButton(BuilderEntity, _AdminButton):
    """Ends all jobs of a builder."""

    @override
    async def _async_act(self) -> None:
        """Return when all jobs that there are now have ended."""
        jobs = self.coordinator.builder.jobs.values()
        await self.coordinator.async_cancel(
            job.job_id for job in jobs if not job.status.ended
        )


class GoBackButton(BuilderEntity, _AdminButton):
    """Lets a builder use the ESPHome again that it used before."""

    @property
    @override
    def available(self) -> bool:
        """Return whether there is one to go back to."""
        previous = self.coordinator.data.builder.previous_version
        return super().available and previous is not None

    @override
    async def _async_act(self) -> None:
        """Return when what starts from now on uses it."""
        await self.coordinator.builder.go_back()


class ConfigurationButton(ConfigurationEntity, _AdminButton):
    """Asks for a job for a configuration."""

    entity_description: ConfigurationButtonDescription

    @override
    async def _async_act(self) -> None:
        """Return when the job, or one that is the same, waits or runs."""
        await self.coordinator.builder.submit(
            BuildRequest(
                kind=self.entity_description.kind,
                configurations=(self._name,),
                requested_by=requester(self._context or Context()),
            )
        )
