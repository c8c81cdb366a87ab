"""How large things are, and how what is too much goes: with real files."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import threading
import time

import pytest

from custom_components.esphome_builds.builds.local import disk as module
from custom_components.esphome_builds.builds.local.disk import (
    BuildTree,
    Trash,
    build_trees,
    measure,
    trees_to_remove,
)
from custom_components.esphome_builds.builds.usage import Measured

_KIB = 1024
_LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def fill(path: Path, size: int = _KIB) -> Path:
    """Write a file, and the folders around it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def du(*paths: Path) -> list[int]:
    """Return what `du` says that each place takes, beyond those before it."""
    command = ["du", "--summarize", "--block-size=1", *map(str, paths)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(line.split()[0]) for line in answer.stdout.splitlines()]


async def only(path: Path) -> Measured:
    """Return what one place takes."""
    usage = await measure({"it": path}, pause=0)
    return usage.parts["it"]


class TestMeasure:
    """What places take."""

    async def test_as_du_says(self, tmp_path: Path) -> None:
        """Places, folders in them and a large file count as `du` counts them."""
        fill(tmp_path / "a" / "deep" / "er" / "file", 300 * _KIB)
        fill(tmp_path / "a" / "file")
        fill(tmp_path / "b" / "file", 5 * _KIB)
        (tmp_path / "b" / "empty").mkdir()
        before = datetime.now(UTC)

        usage = await measure({"a": tmp_path / "a", "b": tmp_path / "b"}, pause=0)

        assert [part.size for part in usage.parts.values()] == du(
            tmp_path / "a", tmp_path / "b"
        )
        assert [part.entries for part in usage.parts.values()] == [5, 3]
        assert usage.total == sum(du(tmp_path / "a", tmp_path / "b"))
        assert usage.complete
        assert before <= usage.parts["a"].measured_at <= usage.parts["b"].measured_at
        assert usage.parts["b"].measured_at <= datetime.now(UTC)

    async def test_place_inside_another(self, tmp_path: Path) -> None:
        """What is measured by itself does not count for the folder around it."""
        inner = tmp_path / "data" / "build" / "kitchen"
        fill(inner / "file", 100 * _KIB)
        fill(tmp_path / "data" / "file", 10 * _KIB)

        usage = await measure({"rest": tmp_path, "tree": inner}, pause=0)

        assert usage.parts["tree"].size == du(inner)[0]
        assert usage.total == du(tmp_path)[0]

    async def test_several_names(self, tmp_path: Path) -> None:
        """A file with several names counts once, also in several places."""
        file = fill(tmp_path / "a" / "file", 100 * _KIB)
        (tmp_path / "b").mkdir()
        (tmp_path / "a" / "again").hardlink_to(file)
        (tmp_path / "b" / "again").hardlink_to(file)

        usage = await measure({"a": tmp_path / "a", "b": tmp_path / "b"}, pause=0)

        assert [part.size for part in usage.parts.values()] == du(
            tmp_path / "a", tmp_path / "b"
        )
        assert usage.parts["b"].size < 100 * _KIB

    async def test_links(self, tmp_path: Path) -> None:
        """A link counts for itself: neither what it leads to, nor for ever."""
        outside = fill(tmp_path / "outside" / "file", 100 * _KIB)
        place = tmp_path / "place"
        place.mkdir()
        (place / "to_folder").symlink_to(outside.parent)
        (place / "to_file").symlink_to(outside)
        (place / "to_itself").symlink_to(place)
        (place / "to_nothing").symlink_to(tmp_path / "nothing")
        (tmp_path / "link").symlink_to(place)

        assert (await only(place)).size == du(place)[0]
        assert (await only(place)).entries == 5
        assert (await only(tmp_path / "link")).entries == 1

    async def test_nothing_there(self, tmp_path: Path) -> None:
        """What is not there takes nothing; a file is a place as well."""
        file = fill(tmp_path / "file")

        assert (await only(tmp_path / "none")).size == 0
        assert (await only(tmp_path / "none")).complete
        assert (await only(file)).size == du(file)[0]

    async def test_steps(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A large folder is read a bit at a time, and between that others run."""
        for number in range(95):
            fill(tmp_path / "place" / f"{number % 3}" / f"{number}", 1)
        steps: list[int] = []
        pauses: list[float] = []
        step = module._Tally.step

        def _step(tally: module._Tally, limit: int) -> bool:
            assert threading.current_thread() is not threading.main_thread()
            before = tally.result().entries
            more = step(tally, limit)
            steps.append(tally.result().entries - before)
            return more

        async def _sleep(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(module._Tally, "step", _step)
        monkeypatch.setattr(asyncio, "sleep", _sleep)

        usage = await measure({"it": tmp_path / "place"}, entries_a_step=10, pause=0.25)

        assert usage.parts["it"].entries == 99
        assert steps == [10] * 9 + [9]
        assert pauses == [0.25] * 10

    async def test_bound(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ends for sure, and says that there was more."""
        for number in range(20):
            fill(tmp_path / "a" / f"{number}", 1)
            fill(tmp_path / "b" / f"{number}", 1)
        monkeypatch.setattr(module, "MAX_ENTRIES", 30)
        places = {name: tmp_path / name for name in "abc"}

        usage = await measure(places, entries_a_step=8, pause=0)

        assert [part.entries for part in usage.parts.values()] == [21, 9, 0]
        complete = [part.complete for part in usage.parts.values()]
        assert complete == [True, False, False]
        assert not usage.complete

    async def test_vanishing(self, tmp_path: Path) -> None:
        """Files, folders and whole places may go away in the middle."""
        place = tmp_path / "place"
        for number in range(200):
            fill(place / f"{number}" / "file", 1)
        stop = threading.Event()

        def _remove() -> None:
            for number in range(200):
                shutil.rmtree(place / f"{number}")
                if number == 100:
                    stop.wait(0.05)
            place.rmdir()

        remover = threading.Thread(target=_remove)
        remover.start()
        usage = await measure({"it": place}, entries_a_step=5, pause=0.001)
        stop.set()
        remover.join()

        assert usage.complete

    async def test_folder_becomes_something_else(self, tmp_path: Path) -> None:
        """A folder whose place a link has taken is not read through the link."""
        outside = fill(tmp_path / "outside" / "file", 100 * _KIB)
        place = tmp_path / "place"
        (place / "a").mkdir(parents=True)
        entries = module._walk(str(place), ())
        assert next(entries) is not None
        assert next(entries) is not None

        (place / "a").rmdir()
        (place / "a").symlink_to(outside.parent)

        assert list(entries) == []

    async def test_unreadable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What cannot be read is said to be missing."""
        monkeypatch.chdir(tmp_path)
        # Deeper than a path may be long.
        for name in ("place", *["x" * 250] * 20):
            Path(name).mkdir()
            os.chdir(name)
        monkeypatch.chdir(tmp_path)

        measured = await only(tmp_path / "place")

        assert measured.entries > 15
        assert not measured.complete
        assert not (await only(Path("/" + "x" * 300))).complete

    async def test_cancelled(self, tmp_path: Path) -> None:
        """Who gives up waiting leaves no file open; the fixture looks for that."""
        for number in range(50):
            fill(tmp_path / "place" / f"{number}", 1)
        measuring = asyncio.create_task(
            measure({"it": tmp_path / "place"}, entries_a_step=1, pause=0.01)
        )
        await asyncio.sleep(0.05)
        measuring.cancel()

        with pytest.raises(asyncio.CancelledError):
            await measuring


def store(data_dir: Path, configuration: str, tree: str) -> None:
    """Write what ESPHome notes of a configuration that it builds in a tree."""
    path = data_dir / "storage" / f"{configuration}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"name": tree, "build_path": str(data_dir / "build" / tree)}
    path.write_text(json.dumps(content), encoding="utf-8")


def make_tree(data_dir: Path, name: str, days: int) -> Path:
    """Make a build tree that was built so many days after the start of the year."""
    path = data_dir / "build" / name
    changed = (_LONG_AGO + timedelta(days=days)).timestamp()
    file = fill(path / "build_info.json", 10)
    fill(path / "src" / "main.cpp", 10)
    for entry in (file, path / "src", path):
        os.utime(entry, (changed, changed))
    return path


class TestBuildTrees:
    """Which build trees there are."""

    def test_found(self, tmp_path: Path) -> None:
        """A tree is of the configurations that ESPHome last built in it."""
        kitchen = make_tree(tmp_path, "kitchen", 5)
        shared = make_tree(tmp_path, "shared", 3)
        old_name = make_tree(tmp_path, "old-name", 1)
        store(tmp_path, "kitchen.yaml", "kitchen")
        store(tmp_path, "one.yaml", "shared")
        store(tmp_path, "two.yml", "shared")
        store(tmp_path, "never.yaml", "never")
        (tmp_path / "storage" / "broken.yaml.json").write_text("{")
        (tmp_path / "build" / "file").touch()
        (tmp_path / "build" / "link").symlink_to(kitchen)

        trees = {tree.path: tree for tree in build_trees(tmp_path, {})}

        assert trees == {
            kitchen: BuildTree(
                path=kitchen,
                configurations=frozenset({"kitchen.yaml"}),
                built_at=_LONG_AGO + timedelta(days=5),
            ),
            shared: BuildTree(
                path=shared,
                configurations=frozenset({"one.yaml", "two.yml"}),
                built_at=_LONG_AGO + timedelta(days=3),
            ),
            old_name: BuildTree(
                path=old_name,
                configurations=frozenset(),
                built_at=_LONG_AGO + timedelta(days=1),
            ),
        }

    def test_last_built(self, tmp_path: Path) -> None:
        """A build that had nothing to do counts, which files do not tell."""
        make_tree(tmp_path, "kitchen", 5)
        store(tmp_path, "kitchen.yaml", "kitchen")
        later, earlier = (_LONG_AGO + timedelta(days=days) for days in (9, 2))

        for known, expected in (
            (later, later),
            (earlier, timedelta(days=5) + _LONG_AGO),
        ):
            (tree,) = build_trees(tmp_path, {"kitchen.yaml": known, "other": later})
            assert tree.built_at == expected

    def test_none(self, tmp_path: Path) -> None:
        """Before the first build there is none."""
        assert build_trees(tmp_path, {}) == []

    def test_vanishing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that goes away while a tree is looked at does not matter."""
        tree = make_tree(tmp_path, "kitchen", 5)
        listed = module._listed

        def _listed(folder: Path) -> list[Path]:
            return (
                [*listed(folder), folder / "gone"] if folder == tree else listed(folder)
            )

        monkeypatch.setattr(module, "_listed", _listed)

        assert build_trees(tmp_path, {})[0].built_at == _LONG_AGO + timedelta(days=5)


class TestWhichGo:
    """Which trees are removed."""

    def tree(self, name: str, age: int, *configurations: str) -> BuildTree:
        """Return a tree that was last built so many days ago."""
        return BuildTree(
            path=Path(name),
            configurations=frozenset(configurations),
            built_at=_LONG_AGO - timedelta(days=age),
        )

    def names(self, limit: int, *active: str) -> list[str]:
        """Return which of four trees of 10 bytes each go."""
        trees = [
            self.tree("new", 1, "new.yaml"),
            self.tree("oldest", 9, "oldest.yaml", "shared.yaml"),
            self.tree("nobody's", 8),
            self.tree("older", 7, "older.yaml"),
        ]
        sizes = {tree.path: 10 for tree in trees}
        chosen = trees_to_remove(trees, sizes, limit=limit, active=active)
        return [tree.path.name for tree in chosen]

    def test_under_the_limit(self) -> None:
        """While all keep to the limit, nothing goes."""
        assert self.names(40) == []

    def test_longest_unbuilt_first(self) -> None:
        """As many go as are needed, in the order of their last build."""
        assert self.names(39) == ["oldest"]
        assert self.names(20) == ["oldest", "nobody's"]
        assert self.names(0) == ["oldest", "nobody's", "older", "new"]

    def test_active(self) -> None:
        """Never one that is queued or running, even if the limit is not kept to."""
        assert self.names(30, "shared.yaml") == ["older"]
        assert self.names(0, "older.yaml", "new.yaml") == ["oldest"]

    def test_unknown_size(self) -> None:
        """A tree that was not measured yet does not count."""
        tree = self.tree("new", 1)

        assert trees_to_remove([tree], {}, limit=0, active=()) == []


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def yes() -> bool:
    """Let everything go."""
    return True


class TestTrash:
    """How what is too much goes."""

    @pytest.fixture
    def trash(self, tmp_path: Path) -> Trash:
        """Return the trash of a folder."""
        return Trash(tmp_path / "data" / ".removed")

    def test_taken_at_once(self, trash: Trash, tmp_path: Path) -> None:
        """It is out of the way at once, and a new one can take its place."""
        for _ in range(2):
            path = make_tree(tmp_path / "data", "kitchen", 1)
            assert trash.take(path, yes)
            assert not path.exists()

        assert len([*(tmp_path / "data" / ".removed").iterdir()]) == 2

    def test_may_not_go(self, trash: Trash, tmp_path: Path) -> None:
        """What is in use at the last moment stays."""
        path = make_tree(tmp_path / "data", "kitchen", 1)

        assert not trash.take(path, lambda: False)
        assert (path / "src" / "main.cpp").exists()

    def test_cannot_be_taken(self, trash: Trash, tmp_path: Path) -> None:
        """Who takes what is not there hears of it."""
        with pytest.raises(FileNotFoundError):
            trash.take(tmp_path / "none", yes)

    async def test_emptied(self, trash: Trash, tmp_path: Path) -> None:
        """All of it goes, but nothing that links lead to."""
        outside = fill(tmp_path / "outside" / "file")
        path = make_tree(tmp_path / "data", "kitchen", 1)
        (path / "to_folder").symlink_to(outside.parent)
        (path / "src" / "to_file").symlink_to(outside)
        (path / "src" / "to_nothing").symlink_to(tmp_path / "nothing")
        (path / "empty" / "er").mkdir(parents=True)
        trash.take(path, yes)

        await trash.empty(pause=0)

        assert list((tmp_path / "data" / ".removed").iterdir()) == []
        assert outside.exists()

    async def test_nothing_to_empty(self, trash: Trash) -> None:
        """An empty trash stays so."""
        await trash.empty(pause=0)

    async def test_steps(
        self,
        trash: Trash,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A large tree goes a bit at a time, and between that others run."""
        path = tmp_path / "data" / "build" / "kitchen"
        for number in range(95):
            fill(path / f"{number}", 1)
        trash.take(path, yes)
        left: list[int] = []

        async def _sleep(seconds: float) -> None:
            assert seconds == 0.25
            found = (tmp_path / "data" / ".removed").rglob("*")
            left.append(sum(1 for path in found if path.is_file()))

        monkeypatch.setattr(asyncio, "sleep", _sleep)

        await trash.empty(entries_a_step=10, pause=0.25)

        assert left == [85, 75, 65, 55, 45, 35, 25, 15, 5, 0]

    async def test_twice_at_once(
        self, trash: Trash, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Two who empty it do not get into each other's way."""
        for number in range(40):
            fill(tmp_path / "data" / "tree" / f"{number}", 1)
        trash.take(tmp_path / "data" / "tree", yes)

        await asyncio.gather(
            trash.empty(entries_a_step=3, pause=0),
            trash.empty(entries_a_step=3, pause=0),
        )

        assert list((tmp_path / "data" / ".removed").iterdir()) == []
        assert caplog.records == []

    async def test_cannot_be_removed(
        self, trash: Trash, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What cannot be removed is logged, and the rest goes."""
        folder = tmp_path / "data" / ".removed"
        folder.mkdir(parents=True)
        (folder / "0").touch()
        trash.take(make_tree(tmp_path / "data", "kitchen", 1), yes)

        await trash.empty(pause=0)

        assert [path.name for path in folder.iterdir()] == ["0"]
        assert "Not a directory" in caplog.text

    def test_killed(self, tmp_path: Path) -> None:
        """What a kill leaves in the middle goes the next time."""
        folder = tmp_path / "data" / ".removed"
        tree = tmp_path / "data" / "build" / "kitchen"
        for number in range(500):
            fill(tree / f"{number}", 1)
        script = (
            "import asyncio, sys\n"
            "from pathlib import Path\n"
            "from custom_components.esphome_builds.builds.local.disk import Trash\n"
            "trash = Trash(Path(sys.argv[1]))\n"
            "trash.take(Path(sys.argv[2]), lambda: True)\n"
            "asyncio.run(trash.empty(entries_a_step=1, pause=0.01))\n"
        )
        victim = subprocess.Popen(
            [sys.executable, "-c", script, folder, tree], cwd=Path(__file__).parents[3]
        )
        try:
            until(lambda: 0 < len([*folder.rglob("*")]) < 450)
        finally:
            victim.kill()
            victim.wait()
        assert not tree.exists()
        assert len([*folder.rglob("*")]) > 1

        asyncio.run(Trash(folder).empty(pause=0))

        assert list(folder.iterdir()) == []
