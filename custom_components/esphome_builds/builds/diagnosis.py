"""Says why a run of ESPHome failed: its output and exit code become one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
import re
from signal import SIGKILL, Signals
from typing import Final, Self

from .failures import NEEDLES, NETWORK, PLAIN, RULES, Rank
from .models import Cause, Job, JobKind, JobStatus

DOING: Final = {
    JobKind.CLEAN: "cleaning",
    JobKind.COMPILE: "compiling",
    JobKind.UPLOAD: "uploading",
    JobKind.VALIDATE: "checking",
}
# What a shell says when a program cannot be run, or is not there.
EXIT_NOT_STARTED: Final = (126, 127)
# A shell adds this to the signal that ended its child.
EXIT_SIGNAL: Final = 128
# With these for an address ESPHome looks for the device itself.
KEYWORDS: Final = frozenset({"MQTT", "MQTTIP", "OTA", "SERIAL"})
# No text of interest is longer; a hostile line may be.
MAX_LINE: Final = 2000
MAX_MESSAGE: Final = 300
MISSING: Final = "No module named 'esphome'"

_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
# ESPHome prints the validator's own words in this color (its `AnsiFore.BOLD_RED`).
_RED = "\x1b[1;31m"

_ADDRESS = re.compile(
    r"^(?:INFO Connecting to |WARNING Failed to upload to \[')"
    r"(?P<address>[^\s']{1,200})"
)
_CONFIG_ERROR = re.compile(r"^ERROR Error while reading config: (?P<text>.*)")
_HEADER = re.compile(r"^[\w.]+:(?: None| \[source .*\])?$")
_IN = re.compile(r"^In: .+ in (?P<file>.+) (?P<line>\d{1,9}):\d{1,9}$")
_LAST_ERROR = re.compile(
    r"^(?:ERROR:? |Error: |[\w.]{0,200}(?:Error|Exception): )(?P<text>.+)"
)
_MARK = re.compile(r'^\s+in "(?P<file>[^"]+)", line (?P<line>\d{1,9}), column \d{1,9}')
_NETWORK_HOST = re.compile(
    r"(?:host='|resolve host: |https?://(?:[^/\s@]{1,200}@)?)(?P<host>[\w.-]{0,200}\w)"
)
# A bar is drawn when bytes are sent, which is all that an upload over HTTP says of it.
_REACHED: Final = ("INFO Connected to ", "Uploading: ")
_READING: Final = "INFO Reading configuration "
_SENTENCE_END = re.compile(r"[.!?]+ +([A-Z](?=[a-z' ]))?")
_STRAY_END = re.compile(r"(?:^|(?<= ))[.!?]+ +")
_SOURCE = re.compile(r"\[source (?P<file>[^\]]+):(?P<line>\d{1,9})\]")
_UNREADABLE = re.compile(
    r"Error reading file (?P<file>[^:]+): \[Errno \d+\] (?P<text>[^:]+)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How a run ended; `message` is one plain sentence.

    `unreached` is whether an upload certainly never had a connection to its device.
    """

    status: JobStatus
    cause: Cause | None
    message: str | None
    unreached: bool = False


INTERNAL_ERROR: Final = Verdict(
    status=JobStatus.FAILED,
    cause=Cause.UNKNOWN,
    message="ESPHome Builds had an internal error.",
)


def stopped(cause: Cause) -> Verdict:
    """Return the verdict for a job that was ended from outside."""
    interrupted = cause is Cause.HOME_ASSISTANT_STOPPED
    return Verdict(
        status=JobStatus.INTERRUPTED if interrupted else JobStatus.CANCELLED,
        cause=cause,
        message=_STOPPED[cause],
    )


@dataclass(frozen=True, slots=True)
class _Finding:
    """What explains a failure: a sentence as in a rule, and what fills its names."""

    cause: Cause
    sentence: str
    values: dict[str, str] = field(default_factory=dict)


_KILLED: Final = _Finding(
    Cause.OUT_OF_MEMORY,
    "ESPHome was killed while {doing} {configuration}, most likely because the host "
    "ran out of memory.",
)
_MISSING: Final = _Finding(
    Cause.ESPHOME_MISSING, "ESPHome is not installed where this builder looks for it."
)
_SILENT: Final = "ESPHome ended with exit code {exit_code} and did not say why."
_SPOKE: Final = "ESPHome ended with exit code {exit_code}: {text}."
_STOPPED: Final = {
    Cause.CANCELLED_BY_USER: "The job was canceled.",
    Cause.HOME_ASSISTANT_STOPPED: "Home Assistant stopped while this job was running.",
    Cause.SUPERSEDED: "The job was replaced by a newer one.",
}
_UNREACHED: Final = _Finding(
    Cause.DOWNLOAD_FAILED, "A download for {configuration} failed: {network}."
)
_UNSTARTED: Final = _Finding(
    Cause.ESPHOME_MISSING, "The program that should be ESPHome could not be started."
)


def _clean(line: str) -> str:
    """Return the beginning of a line as a person sees it, with plain quotes."""
    line = line[:MAX_LINE]
    if "\x1b" in line:
        line = _CODES.sub("", line)
    if not line.isascii():
        line = line.translate(_QUOTES)
    return line.rstrip().replace("`", "'")


def sentence(text: str) -> str:
    """Return one sentence of printable characters that ends with a period."""
    text = "".join(char if char.isprintable() else " " for char in text)
    text = " ".join(text.split()).rstrip(".!?,;: ")
    text = _STRAY_END.sub("", text)
    text = _SENTENCE_END.sub(lambda end: f"; {(end[1] or '').lower()}", text)
    if len(text) >= MAX_MESSAGE:
        text = text[: MAX_MESSAGE - 2].rstrip(".!?,;: ") + "…"
    return f"{text}."


def _plain(text: str) -> str:
    """Return a validator's words as a layman would put them."""
    for pattern, replacement in PLAIN:
        if pattern.match(text):
            return pattern.sub(replacement, text).replace("], [", "' or '")
    return text


def _signal(number: int) -> str | None:
    """Return the name of a signal, or None if there is none of that number."""
    try:
        return Signals(number).name
    except ValueError:
        return None


def _crashed(signal: str) -> _Finding:
    """Return a finding for a run that a signal ended."""
    return _Finding(
        Cause.CRASHED,
        "ESPHome crashed while {doing} {configuration} (signal {signal}).",
        {"signal": signal},
    )


def _killed(exit_code: int) -> _Finding | None:
    """Return a finding if a signal ended the run."""
    if exit_code in {-SIGKILL, EXIT_SIGNAL + SIGKILL}:
        return _KILLED
    if exit_code < 0:
        return _crashed(_signal(-exit_code) or str(-exit_code))
    return None


def _by_exit_code(exit_code: int) -> _Finding | None:
    """Return a finding if the exit code has a meaning for every program."""
    if exit_code in EXIT_NOT_STARTED:
        return _UNSTARTED
    if name := _signal(exit_code - EXIT_SIGNAL):
        return _crashed(name)
    return None


class _Network:
    """Remembers the first trouble with the network."""

    def __init__(self) -> None:
        """Start without trouble."""
        self._host: str | None = None
        self._trouble: str | None = None

    def __bool__(self) -> bool:
        """Return whether there was trouble."""
        return self._trouble is not None

    def __str__(self) -> str:
        """Return what went wrong, as a part of a sentence."""
        trouble = self._trouble or "{host} cannot be reached"
        return trouble.format(host=self._host or "the server")

    def take(self, line: str) -> None:
        """Look at a line; one that names the server is better than one without."""
        if self._host is not None:
            return
        for needle, trouble in NETWORK:
            if needle in line:
                found = _NETWORK_HOST.search(line)
                self._host = found["host"] if found else None
                self._trouble = trouble
                return


class _ConfigErrors:
    """Reads what `esphome` prints below "Failed config": the first error, its place."""

    def __init__(self) -> None:
        """Start before the first line."""
        self.place: re.Match[str] | None = None
        self.text: str | None = None
        self.done = False

    def take(self, line: str) -> None:
        """Look at a line as it was printed: the color tells the errors apart."""
        text = _clean(line)
        if self.text is not None:
            # An error without a header has its place below it.
            self.place = _IN.match(text)
            self.done = self.place is not None or not text
            return
        self.place = _SOURCE.search(text) or self.place
        if line.lstrip(" ").startswith(_RED) and not _HEADER.match(text):
            self.text = text.strip()
            self.done = self.place is not None


class _YamlError:
    """Reads what `esphome` prints below "Error while reading config"."""

    def __init__(self, text: str) -> None:
        """Start with the rest of the first line."""
        self.place: re.Match[str] | None = None
        self.text: str | None = None if text == "Invalid YAML syntax:" else text
        self.done = False
        self._last = ""

    def take(self, line: str) -> None:
        """Look at a line: a problem stands above its place, and the last one counts."""
        text = _clean(line)
        if place := _MARK.match(text):
            self.place = place
            self.text = self._last
        elif text.startswith("NOTE:"):
            self.done = True
        elif text:
            self._last = text
            self.text = self.text or text


class Diagnosis:
    """Listens to one run of ESPHome and says at its end why it failed, if it did."""

    def __init__(
        self, *, kind: JobKind, configuration: str, address: str | None
    ) -> None:
        """Listen to a run for a configuration; `address` is where an upload goes."""
        self._address = None if address in KEYWORDS else address
        self._best: _Finding | None = None
        self._config: _ConfigErrors | _YamlError | None = None
        self._configuration = configuration
        self._folder = ""
        self._kind = kind
        self._last_error: str | None = None
        self._missing = False
        self._needles = (*NEEDLES[kind], _READING)
        self._network = _Network()
        self._rank = Rank.NONE
        self._reached = False
        self._rules = RULES[kind]

    @classmethod
    def of(cls, job: Job) -> Self:
        """Listen to a run of a job."""
        return cls(kind=job.kind, configuration=job.configuration, address=job.address)

    def feed(self, lines: Sequence[str]) -> None:
        """Take the next lines of the output."""
        # Most of a build are status lines of ninja, "[23/51] CXX obj/src/main.cpp.o".
        lines = [line for line in lines if line[:1] != "[" or "/" not in line[:9]]
        if self._config is None or self._config.done:
            text = "\n".join(lines)
            if not any(needle in text for needle in self._needles):
                return
        for line in lines:
            self._take(line)

    def verdict(self, exit_code: int) -> Verdict:
        """Say how the run ended; a negative exit code is the signal that ended it."""
        if exit_code == 0 and not self._missing:
            return Verdict(status=JobStatus.COMPLETED, cause=None, message=None)
        finding = self._explain(exit_code)
        message = finding.sentence.format_map(self._names() | finding.values)
        offline = finding.cause is Cause.DEVICE_OFFLINE
        return Verdict(
            status=JobStatus.FAILED,
            cause=finding.cause,
            message=sentence(message),
            unreached=offline and not self._reached,
        )

    def _take(self, line: str) -> None:
        """Look at one line."""
        if self._config is not None and not self._config.done:
            self._config.take(line)
        elif not any(needle in line for needle in self._needles):
            return
        # Decided here and never taken back: later the line may be gone from the log.
        self._missing = self._missing or MISSING in line
        text = _clean(line)
        self._judge(text)
        self._note(text)
        if match := _LAST_ERROR.match(text):
            self._last_error = match["text"]

    def _judge(self, text: str) -> None:
        """Keep what the first rule that knows a line makes of it, if that says more."""
        for rule in self._rules:
            if rule.needle in text and (match := rule.find(text)):
                values = match.groupdict()
                if "file" in values:
                    values["where"] = self._where(match)
                self._best = _Finding(rule.cause, rule.sentence, values)
                self._rank = rule.rank
                self._rules = tuple(
                    other for other in self._rules if other.rank > self._rank
                )
                return

    def _note(self, text: str) -> None:
        """Keep what a line tells about the run."""
        if self._config is None:
            if text == "Failed config":
                self._config = _ConfigErrors()
            elif match := _CONFIG_ERROR.match(text):
                self._config = _YamlError(match["text"])
        if text.startswith(_READING):
            self._folder = text.removeprefix(_READING).rpartition("/")[0]
            self._needles = NEEDLES[self._kind]
        if self._kind is not JobKind.UPLOAD:
            self._network.take(text)
            return
        self._reached = self._reached or text.startswith(_REACHED)
        if self._address is None and (match := _ADDRESS.match(text)):
            self._address = match["address"]

    def _explain(self, exit_code: int) -> _Finding:
        """Return what explains the failure best."""
        if self._missing:
            return _MISSING
        if self._best is not None and self._rank is Rank.HOST:
            return self._best
        return (
            _killed(exit_code)
            or self._heard()
            or _by_exit_code(exit_code)
            or self._unexplained(exit_code)
        )

    def _heard(self) -> _Finding | None:
        """Return what the output said, or None if it did not say anything known."""
        if self._config is not None and self._rank <= Rank.GENERAL:
            return self._misconfigured(self._config)
        if self._network and self._rank <= Rank.GENERAL:
            return _UNREACHED
        return self._best

    def _misconfigured(self, config: _ConfigErrors | _YamlError) -> _Finding:
        """Return what is wrong in the configuration, and where."""
        where = self._where(config.place) if config.place else self._configuration
        text = config.text or "this configuration is not valid"
        network = _Network()
        network.take(text)
        if network:
            return _Finding(
                Cause.DOWNLOAD_FAILED,
                "A download for {where} failed: {network}.",
                {"where": where, "network": str(network)},
            )
        if unreadable := _UNREADABLE.search(text):
            text = f"{self._short(unreadable['file'])} cannot be read"
            text += f" ({unreadable['text'].lower()})"
        elif isinstance(config, _YamlError) and text[:1].islower():
            text = f"this is not valid YAML ({text})"
        return _Finding(
            Cause.INVALID_CONFIG,
            "{where}: {text}.",
            {"where": where, "text": _plain(text)},
        )

    def _unexplained(self, exit_code: int) -> _Finding:
        """Return a finding that has no more than the last error in the output."""
        return _Finding(
            Cause.UNKNOWN,
            _SILENT if self._last_error is None else _SPOKE,
            {"exit_code": str(exit_code), "text": self._last_error or ""},
        )

    def _names(self) -> dict[str, str]:
        """Return what the names that any sentence may use stand for."""
        device = f"device of {self._configuration}"
        if self._address:
            device = f"device at {self._address}"
        return {
            "address": self._address or "of that name",
            "configuration": self._configuration,
            "device": f"the {device}",
            "Device": f"The {device}",
            "doing": DOING[self._kind],
            "network": str(self._network),
        }

    def _where(self, place: re.Match[str]) -> str:
        """Return file and line as a person knows them."""
        return f"{self._short(place['file'])}, line {place['line']}"

    def _short(self, path: str) -> str:
        """Return how a person knows a file: below the folder, or its last two parts."""
        if self._folder and path.startswith(f"{self._folder}/"):
            return path.removeprefix(f"{self._folder}/")
        if PurePosixPath(path).name == self._configuration:
            return self._configuration
        _, source, below = path.rpartition("/src/")
        if source:
            return below
        return "/".join(path.split("/")[-2:]) if path.startswith("/") else path
