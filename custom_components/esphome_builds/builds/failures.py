"""What ESPHome and the tools it starts print when they fail, and what that means.

The texts are those of ESPHome 2026.10, gcc and ld, CMake, ninja, PlatformIO, ESP-IDF's
installer, git, requests and esptool.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
import re
from typing import Final

from .models import Cause, JobKind


class Rank(IntEnum):
    """How well a line explains a failure; of equal ones the first is kept.

    A place in the user's own YAML says more than one in generated code, and what the
    host lacks is behind whatever else went wrong.
    """

    NONE = 0
    GENERAL = 1
    CAUSE = 2
    PLACE = 3
    HOST = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """A line that explains a failure; `needle` is in every line that is found.

    The groups found fill the names in the sentence; so do `Device` and `device`,
    `configuration`, `address`, `doing`, `network` (what went wrong there), and `where`,
    which is made of the groups `file` and `line`.
    """

    rank: Rank
    cause: Cause
    sentence: str
    needle: str
    find: Callable[[str], re.Match[str] | None]


def _rules(
    rank: Rank, cause: Cause, sentence: str, *texts: tuple[str, str]
) -> tuple[Rule, ...]:
    """Return rules with one meaning, for pairs of needle and pattern.

    A line may be hostile: each pattern is anchored, or begins with fixed text, and what
    it repeats before something else is bounded, so that none needs more than linear
    time for a line of bounded length.
    """
    return tuple(
        Rule(rank, cause, sentence, needle, _finder(pattern))
        for needle, pattern in texts
    )


def _finder(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return what finds a pattern; the search for an anchored one would go on."""
    compiled = re.compile(pattern)
    return compiled.match if pattern.startswith("^") else compiled.search


_NO_PROGRAM = (
    "The program {tool}, which {configuration} needs, is not installed on this host."
)

_HOST = (
    *_rules(
        Rank.HOST,
        Cause.DISK_FULL,
        "The disk is full, so {doing} {configuration} could not go on.",
        ("space left", r"No space left on device"),
    ),
    *_rules(
        Rank.HOST,
        Cause.OUT_OF_MEMORY,
        "The host ran out of memory while {doing} {configuration}; fewer builds at a "
        "time or more memory help.",
        ("Killed", r"Killed signal terminated program|signal 9 \[Killed\]"),
        ("alloc", r"Cannot allocate memory|out of memory allocating|bad_alloc"),
        ("allocation failure", r"PCH allocation failure"),
        ("MemoryError", r"^MemoryError\b"),
    ),
)

_PYTHON = _rules(
    Rank.CAUSE,
    Cause.ESPHOME_MISSING,
    "ESPHome is not installed where this builder looks for it.",
    ("No module named", r": No module named '?esphome(?:\.__main__)?(?:'|;|$)"),
)

_DOWNLOAD = (
    *_rules(
        Rank.CAUSE,
        Cause.DOWNLOAD_FAILED,
        "A download for {configuration} failed: {network}.",
        ("ailed to download", r"^ERROR:? Failed to download"),
        ("Could not download", r"^ERROR Could not download"),
        ("Could not process", r"^VCSBaseException: "),
        (
            "rror:",
            (
                r"^(?:[\w.]{1,200}\.)?(?:HTTPClient|InternetConnection|Connection|HTTP|SSL)"
                r"Error:"
            ),
        ),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.TOOLCHAIN_MISSING,
        _NO_PROGRAM,
        ("git is not", r"(?P<tool>git) is not installed\. See"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.TOOLCHAIN_MISSING,
        "PlatformIO has no package {tool} for this host.",
        (
            "Could not find",
            (
                r"^(?:Unknown|Incompatible)PackageError: Could not find [^']{1,100}"
                r"'(?P<tool>[^']{1,200})'"
            ),
        ),
    ),
    *_rules(
        Rank.GENERAL,
        Cause.TOOLCHAIN_MISSING,
        "The tool chain that {configuration} needs could not be installed.",
        ("rror: ", r"^RuntimeError: (?:ESP-IDF .* installation|Can't create Python)"),
    ),
)

_TOOLS = _rules(
    Rank.CAUSE,
    Cause.TOOLCHAIN_MISSING,
    _NO_PROGRAM,
    ("not found", r"^ERROR (?P<tool>\S{1,200})(?: executable)? not found (?:on|in) "),
    (
        "not found",
        (
            r"^[\w/]{0,100}sh: (?:line )?(?:\d{1,9}: )?(?P<tool>[^\s:]{1,200}): "
            r"(?:command )?not found$"
        ),
    ),
    ("runnable program", r"='(?P<tool>[^']{1,200})' does not name a runnable"),
    ("execvp", r"cannot execute '(?P<tool>[^']{1,200})': execvp"),
    ("rror: [Errno 2]", r"^FileNotFoundError: .*: '(?P<tool>[\w+-]{1,100})'$"),
)

_COMPILER = (
    *_rules(
        Rank.CAUSE,
        Cause.CRASHED,
        "The compiler itself crashed while compiling {configuration}: {text}.",
        ("internal compiler error", r"internal compiler error: (?P<text>.+)"),
    ),
    *_rules(
        Rank.PLACE,
        Cause.COMPILE_ERROR,
        "{where}: {text}.",
        (
            "rror: ",
            (
                r"^(?P<file>[^:]+\.ya?ml):(?P<line>\d{1,9}):(?:\d{1,9}:)? "
                r"(?:fatal )?error: (?P<text>.+)"
            ),
        ),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.COMPILE_ERROR,
        "The C++ code for {configuration} has an error in {where}: {text}.",
        (
            "rror: ",
            (
                r"^(?P<file>[^:]+):(?P<line>\d{1,9}):(?:\d{1,9}:)? "
                r"(?:fatal )?error: (?P<text>.+)"
            ),
        ),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.COMPILE_ERROR,
        "Linking {configuration} failed: {what} '{symbol}'.",
        (
            "undefined reference",
            r"(?P<what>undefined reference to) '(?P<symbol>[^']{1,150})",
        ),
        ("definition of", r"(?P<what>multiple definition of) '(?P<symbol>[^']{1,150})"),
        ("cannot find -l", r"ld: (?P<what>cannot find) (?P<symbol>-l[^\s:]{1,150})"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.COMPILE_ERROR,
        "The firmware of {configuration} is too big for its device: {text}.",
        (
            "overflowed by",
            r"(?P<text>region '[^']{1,100}' overflowed by \d{1,9} bytes)",
        ),
        ("will not fit", r"(?P<text>section '[^']{1,100}' will not fit in region)"),
        ("program size", r"^Error: The (?P<text>program size .+)"),
        ("is too small", r"^Error: (?P<text>app partition is too small)"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.INVALID_CONFIG,
        "{configuration} does not have the name and password of a real Wi-Fi yet.",
        ("placeholder value", r"^ERROR wifi configuration still contains"),
    ),
    *_rules(
        Rank.GENERAL,
        Cause.COMPILE_ERROR,
        "Compiling {configuration} failed: {text}.",
        (
            "rror: ",
            r"^\S{0,300}(?:cc1plus|collect2|g\+\+|gcc): (?:fatal )?error: (?P<text>.+)",
        ),
    ),
    *_rules(
        Rank.GENERAL,
        Cause.COMPILE_ERROR,
        "CMake could not prepare the build of {configuration}, it stopped in {where}.",
        ("CMake Error", r"^CMake Error at (?P<file>[^:]+):(?P<line>\d{1,9})"),
    ),
    *_rules(
        Rank.GENERAL,
        Cause.COMPILE_ERROR,
        "Compiling {configuration} failed; the end of the output says more.",
        ("rror ", r"^\*\*\* \[[^\]]+\] Error \d"),
        ("ailed", r"^ERROR (?:Host build|ninja .*|CMake configure) failed"),
    ),
)

_OFFLINE = (
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_OFFLINE,
        "{Device} did not take the connection; it may be switched off, restarting, or "
        "without over-the-air updates.",
        (
            "Upload failed after",
            r"^ERROR Upload failed after \d+ attempts: connecting to .*n refused",
        ),
        ("OTA upload to", r"^ERROR OTA upload to .* failed: .*Connection refused"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_OFFLINE,
        "{Device} did not answer; it may be switched off or out of reach.",
        (
            "Upload failed after",
            r"^ERROR Upload failed after \d+ attempts: connecting to ",
        ),
        ("OTA upload to", r"^ERROR OTA upload to .* failed: "),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_OFFLINE,
        "{Device} was reached, but the connection broke off at each attempt to upload.",
        ("Upload failed after", r"^ERROR Upload failed after \d+ attempts: "),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_OFFLINE,
        "The address {address} was not found on the network; the device may be "
        "switched off, out of reach, or have another name.",
        (
            "rror resolving IP",
            (
                r"^ERROR Error resolving IP address of \[?'?"
                r"(?P<address>[^'\]\s]{0,200}[^'\]\s.])"
            ),
        ),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_OFFLINE,
        "No address of {device} was found; it may be switched off or out of reach.",
        ("could not be resolved", r"^ERROR All specified devices "),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_OFFLINE,
        "There is no serial port {address}; the device may not be plugged in.",
        ("serial port", r"^ERROR The selected serial port does not exist"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_OFFLINE,
        "The serial port {address} cannot be opened; the device may not be plugged in, "
        "or another program uses the port.",
        (
            "Could not open",
            r"A fatal error occurred: Could not open (?P<address>[^\s,]{1,200}), the",
        ),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_OFFLINE,
        "{Device} did not answer; it may have to be put into its flashing mode first.",
        ("ailed to connect", r"A fatal error occurred: Failed to connect to "),
    ),
)

_AUTHENTICATION = (
    *_rules(
        Rank.CAUSE,
        Cause.AUTHENTICATION_FAILED,
        "{Device} refused the OTA password of {configuration}; it takes the one of the "
        "firmware it runs now.",
        ("Authentication invalid", r"^ERROR .*Authentication invalid"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.AUTHENTICATION_FAILED,
        "{Device} asks for an OTA password, and {configuration} has none.",
        ("requests password", r"^ERROR ESP requests password"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.AUTHENTICATION_FAILED,
        "{Device} refused the web server's user name and password of {configuration}.",
        ("HTTP 401", r"^ERROR Authentication failed \(HTTP 401\)"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.AUTHENTICATION_FAILED,
        "{Device} refused the OTA encryption key of {configuration}.",
        ("key correct", r"^ERROR .*is the OTA encryption key correct\?"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.AUTHENTICATION_FAILED,
        "{Device} takes encrypted updates only, and {configuration} has no OTA "
        "encryption key.",
        ("encrypted OTA", r"^ERROR .*requires an encrypted OTA connection"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.AUTHENTICATION_FAILED,
        "{configuration} wants encrypted updates (OTA), and the firmware that {device} "
        "runs now does not offer them.",
        ("encryption key is", r"^ERROR An OTA encryption key is configured but"),
    ),
)

_REFUSED = (
    *_rules(
        Rank.CAUSE,
        Cause.NOT_VERIFIED,
        "{Device} took the whole firmware but did not confirm it; look whether it "
        "comes back with the new version before uploading again.",
        ("already committed", r"the device may have already committed the update"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.WRONG_DEVICE,
        "{Device} does not have the flash memory that {configuration} asks for; it is "
        "another board.",
        ("wrong board", r"^ERROR .*requested flash size \(wrong board\)"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.WRONG_DEVICE,
        "{configuration} is for the chip {wanted}, but the device has {found}.",
        (
            "This chip is",
            r"This chip is (?P<found>[\w-]{1,50}), not (?P<wanted>[\w-]{1,50})",
        ),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_REFUSED,
        "{Device} has too little flash memory for the firmware of {configuration}.",
        ("enough space", r"^ERROR .*not have enough space"),
        ("is too small", r"^ERROR .*The OTA partition on the ESP is too small"),
        ("too big", r"^ERROR .*Is the binary too big\?"),
        ("will not fit", r"A fatal error occurred: .*will not fit in"),
        ("larger than the", r"A fatal error occurred: .*larger than the available"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.DEVICE_REFUSED,
        "{Device} refused the firmware: {text}.",
        ("ERROR receiving", r"^ERROR receiving [^:]{1,100}: (?P<text>.+)"),
        ("ERROR Unexpected", r"^ERROR (?P<text>Unexpected (?:HTTP|response).+)"),
        ("OTA failure", r"^ERROR Device reported OTA failure: (?P<text>.+)"),
        ("OTA version", r"^ERROR Device (?P<text>uses unsupported OTA version.+)"),
        ("rejected", r"^ERROR Device (?P<text>rejected the noise handshake.+)"),
    ),
)

_UPLOAD = (
    *_rules(
        Rank.CAUSE,
        Cause.PREREQUISITE_FAILED,
        "There is no firmware of {configuration} to upload; compile it first.",
        (
            "rror: [Errno 2]",
            r"^FileNotFoundError: .*/(?:program|firmware[\w.]*|[\w.-]+\.bin)'$",
        ),
        ("compile", r"^ERROR .*(?:compile the configuration|been compiled) first"),
        ("No ESP-IDF build", r"^ERROR No ESP-IDF build found"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.INVALID_CONFIG,
        "{configuration} has no 'ota:' section, without which nothing can be uploaded "
        "over the network.",
        ("ERROR Cannot", r"^ERROR Cannot upload over the network: no 'ota:'"),
        ("ERROR Cannot", r"^ERROR Cannot upload Over the Air as the ota"),
    ),
    *_rules(
        Rank.CAUSE,
        Cause.INVALID_CONFIG,
        "The OTA encryption key of {configuration} is not a valid one.",
        ("encryption", r"^ERROR OTA encryption is configured but no key"),
        ("encryption", r"^ERROR Invalid OTA encryption key"),
    ),
)

# In this order a line is tried, and the first rule that knows it counts.
RULES: Final = {
    JobKind.CLEAN: (*_HOST, *_PYTHON),
    JobKind.COMPILE: (*_HOST, *_PYTHON, *_DOWNLOAD, *_TOOLS, *_COMPILER),
    JobKind.UPLOAD: (
        *_HOST,
        *_PYTHON,
        *_OFFLINE,
        # Before the general refusals: an uncertain end is reported in the same words.
        *_REFUSED[:1],
        *_AUTHENTICATION,
        *_REFUSED[1:],
        *_UPLOAD,
    ),
    JobKind.VALIDATE: (*_HOST, *_PYTHON, *_DOWNLOAD),
}

_OFTEN = (
    "rror",
    "ERROR",
    "ailed",
    "Could not",
    "No module named",
    "alloc",
    "not found",
    "space left",
)

# One of these is in every line that means anything here, and they are rare in a good
# build: whole chunks are searched for them before a line is looked at.
NEEDLES: Final = {
    JobKind.CLEAN: _OFTEN,
    JobKind.COMPILE: (*_OFTEN, "ld: ", "undefined reference"),
    JobKind.UPLOAD: (*_OFTEN, "onnected to ", "onnecting to ", "ploading: "),
    JobKind.VALIDATE: _OFTEN,
}

_UNCONNECTED = "{host} cannot be reached, check the internet connection"
_UNKNOWN = "{host} cannot be found, check the internet connection"

# What is wrong with the network, in the words of requests, urllib, curl and Python.
NETWORK: Final = (
    ("Could not resolve host", _UNKNOWN),
    ("Failed to resolve", _UNKNOWN),
    ("Name or service not known", _UNKNOWN),
    ("Temporary failure in name", _UNKNOWN),
    ("Connection refused", "{host} refused the connection"),
    ("Connection reset", "{host} broke the connection off"),
    ("timed out", "{host} did not answer in time"),
    ("Network is unreachable", _UNCONNECTED),
    ("No route to host", _UNCONNECTED),
    ("CERTIFICATE_VERIFY_FAILED", "the certificate of {host} is not trusted"),
    (" Client Error", "{host} does not have the file"),
    (" Server Error", "{host} is out of order"),
    ("Max retries exceeded", _UNCONNECTED),
)

# The validator's words, and how a layman would put them.
PLAIN: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (
            r"^\[(.+?)\] is an invalid option for \[(.+?)\]\. Did you mean \[(.+)\]\?$",
            r"'\1' is not a known option of '\2', perhaps '\3' is meant",
        ),
        (
            r"^\[(.+?)\] is an invalid option for \[(.+?)\]\..*",
            r"'\1' is not a known option of '\2'",
        ),
        (
            r"^'(.+)' is a required option for \[(.+?)\]\.$",
            r"'\2' needs the option '\1'",
        ),
        (r"^Component not found: (.+?)\.$", r"there is no component '\1'"),
        (r"^Platform not found: '(.+)'\.?$", r"there is no platform '\1'"),
        (r"^Secret '(.+)' not defined$", r"the secret '\1' is not in secrets.yaml"),
        (r'^Duplicate key "(.+)"$', r"'\1' is there twice"),
    )
)
