"""What is in a folder of configurations, against real files."""

from collections.abc import Callable
import errno
import json
import os
from pathlib import Path
import subprocess
import threading
import time
import tracemalloc
from typing import Any

import pytest

from custom_components.esphome_builds.builds.local import built as built_module, files
from custom_components.esphome_builds.builds.local.built import read_storage
from custom_components.esphome_builds.builds.local.configurations import (
    ConfigurationFolder,
    InvalidName,
    is_configuration_name,
)
from custom_components.esphome_builds.builds.models import Configuration

ESPHOME = Path(__file__).parents[3] / ".local/esphome/bin/esphome"
TOO_DEEP = "it is nested over 200 levels deep"
KITCHEN = """\
esphome:
  name: kitchen
  friendly_name: Kitchen
  area: Ground floor
  comment: Above the sink
host:
"""


class Folder:
    """A folder of configurations beside what ESPHome keeps of them."""

    def __init__(self, tmp_path: Path) -> None:
        """Make both folders."""
        self.config_dir = tmp_path / "config"
        self.data_dir = tmp_path / "data"
        self.config_dir.mkdir()
        (self.data_dir / "storage").mkdir(parents=True)
        self.folder = self.another()

    def another(self) -> ConfigurationFolder:
        """Return one that has seen nothing yet."""
        return ConfigurationFolder(
            entry_id="entry", config_dir=self.config_dir, data_dir=self.data_dir
        )

    def write(self, content: str | bytes, name: str = "kitchen.yaml") -> Path:
        """Write a file that looks as if it were a minute old."""
        path = self.config_dir / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        minute_ago = time.time() - 60
        os.utime(path, (minute_ago, minute_ago))
        return path

    def scan(self) -> dict[str, Configuration]:
        """Look at the folder."""
        return self.folder.scan()

    def only(self) -> Configuration:
        """Return the one configuration."""
        (found,) = self.scan().values()
        return found

    def store(self, **changes: object) -> Path:
        """Write what ESPHome stores of `kitchen.yaml`."""
        build = self.data_dir / "build" / "kitchen"
        content: Any = {
            "storage_version": 1,
            "name": "stored-name",
            "friendly_name": "Stored name",
            "comment": "Stored comment",
            "area": "Stored area",
            "core_platform": "esp32",
            "esphome_version": "2026.9.1",
            "build_path": str(build),
            "firmware_bin_path": str(build / "firmware.bin"),
        }
        path = self.data_dir / "storage" / "kitchen.yaml.json"
        path.write_text(json.dumps(content | changes))
        return path

    def build(self, info: object, *, age: float = 0) -> None:
        """Write a build's files; its firmware is so much older than the rest."""
        build = self.data_dir / "build" / "kitchen"
        build.mkdir(parents=True, exist_ok=True)
        (build / "build_info.json").write_text(json.dumps(info))
        (build / "firmware.bin").touch()
        then = time.time() - age
        os.utime(build / "firmware.bin", (then, then))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return an empty folder."""
    return Folder(tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are opened from now on."""
    names: list[str] = []
    real = os.open

    def _open(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_NOFOLLOW:
            names.append(Path(path).name)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", _open)
    return names


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".yaml",
        ".hidden.yaml",
        "-rf.yaml",
        "../kitchen.yaml",
        "/kitchen.yaml",
        "a/b.yaml",
        "a\\b.yaml",
        "a\0.yaml",
        "a\n.yaml",
        "a\x7f.yaml",
        "a\x9b.yaml",
        "a\udcff.yaml",
        "kitchen.json",
        "kitchen.yaml.bak",
        "secrets.yaml",
        "secrets.yml",
        "ü" * 126 + ".yaml",
    ],
)
def test_name_that_is_none(folder: Folder, name: str) -> None:
    """A name that could be something else is refused before a file is looked at."""
    assert not is_configuration_name(name)
    with pytest.raises(InvalidName):
        folder.folder.resolve(name)


@pytest.mark.parametrize(
    "name", ["k.yaml", "k.yml", "Küche 2.yaml", "ü" * 125 + ".yaml"]
)
def test_name(name: str) -> None:
    """Every other name with the ending of YAML can be a configuration."""
    assert is_configuration_name(name)


def test_resolve(folder: Folder, tmp_path: Path) -> None:
    """Only a regular file of the folder has a path."""
    path = folder.write(KITCHEN)
    outside = tmp_path / "outside.yaml"
    outside.write_text(KITCHEN)
    config = folder.config_dir
    (config / "inside.yaml").symlink_to("kitchen.yaml")
    (config / "out.yaml").symlink_to(outside)
    (config / "loop.yaml").symlink_to("loop.yaml")
    (config / "folder.yaml").mkdir()
    os.mkfifo(config / "pipe.yaml")

    assert folder.folder.resolve("kitchen.yaml") == path
    assert folder.folder.resolve("inside.yaml") == config / "inside.yaml"
    with pytest.raises(FileNotFoundError):
        folder.folder.resolve("missing.yaml")
    for name in ("out.yaml", "loop.yaml", "folder.yaml", "pipe.yaml"):
        with pytest.raises(InvalidName):
            folder.folder.resolve(name)


def test_which_files_are_configurations(folder: Folder, tmp_path: Path) -> None:
    """Files of the folder itself that ESPHome would build, sorted, and no others."""
    outside = tmp_path / "outside.yaml"
    outside.write_text(KITCHEN)
    config = folder.config_dir
    folder.write(KITCHEN, "b.yaml")
    folder.write(KITCHEN, "a.yml")
    folder.write("packages: !include common.yaml\n", "packages.yaml")
    folder.write("<<: !include common.yaml\n", "merged.yaml")
    folder.write("<<: [*x]\n", "broken.yaml")
    folder.write("--- !include common.yaml\n", "included.yaml")
    folder.write("esphomeyaml:\n  name: old\n", "old.yaml")
    folder.write("meta: data\n---\n" + KITCHEN, "frontmatter.yaml")
    (config / "link.yaml").symlink_to("b.yaml")
    for name in ("secrets.yaml", ".hidden.yaml", "b.yaml.bak"):
        folder.write(KITCHEN, name)
    folder.write("sensor:\n", "common.yaml")
    folder.write("x: &x {a: 1}\n<<: *x\n", "common2.yaml")
    folder.write("- esphome\n", "list.yaml")
    folder.write("esphome\n", "text.yaml")
    folder.write("", "empty.yaml")
    folder.write("# Nothing\n", "comment.yaml")
    folder.write(KITCHEN + "---\n", "emptied.yaml")
    (config / "out.yaml").symlink_to(outside)
    (config / "dangling.yaml").symlink_to("gone.yaml")
    (config / "loop.yaml").symlink_to("loop.yaml")
    (config / "folder.yaml").mkdir()
    (config / "below").mkdir()
    folder.write(KITCHEN, "below/c.yaml")
    os.mkfifo(config / "pipe.yaml")

    found = folder.scan()

    assert list(found) == [
        "a.yml",
        "b.yaml",
        "broken.yaml",
        "frontmatter.yaml",
        "included.yaml",
        "link.yaml",
        "merged.yaml",
        "old.yaml",
        "packages.yaml",
    ]
    assert [name for name, it in found.items() if it.error] == ["broken.yaml"]
    assert folder.scan() == found


def test_metadata_before_a_build(folder: Folder) -> None:
    """Before a build the file tells what it can, and everything else is unknown."""
    folder.write(KITCHEN)
    assert folder.only() == Configuration(
        entry_id="entry",
        configuration="kitchen.yaml",
        name="kitchen",
        friendly_name="Kitchen",
        area="Ground floor",
        comment="Above the sink",
        platform="host",
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Plain", "Plain"),
        ("'it''s'", "it's"),
        ('"\\u00fc"', "ü"),
        ("Costs 5 $", "Costs 5 $"),
        ("12", "12"),
        ("!!str 1.10", "1.10"),
        ("$name", "lamp"),
        ("The ${name} $room_1!", "The lamp Hall!"),
        ("${chain}", "x lamp"),
        ("${dollar}", "lamp"),
        ("${number}", "7"),
        ("*anchored", "Anchored"),
        ("|-\n    two\n    lines", "two\nlines"),
        # What follows only ESPHome can tell.
        ("${missing}", None),
        ("$missing", None),
        ("${name | upper}", None),
        ("<% if name %>x<% endif %>", None),
        ("${expression}", None),
        ("${cycle}", None),
        ("a $cycle", None),
        ("${secret}", None),
        ("${list}", None),
        ("${nothing}", None),
        ("${version}", None),
        ("1.10", None),
        ("yes", None),
        ("0x10", None),
        ("[a]", None),
        ("{name: }", None),
        ("!secret name", None),
        ("!include name.txt", None),
        ("!env_var NAME", None),
        ("!lambda |-\n    return 1;", None),
        ("!remove", None),
        ("!extend name", None),
        ("!anything {a: b}", None),
        # And here there is nothing to tell.
        ("", None),
        ("~", None),
        ('""', None),
        pytest.param("x" * 1025, None, id="too long"),
        ("${long}${long}", None),
    ],
)
def test_values(folder: Folder, value: str, expected: str | None) -> None:
    """A value is what ESPHome will take it for, or unknown; never raw or a guess."""
    folder.write(
        "substitutions:\n"
        "  name: lamp\n"
        "  room_1: Hall\n"
        "  chain: x $link\n"
        "  link: ${name}\n"
        "  $dollar: lamp\n"
        "  number: 7\n"
        "  version: 1.10\n"
        "  expression: ${1 + 1}\n"
        "  cycle: ${cycle2}\n"
        "  cycle2: ${cycle}\n"
        "  secret: !secret name\n"
        "  list: [a]\n"
        "  nothing:\n"
        f"  long: {'x' * 1000}\n"
        ".anchor: &anchored Anchored\n"
        f"esphome:\n  name: a\n  comment: {value}\n"
    )
    found = folder.only()
    assert (found.error, found.name) == (None, "a")
    assert found.comment == expected


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("{id: hall_id, name: Hall}", "Hall"),
        ("{id: hall_id, name: !secret x}", None),
        ("{id: hall_id}", None),
    ],
)
def test_area_with_an_id(folder: Folder, yaml: str, expected: str | None) -> None:
    """An area can be a mapping with a name."""
    folder.write(f"esphome:\n  name: a\n  area: {yaml}\n")
    assert folder.only().area == expected


def test_merge_keys_and_duplicates(folder: Folder) -> None:
    """Merged mappings count where the file itself says nothing; the last key counts."""
    folder.write(
        ".base: &base\n"
        "  <<: &deeper {friendly_name: Deeper, area: Deeper}\n"
        "  comment: Base\n"
        "  friendly_name: Base\n"
        ".more: &more {comment: More, area: More}\n"
        ".last: &last {comment: Last, friendly_name: Last, area: Last}\n"
        "esphome:\n"
        "  <<: [*base, *more]\n"
        "  <<: *last\n"
        "  name: first\n"
        "  name: second\n"
        "  ? [a, b]\n"
        "  : complex\n"
    )
    found = folder.only()
    assert (found.error, found.name) == (None, "second")
    assert (found.friendly_name, found.area, found.comment) == (
        "Base",
        "Deeper",
        "Base",
    )


@pytest.mark.parametrize(
    "platform",
    ["bk72xx", "esp32", "esp8266", "host", "ln882x", "nrf52", "rp2040", "rtl87xx"],
)
def test_platform(folder: Folder, platform: str) -> None:
    """The platform is the one whose key stands in the file."""
    folder.write(f"{platform}:\n  board: x\nesphome:\n  name: a\n")
    assert folder.only().platform == platform


def test_the_file_outweighs_the_last_build(folder: Folder) -> None:
    """What was renamed or removed in the file since the build is seen at once."""
    folder.store()
    folder.write(
        "esphome:\n"
        "  name: ${unknown}\n"
        "  friendly_name: Renamed\n"
        "  area: !secret area\n"
        "host:\n"
    )
    found = folder.only()
    assert found.friendly_name == "Renamed"
    assert found.comment is None
    assert (found.name, found.area) == ("stored-name", "Stored area")
    assert found.platform == "host"


@pytest.mark.parametrize(
    "yaml",
    [
        "packages:\n  base: !include base.yaml\nesphome:\n  friendly_name: Mine\n",
        "<<: !include base.yaml\nesphome:\n  friendly_name: Mine\n",
        "esphome:\n  <<: !include base.yaml\n  friendly_name: Mine\n",
    ],
)
def test_the_last_build_knows_what_comes_from_elsewhere(
    folder: Folder, yaml: str
) -> None:
    """Where other files add to this one, only the last build knows what they add."""
    folder.write(yaml)
    assert folder.only().comment is None
    folder.store()
    found = folder.only()
    assert found.friendly_name == "Mine"
    assert (found.name, found.comment) == ("stored-name", "Stored comment")
    assert (found.area, found.platform) == ("Stored area", "esp32")


@pytest.mark.parametrize("yaml", ["esphome: !include base.yaml\n", "a: [\n"])
def test_the_last_build_knows_what_the_file_does_not_say(
    folder: Folder, yaml: str
) -> None:
    """A file that says nothing that can be read keeps the names of its last build."""
    folder.write(yaml)
    folder.store()
    assert folder.only().friendly_name == "Stored name"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (
            "esphome:\n  name: a\n b: c\n",
            "Line 3 of kitchen.yaml is not valid YAML: did not find expected key.",
        ),
        (
            "esphome:\n  name: *gone\n",
            "Line 2 of kitchen.yaml is not valid YAML: an alias has no anchor.",
        ),
        (
            "a: &a 1\n---\na: *a\n",
            "Line 3 of kitchen.yaml is not valid YAML: an alias has no anchor.",
        ),
        (
            "esphome:\n  name: a\n---\na: b\n---\nc: d\n",
            "Line 5 of kitchen.yaml is not valid YAML: a third document begins.",
        ),
        (
            "esphome:\n  name: a\x01\n",
            "Line 2 of kitchen.yaml is not valid YAML: there is a control character.",
        ),
        (
            b"esphome:\n  name: \xff\n",
            "Line 2 of kitchen.yaml is not UTF-8 text.",
        ),
    ],
)
def test_unreadable_file(folder: Folder, content: str | bytes, error: str) -> None:
    """A file that cannot be understood says why, and where, in one sentence."""
    folder.write(content)
    assert folder.only().error == error


@pytest.mark.parametrize(
    ("start", "more", "count", "error"),
    [
        (KITCHEN, "#", 1024 * 1024, "kitchen.yaml is larger than 1024 KiB."),
        (
            KITCHEN + "a: ",
            "[",
            500_000,
            f"Line 7 of kitchen.yaml is not valid YAML: {TOO_DEEP}.",
        ),
        ("", "- ", 400_000, f"Line 1 of kitchen.yaml is not valid YAML: {TOO_DEEP}."),
    ],
)
def test_file_too_large_or_too_deep(
    folder: Folder, start: str, more: str, count: int, error: str
) -> None:
    """A file that would take long to read is not read to its end."""
    folder.write(start + more * count)
    begun = time.thread_time()
    assert folder.only().error == error
    assert time.thread_time() - begun < 1


def test_error_is_gone_when_the_file_is_right_again(folder: Folder) -> None:
    """A corrected file is an ordinary configuration."""
    folder.write("a: [\n")
    assert folder.only().error is not None
    folder.write(KITCHEN)
    assert folder.only().error is None


def test_no_permission(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read says so, and is tried again."""
    folder.write(KITCHEN)

    def _refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _refuse)
        error = "kitchen.yaml cannot be read: Permission denied."
        assert folder.only().error == error
    assert folder.only().error is None


def test_byte_order_mark(folder: Folder) -> None:
    """The mark that some editors write does not belong to the content."""
    folder.write("\ufeff" + KITCHEN)
    assert folder.only().name == "kitchen"


def test_expansion_bombs(folder: Folder) -> None:
    """Aliases and substitutions that grow without end cost nothing."""
    laughs = "".join(f"l{i}: &l{i} [{f'*l{i - 1},' * 9}]\n" for i in range(1, 40))
    folder.write("l0: &l0 [x]\n" + laughs + KITCHEN, "aliases.yaml")
    doubled = "".join(f"  s{i}: $s{i - 1}$s{i - 1}\n" for i in range(1, 2000))
    block = "esphome:\n  name: a\n  comment: $s1999\n  area: $s30\n"
    for first in ("x", '""'):
        folder.write(
            f"substitutions:\n  s0: {first}\n{doubled}{block}", f"{first}.yaml"
        )
    folder.write("a: &a [*a]\nesphome:\n  <<: *a\n  name: cyclic\n", "cyclic.yaml")

    start = time.perf_counter()
    found = folder.scan()

    assert time.perf_counter() - start < 5
    assert found["aliases.yaml"].name == "kitchen"
    assert found["cyclic.yaml"].name == "cyclic"
    assert found["x.yaml"].comment is None
    assert {it.error for it in found.values()} == {None}


def test_many_long_substitutions(folder: Folder) -> None:
    """A text too long to be shown is not put together first."""
    folder.write(
        f"substitutions:\n  long: {'x' * 1000}\n"
        f"esphome:\n  name: a\n  comment: {'$long-' * 20_000}\n"
    )
    tracemalloc.start()
    found = folder.only()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.error, found.comment) == (None, None)
    assert peak < 5_000_000


def test_long_chain_of_substitutions(folder: Folder) -> None:
    """A chain too long to follow is unknown, without exhausting the stack."""
    chain = "".join(f"  s{i}: $s{i - 1}\n" for i in range(1, 5000))
    folder.write(
        f"substitutions:\n  s0: x\n{chain}"
        "esphome:\n  name: a\n  comment: $s4999\n  area: $s9\n"
    )
    found = folder.only()
    assert (found.comment, found.area) == (None, "x")


def test_unchanged_files_are_not_read_again(folder: Folder, reads: list[str]) -> None:
    """A second look costs no reading, and finds the same objects."""
    folder.write(KITCHEN)
    folder.write("sensor:\n", "common.yaml")
    folder.store()
    folder.build({"config_hash": 1})
    first = folder.scan()
    assert sorted(reads) == [
        "build_info.json",
        "common.yaml",
        "kitchen.yaml",
        "kitchen.yaml.json",
    ]
    reads.clear()
    second = folder.scan()
    assert not reads
    assert second["kitchen.yaml"] is first["kitchen.yaml"]


def test_only_what_changed_is_read(folder: Folder, reads: list[str]) -> None:
    """One changed file is one file read; the others stay the same objects."""
    folder.write(KITCHEN)
    folder.write(KITCHEN, "other.yaml")
    first = folder.scan()
    reads.clear()
    folder.write(KITCHEN.replace("Kitchen", "Küche"))
    second = folder.scan()
    assert reads == ["kitchen.yaml"]
    assert second["kitchen.yaml"].friendly_name == "Küche"
    assert second["other.yaml"] is first["other.yaml"]


def test_touched_file_is_the_same_object(folder: Folder, reads: list[str]) -> None:
    """A file that was written with the same content is no change."""
    path = folder.write(KITCHEN)
    first = folder.only()
    os.utime(path, (1, 1))
    reads.clear()
    assert folder.only() is first
    assert reads == ["kitchen.yaml"]


def test_file_written_just_now_is_read_again(
    folder: Folder, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change within the grain of the file system's clock is not missed."""
    path = folder.config_dir / "kitchen.yaml"
    path.write_text(KITCHEN)
    status = path.stat()
    assert folder.only().friendly_name == "Kitchen"
    path.write_text(KITCHEN.replace("Kitchen", "Chicken"))
    real = files.signature
    monkeypatch.setattr(
        files,
        "signature",
        lambda now: real(status if now.st_ino == status.st_ino else now),
    )
    assert folder.only().friendly_name == "Chicken"


def test_file_comes_and_goes(folder: Folder) -> None:
    """A removed file is no configuration any more, and can come back."""
    path = folder.write(KITCHEN)
    assert list(folder.scan()) == ["kitchen.yaml"]
    path.unlink()
    assert not folder.scan()
    folder.write("sensor:\n")
    assert not folder.scan()
    folder.write(KITCHEN)
    assert list(folder.scan()) == ["kitchen.yaml"]


def _replace_with_link(path: Path) -> None:
    outside = path.parents[1] / "outside.yaml"
    outside.write_text(KITCHEN)
    path.unlink()
    path.symlink_to(outside)


def _replace_with_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_with_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "replace",
    [Path.unlink, _replace_with_link, _replace_with_folder, _replace_with_pipe],
)
def test_file_replaced_between_listing_and_reading(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, replace: Callable[[Path], None]
) -> None:
    """What took the place of a file is not read, not followed and not waited for."""
    folder.write(KITCHEN)
    folder.write(KITCHEN, "other.yaml")
    real = os.open

    def _open(path: str, flags: int) -> int:
        if path.endswith("kitchen.yaml"):
            replace(Path(path))
        return real(path, flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _open)
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.extend(folder.scan()))
        thread.start()
        thread.join(10)
    assert found == ["other.yaml"]


def test_newer_file_between_listing_and_reading(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    """A file replaced by a newer one is the newer one, and is not read twice."""
    folder.write(KITCHEN)
    real = os.open

    def _open(path: str, flags: int) -> int:
        folder.write(KITCHEN.replace("Kitchen", "Newer"), "new")
        (folder.config_dir / "new").replace(path)
        return real(path, flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _open)
        assert folder.only().friendly_name == "Newer"
    reads.clear()
    assert folder.only().friendly_name == "Newer"
    assert not reads


def test_folder_is_gone(folder: Folder) -> None:
    """A folder that cannot be listed is the caller's to handle."""
    folder.config_dir.rmdir()
    with pytest.raises(OSError, match="config"):
        folder.scan()
    with pytest.raises(FileNotFoundError):
        folder.folder.resolve("kitchen.yaml")


def test_built(folder: Folder) -> None:
    """After a build its version and hash are known, the hash as devices announce it."""
    folder.write(KITCHEN)
    assert (folder.only().built_version, folder.only().built_hash) == (None, None)
    folder.store()
    assert folder.only().built_version is None
    folder.build({"config_hash": 0x00BEEF01, "esphome_version": "2026.10.0"})
    found = folder.only()
    assert (found.built_version, found.built_hash) == ("2026.10.0", "00beef01")
    (folder.data_dir / "build/kitchen/firmware.bin").unlink()
    assert (folder.only().built_version, folder.only().built_hash) == (None, None)


def test_built_by_an_older_esphome(folder: Folder) -> None:
    """Without `build_info.json` the version is the one that was stored."""
    folder.write(KITCHEN)
    folder.store()
    folder.build({})
    (folder.data_dir / "build/kitchen/build_info.json").unlink()
    found = folder.only()
    assert (found.built_version, found.built_hash) == ("2026.9.1", None)


def test_failed_build_changes_nothing(folder: Folder) -> None:
    """Until there is a new firmware, the one of before is what was built."""
    folder.write(KITCHEN)
    folder.store()
    folder.build({"config_hash": 1, "esphome_version": "2026.9.1"}, age=60)
    build_info = folder.data_dir / "build/kitchen/build_info.json"
    os.utime(build_info, (1, 1))
    first = folder.only()
    assert (first.built_version, first.built_hash) == ("2026.9.1", "00000001")

    folder.store(esphome_version="2026.10.0")
    build_info.write_text('{"config_hash": 2, "esphome_version": "2026.10.0"}')
    assert folder.only() is first
    # Who sees it only now cannot know.
    (unknown,) = folder.another().scan().values()
    assert (unknown.built_version, unknown.built_hash) == (None, None)

    (folder.data_dir / "build/kitchen/firmware.bin").touch()
    second = folder.only()
    assert (second.built_version, second.built_hash) == ("2026.10.0", "00000002")


@pytest.mark.parametrize(
    "info",
    [
        [],
        {},
        1,
        {"config_hash": "1"},
        {"config_hash": True},
        {"config_hash": -1},
        {"config_hash": 2**32},
        {"config_hash": 1.5},
        {"config_hash": None},
        pytest.param({"config_hash": 1, "pad": "x" * 1024 * 1024}, id="too large"),
    ],
)
def test_hostile_build_info(folder: Folder, info: object) -> None:
    """What cannot be a hash is none."""
    folder.write(KITCHEN)
    folder.store()
    folder.build(info)
    found = folder.only()
    assert (found.built_version, found.built_hash) == ("2026.9.1", None)


@pytest.mark.parametrize("value", [1, [], {}, True, None, "", "x\0y", "x" * 2000])
def test_hostile_storage(folder: Folder, value: object) -> None:
    """What is wrong in a storage file is ignored, field by field."""
    folder.write("packages:\n")
    folder.build({"config_hash": 1})
    for field in ("name", "friendly_name", "area", "comment", "core_platform"):
        folder.store(**{field: value})
        found = folder.only()
        name = field.removeprefix("core_")
        if value != "x\0y":
            assert getattr(found, name) is None
        assert found.built_hash == "00000001"
    folder.store(build_path=value)
    assert folder.only().built_hash is None
    folder.store(firmware_bin_path=value)
    assert folder.only().built_version is None
    folder.store(build_path=None, firmware_bin_path=str(folder.data_dir / "build"))
    assert folder.only().built_version is None


@pytest.mark.parametrize("storage", [[], "text", {}, 1, None])
def test_storage_that_is_no_object(folder: Folder, storage: object) -> None:
    """A storage file with something else in it is as good as none."""
    folder.write("packages:\n")
    folder.store().write_text(json.dumps(storage))
    assert folder.only() == Configuration(
        entry_id="entry", configuration="kitchen.yaml"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 5000, b"NaN"])
def test_damaged_storage(folder: Folder, content: bytes) -> None:
    """A damaged storage file is ignored, and one that is repaired is read."""
    folder.write("packages:\n")
    folder.store().write_bytes(content)
    assert folder.only().name is None
    folder.store()
    assert folder.only().name == "stored-name"
    (folder.data_dir / "storage/kitchen.yaml.json").unlink()
    assert folder.only().name is None


def test_storage_file_that_is_none(folder: Folder) -> None:
    """A link, folder or pipe in place of the storage file is not waited for."""
    path = folder.data_dir / "storage/kitchen.yaml.json"
    folder.write("packages:\n")
    os.mkfifo(path)
    assert folder.only().name is None
    path.unlink()
    path.mkdir()
    assert folder.only().name is None


def test_nothing_outside_the_data_folder_is_read(
    folder: Folder, tmp_path: Path, reads: list[str]
) -> None:
    """Paths in a storage file that lead out of ESPHome's folder are ignored."""
    folder.write(KITCHEN)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "build_info.json").write_text('{"config_hash": 1}')
    (outside / "firmware.bin").touch()
    folder.build({"config_hash": 1})
    build = folder.data_dir / "build" / "kitchen"
    (folder.data_dir / "link").symlink_to(outside)
    beside = Path(f"{folder.data_dir}-beside")
    outside.rename(beside)
    outside.symlink_to(beside)
    for path in (
        str(outside),
        str(beside),
        f"{folder.data_dir}/a\0b",
        f"{folder.data_dir}/../outside",
        f"{folder.data_dir}/link",
        os.path.relpath(build),
        "/proc/self/root/etc",
    ):
        folder.store(build_path=path, firmware_bin_path=str(build / "firmware.bin"))
        assert folder.only().built_hash is None
        folder.store(firmware_bin_path=f"{path}/firmware.bin")
        assert folder.only().built_version is None
    assert "build_info.json" not in reads

    (build / "build_info.json").unlink()
    (build / "build_info.json").symlink_to(outside / "build_info.json")
    folder.store()
    assert folder.only().built_version == "2026.9.1"
    assert folder.only().built_hash is None


def test_five_hundred_configurations(folder: Folder) -> None:
    """A look without changes is cheap, however many configurations there are."""
    for number in range(500):
        folder.write(KITCHEN, f"device{number}.yaml")
    first = folder.scan()
    assert len(first) == 500
    took = []
    for _ in range(10):
        start = time.thread_time()
        again = folder.scan()
        took.append(time.thread_time() - start)
    assert all(again[name] is first[name] for name in first)
    # An ordinary host takes 5 ms; the first scan takes a hundred times as long.
    assert min(took) < 0.05


@pytest.mark.real
def test_real_build(folder: Folder) -> None:
    """What the real ESPHome stores of a build is what is found, and its hash."""
    folder.write("esphome:\n  name: kitchen\n  area: Hall\nhost:\nlogger:\n")
    environment = {**os.environ, "ESPHOME_DATA_DIR": str(folder.data_dir)}

    def _esphome(*arguments: str) -> str:
        return subprocess.run(
            [ESPHOME, *arguments],
            cwd=folder.config_dir,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    _esphome("compile", "kitchen.yaml")
    built = folder.only()
    assert built.built_hash is not None
    assert f"0x{built.built_hash}" in _esphome("config-hash", "kitchen.yaml")
    assert built.built_version is not None
    assert built.built_version in _esphome("version")

    _esphome("compile", "kitchen.yaml")
    assert folder.only() == built
    _esphome("clean", "kitchen.yaml")
    assert (folder.only().built_version, folder.only().built_hash) == (None, None)


def test_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes of a build that cannot be read for a moment are not taken for empty."""

    def _refuse(path: str) -> tuple[bytes, object]:
        raise OSError(24, "Too many open files", path)

    monkeypatch.setattr(built_module, "read", _refuse)
    with pytest.raises(OSError, match="Too many open files"):
        read_storage(str(tmp_path / "porch.yaml.json"), tmp_path)
