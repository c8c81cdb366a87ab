"""A device runs another configuration than there is: a real builder, real files."""

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path

import pytest

from custom_components.esphome_builds.builds.builder import BuildRequest
from custom_components.esphome_builds.builds.devices import Device
from custom_components.esphome_builds.builds.local import (
    changes as changes_module,
    watch as watch_module,
)
from custom_components.esphome_builds.builds.local.builder import LocalBuilder
from custom_components.esphome_builds.builds.local.changes import BUILDS
from custom_components.esphome_builds.builds.local.fingerprint import METHOD
from custom_components.esphome_builds.builds.models import (
    Cause,
    ConfigurationEvent,
    Job,
    JobStatus,
    RequestKind,
)

from ..tenant import started
from .harness import House as AnyHouse, Tenant
from .test_firmware import Builds

NAME = "kitchen.yaml"


class Kitchen:
    """What is known of one device, which calls itself kitchen."""

    def __init__(self) -> None:
        """Know nothing of when its firmware was built."""
        self._device: Device | None = Device(device_id="1", online=True)
        self._listeners: list[Callable[[str], None]] = []

    def get(self, name: str) -> Device | None:
        """Return the device."""
        return self._device if name == "kitchen" else None

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call the listener when the device is another."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def runs(self, built_at: str | None) -> None:
        """Say what the device runs."""
        self._set(Device(device_id="1", online=True, built_at=built_at))

    def forget(self) -> None:
        """Know of no device any more."""
        self._set(None)

    def _set(self, device: Device | None) -> None:
        self._device = device
        for listener in tuple(self._listeners):
            listener("kitchen")


class House(AnyHouse):
    """Folders for a builder, whose fake leaves firmware as ESPHome does."""

    def __init__(self, folder: Path) -> None:
        """Make the folders, and write a configuration."""
        super().__init__(folder)
        self.builds = Builds(self.settings.cache_dir)
        self.device = Kitchen()
        self.record = self.settings.cache_dir / "builds.json"
        self.put("wifi.yaml", "ssid: home\n")
        self.write_kitchen("one")

    def write_kitchen(self, text: str, *script: str) -> None:
        """Write the configuration, with a value and what the fake shall do."""
        steps = "".join(f"#! {step}\n" for step in script)
        self.put(
            NAME,
            f"esphome: {{name: kitchen}}\nlogger: {{level: {text}}}\n"
            f"wifi: !include wifi.yaml\n{steps}",
        )

    def put(self, name: str, text: str) -> None:
        """Write a file, of which no half is ever seen."""
        half = self.config_dir / f".{name}"
        half.write_text(text)
        half.replace(self.config_dir / name)

    def leave(
        self, built_at: str | None, name: str = NAME, content: bytes = b"it"
    ) -> None:
        """Leave on disk what a build leaves."""
        firmware = self.builds.build(content, name)
        tree = self.builds.data_dir / "build" / name.partition(".")[0]
        info = {"config_hash": 1, "build_time_str": built_at}
        (tree / "build_info.json").write_text(json.dumps(info))
        # It is newer than what ESPHome noted before.
        firmware.write_bytes(firmware.read_bytes())

    async def build(
        self,
        tenant: Tenant,
        built_at: str | None,
        name: str = NAME,
        content: bytes = b"it",
    ) -> Job:
        """Build something, of which it is said when that was; return its job."""
        self.leave(built_at, name, content)
        job = await tenant.run("compile", name)
        await told(tenant, name)
        return job

    def builder(self) -> LocalBuilder:
        """Return a builder that knows the device."""
        return LocalBuilder(self.settings, self.device)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """Return folders for a builder, which often looks at them."""
    monkeypatch.setattr(watch_module, "LOOK_SECONDS", 0.02)
    return House(tmp_path)


def pending(tenant: Tenant) -> bool | None:
    """Return whether there are changes that the device does not run."""
    return tenant.builder.configurations[NAME].pending_changes


async def told(tenant: Tenant, name: str = NAME) -> None:
    """Wait until what follows from the end of a job was told."""
    configurations = tenant.builder.configurations
    await tenant.until(lambda: configurations[name].active_job_id is None)


async def send(tenant: Tenant, built: Job | None = None) -> None:
    """Send what a job built, or what was built last."""
    submission = await tenant.builder.submit(
        BuildRequest(
            kind=RequestKind.UPLOAD,
            configurations=(NAME,),
            address="10.0.0.7",
            firmware_job_id=None if built is None else built.job_id,
        )
    )
    await tenant.ended(*submission.jobs)
    await told(tenant)


async def test_pending_changes(house: House) -> None:
    """It is told by itself, when a file or the device is another."""
    async with started(house.builder()) as tenant:
        assert pending(tenant) is None
        job = await house.build(tenant, "Monday")
        assert job.status is JobStatus.COMPLETED
        # What is built is not yet what runs.
        assert pending(tenant) is None
        house.device.runs("Monday")
        assert pending(tenant) is False

        house.put("wifi.yaml", "ssid: other\n")
        await tenant.until(lambda: pending(tenant) is True)
        assert isinstance(tenant.events[-1], ConfigurationEvent)
        house.put("wifi.yaml", "ssid: home # As before.\n")
        await tenant.until(lambda: pending(tenant) is False)

        house.write_kitchen("two")
        await tenant.until(lambda: pending(tenant) is True)
        await house.build(tenant, "Tuesday")
        assert pending(tenant) is True
        house.device.runs("Tuesday")
        assert pending(tenant) is False
        # To go back to what was is a change, too.
        house.device.runs("Monday")
        assert pending(tenant) is True
        house.device.runs("Sunday")
        assert pending(tenant) is None
        house.device.runs(None)
        assert pending(tenant) is None
        house.device.forget()
        assert pending(tenant) is None


async def test_known_after_restart(house: House) -> None:
    """What builds were made of is still known in the next run."""
    async with started(house.builder()) as tenant:
        await house.build(tenant, "Monday")
    house.device.runs("Monday")
    async with started(house.builder()) as tenant:
        assert pending(tenant) is False
    house.write_kitchen("two")
    async with started(house.builder()) as tenant:
        assert pending(tenant) is True


async def test_saved_and_built_at_once(house: House) -> None:
    """What was saved a moment before a build is what was built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch_module, "LOOK_SECONDS", 600)
        async with started(house.builder()) as tenant:
            house.device.runs("Monday")
            house.write_kitchen("two", "compile: print hello", "compile: wait go")
            house.leave("Monday")
            (job,) = await tenant.submit("compile", NAME)
            await tenant.running(job)
            watch = tenant.builder._watch
            patch.setattr(watch, "look_soon", lambda: None)
            house.touch("go")
            await tenant.ended(job)
            await told(tenant)
            assert pending(tenant) is False


async def test_changed_while_it_was_built(house: House) -> None:
    """What counts is what there was when ESPHome began to read."""
    house.write_kitchen("one", "compile: print hello", "compile: wait go")
    async with started(house.builder()) as tenant:
        house.leave("Monday")
        (job,) = await tenant.submit("compile", NAME)
        await tenant.running(job)
        house.put("wifi.yaml", "ssid: other\n")
        house.touch("go")
        await tenant.ended(job)
        house.device.runs("Monday")
        await tenant.until(lambda: pending(tenant) is True)
        house.put("wifi.yaml", "ssid: home\n")
        await tenant.until(lambda: pending(tenant) is False)


async def test_nothing_to_build(house: House) -> None:
    """Where ESPHome had nothing to build, the device runs what there is now."""
    async with started(house.builder()) as tenant:
        await house.build(tenant, "Monday")
        house.device.runs("Monday")
        house.write_kitchen("two")
        await tenant.until(lambda: pending(tenant) is True)
        job = await tenant.run("compile", NAME)
        await told(tenant)
        assert job.status is JobStatus.COMPLETED
        assert pending(tenant) is False


async def test_another_firmware_of_the_same_time(house: House) -> None:
    """Where a device says when it was built, and two were, what was sent counts."""
    async with started(house.builder()) as tenant:
        first = await house.build(tenant, "Monday", content=b"one")
        house.device.runs("Monday")
        await send(tenant)
        assert pending(tenant) is False
        house.write_kitchen("two")
        second = await house.build(tenant, "Monday", content=b"two")
        assert pending(tenant) is True
        # To build it once more does not bring it to the device.
        await house.build(tenant, "Monday", content=b"two")
        assert pending(tenant) is True
        house.write_kitchen("two", "upload: exit 1")
        await send(tenant)
        assert pending(tenant) is True
        house.write_kitchen("two")
        await send(tenant)
        assert pending(tenant) is False
        # What the first one was made of was not noted any more.
        await send(tenant, first)
        assert pending(tenant) is None
        await send(tenant, second)
        assert pending(tenant) is False
    async with started(house.builder()) as tenant:
        assert pending(tenant) is False
        # What is built from what nobody can tell is as unknown when it is sent.
        house.put("wifi.yaml", "ssid: [")
        await house.build(tenant, "Monday", content=b"three")
        house.put("wifi.yaml", "ssid: home\n")
        await tenant.until(lambda: pending(tenant) is False)
        await send(tenant)
        assert pending(tenant) is None


async def test_sent_without_a_build(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """What was sent without being noted is not known, and was sent all the same."""
    async with started(house.builder()) as tenant:
        house.device.runs("Monday")
        await send(tenant)
        assert "It is not noted what kitchen.yaml was sent" in caplog.text
        house.leave("Monday")
        await send(tenant)
        assert pending(tenant) is None


@pytest.mark.parametrize("end", ["exit 1", "print hello"])
async def test_not_built(house: House, end: str) -> None:
    """A build that failed, or was ended, and a validation say nothing of a firmware."""
    house.write_kitchen("one", f"compile: {end}", "compile: wait go")
    async with started(house.builder()) as tenant:
        house.device.runs("Monday")
        house.leave("Monday")
        (job,) = await tenant.submit("compile", NAME)
        if end == "print hello":
            await tenant.running(job)
            await tenant.builder.cancel(job.job_id, Cause.CANCELLED_BY_USER)
        await tenant.ended(job)
        await tenant.run("validate", NAME)
        await told(tenant)
        assert pending(tenant) is None
    assert not house.record.exists()


async def test_error(house: House) -> None:
    """Of a file that cannot be read nothing is known, nor of one that it includes."""
    async with started(house.builder()) as tenant:
        await house.build(tenant, "Monday")
        house.device.runs("Monday")
        house.put(NAME, "esphome: [")
        await tenant.until(lambda: pending(tenant) is None)
        house.write_kitchen("one")
        await tenant.until(lambda: pending(tenant) is False)
        house.put("wifi.yaml", "ssid: [")
        await tenant.until(lambda: pending(tenant) is None)
        # Nor is it known what a build was made of that somehow works.
        await house.build(tenant, "Tuesday", content=b"other")
        # It is, where the firmware is the one of before.
        await house.build(tenant, "Monday")
        house.device.runs("Tuesday")
        house.put("wifi.yaml", "ssid: home\n")
        house.device.runs("Monday")
        await tenant.until(lambda: pending(tenant) is False)
        house.device.runs("Tuesday")
        assert pending(tenant) is None


async def test_unknown_time(house: House) -> None:
    """A build that does not say when it was is not mixed up with others."""
    async with started(house.builder()) as tenant:
        await house.build(tenant, None)
        assert not house.record.exists()


async def test_bounds(house: House) -> None:
    """Only the last builds are noted, and only of configurations that there are."""
    for name in ("other", "third"):
        house.write(name)
    async with started(house.builder()) as tenant:
        for number in range(BUILDS + 2):
            await house.build(tenant, f"{number}", "other.yaml")
        # What is built again is the newest again.
        await house.build(tenant, "2", "other.yaml")
        await house.build(tenant, "Monday", "third.yaml")
        builds = json.loads(house.record.read_bytes())["builds"]
        assert list(builds) == ["other.yaml", "third.yaml"]
        numbers = (*range(3, BUILDS + 2), 2)
        assert list(builds["other.yaml"]) == [*map(str, numbers)]
        (house.config_dir / "other.yaml").unlink()
        await tenant.until(lambda: "other.yaml" not in tenant.builder.configurations)
        await house.build(tenant, "Monday")
        builds = json.loads(house.record.read_bytes())["builds"]
        assert {*builds} == {"third.yaml", NAME}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"method": 1, "builds": []}',
        '{"method": 1, "builds": {"kitchen.yaml": "Monday"}}',
        '{"method": 1, "builds": {"kitchen.yaml": {"Monday": 1}}}',
        '{"method": 1, "builds": {"kitchen.yaml": {"Monday": {"runs": "1"}}}}',
        '{"method": 1, "builds": {"": {"": {"firmware": 1, "made_of": 0, "runs": 0}}}}',
    ],
)
async def test_damaged(
    house: House, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is damaged is as unknown as what was never noted."""
    house.record.write_text(text)
    house.device.runs("Monday")
    async with started(house.builder()) as tenant:
        assert pending(tenant) is None
        await house.build(tenant, "Monday")
        assert pending(tenant) is False
    assert "is damaged" in caplog.text


async def test_another_method(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints that were taken in another way are not compared."""
    house.device.runs("Monday")
    async with started(house.builder()) as tenant:
        await house.build(tenant, "Monday")
        assert pending(tenant) is False
    monkeypatch.setattr(changes_module, "METHOD", METHOD + 1)
    async with started(house.builder()) as tenant:
        assert pending(tenant) is None


async def test_cannot_be_noted(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A build has completed also where there is no space to note it; it is known."""

    def _full(path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device", path)

    house.device.runs("Monday")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes_module, "replace_file", _full)
        async with started(house.builder()) as tenant:
            job = await house.build(tenant, "Monday")
            assert pending(tenant) is False
    assert job.status is JobStatus.COMPLETED
    assert "It is not noted what kitchen.yaml was built from" in caplog.text
    async with started(house.builder()) as tenant:
        assert pending(tenant) is None


async def test_without_devices(house: House) -> None:
    """Where nobody knows of devices, nothing is known of what they run."""
    async with house.started(replace(house.settings)) as tenant:
        await house.build(tenant, "Monday")
        assert pending(tenant) is None
