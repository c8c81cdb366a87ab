"""Which ESPHome a builder runs, and what of the environment its processes see."""

from collections.abc import Mapping
from contextlib import suppress
import os
from pathlib import Path
import re
import secrets
import shutil
from typing import Final

from ..builder import BuilderUnavailableError
from .host import ask_cores
from .process import Command, Ending, Limits, Process

COMPILERS: Final = "ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT"
"""The variable that says how many compilers a compile starts at a time."""

VERSION_SECONDS: Final = 30

_ANSWER_BYTES: Final = 64 * 1024

# What one compile more needs, with a compiler or two of its own.
_COMPILE_BYTES: Final = 2 * 1024**3

# A build runs code of the authors of external components, so it gets what it needs and
# nothing else: above all none of Home Assistant's and the Supervisor's tokens.
_ALLOWED: Final = frozenset(
    {
        "ALL_PROXY",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "LANG",
        "LANGUAGE",
        "NIX_SSL_CERT_FILE",
        "NO_PROXY",
        "PATH",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
    }
)
_ALLOWED_PREFIXES: Final = ("CCACHE_", "ESPHOME_", "IDF_", "LC_", "PLATFORMIO_")
# These log into a builder; they do not build.
_CREDENTIAL: Final = re.compile(r"PASSWORD|TOKEN|SECRET|USERNAME|AUTH", re.IGNORECASE)
_VERSION: Final = re.compile(r"^Version: (\d+\.\d+\.\d+\S*)$", re.MULTILINE)


class EsphomeMissingError(BuilderUnavailableError):
    """There is no executable where ESPHome should be."""


class EsphomeAwaitedError(EsphomeMissingError):
    """ESPHome is still to be installed; the message says how that stands."""


class EsphomeFailedError(BuilderUnavailableError):
    """The executable does not answer as ESPHome does."""


def build_environment(
    source: Mapping[str, str], *, data_dir: Path, tools_dir: Path
) -> dict[str, str]:
    """Return the environment of a build: allowed variables, folders, plain output.

    Tool chains go to `tools_dir`, unless the source names another place, since the home
    folder of a container does not survive its update.
    """
    result = {
        name: value
        for name, value in source.items()
        if (name.upper() in _ALLOWED or name.startswith(_ALLOWED_PREFIXES))
        and not _CREDENTIAL.search(name)
    }
    result.setdefault("ESPHOME_ESP_IDF_PREFIX", str(tools_dir / "idf"))
    result.setdefault("PLATFORMIO_CORE_DIR", str(tools_dir / "platformio"))
    return result | {
        "CLICOLOR_FORCE": "1",
        "ESPHOME_DATA_DIR": str(data_dir),
        "FORCE_COLOR": "1",
        "PLATFORMIO_FORCE_ANSI": "true",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
    }


def find_esphome(executable: str) -> Path:
    """Return the path of ESPHome, of the one on PATH for an empty string; blocking.

    Raises `EsphomeMissingError`.
    """
    found = None
    # There is no path for "~" and the name of an unknown user.
    with suppress(RuntimeError):
        found = shutil.which(Path(executable).expanduser() if executable else "esphome")
    if found is None:
        place = executable or "the search path"
        raise EsphomeMissingError(f"There is no ESPHome executable at {place}.")
    return Path(found)


async def esphome_version(executable: Path, environment: Mapping[str, str]) -> str:
    """Return the version that an executable tells; raise `EsphomeFailedError`."""
    answer = bytearray()

    async def _on_output(data: bytes) -> None:
        answer.extend(data[: _ANSWER_BYTES - len(answer)])

    process = Process(
        Command(
            argv=(str(executable), "version"),
            cwd=executable.parent,
            environment=environment,
            token=secrets.token_hex(16),
        ),
        Limits(total=VERSION_SECONDS),
    )
    try:
        ending, exit_code = await process.run(_on_output)
    except OSError as err:
        raise EsphomeFailedError(f"{executable} cannot be started: {err}.") from err
    if ending is not Ending.EXITED:
        raise EsphomeFailedError(
            f"{executable} did not answer within {VERSION_SECONDS} seconds."
        )
    match = _VERSION.search(answer.decode("utf-8", "replace"))
    if exit_code or match is None:
        raise EsphomeFailedError(f"{executable} did not answer as ESPHome does.")
    return match[1]


def compile_slots() -> int:
    """Return how many compiles this host can run side by side.

    Two where there is more than one core: a compile is on one core while it reads its
    configuration, generates code and links. More on a large host, none without memory.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = ask_cores()
    return max(1, min(max(2, cores // 4), cores, memory // _COMPILE_BYTES, 4))


def limit_compilers(environment: Mapping[str, str], compilers: int) -> dict[str, str]:
    """Return the environment of a compile that starts so many compilers at a time.

    Without a limit it starts as many as there are cores. What the user has set is kept.
    """
    return {COMPILERS: str(compilers), **environment}
