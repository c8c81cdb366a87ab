"""What ESPHome conceals is in no log, and the lines stay as many as they are."""

import time

from hypothesis import given, strategies as st
import pytest

from custom_components.esphome_builds.builds.conceal import (
    CONCEALED_LINES,
    REDACTED,
    Concealment,
)


def remove_concealed(text: str) -> str:
    """Return a text without what is concealed; without an end, the rest of the line."""
    return Concealment(lines=1).remove(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no codes", "no codes"),
        ("password: <8>hunter2<28>", "password: #"),
        ("<8>a<28> <8>b<28>\n<8>c<28>", "# #\n#"),
        ("<8>a<0>b", "#b"),
        ("<8>a<>b", "#b"),
        ("<08>a<028>b", "#b"),
        ("<1;8>a<28>b", "#b"),
        ("<8;1>a<0>b", "#b"),
        ("<0;8;4>a<22;28>b", "#b"),
        ("<8;0>a", "<8;0>a"),
        ("<8><32>a<28>b", "#b"),
        ("<8>a\nb", "#\nb"),
        ("x <8>a\nb <8>c<28> d\n<8>", "x #\nb # d\n#"),
        ("<8>a\n b<28> c", "#\n c"),
        # As ESPHome conceals a text of two lines that is no `SensitiveStr` only.
        ("x: <8>'<8>one<28>\n\n  two<28>'\ny: z", "x: #\n\n'\ny: z"),
        ('x: <8>"\\<8>tab\\t\\<28>"<28>', "x: #"),
        ("<8>a<8>b<0>c", "#c"),
        ("a<28>b", "a<28>b"),
        # Colors by number, which hold an 8 that means something else.
        ("<38;5;8>gray<0>", "<38;5;8>gray<0>"),
        ("<48;2;8;8;8>gray<0>", "<48;2;8;8;8>gray<0>"),
        ("<38;5>gray<0>", "<38;5>gray<0>"),
        ("<38:5:8>gray<0>", "<38:5:8>gray<0>"),
        ("<38;5;1;8>hidden<0>!", "#!"),
        ("[8/128] 8m; 8;8", "[8/128] 8m; 8;8"),
        ("<8>" * 3 + "a", "#"),
    ],
)
@pytest.mark.parametrize("escape", ["\x1b", "\\033", "\\\\033"])
def test_remove_concealed(escape: str, text: str, expected: str) -> None:
    """What a terminal would conceal is gone, in both ways to print the codes."""

    def _codes(text: str) -> str:
        text = text.replace("<", f"{escape}[").replace(">", "m")
        return text.replace("#", REDACTED)

    assert remove_concealed(_codes(text)) == _codes(expected)


@given(
    st.text(alphabet="a\n", max_size=20),
    st.lists(
        st.sampled_from(["\x1b[8m", "\x1b[28m", "\x1b[0m", "\n", "a", "secret\n"])
    ),
)
def test_concealed_lines_are_kept(start: str, rest: list[str]) -> None:
    """Whatever the codes are, the lines stay as many as they are."""
    text = start + "".join(rest)
    assert remove_concealed(text).count("\n") == text.count("\n")
    concealment = Concealment()
    for piece in text.split("\n"):
        assert "\n" not in concealment.remove(piece)


def test_conceal_over_pieces() -> None:
    """A concealed value that comes in pieces is hidden in all of them."""
    concealment = Concealment()
    assert concealment.remove("a: \x1b[8mone") == f"a: {REDACTED}"
    assert concealment.remove("two\nthree") == f"{REDACTED}\n"
    assert concealment.remove("four\x1b[28m b\nc") == f"{REDACTED} b\nc"
    assert concealment.remove("d") == "d"


def test_nested_conceal_over_pieces() -> None:
    """A piece that ends the older conceal and begins a new one is no mix of both."""
    concealment = Concealment(lines=2)
    assert concealment.remove("a: \x1b[8m'\x1b[8mone\x1b[28m") == f"a: {REDACTED}"
    assert concealment.remove("two\x1b[28m' \x1b[8mb") == f"{REDACTED}' {REDACTED}"
    assert concealment.remove("c\nd") == f"{REDACTED}\nd"
    assert concealment.remove("e\x1b[28m") == "e\x1b[28m"
    assert concealment.remove("a: \x1b[8m'\x1b[8mone") == f"a: {REDACTED}"
    assert concealment.remove("two\x1b[28m'\x1b[28m b") == f"{REDACTED} b"


def test_conceal_without_an_end() -> None:
    """A conceal that is never revealed does not hide the rest of the log."""
    concealment = Concealment()
    lines = [concealment.remove(line) for line in ["\x1b[8mx"] + ["line"] * 100]
    assert lines.count(REDACTED) == CONCEALED_LINES
    assert lines[CONCEALED_LINES:] == ["line"] * (101 - CONCEALED_LINES)
    concealment = Concealment()
    text = "\n".join(["\x1b[8mx"] + ["line"] * 100)
    assert concealment.remove(text).count("line") == 101 - CONCEALED_LINES
    assert concealment.remove("line") == "line"


@pytest.mark.parametrize(
    "text",
    ["\x1b[8m" * 16_000, "\x1b[8m\n" * 13_000, "\\" * 65_536 + "8m", "\x1b[" * 32_000],
    ids=["codes", "lines", "backslashes", "starts"],
)
def test_hostile_codes(text: str) -> None:
    """Codes without end take time in proportion to their number."""
    start = time.thread_time()
    remove_concealed(text + "8m")
    Concealment().remove(text + "8m")
    assert time.thread_time() - start < 1
