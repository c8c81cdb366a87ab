"""What the tests of the engine share."""

from hypothesis import settings
import pytest

# Without a database a run does not depend on the one before.
settings.register_profile("builds", database=None, deadline=None)
settings.load_profile("builds")


def pytest_configure(config: pytest.Config) -> None:
    """Bear with Hypothesis: it looks for something that the collector froze."""
    config.addinivalue_line(
        "filterwarnings",
        "ignore:It looks like `register_random`:hypothesis.errors.HypothesisWarning",
    )
