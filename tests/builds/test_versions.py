"""Which of two versions is the older one."""

from itertools import pairwise

import pytest

from custom_components.esphome_builds.builds.versions import is_older

IN_ORDER = (
    "1.14",
    "1.14.1",
    "2026.9.1",
    "2026.10.0-dev",
    "2026.10.0b1",
    "2026.10.0b3",
    "2026.10.0b12",
    "2026.10.0",
    "2026.10.1",
)


def test_order() -> None:
    """A version in development comes before its betas, and these before itself."""
    for before, after in pairwise(IN_ORDER):
        assert is_older(before, after) is True
        assert is_older(after, before) is False
        assert is_older(after, after) is False


@pytest.mark.parametrize("text", [None, "", "dev", "2026", "v1.2.3", "9" * 5000])
def test_unknown(text: str | None) -> None:
    """Of what is no version nothing is said."""
    assert is_older(text, "2026.10.0") is None
    assert is_older("2026.10.0", text) is None
