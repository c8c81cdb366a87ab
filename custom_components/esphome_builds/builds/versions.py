"""Which of two versions is the older one."""

import re
from typing import Final

_VERSION: Final = re.compile(
    r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?(?:b(\d{1,3})|(-dev))?"
)

type Version = tuple[int, int, int, int]


def parse_version(text: str | None) -> Version | None:
    """Return what of a version can be compared, None where it is none.

    As ESPHome counts: a version in development comes before its betas, and these before
    the version itself.
    """
    if text is None or (match := _VERSION.match(text)) is None:
        return None
    year, month, patch, beta, development = match.groups()
    stage = _stage(beta, development is not None)
    return int(year), int(month), int(patch or 0), stage


def _stage(beta: str | None, development: bool) -> int:
    """Return a number that is negative before the version itself."""
    if development:
        return -1_000_000
    return 0 if beta is None else int(beta) - 1_000


def is_older(version: str | None, other: str | None) -> bool | None:
    """Return whether a version is older than another, None if that is not known."""
    before, now = parse_version(version), parse_version(other)
    return None if before is None or now is None else before < now
