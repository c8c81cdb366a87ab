"""The jobs on disk: one file, replaced whole, safe against power loss."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
import logging
import os
from pathlib import Path
import re
from typing import Any, Final, get_type_hints

import orjson

from .models import Cause, Job, JobKind, JobStatus, Phase, Requester

_LOGGER = logging.getLogger(__name__)

_FIELDS: Final = get_type_hints(Job)
_JOB_ID: Final = re.compile(r"[0-9a-f]{22}")
_SET_ASIDE: Final = 3
_VERSION: Final = 1


@dataclass(kw_only=True)
class Stored:
    """The jobs, oldest first, and what was stored beside them."""

    jobs: list[Job] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


def load_jobs(path: Path) -> list[Job]:
    """Return the stored jobs, oldest first, as `load` does; blocking."""
    return load(path).jobs


def load(path: Path) -> Stored:
    """Return what is stored; blocking.

    A file that cannot be understood is set aside under another name, which is logged,
    and counts as empty. Raises `OSError` when it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Stored()
    try:
        stored = orjson.loads(data)
        if stored["version"] != _VERSION:
            raise ValueError(f"unknown version {stored['version']}")  # noqa: TRY301
        jobs = {job.job_id: job for job in map(_job, stored["jobs"])}
        return Stored(
            jobs=[jobs[job_id] for job_id in sorted(jobs)],
            extra=dict(stored.get("extra", {})),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as err:
        aside = _set_aside(path)
        _LOGGER.error(
            "The list of jobs %s is damaged (%s); it was set aside as %s",
            path,
            err,
            aside.name,
        )
        return Stored()


def _set_aside(path: Path) -> Path:
    """Rename a damaged file and keep only the newest of such."""
    name = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    aside = path.rename(path.with_name(name))
    for old in sorted(path.parent.glob(f"{path.name}.damaged-*"))[:-_SET_ASIDE]:
        old.unlink(missing_ok=True)
    return aside


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value).astimezone(UTC)


def _job(stored: dict[str, Any]) -> Job:
    """Return a stored job; raise an error of the ones that `load_jobs` expects."""
    fields = dict(stored)
    requester = fields["requested_by"]
    fields |= {
        "kind": JobKind(fields["kind"]),
        "status": JobStatus(fields["status"]),
        "created_at": datetime.fromisoformat(fields["created_at"]).astimezone(UTC),
        "started_at": _time(fields["started_at"]),
        "finished_at": _time(fields["finished_at"]),
        "phase": None if fields["phase"] is None else Phase(fields["phase"]),
        "cause": None if fields["cause"] is None else Cause(fields["cause"]),
        "requested_by": None if requester is None else Requester(**requester),
    }
    job = Job(**fields)
    for name, kind in _FIELDS.items():
        if not isinstance(value := getattr(job, name), kind):
            raise TypeError(f"a job whose {name} is {value!r}")
    if _JOB_ID.fullmatch(job.job_id) is None:
        # It names a folder.
        raise ValueError(f"a job with the id {job.job_id!r}")
    return job


class JobStore:
    """Keeps the file like the jobs, one write at a time, however many changes come."""

    def __init__(
        self,
        path: Path,
        jobs: Callable[[], Iterable[Job]],
        extra: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        """Write what `jobs` returns at the time of writing, and `extra` beside it."""
        self._path = path
        self._jobs = jobs
        self._extra = extra
        self._changes = 0
        self._written = 0
        self._writer: asyncio.Task[None] | None = None
        self._error: OSError | None = None

    def changed(self) -> None:
        """Write soon."""
        self._changes += 1
        self._start()

    def retry(self) -> None:
        """Write what could not be written before."""
        if self._error is not None:
            self._start()

    async def flush(self) -> None:
        """Return when all changes up to now are on disk; raise `OSError` if not."""
        target = self._changes
        while self._written < target:
            await asyncio.shield(self._start())
            if self._error is not None:
                raise self._error

    def _start(self) -> asyncio.Task[None]:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return self._writer

    async def _write(self) -> None:
        """Write until nothing is newer than the file, or that fails."""
        try:
            while self._written < self._changes:
                # What else this turn of the loop changes is written with it.
                await asyncio.sleep(0)
                changes = self._changes
                data = orjson.dumps(
                    {
                        "version": _VERSION,
                        "jobs": tuple(self._jobs()),
                        "extra": dict(self._extra()),
                    }
                )
                await asyncio.to_thread(replace_file, self._path, data)
                self._written = changes
            self._error = None
        except OSError as err:
            if self._error is None:
                _LOGGER.error("Cannot write the list of jobs %s: %s", self._path, err)
            self._error = err
        finally:
            self._writer = None


def replace_file(path: Path, data: bytes) -> None:
    """Put the data in the file's place so that a crash leaves the old or the new."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
