"""The firmware that is kept of earlier builds: real files, and a real build."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
import hashlib
import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from custom_components.esphome_builds.builds.kept import KeptFirmware, NoFirmwareError
from custom_components.esphome_builds.builds.local import firmware as module
from custom_components.esphome_builds.builds.local.firmware import (
    ALL_FIRMWARE_BYTES,
    FIRMWARE_BYTES,
    KEPT,
    FirmwareStore,
)
from custom_components.esphome_builds.builds.models import Job

from ..stand_in import make_job
from .test_preflight import mounted

ROOT = Path(__file__).parents[3]
ESPHOME = ROOT / ".local/esphome/bin/esphome"
HASH = 0x00AB12CD


def job_id(number: int) -> str:
    """Return the id of a job, which sorts by its number."""
    return f"{number:014x}00000000"


class Builds:
    """A folder in which somebody builds, and what is kept of it."""

    def __init__(self, folder: Path) -> None:
        """Build nothing yet."""
        self.data_dir = folder / "data"
        self.folder = folder / "firmware"
        self.store = FirmwareStore(self.folder)
        (self.data_dir / "storage").mkdir(parents=True, exist_ok=True)
        self._jobs = 0

    def build(
        self,
        content: bytes,
        configuration: str = "kitchen.yaml",
        **changes: Any,  # noqa: ANN401 - any field
    ) -> Path:
        """Leave on disk what ESPHome leaves after a build; return the firmware."""
        tree = self.data_dir / "build" / configuration.partition(".")[0]
        path = tree / ".pioenvs" / "it" / "firmware.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = {
            "name": "kitchen",
            "core_platform": "esp8266",
            "esphome_version": "2026.10.0",
            "build_path": str(tree),
            "firmware_bin_path": str(path),
            **changes,
        }
        storage = self.data_dir / "storage" / f"{configuration}.json"
        storage.write_text(json.dumps(stored), encoding="utf-8")
        info = {"config_hash": HASH, "esphome_version": "2026.10.1"}
        (tree / "build_info.json").write_text(json.dumps(info), encoding="utf-8")
        firmware = Path(stored["firmware_bin_path"])
        firmware.parent.mkdir(parents=True, exist_ok=True)
        firmware.write_bytes(content)
        return firmware

    def job(self, configuration: str = "kitchen.yaml") -> Job:
        """Return the next job."""
        self._jobs += 1
        return make_job(
            job_id(self._jobs), configuration=configuration, esphome_version="2026.9.9"
        )

    def keep(
        self,
        content: bytes,
        configuration: str = "kitchen.yaml",
        *,
        in_use: tuple[str, ...] = (),
        **changes: object,
    ) -> KeptFirmware:
        """Build, and keep it."""
        self.build(content, configuration, **changes)
        job = self.job(configuration)
        return self.store.keep(job, self.data_dir, in_use=in_use)

    def again(self) -> FirmwareStore:
        """Return what the next run finds."""
        store = FirmwareStore(self.folder)
        store.load()
        return store

    def folders(self) -> list[str]:
        """Return what is on disk."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    """Return a folder in which somebody builds."""
    return Builds(tmp_path)


def test_bounds() -> None:
    """The bounds are the ones that were promised."""
    assert (KEPT, FIRMWARE_BYTES, ALL_FIRMWARE_BYTES) == (3, 64 << 20, 512 << 20)


class TestKeep:
    """What is kept of a build."""

    def test_kept(self, builds: Builds) -> None:
        """A firmware is kept with all that tells it from others."""
        kept = builds.keep(b"one")

        (file,) = kept.files
        assert (file.name, file.size) == ("firmware.bin", 3)
        assert file.sha256 == hashlib.sha256(b"one").hexdigest()
        assert kept.configuration == "kitchen.yaml"
        assert kept.platform == "esp8266"
        assert kept.version == "2026.10.1"
        assert kept.config_hash == "00ab12cd"
        assert builds.store.find(job_id(1)) is kept
        assert builds.store.find(job_id(2)) is None
        assert builds.store.of("kitchen.yaml") == [kept]
        assert builds.store.of("other.yaml") == []
        path = builds.store.path(job_id(1))
        assert path.read_bytes() == b"one"
        assert path.is_relative_to(builds.folder)

    def test_found_again(self, builds: Builds) -> None:
        """The next run finds the same."""
        kept = [builds.keep(b"one"), builds.keep(b"two", "other.yaml")]
        store = builds.again()

        assert [store.find(job_id(1)), store.find(job_id(2))] == kept
        assert store.path(job_id(2)).read_bytes() == b"two"
        assert store.size == builds.store.size == 6

    def test_build_tree_changes(self, builds: Builds) -> None:
        """The next build writes into the same file; what is kept stays."""
        firmware = builds.build(b"one")
        builds.store.keep(builds.job(), builds.data_dir)

        with firmware.open("r+b") as file:
            file.write(b"two")

        assert builds.store.path(job_id(1)).read_bytes() == b"one"

    def test_nobody_else_may_read_it(self, builds: Builds) -> None:
        """A firmware holds the passwords of its device."""
        builds.keep(b"one")

        assert (builds.folder / job_id(1)).stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize(
        ("path", "platform", "name"),
        [
            (".pioenvs/it/program", "host", "firmware"),
            (".pioenvs/it/firmware.uf2", "bk72xx", "firmware.uf2"),
            ("build/kitchen.bin", "esp32", "firmware.bin"),
            ("build/firmware.elf", "esp32", "firmware"),
        ],
    )
    def test_name(self, path: str, platform: str, name: str, builds: Builds) -> None:
        """The name says what it is on every platform, not of which device."""
        firmware = builds.data_dir / "build" / "kitchen" / path
        kept = builds.keep(
            b"one", firmware_bin_path=str(firmware), core_platform=platform
        )

        assert [file.name for file in kept.files] == [name]
        assert builds.store.path(job_id(1), name).read_bytes() == b"one"

    def test_version_of_the_job(self, builds: Builds) -> None:
        """Where ESPHome notes nothing of the build, the job knows what ran."""
        builds.build(b"one", esphome_version=None)
        (builds.data_dir / "build" / "kitchen" / "build_info.json").unlink()

        kept = builds.store.keep(builds.job(), builds.data_dir)

        assert (kept.version, kept.config_hash) == ("2026.9.9", None)


class TestFactoryImage:
    """What a blank ESP32 needs."""

    def build(self, builds: Builds, content: bytes, seconds: float = 0) -> None:
        """Build for an ESP32, with a factory image that is so much newer."""
        firmware = builds.build(b"one", core_platform="esp32")
        factory = firmware.with_name("firmware.factory.bin")
        factory.write_bytes(content)
        changed = firmware.stat().st_mtime + seconds
        os.utime(factory, (changed, changed))

    def test_kept(self, builds: Builds) -> None:
        """It is kept beside the firmware, which remains the file to upload."""
        self.build(builds, b"boot loader and one", 1)

        kept = builds.store.keep(builds.job(), builds.data_dir)

        names = [file.name for file in kept.files]
        assert names == ["firmware.bin", "firmware.factory.bin"]
        assert kept.size == 22
        assert builds.store.path(job_id(1)).read_bytes() == b"one"
        factory = builds.store.path(job_id(1), "firmware.factory.bin")
        assert factory.read_bytes() == b"boot loader and one"
        assert builds.again().find(job_id(1)) == kept

    @pytest.mark.parametrize(("content", "seconds"), [(b"older", -10), (b"", 1)])
    def test_not_of_this_build(
        self, content: bytes, seconds: float, builds: Builds
    ) -> None:
        """One that an earlier build left is not taken for that of this one."""
        self.build(builds, content, seconds)

        kept = builds.store.keep(builds.job(), builds.data_dir)

        assert [file.name for file in kept.files] == ["firmware.bin"]

    def test_other_platforms(self, builds: Builds) -> None:
        """That of an ESP8266 is the firmware once more."""
        firmware = builds.build(b"one")
        firmware.with_name("firmware.factory.bin").write_bytes(b"one")

        kept = builds.store.keep(builds.job(), builds.data_dir)

        assert [file.name for file in kept.files] == ["firmware.bin"]

    def test_leads_elsewhere(self, builds: Builds, tmp_path: Path) -> None:
        """A link out of ESPHome's folder is not followed."""
        firmware = builds.build(b"one", core_platform="esp32")
        outside = tmp_path / "outside"
        outside.write_bytes(b"secret")
        firmware.with_name("firmware.factory.bin").symlink_to(outside)

        kept = builds.store.keep(builds.job(), builds.data_dir)

        assert [file.name for file in kept.files] == ["firmware.bin"]


class TestNothingToKeep:
    """Builds of which nothing can be kept."""

    def fails(self, builds: Builds, match: str) -> None:
        """Keep what is there, which does not work and leaves nothing."""
        with pytest.raises(NoFirmwareError, match=match):
            builds.store.keep(builds.job(), builds.data_dir)
        assert builds.store.of("kitchen.yaml") == []
        assert not builds.folder.exists() or builds.folders() == []

    def test_no_build(self, builds: Builds) -> None:
        """Of what ESPHome never built there is nothing."""
        self.fails(builds, "noted no firmware")

    def test_no_firmware(self, builds: Builds) -> None:
        """It may be gone again."""
        builds.build(b"one").unlink()
        self.fails(builds, "noted no firmware")

    def test_outside(self, builds: Builds, tmp_path: Path) -> None:
        """What is outside of ESPHome's folder is none."""
        builds.build(b"one", firmware_bin_path=str(tmp_path / "outside"))
        self.fails(builds, "noted no firmware")

    @pytest.mark.parametrize("size", [0, FIRMWARE_BYTES + 1])
    def test_size(self, size: int, builds: Builds) -> None:
        """What no device could hold is none."""
        os.truncate(builds.build(b"one"), size)
        self.fails(builds, f"has {size} bytes")

    @pytest.mark.parametrize("change", ["changed", "vanished"])
    def test_changes_meanwhile(
        self, change: str, builds: Builds, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A firmware that another build writes to is not kept in halves."""
        firmware = builds.build(b"one")
        copy = Path.copy

        def _copy(source: Path, target: Path) -> Path:
            result = copy(source, target)
            if change == "changed":
                source.write_bytes(b"another")
            else:
                firmware.unlink()
            return result

        monkeypatch.setattr(Path, "copy", _copy)

        self.fails(builds, "changed while")

    def test_full_disk(self, builds: Builds, tmp_path: Path) -> None:
        """Without space it says so, and what was kept before is still there."""
        with mounted(tmp_path / "small", "size=1m") as disk:
            builds.store = FirmwareStore(disk / "firmware")
            builds.keep(bytes(500_000))
            with pytest.raises(OSError, match="No space left"):
                builds.keep(bytes(700_000))
            names = [path.name for path in (disk / "firmware").iterdir()]

            assert names == [job_id(1)]
            assert builds.store.find(job_id(2)) is None
            assert builds.store.path(job_id(1)).stat().st_size == 500_000


class TestBounds:
    """How much is kept."""

    def test_last_three(self, builds: Builds) -> None:
        """The last three of each configuration are kept."""
        builds.keep(b"other", "other.yaml")
        for number in range(5):
            builds.keep(b"%d" % number)

        kept = builds.store.of("kitchen.yaml")
        assert [one.job_ids for one in kept] == [(job_id(n),) for n in (6, 5, 4)]
        assert builds.folders() == [job_id(number) for number in (1, 4, 5, 6)]
        assert builds.store.find(job_id(3)) is None
        with pytest.raises(NoFirmwareError, match="not kept"):
            builds.store.path(job_id(3))

    def test_same_again(self, builds: Builds) -> None:
        """A build that changes nothing takes no place, and has its firmware as well."""
        builds.keep(b"old")
        for _ in range(5):
            builds.keep(b"new")

        assert [one.job_ids for one in builds.store.of("kitchen.yaml")] == [
            tuple(job_id(number) for number in range(2, 7)),
            (job_id(1),),
        ]
        assert builds.store.path(job_id(6)).read_bytes() == b"new"
        assert builds.store.path(job_id(1)).read_bytes() == b"old"
        assert builds.again().of("kitchen.yaml") == builds.store.of("kitchen.yaml")

    def test_same_of_others(self, builds: Builds) -> None:
        """The same of another configuration is kept for itself."""
        builds.keep(b"one")
        builds.keep(b"one", "other.yaml")

        assert builds.folders() == [job_id(1), job_id(2)]

    def test_back_and_forth(self, builds: Builds) -> None:
        """What is built again is the newest again."""
        for content in (b"one", b"two", b"one", b"three", b"four"):
            builds.keep(content)

        kept = builds.store.of("kitchen.yaml")
        assert [one.job_ids[-1] for one in kept] == [job_id(n) for n in (5, 4, 3)]
        assert builds.store.path(job_id(1)).read_bytes() == b"one"

    def test_many_jobs(self, builds: Builds) -> None:
        """No more jobs are noted than the list of jobs has."""
        for _ in range(25):
            builds.keep(b"one")

        (kept,) = builds.store.of("kitchen.yaml")
        assert len(kept.job_ids) == 20
        assert builds.store.path(job_id(25)).read_bytes() == b"one"
        assert builds.again().of("kitchen.yaml") == [kept]

    def test_in_all(self, builds: Builds) -> None:
        """Of all configurations together the oldest go first."""
        builds.store = FirmwareStore(builds.folder, limit=35)
        for number in range(5):
            builds.keep(b"%010d" % number, f"{number}.yaml")

        assert builds.folders() == [job_id(number) for number in (3, 4, 5)]
        assert builds.store.size == 30

    @pytest.mark.parametrize(
        ("limit", "left"), [(40, [1, 3, 4, 5]), (30, [3, 4, 5]), (25, [4, 5]), (5, [])]
    )
    def test_both_bounds(self, limit: int, left: list[int], builds: Builds) -> None:
        """What goes for its configuration makes room for the others."""
        builds.keep(b"%010d" % 0, "other.yaml")
        for number in range(3):
            builds.keep(b"%010d" % number)
        builds.store = FirmwareStore(builds.folder, limit=limit)
        builds.store.load()

        builds.keep(b"%010d" % 3)

        assert builds.folders() == [job_id(number) for number in left]

    def test_in_use(self, builds: Builds) -> None:
        """What an upload waits for stays until that has ended."""
        builds.keep(b"0")
        for number in range(1, 5):
            builds.keep(b"%d" % number, in_use=(job_id(1),))
        assert builds.store.path(job_id(1)).read_bytes() == b"0"

        builds.keep(b"5")
        assert builds.folders() == [job_id(number) for number in (4, 5, 6)]


class TestDamage:
    """Disks and people do what they do."""

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"{}",
            b"\xff",
            b'{"configuration": 1}',
        ],
    )
    def test_description(
        self, content: bytes, builds: Builds, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One that cannot be understood goes; the others stay."""
        for number in range(3):
            builds.keep(b"%d" % number)
        (builds.folder / job_id(2) / "kept.json").write_bytes(content)

        store = builds.again()

        assert [one.job_ids for one in store.of("kitchen.yaml")] == [
            (job_id(3),),
            (job_id(1),),
        ]
        assert builds.folders() == [job_id(1), job_id(3)]
        assert f"{job_id(2)} is damaged" in caplog.text

    @pytest.mark.parametrize(
        "change",
        [
            {"configuration": "../secrets.yaml"},
            {"job_ids": []},
            {"job_ids": [1]},
            {"files": []},
            {"files": [{"name": "../../outside", "size": 3, "sha256": ""}]},
            {"files": [{"name": "firmware.bin", "size": "many", "sha256": ""}]},
            {"files": [{"name": "firmware.bin", "size": 4, "sha256": ""}]},
            {"files": [{"name": "firmware.uf2", "size": 3, "sha256": ""}]},
            {"kept_at": "yesterday"},
            {"version": 2026},
        ],
    )
    def test_nonsense(self, change: dict[str, object], builds: Builds) -> None:
        """Nor is one believed that says what cannot be."""
        builds.keep(b"one")
        (builds.folder.parent / "outside").write_bytes(b"two")
        path = builds.folder / job_id(1) / "kept.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | change))

        assert builds.again().of("kitchen.yaml") == []
        assert builds.folders() == []

    def test_what_is_none(self, builds: Builds) -> None:
        """Halves and what somebody else left there go."""
        builds.keep(b"one")
        (builds.folder / f"{job_id(2)}.half").mkdir()
        (builds.folder / f"{job_id(2)}.half" / "firmware.bin").touch()
        (builds.folder / f"{job_id(3)}.gone").mkdir()
        (builds.folder / "empty").mkdir()

        builds.again()

        assert builds.folders() == [job_id(1)]

    def test_nothing_yet(self, builds: Builds) -> None:
        """Before the first build there is not even a folder."""
        assert builds.again().size == 0

    def test_other_bytes(self, builds: Builds) -> None:
        """A damaged firmware never gets onto a device."""
        builds.keep(b"one")
        (builds.folder / job_id(1) / "firmware.bin").write_bytes(b"0ne")

        with pytest.raises(NoFirmwareError, match="was damaged"):
            builds.store.path(job_id(1))
        assert builds.store.find(job_id(1)) is None
        assert builds.folders() == []

    def test_gone(self, builds: Builds) -> None:
        """Somebody may have cleared the cache."""
        builds.keep(b"one")
        shutil.rmtree(builds.folder)

        with pytest.raises(NoFirmwareError, match="was damaged"):
            builds.store.path(job_id(1))
        assert builds.keep(b"one").files[0].size == 3

    def test_unreadable(self, builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
        """What cannot be read now may be well later."""
        builds.keep(b"one")

        def _digest(path: Path) -> str:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(module, "_digest", _digest)
            with pytest.raises(NoFirmwareError, match="Too many open files"):
                builds.store.path(job_id(1))

        assert builds.store.path(job_id(1)).read_bytes() == b"one"

    def test_no_such_file(self, builds: Builds) -> None:
        """Only what was kept can be asked for."""
        builds.keep(b"one")

        for name in ("kept.json", "firmware.factory.bin", "../x", ""):
            with pytest.raises(NoFirmwareError, match="made no file"):
                builds.store.path(job_id(1), name)


class TestTwice:
    """A job that was run again after a restart."""

    def test_other_firmware(self, builds: Builds) -> None:
        """What the second attempt made counts."""
        builds.build(b"one")
        job = builds.job()
        builds.store.keep(job, builds.data_dir)
        builds.store = builds.again()

        builds.build(b"two")
        builds.store.keep(job, builds.data_dir)

        (kept,) = builds.store.of("kitchen.yaml")
        assert kept.job_ids == (job_id(1),)
        assert builds.store.path(job_id(1)).read_bytes() == b"two"
        assert builds.again().of("kitchen.yaml") == [kept]

    def test_same_firmware(self, builds: Builds) -> None:
        """The same from both is there once."""
        builds.build(b"one")
        job = builds.job()
        for _ in range(2):
            builds.store.keep(job, builds.data_dir)

        (kept,) = builds.store.of("kitchen.yaml")
        assert kept.job_ids == (job_id(1),)


def test_threads(builds: Builds) -> None:
    """Many threads may keep, find and remove at the same time."""
    names = [f"{number}.yaml" for number in range(8)]
    for name in names:
        builds.build(name.encode(), name)
    jobs = [builds.job(name) for name in names for _ in range(5)]

    def _keep(job: Job) -> None:
        builds.build(job.job_id.encode(), job.configuration)
        builds.store.keep(job, builds.data_dir)
        assert builds.store.path(job.job_id).read_text() == job.job_id

    def _keep_all(configuration: str) -> None:
        for job in jobs:
            if job.configuration == configuration:
                _keep(job)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_keep_all, names))

    assert all(len(builds.store.of(name)) == KEPT for name in names)
    assert len(builds.folders()) == len(names) * KEPT


_VICTIMS = """\
import os, signal, sys, time
from pathlib import Path
from tests.builds.local.test_firmware import Builds

for number in range(25):
    victim = os.fork()
    if victim == 0:
        builds = Builds(Path(sys.argv[1]) / str(number))
        while True:
            builds.keep(b"%d" % builds._jobs * 100_000)
    time.sleep(0.01 + number * 0.0037)
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
"""


def test_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Killed at any moment, the next run finds whole firmwares and nothing else."""
    command = [sys.executable, "-c", _VICTIMS, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)

    found = 0
    for path in tmp_path.iterdir():
        store = FirmwareStore(path / "firmware")
        store.load()
        kept = store.of("kitchen.yaml")
        # The one that was too much may not have gone yet.
        assert len(kept) <= KEPT + 1
        for one in kept:
            assert store.path(one.job_ids[0]).stat().st_size == one.size
        assert len([*(path / "firmware").glob("*")]) == len(kept)
        found += len(kept)
    assert found > 0
    # None was found in halves.
    assert caplog.records == []


@pytest.mark.real
async def test_real_build(tmp_path: Path) -> None:
    """What the real ESPHome built for this host is kept, and is the same program."""
    config_dir = tmp_path / "config"
    shutil.copytree(ROOT / "examples", config_dir)
    data_dir = tmp_path / "data"
    environment = {
        "ESPHOME_DATA_DIR": str(data_dir),
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    store = FirmwareStore(tmp_path / "firmware")

    async def _build(job: Job) -> KeptFirmware:
        process = await asyncio.create_subprocess_exec(
            ESPHOME,
            "compile",
            job.configuration,
            cwd=config_dir,
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0
        return await asyncio.to_thread(store.keep, job, data_dir)

    first = await _build(make_job(job_id(1), configuration="kettle.yaml"))
    same = await _build(make_job(job_id(2), configuration="kettle.yaml"))
    path = config_dir / "kettle.yaml"
    path.write_text(path.read_text().replace("initial_value: 95", "initial_value: 90"))
    other = await _build(make_job(job_id(3), configuration="kettle.yaml"))

    program = data_dir / "build/kettle/.pioenvs/kettle/program"
    assert store.path(job_id(3)).read_bytes() == program.read_bytes()
    assert same.job_ids == (job_id(1), job_id(2))
    assert [kept.job_ids for kept in store.of("kettle.yaml")] == [
        other.job_ids,
        same.job_ids,
    ]
    old = store.path(job_id(1)).read_bytes()
    assert old.startswith(b"\x7fELF")
    assert old != program.read_bytes()
    assert first.platform == "host"
    assert first.version is not None
    assert re.fullmatch(r"[0-9a-f]{8}", first.config_hash or "")
    assert other.config_hash != first.config_hash
