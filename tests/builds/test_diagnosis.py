"""A run that failed has the right cause, and a sentence that a layman understands."""

from pathlib import Path
import tracemalloc

from hypothesis import example, given, strategies as st
import pytest
import yaml

from custom_components.esphome_builds.builds.diagnosis import (
    MAX_MESSAGE,
    Diagnosis,
    Verdict,
)
from custom_components.esphome_builds.builds.failures import RULES
from custom_components.esphome_builds.builds.models import Cause, JobKind, JobStatus

from .recorded import replay

COMPILED = ("compile_no_change", "compile_ok")
COMPLETED = ("clean_ok", "upload_ok", "validate_ok", *COMPILED)

FAILED: dict[str, dict[str, str]] = yaml.safe_load(
    (Path(__file__).parent / "verdicts.yaml").read_text()
)

KILLED = (
    "ESPHome was killed while compiling kitchen.yaml, most likely because the host ran "
    "out of memory."
)
MISSING = "ModuleNotFoundError: No module named 'esphome'"
RED = "\x1b[1;31m"
RESET = "\x1b[0m"


def diagnose(
    *lines: str,
    kind: JobKind = JobKind.COMPILE,
    exit_code: int = 1,
    address: str | None = None,
) -> Verdict:
    """Return the verdict on a run of kitchen.yaml that printed these lines."""
    diagnosis = Diagnosis(kind=kind, configuration="kitchen.yaml", address=address)
    diagnosis.feed(lines)
    return diagnosis.verdict(exit_code)


def listen(name: str, size: int) -> Diagnosis:
    """Return a diagnosis that heard a recorded output, read in pieces of a size."""
    kind = JobKind(name.partition("_")[0])
    diagnosis = Diagnosis(kind=kind, configuration="kitchen.yaml", address=None)
    for lines, _ in replay(name, size):
        diagnosis.feed(lines)
    return diagnosis


@pytest.mark.parametrize("size", [7, 64 * 1024])
@pytest.mark.parametrize("name", FAILED)
def test_failed_runs(name: str, size: int) -> None:
    """What the real ESPHome prints is understood, in whatever pieces it comes."""
    verdict = listen(name, size).verdict(2 if name.startswith("validate") else 1)
    assert verdict.status is JobStatus.FAILED
    assert {"cause": verdict.cause, "message": verdict.message} == FAILED[name]


@pytest.mark.parametrize("name", [*COMPLETED, *FAILED])
def test_success_is_the_exit_code(name: str) -> None:
    """Whatever was printed, a run that ended well is completed."""
    assert listen(name, 64 * 1024).verdict(0) == Verdict(
        status=JobStatus.COMPLETED, cause=None, message=None
    )


def test_success_with_an_import_error() -> None:
    """A flash that succeeded is not called failed for a word in some line."""
    verdict = diagnose(
        "ImportError: cannot import name 'x'",
        "INFO OTA successful",
        kind=JobKind.UPLOAD,
        exit_code=0,
    )
    assert verdict.status is JobStatus.COMPLETED


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("exit_code", [0, 1, -9])
@pytest.mark.parametrize(
    "line",
    [
        MISSING,
        "No module named 'esphome'",
        f"{RED}ModuleNotFoundError{RESET}: {RED}No module named 'esphome'{RESET}",
        "[12:30:59] python: No module named 'esphome'",
    ],
)
def test_esphome_missing(line: str, exit_code: int, kind: JobKind) -> None:
    """Python's own words for a missing ESPHome decide, when they come, for ever."""
    diagnosis = Diagnosis(kind=kind, configuration="kitchen.yaml", address=None)
    diagnosis.feed([line])
    diagnosis.feed(["OSError: [Errno 28] No space left on device", "INFO All is well"])
    verdict = diagnosis.verdict(exit_code)
    assert verdict == Verdict(
        status=JobStatus.FAILED,
        cause=Cause.ESPHOME_MISSING,
        message="ESPHome is not installed where this builder looks for it.",
    )


@pytest.mark.parametrize(
    "line",
    [
        "ModuleNotFoundError: No module named 'esphome_dashboard'",
        "INFO Unable to import component x: No module named 'esphome.components.x'",
        "/usr/bin/python3: No module named esphome",
        "No module named 'ESPHome'",
    ],
)
def test_esphome_not_missing(line: str) -> None:
    """Other modules, and other words, say nothing about a run that ended well."""
    assert diagnose(line, exit_code=0).status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    ("exit_code", "cause", "message"),
    [
        (
            -9,
            Cause.OUT_OF_MEMORY,
            KILLED,
        ),
        (
            137,
            Cause.OUT_OF_MEMORY,
            KILLED,
        ),
        (
            -11,
            Cause.CRASHED,
            "ESPHome crashed while compiling kitchen.yaml (signal SIGSEGV).",
        ),
        (
            139,
            Cause.CRASHED,
            "ESPHome crashed while compiling kitchen.yaml (signal SIGSEGV).",
        ),
        (
            -99,
            Cause.CRASHED,
            "ESPHome crashed while compiling kitchen.yaml (signal 99).",
        ),
        (
            126,
            Cause.ESPHOME_MISSING,
            "The program that should be ESPHome could not be started.",
        ),
        (
            127,
            Cause.ESPHOME_MISSING,
            "The program that should be ESPHome could not be started.",
        ),
        (1, Cause.UNKNOWN, "ESPHome ended with exit code 1 and did not say why."),
        (255, Cause.UNKNOWN, "ESPHome ended with exit code 255 and did not say why."),
    ],
)
def test_exit_code(exit_code: int, cause: Cause, message: str) -> None:
    """Where the output says nothing, the exit code has to."""
    verdict = diagnose(
        "INFO Reading configuration kitchen.yaml...", exit_code=exit_code
    )
    assert (verdict.status, verdict.cause) == (JobStatus.FAILED, cause)
    assert verdict.message == message


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["ERROR One", "ERROR Something else."], "Something else"),
        (["Error: Unknown board ID 'x'", "and so on"], "Unknown board ID 'x'"),
        (
            ["Traceback (most recent call last):", "esphome.core.OddError: It's odd"],
            "It's odd",
        ),
        (["ERROR Two things. Both are odd!"], "Two things; both are odd"),
    ],
)
def test_last_error(lines: list[str], text: str) -> None:
    """An error that nobody knows is told in its own words, the last one first."""
    verdict = diagnose(*lines, exit_code=3)
    assert verdict.cause is Cause.UNKNOWN
    assert verdict.message == f"ESPHome ended with exit code 3: {text}."


@pytest.mark.parametrize(
    ("lines", "exit_code", "cause"),
    [
        # What the host lacks is behind all else, and even behind a kill.
        (
            ["a.cpp:1:2: error: x", "cc1plus: error: y: No space left on device"],
            1,
            Cause.DISK_FULL,
        ),
        (["ld: final link failed: No space left on device"], -9, Cause.DISK_FULL),
        # Of equals the first.
        (
            [
                "virtual memory exhausted: Cannot allocate memory",
                "No space left on device",
            ],
            1,
            Cause.OUT_OF_MEMORY,
        ),
        # A download that succeeded in the end is not why the compiler failed.
        (
            [
                "WARNING x failed: host='a.example': Connection refused. Retrying",
                "a.c:1: error: x",
            ],
            1,
            Cause.COMPILE_ERROR,
        ),
        # But it may be why no more is known.
        (
            [
                "WARNING x failed: host='a.example': Connection refused",
                "ERROR Host build failed",
            ],
            1,
            Cause.DOWNLOAD_FAILED,
        ),
        # A signal ended it, whatever else was wrong.
        (["a.cpp:1:2: error: x"], -11, Cause.CRASHED),
        # A shell's child did not have to be ESPHome itself.
        (["a.cpp:1:2: error: x"], 139, Cause.COMPILE_ERROR),
    ],
)
def test_which_error(lines: list[str], exit_code: int, cause: Cause) -> None:
    """Of several errors the one counts that explains most."""
    assert diagnose(*lines, exit_code=exit_code).cause is cause


def test_first_error() -> None:
    """The first error is told, of the second often is a consequence."""
    verdict = diagnose("a.cpp:1:2: error: first", "b.cpp:3:4: error: second")
    assert verdict.message == (
        "The C++ code for kitchen.yaml has an error in a.cpp, line 1: first."
    )


def test_error_in_yaml_after_error_in_cpp() -> None:
    """A line of the user's own file says more than an earlier one of a library."""
    verdict = diagnose("src/a.h:1:2: error: first", "kitchen.yaml:3:4: error: second")
    assert verdict.message == "kitchen.yaml, line 3: second."


def test_known_server_over_unknown() -> None:
    """The server is named, though the first trouble did not name it."""
    verdict = diagnose(
        "OSError: Network is unreachable",
        "ERROR Failed to download https://user:pass@files.example.org/a: timed out",
    )
    assert verdict.message == (
        "A download for kitchen.yaml failed: files.example.org did not answer in time."
    )


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/config/esphome/kitchen.yaml", "kitchen.yaml"),
        ("/config/esphome/common/all.yaml", "common/all.yaml"),
        ("/elsewhere/kitchen.yaml", "kitchen.yaml"),
        ("/data/packages/8f3a/common/all.yaml", "common/all.yaml"),
        ("/data/build/kitchen/src/esphome/core/a.h", "esphome/core/a.h"),
        ("/usr/include/c++/12/bits/stl_vector.h", "bits/stl_vector.h"),
        ("lib/a/b/c.h", "lib/a/b/c.h"),
    ],
)
def test_files(path: str, shown: str) -> None:
    """A file is named as a person knows it."""
    verdict = diagnose(
        "\x1b[32mINFO Reading configuration /config/esphome/kitchen.yaml...\x1b[0m",
        f"\x1b[01m\x1b[K{path}:7:14:\x1b[m \x1b[01;31merror: \x1b[mwrong",
    )
    assert verdict.message is not None
    assert f"{shown}, line 7: wrong." in verdict.message
    assert "/config" not in verdict.message


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("192.168.1.20", "The device at 192.168.1.20"),
        ("kitchen.local", "The device at kitchen.local"),
        ("FE80::1", "The device at FE80::1"),
        ("OTA", "The device at 10.0.0.5"),
        (None, "The device at 10.0.0.5"),
    ],
)
def test_device_by_address(address: str | None, named: str) -> None:
    """The device is named as it was asked for, or else as ESPHome found it."""
    verdict = diagnose(
        "INFO Connecting to 10.0.0.5 port 3232...",
        "ERROR Upload failed after 3 attempts: connecting to 10.0.0.5 failed: timeout",
        kind=JobKind.UPLOAD,
        address=address,
    )
    assert verdict.cause is Cause.DEVICE_OFFLINE
    assert verdict.message == (
        f"{named} did not answer; it may be switched off or out of reach."
    )


def test_device_without_address() -> None:
    """Without an address the device is known by its file."""
    verdict = diagnose("ERROR ESP requests password", kind=JobKind.UPLOAD)
    assert verdict.message is not None
    assert verdict.message.startswith("The device of kitchen.yaml asks for")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # Nothing more came, or not in color.
        (["Failed config"], "kitchen.yaml: this configuration is not valid."),
        (
            ["Failed config", "", "wifi: [source kitchen.yaml:3]", "  bad"],
            "kitchen.yaml, line 3: this configuration is not valid.",
        ),
        # A block whose place ESPHome does not know.
        (
            [
                "Failed config",
                "",
                f"{RED}wifi:{RESET} None",
                f"  {RED}It's bad.{RESET}",
            ],
            "kitchen.yaml: It's bad.",
        ),
        # The place of an error is the innermost one.
        (
            [
                "Failed config",
                "",
                f"{RED}Bad{RESET}",
                "In: wifi->ap in common/a.yaml 3:5",
                "In: packages in kitchen.yaml 1:1",
            ],
            "common/a.yaml, line 3: Bad.",
        ),
        # Of two errors in a block each has its place.
        (
            [
                "Failed config",
                f"{RED}sensor.a:{RESET} \x1b[36m[source kitchen.yaml:3]{RESET}",
                f"  \x1b[31m- {RESET}\x1b[36m[source kitchen.yaml:5]{RESET}",
                f"    {RED}First.{RESET}",
                f"    {RED}Second.{RESET}",
            ],
            "kitchen.yaml, line 5: First.",
        ),
        (
            ["Failed config", f"{RED}'id' is a required option for [api].{RESET}", ""],
            "kitchen.yaml: 'api' needs the option 'id'.",
        ),
        (
            [
                "Failed config",
                f"{RED}[a] is an invalid option for [b]. Did you mean [c], [d]?{RESET}",
            ],
            (
                "kitchen.yaml: 'a' is not a known option of 'b', "
                "perhaps 'c' or 'd' is meant."
            ),
        ),
        (
            [
                "Failed config",
                f"{RED}[a] is an invalid option for [b]. Please check it.{RESET}",
            ],
            "kitchen.yaml: 'a' is not a known option of 'b'.",
        ),
        (
            ["ERROR Error while reading config: Something odd."],
            "kitchen.yaml: Something odd.",
        ),
    ],
)
def test_configuration_errors(lines: list[str], message: str) -> None:
    """What ESPHome says of a configuration is told, with what it says of the place."""
    verdict = diagnose(*lines, kind=JobKind.VALIDATE, exit_code=2)
    assert (verdict.cause, verdict.message) == (Cause.INVALID_CONFIG, message)


def test_program_that_a_configuration_needs() -> None:
    """A missing program is not the fault of the file that needs it."""
    verdict = diagnose(
        "Failed config",
        f"{RED}external_components:{RESET} [source kitchen.yaml:22]",
        f"    {RED}git is not installed. See https://git.example for more.{RESET}",
        kind=JobKind.VALIDATE,
        exit_code=2,
    )
    assert verdict.cause is Cause.TOOLCHAIN_MISSING


def test_lines_of_ninja_are_passed_over() -> None:
    """What ninja is about to build is not an error, whatever its name."""
    verdict = diagnose("[1/2] CXX src/error: ERROR not found.cpp.o")
    assert verdict.cause is Cause.UNKNOWN


def check_sentence(message: str | None) -> None:
    """Check that a message is one printable sentence of bounded length."""
    assert message is not None
    assert message.isprintable()
    assert message.endswith(".")
    assert not message.endswith("..")
    assert ". " not in message
    assert len(message) <= MAX_MESSAGE


def test_long_message() -> None:
    """A long text is cut so that one sentence remains."""
    verdict = diagnose(f"a.cpp:1:2: error: {'long words. And ' * 500}")
    check_sentence(verdict.message)
    assert verdict.message is not None
    assert verdict.message.endswith("….")
    assert len(verdict.message) > MAX_MESSAGE - 20


@example(JobKind.CLEAN, "", ". 0")
@example(JobKind.CLEAN, "", "50 %. 0")
@given(
    st.sampled_from(list(RULES)),
    st.lists(
        st.sampled_from(
            [rule.needle for rules in RULES.values() for rule in rules]
            + ["ERROR ", "a.yaml:1:2: error: ", "Failed config", "\x1b[", "{", "{0}"]
            + ["kitchen.yaml", RED, "\x9b", "\u202e", "\udc80", "\0", ". ", "'", "/"]
        )
    ).map("".join),
    st.text(),
)
def test_messages_are_sentences(kind: JobKind, line: str, text: str) -> None:
    """Whatever is printed, a message is one plain sentence."""
    verdict = diagnose(
        f"ERROR {text}",
        "Failed config",
        line + text,
        f"{RED}{text}",
        line,
        kind=kind,
        address=text,
    )
    check_sentence(verdict.message)


@pytest.mark.parametrize("kind", RULES)
def test_hostile_lines(kind: JobKind) -> None:
    """No line of 8 KiB takes more than a moment, whatever is in it."""
    for needle in {rule.needle for rule in RULES[kind]}:
        for piece in (" ", "a", "a.", "/", ":", "1", "'", "\x1b[", "sh: ", "In: in "):
            for line in (
                needle + piece * 4000 + needle,
                "ERROR " + (needle + piece) * 500,
                (piece + needle) * 500,
            ):
                diagnose(f"ERROR {needle}", "Failed config", line, kind=kind)


def test_memory() -> None:
    """A flood of errors is not kept."""
    diagnosis = Diagnosis(
        kind=JobKind.COMPILE, configuration="kitchen.yaml", address=None
    )
    lines = [f"ERROR {number}: error: {'x' * 1000}" for number in range(100)]
    diagnosis.feed(lines)
    tracemalloc.start()
    try:
        for _ in range(20):
            diagnosis.feed([f"{line}!" for line in lines])
        assert tracemalloc.get_traced_memory()[0] < 64 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("lines", "unreached"),
    [
        (("ERROR Upload failed after 3 attempts: connecting to x failed: no",), True),
        (("ERROR All specified devices ['OTA'] could not be resolved. Is it?",), True),
        (("ERROR OTA upload to 10.0.0.5 port 80 failed: no route",), True),
        # One attempt had a connection.
        (
            (
                "INFO Connecting to 10.0.0.5 port 3232...",
                "INFO Connected to 10.0.0.5",
                "ERROR Upload failed after 3 attempts: connecting to x failed: no",
            ),
            False,
        ),
        (
            (
                "Uploading: [===      ] 30% ",
                "ERROR OTA upload to 10.0.0.5 port 80 failed: reset",
            ),
            False,
        ),
        (("ERROR Authentication invalid",), False),
    ],
)
def test_unreached(lines: tuple[str, ...], unreached: bool) -> None:
    """Whether a device may have got something of an upload is known."""
    verdict = diagnose(*lines, kind=JobKind.UPLOAD)
    assert verdict.unreached is unreached
