"""The triggers, in real automations with real jobs."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_homeassistant_custom_component.common import (
    MockConfigEntry,
    MockUser,
    async_mock_service,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.esphome_builds.const import CONF_ENTITIES, DOMAIN, EVENT_BUILD
from custom_components.esphome_builds.trigger import async_get_triggers
from homeassistant.components.config import automation as config_automation
from homeassistant.core import Context, CoreState, HomeAssistant, ServiceCall
from homeassistant.helpers import (
    area_registry as ar,
    device_registry as dr,
    entity_registry as er,
    floor_registry as fr,
    label_registry as lr,
)
from homeassistant.helpers.trigger import TriggerActionRunner, TriggerConfig
from homeassistant.setup import async_setup_component

from .clients import eventually
from .conftest import Connect
from .esphome_device import EsphomeDevice
from .fakes import FAKE_VERSION, write_configuration
from .helpers import VERSION, Job, Steps, async_act, async_until_state, local_entry

ENDS: Final = ("completed", "failed", "cancelled", "interrupted")
TRIGGERS: Final = {
    "build_started": ("started",),
    "build_finished": ENDS,
    "build_completed": ("completed",),
    "build_failed": ("failed",),
}

type Automate = Callable[..., Awaitable[list[ServiceCall]]]
type Told = list[tuple[str, str, str]]


def _automation(trigger: str, mode: str = "queued", **trigger_more: object) -> Any:  # noqa: ANN401 - YAML
    """Return an automation that tells of each job that its trigger tells of."""
    return {
        "id": trigger,
        "alias": trigger,
        "mode": mode,
        "max": 100,
        "triggers": {"trigger": f"{DOMAIN}.{trigger}", **trigger_more},
        "actions": {
            "action": "test.tell",
            "data": {
                "description": "{{ trigger.description }}",
                "job": "{{ trigger.job }}",
                "platform": "{{ trigger.platform }}",
            },
        },
    }


@pytest.fixture
def automate(hass: HomeAssistant) -> Automate:
    """Return what makes an automation, and returns what it will tell."""

    async def _automate(trigger: str, **more: Any) -> list[ServiceCall]:  # noqa: ANN401 - YAML
        told = async_mock_service(hass, "test", "tell")
        automation = _automation(trigger, **more)
        assert await async_setup_component(
            hass, "automation", {"automation": automation}
        )
        await hass.async_block_till_done()
        return told

    return _automate


def _told(calls: list[ServiceCall]) -> Told:
    return [
        (job["configuration"], job["kind"], job["status"])
        for job in (call.data["job"] for call in calls)
    ]


def _event_entity(
    hass: HomeAssistant, entry: MockConfigEntry, key: str
) -> er.RegistryEntry:
    """Return the event entity of a builder, or of one of its configurations."""
    return er.async_get(hass).async_get_or_create(
        "event", DOMAIN, f"{entry.entry_id}_{key}", config_entry=entry
    )


def _device_of(
    hass: HomeAssistant, entry: MockConfigEntry, name: str
) -> dr.DeviceEntry:
    """Return a device that has the event entity of a configuration."""
    esphome = MockConfigEntry(domain="esphome", title=name)
    esphome.add_to_hass(hass)
    device = dr.async_get(hass).async_get_or_create(
        config_entry_id=esphome.entry_id,
        connections={(dr.CONNECTION_NETWORK_MAC, "AA:BB:CC:00:00:01")},
        name=name,
    )
    entity = _event_entity(hass, entry, f"{name}.yaml_build")
    er.async_get(hass).async_update_entity(entity.entity_id, device_id=device.id)
    return device


@pytest.fixture
async def ends(hass: HomeAssistant, config_dir: Path) -> Callable[[], Awaitable[Told]]:
    """Return what makes a job of each end, and returns what can be told of them."""
    write_configuration(config_dir, "porch", "exit 1")
    write_configuration(config_dir, "porch2", f"mark {config_dir / 'r'}", "sleep inf")

    async def _run() -> Told:
        await async_act(hass, "compile", "kettle.yaml", wait=True)
        # The upload is canceled when its compile fails.
        await async_act(hass, "install", "porch.yaml", wait=True)
        await async_act(hass, "compile", "porch2.yaml")
        await eventually((config_dir / "r").exists)
        (job,) = await async_act(hass, "cancel", "porch2.yaml")
        assert job["status"] == "cancelled"
        await hass.async_block_till_done()
        return [
            ("kettle.yaml", "compile", "completed"),
            ("porch.yaml", "compile", "failed"),
            ("porch.yaml", "upload", "cancelled"),
            ("porch2.yaml", "compile", "cancelled"),
        ]

    return _run


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("trigger", [*TRIGGERS][1:])
async def test_ends(
    automate: Automate, ends: Callable[[], Awaitable[Told]], trigger: str
) -> None:
    """Each trigger fires once for each end that it is about, in order."""
    calls = await automate(trigger)

    expected = await ends()

    assert _told(calls) == [job for job in expected if job[2] in TRIGGERS[trigger]]


@pytest.mark.usefixtures("builder")
async def test_start(hass: HomeAssistant, automate: Automate) -> None:
    """A job that is queued did not start yet."""
    calls = await automate("build_started")

    await async_act(hass, "install", "kettle.yaml", wait=True)
    await hass.async_block_till_done()

    assert _told(calls) == [
        ("kettle.yaml", "compile", "running"),
        ("kettle.yaml", "upload", "running"),
    ]


@pytest.mark.usefixtures("builder")
async def test_what_is_told(
    hass: HomeAssistant, automate: Automate, hass_admin_user: MockUser
) -> None:
    """An automation gets the whole job, and can be followed to who asked for it."""
    calls = await automate("build_completed")
    context = Context(user_id=hass_admin_user.id)
    steps = Steps(hass)

    (job,) = await async_act(hass, "compile", "kettle.yaml", context=context, wait=True)
    await hass.async_block_till_done()

    (call,) = calls
    assert call.data["job"] == steps.events[-1].data["job"]
    assert call.data["job"]["job_id"] == job["job_id"]
    assert call.data["platform"] == "esphome_builds.build_completed"
    assert call.data["description"] == "compile of kettle.yaml completed"
    assert call.context.parent_id == steps.events[-1].context.id
    assert steps.events[-1].context.parent_id == context.id


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("mode", ["queued", "parallel"])
async def test_ends_in_the_same_turn_of_the_loop(
    hass: HomeAssistant, config_dir: Path, automate: Automate, mode: str
) -> None:
    """A compile that fails ends its upload in the same turn: two runs, in order."""
    calls = await automate("build_finished", mode=mode)
    steps = Steps(hass)
    names = [write_configuration(config_dir, f"room{i}", "exit 1") for i in range(5)]

    jobs = await async_act(hass, "install", *names, wait=True)
    await hass.async_block_till_done()

    ended = [
        event.data["job"]["job_id"]
        for event in steps.events
        if event.data["type"] in ENDS
    ]
    assert [call.data["job"]["job_id"] for call in calls] == ended
    assert sorted(ended) == sorted(job["job_id"] for job in jobs)


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["kettle.yaml compile", "kettle.yaml upload", "greenhouse.yaml validate"]),
        ({"kind": []}, None),
        ({"kind": "upload"}, ["kettle.yaml upload"]),
        (
            {"kind": ["compile", "validate"]},
            ["kettle.yaml compile", "greenhouse.yaml validate"],
        ),
        ({"configuration": "greenhouse.yaml"}, ["greenhouse.yaml validate"]),
        ({"configuration": ["greenhouse.yaml"], "kind": ["upload"]}, []),
        ({"config_entry_id": "another"}, []),
        ({"config_entry_id": ["another"]}, []),
        ({"config_entry_id": []}, None),
    ],
)
@pytest.mark.local_only("it is the same for jobs of any builder")
async def test_options(
    hass: HomeAssistant,
    automate: Automate,
    options: dict[str, Any],
    expected: list[str] | None,
) -> None:
    """Each option narrows; an empty one does not."""
    calls = await automate("build_completed", options=options)

    await async_act(hass, "install", "kettle.yaml", wait=True)
    await async_act(hass, "validate", "greenhouse.yaml", wait=True)
    await hass.async_block_till_done()

    found = [" ".join(job[:2]) for job in _told(calls)]
    assert found == expected if expected is not None else len(found) == 3


async def test_the_builder_of_an_option(
    hass: HomeAssistant, builder: MockConfigEntry, automate: Automate
) -> None:
    """Jobs of the builder that is named are told."""
    options = {"config_entry_id": [builder.entry_id, "another"]}
    calls = await automate("build_completed", options=options)

    await async_act(hass, "validate", "kettle.yaml", wait=True)
    await hass.async_block_till_done()

    assert len(calls) == 1


@pytest.mark.usefixtures("managed")
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 0),
        ({"kind": ["install_esphome"]}, 1),
        ({"kind": ["compile"]}, 0),
        ({"kind": ["install_esphome"], "configuration": ["kettle.yaml"]}, 0),
    ],
)
async def test_an_installation_of_esphome_has_to_be_named(
    hass: HomeAssistant, automate: Automate, options: dict[str, Any], count: int
) -> None:
    """It is no build, so nobody is told of it who did not ask for it."""
    calls = await automate("build_finished", options=options)

    await async_act(hass, "install_esphome", version="2026.10.0", wait=True)
    await hass.async_block_till_done()

    assert _told(calls) == [("", "install_esphome", "completed")] * count
    for call in calls:
        assert call.data["description"] == "install_esphome of ESPHome completed"


@pytest.mark.local_only("it is the same for jobs of any builder")
@pytest.mark.parametrize("by", ["entity", "device", "area", "floor", "label"])
async def test_target_of_a_configuration(
    hass: HomeAssistant, builder: MockConfigEntry, automate: Automate, by: str
) -> None:
    """Whatever leads to the events of a configuration is a target."""
    device = _device_of(hass, builder, "kettle")
    entity = _event_entity(hass, builder, "kettle.yaml_build")
    floor = fr.async_get(hass).async_create("Ground")
    area = ar.async_get(hass).async_create("Attic", floor_id=floor.floor_id)
    label = lr.async_get(hass).async_create("Mine")
    dr.async_get(hass).async_update_device(device.id, labels={label.label_id})
    target = {
        "entity": {"entity_id": entity.entity_id},
        "device": {"device_id": device.id},
        "area": {"area_id": [area.id]},
        "floor": {"floor_id": floor.floor_id},
        "label": {"label_id": label.label_id},
    }[by]
    calls = await automate("build_completed", target=target)
    # It counts where a device is when something happens.
    dr.async_get(hass).async_update_device(device.id, area_id=area.id)

    await async_act(hass, "validate", "kettle.yaml", "greenhouse.yaml", wait=True)
    await hass.async_block_till_done()

    assert _told(calls) == [("kettle.yaml", "validate", "completed")]


@pytest.mark.local_only("it is the same for jobs of any builder")
@pytest.mark.parametrize("by", ["entity", "device"])
async def test_target_of_a_builder(
    hass: HomeAssistant, builder: MockConfigEntry, automate: Automate, by: str
) -> None:
    """A builder's own events or device mean all of its jobs, no other builder's."""
    entity = _event_entity(hass, builder, "builds")
    assert entity.device_id
    calls = await automate(
        "build_completed",
        target={"entity": {"entity_id": entity.entity_id}}.get(
            by, {"device_id": entity.device_id}
        ),
    )
    other = local_entry("other", Path(hass.config.config_dir) / "esphome", "")
    other.add_to_hass(hass)
    job = {"kind": "compile", "configuration": "kettle.yaml"}
    hass.bus.async_fire(
        EVENT_BUILD, {"type": "completed", "job": {**job, "entry_id": other.entry_id}}
    )

    await async_act(hass, "validate", "kettle.yaml", "greenhouse.yaml", wait=True)
    await hass.async_block_till_done()

    assert sorted(_told(calls)) == [
        ("greenhouse.yaml", "validate", "completed"),
        ("kettle.yaml", "validate", "completed"),
    ]


@pytest.mark.local_only("it is the same for jobs of any builder")
async def test_a_device_without_entities_of_ours(
    hass: HomeAssistant, entry: MockConfigEntry, automate: Automate
) -> None:
    """Where a user wants no entities of configurations, devices are still targets."""
    hass.config_entries.async_update_entry(entry, options={CONF_ENTITIES: False})
    kettle = EsphomeDevice(hass, "kettle")
    assert await hass.config_entries.async_setup(entry.entry_id)
    await async_until_state(hass, VERSION, FAKE_VERSION)
    target = {"device_id": kettle.device.id}
    calls = await automate("build_completed", target=target)

    await async_act(hass, "validate", "kettle.yaml", "greenhouse.yaml", wait=True)
    await hass.async_block_till_done()

    assert _told(calls) == [("kettle.yaml", "validate", "completed")]


@pytest.mark.usefixtures("builder")
@pytest.mark.local_only("it is the same for jobs of any builder")
@pytest.mark.parametrize("target", [{}, {"device_id": []}])
async def test_an_empty_target_is_none(
    hass: HomeAssistant, automate: Automate, target: dict[str, Any]
) -> None:
    """The editor leaves an empty target when the last one is taken away."""
    calls = await automate("build_completed", target=target)

    await async_act(hass, "validate", "kettle.yaml", wait=True)
    await hass.async_block_till_done()

    assert len(calls) == 1


@pytest.mark.usefixtures("builder")
@pytest.mark.local_only("it is the same for jobs of any builder")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"options": {"kind": "installing"}}, "kind"),
        ({"options": {"device": "kettle"}}, "device"),
        ({"target": {"entity_id": "kettle"}}, "entity_id"),
    ],
)
async def test_a_mistake_is_told(
    automate: Automate,
    caplog: pytest.LogCaptureFixture,
    more: dict[str, Any],
    message: str,
) -> None:
    """An automation that can never run says so when it is set up."""
    await automate("build_failed", **more)

    (record,) = [
        record for record in caplog.records if "failed to setup" in record.message
    ]
    assert message in record.message
    caplog.clear()


@pytest.mark.local_only("it is the same for jobs of any builder")
async def test_nobody_listens_any_more(
    hass: HomeAssistant, builder: MockConfigEntry, automate: Automate
) -> None:
    """An automation that is turned off leaves no listener."""
    before = hass.bus.async_listeners().get(EVENT_BUILD, 0)
    await automate("build_finished")
    assert hass.bus.async_listeners()[EVENT_BUILD] == before + 1

    await hass.services.async_call(
        "automation",
        "turn_off",
        {"entity_id": "automation.build_finished"},
        blocking=True,
    )

    assert hass.bus.async_listeners().get(EVENT_BUILD, 0) == before


@pytest.mark.usefixtures("builder")
@pytest.mark.local_only("it is the same for jobs of any builder")
@pytest.mark.parametrize("more", [(), (None,)], ids=["2026.9", "2026.10"])
async def test_releases_of_home_assistant(
    hass: HomeAssistant, more: tuple[None, ...]
) -> None:
    """Up to 2026.9 a trigger is attached without who hears that it did not fire."""
    told: list[tuple[dict[str, Any], str]] = []

    def _run(payload: dict[str, Any], description: str, *_: object) -> None:
        told.append((payload, description))

    run: TriggerActionRunner = _run  # type: ignore[assignment] # no task is needed
    trigger = (await async_get_triggers(hass))["build_completed"]
    config = await trigger.async_validate_config(hass, {})
    made = trigger(hass, TriggerConfig(key="build_completed", **config))
    detach = await made.async_attach_runner(run, *more)
    (job,) = await async_act(hass, "validate", "kettle.yaml", wait=True)
    detach()
    await async_act(hass, "validate", "kettle.yaml", wait=True)

    ((payload, description),) = told
    assert payload["job"]["job_id"] == job["job_id"]
    assert description == "validate of kettle.yaml completed"


@pytest.mark.usefixtures("builder")
@pytest.mark.local_only("it is the same for jobs of any builder")
async def test_the_editor_knows_them(
    hass: HomeAssistant,
    connect: Connect,
    hass_client: ClientSessionGenerator,
    hass_config_dir: str,
) -> None:
    """The editor shows each with its fields, and what it saves runs."""
    told = async_mock_service(hass, "test", "tell")
    assert await async_setup_component(hass, "automation", {})
    # The rest of this integration needs the frontend.
    config_automation.async_setup(hass)
    client = await connect()
    subscription = await client.subscribe("trigger_platforms/subscribe")
    found: dict[str, Any] = {}
    while f"{DOMAIN}.build_failed" not in found:
        found |= await subscription.next()
    assert {name for name in found if name.startswith(DOMAIN)} == {
        f"{DOMAIN}.{trigger}" for trigger in TRIGGERS
    }
    for trigger in TRIGGERS:
        description = found[f"{DOMAIN}.{trigger}"]
        assert [*description["fields"]] == ["kind", "configuration", "config_entry_id"]
        (only,) = description["target"]["entity"]
        assert only == {"integration": DOMAIN, "domain": ["event"]}

    http = await hass_client()
    automation = _automation("build_completed", options={"kind": ["validate"]})
    del automation["id"]
    (Path(hass_config_dir) / "automations.yaml").write_text("")
    (Path(hass_config_dir) / "configuration.yaml").write_text(
        "automation: !include automations.yaml\n"
    )
    response = await http.post("/api/config/automation/config/mine", json=automation)
    assert response.status == HTTPStatus.OK, await response.text()
    await hass.async_block_till_done()

    await async_act(hass, "validate", "kettle.yaml", wait=True)
    await hass.async_block_till_done()
    assert _told(told) == [("kettle.yaml", "validate", "completed")]


@pytest.mark.local_only("what runs on a server goes on there")
async def test_what_a_restart_ended(
    hass: HomeAssistant, entry: MockConfigEntry, config_dir: Path, automate: Automate
) -> None:
    """What was cut off while Home Assistant was down is told when it has started."""
    ready = config_dir / "ready"
    script = (f"upload: mark {ready}", "upload: sleep inf")
    write_configuration(config_dir, "porch", *script)
    assert await hass.config_entries.async_setup(entry.entry_id)
    steps = Steps(hass)
    jobs: list[Job] = await async_act(hass, "install", "porch.yaml")
    await eventually(ready.exists)
    path = Path(hass.config.cache_path(DOMAIN)) / entry.entry_id / "jobs.json"
    running = await hass.async_add_executor_job(path.read_bytes)
    assert await hass.config_entries.async_unload(entry.entry_id)
    # So it is after a power cut: nobody was told of the end.
    await hass.async_add_executor_job(path.write_bytes, running)
    steps.events.clear()

    hass.set_state(CoreState.not_running)
    calls = await automate("build_finished")
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    assert calls == []
    assert steps.events == []
    await hass.async_start()
    await hass.async_block_till_done()

    assert steps.of(jobs[1]) == ["interrupted"]
    assert _told(calls) == [("porch.yaml", "upload", "interrupted")]
