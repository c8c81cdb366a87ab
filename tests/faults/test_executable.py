"""An ESPHome that vanishes, changes, is something else, or does not answer."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
import re
from typing import Any, Final

import pytest

from ..clients import Client, CommandError
from ..e2e.conftest import Connect
from ..e2e.server import Server
from ..fakes import (
    FAKE_VERSION,
    fake_version,
    install_fake,
    write_configuration,
)
from . import aftermath
from .conftest import until_run

_MISSING: Final = r"There is no ESPHome executable at "
_NEW: Final = "2026.11.0"
_SILENT: Final = r"did not answer"


@pytest.fixture
def esphome(shared: Server) -> Generator[Path]:
    """Return the executable, which is as it was after the test."""
    yield shared.esphome
    if shared.esphome.is_dir():
        shared.esphome.rmdir()
    fake_version(shared.esphome)
    install_fake(shared.esphome.parent)


@contextmanager
def away(esphome: Path) -> Generator[None]:
    """Take the executable away for a time."""
    elsewhere = esphome.rename(esphome.with_name("elsewhere"))
    try:
        yield
    finally:
        elsewhere.rename(esphome)


async def until_builder(client: Client, **values: object) -> dict[str, Any]:
    """Return the builder when it has these values."""
    async with asyncio.timeout(45):
        while True:
            result = await client.call("esphome_builds/builders/list")
            builder: dict[str, Any] = result["builders"][0]
            if values.items() <= builder.items():
                return builder
            await asyncio.sleep(0.1)


async def until_ready(server: Server, connect: Connect) -> Client:
    """Return a client of a builder that has seen that all is well."""
    client = await connect(server)
    await until_builder(client, state="ready", esphome_version=FAKE_VERSION)
    return client


async def test_vanishes(
    shared: Server, connect: Connect, esphome: Path, tmp_path: Path
) -> None:
    """What runs goes on, what waits waits or says why, and all goes on with it."""
    go = tmp_path / "go"
    folder = shared.config_dir
    running = write_configuration(folder, "running", f"wait {go}", "print end")
    client = await until_ready(shared, connect)
    (first,) = await client.submit("compile", running)
    await until_run(shared, first["job_id"])
    (waiting,) = await client.submit("upload", running)
    with away(esphome):
        # Nobody knows of it yet.
        (early,) = await client.submit("validate", write_configuration(folder, "early"))
        ended = await client.until_job(early["job_id"], *aftermath.ENDED)
        assert (ended["status"], ended["cause"]) == ("failed", "esphome_missing")
        assert str(esphome) in ended["message"]
        builder = await until_builder(client, state="unavailable")
        assert str(esphome) in builder["message"]
        with pytest.raises(CommandError, match=r"builder_unavailable: .*no ESPHome"):
            await client.submit("validate", running)
        go.touch()
        ended = await client.until_job(first["job_id"], *aftermath.ENDED)
        assert ended["status"] == "completed"
        await asyncio.sleep(0.5)
        jobs = await aftermath.check(
            shared, active=[waiting["job_id"]], expected=[_MISSING]
        )
        statuses = {job["job_id"]: job["status"] for job in jobs}
        assert statuses[waiting["job_id"]] == "queued"
    await client.until_job(waiting["job_id"], "completed")
    await until_builder(client, state="ready", message=None)
    await aftermath.check(shared)


async def test_changes(
    shared: Server, connect: Connect, esphome: Path, tmp_path: Path
) -> None:
    """Each job says which version it was that ran it, however fresh that is."""
    go = tmp_path / "go"
    name = write_configuration(shared.config_dir, "porch", f"compile: wait {go}")
    client = await until_ready(shared, connect)
    build, upload = await client.submit("install", name)
    await until_run(shared, build["job_id"])
    install_fake(esphome.parent, "new").replace(esphome)
    fake_version(esphome, f"print Version: {_NEW}")
    go.touch()

    build = await client.until_job(build["job_id"], *aftermath.ENDED)
    upload = await client.until_job(upload["job_id"], *aftermath.ENDED)
    assert (build["status"], build["esphome_version"]) == ("completed", FAKE_VERSION)
    assert (upload["status"], upload["esphome_version"]) == ("completed", _NEW)
    await until_builder(client, state="ready", esphome_version=_NEW)
    await aftermath.check(shared)


@pytest.mark.parametrize(
    "what", [pytest.param("program", marks=pytest.mark.long), "folder"]
)
async def test_becomes_something_else(
    shared: Server, connect: Connect, esphome: Path, what: str
) -> None:
    """It is not called again; no job is made of what it would print."""
    client = await until_ready(shared, connect)
    name = write_configuration(shared.config_dir, "porch")
    with away(esphome):
        _make(what, esphome)
        (job,) = await client.submit("compile", name)
        ended = await client.until_job(job["job_id"], *aftermath.ENDED)
        assert (ended["status"], ended["cause"]) == ("failed", "esphome_missing")
        builder = await until_builder(client, state="unavailable")
        assert str(esphome) in builder["message"]
        if esphome.is_dir():
            esphome.rmdir()
    await until_builder(client, state="ready", message=None)
    (job,) = await client.submit("compile", name)
    await client.until_job(job["job_id"], "completed")
    await aftermath.check(shared, expected=[re.escape(str(esphome))])


def _make(what: str, path: Path) -> None:
    """Put something that is no ESPHome there."""
    if what == "folder":
        path.mkdir()
        return
    path.write_text("#!/bin/true\n")
    path.chmod(0o755)


async def test_is_slow(
    shared: Server, connect: Connect, esphome: Path, tmp_path: Path
) -> None:
    """Until a new one has told its version nothing more starts; what runs goes on."""
    go, answer = tmp_path / "go", tmp_path / "answer"
    name = write_configuration(shared.config_dir, "porch", f"compile: wait {go}")
    client = await until_ready(shared, connect)
    build, upload = await client.submit("install", name)
    await until_run(shared, build["job_id"])
    fake_version(esphome, f"wait {answer}", f"print Version: {_NEW}")
    install_fake(esphome.parent, "new").replace(esphome)
    await until_builder(client, state="connecting", esphome_version=None)
    go.touch()
    assert (await client.until_job(build["job_id"], *aftermath.ENDED))["cause"] is None
    await asyncio.sleep(0.5)
    (quick,) = await client.submit("validate", name)
    builder = await until_builder(client, state="connecting")
    assert (builder["running"], builder["queued"]) == (0, 2)
    answer.touch()
    for job in (upload, quick):
        ended = await client.until_job(job["job_id"], *aftermath.ENDED)
        assert (ended["status"], ended["esphome_version"]) == ("completed", _NEW)
    await aftermath.check(shared)


@pytest.mark.long
async def test_hangs(shared: Server, connect: Connect, esphome: Path) -> None:
    """One that never answers is ended, and asked again when it was replaced."""
    client = await until_ready(shared, connect)
    name = write_configuration(shared.config_dir, "porch")
    fake_version(esphome, "ignore", "spawn session ignore", "sleep inf")
    install_fake(esphome.parent, "new").replace(esphome)
    (early,) = await client.submit("compile", name)
    ended = await client.until_job(early["job_id"], *aftermath.ENDED)
    assert (ended["status"], ended["cause"]) == ("failed", "esphome_missing")
    assert "did not answer within 30 seconds" in ended["message"]
    builder = await until_builder(client, state="unavailable", esphome_version=None)
    assert "did not answer within 30 seconds" in builder["message"]
    await aftermath.check(shared, expected=[_SILENT])
    fake_version(esphome)
    install_fake(esphome.parent, "new").replace(esphome)
    await until_builder(client, state="ready", message=None)
    (job,) = await client.submit("compile", name)
    await client.until_job(job["job_id"], "completed")
    await aftermath.check(shared)
