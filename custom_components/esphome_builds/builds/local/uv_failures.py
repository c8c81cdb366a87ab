"""What uv prints when it fails, and what that means.

The texts are those of uv 0.13 (https://github.com/astral-sh/uv).
"""

from collections.abc import Sequence
from dataclasses import dataclass
import re
from signal import SIGKILL
from typing import Final

from ..diagnosis import EXIT_SIGNAL, MAX_LINE, Verdict, sentence
from ..failures import NETWORK
from ..lines import plain
from ..models import Cause, JobStatus


@dataclass(frozen=True, slots=True)
class _Finding:
    """What explains a failure, and how its lines are known.

    `needle` is in every line that is found. The groups of the pattern fill the names in
    the sentence; so do `esphome` (with its version) and `host`.
    """

    cause: Cause
    sentence: str
    needle: str
    pattern: re.Pattern[str]


def _finding(cause: Cause, text: str, needle: str, pattern: str = "") -> _Finding:
    """Return a finding for lines with the needle, or with the pattern around it."""
    return _Finding(cause, text, needle, re.compile(pattern or re.escape(needle)))


_DAMAGED: Final = (
    "The download of {package} is damaged, so {esphome} was not installed."
)
_DOWNLOAD: Final = "{esphome} could not be downloaded: "
_FULL: Final = "The disk is full, so {esphome} could not be installed."
_NO_ACCESS: Final = "{host} wants other credentials"
_UNREACHED: Final = "{host} cannot be reached, check the internet connection"
_YANKED: Final = "{esphome} was withdrawn by its makers"

_HOST: Final = (
    _finding(
        Cause.DISK_FULL,
        _FULL,
        "No space left on device",
    ),
    _finding(
        Cause.DISK_FULL,
        _FULL,
        "quota exceeded",
    ),
    _finding(
        Cause.OUT_OF_MEMORY,
        "The host ran out of memory while {esphome} was installed.",
        "memory",
        r"Cannot allocate memory|^memory allocation of \d{1,20} bytes failed",
    ),
    _finding(
        Cause.UNKNOWN,
        "The folder for {esphome} cannot be written to ({text}).",
        "(os error",
        r": (?P<text>[\w-]+ (?:denied|file system|not permitted)) \(os error",
    ),
    _finding(
        Cause.TOOLCHAIN_MISSING,
        "Home Assistant's installer, uv, is missing, so {esphome} was not installed.",
        "uv",
        r": No module named '?uv\b|^uv\.[\w.]{0,40}UvNotFound\b",
    ),
)

_PACKAGE: Final = (
    _finding(
        Cause.DOWNLOAD_FAILED,
        _DAMAGED,
        "Hash mismatch",
        r"Hash mismatch for `(?P<package>[^`]{1,200})`",
    ),
    _finding(
        Cause.DOWNLOAD_FAILED,
        _DAMAGED,
        " has an invalid package format",
        r"Because (?P<package>\S{1,200}) has an invalid package format",
    ),
    _finding(
        Cause.ESPHOME_MISSING,
        f"{_YANKED}: {{text}}.",
        "was yanked",
        r"\besphome==\S{1,40} was yanked \(reason: (?P<text>.{1,200}?)\)",
    ),
    _finding(
        Cause.ESPHOME_MISSING,
        f"{_YANKED}.",
        "was yanked",
        r"\besphome==\S{1,40} was yanked\b",
    ),
    _finding(
        Cause.ESPHOME_MISSING,
        "There is no {esphome}.",
        "there is no version of esphome",
    ),
    _finding(
        Cause.ESPHOME_MISSING,
        "{esphome} needs Python {needed}, and Home Assistant runs on {python}.",
        "current Python version",
        (
            r"current Python version \((?P<python>[^)]{1,40})\) does not satisfy "
            r"Python(?P<needed>\S{1,60})"
        ),
    ),
    _finding(
        Cause.ESPHOME_MISSING,
        "{esphome} needs {package}, which is not made for this host.",
        " has no ",
        (
            r"\b(?P<package>[\w.-]{1,100})(?:[=<>]\S{1,60})? has no "
            r"(?:usable wheels|wheels with a matching)"
        ),
    ),
)

# In the order of what says most.
_NETWORK: Final = tuple(
    _finding(Cause.DOWNLOAD_FAILED, f"{_DOWNLOAD}{trouble}.", needle)
    for needle, trouble in (
        ("tunnel error: failed to create", "the proxy cannot be reached"),
        ("tunnel error", "the proxy refuses to connect to {host}"),
        ("407 Proxy", "the proxy wants other credentials"),
        ("401 Unauthorized", _NO_ACCESS),
        ("403 Forbidden", _NO_ACCESS),
        ("invalid peer certificate", "the certificate of {host} is not trusted"),
        ("HTTP status client error", "{host} does not have the file"),
        ("HTTP status server error", "{host} is out of order"),
        ("connection closed before", "{host} broke the connection off"),
        ("end of file before", "{host} broke the connection off"),
        *NETWORK,
        # A C library may put it in other words.
        ("dns error", "{host} cannot be found, check the internet connection"),
        ("error sending request", _UNREACHED),
        ("Failed to fetch", _UNREACHED),
    )
)

# Either may come of trouble with the network, which explains more.
_CONSEQUENCES: Final = (
    _finding(
        Cause.TOOLCHAIN_MISSING,
        "{esphome} needs {package}, which could not be built on this host.",
        "Failed to build",
        r"Failed to build `(?P<package>[^`]{1,200})`",
    ),
    _finding(
        Cause.DOWNLOAD_FAILED,
        f"{_DOWNLOAD}the package index does not have {{package}}, or does not give it "
        "out.",
        " was not found in ",
        r"\b(?P<package>[\w.-]{1,100}) was not found in ",
    ),
)

# The first of these that is anywhere in the output is the explanation.
_FINDINGS: Final = (*_HOST, *_PACKAGE, *_NETWORK, *_CONSEQUENCES)

_ANSWER: Final = re.compile(r"^Version: (?P<version>\S{1,40})$")
_ERROR: Final = re.compile(r"^(?:error|[\w.]{1,100}(?:Error|Exception)): (?P<text>.+)")
_INSTALLED: Final = re.compile(r"^Installed \d{1,6} packages? in ")
_URL: Final = re.compile(r"https?://(?:[^/\s@]{1,200}@)?(?P<host>[\w.-]{0,200}\w)")

_BROKEN: Final = "{esphome} was installed but does not work ({error})."
_CRASHED: Final = "The installation of {esphome} crashed ({error})."
_KILLED: Final = (
    "The installation of {esphome} was killed, most likely because the host ran out of "
    "memory."
)
_UNEXPLAINED: Final = "{esphome} could not be installed ({error})."


class InstallDiagnosis:
    """Listens to all steps of an installation and says why it failed, if it did."""

    def __init__(self, version: str | None = None) -> None:
        """Listen to the installation of a version."""
        self._answer: str | None = None
        self._best = len(_FINDINGS)
        self._error: str | None = None
        self._installed = False
        self._values = {"esphome": f"ESPHome {version}" if version else "ESPHome"}
        self._version = version

    def feed(self, lines: Sequence[str]) -> None:
        """Take the next lines of the output."""
        for line in lines:
            text = plain(line[:MAX_LINE]).rstrip()
            # In spite of what it warns of, uv went on.
            if not text.startswith("warning: "):
                self._note(text)
                self._judge(text)

    def verdict(self, exit_code: int) -> Verdict:
        """Say how it ended, by the exit code of the last step that was begun."""
        if exit_code == 0 and self._answer == self._version:
            return Verdict(status=JobStatus.COMPLETED, cause=None, message=None)
        return self.explain(exit_code)

    def explain(self, exit_code: int) -> Verdict:
        """Say why it failed."""
        cause, text = self._find(exit_code)
        error = self._error or f"exit code {exit_code}"
        names = {"error": error, "host": "the package index", **self._values}
        message = sentence(text.format_map(names))
        return Verdict(status=JobStatus.FAILED, cause=cause, message=message)

    def _note(self, text: str) -> None:
        """Keep what a line tells, whatever comes of it."""
        if match := _ANSWER.match(text):
            self._answer = match["version"]
        elif match := _ERROR.match(text):
            self._error = match["text"]
        elif _INSTALLED.match(text):
            self._installed = True
        if "host" not in self._values and (match := _URL.search(text)):
            self._values["host"] = match["host"]

    def _judge(self, text: str) -> None:
        """Keep the finding that a line is known by, if it is better than the last."""
        for number, finding in enumerate(_FINDINGS[: self._best]):
            if finding.needle in text and (match := finding.pattern.search(text)):
                self._best = number
                self._values |= match.groupdict()
                return

    def _find(self, exit_code: int) -> tuple[Cause, str]:
        """Return the cause and a sentence."""
        if self._best < len(_FINDINGS):
            return _FINDINGS[self._best].cause, _FINDINGS[self._best].sentence
        if exit_code in (-SIGKILL, EXIT_SIGNAL + SIGKILL):
            return Cause.OUT_OF_MEMORY, _KILLED
        if exit_code < 0:
            return Cause.CRASHED, _CRASHED
        if self._installed:
            return Cause.ESPHOME_MISSING, _BROKEN
        return Cause.UNKNOWN, _UNEXPLAINED
