"""Tables of what was measured, the document of them, and what was measured before."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
import json
import os
import platform
import subprocess
from typing import Final

from tests.e2e.server import ROOT

from .pairs import Row, Unit
from .sides import PEER
from .workload import memory_of_host

DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"
MARGIN: Final = 1.5
"""A ratio may be so many times what it was before it counts as a regression."""

RECORD: Final = ROOT / "bench" / "record.json"

_VERSIONS: Final = """
from importlib.metadata import version
print(version("esphome-device-builder"), version("esphome"))
"""

_END: Final = "<!-- measured: end -->"
_START: Final = "<!-- measured: start -->"


def compared(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table of the rows that have another side, if any."""
    found = [row for row in rows if row.other]
    head = [
        "| measure | ours | theirs | whose | ours ÷ theirs | spread | pairs |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    return [*head, *map(_compared, found)] if found else []


def _compared(row: Row) -> str:
    text = row.unit.text
    ratio = spread = ""
    if row.ratio is not None:
        ratio = f"**{row.ratio:.3g}**"
        spread = f"{min(row.ratios):.3g} to {max(row.ratios):.3g}"
    return (
        f"| {row.title} | {text(row.ours)} | {text(row.theirs)} | {row.other} "
        f"| {ratio} | {spread} | {row.pairs} |"
    )


def promised(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table of the rows that have no other side, if any."""
    found = [row for row in rows if not row.other]
    head = ["| measure | measured | promised |", "|---|--:|--:|"]
    return [*head, *map(_promised, found)] if found else []


def _promised(row: Row) -> str:
    return f"| {row.title} | {row.unit.text(row.ours)} | {row.promised} |"


def host() -> str:
    """Return what was measured where."""
    packages = subprocess.run(
        [PEER / "python", "-c", _VERSIONS],
        check=True,
        capture_output=True,
        text=True,
    )
    builder, esphome = packages.stdout.split()
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        check=True,
        capture_output=True,
        cwd=ROOT,
        text=True,
    )
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} at revision "
        f"{revision.stdout.strip()}: {os.cpu_count()} cores, "
        f"{memory_of_host() / 1024**3:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, Home Assistant "
        f"{version('homeassistant')}, ESPHome {esphome}, Device Builder {builder}."
    )


def record(rows: Sequence[Row], order: Sequence[str]) -> None:
    """Put rows on record, in the place of older ones, and write the document anew."""
    known = {row.key: row for row in (*recorded(), *rows)}
    result = sorted(known.values(), key=lambda row: order.index(row.key.split(".")[0]))
    RECORD.write_text(json.dumps([asdict(row) for row in result], indent=1) + "\n")
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(_START)
    _, _, after = rest.partition(_END)
    tables = "\n".join([host(), "", *compared(result), "", *promised(result)])
    text = f"{before}{_START}\n{tables}\n{_END}{after}"
    DOCUMENT.write_text(text, encoding="utf-8")


def recorded() -> list[Row]:
    """Return the rows on record."""
    if not RECORD.exists():
        return []
    return [
        Row(**{**row, "unit": Unit(row["unit"])})
        for row in json.loads(RECORD.read_text())
    ]


def regressions(rows: Sequence[Row]) -> list[str]:
    """Return what is worse than on record, by more than the margin."""
    before = {row.key: row.ratio for row in recorded()}
    return [
        f"{row.title} ({row.other}): {row.ratio:.3g}, which was {known:.3g}"
        for row in rows
        if row.ratio is not None
        and (known := before.get(row.key)) is not None
        and row.ratio > MARGIN * known
    ]
