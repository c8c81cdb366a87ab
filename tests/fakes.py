"""What tests of every layer share to have builds without a compiler."""

from pathlib import Path
import sys

from . import fake_esphome

FAKE_VERSION = fake_esphome.VERSION


def install_fake(folder: Path, name: str = "esphome") -> Path:
    """Make an executable that behaves as `fake_esphome` describes; return its path."""
    executable = folder / name
    executable.write_text(
        "#!/bin/sh\n"
        f'exec "{sys.executable}" -S -E "{fake_esphome.__file__}" "$0" "$@"\n'
    )
    executable.chmod(0o755)
    return executable


def install_fake_uv(folder: Path, latest: str = FAKE_VERSION) -> Path:
    """Make an executable that behaves as `fake_uv` describes; return its path."""
    executable = folder / "python"
    program = Path(fake_esphome.__file__).with_name("fake_uv.py")
    executable.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -S -E "{program}" "$0" "$@"\n'
    )
    executable.chmod(0o755)
    executable.with_name("python.latest").write_text(f"{latest}\n")
    return executable


class FakeUv:
    """What stands in for Python and uv, and what it is told to do."""

    def __init__(self, folder: Path) -> None:
        """Make the executable, which offers one release."""
        self.python = install_fake_uv(folder)
        self._folder = folder

    def offer(self, version: str, beta: str | None = None) -> None:
        """Let a version be the latest, and a beta the latest of all."""
        self.python.with_name("python.latest").write_text(f"{version}\n")
        if beta is not None:
            self.python.with_name("python.betas").write_text(f"{beta}\n")

    def script(self, *lines: str) -> None:
        """Say what uv does before it does its work."""
        text = "".join(f"{line}\n" for line in lines)
        self.python.with_name("python.script").write_text(text)

    def block(self, step: str, *first: str) -> None:
        """Let a step do something, and then wait in silence until `go`."""
        for name in ("go", "reached"):
            (self._folder / name).unlink(missing_ok=True)
        marks = (f"mark {self._folder / 'reached'}", f"wait {self._folder / 'go'}")
        self.script(*(f"{step}{line}" for line in (*first, *marks)))

    def reached(self) -> bool:
        """Return whether the step that waits has begun."""
        return (self._folder / "reached").exists()

    def go(self) -> None:
        """Let what waits go on."""
        (self._folder / "go").touch()

    def calls(self, step: str) -> int:
        """Return how often uv was asked for a step."""
        path = self.python.with_name("python.calls")
        return path.read_text().splitlines().count(step) if path.exists() else 0


def fake_version(executable: Path, *script: str) -> None:
    """Let a fake do this when it is asked for its version; nothing: answer well."""
    sidecar = executable.with_name(f"{executable.name}.version")
    if script:
        sidecar.write_text("\n".join(script) + "\n")
    else:
        sidecar.unlink(missing_ok=True)


def fake_calls(executable: Path, command: str | None = None) -> list[list[str]]:
    """Return the arguments of each call so far, or of those of one command."""
    calls = executable.with_name(f"{executable.name}.calls")
    lines = calls.read_text().splitlines() if calls.exists() else []
    every = [line.split("\t") for line in lines]
    return [one for one in every if command is None or command in one]


def fake_runs(executable: Path) -> list[tuple[str, str]]:
    """Return the job and the command of each process that was started for a job."""
    runs = executable.with_name(f"{executable.name}.runs")
    lines = runs.read_text().splitlines() if runs.exists() else []
    return [(job_id, command) for job_id, command in map(str.split, lines)]


def write_configuration(folder: Path, name: str, *script: str) -> str:
    """Write `<name>.yaml` with what a fake shall do; return the file's name."""
    lines = [f"#! {step}" for step in script]
    lines += ["esphome:", f"  name: {name}", "host:", ""]
    (folder / f"{name}.yaml").write_text("\n".join(lines))
    return f"{name}.yaml"
