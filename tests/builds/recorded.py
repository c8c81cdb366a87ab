r"""Outputs of the real ESPHome 2026.10.0, recorded as a local builder runs it.

That is `esphome --dashboard <command> <file>` in the configurations' folder, with its
output in a pipe. Only paths, file names and the names of two servers were replaced,
and PlatformIO's greeting was removed. The compiler without memory was limited to 90 MB
or killed, the full disk was a small one, and a device that ends an upload oddly was a
server that knew the protocol of `esphome/espota2.py` as far as that.
"""

from collections.abc import Iterator
from pathlib import Path

from custom_components.esphome_builds.builds.lines import LineSplitter

_FOLDER = Path(__file__).parent / "output"


def replay(name: str, size: int = 64 * 1024) -> Iterator[tuple[list[str], str | None]]:
    """Yield lines and redraw as a builder gets them when it reads so many bytes."""
    data = (_FOLDER / f"{name}.txt").read_bytes()
    splitter = LineSplitter()
    for start in range(0, len(data), size):
        lines = splitter.feed(data[start : start + size])
        yield lines, splitter.redraw
    yield splitter.close(), None
