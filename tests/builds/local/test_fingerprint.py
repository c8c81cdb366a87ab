"""What configurations are made of: real files of each kind, and the real ESPHome."""

from collections.abc import Callable
import os
from pathlib import Path
import re
import shutil
import subprocess
import time

from hypothesis import given, strategies as st
import pytest
import yaml

from custom_components.esphome_builds.builds.local import closure, files, reader
from custom_components.esphome_builds.builds.local.closure import (
    MAX_ALL_BYTES,
    MAX_DEPTH,
    MAX_PATHS,
)
from custom_components.esphome_builds.builds.local.files import MAX_BYTES
from custom_components.esphome_builds.builds.local.fingerprint import Fingerprints
from custom_components.esphome_builds.builds.local.references import content
from custom_components.esphome_builds.builds.local.yaml_tree import parse

ROOT = Path(__file__).parents[3]
ESPHOME = ROOT / ".local/esphome/bin/esphome"
NAME = "kitchen.yaml"
MANY = 300

KITCHEN = """\
substitutions: {which: one}
esphome:
  name: kitchen
  includes: [code.h, more]
packages:
  plain: !include common/base.yaml
  with_vars: !include {file: common/vars.yaml, vars: {pin: 3}}
  remote: github://somebody/something/shared.yaml@main
external_components:
  - source: parts
  - source: {type: git, url: https://example.com/parts.git, path: elsewhere}
wifi:
  <<: !include wifi.yaml
  password: !secret password
sensor: !include_dir_list sensors
switch: !include_dir_merge_list switches
text: !include_dir_named texts
image:
  - file: pictures/cat.png
logger: !include "level-${which}.yaml"
"""

FILES = {
    NAME: KITCHEN,
    "code.h": "int one();",
    "common/base.yaml": "api:\n  encryption:\n    key: !secret key\n",
    "common/secrets.yaml": "key: beside\nother: unused\n",
    "common/vars.yaml": "output: [{pin: $pin}]\n",
    "elsewhere/a.py": "not ours",
    "level-one.yaml": "level: DEBUG\n",
    "level-two.yaml": "level: INFO\n",
    "more/deep/b.cpp": "int two();",
    "parts/thing/__init__.py": "CODE = 1",
    "pictures/cat.png": "cat",
    "secrets.yaml": "<<: !include ../secrets.yaml\nkey: above\nunused: nothing\n",
    "sensors/a.yaml": "platform: a\n",
    "sensors/deep/b.yaml": "platform: b\n",
    "shared.yaml": "not: ours",
    "switches/a.yaml": "- platform: a\n",
    "texts/a.yaml": "platform: a\n",
    "wifi.yaml": "ssid: !secret ssid\n",
}


class Folder:
    """A folder of configurations, whose files look as if they were old."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        self.path = folder / "config"
        self.path.mkdir()
        self._age = 3600
        self._fingerprints = Fingerprints(self.path)

    def write(self, name: str, data: str | bytes) -> Path:
        """Write a file, which is newer than those before but old enough."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        self.settle(path)
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        """Write another text into a file in the place of one."""
        text = (self.path / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def remove(self, name: str) -> None:
        """Remove a file."""
        path = self.path / name
        path.unlink()
        self.settle(path.parent)

    def take(self, name: str = NAME) -> str | None:
        """Return a fingerprint, which must not depend on what was taken before."""
        (found,) = self._fingerprints.take_all([name]).values()
        assert found == Fingerprints(self.path).take(name)
        assert found == self._fingerprints.take(name)
        return found

    def settle(self, path: Path) -> None:
        """Make a file, and the folders it is in, look as if they were old."""
        self._age -= 1
        at = time.time() - self._age
        for each in (path, *path.parents):
            if each.is_relative_to(self.path):
                os.utime(each, (at, at))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a folder with one configuration, made of all kinds of things."""
    folder = Folder(tmp_path)
    for name, text in FILES.items():
        folder.write(name, text)
    folder.write("../secrets.yaml", "password: secret\nssid: home\nmore: nothing\n")
    return folder


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        pytest.param(NAME, "esphome:", "# A comment.\n\nesphome:", id="comment"),
        pytest.param(NAME, "{type: git,", '{"type":   git,', id="style"),
        pytest.param(NAME, "substitutions", "x: 1\n---\nsubstitutions", id="front"),
        pytest.param("common/base.yaml", "key: !", "key:   !", id="included"),
        pytest.param("common/secrets.yaml", "unused", "changed", id="other secret"),
        pytest.param("secrets.yaml", "above", "changed", id="hidden secret"),
        pytest.param("../secrets.yaml", "nothing", "changed", id="secret outside"),
        pytest.param("elsewhere/a.py", "ours", "changed", id="not from here"),
        pytest.param("shared.yaml", "ours", "changed", id="package from elsewhere"),
    ],
)
def test_no_difference(folder: Folder, name: str, old: str, new: str) -> None:
    """What makes no difference for ESPHome makes none."""
    before = folder.take()
    assert before is not None
    folder.edit(name, old, new)
    assert folder.take() == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (NAME, "name: kitchen", "name: bath"),
        (NAME, "pin: 3", "pin: 4"),
        (NAME, "@main", "@next"),
        (NAME, "which: one", "which: two"),
        (NAME, "  - file:", "  - !remove file:"),
        (NAME, "password: !secret password", "password: !secret ssid"),
        ("common/base.yaml", "api", "web_server"),
        ("common/secrets.yaml", "beside", "changed"),
        ("common/secrets.yaml", "key:", "keys:"),
        ("common/vars.yaml", "$pin", "5"),
        ("../secrets.yaml", "home", "changed"),
        ("../secrets.yaml", "password: ", "passwords: "),
        ("secrets.yaml", "<<: !include ../secrets.yaml", ""),
        ("secrets.yaml", "<<:", "ssid: other\n<<:"),
        ("sensors/deep/b.yaml", "b", "c"),
        ("switches/a.yaml", "a", "b"),
        ("texts/a.yaml", "a", "b"),
        ("wifi.yaml", "ssid: ", "password: "),
        ("level-one.yaml", "DEBUG", "INFO"),
        ("level-two.yaml", "INFO", "DEBUG"),
        ("code.h", "one", "two"),
        ("more/deep/b.cpp", "two", "one"),
        ("parts/thing/__init__.py", "1", "2"),
        ("pictures/cat.png", "cat", "dog"),
    ],
)
def test_difference(folder: Folder, name: str, old: str, new: str) -> None:
    """Whatever is read from this host counts, and as before when it is as before."""
    before = folder.take()
    was = (folder.path / name).read_text()
    folder.edit(name, old, new)
    changed = folder.take()
    folder.write(name, was)
    assert None not in (before, changed)
    assert changed != before
    assert folder.take() == before


@pytest.mark.parametrize(
    "name",
    [
        "code.h",
        "common/base.yaml",
        "common/secrets.yaml",
        "level-two.yaml",
        "parts/thing/__init__.py",
        "pictures/cat.png",
        "secrets.yaml",
        "sensors/a.yaml",
        "wifi.yaml",
    ],
)
def test_file_goes_and_comes(folder: Folder, name: str) -> None:
    """It is seen when a file goes, and when it comes back."""
    before = folder.take()
    folder.remove(name)
    without = folder.take()
    folder.write(name, FILES[name])
    assert None not in (before, without)
    assert without != before
    assert folder.take() == before


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sensors/c.yaml", True),
        ("sensors/new/c.yaml", True),
        ("sensors/c.txt", False),
        ("sensors/.c.yaml", False),
        ("sensors/secrets.yaml", False),
        ("sensors/.git/c.yaml", False),
        ("parts/thing/sensor.py", True),
        ("parts/thing/__pycache__/sensor.pyc", False),
        ("level-three.yaml", True),
        ("other.yaml", False),
    ],
)
def test_new_file(folder: Folder, name: str, *, counts: bool) -> None:
    """A new file counts where ESPHome takes all there are."""
    before = folder.take()
    folder.write(name, "platform: c\n")
    assert (folder.take() != before) == counts


def test_same_secret(folder: Folder) -> None:
    """What a secret is called makes no difference, but whether two are one does."""
    folder.write("secrets.yaml", "a: same\nb: same\nc: other\n")
    found = []
    for names in ("aac", "bbc", "acc", "caa", "aca", "ccc"):
        folder.write(NAME, "".join(f"- !secret {name}\n" for name in names))
        found.append(folder.take())
    assert found[0] == found[1]
    assert len(set(found)) == 5


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("a: !secret here", "here: !secret there\nthere: {}\n"),
        ("a: !secret here", "here: !include {{file: {}.yaml}}\n"),
        ("a: !secret here", "x: &x\n  here: {}\n<<: [*x, *x]\n"),
        ("a: !secret here", "<<: [!include secrets.yaml, !include {}.yaml]\n"),
        ("a: !secret here", "!include {}.yaml\n"),
    ],
)
def test_secret_that_is_more(folder: Folder, text: str, secrets: str) -> None:
    """Values of secrets may come from elsewhere, as in any YAML."""
    folder.write("one.yaml", "here: 1\n")
    folder.write("two.yaml", "here: 2\n")
    folder.write(NAME, text)
    found = []
    for value in ("one", "two"):
        folder.write("secrets.yaml", secrets.format(value))
        found.append(folder.take())
    assert None not in found
    assert found[0] != found[1]


def test_secret_of_nobody(folder: Folder) -> None:
    """A secret that is not there differs from one that is."""
    folder.write(NAME, "a: !secret here\n")
    found = set()
    for text in ("here: 1", "there: 1", "- here", "a: !include secrets.yaml"):
        folder.write("secrets.yaml", text)
        found.add(folder.take())
    folder.remove("secrets.yaml")
    found.add(folder.take())
    # Where it is missing it does not matter what else is there.
    assert len(found) == 2


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: [", id="broken"),
        pytest.param(b"a: \xff", id="other encoding"),
        pytest.param("a: 1\n---\nb: 2\n---\nc: 3\n", id="documents"),
        pytest.param(f"a: {'x' * MAX_BYTES}", id="large"),
        pytest.param("[" * 300, id="deep"),
    ],
)
@pytest.mark.parametrize("name", [NAME, "wifi.yaml", "secrets.yaml"])
def test_unknown(folder: Folder, name: str, text: str | bytes) -> None:
    """Where a file cannot be understood nothing is known, until it can."""
    before = folder.take()
    was = (folder.path / name).read_text()
    folder.write(name, text)
    assert folder.take() is None
    folder.write(name, was)
    assert folder.take() == before


@pytest.mark.parametrize(
    "text",
    [
        'a: !include "${dir}/a.yaml"',
        'a: !include "${name}.yaml"',
        "a: !include '<% if x %>'",
        pytest.param(f"a: !include {'x' * 600}.yaml", id="long"),
        "a: !include pipe",
        "a: !include sensors",
    ],
)
def test_cannot_be_followed(folder: Folder, text: str) -> None:
    """Where nobody can tell what is included nothing is known, and nobody waits."""
    os.mkfifo(folder.path / "pipe")
    folder.write(NAME, text)
    assert folder.take() is None


@pytest.mark.parametrize(
    "text",
    [
        "a: !include kitchen.yaml",
        "a: !include other.yaml",
        "<<: !include missing.yaml",
        'a: !include "a\\0b.yaml"',
        'a: !include_dir_list "a\\0b"',
        "a: !include_dir_list code.h",
        "a: !include_dir_named .",
        "a: !include {vars: {b: 1}}",
        "a: !include [b]",
        "a: !secret [b]",
        "a: !include_dir_list {b: c}",
        "a: &a [*a, *a]",
        "path: pipe",
        "path: .",
        "path: ..",
        "path: /",
        "",
        "null",
        "- a",
        "!include wifi.yaml",
    ],
)
def test_strange_but_known(folder: Folder, text: str) -> None:
    """Whatever is written has a fingerprint, even if ESPHome refuses it."""
    os.mkfifo(folder.path / "pipe")
    folder.write("other.yaml", "b: !include kitchen.yaml\n")
    folder.write(NAME, text)
    before = folder.take()
    assert before is not None
    folder.edit(NAME, text, f"{text} # Nothing else.")
    assert folder.take() == before


def test_nested_too_deep(folder: Folder) -> None:
    """Includes are followed for some way, and no further."""
    for depth in range(MAX_DEPTH + 2):
        folder.write(f"{depth}.yaml", f"a: !include {depth + 1}.yaml\n")
    folder.write(f"{MAX_DEPTH + 2}.yaml", "end: 1")
    assert folder.take("2.yaml") is not None
    assert folder.take("1.yaml") is None


def test_secrets_too_deep(folder: Folder) -> None:
    """Secrets are looked for in some files, and not without end."""
    folder.write(NAME, "a: !secret here\n")
    folder.write("secrets.yaml", "<<: !include 0.yaml\n")
    for depth in range(MAX_DEPTH + 2):
        folder.write(f"{depth}.yaml", f"<<: !include {depth + 1}.yaml\n")
    assert folder.take() is None
    folder.write("secrets.yaml", "<<: !include missing.yaml\n")
    assert folder.take() is None
    # Each leads to all of the next ones, in more ways than there is time for.
    levels = [
        f"{level}: [!secret {level + 1}, [!secret {level + 2}]]\n"
        for level in range(18)
    ]
    folder.write("secrets.yaml", "here: !secret 0\n" + "".join(levels))
    assert folder.take() is None


def test_too_much(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are bounds for everything."""
    for limit in ("MAX_ALL_BYTES", "MAX_PARTS", "MAX_PATHS"):
        with monkeypatch.context() as patch:
            patch.setattr(closure, limit, 10)
            assert Fingerprints(folder.path).take(NAME) is None
    assert folder.take() is not None
    assert MAX_ALL_BYTES >= 10 * MAX_BYTES
    assert MAX_PATHS >= 1000


def test_large_file(folder: Folder) -> None:
    """A large file is not read: its size and time count."""
    before = folder.take()
    path = folder.write("pictures/cat.png", b"x" * (MAX_BYTES + 1))
    larger = folder.take()
    assert larger not in (None, before)
    path.write_bytes(b"y" * (MAX_BYTES + 1))
    folder.settle(path)
    assert folder.take() not in (None, before, larger)


def test_links(folder: Folder, tmp_path: Path) -> None:
    """A link counts for what it leads to; what is named outside is not read."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.yaml").write_text("a: 1")
    (outside / "a.h").write_text("a")
    (outside / "sub").mkdir()
    folder.write("in.h", "in")
    for name, target in (("a.yaml", "a.yaml"), ("a.h", "a.h"), ("more/a.h", "a.h")):
        (folder.path / name).symlink_to(outside / target)
    (folder.path / "more" / "in.h").symlink_to(folder.path / "in.h")
    (folder.path / "more" / "sub").symlink_to(outside / "sub")
    (folder.path / "more" / "parts").symlink_to(folder.path / "parts")
    folder.write(
        NAME, "a: !include a.yaml\nincludes: [a.h, more, ../outside, ../outside/a.h]\n"
    )
    found = [folder.take()]
    (outside / "a.h").write_text("b")
    assert folder.take() == found[0]
    (outside / "a.yaml").write_text("a: 2")
    found.append(folder.take())
    folder.write("in.h", "other")
    found.append(folder.take())
    (folder.path / "a.yaml").unlink()
    (folder.path / "a.yaml").symlink_to("wifi.yaml")
    found.append(folder.take())
    assert len(set(found)) == 4
    assert None not in found


def test_unreadable_for_a_moment(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read now is not taken for something else, and is read later."""
    fingerprints = Fingerprints(folder.path)

    def _refuse(path: object) -> None:
        raise OSError(24, "Too many open files", path)

    for module, name in ((reader, "read"), (os, "scandir")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _refuse)
            assert fingerprints.take(NAME) is None
    assert fingerprints.take(NAME) == folder.take()


def test_written_just_now(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changes within one tick of a file's clock are told apart."""

    def _of_one_tick(status: os.stat_result) -> files.Signature:
        return status.st_mtime_ns, status.st_size, status.st_ino, 0

    for module in (files, reader):
        monkeypatch.setattr(module, "signature", _of_one_tick)
    fingerprints = Fingerprints(folder.path)
    path = folder.path / "wifi.yaml"
    now = time.time_ns()
    found = []
    for ssid in ("one", "two"):
        path.write_text(f"ssid: {ssid}\n")
        os.utime(path, ns=(now, now))
        found.append(fingerprints.take(NAME))
    assert found[0] != found[1]


def test_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many that share some: each file is read once, and then none as long as it is."""
    folder = Folder(tmp_path)
    shared = [f"shared/{number}.yaml" for number in range(20)]
    for name in shared:
        folder.write(name, "sensor:\n  - platform: template\n")
    includes = "".join(f"  - !include {name}\n" for name in shared)
    names = [f"{number}.yaml" for number in range(MANY)]
    for name in names:
        folder.write(name, f"esphome: {{name: {name}}}\npackages:\n{includes}")
    reads: list[str] = []
    read = files.read

    def _read(path: str) -> object:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(reader, "read", _read)
    looks: list[str] = []
    stat = os.stat

    def _stat(path: str, **kwargs: bool) -> os.stat_result:
        looks.append(path)
        return stat(path, **kwargs)

    fingerprints = Fingerprints(folder.path)
    first = fingerprints.take_all(names)
    assert len(set(first.values()) - {None}) == MANY
    assert len(reads) == len(set(reads)) == MANY + len(shared)

    reads.clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", _stat)
        start = time.thread_time()
        assert fingerprints.take_all(names) == first
        took = time.thread_time() - start
    assert not reads
    assert len(looks) == MANY + len(shared)
    # An ordinary host takes 3 ms.
    assert took < 0.3

    folder.write(shared[0], "switch:\n")
    assert not set(fingerprints.take_all(names).values()) & set(first.values())
    assert len(reads) == 1

    # Of what is gone nothing is kept.
    fingerprints.take_all([])
    reads.clear()
    fingerprints.take_all(names[:1])
    assert len(reads) == 1 + len(shared)


_TEXTS = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=8)
_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(_TREES, _TREES)
def test_any_tree(one: object, other: object) -> None:
    """Two trees have one digest where they are the same, however they are written."""

    def _digest(tree: object, *, flow: bool) -> bytes:
        text = yaml.safe_dump(
            tree, default_flow_style=flow, allow_unicode=True, sort_keys=False
        )
        return content(parse(f"# Something.\n{text}")[0]).digest

    assert _digest(one, flow=True) == _digest(one, flow=False)
    same = repr(one) == repr(other)
    assert (_digest(one, flow=True) == _digest(other, flow=True)) == same


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "counts"),
    [
        pytest.param(
            lambda folder: _replace(folder / "kettle.yaml", "stop", "halt"),
            False,
            id="comment",
        ),
        pytest.param(
            lambda folder: _replace(folder / "kettle.yaml", "Heater", "Heating"),
            True,
            id="name",
        ),
        pytest.param(
            lambda folder: _replace(
                folder / "common.yaml", "logger:", "logger:\n  level: INFO"
            ),
            True,
            id="package",
        ),
        pytest.param(
            lambda folder: _replace(folder / "secrets.yaml", ": ", ": changed-"),
            True,
            id="secret",
        ),
    ],
)
def test_as_the_real_esphome(
    tmp_path: Path, edit: Callable[[Path], None], *, counts: bool
) -> None:
    """What changes ESPHome's own hash of a configuration changes the fingerprint."""
    folder = shutil.copytree(ROOT / "examples", tmp_path / "config")
    environment = {**os.environ, "ESPHOME_DATA_DIR": str(tmp_path / "data")}

    def _hash() -> str:
        output = subprocess.run(
            [ESPHOME, "config-hash", "kettle.yaml"],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        (found,) = re.findall("0x[0-9a-f]{8}", output)
        return str(found)

    fingerprints = Fingerprints(folder)
    before = fingerprints.take("kettle.yaml"), _hash()
    assert None not in before
    edit(folder)
    after = fingerprints.take("kettle.yaml"), _hash()
    assert None not in after
    assert [one != other for one, other in zip(before, after, strict=True)] == [
        counts,
        counts,
    ]
