"""The actions; `docs/actions.md` describes them for users."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

import voluptuous as vol

from homeassistant.const import ATTR_DEVICE_ID
from homeassistant.core import (
    HomeAssistant,
    ServiceCall,
    ServiceResponse,
    SupportsResponse,
    callback,
)
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import config_validation as cv, device_registry as dr
from homeassistant.helpers.service import (
    async_get_config_entry,
    async_register_admin_service,
)

from .builders import async_coordinator, async_job_coordinator, requester
from .builds.builder import BuildRequest, UnknownConfigurationError
from .builds.models import Job, RequestKind
from .const import (
    ATTR_ADDRESS,
    ATTR_CONFIG_ENTRY_ID,
    ATTR_CONFIGURATION,
    ATTR_JOB_ID,
    ATTR_REPLACE,
    ATTR_TIMEOUT,
    ATTR_VERSION,
    ATTR_WAIT,
    DOMAIN,
)
from .coordinator import BuildConfigEntry, BuildCoordinator
from .devices import async_device_name, own_device_identifier
from .errors import translated_errors

SERVICE_CANCEL: Final = "cancel"
SERVICE_CLEAN_ALL: Final = "clean_all"
SERVICE_GO_BACK: Final = "go_back"
SERVICE_INSTALL_ESPHOME: Final = "install_esphome"

_NAMES: Final = vol.All(cv.ensure_list, [cv.string])
_TARGET: Final[dict[vol.Marker, Any]] = {
    vol.Optional(ATTR_CONFIG_ENTRY_ID): cv.string,
    vol.Optional(ATTR_CONFIGURATION, default=list): _NAMES,
    vol.Optional(ATTR_DEVICE_ID, default=list): _NAMES,
}
_CANCEL: Final = vol.Schema(
    {**_TARGET, vol.Optional(ATTR_JOB_ID, default=list): _NAMES}
)
_CLEAN_ALL: Final = vol.Schema(
    {
        vol.Optional(ATTR_CONFIG_ENTRY_ID): cv.string,
        vol.Optional(ATTR_WAIT, default=False): cv.boolean,
    }
)
_GO_BACK: Final = vol.Schema({vol.Optional(ATTR_CONFIG_ENTRY_ID): cv.string})
_INSTALL_ESPHOME: Final = _CLEAN_ALL.extend({vol.Optional(ATTR_VERSION): cv.string})
_SUBMIT: Final = vol.Schema(
    {
        **_TARGET,
        vol.Optional(ATTR_REPLACE, default=False): cv.boolean,
        vol.Optional(ATTR_TIMEOUT): cv.positive_time_period,
        vol.Optional(ATTR_WAIT, default=False): cv.boolean,
    }
)
_SUBMIT_ADDRESSED: Final = _SUBMIT.extend({vol.Optional(ATTR_ADDRESS): cv.string})
_SCHEMAS: Final = {
    RequestKind.VALIDATE: _SUBMIT,
    RequestKind.COMPILE: _SUBMIT,
    RequestKind.UPLOAD: _SUBMIT_ADDRESSED.extend(
        {vol.Optional(ATTR_JOB_ID): cv.string}
    ),
    RequestKind.INSTALL: _SUBMIT_ADDRESSED,
    RequestKind.CLEAN: _SUBMIT,
}


@callback
def async_setup_services(hass: HomeAssistant) -> None:
    """Register all actions."""
    for kind, schema in _SCHEMAS.items():
        async_register_admin_service(
            hass,
            DOMAIN,
            kind.value,
            _async_submit,
            schema,
            SupportsResponse.OPTIONAL,
        )
    for name, action, schema in (
        (SERVICE_CANCEL, _async_cancel, _CANCEL),
        (SERVICE_CLEAN_ALL, _async_clean_all, _CLEAN_ALL),
        (SERVICE_GO_BACK, _async_go_back, _GO_BACK),
        (SERVICE_INSTALL_ESPHOME, _async_install_esphome, _INSTALL_ESPHOME),
    ):
        async_register_admin_service(
            hass, DOMAIN, name, action, schema, SupportsResponse.OPTIONAL
        )


async def _async_submit(call: ServiceCall) -> ServiceResponse:
    """Make or find the jobs of a request, and wait for their end if that is wanted."""
    with translated_errors():
        coordinator = _async_coordinator(call)
        submission = await coordinator.builder.submit(
            BuildRequest(
                kind=RequestKind(call.service),
                configurations=_async_configurations(call, coordinator),
                address=call.data.get(ATTR_ADDRESS),
                firmware_job_id=call.data.get(ATTR_JOB_ID),
                replace=call.data[ATTR_REPLACE],
                requested_by=requester(call.context),
            )
        )
    return await _async_answer(call, coordinator, submission.jobs)


async def _async_clean_all(call: ServiceCall) -> ServiceResponse:
    """Remove all that was built, and wait for that if it is wanted."""
    with translated_errors():
        coordinator = _async_coordinator(call)
        submission = await coordinator.builder.clean_all(requester(call.context))
    return await _async_answer(call, coordinator, submission.jobs)


async def _async_install_esphome(call: ServiceCall) -> ServiceResponse:
    """Install an ESPHome, and wait for that if it is wanted."""
    with translated_errors():
        coordinator = _async_coordinator(call)
        job = await coordinator.builder.install_esphome(
            call.data.get(ATTR_VERSION), requester(call.context)
        )
    return await _async_answer(call, coordinator, [job])


async def _async_go_back(call: ServiceCall) -> ServiceResponse:
    """Use the ESPHome again that was used before."""
    with translated_errors():
        version = await _async_coordinator(call).builder.go_back()
    return {"version": version} if call.return_response else None


async def _async_cancel(call: ServiceCall) -> ServiceResponse:
    """End jobs that are named, and all of configurations that are named."""
    with translated_errors():
        ends: defaultdict[BuildCoordinator, set[str]] = defaultdict(set)
        for job_id in call.data[ATTR_JOB_ID]:
            ends[async_job_coordinator(call.hass, job_id)].add(job_id)
        if not ends or call.data[ATTR_CONFIGURATION] or call.data[ATTR_DEVICE_ID]:
            coordinator = _async_coordinator(call)
            names = _async_configurations(call, coordinator)
            ends[coordinator] |= _active(coordinator, names)
        ended = await asyncio.gather(
            *(
                coordinator.async_cancel(job_ids)
                for coordinator, job_ids in ends.items()
            )
        )
    return _response(call, (job for jobs in ended for job in jobs))


@callback
def _async_coordinator(call: ServiceCall) -> BuildCoordinator:
    """Return the coordinator of the builder that is named, or of the only one."""
    if (entry_id := call.data.get(ATTR_CONFIG_ENTRY_ID)) is None:
        return async_coordinator(call.hass, None)
    entry: BuildConfigEntry = async_get_config_entry(call.hass, DOMAIN, entry_id)
    return entry.runtime_data


@callback
def _async_configurations(
    call: ServiceCall, coordinator: BuildCoordinator
) -> tuple[str, ...]:
    """Return each configuration once that is named or belongs to a named device."""
    names: list[str] = list(call.data[ATTR_CONFIGURATION])
    for device_id in call.data[ATTR_DEVICE_ID]:
        found = _async_candidates(call.hass, coordinator, device_id)
        names.append(_async_the_one(call.hass, coordinator, device_id, found))
    if not names:
        raise ServiceValidationError(
            translation_domain=DOMAIN, translation_key="nothing_named"
        )
    return tuple(dict.fromkeys(names))


@callback
def _async_candidates(
    hass: HomeAssistant, coordinator: BuildCoordinator, device_id: str
) -> list[str]:
    """Return the configurations of a builder that can be those of a device.

    It is a device of ESPHome's, or the one that we have made for a configuration.
    """
    device = dr.async_get(hass).async_get(device_id)
    name = async_device_name(hass, device_id)
    entry_id = coordinator.config_entry.entry_id
    return [
        configuration.configuration
        for configuration in coordinator.builder.configurations.values()
        if device_id == configuration.device_id
        or (name is not None and name == configuration.name)
        or (
            device is not None
            and own_device_identifier(entry_id, configuration.configuration)
            in device.identifiers
        )
    ]


@callback
def _async_the_one(
    hass: HomeAssistant, coordinator: BuildCoordinator, device_id: str, found: list[str]
) -> str:
    """Return the only configuration that a device can have; never guess."""
    if len(found) == 1:
        return found[0]
    device = dr.async_get(hass).async_get(device_id)
    name = (device and (device.name_by_user or device.name)) or device_id
    if found:
        raise ServiceValidationError(
            translation_domain=DOMAIN,
            translation_key="several_configurations",
            translation_placeholders={
                "device": name,
                "configurations": ", ".join(sorted(found)),
            },
        )
    raise ServiceValidationError(
        translation_domain=DOMAIN,
        translation_key="no_configuration",
        translation_placeholders={
            "device": name,
            "builder": coordinator.config_entry.title,
        },
    )


def _active(coordinator: BuildCoordinator, names: Iterable[str]) -> set[str]:
    """Return the jobs of configurations that have not ended.

    A configuration that is gone can still have jobs. Raises
    `UnknownConfigurationError`.
    """
    builder = coordinator.builder
    jobs = builder.jobs.values()
    known = {*builder.configurations, *(job.configuration for job in jobs)}
    for name in names:
        if name not in known:
            raise UnknownConfigurationError(name)
    return {
        job.job_id
        for job in jobs
        if job.configuration in names and not job.status.ended
    }


async def _async_answer(
    call: ServiceCall, coordinator: BuildCoordinator, jobs: Iterable[Job]
) -> ServiceResponse:
    """Return the response with the jobs, when they have ended if that is wanted.

    After the time that the caller has for that, it is as they are then.
    """
    if call.data[ATTR_WAIT]:
        limit: timedelta | None = call.data.get(ATTR_TIMEOUT)
        seconds = None if limit is None else limit.total_seconds()
        jobs = tuple(jobs)
        try:
            async with asyncio.timeout(seconds):
                jobs = await coordinator.async_wait(jobs)
        except TimeoutError:
            now = coordinator.builder.jobs
            jobs = [now.get(job.job_id, job) for job in jobs]
    return _response(call, jobs)


def _response(call: ServiceCall, jobs: Iterable[Job]) -> ServiceResponse:
    return {"jobs": [job.as_dict() for job in jobs]} if call.return_response else None
