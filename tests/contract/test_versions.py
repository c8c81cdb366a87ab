"""The same with servers of the last six months."""

from typing import Final

import pytest

from custom_components.esphome_builds.builds.models import Cause, JobStatus

from ..fakes import write_configuration
from .conftest import Tenant
from .peer import Peer, servers

VERSIONS: Final = [*servers()]

_Q, _R, _C = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Return the version of the server."""
    version: str = request.param
    return version


async def test_every_kind(peer: Peer, tenant: Tenant, version: str) -> None:
    """All that is asked of a server has been there since the oldest one."""
    name = write_configuration(
        peer.config_dir, f"device-{version}".replace(".", "-"), "print x"
    )
    for kind in ("validate", "compile", "upload", "clean"):
        job = await tenant.run(kind, name)
        assert (job.status, job.exit_code) == (_C, 0)
        assert tenant.statuses(job) == [_Q, _R, _C]
        assert await tenant.lines(job) == ["x"]
    jobs = await tenant.ended(*await tenant.submit("install", name))
    assert [job.status for job in jobs] == [_C, _C]
    assert tenant.builder.info.esphome_version
    assert tenant.builder.configurations[name].name == name.removesuffix(".yaml")


async def test_failure_and_cancel(peer: Peer, tenant: Tenant, version: str) -> None:
    """Jobs that do not complete do so everywhere alike."""
    suffix = version.replace(".", "-")
    name = write_configuration(peer.config_dir, f"bad-{suffix}", "compile: exit 1")
    build, upload = await tenant.ended(*await tenant.submit("install", name))
    assert (build.status, build.exit_code) == (JobStatus.FAILED, 1)
    assert upload.cause is Cause.PREREQUISITE_FAILED
    name = write_configuration(peer.config_dir, f"long-{suffix}", "compile: sleep inf")
    (job,) = await tenant.submit("compile", name)
    await tenant.until(lambda: tenant.job(job).status is _R)
    job = await tenant.builder.cancel(job.job_id)
    assert (job.status, job.cause) == (JobStatus.CANCELLED, Cause.CANCELLED_BY_USER)


async def test_output(peer: Peer, tenant: Tenant, version: str) -> None:
    """What a server has dropped of a long output is an explicit gap."""
    name = f"long-output-{version}".replace(".", "-")
    name = write_configuration(peer.config_dir, name, "compile: lines 20000")
    job = await tenant.run("compile", name)
    assert job.total_lines == 20_000
    log = await tenant.builder.open_log(job.job_id)
    assert log.gaps == [(0, 17_999)]
    page = await log.page(0, 5000, 10**7)
    assert page.from_line == 18_000
    assert page.lines[0] == "line 18000"
    assert page.lines[-1] == "line 19999"
