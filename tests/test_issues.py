"""The repair issues: there as long as something stands in the way, and no longer."""

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path
import re
import subprocess
from typing import Final

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.esphome_builds.builds.findings import Finding, Obstacle, Severity
from custom_components.esphome_builds.builds.local import gate, host, watch
from custom_components.esphome_builds.builds.local.host import Memory
from custom_components.esphome_builds.const import DOMAIN
from homeassistant.core import HomeAssistant
from homeassistant.helpers import issue_registry as ir

from .builds.local.test_preflight import MUSL, mounted
from .clients import eventually
from .fakes import FAKE_VERSION, fake_version, install_fake, write_configuration
from .helpers import VERSION, async_act, async_until_state, local_entry

pytestmark = pytest.mark.local_only("nobody here looks at the host of a server")

ROOT: Final = Path(__file__).parent.parent
INTEGRATION: Final = ROOT / "custom_components" / DOMAIN
MANIFEST: Final = json.loads((INTEGRATION / "manifest.json").read_bytes())
TEXTS: Final = json.loads((INTEGRATION / "translations" / "en.json").read_bytes())[
    "issues"
]
MIB: Final = 1024**2

type Make = Callable[[pytest.MonkeyPatch], None]


def _answers(question: str, answer: object) -> Make:
    """Return what lets the system give an answer to one of the questions."""

    def _make(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host, question, lambda *_: answer)

    return _make


def _musl(*, runs_glibc: bool) -> Make:
    def _make(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host, "ask_loader", lambda _: MUSL)
        monkeypatch.setattr(host, "ask_glibc", lambda _: runs_glibc)

    return _make


def _found(finding: Finding) -> Make:
    """Return what makes something be found that only a managed ESPHome can meet."""

    def _make(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate, "findings", lambda *_, **__: (finding,))

    return _make


PYTHON_OLD: Final = Finding(
    obstacle=Obstacle.PYTHON_OLD,
    severity=Severity.REFUSE,
    facts={"python": "3.11", "oldest": "3.12"},
)
CAUSES: Final[dict[str, tuple[Make, bool, str]]] = {
    "architecture": (
        _answers("ask_architecture", "riscv64"),
        True,
        "of the kind riscv64",
    ),
    "architecture_partly": (
        _answers("ask_architecture", "armv7l"),
        False,
        "of the kind armv7l",
    ),
    "compiler_missing": (
        _answers("ask_compilers", ("C", "C++")),
        True,
        "none for C, C++",
    ),
    "disk_full": (
        _answers("ask_file_system", (True, 100 * MIB)),
        True,
        "Only 100 MiB are free",
    ),
    "disk_low": (
        _answers("ask_file_system", (True, 1536 * MIB)),
        False,
        "Only 1.5 GiB are free",
    ),
    "esphome_old": (
        _found(
            Finding(
                obstacle=Obstacle.ESPHOME_OLD,
                severity=Severity.WARN,
                facts={"version": "2025.12.4", "oldest": "2026.1.0"},
            )
        ),
        False,
        "ESPHome 2025.12.4 is older than 2026.1.0",
    ),
    "memory_low": (
        _answers(
            "ask_memory", Memory(total=2048 * MIB, available=100 * MIB, swap=9 * MIB)
        ),
        False,
        "Only 100 MiB of memory and 9 MiB of swap are free. A build needs 512 MiB",
    ),
    "memory_small": (
        _answers("ask_memory", Memory(total=256 * MIB, available=100 * MIB)),
        True,
        "There are 256 MiB of memory",
    ),
    "musl": (_musl(runs_glibc=False), True, f"`{MUSL}`"),
    "musl_partly": (_musl(runs_glibc=True), False, f"`{MUSL}`"),
    "not_executable": (
        _answers("ask_file_system", (False, 100_000 * MIB)),
        True,
        "The folder `/",
    ),
    "not_writable": (
        _answers("ask_problem", "Read-only file system"),
        True,
        ": Read-only file system.",
    ),
    "python_old": (_found(PYTHON_OLD), True, "with Python 3.11. ESPHome needs 3.12"),
}
"""What makes each text be shown, whether jobs are refused, and words of the text."""


@pytest.fixture(autouse=True)
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let builders look at their host all the time."""
    monkeypatch.setattr(gate, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(gate, "CONFIRM_SECONDS", 0.0)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch, config_dir: Path) -> None:
    """Let all be well that depends on this machine, with something for each platform.

    Of what is for some platforms only, nothing is told without one of them.
    """
    plenty = Memory(total=64 * 1024 * MIB, available=64 * 1024 * MIB)
    _answers("ask_memory", plenty)(monkeypatch)
    _answers("ask_file_system", (True, 100_000 * MIB))(monkeypatch)
    _answers("ask_compilers", ())(monkeypatch)
    write_configuration(config_dir, "attic")
    write_chip(config_dir)


def write_chip(folder: Path) -> None:
    """Write a configuration for something else than this host."""
    (folder / "chip.yaml").write_text("esphome:\n  name: chip\nesp32:\n")


def remount(folder: Path, options: str) -> None:
    """Change how something is mounted."""
    command = ["mount", "-o", f"remount,{options}", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def shown(hass: HomeAssistant, entry: MockConfigEntry) -> dict[str, ir.IssueEntry]:
    """Return the issues of a builder, by what they are about."""
    return {
        issue.issue_id.removesuffix(f"_{entry.entry_id}"): issue
        for issue in ir.async_get(hass).issues.values()
        if issue.active and issue.domain == DOMAIN
    }


def text_of(issue: ir.IssueEntry, part: str = "description") -> str:
    """Return a text of an issue as it is read; fail if something is missing in it."""
    text: str = TEXTS[issue.translation_key][part]
    placeholders = issue.translation_placeholders or {}
    return re.sub(r"\{(\w+)\}", lambda match: placeholders[match[1]], text)


def test_each_obstacle_is_made() -> None:
    """What can stand in the way is told, but for what nobody has to mend."""
    told = {key.removesuffix("_partly") for key in CAUSES}

    assert told == set(Obstacle) - {Obstacle.MEMORY_SCARCE}
    assert set(CAUSES) == {
        key for key in TEXTS if key.removesuffix("_partly") in set(Obstacle)
    }


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("key", CAUSES)
async def test_an_issue_comes_and_goes(
    hass: HomeAssistant, builder: MockConfigEntry, key: str
) -> None:
    """It says what it is and what to do, and is gone by itself when that is mended."""
    make, refused, words = CAUSES[key]
    obstacle = key.removesuffix("_partly")
    with pytest.MonkeyPatch.context() as cause:
        make(cause)
        await eventually(lambda: obstacle in shown(hass, builder))
        issue = shown(hass, builder)[obstacle]

        assert set(shown(hass, builder)) == {obstacle}
        assert issue.translation_key == key
        assert issue.severity == ("error" if refused else "warning")
        assert issue.is_fixable is False
        assert text_of(issue, "title").startswith("esphome ")
        assert words in text_of(issue)
        # What it is, and a way on.
        assert len(text_of(issue).split("\n\n")) == 2
        repository, branch, path = str(issue.learn_more_url).partition("/blob/main/")
        assert repository == MANIFEST["documentation"]
        assert branch
        assert (ROOT / path).is_file()

    await eventually(lambda: shown(hass, builder) == {})


async def test_no_compiler(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A compiler that is installed later is found."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    assert await hass.config_entries.async_setup(entry.entry_id)
    await eventually(lambda: "compiler_missing" in shown(hass, entry))

    for name in ("gcc", "g++"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)

    await eventually(lambda: "compiler_missing" not in shown(hass, entry))


async def test_a_file_system_that_is_not_fit(
    hass: HomeAssistant, entry: MockConfigEntry, config_dir: Path
) -> None:
    """One for small files without programs, and then one as it should be."""
    folder = Path(hass.config.cache_path(DOMAIN)).parent
    with mounted(folder, "noexec,size=300m"):
        assert await hass.config_entries.async_setup(entry.entry_id)
        await eventually(lambda: "disk_full" in shown(hass, entry))
        write_chip(config_dir)
        await eventually(lambda: "not_executable" in shown(hass, entry))

        remount(folder, "exec,size=3g")
        await eventually(
            lambda: (
                shown(hass, entry).keys().isdisjoint({"disk_full", "not_executable"})
            )
        )
        remount(folder, "ro")
        await eventually(lambda: "not_writable" in shown(hass, entry))
        remount(folder, "rw")
        await eventually(lambda: "not_writable" not in shown(hass, entry))
        assert await hass.config_entries.async_unload(entry.entry_id)


async def test_an_old_esphome(
    hass: HomeAssistant, entry: MockConfigEntry, esphome: Path
) -> None:
    """One that is updated is known by its new version."""
    fake_version(esphome, "print Version: 2025.12.4")
    assert await hass.config_entries.async_setup(entry.entry_id)
    await eventually(lambda: "esphome_old" in shown(hass, entry))
    assert "2025.12.4" in text_of(shown(hass, entry)["esphome_old"])

    fake_version(esphome)
    install_fake(esphome.parent)

    await eventually(lambda: "esphome_old" not in shown(hass, entry))


@pytest.mark.usefixtures("well")
async def test_what_nobody_has_to_mend(
    hass: HomeAssistant, builder: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer compilers at a time are no issue."""
    little = Memory(total=64 * 1024 * MIB, available=900 * MIB)
    monkeypatch.setattr(host, "ask_memory", lambda: little)
    monkeypatch.setattr(host, "ask_cores", lambda: 8)
    _answers("ask_compilers", ("C",))(monkeypatch)

    await eventually(lambda: shown(hass, builder))

    found = builder.runtime_data.builder.findings
    assert Obstacle.MEMORY_SCARCE in {finding.obstacle for finding in found}
    assert set(shown(hass, builder)) == {"compiler_missing"}


@pytest.mark.usefixtures("well")
async def test_an_issue_changes(
    hass: HomeAssistant, builder: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was a warning becomes an error, and is the same issue.

    It is told with what is told next of the builder, such as a job.
    """
    _musl(runs_glibc=True)(monkeypatch)
    await eventually(lambda: "musl" in shown(hass, builder))
    created = shown(hass, builder)["musl"].created

    _musl(runs_glibc=False)(monkeypatch)
    await async_act(hass, "compile", "attic.yaml", wait=True)

    await eventually(lambda: shown(hass, builder)["musl"].severity == "error")
    assert shown(hass, builder)["musl"].translation_key == "musl"
    assert shown(hass, builder)["musl"].created == created


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("way", ["async_unload", "async_remove"])
async def test_an_issue_goes_with_its_builder(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """Of a builder that is not there nothing stands in the way."""
    _answers("ask_compilers", ("C",))(monkeypatch)
    await eventually(lambda: shown(hass, builder))

    assert await getattr(hass.config_entries, way)(builder.entry_id)

    assert not ir.async_get(hass).issues


@pytest.mark.usefixtures("well")
async def test_what_was_ignored_stays_so(
    hass: HomeAssistant, entry: MockConfigEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart of Home Assistant, too, when it is found again."""
    issue_id = f"compiler_missing_{entry.entry_id}"
    ir.async_create_issue(
        hass,
        DOMAIN,
        issue_id,
        is_fixable=False,
        severity=ir.IssueSeverity.ERROR,
        translation_key="compiler_missing",
    )
    ir.async_ignore_issue(hass, DOMAIN, issue_id, ignore=True)
    registry = ir.async_get(hass)
    before = registry.issues[DOMAIN, issue_id]
    registry.issues[DOMAIN, issue_id] = replace(before, active=False)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)

    _answers("ask_compilers", ("C",))(monkeypatch)

    await eventually(lambda: shown(hass, entry))
    assert shown(hass, entry)["compiler_missing"].dismissed_version is not None


@pytest.mark.usefixtures("well")
async def test_what_is_left_goes_with_an_entry_that_never_loaded(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    """What an earlier run left is of no use to anybody."""
    ir.async_create_issue(
        hass,
        DOMAIN,
        f"musl_{entry.entry_id}",
        is_fixable=False,
        severity=ir.IssueSeverity.ERROR,
        translation_key="musl",
    )

    assert await hass.config_entries.async_remove(entry.entry_id)

    assert not ir.async_get(hass).issues


@pytest.mark.usefixtures("well")
async def test_each_builder_has_its_own(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    esphome: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is in the way of two is told of each."""
    _answers("ask_compilers", ("C",))(monkeypatch)
    folder = tmp_path / "workshop"
    folder.mkdir()
    write_configuration(folder, "lathe")
    other = local_entry("workshop", folder, esphome)
    other.add_to_hass(hass)
    assert await hass.config_entries.async_setup(other.entry_id)

    await eventually(lambda: len(ir.async_get(hass).issues) == 2)

    titles = {text_of(issue, "title") for issue in ir.async_get(hass).issues.values()}
    assert titles == {
        "esphome has no compiler for the host platform",
        "workshop has no compiler for the host platform",
    }
    assert await hass.config_entries.async_unload(other.entry_id)
    (issue,) = ir.async_get(hass).issues.values()
    assert issue.issue_id == f"compiler_missing_{builder.entry_id}"
