"""Measures this project beside ESPHome Device Builder and prints a Markdown table.

Samples of both sides are taken in turns. What counts is their ratio: the times
themselves are those of one machine on one day.
"""

import argparse
import asyncio
import sys

from . import report
from .measures import MEASURES
from .pairs import Row, take


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        "script/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--pairs", type=int, help="samples of each side")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"fail where a ratio is over {report.MARGIN} times the one on record",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="put what is measured on record and into docs/benchmarks.md",
    )
    arguments = parser.parse_args()
    rows: list[Row] = []
    if unknown := set(arguments.names) - set(MEASURES):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    for name in arguments.names or MEASURES:
        print(f"{name} …", file=sys.stderr, flush=True)
        measured = asyncio.run(take(name, MEASURES[name], arguments.pairs))
        rows += measured
        if arguments.record:
            report.record(measured, [*MEASURES])
    print("\n".join([*report.compared(rows), *report.promised(rows)]))
    if arguments.check:
        sys.exit("\n".join(report.regressions(rows)) or 0)


if __name__ == "__main__":
    main()
