"""How uv is called, what reaches it, what it says, and which ESPHome is the latest."""

import os
from pathlib import Path
import sys
import tempfile
from typing import Final

import pytest
import yaml

from custom_components.esphome_builds.builds.diagnosis import Verdict
from custom_components.esphome_builds.builds.local import uv as module
from custom_components.esphome_builds.builds.local.uv import (
    LatestUnknownError,
    latest_version,
    uv_environment,
)
from custom_components.esphome_builds.builds.local.uv_failures import InstallDiagnosis
from custom_components.esphome_builds.builds.models import Cause, JobStatus

from ..recorded import replay
from .packages import Index

PYTHON: Final = Path(sys.executable)

_DOWNLOAD: Final = "ESPHome 2026.10.0 could not be downloaded: "
_CHECK: Final = "check the internet connection."
_NOT_INSTALLED: Final = "ESPHome 2026.10.0 was not installed."
_NOT_WRITABLE: Final = "The folder for ESPHome 2026.10.0 cannot be written to"
_FULL: Final = "The disk is full, so ESPHome 2026.10.0 could not be installed."

RECORDED: Final[dict[str, dict[str, str]]] = yaml.safe_load(
    (Path(__file__).parent / "install_verdicts.yaml").read_text()
)
r"""Outputs of uv 0.13.5 as an installation calls it, with an index of our own for most.

The index answered oddly, offered odd packages, or was not there; the full disk and the
read-only one were small ones. Only paths and the names of servers were replaced.
"""


def _diagnosis(name: str, version: str, size: int = 64 * 1024) -> InstallDiagnosis:
    """Return a diagnosis that heard a recorded output, read in pieces of a size."""
    diagnosis = InstallDiagnosis(version)
    for lines, _ in replay(f"install_{name}", size):
        diagnosis.feed(lines)
    return diagnosis


@pytest.mark.parametrize("size", [7, 64 * 1024])
@pytest.mark.parametrize("name", RECORDED)
def test_recorded(name: str, size: int) -> None:
    """Each failure has a cause and one sentence, however its output is cut."""
    message = RECORDED[name]["message"]
    version = next(word for word in message.split() if word[:2] == "20").rstrip(".:")

    verdict = _diagnosis(name, version, size).verdict(2)

    assert verdict == Verdict(
        status=JobStatus.FAILED, cause=Cause(RECORDED[name]["cause"]), message=message
    )


def test_recorded_success() -> None:
    """An installation has succeeded when ESPHome told the version that was wanted."""
    assert _diagnosis("ok", "2026.10.0").verdict(0) == Verdict(
        status=JobStatus.COMPLETED, cause=None, message=None
    )
    assert _diagnosis("ok", "2026.10.1").verdict(0).cause is Cause.ESPHOME_MISSING


@pytest.mark.parametrize(
    ("line", "cause", "message"),
    [
        (
            "  cause: failed to create file `/a`: Disk quota exceeded (os error 122)",
            Cause.DISK_FULL,
            _FULL,
        ),
        (
            "  cause: failed to spawn: Cannot allocate memory (os error 12)",
            Cause.OUT_OF_MEMORY,
            "The host ran out of memory while ESPHome 2026.10.0 was installed.",
        ),
        (
            "  cause: failed to create directory `/a`: Permission denied (os error 13)",
            Cause.UNKNOWN,
            f"{_NOT_WRITABLE} (Permission denied).",
        ),
        (
            "  cause: failed to symlink `/a`: Operation not permitted (os error 1)",
            Cause.UNKNOWN,
            f"{_NOT_WRITABLE} (Operation not permitted).",
        ),
        (
            "uv._find_uv.UvNotFound: Could not find the uv binary in any of these",
            Cause.TOOLCHAIN_MISSING,
            f"Home Assistant's installer, uv, is missing, so {_NOT_INSTALLED}",
        ),
        (
            "  cause: Because esphome==2026.10.0 has an invalid package format and you",
            Cause.DOWNLOAD_FAILED,
            f"The download of esphome==2026.10.0 is damaged, so {_NOT_INSTALLED}",
        ),
        (
            "  cause: Because tibs==1.0 has no usable wheels and esphome depends on it",
            Cause.ESPHOME_MISSING,
            "ESPHome 2026.10.0 needs tibs, which is not made for this host.",
        ),
        # As musl puts it.
        (
            "  cause: dns error",
            Cause.DOWNLOAD_FAILED,
            f"{_DOWNLOAD}the package index cannot be found, {_CHECK}",
        ),
        (
            "error: unexpected argument found",
            Cause.UNKNOWN,
            "ESPHome 2026.10.0 could not be installed (unexpected argument found).",
        ),
        (
            "warning: `tibs` is yanked: No space left on device",
            Cause.UNKNOWN,
            "ESPHome 2026.10.0 could not be installed (exit code 2).",
        ),
    ],
)
def test_line(line: str, cause: Cause, message: str) -> None:
    """What could not be provoked is known by uv's words."""
    diagnosis = InstallDiagnosis("2026.10.0")
    diagnosis.feed([line])

    assert diagnosis.verdict(2) == Verdict(
        status=JobStatus.FAILED, cause=cause, message=message
    )


@pytest.mark.parametrize(
    ("exit_code", "cause", "words"),
    [
        (-9, Cause.OUT_OF_MEMORY, "was killed, most likely"),
        (137, Cause.OUT_OF_MEMORY, "was killed, most likely"),
        (-11, Cause.CRASHED, "crashed (exit code -11)"),
        (2, Cause.UNKNOWN, "could not be installed (exit code 2)"),
    ],
)
def test_silent(exit_code: int, cause: Cause, words: str) -> None:
    """Where the output says nothing, the exit code has to."""
    verdict = InstallDiagnosis("2026.10.0").verdict(exit_code)

    assert verdict.cause is cause
    assert verdict.message is not None
    assert words in verdict.message


def test_a_better_explanation_wins() -> None:
    """What the host lacks is behind whatever else went wrong, in any order."""
    lines = [
        "error: Failed to build `crcmod==1.7`",
        "  cause: Connection refused (os error 111)",
        "  cause: No space left on device (os error 28)",
    ]
    for order in (lines, lines[::-1]):
        diagnosis = InstallDiagnosis("2026.10.0")
        diagnosis.feed(order)
        assert diagnosis.verdict(2).message == _FULL


_NEEDED: Final = {
    "ALL_PROXY": "socks5://proxy",
    "HOME": "/config",
    "HTTPS_PROXY": "http://proxy",
    "HTTP_PROXY": "http://proxy",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "NETRC": "/config/netrc",
    "NO_PROXY": "localhost",
    "PATH": "/usr/bin",
    "SSL_CERT_DIR": "/certs",
    "SSL_CERT_FILE": "/ca",
    "SSL_CLIENT_CERT": "/mine",
    "TMPDIR": "/tmp",
    "TZ": "Europe/Berlin",
    "UV_DEFAULT_INDEX": "https://a.example",
    "UV_EXTRA_INDEX_URL": "https://b.example",
    "UV_FIND_LINKS": "/wheels",
    "UV_HTTP_RETRIES": "9",
    "UV_HTTP_TIMEOUT": "300",
    "UV_INDEX": "house=https://c.example",
    "UV_INDEX_HOUSE_PASSWORD": "secret",
    "UV_INDEX_HOUSE_USERNAME": "jane",
    "UV_INDEX_URL": "https://d.example",
    "UV_INSECURE_HOST": "a.example",
    "UV_NATIVE_TLS": "true",
    "UV_NO_INDEX": "true",
    "UV_SYSTEM_CERTS": "true",
    "https_proxy": "http://proxy",
    "no_proxy": "localhost",
}


def test_what_reaches_uv() -> None:
    """A user's proxies, certificates and indexes do."""
    assert uv_environment(_NEEDED) == _NEEDED


@pytest.mark.parametrize(
    "name",
    [
        "HASSIO_TOKEN",
        "LD_PRELOAD",
        "PIP_INDEX_URL",
        "PYTHONHOME",
        "PYTHONPATH",
        "SUPERVISOR_TOKEN",
        "UV_CACHE_DIR",
        "UV_CONFIG_FILE",
        "UV_CONSTRAINT",
        "UV_INDEX_STRATEGY",
        "UV_LINK_MODE",
        "UV_NO_CACHE",
        "UV_OVERRIDE",
        "UV_PROJECT",
        "UV_PUBLISH_TOKEN",
        "UV_PYTHON",
        "UV_SYSTEM_PYTHON",
        "UV_TARGET",
        "VIRTUAL_ENV",
        "XDG_CONFIG_HOME",
    ],
)
def test_what_does_not_reach_uv(name: str) -> None:
    """Nothing else does: no token, and nothing that says where or how to install."""
    assert uv_environment({name: "1"}) == {}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Return an index with a release, and with what is no release for us."""
    index = Index(tmp_path / "index")
    for version in ("2026.9.1", "2026.10.0", "2026.11.0b1", "2026.11.0b2"):
        index.add(version)
    index.add("2026.10.1", attributes='data-yanked="It bricks devices"')
    index.add("2026.12.0", attributes='data-requires-python="&gt;=3.99"')
    return index


def _source(index: Index | str) -> dict[str, str]:
    """Return an environment for an index."""
    url = index if isinstance(index, str) else index.url
    return {"PATH": os.defpath, "UV_DEFAULT_INDEX": url, "UV_HTTP_RETRIES": "0"}


@pytest.mark.parametrize(
    ("betas", "version"), [(False, "2026.10.0"), (True, "2026.11.0b2")]
)
async def test_latest(index: Index, betas: bool, version: str) -> None:
    """What was withdrawn or is for another Python does not count, nor do betas."""
    assert await latest_version(PYTHON, _source(index), betas=betas) == version


async def test_latest_of_several_indexes(index: Index, tmp_path: Path) -> None:
    """The index that is asked first does not hide what only the other one has."""
    other = Index(tmp_path / "other")
    other.add("2026.9.0")
    source = _source(index) | {"UV_EXTRA_INDEX_URL": other.url}

    assert await latest_version(PYTHON, source) == "2026.10.0"


async def test_latest_leaves_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is needed to ask is gone afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    await latest_version(PYTHON, _source(index))

    assert list(folder.iterdir()) == []


async def test_latest_without_network() -> None:
    """Nobody is left without the reason."""
    with pytest.raises(LatestUnknownError) as raised:
        await latest_version(PYTHON, _source("http://127.0.0.1:9/simple"))

    assert str(raised.value) == (
        "ESPHome could not be downloaded: 127.0.0.1 refused the connection."
    )


async def test_latest_of_none(tmp_path: Path) -> None:
    """Where there are only betas there is no release."""
    index = Index(tmp_path / "index")
    index.add("2026.11.0b1")

    with pytest.raises(LatestUnknownError):
        await latest_version(PYTHON, _source(index))

    assert await latest_version(PYTHON, _source(index), betas=True) == "2026.11.0b1"


async def test_latest_with_a_password_in_the_address() -> None:
    """A password is in no message."""
    with pytest.raises(LatestUnknownError) as raised:
        await latest_version(PYTHON, _source("http://jane:geheim@127.0.0.1:9/simple"))

    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize("path", [os.environ["PATH"], ""])
async def test_latest_without_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A Python that is not there is named, whoever misses it."""
    # Without "nice" it is not that which finds out.
    monkeypatch.setenv("PATH", path)
    python = tmp_path / "python"

    with pytest.raises(LatestUnknownError, match=r"be installed|cannot be started"):
        await latest_version(python, _source(""))


async def test_latest_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever."""
    monkeypatch.setattr(module, "LATEST_SECONDS", 0.2)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)

    with pytest.raises(LatestUnknownError, match=r"did not answer within 0\.2 seconds"):
        await latest_version(python, _source(""))


async def test_latest_without_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That there is no room to ask is said."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))

    with pytest.raises(LatestUnknownError, match="No such file or directory"):
        await latest_version(PYTHON, _source(""))


@pytest.mark.real
async def test_latest_for_real() -> None:
    """The index of this machine knows a release, and a beta or release not older."""
    release = await latest_version(PYTHON, os.environ)
    beta = await latest_version(PYTHON, os.environ, betas=True)

    assert _numbers(beta) >= _numbers(release) >= (2026, 10, 0)


def _numbers(version: str) -> tuple[int, ...]:
    """Return what a version is compared by, betas aside."""
    return tuple(int(part) for part in version.partition("b")[0].split("."))
