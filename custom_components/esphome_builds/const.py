"""Constants of ESPHome Builds."""

import logging
from typing import Final

DOMAIN: Final = "esphome_builds"
LOGGER = logging.getLogger(__package__)

ATTR_ADDRESS: Final = "address"
ATTR_CAUSE: Final = "cause"
ATTR_CONFIG_ENTRY_ID: Final = "config_entry_id"
ATTR_CONFIGURATION: Final = "configuration"
ATTR_DURATION: Final = "duration"
ATTR_JOB_ID: Final = "job_id"
ATTR_KIND: Final = "kind"
ATTR_MESSAGE: Final = "message"
ATTR_ONLINE: Final = "online"
ATTR_REPLACE: Final = "replace"
ATTR_TIMEOUT: Final = "timeout"
ATTR_VERSION: Final = "version"
ATTR_WAIT: Final = "wait"

CONF_BETAS: Final = "betas"
CONF_BUILD_LIMIT: Final = "build_limit"
CONF_COMPILE_IDLE_LIMIT: Final = "compile_idle_limit"
CONF_COMPILE_LIMIT: Final = "compile_limit"
CONF_COMPILE_SLOTS: Final = "compile_slots"
CONF_CONFIG_DIR: Final = "config_dir"
CONF_DEVICE_WAIT: Final = "device_wait"
CONF_ENTITIES: Final = "entities"
CONF_ESPHOME: Final = "esphome"
CONF_FAILURE_ISSUES: Final = "failure_issues"
CONF_KIND: Final = "kind"
CONF_UPLOAD_LIMIT: Final = "upload_limit"

EVENT_BUILD: Final = f"{DOMAIN}_event"
"""Fired on the bus for each step of each job."""

SIGNAL_BUILDERS: Final = f"{DOMAIN}_builders"
"""Dispatched without arguments when a builder was loaded or unloaded."""

SIGNAL_EVENT: Final = f"{DOMAIN}_builder_event"
"""Dispatched with the id of the entry and the event, for each event of each builder."""
