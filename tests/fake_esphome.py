"""Stands in for `esphome`: a real process that does what its YAML file says.

`fakes.install_fake` makes an executable of it, which is called as ESPHome is. Comments
of the configuration that start with `#!` are a script, done in order:

    #! print some text           for every command
    #! upload: exit 1            for one command only

Where a script is empty the output is what ESPHome prints when all goes well. `version`
does the script in `<executable>.version` instead, if that file exists. Each call adds
its arguments, separated by tabs, as a line to `<executable>.calls`, and one for a job
the job's id and the command to `<executable>.runs`.

Output:
    print TEXT          a line
    complain TEXT       a line to the standard error
    write LITERAL       the bytes or text of a Python literal, with no end of line
    lines N             N lines "line 0", "line 1", …
    flood BYTES         lines as a compiler prints them, as fast as the reader reads
    long BYTES          one line that does not end
    redraws SECONDS     a progress bar, as fast as the reader reads
    rubbish BYTES       random bytes
    replay FILE         the bytes of a file
    compile STEPS       what a compile prints, in so many steps
    upload              what an upload prints
    concealed TEXT      a secret, hidden as `esphome --dashboard config` does
    environment         each variable as NAME=value
    stdin               what can be read from the standard input

Flow:
    sleep SECONDS       in silence; `inf` is for ever
    wait FILE           until the file exists
    mark FILE           add a line to a file
    exit CODE           end here
    signal NAME         end by a signal (KILL, SEGV, …)
    ignore              ignore SIGTERM from here on
    close               close the output and live on
    spawn [FLAGS]       leave a process running: `ignore` SIGTERM, `orphan` (its parent
                        ends), `session` (of its own), `hold` the output open, `print`
                        into it; without a flag just a child
    leave PROGRAM       the same for another program, which gets "1000" for its argument
                        and no variable at all
"""

from collections.abc import Callable, Iterator
import os
import signal
import sys
import time

VERSION = "2026.10.0"

_BLOCK = 1024 * 1024
_COMPILED = "Compiling .pioenvs/fake/src/esphome/components/sensor/sensor_{}.cpp.o"
_WARNED = (
    "src/esphome/components/sensor/sensor_{0}.cpp:{0}:17: "
    "warning: unused variable 'value' [-Wunused-variable]"
)


def _write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def _print(text: str) -> None:
    _write(f"{text}\n".encode())


def _complain(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def _write_literal(literal: str) -> None:
    import ast  # noqa: PLC0415 - most runs do not need it, and start faster without

    value = ast.literal_eval(literal)
    _write(value.encode() if isinstance(value, str) else value)


def _repeat(block: bytes, size: int) -> None:
    """Write so many bytes of a block, again and again."""
    for _ in range(size // len(block)):
        _write(block)
    _write(block[: size % len(block)])


def _lines(count: str) -> None:
    for first in range(0, int(count), 10_000):
        numbers = range(first, min(first + 10_000, int(count)))
        _write("".join(f"line {number}\n" for number in numbers).encode())


def _flood(size: str) -> None:
    lines = []
    for number in range(_BLOCK // 200):
        lines += [_COMPILED.format(number), _WARNED.format(number), ""]
    _repeat("\n".join(lines).encode(), int(size))


def _long(size: str) -> None:
    _repeat(b"x" * _BLOCK, int(size))


def _redraws(seconds: str) -> None:
    frames = b"".join(_upload_frames())
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        _write(frames)


def _rubbish(size: str) -> None:
    _repeat(os.urandom(_BLOCK), int(size))


def _replay(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow to import
        while block := file.read(_BLOCK):
            _write(block)


def _compile(steps: str) -> None:
    _print("INFO Generating C++ source...")
    _print("INFO Compiling app...")
    for step in range(1, int(steps)):
        _print(f"[{step}/{steps}] " + _COMPILED.format(step))
    _print(f"[{steps}/{steps}] Linking .pioenvs/fake/program")
    _print("INFO Build Info: config_hash=0x12345678")
    _print("INFO Successfully compiled program.")


def _upload_frames() -> Iterator[bytes]:
    for percent in range(100):
        bar = "=" * (percent * 60 // 100)
        yield f"\rUploading: [{bar:60}] {percent}% ".encode()


def _upload() -> None:
    _print("INFO Connecting to 127.0.0.1 port 3232...")
    _print("INFO Connected to 127.0.0.1")
    _print("INFO Uploading .pioenvs/fake/program (1048576 bytes)")
    for frame in _upload_frames():
        _write(frame)
    _write(f"\rUploading: [{'=' * 60}] 100% Done...\r\n".encode())
    _print("INFO Upload took 1.00 seconds, waiting for result...")
    _print("INFO OTA successful")
    _print("INFO Successfully uploaded program.")


def _concealed(text: str) -> None:
    _print(rf"  password: \033[8m{text}\033[28m")


def _environment() -> None:
    for name, value in sorted(os.environ.items()):
        _print(f"{name}={value}")


def _stdin() -> None:
    _print(f"stdin: {os.read(0, 100)!r}")


def _wait(file: str) -> None:
    while not os.path.exists(file):  # noqa: PTH110 - pathlib is slow to import
        time.sleep(0.005)


def _mark(file: str) -> None:
    _append(file, " ".join(sys.argv[2:]))


def _append(file: str, line: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def _signal(name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _ignore() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _close() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _spawn(words: str = "") -> None:
    """Leave a process running, and return when it has become what it shall be."""
    flags = words.split()
    ready, tell = os.pipe()
    if os.fork() == 0:
        if "orphan" in flags and os.fork():
            os._exit(0)
        if "session" in flags:
            os.setsid()
        if "ignore" in flags:
            _ignore()
        if "hold" not in flags and "print" not in flags:
            _close()
        os.write(tell, b"!")
        while True:
            if "print" in flags:
                _print("still here")
            time.sleep(0.02)
    if "orphan" in flags:
        os.wait()
    os.read(ready, 1)


def _leave(program: str) -> None:
    if os.fork() == 0:
        _close()
        os.execve(program, [program, "1000"], {})


_VERBS: dict[str, Callable[..., None]] = {
    "close": _close,
    "compile": _compile,
    "complain": _complain,
    "concealed": _concealed,
    "environment": _environment,
    "exit": lambda code: os._exit(int(code)),
    "flood": _flood,
    "ignore": _ignore,
    "leave": _leave,
    "lines": _lines,
    "long": _long,
    "mark": _mark,
    "print": lambda text="": _print(text),
    "redraws": _redraws,
    "replay": _replay,
    "rubbish": _rubbish,
    "signal": _signal,
    "sleep": lambda seconds: time.sleep(min(float(seconds), 1e6)),
    "spawn": _spawn,
    "stdin": _stdin,
    "upload": _upload,
    "wait": _wait,
    "write": _write_literal,
}

_DEFAULTS = {
    "clean": ["print INFO Deleting build files", "print INFO Done!"],
    "compile": ["compile 20"],
    "config": ["print INFO Configuration is valid!"],
    "upload": ["upload"],
    "version": [f"print Version: {VERSION}"],
}


def _script(executable: str, command: str, arguments: list[str]) -> list[str]:
    """Return what to do for a command."""
    if command == "version":
        source, prefix = f"{executable}.version", ""
    else:
        source, prefix = arguments[0], "#!"
    script = []
    if os.path.exists(source):  # noqa: PTH110 - as above
        with open(source, encoding="utf-8") as file:  # noqa: PTH123 - as above
            for line in file:
                if line.startswith(prefix):
                    step = line.removeprefix(prefix).strip()
                    only, colon, rest = step.partition(": ")
                    if not colon or only not in _DEFAULTS:
                        script.append(step)
                    elif only == command:
                        script.append(rest)
    return script or _DEFAULTS[command]


def main() -> None:
    """Do the script of the command that was called."""
    executable, *arguments = sys.argv[1:]
    _append(f"{executable}.calls", "\t".join(arguments))
    command, *rest = [word for word in arguments if word != "--dashboard"]
    if job_id := os.environ.get("ESPHOME_BUILDS_JOB"):
        _append(f"{executable}.runs", f"{job_id} {command}")
    for step in _script(executable, command, rest):
        verb, _, argument = step.partition(" ")
        _VERBS[verb](*([argument] if argument else []))


if __name__ == "__main__":
    main()
