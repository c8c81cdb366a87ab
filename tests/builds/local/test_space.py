"""A builder measures what its files take, and gives up build trees that are many."""

from collections.abc import Callable
from dataclasses import replace
import json
import os
from pathlib import Path

import pytest

from custom_components.esphome_builds.builds.local import disk, space as module
from custom_components.esphome_builds.builds.local.disk import Trash
from custom_components.esphome_builds.builds.models import JobStatus

from .harness import House as AnyHouse, Tenant

_MIB = 1024**2
_PARTS = {"build", "environments", "firmware", "logs", "tools"}


class House(AnyHouse):
    """Folders for a builder, with build trees as ESPHome leaves them."""

    def tree(self, name: str, mebibytes: int, *, claimed: bool = True) -> Path:
        """Make a build tree; each is newer than the one before."""
        data = self.settings.data_dir
        tree = data / "build" / name
        tree.mkdir(parents=True)
        (tree / "content").write_bytes(bytes(mebibytes * _MIB))
        age = len(list((data / "build").iterdir())) * 1000
        for path in (tree / "content", tree):
            os.utime(path, (age, age))
        if claimed:
            (data / "storage").mkdir(exist_ok=True)
            stored = {"build_path": str(tree), "name": name}
            (data / "storage" / f"{name}.yaml.json").write_text(json.dumps(stored))
        return tree


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return folders for a builder."""
    return House(tmp_path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure at once, and again soon after a build."""
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(module, "AFTER_BUILD_SECONDS", 0.0)
    monkeypatch.setattr(disk, "PAUSE_SECONDS", 0.0)


def is_empty(folder: Path) -> bool:
    """Return whether nothing is in a folder."""
    return not folder.exists() or not list(folder.iterdir())


async def measured(tenant: Tenant) -> None:
    """Wait until the first measurement."""
    await tenant.until(lambda: tenant.builder.info.disk_usage is not None)


class TestUsage:
    """What all files take."""

    async def test_parts(self, house: House) -> None:
        """Each part counts once; the sum is told in whole MiB."""
        house.tree("a", 3)
        house.tree("b", 2)
        tools = house.settings.tools_dir / "idf"
        tools.mkdir(parents=True)
        (tools / "gcc").write_bytes(bytes(4 * _MIB))
        async with house.started() as tenant:
            await measured(tenant)
            usage = tenant.builder.usage
            assert usage is not None
            assert usage.parts.keys() == _PARTS
            sizes = {name: part.size // _MIB for name, part in usage.parts.items()}
            expected = {"build": 5, "environments": 0, "firmware": 0, "logs": 0}
            assert sizes == {**expected, "tools": 4}
            assert usage.complete
            assert tenant.builder.info.disk_usage == 9 * _MIB

    async def test_after_a_build(self, house: House) -> None:
        """What a build made is measured soon."""
        house.write("a")
        async with house.started() as tenant:
            await measured(tenant)
            assert tenant.builder.info.disk_usage == 0
            house.tree("a", 3)
            await tenant.run("compile", "a.yaml")
            await tenant.until(lambda: tenant.builder.info.disk_usage == 3 * _MIB)

    async def test_not_at_once(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is measured while Home Assistant starts; it can stop meanwhile."""
        monkeypatch.setattr(module, "FIRST_SECONDS", 1000.0)
        async with house.started() as tenant:
            assert tenant.builder.usage is None
            assert tenant.builder.info.disk_usage is None

    @pytest.mark.parametrize("error", [OSError("theirs"), RuntimeError("ours")])
    async def test_error(
        self,
        error: Exception,
        house: House,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """What goes wrong once is told in the log, and tried again."""
        house.write("a")

        def _fail(*_: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(module, "build_trees", _fail)
            async with house.started() as tenant:
                await tenant.until(lambda: str(error) in caplog.text)
                patch.undo()
                await tenant.run("compile", "a.yaml")
                await measured(tenant)


class TestLimit:
    """Build trees keep to a limit."""

    async def limited(self, house: House, limit: int | None, *left: str) -> None:
        """Start a builder, and wait until only these trees are left."""
        settings = replace(house.settings, build_limit=limit)
        async with house.started(settings) as tenant:
            await measured(tenant)
            await tenant.until(lambda: self.trees(house) == [*left])
            await tenant.until(lambda: is_empty(settings.trash_dir))

    @staticmethod
    def trees(house: House) -> list[str]:
        """Return the trees there are."""
        return sorted(
            path.name for path in (house.settings.data_dir / "build").iterdir()
        )

    async def test_oldest_first(self, house: House) -> None:
        """The longest unbuilt go, until the rest fits."""
        for name in ("a", "b", "c"):
            house.tree(name, 2)
        await self.limited(house, 5 * _MIB, "b", "c")

    async def test_no_limit(self, house: House) -> None:
        """Without a limit all stay."""
        house.tree("a", 2)
        await self.limited(house, None, "a")

    async def test_fits(self, house: House) -> None:
        """What fits stays."""
        house.tree("a", 2)
        await self.limited(house, 5 * _MIB, "a")

    async def test_in_use(self, house: House) -> None:
        """A tree of a job stays as long as that needs it; others go."""
        house.write("a", "print hello", "wait go")
        settings = replace(house.settings, build_limit=3 * _MIB)
        house.tree("a", 2)
        async with house.started(settings) as tenant:
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.running(job)
            house.tree("b", 2)
            tenant.builder._space.measure_soon()
            await tenant.until(lambda: self.trees(house) == ["a"])
            house.touch("go")
            await tenant.ended(job)
            house.tree("c", 2)
            await tenant.run("clean", "a.yaml")
            tenant.builder._space.measure_soon()
            await tenant.until(lambda: self.trees(house) == ["a"])

    async def test_needed_at_the_last_moment(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A job that came after a tree was chosen keeps it."""
        house.write("a", "print hello", "wait go")
        tree = house.tree("a", 2)
        take = Trash.take
        kept: list[bool] = []
        async with house.started() as tenant:
            await measured(tenant)
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.running(job)

            def _take(trash: Trash, path: Path, may_go: Callable[[], bool]) -> bool:
                kept.append(not take(trash, path, may_go))
                return not kept[-1]

            monkeypatch.setattr(Trash, "take", _take)
            (found,) = await tenant.builder._space._trees()
            assert not await tenant.builder._space._take(found)
            house.touch("go")
            await tenant.ended(job)
        assert kept == [True]
        assert tree.exists()


class TestTrash:
    """What was given up goes from the disk, if not now then later."""

    async def test_leftovers(self, house: House) -> None:
        """What a kill left is removed by the next start."""
        left = house.settings.trash_dir / "left"
        left.mkdir(parents=True)
        (left / "file").touch()
        async with house.started() as tenant:
            await tenant.until(lambda: is_empty(house.settings.trash_dir))


class TestCleanAll:
    """Everything that was built goes."""

    async def test_all(self, house: House) -> None:
        """Each configuration is cleaned, and trees of none are removed."""
        for name in ("a", "b"):
            house.write(name)
            house.tree(name, 1)
        house.tree("renamed", 1, claimed=False)
        house.tree("deleted", 1)
        async with house.started() as tenant:
            submission = await tenant.builder.clean_all()
            jobs = await tenant.ended(*submission.jobs)
            assert TestLimit.trees(house) == ["a", "b"]
            await tenant.until(lambda: is_empty(house.settings.trash_dir))

        assert [job.configuration for job in jobs] == ["a.yaml", "b.yaml"]
        assert all(job.status is JobStatus.COMPLETED for job in jobs)
        assert sorted(call[1:] for call in house.runs()) == [
            ["clean", "a.yaml"],
            ["clean", "b.yaml"],
        ]

    async def test_while_something_is_built(self, house: House) -> None:
        """The first build of a configuration may be making a tree that none claims."""
        house.write("a", "compile: print hello", "compile: wait go")
        house.tree("a", 1, claimed=False)
        async with house.started() as tenant:
            (job,) = await tenant.submit("compile", "a.yaml")
            await tenant.running(job)
            submission = await tenant.builder.clean_all()
            assert TestLimit.trees(house) == ["a"]
            house.touch("go")
            await tenant.ended(job, *submission.jobs)
            assert TestLimit.trees(house) == ["a"]
