"""One process and all it starts: run, read, limit, and end without leaving anything.

A process is the leader of its own session and group. Everything that comes of it is
found by that group or, where the system shows it, by a token in its environment, so
that a descendant that leaves the group is found, too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
import logging
import math
import os
from pathlib import Path
import shutil
import signal
import time
from typing import Final

from .files import EXHAUSTED

_LOGGER = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 1.0
"""How long output is read after the process has ended, if others hold its pipe."""

GRACE_SECONDS: Final = 5.0
"""Between asking a process to end and killing it."""

READ_BYTES: Final = 64 * 1024
TOKEN_VARIABLE: Final = "ESPHOME_BUILDS_JOB"  # noqa: S105

_KILL_SECONDS: Final = 3.0
_NICE: Final = 10
_OOM_SCORE: Final = 1000
_POLL_SECONDS: Final = 0.05
_PROC: Final = Path("/proc")


class Ending(StrEnum):
    """Why a process ended."""

    EXITED = "exited"
    IDLE_LIMIT = "idle_limit"
    STOPPED = "stopped"
    TIME_LIMIT = "time_limit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long a process may run, and be silent, in seconds; None is for ever."""

    total: float | None = None
    idle: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What to run. `token` marks all processes that come of it and is unique."""

    argv: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]
    token: str


class Process:
    """Runs one command to its end, whatever the end is."""

    def __init__(self, command: Command, limits: Limits) -> None:
        """Prepare; nothing runs yet."""
        self._command = command
        self._limits = limits
        self._deadline: asyncio.Timeout | None = None
        self._ends_at: dict[Ending, float] = {}
        self._stopping = False

    def stop(self) -> None:
        """End it: ask, wait for the grace, kill."""
        self._stopping = True
        if self._deadline is not None:
            self._set_deadline(Ending.STOPPED, 0)

    async def run(
        self, on_output: Callable[[bytes], Awaitable[None]]
    ) -> tuple[Ending, int]:
        """Run; return why it ended, and its exit status or minus its signal.

        When this returns or raises, no process that came of the command is left. Raises
        `OSError` where it cannot be started, and what `on_output` raises.
        """
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", 0) as pipe:
            try:
                process = await asyncio.create_subprocess_exec(
                    *_with_low_priority(self._command.argv),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=writing,
                    stderr=asyncio.subprocess.STDOUT,
                    cwd=self._command.cwd,
                    env={
                        **self._command.environment,
                        TOKEN_VARIABLE: self._command.token,
                    },
                    start_new_session=True,
                )
            except OSError:
                await _end_unwatched(self._command.token)
                raise
            finally:
                os.close(writing)
            try:
                await asyncio.to_thread(_sacrifice, process.pid)
                ending = await self._read(process, pipe, on_output)
            finally:
                # Not a part of this task: it must be done even if this is cancelled.
                ended = asyncio.create_task(end_all(process, self._command.token))
                by_itself = await asyncio.shield(ended)
        code = await process.wait()
        # One that was done just when it was asked to end did not end for that.
        return Ending.EXITED if by_itself or code == 0 else ending, code

    async def _read(
        self,
        process: asyncio.subprocess.Process,
        pipe: object,
        on_output: Callable[[bytes], Awaitable[None]],
    ) -> Ending:
        """Pass output on until there is no more, or a limit or `stop` says so."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(READ_BYTES)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        exit_watch = asyncio.create_task(process.wait())
        deadline = self._deadline = asyncio.timeout(None)
        try:
            async with deadline:
                exit_watch.add_done_callback(
                    lambda _: self._set_deadline(Ending.EXITED, DRAIN_SECONDS)
                )
                self._set_deadline(Ending.TIME_LIMIT, self._limits.total)
                self._set_deadline(Ending.IDLE_LIMIT, self._limits.idle)
                if self._stopping:
                    self.stop()
                await self._pump(reader, on_output)
                # It closed its output and may go on; the limits go on, too.
                await asyncio.shield(exit_watch)
        except TimeoutError:
            if not deadline.expired():
                raise
            return min(self._ends_at, key=self._ends_at.__getitem__)
        finally:
            self._deadline = None
            exit_watch.cancel()
            transport.close()
        return Ending.EXITED

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        on_output: Callable[[bytes], Awaitable[None]],
    ) -> None:
        while data := await reader.read(READ_BYTES):
            self._set_deadline(Ending.IDLE_LIMIT, self._limits.idle)
            await on_output(data)
            # A full buffer is returned at once; others must have their turn as well.
            await asyncio.sleep(0)

    def _set_deadline(self, ending: Ending, seconds: float | None) -> None:
        """Let a limit end the reading in so many seconds, if no other does before."""
        if seconds is None or self._deadline is None or self._deadline.expired():
            return
        self._ends_at[ending] = asyncio.get_running_loop().time() + seconds
        self._deadline.reschedule(min(self._ends_at.values()))


def _with_low_priority(argv: Sequence[str]) -> list[str]:
    """Return the command so that it leaves the processor and the disk to others."""
    prefix = []
    if nice := shutil.which("nice"):
        prefix += [nice, "-n", str(_NICE)]
    if ionice := shutil.which("ionice"):
        prefix += [ionice, "-c", "3"]
    return [*prefix, *argv]


def _sacrifice(pid: int) -> None:
    """Make a process the first that goes when memory runs out, where that is known."""
    with suppress(OSError):
        (_PROC / str(pid) / "oom_score_adj").write_text(str(_OOM_SCORE))


async def end_all(process: asyncio.subprocess.Process, token: str) -> bool:
    """End a process and all that came of it: ask, wait for the grace, kill, look.

    Return whether the process had ended by itself before it was asked.
    """
    loop = asyncio.get_running_loop()
    asked: set[int] = set()
    if not (by_itself := _has_ended(process.pid)):
        # At once, since to look for those who left the group takes a while.
        asked = {-process.pid}
        _signal(asked, signal.SIGTERM)
    looked = False
    started = loop.time()
    while left := await _left(process, token):
        elapsed = loop.time() - started
        if not looked:
            _signal(left - asked, signal.SIGTERM)
            looked = True
            started = loop.time()
        elif elapsed > GRACE_SECONDS + _KILL_SECONDS:
            _LOGGER.error("Processes %s of a build cannot be killed", sorted(left))
            break
        elif elapsed > GRACE_SECONDS:
            _signal(left, signal.SIGKILL)
        await asyncio.sleep(_POLL_SECONDS)
    return by_itself


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended, which the event loop may not know yet."""
    try:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, pid, options) is not None
    except ChildProcessError:
        return True


async def _end_unwatched(token: str) -> None:
    """Kill what may run although its start failed: there was no way to watch it."""
    while True:
        with suppress(OSError):
            await asyncio.to_thread(end_leftovers, (token,))
            return
        await asyncio.sleep(_POLL_SECONDS)


def end_leftovers(tokens: Collection[str]) -> None:
    """Kill what an earlier run of Home Assistant left when it was killed; blocking.

    Raises `OSError` where it is not possible to look for it.
    """
    if not tokens:
        return
    until = time.monotonic() + _KILL_SECONDS
    while (left := _scan(None, tokens)) and time.monotonic() < until:
        _signal(left, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


async def _left(process: asyncio.subprocess.Process, token: str) -> set[int]:
    """Return what lives of a process: its group, and those who left it.

    As `os.kill` has it, a negative number is a group. While there is no descriptor to
    look with, this waits, and the group is killed after the grace.
    """
    loop = asyncio.get_running_loop()
    kill_at = loop.time() + GRACE_SECONDS
    while _PROC.joinpath("self").exists():
        try:
            return await asyncio.to_thread(_scan, process.pid, (token,))
        except OSError:
            if loop.time() > kill_at:
                _signal({-process.pid}, signal.SIGKILL)
                # Once, since the number may be another's later.
                kill_at = math.inf
            await asyncio.sleep(_POLL_SECONDS)
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError, PermissionError:
        return set()
    return {-process.pid}


def _scan(group: int | None, tokens: Collection[str]) -> set[int]:
    """Return a group, if any of it lives, and processes with a token; blocking.

    A group that is 0 is one that this process cannot see, so that is no group to ask
    for: in a container, Home Assistant itself may be in it. Raises `OSError` when there
    is no descriptor left to look with.
    """
    marks = {f"{TOKEN_VARIABLE}={token}".encode() for token in tokens}
    found: set[int] = set()
    for path in _PROC.iterdir():
        if not path.name.isdecimal():
            continue
        try:
            # The command's name stands in parentheses and may hold anything.
            state, _, its_group = (
                (path / "stat").read_bytes().rpartition(b")")[2].split()[:3]
            )
            if state in b"ZX":
                continue
            if int(its_group) == group:
                found.add(-group)
            elif not marks.isdisjoint((path / "environ").read_bytes().split(b"\0")):
                found.add(int(path.name))
        except (OSError, ValueError) as err:
            if isinstance(err, OSError) and err.errno in EXHAUSTED:
                raise
            # It ended meanwhile, or is none of ours.
            continue
    return found


def _signal(targets: Collection[int], number: signal.Signals) -> None:
    """Send a signal to processes and groups, some of which may be gone."""
    for target in targets:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(target, number)
