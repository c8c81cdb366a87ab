"""What tests with real processes share."""

from collections import Counter
from collections.abc import Generator
from contextlib import suppress
import os
from pathlib import Path
import re
import signal
import time

import pytest

from custom_components.esphome_builds.builds.local import process as process_module
from custom_components.esphome_builds.builds.local.process import TOKEN_VARIABLE

from ...fakes import install_fake

PROC = Path("/proc")


def living(token: str = "", folder: Path | None = None) -> dict[int, str]:
    """Return the processes, but zombies, that came of builds, and their tokens.

    Of all that run on this machine only those count whose token begins so and which
    were started from something in the folder.
    """
    found = {}
    for path in PROC.glob("[0-9]*"):
        try:
            state = (path / "stat").read_bytes().rpartition(b")")[2].split()[0]
            command = (path / "cmdline").read_bytes()
            variables = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if state == b"Z" or (folder and bytes(folder) not in command):
            continue
        for variable in variables:
            name, _, value = variable.decode("utf-8", "replace").partition("=")
            if name == TOKEN_VARIABLE and value.startswith(token):
                found[int(path.name)] = value
    return found


def open_files() -> Counter[str]:
    """Return the files, pipes and processes that this process has open."""
    found: Counter[str] = Counter()
    for path in (PROC / "self" / "fd").iterdir():
        # The folder that is being read is closed by now.
        with suppress(OSError):
            found[str(path.readlink())] += 1
    return Counter(
        {name: count for name, count in found.items() if not _OF_THE_LOOP.match(name)}
    )


_OF_THE_LOOP = re.compile(r"socket:|anon_inode:\[(?!pidfd)")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Generator[None]:
    """Check that a test leaves no process and no open file."""
    before = open_files()
    yield
    left = living(folder=tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    # A thread may still be in the middle of a file that nobody waits for any more.
    end = time.monotonic() + 5
    while (more := open_files() - before) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left
    assert not more


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """Return an executable that stands in for ESPHome."""
    return install_fake(tmp_path)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> float:
    """Kill what does not end by itself sooner than is polite; return in what time."""
    monkeypatch.setattr(process_module, "GRACE_SECONDS", 0.3)
    return 0.3
