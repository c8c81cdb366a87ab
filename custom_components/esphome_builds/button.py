"""Buttons of a builder."""

from abc import abstractmethod
from typing import override

from homeassistant.components.button import ButtonEntity, ButtonEntityDescription
from homeassistant.const import EntityCategory, Platform
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import Unauthorized
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import BuildConfigEntry
from .entity import BuilderEntity, async_forget_entity
from .errors import translated_errors

# Whoever presses a button again must not wait for what the first press is ending.
PARALLEL_UPDATES = 0

CANCEL_ALL = ButtonEntityDescription(key="cancel_all", translation_key="cancel_all")
GO_BACK = ButtonEntityDescription(
    key="go_back", translation_key="go_back", entity_category=EntityCategory.CONFIG
)


async def async_setup_entry(
    _: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the buttons of a builder."""
    coordinator = entry.runtime_data
    async_add_entities([CancelAllButton(coordinator, CANCEL_ALL)])
    if coordinator.builder.info.managed:
        async_add_entities([GoBackButton(coordinator, GO_BACK)])
    else:
        async_forget_entity(coordinator, Platform.BUTTON, GO_BACK)


class _AdminButton(BuilderEntity, ButtonEntity):
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


class CancelAllButton(_AdminButton):
    """Ends all jobs of a builder."""

    @override
    async def _async_act(self) -> None:
        """Return when all jobs that there are now have ended."""
        jobs = self.coordinator.builder.jobs.values()
        await self.coordinator.async_cancel(
            job.job_id for job in jobs if not job.status.ended
        )


class GoBackButton(_AdminButton):
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
