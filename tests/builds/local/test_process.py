"""Real processes: what they print, how they end, and that nothing of them is left."""

import asyncio
from contextlib import suppress
import logging
import os
from pathlib import Path
import secrets
import shutil
import signal
import subprocess
import time

import pytest

from custom_components.esphome_builds.builds.local import process as process_module
from custom_components.esphome_builds.builds.local.process import (
    DRAIN_SECONDS,
    GRACE_SECONDS,
    READ_BYTES,
    TOKEN_VARIABLE,
    Command,
    Ending,
    Limits,
    Process,
    end_leftovers,
)

from ...clients import eventually
from ...fakes import write_configuration
from .conftest import living

_MIB = 1024 * 1024

# Each way for descendants to get away.
_ESCAPES = [
    "spawn",
    "spawn ignore",
    "spawn orphan",
    "spawn orphan ignore",
    "spawn session",
    "spawn session ignore",
    "spawn orphan session ignore",
    "spawn orphan session ignore hold",
    "spawn orphan session ignore print",
]

NO_LIMITS = Limits()


class Run:
    """A process of the fake, and what it printed."""

    def __init__(self, fake: Path, *script: str, limits: Limits = NO_LIMITS) -> None:
        """Prepare the fake to do something."""
        folder = fake.parent
        self.token = secrets.token_hex(8)
        name = write_configuration(folder, f"run-{self.token}", *script)
        self.command = Command(
            argv=(str(fake), "compile", name),
            cwd=folder,
            environment={"PATH": os.environ["PATH"]},
            token=self.token,
        )
        self.process = Process(self.command, limits)
        self.output = bytearray()
        self.chunks: list[int] = []

    async def collect(self, data: bytes) -> None:
        """Take output."""
        self.output += data
        self.chunks.append(len(data))

    async def run(self, seconds: float = 20) -> tuple[Ending, int]:
        """Run to the end, after which nothing may be left."""
        async with asyncio.timeout(seconds):
            result = await self.process.run(self.collect)
        assert not living(self.token)
        return result

    def start(self) -> asyncio.Task[tuple[Ending, int]]:
        """Run in the background."""
        return asyncio.create_task(self.run())

    async def until(self, text: bytes) -> None:
        """Wait until the fake has printed something."""
        async with asyncio.timeout(10):
            while text not in self.output:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    @property
    def lines(self) -> list[str]:
        """Return what was printed."""
        return self.output.decode().splitlines()


def test_bounds() -> None:
    """The bounds are the ones that were promised."""
    assert GRACE_SECONDS == 5
    assert READ_BYTES == 64 * 1024


@pytest.mark.parametrize("code", [0, 1, 2, 255])
async def test_exit_code(fake: Path, code: int) -> None:
    """The exit status is the process's own."""
    run = Run(fake, "print hello", f"exit {code}")

    assert await run.run() == (Ending.EXITED, code)
    assert run.lines == ["hello"]


@pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM", "ABRT"])
async def test_signal(fake: Path, name: str) -> None:
    """A process that a signal ended has the signal, negative, for its status."""
    run = Run(fake, f"signal {name}")

    assert await run.run() == (Ending.EXITED, -signal.Signals[f"SIG{name}"])


async def test_all_output_arrives(fake: Path) -> None:
    """A flood comes whole and in order, in pieces of at most 64 KiB."""
    run = Run(fake, "lines 400000", "exit 3")

    assert await run.run() == (Ending.EXITED, 3)
    assert run.lines == [f"line {number}" for number in range(400_000)]
    assert max(run.chunks) <= READ_BYTES


async def test_slow_reader_holds_the_process_up(fake: Path) -> None:
    """Output that nobody takes stays in the process, not in our memory."""
    run = Run(fake, f"flood {16 * _MIB}", "mark done")
    go = asyncio.Event()
    taken = 0

    async def _slow(data: bytes) -> None:
        nonlocal taken
        await go.wait()
        taken += len(data)

    task = asyncio.create_task(run.process.run(_slow))
    await asyncio.sleep(0.5)
    assert not (fake.parent / "done").exists()
    go.set()
    assert await task == (Ending.EXITED, 0)
    assert taken == 16 * _MIB


async def test_both_outputs(fake: Path) -> None:
    """What goes to the standard error is output, too, in its place."""
    run = Run(fake, "print one", "complain two", "print three")

    await run.run()

    assert run.lines == ["one", "two", "three"]


async def test_environment_and_folder(fake: Path) -> None:
    """A process sees what it was given and a token, and runs where it was told."""
    run = Run(fake, "environment")

    await run.run()

    variables = dict(line.split("=", 1) for line in run.lines)
    # What the shell that starts the fake, and Python, add.
    assert variables.keys() - {"LC_CTYPE", "PWD"} == {"PATH", TOKEN_VARIABLE}
    assert variables["PWD"] == str(fake.parent)
    assert variables[TOKEN_VARIABLE] == run.token


async def test_input_is_closed(fake: Path) -> None:
    """A process that asks a question gets no answer instead of waiting for one."""
    run = Run(fake, "stdin")
    reading, writing = os.pipe()
    os.write(writing, b"yes\n")
    before = os.dup(0)
    os.dup2(reading, 0)
    try:
        await run.run(5)
    finally:
        os.dup2(before, 0)
        for file in (before, reading, writing):
            os.close(file)

    assert run.lines == ["stdin: b''"]


async def test_low_priority(fake: Path) -> None:
    """A build, and all it starts, leaves processor, disk and memory to others."""
    run = Run(fake, "sleep 0.3", "spawn", "print go", "sleep inf")
    task = run.start()
    await run.until(b"go")

    pids = living(run.token)
    assert len(pids) == 2
    for pid in pids:
        stat = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2]
        assert int(stat.split()[16]) == 10
        assert (Path("/proc") / str(pid) / "oom_score_adj").read_text() == "1000\n"
        command = ["ionice", "-p", str(pid)]
        assert await asyncio.to_thread(subprocess.check_output, command) == b"idle\n"
    # It is the leader of a session and a group of its own.
    assert min(pids) == os.getsid(max(pids)) == os.getpgid(max(pids))

    run.process.stop()
    await task


async def test_without_the_tools(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a system has no `nice` a build runs all the same."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    run = Run(fake, "print hello", "exit 4")

    assert await run.run() == (Ending.EXITED, 4)
    assert run.lines == ["hello"]


class TestStart:
    """What cannot be started."""

    async def test_no_folder(self, fake: Path) -> None:
        """Without its folder nothing runs."""
        run = Run(fake)
        fake.unlink()
        for file in fake.parent.iterdir():
            file.unlink()
        fake.parent.rmdir()

        with pytest.raises(FileNotFoundError):
            await run.run()

    async def test_no_executable(
        self, fake: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An executable that is not there is an error, or a failure of `nice`."""
        run = Run(fake)
        fake.unlink()

        assert await run.run() == (Ending.EXITED, 127)
        assert str(fake).encode() in run.output
        monkeypatch.setattr(shutil, "which", lambda _: None)
        with pytest.raises(FileNotFoundError):
            await Run(fake).run()

    async def test_not_executable(
        self, fake: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same for a file that cannot be executed."""
        fake.chmod(0o644)

        assert await Run(fake).run() == (Ending.EXITED, 126)
        monkeypatch.setattr(shutil, "which", lambda _: None)
        with pytest.raises(PermissionError):
            await Run(fake).run()


class TestStop:
    """Ending a process from outside."""

    async def test_asked(self, fake: Path) -> None:
        """A process that does as it is asked ends at once."""
        run = Run(fake, "print go", "sleep inf")
        task = run.start()
        await run.until(b"go")
        started = time.monotonic()
        run.process.stop()

        assert await task == (Ending.STOPPED, -signal.SIGTERM)
        assert time.monotonic() - started < GRACE_SECONDS / 2

    async def test_killed_after_the_grace(self, fake: Path, short_grace: float) -> None:
        """One that does not is killed when the grace is over, not before."""
        run = Run(fake, "ignore", "print go", "sleep inf")
        task = run.start()
        await run.until(b"go")
        started = time.monotonic()
        run.process.stop()
        run.process.stop()

        assert await task == (Ending.STOPPED, -signal.SIGKILL)
        assert short_grace < time.monotonic() - started < short_grace + 2

    async def test_before_the_start(self, fake: Path) -> None:
        """A stop that comes too early is not forgotten."""
        run = Run(fake, "sleep inf")
        run.process.stop()

        ending, code = await run.run(5)

        assert ending is Ending.STOPPED
        assert code < 0

    @pytest.mark.parametrize("turns", range(0, 40, 2))
    async def test_during_the_start(self, fake: Path, turns: int) -> None:
        """Nor is one that comes while the process is being started."""
        run = Run(fake, "sleep inf")
        task = run.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        run.process.stop()

        ending, code = await task

        assert ending is Ending.STOPPED
        assert code < 0

    async def test_after_the_end(self, fake: Path) -> None:
        """A stop that comes too late changes nothing."""
        run = Run(fake, "exit 7")
        assert await run.run() == (Ending.EXITED, 7)
        run.process.stop()

    async def test_of_a_flood(self, fake: Path) -> None:
        """A process that never stops to print is stopped all the same."""
        run = Run(fake, "redraws inf")
        task = run.start()
        await run.until(b"Uploading")
        run.process.stop()
        ending, _ = await task

        assert ending is Ending.STOPPED

    @pytest.mark.parametrize("delay", [0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1])
    async def test_race_with_the_end(self, fake: Path, delay: float) -> None:
        """If the process was faster, its own end is what counts."""
        run = Run(fake, "print go", "exit 0")
        task = run.start()
        await run.until(b"go")
        await asyncio.sleep(delay / 10)
        run.process.stop()

        ending, code = await task

        assert (ending is Ending.EXITED) == (code == 0)
        assert ending is Ending.EXITED or code == -signal.SIGTERM

    async def test_after_the_end_while_the_pipe_is_held(self, fake: Path) -> None:
        """A process that has ended was not stopped, though its output goes on."""
        run = Run(fake, "spawn hold", "print go", "exit 7")
        task = run.start()
        await run.until(b"go")
        await asyncio.sleep(0.2)
        run.process.stop()

        assert await task == (Ending.EXITED, 7)


class TestTree:
    """What a process leaves behind."""

    @pytest.mark.usefixtures("short_grace")
    async def test_exit(self, fake: Path) -> None:
        """When a process ends by itself, nothing that came of it stays."""
        runs = [Run(fake, step, step, "print go", "exit 5") for step in _ESCAPES]

        results = await asyncio.gather(*(run.run() for run in runs))

        assert results == [(Ending.EXITED, 5)] * len(runs)
        assert all(b"go" in run.output for run in runs)

    @pytest.mark.usefixtures("short_grace")
    async def test_stop(self, fake: Path) -> None:
        """When a process is stopped, nothing that came of it stays."""
        runs = [
            Run(fake, step, step, "print go", "ignore", "print ready", "sleep inf")
            for step in _ESCAPES
        ]
        tasks = [run.start() for run in runs]
        for run in runs:
            await run.until(b"ready")
            assert len(living(run.token)) == 3
            run.process.stop()

        results = await asyncio.gather(*tasks)

        assert results == [(Ending.STOPPED, -signal.SIGKILL)] * len(runs)

    async def test_polite_first(self, fake: Path) -> None:
        """Descendants are asked first, too, and the grace is not waited for in vain."""
        run = Run(fake, "spawn", "spawn session", "spawn orphan session", "exit 0")
        started = time.monotonic()
        await run.run()

        assert time.monotonic() - started < GRACE_SECONDS / 2

    async def test_pipe_held_open(self, fake: Path) -> None:
        """The end is not waited for because a descendant holds the output open."""
        run = Run(fake, "spawn hold", "print done", "exit 3")
        started = time.monotonic()

        assert await run.run() == (Ending.EXITED, 3)
        assert DRAIN_SECONDS <= time.monotonic() - started < DRAIN_SECONDS + 2
        assert run.lines == ["done"]

    async def test_descendant_that_prints_for_ever(self, fake: Path) -> None:
        """Nor because it prints on."""
        run = Run(fake, "spawn orphan session print", "exit 3")
        started = time.monotonic()

        assert await run.run() == (Ending.EXITED, 3)
        assert time.monotonic() - started < DRAIN_SECONDS + 2
        assert "still here" in run.lines

    @pytest.mark.usefixtures("short_grace")
    async def test_others_are_left_alone(self, fake: Path) -> None:
        """Ending one process does not touch another that runs beside it."""
        other = Run(fake, "spawn session", "print go", "wait over", "exit 9")
        task = other.start()
        await other.until(b"go")

        await Run(fake, "spawn session ignore", "exit 0").run()

        assert len(living(other.token)) == 2
        (fake.parent / "over").touch()
        assert await task == (Ending.EXITED, 9)

    @pytest.mark.usefixtures("short_grace")
    async def test_without_proc(
        self, fake: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the system shows no processes the group is ended all the same."""
        monkeypatch.setattr(process_module, "_PROC", fake.parent / "none")
        monkeypatch.setattr(process_module, "_KILL_SECONDS", 0.5)

        for end in ("exit 5", "sleep inf"):
            run = Run(fake, "spawn ignore", "spawn orphan", "print go", end)
            task = run.start()
            await run.until(b"go")
            run.process.stop()
            await task

    @pytest.mark.usefixtures("short_grace")
    async def test_process_that_cannot_be_killed(
        self,
        fake: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A process that the kernel does not let go is told, and not waited for."""
        run = Run(fake, "spawn ignore session", "print go", "exit 0")
        with monkeypatch.context() as patch:
            patch.setattr(process_module, "_KILL_SECONDS", 0.3)
            patch.setattr(os, "kill", lambda *_: None)
            async with asyncio.timeout(10):
                assert await run.process.run(run.collect) == (Ending.EXITED, 0)
        (pid,) = living(run.token)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not living(run.token))

        (record,) = [record for record in caplog.records if record.name != "asyncio"]
        assert record.levelno == logging.ERROR
        assert str(pid) in record.getMessage()

    async def test_no_zombies(self, fake: Path) -> None:
        """Ended processes are reaped."""
        await Run(fake, "exit 0").run()

        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        states = [Path(f"/proc/{pid}/stat").read_text() for pid in children]
        assert not [state for state in states if ") Z " in state]


class TestLimits:
    """Processes that take too long."""

    async def test_total(self, fake: Path) -> None:
        """However much it prints, a process ends after its time."""
        run = Run(fake, "redraws inf", limits=Limits(total=0.5, idle=10))
        started = time.monotonic()

        ending, _ = await run.run()

        assert ending is Ending.TIME_LIMIT
        assert 0.5 <= time.monotonic() - started < 3

    async def test_idle(self, fake: Path) -> None:
        """A process that is silent for too long ends, however much time it has."""
        run = Run(fake, "print hello", "sleep inf", limits=Limits(total=30, idle=0.5))
        started = time.monotonic()

        assert await run.run() == (Ending.IDLE_LIMIT, -signal.SIGTERM)
        assert 0.5 <= time.monotonic() - started < 3

    async def test_output_is_a_sign_of_life(self, fake: Path) -> None:
        """Whoever prints now and then is not idle."""
        steps = ["print alive", "sleep 0.25"] * 6
        run = Run(fake, *steps, "exit 6", limits=Limits(idle=1))

        assert await run.run() == (Ending.EXITED, 6)

    async def test_within_the_limits(self, fake: Path) -> None:
        """Limits do nothing to who keeps them."""
        run = Run(fake, "exit 6", limits=Limits(total=10, idle=10))

        assert await run.run() == (Ending.EXITED, 6)

    @pytest.mark.usefixtures("short_grace")
    async def test_limit_with_descendants(self, fake: Path) -> None:
        """A limit ends the whole tree."""
        run = Run(
            fake, *_ESCAPES, "ignore", "sleep inf", limits=Limits(total=2, idle=30)
        )

        assert await run.run() == (Ending.TIME_LIMIT, -signal.SIGKILL)

    async def test_output_closed(self, fake: Path) -> None:
        """A process that closed its output runs on to its end, or to its limit."""
        assert await Run(fake, "close", "sleep 0.5", "exit 8").run() == (
            Ending.EXITED,
            8,
        )
        run = Run(fake, "close", "sleep inf", limits=Limits(total=0.5))
        assert await run.run() == (Ending.TIME_LIMIT, -signal.SIGTERM)
        run = Run(fake, "close", "sleep inf", limits=Limits(idle=0.5))
        assert await run.run() == (Ending.IDLE_LIMIT, -signal.SIGTERM)
        run = Run(fake, "print go", "close", "sleep inf")
        task = run.start()
        await run.until(b"go")
        await asyncio.sleep(0.1)
        run.process.stop()
        assert await task == (Ending.STOPPED, -signal.SIGTERM)


class TestCancelled:
    """The task that runs a process is canceled, or fails."""

    @pytest.mark.parametrize("delay", [0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3])
    @pytest.mark.usefixtures("short_grace")
    async def test_anywhere(self, fake: Path, delay: float) -> None:
        """A canceled task ends its process and all of it before it is over."""
        run = Run(fake, "spawn session ignore", "spawn ignore", "redraws inf")
        task = run.start()
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert not living(run.token)

    async def test_twice(self, fake: Path, short_grace: float) -> None:
        """Canceling again leaves the ending to itself, and it is done all the same."""
        run = Run(fake, "ignore", "print go", "sleep inf")
        task = run.start()
        await run.until(b"go")
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.1)
        assert task.done()
        await asyncio.sleep(short_grace + 0.3)

        assert not living(run.token)

    @pytest.mark.usefixtures("short_grace")
    async def test_consumer_fails(self, fake: Path) -> None:
        """An error of who takes the output ends the process and is raised."""
        run = Run(fake, "spawn session ignore", "print go", "sleep inf")

        async def _fail(_: bytes) -> None:
            raise TimeoutError("mine")

        with pytest.raises(TimeoutError, match="mine"):
            await run.process.run(_fail)
        assert not living(run.token)


async def test_others_have_their_turn(fake: Path) -> None:
    """A flood does not keep the event loop for itself."""
    turns = 0

    async def _count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(_count())
    run = Run(fake, f"flood {64 * _MIB}")
    await run.run()
    counter.cancel()

    assert turns >= len(run.chunks) >= 64 * _MIB / READ_BYTES


class TestLeftovers:
    """What Home Assistant left when it was killed."""

    def leave(self, fake: Path, token: str) -> subprocess.Popen[bytes]:
        """Start something that a killed Home Assistant would leave."""
        name = write_configuration(
            fake.parent, token, "ignore", "spawn session ignore", "mark go", "sleep inf"
        )
        return subprocess.Popen(
            [fake, "compile", name],
            cwd=fake.parent,
            env={**os.environ, TOKEN_VARIABLE: token},
            start_new_session=True,
        )

    async def wait_for(self, *tokens: str) -> None:
        """Wait until all have left what they leave."""
        async with asyncio.timeout(10):
            while any(len(living(token)) < 2 for token in tokens):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def test_all_of_a_token(self, fake: Path) -> None:
        """All processes of these jobs are gone, and no other is."""
        tokens = [f"{number}-{secrets.token_hex(8)}" for number in range(3)]
        processes = [self.leave(fake, token) for token in tokens]
        await self.wait_for(*tokens)
        # A dead parent must be reaped, or the wait for its end would be in vain.
        await asyncio.to_thread(end_leftovers, tokens[:2])

        assert not living(tokens[0])
        assert not living(tokens[1])
        assert len(living(tokens[2])) == 2
        end_leftovers(tokens)
        assert [process.wait(5) for process in processes] == [-signal.SIGKILL] * 3

    def test_nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is nothing of a job, no process is touched at all."""
        killed: list[int] = []
        monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))

        end_leftovers([])
        end_leftovers(["0123456789abcdef"])

        assert killed == []

    def test_a_token_is_matched_whole(self, fake: Path) -> None:
        """A job whose id begins like another's is not that one."""
        token = secrets.token_hex(8)
        process = self.leave(fake, token)
        try:
            end_leftovers([token[:-1]])
            assert process.poll() is None
        finally:
            end_leftovers([token])
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)


async def test_descendant_without_variables(fake: Path) -> None:
    """One that lost the token is found by its group, whatever it calls itself."""
    sleep = fake.with_name("a) R 1 (b")
    sleep.symlink_to(shutil.which("sleep") or "")
    run = Run(fake, f"leave {sleep}", "wait go", "exit 0")
    task = run.start()
    async with asyncio.timeout(5):
        while not living_in(fake.parent, sleep.name):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    (fake.parent / "go").touch()
    await task

    assert not living_in(fake.parent, sleep.name)


def living_in(folder: Path, name: str) -> bool:
    """Return whether a program of a folder runs."""
    command = bytes(folder / name)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(command):
                return True
    return False


class TestNoDescriptor:
    """Where no file can be opened, nobody can look what is left of a process."""

    async def test_look(self, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What left its group is looked for until that works, and then ended."""
        run = Run(fake, "spawn session", "print end")
        read = Path.read_bytes
        refusals = iter(range(3))

        def _read(path: Path) -> bytes:
            if path.name in ("stat", "environ") and next(refusals, None) is not None:
                raise OSError(24, "Too many open files")
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", _read)
        assert await run.run() == (Ending.EXITED, 0)
        assert next(refusals, None) is None
        assert not living(run.token)

    async def test_group_is_killed_without_a_look(
        self, fake: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It does not need one; a look comes when there can be one."""
        monkeypatch.setattr(process_module, "GRACE_SECONDS", 0.2)
        run = Run(fake, "ignore", "print go", "sleep inf")
        scan = process_module._scan
        blind = True

        def _scan(group: int | None, tokens: list[str]) -> set[int]:
            if blind:
                raise OSError(24, "Too many open files")
            return scan(group, tokens)

        monkeypatch.setattr(process_module, "_scan", _scan)
        running = asyncio.create_task(run.run())
        while b"go" not in run.output:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)
        run.process.stop()
        async with asyncio.timeout(5):
            while living(run.token):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert not running.done()
        blind = False
        assert await running == (Ending.STOPPED, -signal.SIGKILL)

    async def test_start(self, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that was started and cannot be watched is ended before that is told."""
        run = Run(fake, "spawn session", "print go", "sleep inf")
        start = asyncio.create_subprocess_exec
        started = []

        async def _start(*arguments: str, **options: object) -> object:
            started.append(await start(*arguments, **options))  # type: ignore[arg-type]
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(asyncio, "create_subprocess_exec", _start)
        scan = process_module._scan
        refusals = iter(range(2))

        def _scan(group: int | None, tokens: list[str]) -> set[int]:
            if next(refusals, None) is not None:
                raise OSError(24, "Too many open files")
            return scan(group, tokens)

        monkeypatch.setattr(process_module, "_scan", _scan)
        with pytest.raises(OSError, match="Too many open files"):
            await run.run()
        assert not living(run.token)
        await started[0].wait()
