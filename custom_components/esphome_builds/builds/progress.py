"""Follows how far a run of ESPHome is: its output becomes a phase and a percentage."""

from collections.abc import Sequence
import re
from typing import Final

from .models import JobKind, Phase

# A line that begins with none of these begins no phase.
_FIRST: Final = frozenset("\x1bCDEHILPTUVW")
# These kinds have one phase.
_FIXED: Final = {
    JobKind.CLEAN: Phase.CLEANING,
    JobKind.VALIDATE: Phase.VALIDATING,
}
# Enough of a line to know it by; a hostile one may be much longer.
_MAX_LINE: Final = 400

# "Uploading: [===   ] 50%" and "Downloading packages: [===   ] 50%" of ESPHome, and of
# esptool "Writing at 0x00010000... (50 %)" or, since 5.0, the same with "━━━ 50.0%".
_BAR = re.compile(
    r"(?:Downloading[\w ]{0,40}|Uploading): \[[= ]{0,60}\] (?P<bar>\d{1,3})%"
    r"|Writing at 0x\S{1,20} [^%]{0,200}?(?P<flash>\d{1,3})(?:\.\d{1,3})? ?%"
)
# "[ 17%] Building CXX object", of CMake's makefiles.
_MAKE = re.compile(r"\[ {0,2}(?P<percent>\d{1,3})%\] ")
# "[23/51] CXX obj/src/main.cpp.o", of ninja.
_NINJA = re.compile(
    r"\[(?P<done>\d{1,6})/(?P<steps>\d{1,6})\] "
    r"(?:(?P<linking>LINK |Linking CXX executable )|(?P<preparing>Re-running CMake))?"
)

# How lines begin that begin a phase or go on with it, by the words of ESPHome 2026.10,
# PlatformIO and esptool; the groups are named as the phases.
_MARKS: Final = {
    kind: re.compile(rf"(?:\x1b\[[0-9;]{{0,16}}m)?(?:{'|'.join(phases)})")
    for kind, phases in {
        JobKind.COMPILE: (
            r"(?P<validating>INFO Reading configuration )",
            r"(?P<generating>INFO Generating C\+\+ source)",
            (
                r"(?P<downloading>INFO (?:Checking ESP|Cloning|Downloading|Installing)"
                r"|(?:Library|Platform|Tool) Manager: Installing "
                r"|(?:Downloading|Extracting|Unpacking)\b)"
            ),
            (
                r"(?P<compiling>INFO (?:Compiling|Discovering available|Writing CMake)"
                r"|Compiling \S|Processing \S+ \()"
            ),
            r"(?P<linking>Linking \S*/(?:firmware|program)\b)",
        ),
        JobKind.UPLOAD: (
            r"(?P<validating>INFO Reading configuration )",
            (
                r"(?P<connecting>INFO (?:Connecting to|Discovering devices|Retrying in)"
                r"|Connecting\.\.\.)"
            ),
            (
                r"(?P<uploading>INFO (?:Handshake complete|Preparing for upload"
                r"|Uploading firmware to)|Uploading: |Writing at 0x)"
            ),
            (
                r"(?P<verifying>INFO (?:Device response|OTA successful|Upload took)"
                r"|Hash of data verified|Verifying )"
            ),
        ),
    }.items()
}


class Progress:
    """Follows one run; the percentage only rises while the phase stays the same."""

    phase: Phase | None
    percent: int | None

    def __init__(self, kind: JobKind) -> None:
        """Start before the first line of the output."""
        self.phase = _FIXED.get(kind)
        self.percent = None
        self._builds = kind is JobKind.COMPILE
        self._marks = _MARKS.get(kind)
        # What ninja has to do in all; a build with less is one within the build.
        self._steps = 0

    def feed(self, lines: Sequence[str], redraw: str | None = None) -> bool:
        """Take the next lines, and after them the one that is being redrawn.

        Return whether phase or percentage are other than before.
        """
        if self._marks is None:
            return False
        before = (self.phase, self.percent)
        counted = again = ""
        for line in lines:
            first = line[:1]
            if first == "[":
                # Of many in a row two will do: the first, which knows how much there
                # is to do in all, and the last.
                if not counted:
                    self._count(line)
                counted = line
                again = ""
            elif first not in _FIRST or (again and line.startswith(again)):
                continue
            elif mark := self._marks.match(line[:_MAX_LINE]):
                self._count(counted)
                self._mark(mark)
                counted = ""
                again = mark[0] if self.percent is None else ""
        self._count(counted)
        if redraw:
            self._take_redraw(redraw[:_MAX_LINE], self._marks)
        return (self.phase, self.percent) != before

    def _take_redraw(self, line: str, marks: re.Pattern[str]) -> None:
        """Look at a line that has not ended."""
        self._count(line)
        if mark := marks.match(line):
            self._mark(mark)

    def _mark(self, mark: re.Match[str]) -> None:
        """Go to the phase that a line belongs to."""
        self._steps = 0
        bar = _BAR.match(mark.string)
        percent = bar["bar"] or bar["flash"] if bar else None
        self._go(Phase(str(mark.lastgroup)), int(percent) if percent else None)

    def _count(self, line: str) -> None:
        """Look at a line that begins with how much of the build is done."""
        if not self._builds:
            return
        if make := _MAKE.match(line):
            self._go(Phase.COMPILING, int(make["percent"]))
        elif (ninja := _NINJA.match(line)) and not ninja["preparing"]:
            self._count_steps(int(ninja["done"]), int(ninja["steps"]), ninja["linking"])

    def _count_steps(self, done: int, steps: int, linking: str | None) -> None:
        """Go on to the part that ninja has done of all its steps."""
        if steps < max(self._steps, 1):
            return
        self._steps = steps
        # After the program only small things are made of it.
        linked = linking or self.phase is Phase.LINKING
        self._go(Phase.LINKING if linked else Phase.COMPILING, 100 * done // steps)

    def _go(self, phase: Phase, percent: int | None) -> None:
        """Be in a phase, the percentage never lower than it was in it."""
        percent = None if percent is None else min(percent, 100)
        if phase is not self.phase:
            self.phase, self.percent = phase, percent
        elif percent is not None:
            self.percent = max(percent, self.percent or 0)
