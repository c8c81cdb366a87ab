"""What must not be in a log, against real files and the real output of ESPHome."""

import json
import os
from pathlib import Path
import random
import string
import subprocess
import time

from hypothesis import given, strategies as st
import pytest

from custom_components.esphome_builds.builds.conceal import REDACTED, Concealment
from custom_components.esphome_builds.builds.local import secrets as secrets_module
from custom_components.esphome_builds.builds.local.secrets import (
    Redactor,
)

ESPHOME = Path(__file__).parents[3] / ".local/esphome/bin/esphome"
SECRETS = """\
wifi_ssid: My Home Net
wifi_password: "hunter2 hunter2"   # Not my pet's name
short: abc
number: 12345678
hex: 0xCAFE42
time: 12:34:56
flag: true
nothing: null
empty:
api_key: bnJrY2hhb3NzZWNyZXRrZXkxMjM0NTY3ODkwYWJjZGU=
certificate: |
  -----BEGIN IT-----
  MIIBaz==
  no
nested:
  deeper: [in a list, {key: in a map}]
5: under a number
on: under a boolean
twice: the first
twice: the second
tagged: !custom with a tag
tagged_list: !custom [below a tag]
other: !secret wifi_ssid
variable: !env_var VARIABLE
anchored: &anchor {key: anchored value}
alias: *anchor
"""
HIDDEN = [
    "My Home Net",
    "hunter2 hunter2",
    "12345678",
    "0xCAFE42",
    "12:34:56",
    "bnJrY2hhb3NzZWNyZXRrZXkxMjM0NTY3ODkwYWJjZGU=",
    "-----BEGIN IT-----",
    "MIIBaz==",
    "in a list",
    "in a map",
    "under a number",
    "under a boolean",
    "the first",
    "the second",
    "with a tag",
    "below a tag",
    "anchored value",
]


def remove_concealed(text: str) -> str:
    """Return a text without what is concealed; without an end, the rest of the line."""
    return Concealment(lines=1).remove(text)


@pytest.mark.parametrize("name", ["secrets.yaml", "secrets.yml"])
def test_values_of_the_file(tmp_path: Path, name: str) -> None:
    """Every value is hidden, also inside a word; keys and short values are not."""
    (tmp_path / name).write_text(SECRETS)
    redactor = Redactor.load(tmp_path)
    for value in HIDDEN:
        assert redactor.clean(f"a\n<{value}>\nb") == f"a\n<{REDACTED}>\nb"
    kept = "abc true null wifi_ssid VARIABLE no wifi_password: key !custom"
    assert redactor.clean(kept) == kept


def test_no_secrets(tmp_path: Path) -> None:
    """Where there is no file there is nothing to hide."""
    (tmp_path / "secrets.yml").mkdir()
    os.mkfifo(tmp_path / "secrets.yaml")
    for folder in (tmp_path, tmp_path / "missing"):
        assert Redactor.load(folder).clean("as it is") == "as it is"


def test_both_files(tmp_path: Path) -> None:
    """Both names count, and so do links, folders below and included files."""
    config = tmp_path / "config"
    (config / "common").mkdir(parents=True)
    (config / ".hidden").mkdir()
    (tmp_path / "secrets.yaml").write_text("a: from above\n<<: !include more.yaml\n")
    (config / "more.yaml").write_text("b: from more\n<<: !include more.yaml\n")
    (config / "secrets.yaml").symlink_to("../secrets.yaml")
    (config / "secrets.yml").write_text(
        "c: !include {file: third.yaml, vars: {x: y}}\nd: !include [odd]\n"
    )
    (config / "third.yaml").write_text("- from third\n")
    (config / "common" / "secrets.yaml").write_text("e: from below\n")
    (config / ".hidden" / "secrets.yaml").write_text("f: from hidden\n")

    redactor = Redactor.load(config)

    for value in ("from above", "from more", "from third", "from below"):
        assert redactor.clean(value) == REDACTED
    assert redactor.clean("from hidden") == "from hidden"


def test_endless_includes(tmp_path: Path) -> None:
    """Files without end are not read without end."""
    (tmp_path / "secrets.yaml").write_text("<<: !include 0.yaml\n")
    for number in range(100):
        (tmp_path / f"{number}.yaml").write_text(
            f"- !include {number + 1}.yaml\n- value-{number}-\n"
        )
    redactor = Redactor.load(tmp_path)
    assert redactor.clean("value-60-") == REDACTED
    assert redactor.clean("value-70-") == "value-70-"


@pytest.mark.parametrize(
    "broken",
    [b"bad: [\n", b"bad: \xff\n", b" x: y\nz\n", b"a: " + b"[" * 1000 + b"\n"],
    ids=["syntax", "encoding", "indentation", "nesting"],
)
@pytest.mark.parametrize("first", [True, False])
def test_broken_file(tmp_path: Path, broken: bytes, first: bool) -> None:
    """A slip in the file does not uncover its values."""
    more = (
        b"<<: !include more.yaml\n"
        b"single: 'a ''quoted'' value'\n"
        b"url: http://me:pw@host:80/  # mine\n"
        b"# comment\n"
        b"- item of a list\n"
        b"hash: with#in\n"
    )
    content = SECRETS.encode() + more
    (tmp_path / "secrets.yaml").write_bytes(
        broken + content if first else content + broken
    )
    (tmp_path / "more.yaml").write_text("a: from another\n")
    redactor = Redactor.load(tmp_path)
    hidden = [
        "My Home Net",
        "hunter2 hunter2",
        "12345678",
        "MIIBaz==",
        "the first",
        "from another",
        "a ''quoted'' value",
        "http://me:pw@host:80/",
        "item of a list",
        "with#in",
    ]
    for value in hidden:
        assert redactor.clean(f"<{value}>") == f"<{REDACTED}>"
    kept = "abc true null wifi_ssid wifi_password comment"
    assert redactor.clean(kept) == kept


def test_bomb_and_lines_without_end(tmp_path: Path) -> None:
    """A hostile file costs no more than its size."""
    path = tmp_path / "secrets.yaml"
    laughs = "".join(f"l{i}: &l{i} [{f'*l{i - 1},' * 9}]\n" for i in range(1, 40))
    start = time.perf_counter()
    for content in (
        "l0: &l0 [laughter]\n" + laughs,
        "laughter: &a [*a, laughter]\n",
        "- laughter\n" + "- " * 500_000,
        "- laughter\n[" + " " * 900_000,
        "- laughter\n[" + "a" * 900_000,
    ):
        path.write_text(content)
        assert Redactor.load(tmp_path).clean("laughter") == REDACTED
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "value",
    ['quo"te and \\ slash', "tab\there", "Gäste-WLAN", "it's", "bell\a!", "smile 😀"],
)
def test_forms(value: str) -> None:
    """A value is found as it is, and as C++, JSON, Python and YAML print it."""
    octal = "".join(
        chr(byte) if 31 < byte < 127 and byte not in b'\\"' else f"\\{byte:03o}"
        for byte in value.encode()
    )
    redactor = Redactor([value])
    for form in (
        value,
        octal,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        value.replace("'", "''"),
    ):
        assert redactor.clean(f'"{form}"') == f'"{REDACTED}"'


def test_yaml_escapes() -> None:
    """A value is found as ESPHome's YAML prints it in double quotes."""
    redactor = Redactor(["bell\a and 😀 ü"])
    assert redactor.clean(r'"bell\a and \U0001F600 ü"') == f'"{REDACTED}"'


def test_folded_value() -> None:
    """A value that was folded because of its length is hidden on both lines."""
    redactor = Redactor(["correct horse battery", 'or "quoted" text'])
    text = "comment: the correct horse\n  battery it is\nend"
    assert redactor.clean(text) == f"comment: the {REDACTED}\n it is\nend"
    text = 'x: "or \\"quoted\\"\\\n  \\ text"\nend'
    assert redactor.clean(text) == f'x: "{REDACTED}\n"\nend'


def test_overlapping_values() -> None:
    """Of values that contain or overlap each other nothing is left."""
    redactor = Redactor(["secret", "abcdef", "defghi", "abcdefghijkl", "cdefg"])
    assert redactor.clean("-abcdefghijkl-") == f"-{REDACTED}-"
    assert redactor.clean("-abcdefghi-") == f"-{REDACTED}-"
    assert redactor.clean("secret") == REDACTED
    assert redactor.clean("abcdefsecret").replace(REDACTED, "") == ""


@pytest.mark.parametrize("filler", ["x", "ü", "…"])
def test_value_anywhere_in_a_long_text(filler: str) -> None:
    """A value is found wherever it stands, also across the windows of the search."""
    redactor = Redactor(["needle-in-a-haystack" * 5])
    needle = "needle-in-a-haystack" * 5
    for at in (0, 28_890, 28_936, 28_950, 29_000, 57_880, 65_000):
        text = f"{filler * at}{needle}{filler * 100}"
        assert redactor.clean(text) == f"{filler * at}{REDACTED}{filler * 100}"


@given(
    values=st.lists(st.text(alphabet="ab \n'\"", min_size=1, max_size=9), max_size=4),
    text=st.text(alphabet="ab \n'\"", max_size=60),
)
def test_number_of_lines_is_kept(values: list[str], text: str) -> None:
    """Whatever the values are, none is left and lines stay what they are."""
    cleaned = Redactor(values).clean(text)
    assert cleaned.count("\n") == text.count("\n")
    if cleaned == text:
        lines = [line.strip() for value in values for line in value.split("\n")]
        assert not any(line in text for line in lines if len(line) >= 4)


def test_cost_where_there_is_nothing_to_hide() -> None:
    """A piece of 64 KiB is passed in well under a millisecond."""
    characters = string.ascii_letters + string.digits
    source = random.Random(1)
    redactor = Redactor(
        "".join(source.choices(characters, k=source.randrange(8, 44)))
        for _ in range(20)
    )
    line = "\x1b[32mINFO\x1b[0m [{}/1200] Building src/esphome/components/wifi.cpp.o\n"
    text = "".join(map(line.format, range(1000)))[:65536]
    took = []
    for _ in range(20):
        start = time.thread_time()
        assert redactor.clean(remove_concealed(text)) is text
        took.append(time.thread_time() - start)
    # An ordinary host takes 0.1 ms.
    assert min(took) < 0.002


LITERALS = ("guest password one", "guest password two", "folded words", "ta\\tb")


@pytest.mark.real
@pytest.mark.parametrize("escape", ["\\033", "\x1b"])
def test_real_output(tmp_path: Path, escape: str) -> None:
    """What the real `esphome config` prints holds no secret after cleaning."""
    (tmp_path / "secrets.yaml").write_text(
        "wifi: hunter2hunter2\n"
        "key: bnJrY2hhb3NzZWNyZXRrZXkxMjM0NTY3ODkwYWJjZGU=\n"
        "ota: 'correct horse battery staple'\n"
        "lines: |\n  top secret text\n  more secret text\n"
    )
    folded = "folded words " * 8
    (tmp_path / "x.yaml").write_text(
        "substitutions:\n  ota: !secret ota\n"
        "esphome:\n  name: x\n"
        "  comment: 'the password is: ${ota}, and this is folded: ${ota} ${ota}'\n"
        "esp32:\n  variant: esp32\n"
        "api:\n  encryption:\n    key: !secret key\n"
        f"ota:\n  - platform: esphome\n    password: {folded}\n"
        'mqtt:\n  broker: host\n  username: me\n  password: "ta\\tb \\"q\\""\n'
        "wifi:\n  networks:\n"
        "    - ssid: Home\n      password: !secret wifi\n"
        "    - ssid: Guests\n"
        '      password: "guest password one\\nguest password two"\n'
        "    - ssid: Lines\n      password: !secret lines\n"
    )
    printed = subprocess.run(
        [ESPHOME, "--dashboard", "config", "x.yaml"],
        cwd=tmp_path,
        env={**os.environ, "ESPHOME_DATA_DIR": str(tmp_path / "data")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.replace("\\033", escape)
    for literal in (*LITERALS, "correct horse"):
        assert literal in printed

    redactor = Redactor.load(tmp_path)
    whole = redactor.clean(remove_concealed(printed))
    concealment = Concealment()
    by_line = [redactor.clean(concealment.remove(it)) for it in printed.split("\n")]

    assert whole.count("\n") == printed.count("\n") == len(by_line) - 1
    for cleaned in (whole, "\n".join(by_line)):
        for literal in (*LITERALS, "hunter2", "secret text", "bnJr"):
            assert literal not in cleaned
        assert "  use_address: x.local" in cleaned
    assert "correct horse" not in whole


def test_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read for a moment is no reason to hide nothing."""

    def _refuse(path: str) -> tuple[bytes, object]:
        raise OSError(24, "Too many open files", path)

    (tmp_path / "secrets.yaml").write_text("wifi: my-password\n")
    monkeypatch.setattr(secrets_module, "read", _refuse)
    with pytest.raises(OSError, match="Too many open files"):
        Redactor.load(tmp_path)
