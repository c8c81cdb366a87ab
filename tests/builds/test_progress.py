"""Phase and percentage follow the output, and the percentage never falls in a phase."""

from itertools import groupby

from hypothesis import given, strategies as st
import pytest

from custom_components.esphome_builds.builds.models import JobKind, Phase
from custom_components.esphome_builds.builds.progress import Progress

from .recorded import replay

type Step = tuple[Phase | None, int | None]

INFO = "\x1b[32mINFO "


def follow(name: str, size: int) -> list[Step]:
    """Return the steps of a recorded run, read in pieces of a size."""
    progress = Progress(JobKind(name.partition("_")[0]))
    steps: list[Step] = []
    for lines, redraw in replay(name, size):
        before = (progress.phase, progress.percent)
        assert progress.feed(lines, redraw) == (
            (progress.phase, progress.percent) != before
        )
        steps.append((progress.phase, progress.percent))
    return steps


def phases(steps: list[Step]) -> list[Phase]:
    """Return the phases in their order."""
    return [phase for phase, _ in groupby(phase for phase, _ in steps) if phase]


def percents(steps: list[Step], wanted: Phase) -> list[int]:
    """Return the percentages of a phase."""
    return [
        percent for phase, percent in steps if phase is wanted and percent is not None
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "compile_ok",
            [Phase.VALIDATING, Phase.GENERATING, Phase.COMPILING, Phase.LINKING],
        ),
        (
            "compile_no_change",
            [Phase.VALIDATING, Phase.GENERATING, Phase.COMPILING],
        ),
        (
            "compile_download_esp32",
            [
                Phase.VALIDATING,
                Phase.GENERATING,
                Phase.COMPILING,
                Phase.DOWNLOADING,
            ],
        ),
        (
            "compile_download_esp8266",
            [
                Phase.VALIDATING,
                Phase.GENERATING,
                Phase.COMPILING,
                Phase.DOWNLOADING,
            ],
        ),
        (
            "compile_download_platformio",
            [
                Phase.VALIDATING,
                Phase.GENERATING,
                Phase.COMPILING,
                Phase.DOWNLOADING,
                Phase.COMPILING,
                Phase.DOWNLOADING,
            ],
        ),
        ("upload_ok", [Phase.CONNECTING, Phase.UPLOADING, Phase.VERIFYING]),
        (
            "upload_breaks_off",
            [
                Phase.VALIDATING,
                *[Phase.CONNECTING, Phase.UPLOADING] * 3,
            ],
        ),
        ("upload_refused", [Phase.VALIDATING, Phase.CONNECTING]),
        ("validate_ok", [Phase.VALIDATING]),
        ("validate_external", [Phase.VALIDATING]),
        ("clean_ok", [Phase.CLEANING]),
    ],
)
def test_phases(name: str, expected: list[Phase]) -> None:
    """A real run goes through its phases in order."""
    assert phases(follow(name, 8)) == expected


@pytest.mark.parametrize(
    ("name", "phase", "first", "last"),
    [
        ("compile_ok", Phase.COMPILING, 1, 98),
        ("compile_ok", Phase.LINKING, 100, 100),
        ("compile_download_esp8266", Phase.DOWNLOADING, 0, 0),
        ("upload_ok", Phase.UPLOADING, 3, 100),
    ],
)
def test_percentage(name: str, phase: Phase, first: int, last: int) -> None:
    """The percentage of a real run rises from its first to its last value."""
    found = percents(follow(name, 1), phase)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (first, last)


@pytest.mark.parametrize("size", [100, 5000, 64 * 1024])
def test_any_pieces(size: int) -> None:
    """The end of a run is the same, in whatever pieces it is read."""
    assert follow("compile_ok", size)[-1] == (Phase.LINKING, 100)
    assert follow("upload_ok", size)[-1] == (Phase.VERIFYING, None)


@pytest.mark.parametrize(
    ("kind", "phase"),
    [
        (JobKind.VALIDATE, Phase.VALIDATING),
        (JobKind.CLEAN, Phase.CLEANING),
        (JobKind.COMPILE, None),
        (JobKind.UPLOAD, None),
    ],
)
def test_start(kind: JobKind, phase: Phase | None) -> None:
    """What has one phase only is in it before the first line."""
    progress = Progress(kind)
    assert (progress.phase, progress.percent) == (phase, None)
    assert not progress.feed([])


def test_one_phase() -> None:
    """What ESPHome prints of a configuration changes nothing."""
    progress = Progress(JobKind.VALIDATE)
    assert not progress.feed(["[1/2] a", "INFO Generating C++ source..."], "[2/2] b")
    assert progress.phase is Phase.VALIDATING


@pytest.mark.parametrize(
    ("lines", "step"),
    [
        # ESP-IDF: CMake prepares, ninja counts, the bootloader is a build of its own.
        ([f"{INFO}Discovering available ESP-IDF"], (Phase.COMPILING, None)),
        (["[0/1] Re-running CMake..."], (Phase.COMPILING, None)),
        (
            ["[300/1200] Building CXX object a", "[99/100] Linking C executable b"],
            (Phase.COMPILING, 25),
        ),
        (["[300/1200] Building CXX object a"], (Phase.COMPILING, 25)),
        (["[1100/1200] Linking CXX static library a.a"], (Phase.COMPILING, 91)),
        (["[1190/1200] Linking CXX executable kitchen.elf"], (Phase.LINKING, 99)),
        (
            ["[1190/1200] Linking CXX executable a", "[1200/1200] Generating b"],
            (Phase.LINKING, 100),
        ),
        (["[1/1] LINK program"], (Phase.LINKING, 100)),
        (["[0/0] nothing"], (Phase.COMPILING, None)),
        (["[9/3] too much"], (Phase.COMPILING, 100)),
        # CMake's makefiles.
        (["[ 17%] Building CXX object a"], (Phase.COMPILING, 17)),
        (["[100%] Built target a"], (Phase.COMPILING, 100)),
        # PlatformIO does not say how much there is to do.
        (
            ["Processing kitchen (board: d1_mini; framework: arduino)"],
            (Phase.COMPILING, None),
        ),
        (["Tool Manager: Installing a/b @ 1"], (Phase.DOWNLOADING, None)),
        (["Downloading 0% 10% 20% 30%"], (Phase.DOWNLOADING, None)),
        (["Unpacking 0% 10%"], (Phase.DOWNLOADING, None)),
        (
            ["Unpacking 0% 10%", "Compiling .pioenvs/kitchen/src/main.cpp.o"],
            (Phase.COMPILING, None),
        ),
        (["Linking .pioenvs/kitchen/bootloader.elf"], (Phase.COMPILING, None)),
        (["Linking .pioenvs/kitchen/firmware.elf"], (Phase.LINKING, None)),
        # ESPHome's own downloads.
        (
            ["Downloading: [==============                ] 45% "],
            (Phase.DOWNLOADING, 45),
        ),
        (
            ["Downloading packages: [===] 45% ", "Extracting: [=] 3% "],
            (Phase.DOWNLOADING, 45),
        ),
        # What is not for this kind.
        (["Uploading: [==] 45% "], (Phase.COMPILING, None)),
        (["src/a.cpp:1:2: warning: 17%"], (Phase.COMPILING, None)),
    ],
)
def test_compile(lines: list[str], step: Step) -> None:
    """Every tool that builds has its own way to tell how far it is."""
    progress = Progress(JobKind.COMPILE)
    progress.feed([f"{INFO}Compiling app... Build path: /data/build/kitchen"])
    progress.feed(lines)
    assert (progress.phase, progress.percent) == step


@pytest.mark.parametrize(
    ("lines", "step"),
    [
        (
            [f"{INFO}Retrying in 5 seconds (attempt 2 of 3)..."],
            (Phase.CONNECTING, None),
        ),
        ([f"{INFO}Uploading /data/program (664000 bytes)"], (Phase.CONNECTING, None)),
        ([f"{INFO}Handshake complete"], (Phase.UPLOADING, None)),
        (["Uploading: [==] 3% "], (Phase.UPLOADING, 3)),
        (["Uploading: [====] 100% Done..."], (Phase.UPLOADING, 100)),
        ([f"{INFO}Upload took 1 seconds, waiting"], (Phase.VERIFYING, None)),
        # esptool before and since version 5; each of its images is verified.
        (["Writing at 0x00010000... (45 %)"], (Phase.UPLOADING, 45)),
        (["Writing at 0x00010000 ━━━  45.7% 12345/67890 bytes"], (Phase.UPLOADING, 45)),
        (
            ["Writing at 0x0000... (100 %)", "Hash of data verified."],
            (Phase.VERIFYING, None),
        ),
        (
            [
                "Writing at 0x00001000... (100 %)",
                "Hash of data verified.",
                "Writing at 0x00010000... (4 %)",
            ],
            (Phase.UPLOADING, 4),
        ),
        # What is not for this kind.
        (["[1/2] CXX a"], (Phase.CONNECTING, None)),
    ],
)
def test_upload(lines: list[str], step: Step) -> None:
    """An upload goes over the air or through a cable."""
    progress = Progress(JobKind.UPLOAD)
    progress.feed([f"{INFO}Connecting to 10.0.0.5 port 3232..."])
    progress.feed(lines)
    assert (progress.phase, progress.percent) == step


def test_redraw_comes_last() -> None:
    """What is being redrawn stands below the lines."""
    progress = Progress(JobKind.UPLOAD)
    assert progress.feed([f"{INFO}Handshake complete"], "Uploading: [==] 30% ")
    assert (progress.phase, progress.percent) == (Phase.UPLOADING, 30)
    assert not progress.feed([], "Uploading: [==] 30% ")
    assert not progress.feed([], "")
    progress = Progress(JobKind.COMPILE)
    assert progress.feed(["[1/100] a"], "[7/100] b")
    assert (progress.phase, progress.percent) == (Phase.COMPILING, 7)


def test_build_within_a_build() -> None:
    """A smaller build that reports in between is not the progress of the whole."""
    progress = Progress(JobKind.COMPILE)
    progress.feed(["[300/1200] a"])
    assert not progress.feed(["[50/60] b"])
    assert not progress.feed(["[60/60] Linking CXX executable bootloader.elf"])
    assert progress.feed(["[600/1200] c"])
    assert (progress.phase, progress.percent) == (Phase.COMPILING, 50)


def test_never_falls() -> None:
    """More work that turns up does not take back what was shown."""
    progress = Progress(JobKind.COMPILE)
    progress.feed(["[50/100] a"])
    assert not progress.feed(["[60/200] b"])
    assert progress.percent == 50
    assert progress.feed(["[120/200] c"])
    assert progress.percent == 60


def test_new_phase_starts_anew() -> None:
    """In another phase nothing is done yet, and a new build may be a smaller one."""
    progress = Progress(JobKind.COMPILE)
    progress.feed(["[90/100] a"])
    progress.feed(["Tool Manager: Installing a/b @ 1"])
    assert percents([(progress.phase, progress.percent)], Phase.DOWNLOADING) == []
    progress.feed(["Compiling .pioenvs/a", "Compiling .pioenvs/b", "[1/10] c"])
    assert (progress.phase, progress.percent) == (Phase.COMPILING, 10)


def test_many_at_once() -> None:
    """Lines that begin alike count, each in its place."""
    progress = Progress(JobKind.UPLOAD)
    progress.feed(["Uploading: [=] 3% ", "Uploading: [==] 30% ", "Uploading: [=="])
    assert (progress.phase, progress.percent) == (Phase.UPLOADING, 30)
    progress = Progress(JobKind.COMPILE)
    progress.feed(["Compiling .pioenvs/a", "[9/9] LINK b", "Compiling .pioenvs/c"])
    assert (progress.phase, progress.percent) == (Phase.COMPILING, None)


LINES = (
    "[1/2] a",
    "[5/9] LINK b",
    "[ 17%] c",
    "[0/1] Re-running CMake",
    f"{INFO}Compiling app",
    f"{INFO}Downloading a",
    f"{INFO}Connecting to a",
    "Downloading: [=] 500% ",
    "Uploading: [=] 3% ",
    "Uploading: [=] 999% ",
    "Writing at 0x1... (45 %)",
    "Compiling .pioenvs",
    "I" * 9000,
    "\x1b" * 9000,
    "[" * 9000,
    "",
)


@given(
    st.sampled_from(JobKind),
    st.lists(
        st.tuples(st.lists(st.sampled_from(LINES)), st.none() | st.sampled_from(LINES))
    ),
)
def test_always_valid(
    kind: JobKind, output: list[tuple[list[str], str | None]]
) -> None:
    """Whatever comes: from 0 to 100, rising within a phase, and changes are told."""
    progress = Progress(kind)
    for lines, redraw in output:
        phase, percent = progress.phase, progress.percent
        changed = progress.feed(lines, redraw)
        assert changed == ((progress.phase, progress.percent) != (phase, percent))
        assert progress.percent is None or 0 <= progress.percent <= 100
    # Line by line no phase can come and go unseen.
    progress = Progress(kind)
    for line in [line for lines, _ in output for line in lines]:
        phase, percent = progress.phase, progress.percent
        progress.feed([line])
        if progress.phase is phase:
            assert (progress.percent or 0) >= (percent or 0)
