"""The ways on from a build that failed while nobody was looking."""

from datetime import timedelta
from html import escape
import re
from typing import TYPE_CHECKING, Any, Final

from homeassistant.components.http.auth import async_sign_path
from homeassistant.components.http.const import KEY_HASS_USER
from homeassistant.components.repairs import RepairsFlow, RepairsFlowResult
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.http import current_request

from .builders import async_job_coordinator, requester
from .builds.builder import Builder, BuildError, BuildRequest, UnknownJobError
from .builds.lines import plain
from .builds.models import Cause, Job, JobKind, RequestKind
from .const import ATTR_JOB_ID, DOMAIN
from .http import JobLogView

_LINES: Final = 20
_LINES_BYTES: Final = 2048
# Of one line there are at most 8 KiB.
_PAGE_BYTES: Final = _LINES * 8 * 1024
_LINK_VALID: Final = timedelta(hours=1)

_FENCES: Final = re.compile("`{3,}")
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]<>#|~&])")


async def async_create_fix_flow(
    hass: HomeAssistant,  # noqa: ARG001 - Home Assistant passes it
    issue_id: str,  # noqa: ARG001 - same
    data: dict[str, str | int | float | None] | None,  # noqa: ARG001 - same
) -> RepairsFlow:
    """Return a flow for an issue; the only fixable ones are those of failed builds."""
    return FailedBuildFlow()


class FailedBuildFlow(RepairsFlow):
    """Shows what went wrong, and builds once more or says no more of it.

    The issue stays in both cases: it goes when a build has worked.
    """

    async def async_step_init(
        self,
        user_input: dict[str, Any] | None = None,  # noqa: ARG002 - nothing is asked
    ) -> RepairsFlowResult:
        """Show the reason and the end of the log."""
        try:
            builder, job = self._find()
        except UnknownJobError:
            return self.async_abort(reason="gone")
        return self.async_show_menu(
            step_id="init",
            menu_options=["retry", "ignore"],
            description_placeholders={
                "configuration": job.configuration,
                "lines": _block(await _async_log_end(builder, job)),
                "log": _link(self.hass, job),
                "message": _MARKDOWN.sub(r"\\\1", job.message or ""),
            },
        )

    async def async_step_retry(
        self,
        user_input: dict[str, Any] | None = None,  # noqa: ARG002 - nothing is asked
    ) -> RepairsFlowResult:
        """Ask once more for what failed."""
        request = current_request.get()
        if TYPE_CHECKING:
            assert request is not None
        context = Context(user_id=request[KEY_HASS_USER].id)
        try:
            builder, job = self._find()
            await builder.submit(_again(builder, job, context))
        except UnknownJobError:
            return self.async_abort(reason="gone")
        except BuildError as err:
            return self.async_abort(
                reason="not_started", description_placeholders={"reason": str(err)}
            )
        return self.async_abort(reason="started")

    async def async_step_ignore(
        self,
        user_input: dict[str, Any] | None = None,  # noqa: ARG002 - nothing is asked
    ) -> RepairsFlowResult:
        """Do what the button of other issues does, which fixable ones do not have."""
        registry = ir.async_get(self.hass)
        if registry.async_get_issue(DOMAIN, self.issue_id) is None:
            return self.async_abort(reason="gone")
        registry.async_ignore(DOMAIN, self.issue_id, ignore=True)
        return self.async_abort(reason="ignored")

    def _find(self) -> tuple[Builder, Job]:
        """Return the job that failed, and its builder; raise `UnknownJobError`."""
        job_id = str((self.data or {}).get(ATTR_JOB_ID))
        builder = async_job_coordinator(self.hass, job_id).builder
        return builder, builder.jobs[job_id]


def _again(builder: Builder, job: Job, context: Context) -> BuildRequest:
    """Return what asks for the same again: for an install, if it was one."""
    sent = job
    if job.kind is JobKind.COMPILE:
        later = (one for one in builder.jobs.values() if one.depends_on == job.job_id)
        sent = next(later, job)
    kind, firmware = RequestKind(sent.kind.value), sent.firmware_job_id
    if sent.depends_on is not None or job.cause is Cause.PREREQUISITE_FAILED:
        # There may be no firmware to send as it is.
        kind, firmware = RequestKind.INSTALL, None
    return BuildRequest(
        kind=kind,
        configurations=(job.configuration,),
        address=sent.address,
        firmware_job_id=firmware,
        requested_by=requester(context),
    )


async def _async_log_end(builder: Builder, job: Job) -> str:
    """Return the end of a log, nothing if it is not there any more."""
    try:
        log = await builder.open_log(job.job_id)
        page = await log.page(max(0, log.total - _LINES), _LINES, _PAGE_BYTES)
    except UnknownJobError, OSError:
        return ""
    text = "\n".join(map(plain, page.lines))
    return text.encode()[-_LINES_BYTES:].decode(errors="ignore")


def _block(text: str) -> str:
    """Return a text that is shown as it is, whatever it holds."""
    fence = "`" * (max(map(len, _FENCES.findall(text)), default=2) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _link(hass: HomeAssistant, job: Job) -> str:
    """Return a link to the whole log that works for whoever makes this request.

    Without a target, the frontend takes it for a page of its own.
    """
    path = JobLogView.url.format(job_id=job.job_id)
    path = async_sign_path(hass, path, _LINK_VALID)
    label = escape(f"{job.configuration}-{job.kind}.txt")
    return f'<a href="{path}" target="_blank">{label}</a>'
