"""The websocket commands, to the letter of docs/websocket.md."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.esphome_builds.local import cache_dir
from homeassistant.core import HomeAssistant

from .builds.local.test_firmware import HASH, Builds
from .clients import Client, CommandError, Message, eventually
from .conftest import Connect, Outage
from .fakes import FAKE_VERSION, fake_calls, write_configuration
from .helpers import local_entry

JOB: Final = {
    "address",
    "attempt",
    "cause",
    "configuration",
    "created_at",
    "depends_on",
    "elided_lines",
    "entry_id",
    "esphome_version",
    "exit_code",
    "finished_at",
    "firmware_job_id",
    "job_id",
    "kind",
    "message",
    "phase",
    "progress",
    "requested_by",
    "started_at",
    "status",
    "total_lines",
}
CONFIGURATION: Final = {
    "active_job_id",
    "area",
    "built_hash",
    "built_version",
    "comment",
    "configuration",
    "deployed_hash",
    "deployed_version",
    "device_id",
    "entry_id",
    "error",
    "friendly_name",
    "last_job_id",
    "name",
    "online",
    "pending_changes",
    "platform",
    "update_available",
}
COMMANDS: Final[list[tuple[str, Message]]] = [
    ("builders/list", {}),
    ("configurations/list", {}),
    ("jobs/list", {}),
    ("jobs/get", {"job_id": "1"}),
    ("jobs/submit", {"kind": "validate", "configurations": ["kettle.yaml"]}),
    ("jobs/cancel", {"job_id": "1"}),
    ("jobs/log", {"job_id": "1"}),
    ("subscribe", {}),
    ("jobs/follow", {"job_id": "1"}),
    ("builders/install_esphome", {}),
    ("builders/go_back", {}),
]
NEED_BUILDER: Final = [COMMANDS[1], COMMANDS[2], COMMANDS[4]]
HOSTILE_NAMES: Final = [
    "",
    ".",
    "..",
    "../esphome/a.yaml",
    "/etc/passwd",
    "-a.yaml",
    "a.yaml\0",
    "a.yaml\n",
    "folder/b.yaml",
    "linked.yaml",
    "secrets.yaml",
    ".hidden.yaml",
]
HOSTILE_ADDRESSES: Final = [
    "",
    "-x",
    "--device",
    "a b",
    "a\0",
    "a\n",
    "a;b",
    "x" * 254,
    "ä",
]
WRONG_INPUT: Final[list[tuple[str, Message]]] = [
    ("builders/list", {"entry_id": "x"}),
    ("builders/clean_all", {"entry_id": 1}),
    ("configurations/list", {"entry_id": 1}),
    ("firmware/list", {}),
    ("firmware/list", {"configuration": ["kettle.yaml"]}),
    ("jobs/list", {"kind": "install"}),
    ("jobs/list", {"status": "done"}),
    ("jobs/list", {"limit": 0}),
    ("jobs/list", {"limit": 501}),
    ("jobs/list", {"limit": "many"}),
    ("jobs/list", {"before": 7}),
    ("jobs/get", {}),
    ("jobs/get", {"job_id": ["a"]}),
    ("jobs/submit", {"kind": "compile"}),
    ("jobs/submit", {"configurations": ["a.yaml"]}),
    ("jobs/submit", {"kind": "run", "configurations": ["a.yaml"]}),
    ("jobs/submit", {"kind": "compile", "configurations": []}),
    ("jobs/submit", {"kind": "compile", "configurations": "a.yaml"}),
    ("jobs/submit", {"kind": "compile", "configurations": [None]}),
    ("jobs/submit", {"kind": "compile", "configurations": ["a.yaml"] * 201}),
    (
        "jobs/submit",
        {"kind": "compile", "configurations": ["a.yaml"], "replace": "yes"},
    ),
    ("jobs/submit", {"kind": "upload", "configurations": ["a.yaml"], "job_id": 1}),
    ("builders/install_esphome", {"version": 2026}),
    ("builders/go_back", {"version": "2026.10.0"}),
    ("jobs/cancel", {}),
    ("jobs/log", {"job_id": "1", "from_line": -1}),
    ("jobs/log", {"job_id": "1", "from_line": 1.5}),
    ("jobs/log", {"job_id": "1", "limit": 5001}),
    ("jobs/log", {"job_id": "1", "limit": 0}),
    ("subscribe", {"entry_id": None}),
    ("jobs/follow", {}),
    ("jobs/follow", {"job_id": "1", "from_line": -1}),
]


async def call(client: Client, command: str, **fields: object) -> Any:  # noqa: ANN401
    """Return the result of one of our commands."""
    return await client.call(f"esphome_builds/{command}", **fields)


async def submit(client: Client, kind: str, *names: str, **fields: object) -> Message:
    """Submit and return the result."""
    result: Message = await call(
        client, "jobs/submit", kind=kind, configurations=names, **fields
    )
    return result


async def run(client: Client, kind: str, name: str) -> Message:
    """Return a job that has ended."""
    stream = await client.subscribe("esphome_builds/subscribe")
    [job] = (await submit(client, kind, name))["jobs"]
    job = await stream.until_job(job["job_id"], "completed", "failed")
    await stream.unsubscribe()
    return job


async def refused(client: Client, command: str, **fields: object) -> str:
    """Return the code of the error that answers a command."""
    with pytest.raises(CommandError) as caught:
        await call(client, command, **fields)
    return caught.value.code


async def add_second_builder(
    hass: HomeAssistant, folder: Path, esphome: Path
) -> MockConfigEntry:
    """Return the entry of another builder, a local one, with one of the examples."""
    second = folder / "second"
    second.mkdir()
    write_configuration(second, "kettle")
    entry = local_entry(second.name, second, esphome)
    entry.add_to_hass(hass)
    assert await hass.config_entries.async_setup(entry.entry_id)
    await eventually(lambda: entry.runtime_data.builder.info.state == "ready")
    return entry


async def test_a_builder_has_all_its_fields(
    client: Client, builder: MockConfigEntry, builder_kind: str
) -> None:
    """Every field is there and has the type that it should have."""
    assert await call(client, "builders/list") == {
        "builders": [
            {
                "entry_id": builder.entry_id,
                "kind": builder_kind,
                "title": "esphome",
                "state": "ready",
                "esphome_version": FAKE_VERSION,
                "running": 0,
                "queued": 0,
                "message": None,
                "managed": False,
                "previous_version": None,
                "obstacles": [],
                "disk_usage": None,
            }
        ]
    }


async def test_a_configuration_has_all_its_fields(
    client: Client, builder: MockConfigEntry, config_dir: Path, builder_kind: str
) -> None:
    """What is not known is null."""
    (config_dir / "lamp.yaml").write_text(
        "esphome:\n  name: lamp\n  area: Kitchen\n  comment: The tall one\n"
        "  friendly_name: Tall lamp\nesp32:\n  board: esp32dev\n"
    )
    # The end of a job is a reason to look.
    await run(client, "validate", "kettle.yaml")
    await eventually(lambda: "lamp.yaml" in builder.runtime_data.builder.configurations)

    result = await call(client, "configurations/list")

    assert all(found.keys() == CONFIGURATION for found in result["configurations"])
    [configuration] = [
        found
        for found in result["configurations"]
        if found["configuration"] == "lamp.yaml"
    ]
    known = {name: value for name, value in configuration.items() if value is not None}
    if builder_kind == "device_builder":
        assert known.pop("pending_changes") is True
    assert known == {
        "entry_id": builder.entry_id,
        "configuration": "lamp.yaml",
        "name": "lamp",
        "friendly_name": "Tall lamp",
        "area": "Kitchen",
        "comment": "The tall one",
        "platform": "esp32",
    }


async def test_a_job_has_all_its_fields_from_its_beginning_to_its_end(
    hass: HomeAssistant, client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """A job that was submitted, and the same one when it has ended."""
    write_configuration(config_dir, "a", "print one", "print two")

    result = await submit(client, "validate", "a.yaml")
    [queued] = result["jobs"]

    assert result["attached"] == []
    assert queued.keys() == JOB
    users = await hass.auth.async_get_users()
    [admin] = [user for user in users if user.is_admin and not user.system_generated]
    assert queued["requested_by"].pop("context_id")
    assert queued["requested_by"] == {"user_id": admin.id, "unattended": False}
    assert queued["entry_id"] == builder.entry_id
    assert queued["configuration"] == "a.yaml"
    assert queued["kind"] == "validate"
    assert queued["attempt"] == 1
    assert queued["created_at"].endswith("+00:00")

    await client.follow_to_end(queued["job_id"])
    ended = (await call(client, "jobs/get", job_id=queued["job_id"]))["job"]

    assert ended.keys() == JOB
    assert queued["created_at"] <= ended["started_at"] <= ended["finished_at"]
    assert {
        name: ended[name]
        for name in (
            "status",
            "progress",
            "exit_code",
            "esphome_version",
            "total_lines",
        )
    } == {
        "status": "completed",
        "progress": 100,
        "exit_code": 0,
        "esphome_version": FAKE_VERSION,
        "total_lines": 2,
    }
    for name in ("cause", "message", "phase", "depends_on", "address"):
        assert ended[name] is None
    assert ended["elided_lines"] == 0


async def test_an_install_is_two_jobs(
    client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """An upload follows its compile, to the address that was named."""
    write_configuration(config_dir, "a")

    result = await submit(client, "install", "a.yaml", address="10.0.0.7")

    compiling, uploading = result["jobs"]
    assert (compiling["kind"], uploading["kind"]) == ("compile", "upload")
    assert compiling["depends_on"] is None
    assert uploading["depends_on"] == compiling["job_id"]
    assert (compiling["address"], uploading["address"]) == (None, "10.0.0.7")
    _, end = await client.follow_to_end(uploading["job_id"])
    assert end["job"]["status"] == "completed"


async def test_the_same_request_attaches_and_replace_supersedes(
    client: Client, builder: MockConfigEntry, config_dir: Path, tmp_path: Path
) -> None:
    """Nothing is built twice at once; who wants it anew gets it anew."""
    write_configuration(config_dir, "a", f"wait {tmp_path / 'go'}")
    [first] = (await submit(client, "compile", "a.yaml"))["jobs"]

    again = await submit(client, "compile", "a.yaml")
    assert again["attached"] == [first["job_id"]]
    assert [job["job_id"] for job in again["jobs"]] == [first["job_id"]]

    anew = await submit(client, "compile", "a.yaml", replace=True)
    await client.follow_to_end(first["job_id"])
    (tmp_path / "go").touch()
    assert anew["attached"] == []
    [second] = anew["jobs"]
    assert second["job_id"] > first["job_id"]
    _, end = await client.follow_to_end(second["job_id"])
    assert end["job"]["status"] == "completed"
    first = (await call(client, "jobs/get", job_id=first["job_id"]))["job"]
    assert (first["status"], first["cause"]) == ("cancelled", "superseded")


async def test_all_is_cleaned(
    client: Client, builder: MockConfigEntry, config_dir: Path, esphome: Path
) -> None:
    """A job for each configuration, or the one that is there."""
    write_configuration(config_dir, "a", "sleep inf")
    [waiting] = (await submit(client, "clean", "a.yaml"))["jobs"]
    await eventually(lambda: "a.yaml" in builder.runtime_data.builder.configurations)

    result = await call(client, "builders/clean_all", entry_id=builder.entry_id)

    names = [job["configuration"] for job in result["jobs"]]
    assert names == list(builder.runtime_data.builder.configurations)
    assert {job["kind"] for job in result["jobs"]} == {"clean"}
    assert result["attached"] == [waiting["job_id"]]
    [kettle] = [job for job in result["jobs"] if job["configuration"] == "kettle.yaml"]
    assert kettle["requested_by"]["user_id"]
    await call(client, "jobs/cancel", job_id=waiting["job_id"])
    for job in result["jobs"]:
        await client.until_job(job["job_id"], "completed", "cancelled")


@pytest.mark.local_only("what a server built is not kept here")
async def test_kept_firmware_is_listed(
    hass: HomeAssistant, client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """The newest first, with all that tells one from another."""
    builds = Builds(cache_dir(hass, builder.entry_id))
    write_configuration(config_dir, "a")
    jobs = []
    for content in (b"one", b"two!"):
        builds.build(content, "a.yaml")
        jobs.append(await run(client, "compile", "a.yaml"))

    result = await call(client, "firmware/list", configuration="a.yaml")

    new, old = result["firmware"]
    assert new.pop("built_at") > old["built_at"] > jobs[0]["started_at"]
    assert new == {
        "job_id": jobs[1]["job_id"],
        "configuration": "a.yaml",
        "version": "2026.10.1",
        "config_hash": f"{HASH:08x}",
        "platform": "esp8266",
        "size": 4,
        "files": [
            {
                "name": "firmware.bin",
                "size": 4,
                "sha256": hashlib.sha256(b"two!").hexdigest(),
            }
        ],
    }
    assert old["job_id"] == jobs[0]["job_id"]


async def test_no_firmware_is_listed(client: Client, config_dir: Path) -> None:
    """Of a configuration that was never built, and of one that is none."""
    assert await call(client, "firmware/list", configuration="kettle.yaml") == {
        "firmware": []
    }
    for name in ("none.yaml", *HOSTILE_NAMES):
        assert await refused(client, "firmware/list", configuration=name) == "not_found"


async def test_one_bad_name_of_200_makes_no_job(
    client: Client, builder: MockConfigEntry, config_dir: Path, esphome: Path
) -> None:
    """All names are checked before anything is done."""
    names = [write_configuration(config_dir, f"node{number}") for number in range(200)]
    names[137] = "missing.yaml"

    assert (
        await refused(client, "jobs/submit", kind="compile", configurations=names)
        == "not_found"
    )
    assert (await call(client, "jobs/list"))["jobs"] == []
    assert not fake_calls(esphome, "compile")


async def test_a_hostile_name_is_no_configuration(
    client: Client,
    builder: MockConfigEntry,
    builder_kind: str,
    config_dir: Path,
    esphome: Path,
) -> None:
    """Nothing but a plain file of the folder can be named."""
    for name in ("a", "-a", ".hidden", "secrets"):
        write_configuration(config_dir, name)
    for folder in (config_dir / "folder", config_dir.parent / "outside"):
        folder.mkdir()
        write_configuration(folder, "b")
    (config_dir / "linked.yaml").symlink_to(config_dir.parent / "outside" / "b.yaml")

    # A server says itself what it has.
    given = ("-a.yaml", "linked.yaml") if builder_kind == "device_builder" else ()
    for name in (name for name in HOSTILE_NAMES if name not in given):
        names = ["a.yaml", name]
        code = await refused(
            client, "jobs/submit", kind="validate", configurations=names
        )
        assert code == "not_found", name
    assert not fake_calls(esphome, "config")
    for name in given:
        await run(client, "validate", name)
    # No option is made of the one; the server refuses what leads out of its folder.
    called = [call[-1] for call in fake_calls(esphome, "config")]
    assert called == ([str(config_dir / "-a.yaml")] if given else [])


async def test_a_hostile_address_is_refused(client: Client) -> None:
    """An address becomes an argument of a command, so it must be one."""
    request = {"kind": "install", "configurations": ["kettle.yaml"]}
    for address in HOSTILE_ADDRESSES:
        code = await refused(client, "jobs/submit", **request, address=address)
        assert code == "invalid_format", address


async def test_only_what_reaches_a_device_has_an_address(client: Client) -> None:
    """A compile with an address is a mistake of the caller."""
    request = {"configurations": ["kettle.yaml"], "address": "10.0.0.7"}
    for kind in ("validate", "compile", "clean"):
        code = await refused(client, "jobs/submit", kind=kind, **request)
        assert code == "invalid_format"


async def test_wrong_input_is_answered_and_the_connection_lives(client: Client) -> None:
    """Nothing that a client sends costs it more than an error."""
    for command, fields in WRONG_INPUT:
        code = await refused(client, command, **fields)
        assert code == "invalid_format", (command, fields)
    assert await call(client, "builders/list")


async def test_an_unknown_job_is_not_found(client: Client) -> None:
    """A job id is looked up and nothing else is done with it."""
    for command in ("jobs/get", "jobs/cancel", "jobs/log", "jobs/follow"):
        for job_id in ("", "0" * 22, "../jobs", "\0", "x" * 100_000):
            assert await refused(client, command, job_id=job_id) == "not_found"


async def test_only_administrators_may_do_anything(
    connect: Connect, builder: MockConfigEntry, hass_read_only_access_token: str
) -> None:
    """A user without the right is told so, and nothing else."""
    client = await connect(hass_read_only_access_token)
    for command, fields in COMMANDS:
        assert await refused(client, command, **fields) == "unauthorized", command


async def test_the_only_builder_need_not_be_named(
    hass: HomeAssistant,
    client: Client,
    builder: MockConfigEntry,
    esphome: Path,
    tmp_path: Path,
) -> None:
    """With two it has to be; an unknown one is not found."""
    for command, fields in NEED_BUILDER:
        assert await call(client, command, **fields)
        assert await call(client, command, **fields, entry_id=builder.entry_id)
        code = await refused(client, command, **fields, entry_id="other")
        assert code == "not_found"

    second = await add_second_builder(hass, tmp_path, esphome)
    for command, fields in NEED_BUILDER:
        assert await refused(client, command, **fields) == "not_found"
        assert await call(client, command, **fields, entry_id=builder.entry_id)
        assert await call(client, command, **fields, entry_id=second.entry_id)


async def test_without_a_builder_there_is_nothing_to_do(
    hass: HomeAssistant, client: Client, builder: MockConfigEntry
) -> None:
    """The commands stay when the last builder goes."""
    assert await hass.config_entries.async_unload(builder.entry_id)

    assert await call(client, "builders/list") == {"builders": []}
    for command, fields in NEED_BUILDER:
        assert await refused(client, command, **fields) == "not_found"
        code = await refused(client, command, **fields, entry_id=builder.entry_id)
        assert code == "not_found"


async def test_a_builder_that_is_unavailable_takes_no_jobs(
    client: Client, builder: MockConfigEntry, outage: Outage
) -> None:
    """The error says what is missing."""
    stream = await client.subscribe("esphome_builds/subscribe")
    await outage.begin()
    while (await stream.until("builder"))[-1]["builder"]["state"] == "ready":
        pass

    with pytest.raises(CommandError, match=f"builder_unavailable: .*{outage.reason}"):
        await submit(client, "compile", "kettle.yaml")


async def test_jobs_are_listed_in_pages(
    client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """Newest first; `before` continues after the last one of a page."""
    names = [write_configuration(config_dir, f"node{number}") for number in range(5)]
    submitted = (await submit(client, "validate", *names))["jobs"]
    newest_first = [job["job_id"] for job in reversed(submitted)]

    def ids(page: Message) -> list[str]:
        return [job["job_id"] for job in page["jobs"]]

    assert ids(await call(client, "jobs/list")) == newest_first
    first = await call(client, "jobs/list", limit=2)
    assert (ids(first), first["more"]) == (newest_first[:2], True)
    second = await call(client, "jobs/list", limit=2, before=ids(first)[-1])
    assert (ids(second), second["more"]) == (newest_first[2:4], True)
    third = await call(client, "jobs/list", limit=2, before=ids(second)[-1])
    assert (ids(third), third["more"]) == (newest_first[4:], False)
    exact = await call(client, "jobs/list", limit=5)
    assert (ids(exact), exact["more"]) == (newest_first, False)
    assert await call(client, "jobs/list", before="0") == {"jobs": [], "more": False}


async def test_jobs_are_filtered(
    client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """By configuration, kind and status, and by all of them together."""
    write_configuration(config_dir, "good")
    write_configuration(config_dir, "bad", "exit 1")
    for kind, name in (
        ("validate", "good.yaml"),
        ("compile", "good.yaml"),
        ("validate", "bad.yaml"),
    ):
        await run(client, kind, name)

    async def listed(**fields: str) -> list[tuple[str, str]]:
        jobs = (await call(client, "jobs/list", **fields))["jobs"]
        return [(job["kind"], job["configuration"]) for job in jobs]

    assert await listed(configuration="good.yaml") == [
        ("compile", "good.yaml"),
        ("validate", "good.yaml"),
    ]
    assert await listed(kind="validate") == [
        ("validate", "bad.yaml"),
        ("validate", "good.yaml"),
    ]
    assert await listed(status="failed") == [("validate", "bad.yaml")]
    assert await listed(status="completed", kind="compile") == [
        ("compile", "good.yaml")
    ]
    assert await listed(status="failed", configuration="good.yaml") == []


async def test_cancel_answers_when_the_job_has_ended(
    client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """A running job is gone when the answer comes; an ended one stays as it is."""
    write_configuration(config_dir, "a", "print it runs", "sleep inf")
    [running] = (await submit(client, "compile", "a.yaml"))["jobs"]
    [waiting] = (await submit(client, "clean", "a.yaml"))["jobs"]
    follower = await client.follow(running["job_id"])
    await follower.until_output()

    queued = (await call(client, "jobs/cancel", job_id=waiting["job_id"]))["job"]
    assert (queued["status"], queued["cause"]) == ("cancelled", "cancelled_by_user")
    assert queued["started_at"] is None
    ended = (await call(client, "jobs/cancel", job_id=running["job_id"]))["job"]
    assert (ended["status"], ended["cause"]) == ("cancelled", "cancelled_by_user")
    assert ended["finished_at"]
    assert await call(client, "jobs/cancel", job_id=running["job_id"]) == {"job": ended}
    assert (await follower.until("end"))[-1]["job"] == ended


async def test_a_log_is_read_in_pages(
    client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """Each page says where the next one starts; the last is empty."""
    write_configuration(config_dir, "a", "lines 1800")
    job_id = (await run(client, "compile", "a.yaml"))["job_id"]

    first = await call(client, "jobs/log", job_id=job_id)
    assert first == {
        "from_line": 0,
        "lines": [f"line {number}" for number in range(1000)],
        "next_line": 1000,
        "total_lines": 1800,
        "elided": [],
    }
    last = await call(client, "jobs/log", job_id=job_id, from_line=1000, limit=5000)
    assert last["lines"] == [f"line {number}" for number in range(1000, 1800)]
    assert last["next_line"] == 1800
    beyond = await call(client, "jobs/log", job_id=job_id, from_line=9000)
    assert beyond["lines"] == []
    assert beyond["from_line"] == beyond["next_line"] == 1800


async def test_a_page_of_long_lines_is_bounded(
    client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """However many lines are asked for, a page is no more than 1 MiB."""
    write_configuration(config_dir, "a", *[f"write '{'x' * 4000}\\n'"] * 400)
    job_id = (await run(client, "compile", "a.yaml"))["job_id"]

    lines: list[str] = []
    pages = 0
    while len(lines) < 400:
        page = await call(
            client, "jobs/log", job_id=job_id, from_line=len(lines), limit=5000
        )
        assert page["from_line"] == len(lines)
        assert 0 < sum(len(line) for line in page["lines"]) <= 1024 * 1024
        lines += page["lines"]
        pages += 1
    assert lines == ["x" * 4000] * 400
    assert pages > 1


@pytest.mark.local_only(
    "a server drops lines of a flood, so the numbers are its own: tests/contract"
)
async def test_what_is_gone_of_a_log_is_told(
    client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """A log of more than 32 MiB keeps head and tail; line numbers stay true."""
    write_configuration(
        config_dir, "a", f"flood {48 * 1024 * 1024}", "write '\\nthe end\\n'"
    )
    job = await run(client, "compile", "a.yaml")
    total = job["total_lines"]

    page = await call(client, "jobs/log", job_id=job["job_id"], limit=1)
    [[first, last]] = page["elided"]
    assert page["total_lines"] == total
    assert job["elided_lines"] == last - first + 1
    assert 0 < first < last < total
    before = await call(client, "jobs/log", job_id=job["job_id"], from_line=first - 1)
    assert (before["from_line"], before["next_line"]) == (first - 1, first)
    within = await call(client, "jobs/log", job_id=job["job_id"], from_line=first + 1)
    assert within["from_line"] == last + 1
    end = await call(client, "jobs/log", job_id=job["job_id"], from_line=total - 1)
    assert end["lines"] == ["the end"]


async def test_commands_work_side_by_side(
    client: Client, builder: MockConfigEntry, config_dir: Path
) -> None:
    """An answer that takes time keeps no other waiting."""
    write_configuration(config_dir, "a", "ignore", "print it runs", "sleep inf")
    [job] = (await submit(client, "compile", "a.yaml"))["jobs"]
    follower = await client.follow(job["job_id"])
    await follower.until_output()

    canceling = asyncio.create_task(call(client, "jobs/cancel", job_id=job["job_id"]))
    assert (await call(client, "jobs/get", job_id=job["job_id"]))["job"]["status"] == (
        "running"
    )
    assert not canceling.done()
    assert (await canceling)["job"]["status"] == "cancelled"
