"""Checks that services.yaml, icons.json and the translations say the same as the code.

Home Assistant shows a bare key where a text is missing, and hassfest reads only some of
these files of a custom integration.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import chain
import json
from pathlib import Path
import re
from typing import Any, Final

import pytest
import yaml

from custom_components.esphome_builds.builds.models import Cause, JobKind, JobStatus
from custom_components.esphome_builds.const import DOMAIN
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component

INTEGRATION: Final = Path(__file__).parent.parent / "custom_components" / DOMAIN

CORE_ABORTS: Final = {
    "already_configured",
    "already_in_progress",
    "reauth_successful",
    "reconfigure_successful",
}
"""Reasons that Home Assistant's own helpers of a config flow give."""

LANGUAGES: Final = ("de", "es", "fr", "it", "nl")

SAME: Final[dict[str, set[str]]] = {
    "de": {"Builds", "Build", "Firmware", "Status", "Version"},
    "es": {"Builders", "Firmware"},
    "fr": {
        "Builders",
        "Cause",
        "Configuration",
        "Configurations",
        "Message",
        "Version",
    },
    "it": {"Firmware", "Password"},
    "nl": {"Build", "Builders", "Builds", "Firmware", "Status"},
}
"""What is the same in English and in another language."""

NAMES: Final = {"Builder", "ESPHome", "ccache", "{name}"}
"""What is the same in all languages."""

ENTITY_PLATFORMS: Final = ("binary_sensor", "button", "event", "sensor", "update")


@cache
def _translations(language: str = "en") -> dict[str, Any]:
    """Return the texts in a language."""
    texts: dict[str, Any] = json.loads(
        (INTEGRATION / "translations" / f"{language}.json").read_bytes()
    )
    return texts


@cache
def _icons() -> dict[str, Any]:
    """Return the icons."""
    icons: dict[str, Any] = json.loads((INTEGRATION / "icons.json").read_bytes())
    return icons


@cache
def _described(what: str = "services") -> dict[str, Any]:
    """Return the descriptions of the actions, triggers or conditions."""
    described: dict[str, Any] = yaml.safe_load(
        (INTEGRATION / f"{what}.yaml").read_bytes()
    )
    return {key: value for key, value in described.items() if key[0] != "."}


def _services() -> dict[str, Any]:
    """Return the descriptions of the actions."""
    return _described()


def _fields(service: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an action, those in its sections included."""
    fields: dict[str, Any] = {}
    for name, field in service.get("fields", {}).items():
        fields |= field.get("fields", {name: field})
    return fields


def _leaves(texts: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text with its path."""
    for key, value in texts.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


@cache
def _trees() -> dict[str, ast.Module]:
    """Return the parsed modules of the integration, by their path in it."""
    return {
        str(path.relative_to(INTEGRATION)): ast.parse(path.read_bytes())
        for path in INTEGRATION.rglob("*.py")
    }


def _strings(tree: ast.AST) -> set[str]:
    """Return all strings that stand in some code."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _all_strings() -> set[str]:
    """Return all strings that stand in the integration's code."""
    return set().union(*(_strings(tree) for tree in _trees().values()))


def _calls(tree: ast.AST) -> Iterator[dict[str, ast.expr]]:
    """Yield the keyword arguments of each call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield {item.arg: item.value for item in node.keywords if item.arg}


def _text(value: ast.expr | None) -> str | None:
    """Return the value of a literal string, None for anything else."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    return None


def _entity_keys(platform: str) -> set[str]:
    """Return the translation keys that the entities of a platform name."""
    tree = _trees()[f"{platform}.py"]
    keys = {
        _text(call.get("translation_key"))
        for call in _calls(tree)
        if "translation_domain" not in call
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            names = {ast.unparse(target) for target in node.targets}
            if any(name.endswith("_attr_translation_key") for name in names):
                keys.add(_text(node.value))
    return keys - {None}  # type: ignore[return-value]


def _exceptions() -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Yield the key and the arguments of each translated exception that is raised."""
    for tree in _trees().values():
        for call in _calls(tree):
            key = _text(call.get("translation_key"))
            if key and "translation_domain" in call:
                yield key, call


def test_services_have_texts_and_icons() -> None:
    """Each action has a name, a description and an icon, and nothing else has."""
    texts, icons = _translations()["services"], _icons()["services"]

    assert set(_services()) == set(texts) == set(icons)
    for name in texts:
        assert texts[name]["name"]
        assert texts[name]["description"]
        assert icons[name]["service"].startswith("mdi:")


async def test_services_are_registered(hass: HomeAssistant) -> None:
    """What is described can be called without any entry, and the other way round."""
    assert await async_setup_component(hass, DOMAIN, {})

    assert set(hass.services.async_services_for_domain(DOMAIN)) == set(_services())


def test_service_fields_have_texts() -> None:
    """Each field of an action has a selector, a name and a description."""
    for name, service in _services().items():
        fields = _fields(service)
        texts = _translations()["services"][name].get("fields", {})
        assert set(fields) == set(texts)
        for field, description in fields.items():
            assert description["selector"]
            assert set(texts[field]) == {"name", "description"}


@pytest.mark.parametrize("what", ["triggers", "conditions"])
def test_triggers_and_conditions_have_texts(what: str) -> None:
    """Each has a name, an icon, and a text for each of its fields."""
    texts, icons = _translations()[what], _icons()[what]

    assert set(_described(what)) == set(texts) == set(icons)
    for name, described in _described(what).items():
        assert texts[name]["name"]
        assert texts[name]["description"]
        fields = texts[name].get("fields", {})
        assert set(_fields(described)) == set(fields)
        assert all(field["name"] and field["description"] for field in fields.values())


def test_selectors_have_texts() -> None:
    """Each option of a selector has a text."""
    described = _services() | _described("triggers") | _described("conditions")
    used = {}
    for service in described.values():
        for field in _fields(service).values():
            select = field["selector"].get("select") or {}
            if key := select.get("translation_key"):
                used[key] = set(select["options"])
    texts = _translations().get("selector", {})

    for key, options in used.items():
        assert options == set(texts[key]["options"])
    # The options of a form stand in code.
    for key in set(texts) - set(used):
        assert {key, *texts[key]["options"]} <= _all_strings()


@pytest.mark.parametrize("platform", ENTITY_PLATFORMS)
def test_entities_have_names(platform: str) -> None:
    """Each translation key of an entity has a name, and no text is left over."""
    texts = _translations()["entity"][platform]

    assert _entity_keys(platform) == set(texts)
    assert all(text["name"] for text in texts.values())


def test_entity_icons_are_used() -> None:
    """Icons belong to entities, and icons of states to states that have a text."""
    texts = _translations()["entity"]

    for platform, entities in _icons()["entity"].items():
        assert set(entities) <= set(texts[platform])
        for key, icon in entities.items():
            states = texts[platform][key].get("state", {})
            assert set(icon.get("state", {})) <= {*states, "on", "off"}
    assert all(icon.startswith("mdi:") for _, icon in _leaves(_icons()))


def test_states_have_texts() -> None:
    """What sensors and events can say is what the engine can say."""
    texts = _translations()["entity"]
    ended = {status.value for status in JobStatus if status.ended}
    working = {"installing", "validating", "compiling", "uploading"}

    assert set(texts["sensor"]["last_build"]["state"]) == ended
    assert set(texts["sensor"]["status"]["state"]) == working | {"idle", "unavailable"}
    attributes = texts["event"]["builds"]["state_attributes"]
    assert set(attributes["event_type"]["state"]) == ended | {"queued", "started"}


@pytest.mark.parametrize(("attribute", "values"), [("cause", Cause), ("kind", JobKind)])
def test_attributes_with_texts_have_all(
    attribute: str, values: type[Cause | JobKind]
) -> None:
    """Where the values of an attribute have texts, none is missing."""
    for entities in _translations()["entity"].values():
        for entity in entities.values():
            texts = entity.get("state_attributes", {}).get(attribute, {})
            if states := texts.get("state"):
                assert set(states) == {value.value for value in values}


def test_exceptions_have_texts() -> None:
    """Each exception has a text, and each text is of an exception."""
    texts = _translations()["exceptions"]

    assert {key for key, _ in _exceptions()} <= set(texts)
    assert set(texts) <= _all_strings()


def test_exceptions_fill_their_placeholders() -> None:
    """An exception brings what its text needs, and nothing that nobody reads."""
    for key, call in _exceptions():
        message = _translations()["exceptions"][key]["message"]
        needed = set(re.findall(r"\{(\w+)\}", message))
        given = call.get("translation_placeholders")
        if given is None:
            assert needed == set(), key
        elif isinstance(given, ast.Dict):
            assert needed == {_text(name) for name in given.keys if name}, key


def test_steps_of_the_flows_have_texts() -> None:
    """Each form has a title, and each of its fields a text that explains it."""
    tree = _trees()["config_flow.py"]
    steps = {
        node.name.removeprefix("async_step_")
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef)
    }
    shown = {_text(call["step_id"]) for call in _calls(tree) if "step_id" in call}
    texts = {kind: _translations()[kind]["step"] for kind in ("config", "options")}

    assert shown <= {name for step in texts.values() for name in step}
    for name, step in chain.from_iterable(step.items() for step in texts.values()):
        assert name in steps
        assert step["title"]
        assert set(step.get("data", {})) == set(step.get("data_description", {}))


def test_errors_of_the_flows_are_used() -> None:
    """No error or reason to abort has a text that nothing shows."""
    texts = _translations()["config"]

    assert set(texts["error"]) <= _all_strings()
    assert set(texts["abort"]) <= _all_strings() | CORE_ABORTS


def test_issues_are_used() -> None:
    """No repair issue has a text that nothing shows; failed builds have one each."""
    issues = set(_translations()["issues"])
    failed = {key for key in issues if key.startswith("build_failed_")}
    # They end a job in another way than failed.
    never = {
        Cause.CANCELLED_BY_USER,
        Cause.HOME_ASSISTANT_STOPPED,
        Cause.SUPERSEDED,
    }

    assert failed == {f"build_failed_{cause}" for cause in set(Cause) - never}
    assert issues - failed <= _all_strings()


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_texts_are_clean(language: str) -> None:
    """Texts obey hassfest: no space around them, no address and no quoted name.

    An apostrophe before a brace would quote it (ICU's MessageFormat).
    """
    for path, text in _leaves(_translations(language)):
        assert text == text.strip() != "", path
        assert "://" not in text, f"{path}: an address has to be a placeholder"
        assert "'{" not in text, f"{path}: no quotes around it"


def test_all_languages_are_looked_at() -> None:
    """No language is there that nobody compares."""
    files = (INTEGRATION / "translations").iterdir()

    assert {path.name for path in files} == {
        f"{language}.json" for language in ("en", *LANGUAGES)
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_are_complete(language: str) -> None:
    """Each text is there, in the same order, with what is filled in and marked."""
    english = list(_leaves(_translations()))
    texts = list(_leaves(_translations(language)))

    assert [path for path, _ in texts] == [path for path, _ in english]
    for (path, before), (_, text) in zip(english, texts, strict=True):
        for parts in (r"\{\w+\}", r"`[^`]*`", r"\n\n"):
            expected = Counter(re.findall(parts, before))
            assert Counter(re.findall(parts, text)) == expected, path


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_left_in_english(language: str) -> None:
    """What is the same in two languages is so on purpose."""
    same = {
        text
        for (_, text), (_, before) in zip(
            _leaves(_translations(language)), _leaves(_translations()), strict=True
        )
        if text == before
    }

    assert same == SAME[language] | NAMES
