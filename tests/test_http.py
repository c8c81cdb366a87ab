"""The HTTP views of a job: its log, and the firmware that it made."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from aiohttp.test_utils import TestClient
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.esphome_builds.builds.kept import KeptFirmware
from custom_components.esphome_builds.http import file_headers
from custom_components.esphome_builds.local import cache_dir
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component

from .builds.local.test_firmware import Builds
from .clients import Client, CommandError
from .conftest import Connect
from .fakes import write_configuration

type Http = TestClient


@pytest.fixture(autouse=True)
async def signing(hass: HomeAssistant) -> None:
    """Let Home Assistant sign paths."""
    assert await async_setup_component(hass, "auth", {})


@pytest.fixture
async def http(
    builder: MockConfigEntry, hass_client_no_auth: ClientSessionGenerator
) -> Http:
    """Return a client without a token."""
    return await hass_client_no_auth()


@pytest.fixture
def admin(hass_access_token: str) -> dict[str, str]:
    """Return the headers of an administrator."""
    return {"Authorization": f"Bearer {hass_access_token}"}


@pytest.fixture
def somebody(hass_read_only_access_token: str) -> dict[str, str]:
    """Return the headers of a user who is none."""
    return {"Authorization": f"Bearer {hass_read_only_access_token}"}


def log_path(job_id: str) -> str:
    """Return where the log of a job is."""
    return f"/api/esphome_builds/jobs/{job_id}/log"


def firmware_path(job_id: str, file: str = "firmware.bin") -> str:
    """Return where a file of the firmware that a job made is."""
    return f"/api/esphome_builds/jobs/{job_id}/firmware/{file}"


@pytest.fixture
def builds(hass: HomeAssistant, builder: MockConfigEntry) -> Builds:
    """Return what leaves firmware where ESPHome does."""
    return Builds(cache_dir(hass, builder.entry_id))


async def build(
    client: Client,
    builds: Builds,
    config_dir: Path,
    content: bytes,
    name: str = "attic",
) -> str:
    """Return the id of a job that made a firmware."""
    configuration = write_configuration(config_dir, name)
    builds.build(content, configuration)
    return await run(client, configuration)


async def run(client: Client, name: str, kind: str = "compile") -> str:
    """Return the id of a job that has ended."""
    stream = await client.subscribe("esphome_builds/subscribe")
    result = await client.call(
        "esphome_builds/jobs/submit", kind=kind, configurations=[name]
    )
    job_id: str = result["jobs"][0]["job_id"]
    await stream.until_job(job_id, "completed", "failed")
    return job_id


async def test_the_whole_log_as_plain_text(
    client: Client, http: Http, admin: dict[str, str], config_dir: Path
) -> None:
    """Without colors, however they are written, and with all else as it was printed."""
    write_configuration(
        config_dir,
        "a",
        "lines 1500",
        r"write '\x1b[32mINFO all is \x1b[1mgreen\x1b[0m\n'",
        r"write '\\033[31mERROR \\033[0mred\n'",
        r"write '10 °C\n'",
        r"write 'the end'",
    )
    job_id = await run(client, "a.yaml")

    response = await http.get(log_path(job_id), headers=admin)

    assert response.status == 200
    assert response.content_type == "text/plain"
    assert response.charset == "utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert await response.text() == "".join(
        f"{line}\n"
        for line in (
            *(f"line {number}" for number in range(1500)),
            "INFO all is green",
            "ERROR red",
            "10 °C",
            "the end",
        )
    )


@pytest.mark.parametrize("name", ["kitchen lamp", "küche", "日本", 'a"b', "a;b%20"])
async def test_the_file_is_named_after_the_job(
    client: Client, http: Http, admin: dict[str, str], config_dir: Path, name: str
) -> None:
    """With whatever a file name can hold."""
    write_configuration(config_dir, name)
    job_id = await run(client, f"{name}.yaml", "validate")

    response = await http.get(log_path(job_id), headers=admin)

    disposition = response.content_disposition
    assert disposition is not None
    assert disposition.type == "inline"
    assert disposition.filename == f"{name}.yaml-validate-{job_id}.txt"


async def test_a_log_that_is_not_finished(
    client: Client, http: Http, admin: dict[str, str], config_dir: Path
) -> None:
    """As much as there is now; it does not wait for more."""
    write_configuration(config_dir, "a", "lines 10", "sleep inf")
    result = await client.call(
        "esphome_builds/jobs/submit", kind="compile", configurations=["a.yaml"]
    )
    job_id = result["jobs"][0]["job_id"]
    follower = await client.follow(job_id, from_line=0)
    while (await follower.next()).get("lines", [""])[-1:] != ["line 9"]:
        pass

    response = await http.get(log_path(job_id), headers=admin)

    assert (await response.text()).splitlines()[-1] == "line 9"


async def test_a_log_of_nothing(
    client: Client, http: Http, admin: dict[str, str], config_dir: Path
) -> None:
    """A job that printed nothing has an empty log."""
    write_configuration(config_dir, "a", "exit 0")
    job_id = await run(client, "a.yaml")

    response = await http.get(log_path(job_id), headers=admin)

    assert (response.status, await response.text()) == (200, "")


@pytest.mark.local_only(
    "a server drops lines of a flood, so the numbers are its own: tests/contract"
)
async def test_what_is_missing_is_told_and_nobody_waits_for_a_slow_reader(
    client: Client, http: Http, admin: dict[str, str], config_dir: Path
) -> None:
    """A log of more than there is room for, read by somebody who takes a break."""
    write_configuration(
        config_dir, "a", f"flood {40 * 1024 * 1024}", r"write '\nthe end\n'"
    )
    job_id = await run(client, "a.yaml")
    page = await client.call("esphome_builds/jobs/log", job_id=job_id, limit=1)
    [[first, last]] = page["elided"]

    response = await http.get(log_path(job_id), headers=admin)
    async with asyncio.timeout(5):
        # Nothing was read of the answer yet.
        assert await client.call("esphome_builds/builders/list")
    lines = (await response.text()).splitlines()

    assert lines[first] == f"[{last - first + 1:,} lines are left out here]"
    assert lines[-1] == "the end"
    assert len(lines) == page["total_lines"] - (last - first)


async def test_a_reader_who_leaves(
    client: Client, http: Http, admin: dict[str, str], config_dir: Path
) -> None:
    """Nobody complains of a download that was broken off."""
    write_configuration(config_dir, "a", f"flood {8 * 1024 * 1024}")
    job_id = await run(client, "a.yaml")
    response = await http.get(log_path(job_id), headers=admin)
    response.close()

    assert (await http.get(log_path(job_id), headers=admin)).status == 200


@pytest.mark.parametrize(
    "job_id", ["0" * 22, "..", "../../jobs", "%00", "a/b", "x" * 5000, ".", " "]
)
async def test_an_unknown_job_is_not_found(
    http: Http, admin: dict[str, str], job_id: str
) -> None:
    """Whatever stands in its place."""
    for path in (log_path(job_id), log_path(quote(job_id, safe=""))):
        assert (await http.get(path, headers=admin)).status in (400, 404)


async def test_only_administrators_see_a_log(
    client: Client, http: Http, admin: dict[str, str], somebody: dict[str, str]
) -> None:
    """Neither without a token nor with somebody else's; nor whether there is one."""
    job_id = await run(client, "kettle.yaml", "validate")

    for path in (log_path(job_id), log_path("0" * 22)):
        assert (await http.get(path)).status == 401
        assert (await http.get(path, headers=somebody)).status in (401, 403)
    assert (await http.get(log_path(job_id), headers=admin)).status == 200


async def test_a_signed_path_is_enough(client: Client, http: Http) -> None:
    """For a browser, which sends no token; signed for this path and no other."""
    job_id = await run(client, "kettle.yaml", "validate")
    signed = await client.call("auth/sign_path", path=log_path(job_id))

    assert (await http.get(signed["path"])).status == 200
    other = signed["path"].replace(job_id, "0" * 22)
    assert (await http.get(other)).status == 401


async def test_a_signature_gives_nobody_more_rights(
    client: Client, connect: Connect, http: Http, hass_read_only_access_token: str
) -> None:
    """A path that somebody signs who may not see it."""
    job_id = await run(client, "kettle.yaml", "validate")
    other = await connect(hass_read_only_access_token)
    signed = await other.call("auth/sign_path", path=log_path(job_id))

    assert (await http.get(signed["path"])).status in (401, 403)


async def test_a_log_that_cannot_be_read_now(  # noqa: PLR0913, PLR0917
    http: Http,
    admin: dict[str, str],
    builder: MockConfigEntry,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever asks for it is told, on each way, and nobody sees a traceback."""
    (job,) = await client.submit("validate", "kettle.yaml")
    job_id = job["job_id"]
    await client.until_job(job_id, "completed")

    async def _refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(type(builder.runtime_data.builder), "open_log", _refuse)
    answer = await http.get(log_path(job_id), headers=admin)
    assert answer.status == 503
    assert "Too many open files" in await answer.text()
    with pytest.raises(CommandError, match=r"builder_unavailable: .*Too many open"):
        await client.call("esphome_builds/jobs/log", job_id=job_id)
    with pytest.raises(CommandError, match=r"builder_unavailable: .*Too many open"):
        await (await client.follow(job_id)).next()
    assert "Traceback" not in caplog.text


@pytest.mark.local_only("what a server built is not kept here")
async def test_firmware_is_saved(
    client: Client, http: Http, admin: dict[str, str], config_dir: Path, builds: Builds
) -> None:
    """As it was built, in a file named after it, and nowhere on the way."""
    old, new = bytes(range(256)) * 4096, b"new"
    job_id = await build(client, builds, config_dir, old)
    await build(client, builds, config_dir, new)

    response = await http.get(firmware_path(job_id), headers=admin)

    assert response.status == 200
    assert await response.read() == old
    assert response.content_type == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    disposition = response.content_disposition
    assert disposition is not None
    assert disposition.type == "attachment"
    assert disposition.filename == "attic-2026.10.1-firmware.bin"


@pytest.mark.local_only("what a server built is not kept here")
@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("kitchen lamp", "kitchen lamp"),
        ("küche", "küche"),
        ('a"b', "a_b"),
        ("a;b%20", "a_b_20"),
    ],
)
async def test_the_firmware_has_a_safe_name(  # noqa: PLR0913, PLR0917
    client: Client,
    http: Http,
    admin: dict[str, str],
    config_dir: Path,
    builds: Builds,
    name: str,
    saved: str,
) -> None:
    """Whatever the configuration is called, no shell or disk makes more of it."""
    job_id = await build(client, builds, config_dir, b"content", name)

    response = await http.get(firmware_path(job_id), headers=admin)

    assert response.content_disposition is not None
    assert response.content_disposition.filename == f"{saved}-2026.10.1-firmware.bin"


@pytest.mark.local_only("what a server built is not kept here")
async def test_part_of_a_firmware(
    client: Client, http: Http, admin: dict[str, str], config_dir: Path, builds: Builds
) -> None:
    """A download that broke off goes on."""
    job_id = await build(client, builds, config_dir, b"0123456789")

    response = await http.get(
        firmware_path(job_id), headers={**admin, "Range": "bytes=4-"}
    )

    assert (response.status, await response.read()) == (206, b"456789")


@pytest.mark.local_only("what a server built is not kept here")
async def test_firmware_of_a_job_that_is_forgotten(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    client: Client,
    http: Http,
    admin: dict[str, str],
    config_dir: Path,
    builds: Builds,
    builder: MockConfigEntry,
) -> None:
    """It is kept longer than the job is remembered."""
    job_id = await build(client, builds, config_dir, b"content")
    assert await hass.config_entries.async_unload(builder.entry_id)
    (cache_dir(hass, builder.entry_id) / "jobs.json").unlink()
    assert await hass.config_entries.async_setup(builder.entry_id)
    assert builder.runtime_data.builder.jobs == {}

    response = await http.get(firmware_path(job_id), headers=admin)

    assert (response.status, await response.read()) == (200, b"content")


@pytest.mark.local_only("what a server built is not kept here")
@pytest.mark.parametrize(
    "file",
    [
        "kept.json",
        "firmware",
        "..",
        ".",
        "../kept.json",
        "../../jobs.json",
        "/etc/passwd",
        "firmware.bin/",
        "firmware.bin%00",
        "%2e%2e",
        "x" * 5000,
    ],
)
async def test_no_other_file(  # noqa: PLR0913, PLR0917
    client: Client,
    http: Http,
    admin: dict[str, str],
    config_dir: Path,
    builds: Builds,
    file: str,
) -> None:
    """Only what is part of the firmware, however the way to it is written."""
    job_id = await build(client, builds, config_dir, b"content")

    for path in (
        firmware_path(job_id, file),
        firmware_path(job_id, quote(file, safe="")),
    ):
        assert (await http.get(path, headers=admin)).status in (400, 404)
    answer = await http.get(firmware_path(job_id, "kept.json"), headers=admin)
    assert "made no file" in (await answer.json())["message"]


async def test_no_firmware(client: Client, http: Http, admin: dict[str, str]) -> None:
    """Of a job that built none there is none to download."""
    job_id = await run(client, "kettle.yaml", "validate")

    for wanted in (job_id, "0" * 22, "..", "%00", "x" * 5000):
        answer = await http.get(firmware_path(wanted), headers=admin)
        assert answer.status in (400, 404)
    answer = await http.get(firmware_path(job_id), headers=admin)
    assert (await answer.json())["message"] == "No firmware of such a job is kept"


@pytest.mark.local_only("what a server built is not kept here")
async def test_damaged_firmware(  # noqa: PLR0913, PLR0917
    hass: HomeAssistant,
    client: Client,
    http: Http,
    admin: dict[str, str],
    config_dir: Path,
    builds: Builds,
) -> None:
    """Nobody gets what would not start on a device."""
    job_id = await build(client, builds, config_dir, b"content")
    (builds.folder / job_id / "firmware.bin").write_bytes(b"c0ntent")

    answer = await http.get(firmware_path(job_id), headers=admin)

    assert answer.status == 404
    assert "damaged" in (await answer.json())["message"]


@pytest.mark.local_only("what a server built is not kept here")
async def test_only_administrators_get_firmware(  # noqa: PLR0913, PLR0917
    client: Client,
    http: Http,
    admin: dict[str, str],
    somebody: dict[str, str],
    config_dir: Path,
    builds: Builds,
) -> None:
    """It has passwords in it; nobody else is told whether there is any."""
    job_id = await build(client, builds, config_dir, b"content")

    for path in (firmware_path(job_id), firmware_path("0" * 22)):
        assert (await http.get(path)).status == 401
        assert (await http.get(path, headers=somebody)).status in (401, 403)
    assert (await http.get(firmware_path(job_id), headers=admin)).status == 200


@pytest.mark.local_only("what a server built is not kept here")
async def test_a_signed_path_to_firmware(
    client: Client, http: Http, config_dir: Path, builds: Builds
) -> None:
    """For a browser, which sends no token; signed for this file and no other."""
    job_id = await build(client, builds, config_dir, b"content")
    signed = await client.call("auth/sign_path", path=firmware_path(job_id))

    response = await http.get(signed["path"])
    assert (response.status, await response.read()) == (200, b"content")
    other = signed["path"].replace("firmware.bin", "kept.json")
    assert (await http.get(other)).status == 401


def test_a_firmware_without_a_version_has_a_name() -> None:
    """What is not known is left out of it, and no path is made of what is."""
    kept = KeptFirmware(
        folder="1",
        configuration="attic.yaml",
        job_ids=("1",),
        files=(),
        kept_at=datetime.now(UTC),
        platform=None,
        version=None,
        config_hash=None,
    )

    def _name(kept: KeptFirmware) -> str:
        disposition = file_headers(kept, "firmware.bin")["Content-Disposition"]
        return disposition.removeprefix("attachment; filename*=UTF-8''")

    assert _name(kept) == "attic-firmware.bin"
    assert _name(replace(kept, version="../a\r\nb")) == "attic-.._a__b-firmware.bin"
