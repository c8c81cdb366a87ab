"""Paired samples of two sides, and what they say together."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median
from typing import Final

PAIRS: Final = 5

type Sample = dict[str, float]
type Samplers = dict[str, Callable[[], Awaitable[Sample]]]


class Unit(StrEnum):
    """What a figure is in; of all of them less is better."""

    COUNT = ""
    MEBIBYTES = "MiB"
    MICROSECONDS = "µs"
    MILLISECONDS = "ms"
    SECONDS = "s"
    SHARE = "%"

    def text(self, value: float) -> str:
        """Return a value that is in seconds, bytes or parts of one."""
        match self:
            case Unit.COUNT:
                return f"{value:.0f}"
            case Unit.MEBIBYTES:
                return f"{value / 1024**2:.1f} MiB"
            case Unit.MICROSECONDS:
                return f"{value * 1e6:.2f} µs"
            case Unit.MILLISECONDS:
                return f"{value * 1e3:.1f} ms"
            case Unit.SECONDS:
                return f"{value:.2f} s"
            case Unit.SHARE:
                return f"{value:.1%}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of a sample."""

    title: str
    unit: Unit
    promised: str = ""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Something that is done on several sides, or on ours alone; ours is the first."""

    title: str
    figures: dict[str, Figure]
    sides: Callable[[], AbstractAsyncContextManager[Samplers]]
    pairs: int = PAIRS


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of ours beside that of another side, if there is one; medians."""

    key: str
    title: str
    unit: Unit
    promised: str
    pairs: int
    ours: float
    other: str = ""
    theirs: float = 0.0
    ratios: Sequence[float] = ()

    @property
    def ratio(self) -> float | None:
        """Return ours divided by theirs, the median of all pairs."""
        return median(self.ratios) if self.ratios else None


async def take(name: str, measure: Measure, pairs: int | None) -> list[Row]:
    """Take all samples, A B A B …; return a row for each figure and other side."""
    samples: dict[str, list[Sample]] = {}
    async with measure.sides() as samplers:
        for _ in range(pairs or measure.pairs):
            for side, sample in samplers.items():
                samples.setdefault(side, []).append(await sample())
    ours, *others = samples
    return [
        _row(name, measure, key, samples[ours], other, samples.get(other))
        for key in measure.figures
        for other in others or [""]
    ]


def _row(  # noqa: PLR0913, PLR0917 - all that a row is made of
    name: str,
    measure: Measure,
    key: str,
    ours: Sequence[Sample],
    other: str,
    theirs: Sequence[Sample] | None,
) -> Row:
    figure = measure.figures[key]
    row = Row(
        key=".".join(filter(None, (name, key, other.lower().replace(" ", "-")))),
        title=": ".join(filter(None, (measure.title, figure.title))),
        unit=figure.unit,
        promised=figure.promised,
        pairs=len(ours),
        ours=median(sample[key] for sample in ours),
    )
    if theirs is None:
        return row
    pairs = [(one[key], two[key]) for one, two in zip(ours, theirs, strict=True)]
    # What can be nothing has no ratio.
    ratios = [one / two for one, two in pairs] if all(two for _, two in pairs) else []
    return replace(
        row, other=other, theirs=median(two for _, two in pairs), ratios=ratios
    )
