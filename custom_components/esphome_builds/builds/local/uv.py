"""Home Assistant's installer: how it is called, and which ESPHome it would install.

Home Assistant depends on uv and calls it in the same way (its `util/package.py`).
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
import re
import secrets
import tempfile
from typing import Final

from ..builder import BuilderUnavailableError
from ..models import Cause
from .process import Command, Ending, Limits, Process
from .uv_failures import InstallDiagnosis

INSTALL_LIMITS: Final = Limits(total=60 * 60, idle=15 * 60)
LATEST_SECONDS: Final = 120

_ANSWER_BYTES: Final = 64 * 1024
_LATEST: Final = re.compile(r"^esphome==(\S{1,40})$", re.MULTILINE)
_REQUIREMENTS: Final = "esphome.in"

# Where and how uv installs is ours to say: a variable that says it, too, never reaches
# uv (Home Assistant's image sets UV_SYSTEM_PYTHON).
_ALLOWED: Final = frozenset(
    {
        # To reach an index: proxies, certificates, patience.
        "ALL_PROXY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "SSL_CLIENT_CERT",
        "UV_HTTP_RETRIES",
        "UV_HTTP_TIMEOUT",
        "UV_INSECURE_HOST",
        "UV_NATIVE_TLS",
        "UV_SYSTEM_CERTS",
        # Which index, and who one is there. Home Assistant's image names its own.
        "NETRC",
        "UV_DEFAULT_INDEX",
        "UV_EXTRA_INDEX_URL",
        "UV_FIND_LINKS",
        "UV_INDEX",
        "UV_INDEX_URL",
        "UV_NO_INDEX",
        # What every program needs, and a compiler where a package has to be built.
        "HOME",
        "LANG",
        "PATH",
        "TMPDIR",
        "TZ",
    }
)
_CREDENTIAL: Final = re.compile(r"UV_INDEX_\w+_(?:PASSWORD|USERNAME)")

# What the first index lacks, or has in other versions only, is taken from the next, as
# Home Assistant does it: in its image the first one is its own.
_ANY_INDEX: Final = ("--index-strategy", "unsafe-first-match")
_ALL_INDEXES: Final = ("--index-strategy", "unsafe-best-match")


class LatestUnknownError(BuilderUnavailableError):
    """Nobody could tell which ESPHome is the latest; the message says why."""

    def __init__(
        self, message: str | None, cause: Cause | None = Cause.UNKNOWN
    ) -> None:
        """Note what a job that wanted to know it ends with."""
        super().__init__(message)
        self.cause = cause


def uv_environment(source: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of uv: what a user may need to reach an index, no more."""
    return {
        name: value
        for name, value in source.items()
        if name.upper() in _ALLOWED
        or name.startswith("LC_")
        or _CREDENTIAL.fullmatch(name)
    }


def venv_arguments(python: Path, folder: Path, cache: Path) -> tuple[str, ...]:
    """Return what makes an environment of a Python, with nothing in it."""
    return (
        *_uv(python, cache),
        *("venv", "--no-project", "--python", str(python), str(folder)),
    )


def install_arguments(
    python: Path, version: str, target: Path, cache: Path
) -> tuple[str, ...]:
    """Return what installs ESPHome into the environment whose Python is `target`."""
    return (
        *_uv(python, cache),
        *("pip", "install", *_ANY_INDEX, "--python", str(target)),
        # With "==" one that was withdrawn would be installed all the same.
        f"esphome>={version},<={version}",
    )


async def latest_version(
    python: Path,
    source: Mapping[str, str],
    *,
    betas: bool = False,
    token: str | None = None,
) -> str:
    """Return the latest ESPHome for a Python, by the indexes that the source names.

    What was withdrawn or needs another Python does not count. The processes are marked
    with the token, if there is one. Raises `LatestUnknownError`.
    """
    try:
        folder = await asyncio.to_thread(_scratch)
    except OSError as err:
        message = f"The temporary folder cannot be used: {err.strerror}."
        raise LatestUnknownError(message) from err
    try:
        command = Command(
            argv=_latest_arguments(python, Path(folder.name), betas=betas),
            cwd=Path(folder.name),
            environment=uv_environment(source),
            token=token or secrets.token_hex(16),
        )
        return await _ask(command)
    finally:
        await asyncio.to_thread(folder.cleanup)


def _uv(python: Path, cache: Path) -> tuple[str, ...]:
    """Return what calls uv so that no file in any folder tells it what to do."""
    return (
        # With -P, what lies in the working folder is no module of Python.
        *(str(python), "-P", "-m", "uv", "--no-config"),
        *("--color", "never", "--cache-dir", str(cache)),
    )


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a folder with a file that asks for ESPHome; blocking."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    Path(folder.name, _REQUIREMENTS).write_text("esphome\n")
    return folder


def _latest_arguments(python: Path, folder: Path, *, betas: bool) -> tuple[str, ...]:
    """Return what prints the version that would be installed, and installs nothing."""
    return (
        *_uv(python, folder / "cache"),
        *("pip", "compile", "--no-annotate", "--no-deps", "--no-header", *_ALL_INDEXES),
        *("--prerelease", "allow" if betas else "disallow"),
        *("--python", str(python), _REQUIREMENTS),
    )


async def _ask(command: Command) -> str:
    """Return the version that a command prints; raise `LatestUnknownError`."""
    answer = bytearray()

    async def _on_output(data: bytes) -> None:
        answer.extend(data[: _ANSWER_BYTES - len(answer)])

    try:
        ending, exit_code = await Process(command, Limits(total=LATEST_SECONDS)).run(
            _on_output
        )
    except OSError as err:
        message = f"{command.argv[0]} cannot be started: {err.strerror}."
        raise LatestUnknownError(message) from err
    if ending is not Ending.EXITED:
        message = f"uv did not answer within {LATEST_SECONDS} seconds."
        raise LatestUnknownError(message, Cause.TIMED_OUT)
    text = answer.decode("utf-8", "replace")
    if not exit_code and (match := _LATEST.search(text)):
        return match[1]
    diagnosis = InstallDiagnosis()
    diagnosis.feed(text.splitlines())
    verdict = diagnosis.explain(exit_code)
    raise LatestUnknownError(verdict.message, verdict.cause)
