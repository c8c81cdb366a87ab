"""The HTTP views of a job: its log, and the firmware that it made."""

import re
from typing import Final
from urllib.parse import quote

from aiohttp import web

from homeassistant.components.http import KEY_HASS, HomeAssistantView, require_admin
from homeassistant.core import HomeAssistant, callback

from .builders import async_coordinators, async_job_coordinator
from .builds.builder import UnknownJobError
from .builds.kept import KeptFirmware, NoFirmwareError
from .builds.lines import plain
from .const import DOMAIN

_NOT_IN_NAMES: Final = re.compile(r"[^\w.+ -]")
_PAGE_BYTES: Final = 256 * 1024
_PAGE_LINES: Final = 2000


@callback
def async_register_views(hass: HomeAssistant) -> None:
    """Register the views."""
    hass.http.register_view(FirmwareView)
    hass.http.register_view(JobLogView)


class FirmwareView(HomeAssistantView):
    """A file of the firmware that a job made, as long as it is kept."""

    url = f"/api/{DOMAIN}/jobs/{{job_id}}/firmware/{{file}}"
    name = f"api:{DOMAIN}:jobs:firmware"

    @require_admin
    async def get(
        self, request: web.Request, job_id: str, file: str
    ) -> web.StreamResponse:
        """Send the file to be saved, and by nobody to be kept on the way."""
        for coordinator in async_coordinators(request.app[KEY_HASS]):
            if (kept := coordinator.builder.find_firmware(job_id)) is None:
                continue
            try:
                path = await coordinator.builder.firmware_file(job_id, file)
            except NoFirmwareError as err:
                return self.json_message(str(err), 404)
            return web.FileResponse(path, headers=file_headers(kept, file))
        return self.json_message("No firmware of such a job is kept", 404)


class JobLogView(HomeAssistantView):
    """The whole log of a job as a plain text, as long as it is now."""

    url = f"/api/{DOMAIN}/jobs/{{job_id}}/log"
    name = f"api:{DOMAIN}:jobs:log"

    @require_admin
    async def get(self, request: web.Request, job_id: str) -> web.StreamResponse:
        """Stream the log without its colors, with a notice where lines are missing."""
        hass = request.app[KEY_HASS]
        try:
            coordinator = async_job_coordinator(hass, job_id)
            log = await coordinator.builder.open_log(job_id)
            job = coordinator.builder.jobs[job_id]
        except UnknownJobError, KeyError:
            return self.json_message("There is no such job", 404)
        except OSError as err:
            return self.json_message(f"The log cannot be read: {err.strerror}", 503)
        name = quote(f"{job.configuration}-{job.kind}-{job_id}.txt", safe="")
        response = web.StreamResponse(
            headers={
                "Content-Disposition": f"inline; filename*=UTF-8''{name}",
                "X-Content-Type-Options": "nosniff",
            }
        )
        response.content_type = "text/plain"
        response.charset = "utf-8"
        await response.prepare(request)
        line, end = 0, log.total
        while line < end:
            page = await log.page(line, _PAGE_LINES, _PAGE_BYTES)
            if page.from_line > line:
                missing = page.from_line - line
                await response.write(
                    f"[{missing:,} lines are left out here]\n".encode()
                )
            text = "".join(f"{plain(text)}\n" for text in page.lines)
            await response.write(text.encode())
            line = page.next_line
        await response.write_eof()
        return response


def file_headers(kept: KeptFirmware, file: str) -> dict[str, str]:
    """Return what a browser needs to save a file, which holds passwords."""
    stem = kept.configuration.rpartition(".")[0]
    name = "-".join(filter(None, (stem, kept.version, file)))
    name = quote(_NOT_IN_NAMES.sub("_", name), safe="")
    return {
        "Cache-Control": "no-store",
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Type": "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
    }
