"""What people are told when the engine refuses something."""

from collections.abc import Iterator
from contextlib import contextmanager

from homeassistant.exceptions import HomeAssistantError, ServiceValidationError

from .builders import UnknownBuilderError
from .builds.builder import (
    BuilderUnavailableError,
    InvalidRequestError,
    UnknownConfigurationError,
    UnknownJobError,
)
from .const import DOMAIN


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise errors of the engine as those that Home Assistant shows translated.

    One that the caller can put right is a `ServiceValidationError`.
    """
    try:
        yield
    except BuilderUnavailableError as err:
        raise HomeAssistantError(
            translation_domain=DOMAIN,
            translation_key="builder_unavailable",
            translation_placeholders={"reason": str(err)},
        ) from err
    except InvalidRequestError as err:
        raise ServiceValidationError(
            translation_domain=DOMAIN,
            translation_key="invalid_request",
            translation_placeholders={"reason": str(err)},
        ) from err
    except UnknownBuilderError as err:
        raise ServiceValidationError(
            translation_domain=DOMAIN, translation_key="builder_not_named"
        ) from err
    except UnknownConfigurationError as err:
        raise ServiceValidationError(
            translation_domain=DOMAIN,
            translation_key="unknown_configuration",
            translation_placeholders={"configuration": err.configuration},
        ) from err
    except UnknownJobError as err:
        raise ServiceValidationError(
            translation_domain=DOMAIN,
            translation_key="unknown_job",
            translation_placeholders={"job_id": err.job_id},
        ) from err
