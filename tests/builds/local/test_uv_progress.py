"""How far an installation is, by what uv prints."""

from custom_components.esphome_builds.builds.local.uv_progress import InstallProgress
from custom_components.esphome_builds.builds.models import Phase


def test_installation() -> None:
    """Downloads count, as far as they are announced; then it is tried."""
    progress = InstallProgress()
    told = []
    for line in (
        "Creating virtual environment at: x",
        "Resolved 84 packages in 2.97s",
        "Downloading esphome (7.0MiB)",
        "Downloading pillow (6.6MiB)",
        "   Building crcmod==1.7",
        " Downloaded pillow",
        " Downloaded esphome",
        "Prepared 84 packages in 3.21s",
        "Installed 84 packages in 180ms",
        " + esphome==2026.10.0",
        " Downloaded nothing",
    ):
        before = (progress.phase, progress.percent)
        changed = progress.feed([line])
        assert changed == ((progress.phase, progress.percent) != before)
        told.append((progress.phase, progress.percent))

    down, verify = Phase.DOWNLOADING, Phase.VERIFYING
    assert told == [
        *[(down, None)] * 2,
        *[(down, 0)] * 3,
        (down, 50),
        *[(down, 100)] * 2,
        *[(verify, None)] * 3,
    ]


def test_it_never_falls() -> None:
    """What is announced late does not take back what was told."""
    progress = InstallProgress()
    progress.feed(["Downloading a (1MiB)", " Downloaded a", "Downloading b (1MiB)"])
    assert progress.percent == 100


def test_from_the_cache() -> None:
    """What was not announced may be there all the same."""
    progress = InstallProgress()
    progress.feed([" Downloaded a", "Downloading " + "x" * 9000])
    assert progress.percent == 100
