"""The repair issues of failed builds: who is told, of what, and the ways on."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus
import json
from pathlib import Path
import re
from typing import Any, Final

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.esphome_builds.builds import queue
from custom_components.esphome_builds.builds.builder import BuildRequest
from custom_components.esphome_builds.builds.log import JobLog
from custom_components.esphome_builds.builds.models import RequestKind
from custom_components.esphome_builds.const import CONF_FAILURE_ISSUES, DOMAIN
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component

from .clients import eventually
from .fakes import write_configuration
from .helpers import Job, async_act

PORCH: Final = "porch.yaml"
TEXTS: Final = json.loads(
    (
        Path(__file__).parent.parent
        / "custom_components"
        / DOMAIN
        / "translations"
        / "en.json"
    ).read_bytes()
)["issues"]

COMPILE_FAILS: Final = (
    "compile: print src/main.cpp:3:5: error: 'x' was not declared in this scope",
    "compile: exit 1",
)
UPLOAD_FAILS: Final = (
    "upload: print ERROR Error resolving IP address of porch.local",
    "upload: exit 1",
)
INVALID: Final = ("config: print Failed config", "config: exit 2")

type Fix = Callable[..., Awaitable[dict[str, Any]]]


def shown(hass: HomeAssistant) -> dict[str, ir.IssueEntry]:
    """Return the issues of failed builds, by the name of the configuration."""
    return {
        issue.issue_id.rpartition("_")[2]: issue
        for issue in ir.async_get(hass).issues.values()
        if issue.active and issue.issue_id.startswith("build_failed_")
    }


def told(hass: HomeAssistant) -> dict[str, str | None]:
    """Return why builds failed, as far as anybody is told."""
    return {name: issue.translation_key for name, issue in shown(hass).items()}


async def async_build(
    hass: HomeAssistant, kind: str = "compile", context: Context | None = None
) -> Job:
    """Build the porch, unattended unless there is a context; return the first job."""
    job, *_ = await async_act(hass, kind, PORCH, context=context, wait=True)
    return job


@pytest.fixture
def porch(config_dir: Path) -> Callable[..., str]:
    """Return what writes the configuration."""

    def _porch(*script: str) -> str:
        return write_configuration(config_dir, "porch", *script)

    return _porch


@pytest.fixture
def context(hass_admin_user: MockUser) -> Context:
    """Return the context of somebody who is there."""
    return Context(user_id=hass_admin_user.id)


@pytest.fixture
async def fix(hass: HomeAssistant, hass_client: ClientSessionGenerator) -> Fix:
    """Return what begins to fix the issue of the porch, or goes on with that."""
    assert await async_setup_component(hass, "auth", {})
    assert await async_setup_component(hass, "repairs", {})
    http = await hass_client()

    async def _fix(flow_id: str | None = None, **data: str) -> dict[str, Any]:
        path = "/api/repairs/issues/fix"
        if flow_id is None:
            issue_id = shown(hass)[PORCH].issue_id
            data = {"handler": DOMAIN, "issue_id": issue_id}
        else:
            path = f"{path}/{flow_id}"
        response = await http.post(path, json=data)
        assert response.status == HTTPStatus.OK
        result: dict[str, Any] = await response.json()
        return result

    return _fix


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize(
    ("kind", "script", "cause"),
    [
        ("compile", COMPILE_FAILS, "compile_error"),
        ("install", COMPILE_FAILS, "compile_error"),
        ("install", UPLOAD_FAILS, "device_offline"),
        ("validate", INVALID, "invalid_config"),
    ],
)
async def test_an_issue_comes_and_goes(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    entry: MockConfigEntry,
    porch: Callable[..., str],
    kind: str,
    script: tuple[str, ...],
    cause: str,
) -> None:
    """It is one for what failed, and not for what waited for that."""
    porch(*script)
    await async_build(hass, kind)

    assert told(hass) == {PORCH: f"build_failed_{cause}"}
    issue = shown(hass)[PORCH]
    assert issue.issue_id == f"build_failed_{entry.entry_id}_{PORCH}"
    assert issue.severity == "error"
    assert issue.is_fixable is True
    # What every user may read.
    assert issue.translation_placeholders == {
        "builder": "esphome",
        "configuration": PORCH,
    }

    porch()
    await async_build(hass, kind)

    assert shown(hass) == {}


@pytest.mark.usefixtures("builder")
async def test_what_works_is_what_failed(
    hass: HomeAssistant, porch: Callable[..., str], context: Context
) -> None:
    """A firmware that can be built has not arrived, and a valid one is not built."""
    porch(*UPLOAD_FAILS)
    await async_build(hass, "install")
    await async_build(hass, "compile")
    assert told(hass) == {PORCH: "build_failed_device_offline"}

    porch(*COMPILE_FAILS)
    await async_build(hass, "compile")
    await async_build(hass, "validate")
    assert told(hass) == {PORCH: "build_failed_compile_error"}

    # What failed before that has still not worked.
    porch()
    await async_build(hass, "compile", context)
    assert told(hass) == {PORCH: "build_failed_device_offline"}

    await async_build(hass, "clean")
    await async_build(hass, "upload", context)
    assert shown(hass) == {}

    # What can be built is valid.
    porch(*INVALID)
    await async_build(hass, "validate")
    assert told(hass) == {PORCH: "build_failed_invalid_config"}
    porch()
    await async_build(hass, "compile")
    assert shown(hass) == {}


@pytest.mark.usefixtures("builder")
async def test_who_is_there_needs_no_issue(
    hass: HomeAssistant, porch: Callable[..., str], context: Context
) -> None:
    """What somebody asked for they see; nor is a cancelled job a failed one."""
    porch(*COMPILE_FAILS)
    job = await async_build(hass, context=context)
    assert job["status"] == "failed"
    porch("sleep inf")
    (job,) = await async_act(hass, "compile", PORCH)
    (job,) = await async_act(hass, "cancel", job_id=[job["job_id"]])

    assert job["status"] == "cancelled"
    assert shown(hass) == {}


async def test_what_others_asked_for_is_theirs(
    hass: HomeAssistant, builder: MockConfigEntry, porch: Callable[..., str]
) -> None:
    """A job without a requester is one of another client of a server."""
    coordinator = builder.runtime_data
    porch(*COMPILE_FAILS)
    await async_act(hass, "validate", PORCH, wait=True)
    submission = await coordinator.builder.submit(
        BuildRequest(kind=RequestKind.COMPILE, configurations=(PORCH,))
    )

    (job,) = await coordinator.async_wait(submission.jobs)

    assert job.status == "failed"
    assert shown(hass) == {}


@pytest.mark.usefixtures("builder")
async def test_a_clean_is_no_build(
    hass: HomeAssistant, porch: Callable[..., str]
) -> None:
    """That something could not be deleted shows in the next build."""
    porch("clean: exit 1")

    job = await async_build(hass, "clean")

    assert job["status"] == "failed"
    assert shown(hass) == {}


@pytest.mark.usefixtures("builder")
async def test_what_is_ignored(
    hass: HomeAssistant, porch: Callable[..., str], context: Context
) -> None:
    """The same every night is ignored, until it is something else or has worked."""
    porch(*COMPILE_FAILS)
    await async_build(hass)
    issue_id = shown(hass)[PORCH].issue_id
    ir.async_ignore_issue(hass, DOMAIN, issue_id, ignore=True)

    last = await async_build(hass)
    assert shown(hass)[PORCH].dismissed_version is not None
    assert shown(hass)[PORCH].data == {"job_id": last["job_id"]}

    porch("compile: signal SEGV")
    await async_build(hass)
    assert told(hass) == {PORCH: "build_failed_crashed"}
    assert shown(hass)[PORCH].dismissed_version is None

    ir.async_ignore_issue(hass, DOMAIN, issue_id, ignore=True)
    # Whoever tries and fails is told no more than before.
    await async_build(hass, context=context)
    assert shown(hass)[PORCH].dismissed_version is not None

    porch()
    await async_build(hass)
    porch("compile: signal SEGV")
    await async_build(hass)
    assert shown(hass)[PORCH].dismissed_version is None


async def test_it_is_there_after_a_restart(
    hass: HomeAssistant, builder: MockConfigEntry, porch: Callable[..., str]
) -> None:
    """As long as it holds, and ignored if it was; what is mended is forgotten."""
    porch(*COMPILE_FAILS)
    job = await async_build(hass)
    issue = shown(hass)[PORCH]
    assert await hass.config_entries.async_unload(builder.entry_id)
    assert shown(hass) == {}

    # What Home Assistant keeps of issues.
    registry = ir.async_get(hass)
    for name in (PORCH, "attic.yaml"):
        issue_id = f"build_failed_{builder.entry_id}_{name}"
        left = replace(issue, issue_id=issue_id, active=False, dismissed_version="1")
        registry.issues[DOMAIN, issue_id] = left
    assert await hass.config_entries.async_setup(builder.entry_id)

    await eventually(lambda: told(hass) == {PORCH: "build_failed_compile_error"})
    assert shown(hass)[PORCH].data == {"job_id": job["job_id"]}
    assert shown(hass)[PORCH].dismissed_version == "1"
    assert set(registry.issues) == {(DOMAIN, issue.issue_id)}

    assert await hass.config_entries.async_reload(builder.entry_id)

    await eventually(lambda: PORCH in shown(hass))
    assert shown(hass)[PORCH].dismissed_version == "1"


async def test_it_goes_with_its_configuration(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    porch: Callable[..., str],
) -> None:
    """Nobody has to mend what is deleted."""
    porch(*COMPILE_FAILS)
    await async_build(hass)
    assert PORCH in shown(hass)

    (config_dir / PORCH).unlink()
    # The end of a job is a reason to look.
    await async_act(hass, "validate", "kettle.yaml", wait=True)
    await eventually(lambda: PORCH not in builder.runtime_data.builder.configurations)

    assert not ir.async_get(hass).issues


async def test_a_configuration_that_is_gone_after_a_restart(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    config_dir: Path,
    porch: Callable[..., str],
) -> None:
    """Its jobs are still known, and nobody has to mend them."""
    porch(*COMPILE_FAILS)
    await async_build(hass)
    assert await hass.config_entries.async_unload(builder.entry_id)
    (config_dir / PORCH).unlink()

    assert await hass.config_entries.async_setup(builder.entry_id)
    await eventually(lambda: builder.runtime_data.builder.info.state == "ready")
    await async_act(hass, "validate", "kettle.yaml", wait=True)

    jobs = builder.runtime_data.builder.jobs.values()
    assert PORCH in {job.configuration for job in jobs}
    assert shown(hass) == {}


@pytest.mark.local_only("how long a history is, is the same for both")
@pytest.mark.usefixtures("builder")
async def test_it_goes_with_its_job(
    hass: HomeAssistant, porch: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody knows anything of any more cannot be told."""
    monkeypatch.setattr(queue, "HISTORY", 2)
    porch(*COMPILE_FAILS)
    await async_build(hass)
    await async_act(hass, "validate", "kettle.yaml", wait=True)
    assert PORCH in shown(hass)

    await async_act(hass, "validate", "kettle.yaml", wait=True)

    await eventually(lambda: shown(hass) == {})


@pytest.mark.parametrize("ignored", [False, True])
async def test_it_goes_with_its_entry(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    porch: Callable[..., str],
    ignored: bool,
) -> None:
    """Nothing is left of a builder that is removed."""
    porch(*COMPILE_FAILS)
    await async_build(hass)
    issue = shown(hass)[PORCH]
    ir.async_ignore_issue(hass, DOMAIN, issue.issue_id, ignore=ignored)

    assert await hass.config_entries.async_remove(builder.entry_id)

    assert not ir.async_get(hass).issues


async def test_an_option_turns_them_off(
    hass: HomeAssistant, builder: MockConfigEntry, porch: Callable[..., str]
) -> None:
    """What is there goes, even ignored, and nothing new comes."""
    porch(*COMPILE_FAILS)
    await async_build(hass)
    issue = shown(hass)[PORCH]
    ir.async_ignore_issue(hass, DOMAIN, issue.issue_id, ignore=True)

    hass.config_entries.async_update_entry(
        builder, options={CONF_FAILURE_ISSUES: False}
    )
    assert await hass.config_entries.async_reload(builder.entry_id)
    assert not ir.async_get(hass).issues

    await eventually(lambda: builder.runtime_data.builder.info.state == "ready")
    assert (await async_build(hass))["status"] == "failed"
    assert not ir.async_get(hass).issues
    assert await hass.config_entries.async_unload(builder.entry_id)


@pytest.mark.usefixtures("builder")
async def test_the_reason_is_shown(
    hass: HomeAssistant,
    porch: Callable[..., str],
    fix: Fix,
    hass_client_no_auth: ClientSessionGenerator,
) -> None:
    """With a sentence, the end of the log, and a link that opens all of it."""
    porch(
        "compile: lines 100",
        r"compile: write '\x1b[31m```<b>red</b>\x1b[0m\n'",
        *COMPILE_FAILS,
    )
    job = await async_build(hass)

    step = await fix()

    assert step["type"] == "menu"
    assert step["menu_options"] == ["retry", "ignore"]
    told = step["description_placeholders"]
    assert told["configuration"] == PORCH
    assert re.sub(r"\\(.)", r"\1", told["message"]) == job["message"]
    first, *lines, last = told["lines"].splitlines()
    assert first == "````text"
    assert last == "````"
    assert len(lines) == 20
    assert lines[-2:] == [
        "```<b>red</b>",
        "src/main.cpp:3:5: error: 'x' was not declared in this scope",
    ]
    link = re.fullmatch(
        r'<a href="([^"]+)" target="_blank">porch\.yaml-compile\.txt</a>', told["log"]
    )
    assert link is not None
    response = await (await hass_client_no_auth()).get(link[1])
    assert response.status == HTTPStatus.OK
    assert (await response.text()).startswith("line 0\n")
    texts = TEXTS["build_failed_compile_error"]["fix_flow"]["step"]["init"]
    names = set(re.findall(r"\{(\w+)\}", texts["title"] + texts["description"]))
    assert names == set(told)


@pytest.mark.usefixtures("builder")
async def test_little_of_a_log_is_shown(
    hass: HomeAssistant, porch: Callable[..., str], fix: Fix
) -> None:
    """Lines may be long, and what is shown has to fit into a dialog."""
    porch(f"compile: write '{'é' * 3000}'", "compile: exit 1")
    await async_build(hass)

    step = await fix()

    lines = step["description_placeholders"]["lines"]
    assert lines == f"```text\n{'é' * 1024}\n```"


@pytest.mark.usefixtures("builder")
async def test_a_log_that_cannot_be_read(
    hass: HomeAssistant,
    porch: Callable[..., str],
    fix: Fix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rest is shown all the same."""

    async def _page(*_: object) -> None:
        raise OSError(5, "Input/output error")

    porch(*COMPILE_FAILS)
    await async_build(hass)
    monkeypatch.setattr(JobLog, "page", _page)

    step = await fix()

    assert step["type"] == "menu"
    assert step["description_placeholders"]["lines"] == "```text\n\n```"


@pytest.mark.parametrize(
    ("kind", "script", "kinds"),
    [
        ("validate", INVALID, ["validate"]),
        ("compile", COMPILE_FAILS, ["compile"]),
        ("install", COMPILE_FAILS, ["compile", "upload"]),
        ("install", UPLOAD_FAILS, ["compile", "upload"]),
        ("upload", UPLOAD_FAILS, ["upload"]),
    ],
)
async def test_trying_again(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    builder: MockConfigEntry,
    porch: Callable[..., str],
    fix: Fix,
    hass_admin_user: MockUser,
    kind: str,
    script: tuple[str, ...],
    kinds: list[str],
) -> None:
    """The same is done, by who tries, and the issue stays until that has worked."""
    porch(*script)
    before = await async_act(hass, kind, PORCH, wait=True)
    step = await fix()
    porch()

    step = await fix(step["flow_id"], next_step_id="retry")

    assert (step["type"], step["reason"]) == ("abort", "started")
    jobs = [
        job
        for job in builder.runtime_data.builder.jobs.values()
        if job.job_id > before[-1]["job_id"]
    ]
    assert [job.kind for job in jobs] == kinds
    for job in jobs:
        assert job.requested_by is not None
        assert job.requested_by.user_id == hass_admin_user.id
        assert job.requested_by.unattended is False
    await eventually(lambda: shown(hass) == {})


@pytest.mark.usefixtures("builder")
async def test_what_fails_again_is_shown_again(
    hass: HomeAssistant, porch: Callable[..., str], fix: Fix, builder: MockConfigEntry
) -> None:
    """The newest reason is the one that matters."""
    porch(*COMPILE_FAILS)
    await async_build(hass)
    step = await fix()
    porch("compile: signal SEGV")

    await fix(step["flow_id"], next_step_id="retry")

    await eventually(lambda: told(hass) == {PORCH: "build_failed_crashed"})
    *_, last = builder.runtime_data.builder.jobs
    assert shown(hass)[PORCH].data == {"job_id": last}


async def test_trying_without_a_firmware(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    porch: Callable[..., str],
    fix: Fix,
) -> None:
    """What there was nothing to send of is built first."""
    porch(
        "upload: print ERROR Please compile the configuration first", "upload: exit 1"
    )
    before = await async_build(hass, "upload")
    assert told(hass) == {PORCH: "build_failed_prerequisite_failed"}
    step = await fix()
    porch()

    await fix(step["flow_id"], next_step_id="retry")

    jobs = builder.runtime_data.builder.jobs.values()
    kinds = [job.kind for job in jobs if job.job_id > before["job_id"]]
    assert kinds == ["compile", "upload"]
    await eventually(lambda: shown(hass) == {})


async def test_what_cannot_be_tried(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    porch: Callable[..., str],
    fix: Fix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reason is said."""
    porch(*COMPILE_FAILS)
    await async_build(hass)
    step = await fix()
    monkeypatch.setattr(queue, "MAX_ACTIVE", 1)

    step = await fix(step["flow_id"], next_step_id="retry")

    assert (step["type"], step["reason"]) == ("abort", "not_started")
    reason = {"reason": "Too many jobs are waiting already."}
    assert step["description_placeholders"] == reason


@pytest.mark.usefixtures("builder")
async def test_ignoring(
    hass: HomeAssistant, porch: Callable[..., str], fix: Fix
) -> None:
    """It is the same as what other issues have a button for."""
    porch(*COMPILE_FAILS)
    await async_build(hass)
    step = await fix()

    step = await fix(step["flow_id"], next_step_id="ignore")

    assert (step["type"], step["reason"]) == ("abort", "ignored")
    assert shown(hass)[PORCH].dismissed_version is not None


@pytest.mark.parametrize("option", [None, "retry", "ignore"])
async def test_what_is_gone_meanwhile(
    hass: HomeAssistant,
    builder: MockConfigEntry,
    porch: Callable[..., str],
    fix: Fix,
    option: str | None,
) -> None:
    """A dialog can be open for long, and an ignored issue outlives its builder."""
    porch(*COMPILE_FAILS)
    await async_build(hass)
    step = await fix()
    if option is None:
        await fix(step["flow_id"], next_step_id="ignore")
    assert await hass.config_entries.async_unload(builder.entry_id)

    if option is None:
        step = await fix()
    else:
        step = await fix(step["flow_id"], next_step_id=option)

    assert (step["type"], step["reason"]) == ("abort", "gone")
