"""The rules of Home Assistant's quality scale: all named, none open, none by accident.

What they ask of the code is proved by the tests of that code.
"""

import json
from pathlib import Path
import re
from typing import Any, Final

import pytest
import yaml

from custom_components.esphome_builds import PLATFORMS
from custom_components.esphome_builds.const import DOMAIN
from homeassistant import components

ROOT: Final = Path(__file__).parent.parent
INTEGRATION: Final = ROOT / "custom_components" / DOMAIN

DOCUMENTED: Final = {
    "docs-actions": ("docs/actions.md", "# Actions"),
    "docs-conditions": ("docs/automations.md", "## Condition"),
    "docs-configuration-parameters": ("README.md", "### Options of a builder"),
    "docs-data-update": ("docs/entities.md", "## How data is updated"),
    "docs-examples": ("docs/automations.md", "# "),
    "docs-high-level-description": ("README.md", "## What it does"),
    "docs-installation-instructions": ("README.md", "## Install"),
    "docs-installation-parameters": ("docs/builders.md", "## On this machine"),
    "docs-known-limitations": ("README.md", "## Known limits"),
    "docs-removal-instructions": ("README.md", "To remove it, "),
    "docs-supported-devices": ("docs/builders.md", "## Supported devices"),
    "docs-supported-functions": ("docs/entities.md", "# Entities and events"),
    "docs-triggers": ("docs/automations.md", "## Triggers"),
    "docs-troubleshooting": (
        "docs/troubleshooting.md",
        "# When something does not work",
    ),
    "docs-use-cases": ("README.md", "## What people use it for"),
}
"""Where the pages are that the rules ask for."""


def _rules(folder: Path = INTEGRATION) -> dict[str, Any]:
    """Return what an integration says of each rule."""
    rules: dict[str, Any] = yaml.safe_load(
        (folder / "quality_scale.yaml").read_bytes()
    )["rules"]
    return rules


def test_all_rules_are_named() -> None:
    """They are those that Home Assistant's own integrations answer."""
    assert set(_rules()) == set(_rules(Path(components.__path__[0]) / "knx"))


def test_no_rule_is_open() -> None:
    """Each is done, or exempt with a reason; so the scale may be claimed."""
    manifest = json.loads((INTEGRATION / "manifest.json").read_bytes())

    assert manifest["quality_scale"] == "platinum"
    for rule, answer in _rules().items():
        if answer != "done":
            assert answer["status"] == "exempt", rule
            assert answer["comment"].strip().endswith("."), rule


@pytest.mark.parametrize("rule", DOCUMENTED)
def test_what_is_to_be_documented_is(rule: str) -> None:
    """Each page that a rule asks for is there."""
    path, heading = DOCUMENTED[rule]

    assert _rules()[rule] == "done"
    assert re.search(f"^{re.escape(heading)}", (ROOT / path).read_text(), re.MULTILINE)


def test_no_page_is_forgotten() -> None:
    """Each rule about a page has one here."""
    assert set(DOCUMENTED) == {rule for rule in _rules() if rule.startswith("docs-")}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_platforms_say_how_many_at_a_time(platform: str) -> None:
    """Each says how many of its entities may be at work (parallel-updates)."""
    text = (INTEGRATION / f"{platform}.py").read_text()

    assert re.search(r"^PARALLEL_UPDATES(?:: Final)? = \d", text, re.MULTILINE)
