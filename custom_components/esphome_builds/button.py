"""Buttons of a builder."""

from typing import override

from homeassistant.components.button import ButtonEntity, ButtonEntityDescription
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import Unauthorized
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .coordinator import BuildConfigEntry
from .entity import BuilderEntity
from .errors import translated_errors

# Whoever presses a button again must not wait for what the first press is ending.
PARALLEL_UPDATES = 0

CANCEL_ALL = ButtonEntityDescription(key="cancel_all", translation_key="cancel_all")


async def async_setup_entry(
    _: HomeAssistant,
    entry: BuildConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the button of a builder."""
    async_add_entities([CancelAllButton(entry.runtime_data, CANCEL_ALL)])


class CancelAllButton(BuilderEntity, ButtonEntity):
    """Ends all jobs of a builder."""

    @override
    async def async_press(self) -> None:
        """Return when all jobs that there are now have ended.

        As with the actions, a user who presses it must be an administrator.
        """
        await self._async_check_user()
        jobs = self.coordinator.builder.jobs.values()
        with translated_errors():
            await self.coordinator.async_cancel(
                job.job_id for job in jobs if not job.status.ended
            )

    async def _async_check_user(self) -> None:
        """Raise `Unauthorized` for a user who is no administrator."""
        if self._context is None or self._context.user_id is None:
            return
        user = await self.hass.auth.async_get_user(self._context.user_id)
        if user is None or not user.is_admin:
            raise Unauthorized(context=self._context, entity_id=self.entity_id)
