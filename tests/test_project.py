"""Checks of the project's own files: what hassfest, HACS and we ask of them."""

import ast
from itertools import chain
import json
from pathlib import Path
import re
import struct
import subprocess
import sys
import tomllib
from typing import Any, Final

from awesomeversion import AwesomeVersion
import pytest
import yaml

from custom_components.esphome_builds.const import DOMAIN
from homeassistant.components.brands.const import ALLOWED_IMAGES
from homeassistant.const import Platform, __version__ as ha_version
from homeassistant.core import HomeAssistant
from homeassistant.loader import async_get_integration

ROOT: Final = Path(__file__).parent.parent
INTEGRATION: Final = ROOT / "custom_components" / DOMAIN
BRAND: Final = INTEGRATION / "brand"
ENGINE: Final = INTEGRATION / "builds"
EXAMPLES: Final = ROOT / "examples"
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

ENGINE_REQUIREMENTS: Final = {"aiohttp", "orjson", "yaml"}
"""What the engine may use beside the standard library: Home Assistant has it anyway."""

KNOWN_HOSTS: Final = {
    "api.github.com",
    "127.0.0.1",
    "developers.home-assistant.io",
    "esphome.io",
    "github.com",
    "localhost",
    "my.home-assistant.io",
    "www.apache.org",
    "www.home-assistant.io",
    "www.w3.org",
}
"""Where an address in the project may lead, beside names kept for examples."""

# Home Assistant keeps a module in sys.modules under its old name once it was imported,
# so the engine is loaded where nothing else was: in an interpreter of its own. It is
# loaded by its path, since the modules beside it have names of the standard library's.
IMPORT_ENGINE: Final = """
import importlib.util, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"homeassistant", "probatio", "voluptuous"}:
            raise AssertionError(f"the engine imports {name}")

sys.meta_path.insert(0, Refuse())
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location("builds", folder + "/__init__.py")
engine = sys.modules["builds"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(engine)
for module in pkgutil.walk_packages([folder], "builds."):
    importlib.import_module(module.name)
    print(module.name)
assert "homeassistant" not in sys.modules
"""


class _EsphomeLoader(yaml.SafeLoader):
    """Reads the YAML of ESPHome, whose own tags are only text here."""


_EsphomeLoader.add_multi_constructor("!", lambda _loader, tag, _node: f"!{tag}")


def _manifest() -> dict[str, Any]:
    """Return the manifest."""
    manifest: dict[str, Any] = json.loads((INTEGRATION / "manifest.json").read_bytes())
    return manifest


def _imports(path: Path) -> list[tuple[int, str]]:
    """Return what a module imports, as level (0 is absolute) and dotted name."""
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = f"{node.module}." if node.module else ""
            found += [(node.level, module + alias.name) for alias in node.names]
    return found


def _png(path: Path) -> tuple[int, int, int]:
    """Return width, height and color type of a PNG (its specification, 11.2.2)."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR")
    width, height, _, color = struct.unpack(">IIBB", data[16:26])
    return width, height, color


def _texts() -> dict[str, str]:
    """Return all text files of the project, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    texts = {}
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (data := path.read_bytes()):
            texts[name] = data.decode()
    return texts


def test_manifest_keys() -> None:
    """The manifest has what hassfest and HACS ask for, in hassfest's order."""
    keys = list(_manifest())

    assert keys[:2] == ["domain", "name"]
    assert keys[2:] == sorted(keys[2:])
    assert {
        "codeowners",
        "config_flow",
        "dependencies",
        "documentation",
        "integration_type",
        "iot_class",
        "issue_tracker",
        "version",
    } <= set(keys)


def test_manifest_values() -> None:
    """The manifest says what the other files say."""
    manifest = _manifest()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert manifest["domain"] == INTEGRATION.name
    assert manifest["version"] == project["version"]
    assert manifest["integration_type"] == "service"
    assert manifest["iot_class"] == "local_push"
    assert manifest["config_flow"] is (INTEGRATION / "config_flow.py").is_file()
    assert all(owner.startswith("@") for owner in manifest["codeowners"])
    # ESPHome's own pins conflict with Home Assistant's: it is never a requirement.
    assert manifest["requirements"] == []
    assert manifest["issue_tracker"] == f"{manifest['documentation']}/issues"


async def test_home_assistant_finds_the_integration(hass: HomeAssistant) -> None:
    """Home Assistant itself accepts the manifest, its version included."""
    integration = await async_get_integration(hass, DOMAIN)

    assert integration.file_path == INTEGRATION
    assert integration.version == AwesomeVersion(_manifest()["version"])
    assert not integration.disabled


def test_dependencies_are_in_the_manifest() -> None:
    """What is imported from an integration is set up or installed before ours."""
    manifest = _manifest()
    allowed = {
        *manifest["dependencies"],
        *manifest["after_dependencies"],
        *Platform,
        # A module named like an integration is a platform of that integration.
        *(path.stem for path in INTEGRATION.iterdir()),
    }

    used = {
        name.split(".")[2]
        for path in INTEGRATION.rglob("*.py")
        for _, name in _imports(path)
        if name.startswith("homeassistant.components.")
    }

    assert used - allowed == set()


def test_hacs() -> None:
    """HACS has its file, and knows the oldest Home Assistant that we support."""
    hacs = json.loads((ROOT / "hacs.json").read_bytes())

    assert hacs["name"] == _manifest()["name"]
    assert AwesomeVersion(hacs["homeassistant"]) <= AwesomeVersion(ha_version)
    assert (ROOT / "README.md").is_file()
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")
    integrations = INTEGRATION.parent.glob("*/manifest.json")
    assert [path.parent.name for path in integrations] == [DOMAIN]


def test_brand_images_have_names_that_are_served() -> None:
    """Home Assistant serves each image, and each can be drawn again."""
    images = {path.name for path in BRAND.glob("*.png")}
    sources = {path.stem for path in BRAND.glob("*.svg")}

    assert images <= ALLOWED_IMAGES
    assert {"icon.png", "icon@2x.png", "logo.png", "logo@2x.png"} <= images
    assert images == set(
        chain.from_iterable((f"{name}.png", f"{name}@2x.png") for name in sources)
    )


@pytest.mark.parametrize(
    "path", sorted(BRAND.glob("*.png")), ids=lambda path: path.name
)
def test_brand_image_sizes(path: Path) -> None:
    """Icons are squares of 256 pixels, logos are as high, "@2x" doubles both."""
    base, scale = path.stem.removesuffix("@2x"), 1 + path.stem.endswith("@2x")
    width, height, color = _png(path)

    assert height == 256 * scale
    assert color == 6, "has to be transparent"
    if base.endswith("icon"):
        assert width == height
    else:
        assert width > height
        assert width == _png(path.with_name(f"{base}.png"))[0] * scale


@pytest.mark.parametrize(
    "path", sorted(BRAND.glob("*.svg")), ids=lambda path: path.name
)
def test_brand_sources_need_nothing_else(path: Path) -> None:
    """No font, image or script from elsewhere changes how a source is drawn."""
    assert not re.search(r"<(text|image|script|style)|href=", path.read_text())


def test_no_strings_json() -> None:
    """A custom integration has translations only, without references to core's."""
    assert not list(INTEGRATION.rglob("strings.json"))
    for path in (INTEGRATION / "translations").glob("*.json"):
        assert "[%key:" not in path.read_text()


def test_no_paths_of_a_machine() -> None:
    """No file names a folder of whoever wrote it."""
    personal = re.compile(
        rf"(?<![\w.])/(?:home|root|Users|work)/\w|{re.escape(str(ROOT))}/"
    )

    assert [name for name, text in _texts().items() if personal.search(text)] == []


def test_addresses_are_known() -> None:
    """No address leads to a package registry, or to anywhere else unexpected."""
    hosts = {
        (name, host.lower())
        for name, text in _texts().items()
        for host in re.findall(r"(?:https?|wss?)://([\w.-]+\.[\w-]+)", text)
    }
    kept_for_examples = re.compile(r"(.*\.)?(example(\.com|\.org)?|local|test|invalid)")

    assert {
        found
        for found in hosts
        if found[1] not in KNOWN_HOSTS and not kept_for_examples.fullmatch(found[1])
    } == set()


def test_engine_imports_nothing_of_home_assistant() -> None:
    """All of the engine can be imported where Home Assistant cannot."""
    result = subprocess.run(
        [sys.executable, "-I", "-c", IMPORT_ENGINE, str(ENGINE)],
        check=False,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stderr
    files = {path for path in ENGINE.rglob("*.py") if path != ENGINE / "__init__.py"}
    assert len(result.stdout.split()) == len(files) > 0


@pytest.mark.parametrize(
    "path", sorted(ENGINE.rglob("*.py")), ids=lambda path: str(path.relative_to(ENGINE))
)
def test_engine_imports_only_what_it_may(path: Path) -> None:
    """The engine imports itself relatively, and else only what is always there."""
    depth = len(path.relative_to(ENGINE).parts)
    for level, name in _imports(path):
        if level:
            assert level <= depth, f"{name} is outside of the engine"
        else:
            package = name.partition(".")[0]
            assert package in sys.stdlib_module_names | ENGINE_REQUIREMENTS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_their_actions(path: Path) -> None:
    """A tag can be moved to other code, a commit cannot; the comment is for people."""
    used = re.findall(r"uses: *(.*)", path.read_text())

    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # [\w.-]+", action)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_limited(path: Path) -> None:
    """A workflow may do nothing by default, and no job runs for hours."""
    workflow = yaml.safe_load(path.read_text())

    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert 0 < job["timeout-minutes"] <= 30


def test_examples_run_side_by_side() -> None:
    """No two devices of the examples share a name, an address or a port."""
    contents = [
        yaml.load(path.read_text(), _EsphomeLoader)
        for path in EXAMPLES.glob("*.yaml")
        if path.name != "secrets.yaml"
    ]
    devices = [content for content in contents if "esphome" in content]

    assert len(devices) >= 3
    assert len(contents) - len(devices) == 1, "one file is only included"
    for values in (
        [device["esphome"]["name"] for device in devices],
        [device["host"]["mac_address"] for device in devices],
        [device["api"]["port"] for device in devices]
        + [device["ota"][0]["port"] for device in devices],
    ):
        assert len(values) == len(set(values))


@pytest.mark.parametrize(("percent", "status"), [(95.0, 1), (95.01, 0)])
def test_each_module_has_to_be_covered(
    tmp_path: Path, percent: float, status: int
) -> None:
    """One module that is covered badly fails, however good the others are."""
    report = tmp_path / "coverage.json"
    summaries = {"good.py": 100.0, "other.py": percent}
    report.write_text(
        json.dumps(
            {
                "files": {
                    name: {"summary": {"percent_covered": value}}
                    for name, value in summaries.items()
                }
            }
        )
    )

    result = subprocess.run(
        [sys.executable, ROOT / "script" / "check_coverage", report],
        check=False,
        capture_output=True,
        text=True,
    )

    assert result.returncode == status
    assert ("other.py: 95.0 %" in result.stdout) is bool(status)
    assert "good.py" not in result.stdout
