r"""Output becomes lines: the same for any chunking, bounded, linear, harmless."""

from itertools import pairwise
import time
import tracemalloc

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.esphome_builds.builds.lines import (
    LINE_BYTES,
    LineSplitter,
    plain,
)

_MIB = 1024 * 1024

_TEXTS = (b"a", b"word ", "ä€😀".encode(), b"\\033[32m", b"y" * 3000)
_ENDS = (b"\n", b"\r", b"\r\n")
_ESCAPES = (b"\x1b", b"[", b"m", b"\x1b[31m", b"\x1b[2K", b"\x1bP", b"\x1b]0;", b"\a")
_RUBBISH = (b"\0", b"\xff", b"\x9b", "\x9b".encode())


def split(*chunks: bytes) -> list[str]:
    """Return all lines of an output that came in these chunks."""
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.close()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut data at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"no end", ["no end"]),
        (b"\n\n\n", ["", "", ""]),
        (b"\r\n\r\n", ["", ""]),
        (b"10%\r20%\r30%\n", ["30%"]),
        (b"\r10%\r20%\r30%\r\nnext\n", ["30%", "next"]),
        (b"10%\r20%", ["20%"]),
        (b"10%\r20%\r", ["20%"]),
        (b"10%\r\r\r\n", ["10%"]),
        (b"a\r\rb\n", ["b"]),
        (b"next\n10%\r\x1b[2K\r\n", ["next", ""]),
        (b"tab\there\n", ["tab\there"]),
        # Other things that Python takes for the end of a line are none.
        ("a\v\f\x1cb\u2028c\x85d\n".encode(), ["ab\u2028cd"]),
    ],
)
def test_terminators(data: bytes, lines: list[str]) -> None:
    r"""A `\n` ends a line; what follows a bare `\r` replaces what stood before."""
    assert split(data) == lines
    # Byte by byte it is the same.
    assert split(*pieces(data, list(range(len(data))))) == lines


def test_lines_come_as_soon_as_they_end() -> None:
    """A line is not held back once its end was read, and never given twice."""
    splitter = LineSplitter()

    assert splitter.feed(b"one\r") == []
    assert splitter.feed(b"\ntwo\nthr") == ["one", "two"]
    assert splitter.feed(b"") == []
    assert splitter.feed(b"ee\n") == ["three"]
    assert splitter.close() == []


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from((*_TEXTS, *_ENDS, *_ESCAPES, *_RUBBISH)),
        max_size=30,
    ),
    st.lists(st.integers(min_value=0), max_size=8),
)
def test_any_chunking_gives_the_same_lines(parts: list[bytes], cuts: list[int]) -> None:
    """What the reads happen to be makes no difference, and nothing harmful is left."""
    data = b"".join(parts)

    whole = split(data)

    if all(len(line) < 2 * LINE_BYTES for line in data.split(b"\n")):
        assert split(*pieces(data, cuts)) == whole
    for line in whole:
        assert not set(plain(line)) & {*map(chr, range(9)), "\n", "\r", "\x1b", "\x9b"}
        assert len(line.encode()) <= LINE_BYTES


@settings(max_examples=50)
@given(
    st.lists(
        st.text(
            st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f\\")
        )
        .map(lambda text: text.translate(dict.fromkeys(range(0x80, 0xA0))))
        .filter(lambda text: len(text.encode()) <= LINE_BYTES)
    ),
    st.lists(st.integers(min_value=0), max_size=20),
)
def test_text_comes_through(lines: list[str], cuts: list[int]) -> None:
    """Harmless text is not touched, also where a character is cut by a read."""
    data = "".join(f"{line}\n" for line in lines).encode()

    assert split(*pieces(data, cuts)) == lines


def test_invalid_utf8_is_replaced() -> None:
    """What is no UTF-8 becomes the sign for that, and does not end anything."""
    assert split(b"a\xff\xfeb\n", b"\xe2\x82\n", b"ok\n") == ["a��b", "�", "ok"]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a\0\1\x08\x7fb", "ab"),
        (b"\x1b]0;a title\aafter", "after"),
        (b"\x1b]0;a title\x1b\\after", "after"),
        (b"\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b[2J\x1b[H\x1b[10;5Htext\x1b[K", "text"),
        (b"\x1b[?25lhidden cursor\x1b[?25h", "hidden cursor"),
        (b"\x1bP1;2|device\x1b\\control", "control"),
        (b"\x1b(Btext\x1bcreset", "textreset"),
        (b"\x1b\x1b[2Jtwice", "twice"),
        ("\x9b2Jupper".encode(), "2Jupper"),
        (b"bell\a", "bell"),
        (b"end\x1b", "end"),
        (b"end\x1b[", "end"),
        (b"end\x1b[3", "end"),
        (b"\x1b]never ends", ""),
    ],
)
def test_terminal_control_is_removed(data: bytes, line: str) -> None:
    """A log that is shown in a terminal does nothing to it."""
    assert split(data + b"\n") == [line]


def test_colors_stay() -> None:
    r"""Colors are kept, also where ESPHome spells out the escape for a dashboard."""
    assert split(b"\x1b[1;31mred\x1b[0m \x1b[38:5:9mnine\x1b[m\n") == [
        "\x1b[1;31mred\x1b[0m \x1b[38:5:9mnine\x1b[m"
    ]
    assert split(rb"\033[32mINFO\033[0m ok" + b"\n") == ["\x1b[32mINFO\x1b[0m ok"]
    # What is spelled out must not be a way around the removal of all else.
    assert split(rb"\033[2Jtext" + b"\n") == ["text"]


def test_plain() -> None:
    """A line without its colors is what a person reads."""
    assert plain("\x1b[1;31mred\x1b[0m and more") == "red and more"
    assert plain("no colors") == "no colors"


@pytest.mark.parametrize("chunk", [1000, 64 * 1024, _MIB])
def test_cut_marker_counts(chunk: int) -> None:
    """A line that is too long says how many of its bytes are missing."""
    data = b"x" * 100_000 + b"\nnext\n"

    first, second = split(*pieces(data, list(range(0, len(data), chunk))))

    kept = first.index(" ")
    assert first == "x" * kept + f" … [line cut here: {100_000 - kept:,} more bytes]"
    assert LINE_BYTES - 100 < len(first.encode()) <= LINE_BYTES
    assert second == "next"


def test_longest_line_is_whole() -> None:
    """A line within the limit is not touched; one byte more and it is cut."""
    limit = b"y" * LINE_BYTES

    assert split(limit + b"\n") == [limit.decode()]
    (line,) = split(limit + b"y\n")
    assert line.endswith("more bytes]")


def test_cut_within_a_color() -> None:
    """A color that the cut goes through leaves no escape behind."""
    for shift in range(8):
        (line,) = split(b"y" * shift + b"\x1b[31m" * 3000 + b"\n")

        assert "\x1b" not in plain(line)


def test_cut_within_a_character() -> None:
    """A character that the cut goes through is left out whole."""
    for shift in range(4):
        (line,) = split(b"y" * shift + "😀".encode() * 3000 + b"\n")

        kept = line.partition(" ")[0].encode()
        assert set(kept.decode()) <= {"y", "😀"}
        assert line.endswith(f"{shift + 12_000 - len(kept):,} more bytes]")


def test_redraw_after_a_cut_line() -> None:
    r"""The marker belongs to what is shown, not to what a `\r` replaced."""
    assert split(b"x" * 50_000, b"\r", b"short\n") == ["short"]
    assert split(b"x" * 50_000, b"\rshort", b"\n") == ["short"]


def test_redraw_is_seen_before_the_line_ends() -> None:
    r"""A progress bar is there while it is drawn, with the `\r` before or behind."""
    splitter = LineSplitter()
    assert splitter.redraw is None

    splitter.feed(b"\rUploading: [=   ] 25% ")
    assert splitter.redraw == "Uploading: [=   ] 25% "
    splitter.feed(b"\rUploading: [==  ] 50% ")
    assert splitter.redraw == "Uploading: [==  ] 50% "
    assert splitter.feed(b"\rUploading: [====] 100% Done...\r\n") == [
        "Uploading: [====] 100% Done..."
    ]
    assert splitter.redraw is None

    splitter.feed(b"plain start of a line")
    assert splitter.redraw is None
    splitter.feed(b"\n50%\r")
    assert splitter.redraw == "50%"
    splitter.feed(b"60%\r")
    assert splitter.redraw == "60%"


def test_cleaners_see_all_text_once_and_in_order() -> None:
    """What hides secrets sees whole lines, and nothing between their letters."""
    seen = []

    def _note(text: str) -> str:
        seen.append(text)
        return text.replace("secret", "[hidden]")

    def _again(text: str) -> str:
        return text.replace("[hidden]", "***")

    splitter = LineSplitter(_note, _again)

    lines = splitter.feed(b"my sec\x1b[Kret\nand sec") + splitter.feed(b"r\0et\n")
    splitter.feed(b"\rse")
    assert splitter.redraw == "se"
    lines += splitter.feed(b"cret") + splitter.close()

    assert lines == ["my ***", "and ***", "***"]
    assert seen == ["my secret", "and secret", "secret"]


@pytest.mark.parametrize(
    "line",
    [b"x" * 65536, b"redraw\r" * 9362, b"\r" * 65536],
    ids=["text", "redraws", "returns"],
)
def test_line_without_an_end_is_bounded_and_linear(line: bytes) -> None:
    """64 MiB without an end cost little memory, and ten times as much ten times."""
    splitter = LineSplitter()
    tracemalloc.start()
    try:
        for _ in range(100):
            splitter.feed(line)
        assert tracemalloc.get_traced_memory()[1] < _MIB
    finally:
        tracemalloc.stop()

    started = time.process_time()
    for _ in range(1024):
        splitter.feed(line)
    assert time.process_time() - started < 2
    assert sum(map(len, splitter.close())) <= LINE_BYTES


def test_many_short_lines_are_linear() -> None:
    """A chunk of nothing but ends of lines is no trap."""
    splitter = LineSplitter()

    started = time.process_time()
    count = sum(len(splitter.feed(b"\n" * 65536)) for _ in range(64))

    assert count == 64 * 65536
    assert time.process_time() - started < 2


@pytest.mark.parametrize("start", [b"\x1b[", b"\x1b]", b"\x1bP"])
def test_escape_sequences_are_linear(start: bytes) -> None:
    """A sequence that never ends, many times over, is no trap for the pattern."""
    started = time.process_time()

    split(*[start * 8192 + b"0;" * 8192] * 64, b"\n", start * 500_000 + b"\n")

    assert time.process_time() - started < 2
