"""A configuration that is deleted or replaced while it builds or waits."""

import asyncio
from collections.abc import Callable, Mapping
import os
from pathlib import Path
from typing import Any, Final

import pytest

from ..clients import Client, CommandError, eventually
from ..e2e.conftest import Connect
from ..e2e.server import Server
from ..fakes import write_configuration
from . import aftermath
from .conftest import until_run

_KINDS: Final = ("validate", "compile", "upload")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.yaml")


def _outside(path: Path) -> None:
    elsewhere = path.rename(path.parent.parent / path.name)
    path.symlink_to(elsewhere)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


_FAULTS: Final[Mapping[str, Callable[[Path], None]]] = {
    "deleted": Path.unlink,
    "folder": _folder,
    "dangling": _dangling,
    "pipe": _pipe,
}


def remove(path: Path) -> None:
    """Remove whatever a fault has left."""
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


async def listed(client: Client) -> list[str]:
    """Return the names of all configurations."""
    result = await client.call("esphome_builds/configurations/list")
    return [one["configuration"] for one in result["configurations"]]


async def start(server: Server, client: Client, name: str) -> dict[str, Any]:
    """Return an upload that runs."""
    (job,) = await client.submit("upload", name)
    await until_run(server, job["job_id"])
    return job


async def test_goes_away(shared: Server, connect: Connect, tmp_path: Path) -> None:
    """What runs has read it and goes on; what waits for it fails and says why."""
    go = tmp_path / "go"
    client = await connect(shared)
    names = [
        write_configuration(shared.config_dir, fault, f"upload: wait {go}")
        for fault in _FAULTS
    ]
    running = [await start(shared, client, name) for name in names]
    waiting = [(await client.submit("compile", name))[0] for name in names]
    for name, fault in zip(names, _FAULTS.values(), strict=True):
        fault(shared.config_dir / name)
    go.touch()

    for job in running:
        await client.until_job(job["job_id"], "completed")
    for name, job in zip(names, waiting, strict=True):
        ended = await client.until_job(job["job_id"], "failed")
        assert ended["cause"] == "invalid_config"
        assert ended["message"] == f"The configuration {name} is no longer there."
        assert ended["exit_code"] is None
        with pytest.raises(CommandError, match="not_found"):
            await client.submit("compile", name)
    assert not set(names) & set(await listed(client))
    await aftermath.check(shared)

    # Each comes back as if nothing had been.
    for stem, name in zip(_FAULTS, names, strict=True):
        remove(shared.config_dir / name)
        write_configuration(shared.config_dir, stem)
        for kind in _KINDS:
            (job,) = await client.submit(kind, name)
            await client.until_job(job["job_id"], "completed")
    await aftermath.check(shared)


async def test_leads_outside(shared: Server, connect: Connect, tmp_path: Path) -> None:
    """A link to elsewhere that takes its place is not followed."""
    go = tmp_path / "go"
    client = await connect(shared)
    name = write_configuration(shared.config_dir, "porch", f"upload: wait {go}")
    running = await start(shared, client, name)
    (waiting,) = await client.submit("compile", name)
    _outside(shared.config_dir / name)
    go.touch()

    await client.until_job(running["job_id"], "completed")
    ended = await client.until_job(waiting["job_id"], "failed")
    assert ended["cause"] == "invalid_config"
    remove(shared.config_dir / name)
    await aftermath.check(shared)


async def test_replaced(shared: Server, connect: Connect, tmp_path: Path) -> None:
    """Each job works on what is there when it starts, also of an editor's rename."""
    go = tmp_path / "go"
    client = await connect(shared)
    name = write_configuration(shared.config_dir, "porch", f"wait {go}", "print old")
    old = await start(shared, client, name)
    (waiting,) = await client.submit("compile", name)
    new = tmp_path / write_configuration(tmp_path, "new", "print new")
    os.replace(new, shared.config_dir / name)  # noqa: PTH105 - as editors do
    # The same again is not what runs, but what the new content says.
    (again,) = await client.submit("upload", name)
    assert again["job_id"] != old["job_id"]
    go.touch()

    for job, line in ((old, "old"), (waiting, "new"), (again, "new")):
        await client.until_job(job["job_id"], "completed")
        page = await client.call("esphome_builds/jobs/log", job_id=job["job_id"])
        assert page["lines"] == [line]
    await aftermath.check(shared)


async def test_whole_folder(shared: Server, connect: Connect, tmp_path: Path) -> None:
    """What runs goes on without the folder; what waits goes on when it is back."""
    go = tmp_path / "go"
    client = await connect(shared)
    name = write_configuration(shared.config_dir, "porch", f"upload: wait {go}")
    running = await start(shared, client, name)
    (waiting,) = await client.submit("compile", name)
    away = shared.config_dir.rename(shared.config_dir.with_name("away"))
    await eventually(
        lambda: "cannot be read: No such file" in shared.log, lambda: shared.log
    )
    go.touch()
    await client.until_job(running["job_id"], "completed")
    with pytest.raises(CommandError, match="builder_unavailable"):
        await client.submit("validate", name)
    await asyncio.sleep(0.5)
    expected = [r"The folder .* cannot be read: No such file"]
    await aftermath.check(shared, active=[waiting["job_id"]], expected=expected)
    away.rename(shared.config_dir)
    await client.until_job(waiting["job_id"], "completed")
    await aftermath.check(shared)
