"""What the tools print when they fail is known, each text in the tools' own words."""

from typing import Final

import pytest

from custom_components.esphome_builds.builds.diagnosis import Diagnosis, Verdict
from custom_components.esphome_builds.builds.failures import NEEDLES, RULES
from custom_components.esphome_builds.builds.models import Cause, JobKind

_FATAL = "ERROR: A fatal error occurred: "

COMPILE: Final = (
    # The host.
    ("tar: a: Cannot write: No space left on device", Cause.DISK_FULL, ""),
    (
        "g++: fatal error: Killed signal terminated program cc1plus",
        Cause.OUT_OF_MEMORY,
        "",
    ),
    (
        "collect2: fatal error: ld terminated with signal 9 [Killed]",
        Cause.OUT_OF_MEMORY,
        "",
    ),
    ("cc1plus: out of memory allocating 65536 bytes", Cause.OUT_OF_MEMORY, ""),
    ("terminate called: std::bad_alloc", Cause.OUT_OF_MEMORY, ""),
    (
        "<command-line>: sorry, unimplemented: PCH allocation failure",
        Cause.OUT_OF_MEMORY,
        "",
    ),
    ("MemoryError", Cause.OUT_OF_MEMORY, ""),
    # Python.
    ("/usr/bin/python3: No module named esphome", Cause.ESPHOME_MISSING, ""),
    (
        "ModuleNotFoundError: No module named 'esphome.__main__'",
        Cause.ESPHOME_MISSING,
        "",
    ),
    # Downloads.
    (
        "ERROR: Failed to download, and retry count has expired",
        Cause.DOWNLOAD_FAILED,
        "the server cannot be reached",
    ),
    (
        "ERROR Could not download from https://a.example/f: 404 Client Error",
        Cause.DOWNLOAD_FAILED,
        "a.example does not have the file",
    ),
    (
        (
            "requests.exceptions.ConnectionError: HTTPSConnectionPool("
            "host='a.example', port=443): Max retries exceeded"
        ),
        Cause.DOWNLOAD_FAILED,
        "a.example cannot be reached",
    ),
    ("HTTPClientError: ", Cause.DOWNLOAD_FAILED, ""),
    (
        "VCSBaseException: VCS: Could not process command ['git', 'clone']",
        Cause.DOWNLOAD_FAILED,
        "",
    ),
    # Tools.
    (
        "ERROR git is not installed. See https://a.example",
        Cause.TOOLCHAIN_MISSING,
        "git",
    ),
    (
        "UnknownPackageError: Could not find the package with 'a/b @ 1' requirements",
        Cause.TOOLCHAIN_MISSING,
        "a/b @ 1",
    ),
    (
        "RuntimeError: ESP-IDF 5.5.6 framework installation failure",
        Cause.TOOLCHAIN_MISSING,
        "The tool chain",
    ),
    ("/bin/sh: 1: g++: not found", Cause.TOOLCHAIN_MISSING, "g++"),
    ("sh: line 1: ninja: command not found", Cause.TOOLCHAIN_MISSING, "ninja"),
    (
        "ERROR cmake executable not found in ESP-IDF environment. Check it",
        Cause.TOOLCHAIN_MISSING,
        "cmake",
    ),
    (
        "ERROR CC='clang' does not name a runnable program",
        Cause.TOOLCHAIN_MISSING,
        "clang",
    ),
    (
        "g++: fatal error: cannot execute 'cc1plus': execvp: No such file",
        Cause.TOOLCHAIN_MISSING,
        "cc1plus",
    ),
    (
        "FileNotFoundError: [Errno 2] No such file or directory: 'xtensa-g++'",
        Cause.TOOLCHAIN_MISSING,
        "xtensa-g++",
    ),
    # The compiler and the linker.
    (
        "a.cpp:1:2: internal compiler error: Segmentation fault",
        Cause.CRASHED,
        "Segmentation fault",
    ),
    ("kitchen.yaml:7:3: error: bad", Cause.COMPILE_ERROR, "kitchen.yaml, line 7: bad"),
    ("src/a.cpp:7: fatal error: bad", Cause.COMPILE_ERROR, "src/a.cpp, line 7: bad"),
    (
        "a.o:(.bss+0x0): ld: multiple definition of `x'; b.o:(.bss+0x0): first here",
        Cause.COMPILE_ERROR,
        "multiple definition of 'x'",
    ),
    (
        "a.cpp:(.text+0x1): undefined reference to `nowhere()'",
        Cause.COMPILE_ERROR,
        "undefined reference to 'nowhere()'",
    ),
    (
        "/usr/bin/ld: cannot find -lfoo: No such file or directory",
        Cause.COMPILE_ERROR,
        "cannot find '-lfoo'",
    ),
    (
        "/opt/ld: region `iram0_0_seg' overflowed by 1234 bytes",
        Cause.COMPILE_ERROR,
        "too big",
    ),
    (
        "/opt/ld: a.elf section `.text' will not fit in region `irom0_0_seg'",
        Cause.COMPILE_ERROR,
        "too big",
    ),
    (
        "Error: The program size (123 bytes) is greater than maximum allowed (9 bytes)",
        Cause.COMPILE_ERROR,
        "program size (123 bytes) is greater than maximum allowed (9 bytes).",
    ),
    (
        "Error: app partition is too small for binary a.bin size 0x1b2340:",
        Cause.COMPILE_ERROR,
        "too big",
    ),
    (
        "xtensa-esp32-elf-g++: error: unrecognized option",
        Cause.COMPILE_ERROR,
        "unrecognized option",
    ),
    (
        "CMake Error at /data/build/kitchen/CMakeLists.txt:12 (project):",
        Cause.COMPILE_ERROR,
        "kitchen/CMakeLists.txt, line 12",
    ),
    ("*** [.pioenvs/kitchen/src/a.o] Error 1", Cause.COMPILE_ERROR, ""),
    ("ERROR ninja all size failed with exit code 1", Cause.COMPILE_ERROR, ""),
    # The configuration.
    (
        "ERROR wifi configuration still contains the dashboard placeholder value 'x'",
        Cause.INVALID_CONFIG,
        "Wi-Fi",
    ),
)

UPLOAD: Final = (
    # Out of reach.
    (
        (
            "ERROR Upload failed after 3 attempts: connecting to 10.0.0.5 failed: "
            "[Errno 111] Connection refused"
        ),
        Cause.DEVICE_OFFLINE,
        "restarting",
    ),
    (
        "ERROR Upload failed after 3 attempts: connecting to 10.0.0.5 failed: timeout",
        Cause.DEVICE_OFFLINE,
        "did not answer",
    ),
    (
        "ERROR Upload failed after 3 attempts: sending data: Broken pipe",
        Cause.DEVICE_OFFLINE,
        "broke off",
    ),
    (
        "ERROR OTA upload to 10.0.0.5 port 80 failed: a, Connection refused",
        Cause.DEVICE_OFFLINE,
        "restarting",
    ),
    (
        "ERROR OTA upload to 10.0.0.5 port 80 failed: no route",
        Cause.DEVICE_OFFLINE,
        "did not answer",
    ),
    (
        "ERROR Error resolving IP address of kitchen.local. Is it connected to WiFi?",
        Cause.DEVICE_OFFLINE,
        "kitchen.local was not found",
    ),
    (
        "ERROR All specified devices ['OTA'] could not be resolved. Is it?",
        Cause.DEVICE_OFFLINE,
        "No address",
    ),
    (
        "ERROR The selected serial port does not exist. To resolve this",
        Cause.DEVICE_OFFLINE,
        "/dev/ttyUSB0",
    ),
    (
        f"{_FATAL}Could not open /dev/ttyUSB1, the port is busy or doesn't exist.",
        Cause.DEVICE_OFFLINE,
        "/dev/ttyUSB1",
    ),
    (
        f"{_FATAL}Failed to connect to ESP32: No serial data received.",
        Cause.DEVICE_OFFLINE,
        "flashing mode",
    ),
    # Not let in.
    (
        "ERROR receiving auth result: Authentication invalid. Is the password correct?",
        Cause.AUTHENTICATION_FAILED,
        "refused the OTA password",
    ),
    (
        "ERROR ESP requests password, but no password given!",
        Cause.AUTHENTICATION_FAILED,
        "has none",
    ),
    (
        "ERROR Authentication failed (HTTP 401). Check the 'web_server'",
        Cause.AUTHENTICATION_FAILED,
        "web server",
    ),
    (
        "ERROR Device rejected the handshake; is the OTA encryption key correct?",
        Cause.AUTHENTICATION_FAILED,
        "encryption key",
    ),
    (
        "ERROR receiving features: The device requires an encrypted OTA connection but",
        Cause.AUTHENTICATION_FAILED,
        "encrypted updates only",
    ),
    (
        "ERROR An OTA encryption key is configured but the device did not offer",
        Cause.AUTHENTICATION_FAILED,
        "does not offer them",
    ),
    # Refused.
    (
        (
            "ERROR receiving update end result: timed out (the device may have already "
            "committed the update and be rebooting)"
        ),
        Cause.NOT_VERIFIED,
        "did not confirm",
    ),
    (
        "ERROR receiving a: ESP does not have the requested flash size (wrong board).",
        Cause.WRONG_DEVICE,
        "another board",
    ),
    (
        f"{_FATAL}This chip is ESP32-S3, not ESP32. Wrong chip argument?",
        Cause.WRONG_DEVICE,
        "for the chip ESP32, but the device has ESP32-S3.",
    ),
    (
        "ERROR receiving a: ESP does not have enough space to store OTA file. Please",
        Cause.DEVICE_REFUSED,
        "too little flash",
    ),
    (
        "ERROR receiving a: The OTA partition on the ESP is too small. ESPHome needs",
        Cause.DEVICE_REFUSED,
        "too little flash",
    ),
    (
        "ERROR receiving a: Couldn't prepare flash. Is the binary too big? Please",
        Cause.DEVICE_REFUSED,
        "too little flash",
    ),
    (
        f"{_FATAL}File a.bin (length 9) at 0x1 will not fit in 8 bytes of flash.",
        Cause.DEVICE_REFUSED,
        "too little flash",
    ),
    (
        f"{_FATAL}Specified size is larger than the available flash size of 4MB.",
        Cause.DEVICE_REFUSED,
        "too little flash",
    ),
    (
        "ERROR receiving version: Invalid magic byte",
        Cause.DEVICE_REFUSED,
        "refused the firmware: Invalid magic byte",
    ),
    (
        "ERROR Unexpected HTTP 500 response from device: no",
        Cause.DEVICE_REFUSED,
        "Unexpected HTTP 500",
    ),
    (
        "ERROR Device reported OTA failure: Update Failed!",
        Cause.DEVICE_REFUSED,
        "Update Failed",
    ),
    (
        "ERROR Device uses unsupported OTA version 3, this ESPHome supports (1, 2)",
        Cause.DEVICE_REFUSED,
        "unsupported OTA version 3",
    ),
    (
        "ERROR Device rejected the noise handshake: busy",
        Cause.DEVICE_REFUSED,
        "busy",
    ),
    # Nothing to upload, or no way to.
    (
        "FileNotFoundError: [Errno 2] No such file or directory: '/a/firmware.ota.bin'",
        Cause.PREREQUISITE_FAILED,
        "compile it first",
    ),
    (
        "ERROR /data/a.bin does not exist; compile the configuration first",
        Cause.PREREQUISITE_FAILED,
        "",
    ),
    (
        "ERROR Firmware ELF file not found. Make sure it has been compiled first.",
        Cause.PREREQUISITE_FAILED,
        "",
    ),
    ("ERROR No ESP-IDF build found in /data", Cause.PREREQUISITE_FAILED, ""),
    (
        "ERROR Cannot upload over the network: no 'ota:' platform is configured. Add",
        Cause.INVALID_CONFIG,
        "no 'ota:' section",
    ),
    (
        "ERROR Cannot upload Over the Air as the ota configuration is not present",
        Cause.INVALID_CONFIG,
        "no 'ota:' section",
    ),
    (
        "ERROR OTA encryption is configured but no key was resolved; set it",
        Cause.INVALID_CONFIG,
        "encryption key",
    ),
    (
        "ERROR Invalid OTA encryption key: too short",
        Cause.INVALID_CONFIG,
        "encryption key",
    ),
)

NETWORK: Final = (
    ("Could not resolve host: a.example", "a.example cannot be found"),
    (
        "https://a.example: [Errno -2] Name or service not known",
        "a.example cannot be found",
    ),
    (
        "https://a.example: Temporary failure in name resolution",
        "a.example cannot be found",
    ),
    ("https://a.example: Failed to resolve 'a.example'", "a.example cannot be found"),
    ("https://a.example: Connection refused", "a.example refused the connection"),
    (
        "https://a.example: Connection reset by peer",
        "a.example broke the connection off",
    ),
    ("https://u:p@a.example/f: Read timed out", "a.example did not answer in time"),
    ("https://a.example: Network is unreachable", "a.example cannot be reached"),
    ("https://a.example: No route to host", "a.example cannot be reached"),
    (
        "https://a.example: CERTIFICATE_VERIFY_FAILED",
        "certificate of a.example is not trusted",
    ),
    (
        "https://a.example: 404 Client Error: Not Found",
        "a.example does not have the file",
    ),
    ("https://a.example: 502 Server Error: Bad Gateway", "a.example is out of order"),
    ("https://a.example: Max retries exceeded", "a.example cannot be reached"),
    ("of unknown sort", "the server cannot be reached"),
)


def diagnose(kind: JobKind, line: str) -> Verdict:
    """Return the verdict on a run that printed this line among others."""
    diagnosis = Diagnosis(
        kind=kind, configuration="kitchen.yaml", address="/dev/ttyUSB0"
    )
    diagnosis.feed(["INFO before", line, "INFO after"])
    return diagnosis.verdict(1)


@pytest.mark.parametrize(
    ("kind", "line", "cause", "text"),
    [
        *((JobKind.COMPILE, *sample) for sample in COMPILE),
        *((JobKind.UPLOAD, *sample) for sample in UPLOAD),
        *((JobKind.CLEAN, *sample) for sample in COMPILE[:1]),
        *((JobKind.VALIDATE, *sample) for sample in COMPILE[:1]),
    ],
)
def test_failures(kind: JobKind, line: str, cause: Cause, text: str) -> None:
    """A line has its cause, and the sentence holds what matters in the line."""
    verdict = diagnose(kind, line)
    assert verdict.cause is cause
    assert verdict.message is not None
    assert text in verdict.message


@pytest.mark.parametrize("samples", [COMPILE, UPLOAD], ids=["compile", "upload"])
def test_every_rule_is_tested(
    samples: tuple[tuple[str, Cause, str], ...], request: pytest.FixtureRequest
) -> None:
    """There is a sample for each rule, and its needle is in the sample."""
    kind = JobKind(request.node.callspec.id)
    shared = set(RULES[JobKind.COMPILE]) & set(RULES[JobKind.UPLOAD])
    for rule in set(RULES[kind]) - (shared if kind is JobKind.UPLOAD else set()):
        found = [
            line
            for line, cause, _ in samples
            if cause is rule.cause and rule.find(line.replace("`", "'"))
        ]
        assert found, rule
        assert any(rule.needle in line.replace("`", "'") for line in found), rule


@pytest.mark.parametrize(
    ("text", "trouble"), NETWORK, ids=[trouble for _, trouble in NETWORK]
)
def test_network(text: str, trouble: str) -> None:
    """What is wrong with the network is told with the server that it is about."""
    verdict = diagnose(JobKind.COMPILE, f"ERROR Failed to download {text}")
    assert verdict.cause is Cause.DOWNLOAD_FAILED
    assert verdict.message is not None
    assert trouble in verdict.message


@pytest.mark.parametrize("kind", RULES)
def test_needles_are_few(kind: JobKind) -> None:
    """A good build is searched for few texts only."""
    assert len(NEEDLES[kind]) <= 11


@pytest.mark.parametrize(
    "line",
    [
        "INFO receiving auth result: Authentication invalid",
        "WARNING Connecting to 10.0.0.5 port 3232 failed: Connection refused",
        "WARNING receiving version: This may indicate the device ran out of memory",
    ],
)
def test_warnings_are_no_errors(line: str) -> None:
    """What ESPHome only warns of, it goes on after."""
    assert diagnose(JobKind.UPLOAD, line).cause is Cause.UNKNOWN
