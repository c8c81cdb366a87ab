"""The builder that lets an ESPHome Device Builder server run ESPHome."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, override

from aiohttp import ClientSession

from ..base import Surroundings
from ..builder import BuilderUnavailableError
from ..delivery import DeliveringBuilder
from ..devices import DEVICE_WAIT_SECONDS, Devices, NoDevices
from ..diagnosis import Diagnosis, Verdict, stopped
from ..log import JobLog
from ..models import (
    BuilderKind,
    BuilderState,
    Cause,
    Configuration,
    Job,
    JobKind,
    JobStatus,
    Phase,
)
from ..queue import HISTORY, VALIDATE_SLOTS, Lane
from ..store import Stored, load
from ..verification import Expected
from ..waiting import can_wait
from . import mapping
from .armed import ArmedUploads
from .checks import Checks
from .client import Client, Credentials
from .copies import Copies
from .errors import (
    CannotConnectError,
    CommandError,
    DeviceBuilderError,
    InvalidAuthError,
    ProtocolError,
    TooMuchError,
)
from .gauge import Gauge
from .link import Link
from .output import Tap
from .sources import Sources
from .ties import Ties
from .verdict import (
    CANCELED,
    CUT_OFF,
    IN_DOUBT,
    NOT_SENT,
    SHUT_DOWN,
    UNKNOWN_END,
    is_held,
    refused,
    verdict,
    was_deferred,
)
from .wire import OTA, ServerJob, parse_devices, parse_job, parse_jobs

CANCEL_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 30.0
"""Between two looks at the list of devices, and at jobs that were silent as long."""

SEED_SECONDS: Final = 60.0

_FIRST_LOOK_SECONDS: Final = 5.0
_MAX_SERVER_JOBS: Final = 5000
_SETTLE_SECONDS: Final = 1.0
_STEPS: Final = frozenset(
    (
        "job_queued",
        "job_started",
        "job_completed",
        "job_failed",
        "job_cancelled",
        "snapshot",
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceBuilderSettings:
    """Which server, who we are there, and where a builder keeps its own files.

    `url` is as `server_url` makes it. `device_wait` is for how many seconds an upload
    waits for a device that is off.
    """

    entry_id: str
    title: str
    url: str
    cache_dir: Path
    username: str | None = None
    password: str | None = None
    device_wait: float = DEVICE_WAIT_SECONDS

    def __repr__(self) -> str:
        """Return what may be shown."""
        return f"DeviceBuilderSettings(url={self.url!r})"


class DeviceBuilder(DeliveringBuilder):
    """Sends jobs to a server one by one for each configuration, and mirrors all there.

    The server cancels what is active for a configuration when something new is asked
    for, so a job waits here until the one before it has ended there.
    """

    _kind = BuilderKind.DEVICE_BUILDER

    def __init__(
        self,
        settings: DeviceBuilderSettings,
        session: ClientSession,
        on_invalid_auth: Callable[[], None] | None = None,
        devices: Devices | None = None,
    ) -> None:
        """Prepare; nothing is read and nobody is asked yet.

        `on_invalid_auth` is called when the server does not accept user name and
        password (any more), once until it did again.
        """
        super().__init__(
            settings.entry_id,
            settings.title,
            settings.cache_dir,
            devices or NoDevices(),
            settings.device_wait,
        )
        self._settings = settings
        self._on_invalid_auth = on_invalid_auth
        self._refused = False
        self._link = Link(
            settings.url,
            Credentials(username=settings.username, password=settings.password),
            session,
            self._serve,
            self._on_down,
        )
        self._connecting: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._first_try = asyncio.Event()
        self._ready = False
        self._was_ready = False
        self._shut_down = False
        self._version: str | None = None
        self._problem: str | None = None
        self._found: Mapping[str, Configuration] = {}
        self._look_now = asyncio.Event()
        self._ties = Ties()
        self._armed = ArmedUploads(
            self._ties, self._on_job, self._finish, self._on_taken_back
        )
        self._copies = Copies(self._logs, self._ties, self._nudge)
        self._sources = Sources()
        self._latest: dict[str, ServerJob] = {}
        self._heard: dict[str, float] = {}
        self._active_there: dict[str, ServerJob] = {}
        self._seen: dict[str, ServerJob] | None = None
        self._sending: dict[str, list[ServerJob]] = {}
        self._in_order = asyncio.Lock()
        self._causes: dict[str, Cause] = {}
        self._gauges: dict[str, Gauge] = {}
        self._concluding: dict[str, asyncio.Task[None]] = {}
        self._checks = Checks(self._logs, self._on_checked)
        self._tasks: set[asyncio.Task[None]] = set()
        self._canceling: dict[str, list[asyncio.Future[None]]] = {}

    @property
    def auth_invalid(self) -> bool:
        """Return whether the server does not accept user name and password."""
        return self._refused

    async def start(self) -> None:
        """Load the jobs; raise `BuilderUnavailableError` where that cannot work yet."""
        try:
            stored = await asyncio.to_thread(self._load)
        except OSError as err:
            raise BuilderUnavailableError(f"{err.filename}: {err.strerror}.") from err
        self._ties.load(stored)
        self._begin(stored.jobs, {Lane.VALIDATE: VALIDATE_SLOTS}, self._ties.jobs)

    def resume(self) -> None:
        """Begin to connect, and tell what the restart ended."""
        self._accept()
        self._connecting = asyncio.create_task(self._link.run(), name="device builder")
        self._clean_up()

    async def stop(self) -> None:
        """End what is only ours as interrupted; what runs on the server goes on."""
        self._accepting = False
        self._first_try.set()
        await self._checks.close()
        await self._armed.close()
        tasks = {
            *filter(None, (self._connecting,)),
            *self._concluding.values(),
            *self._tasks,
        }
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for gauge in self._gauges.values():
            gauge.close()
        await self._sources.close()
        await self._copies.close()
        self._release(None)
        await self._conclude()

    async def cancel(self, job_id: str, cause: Cause = Cause.CANCELLED_BY_USER) -> Job:
        """End a job and return it when it has ended.

        Raises `UnknownJobError`, or `BuilderUnavailableError` where the server does not
        end it.
        """
        job = self._job(job_id)
        if job.status.ended:
            return job
        if self._client is None and self._is_there(job_id):
            raise BuilderUnavailableError(self._info.message or "It is not connected.")
        waiting = asyncio.get_running_loop().create_future()
        self._canceling.setdefault(job_id, []).append(waiting)
        self._end(job, cause)
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await waiting
        except TimeoutError:
            message = "ESPHome Device Builder does not end this job."
            raise BuilderUnavailableError(message) from None
        return self.jobs.get(job_id, job)

    def _is_there(self, job_id: str) -> bool:
        """Return whether the server has a job, or will begin it by itself."""
        if job_id in self._verifications or job_id not in self._ties:
            return False
        return self._ties.armed(job_id) or not self._ties.waits(job_id)

    @override
    async def open_log(self, job_id: str) -> JobLog:
        """Return the log of a job, with what the server has of it up to now."""
        log = await super().open_log(job_id)
        job = self._job(job_id)
        if job.kind is JobKind.VALIDATE:
            return log
        if job.status.ended:
            if log.total == 0 and self._ties.server_id(job_id) is not None:
                await self._fetch_late(job)
            return log
        await self._copies.want(job)
        if (tap := self._tap(job_id)) is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_LOOK_SECONDS):
                    await tap.first_look.wait()
        return log

    async def _fetch_late(self, job: Job) -> None:
        """Get the output of a job that ended before anybody wanted to see it."""
        try:
            with suppress(DeviceBuilderError, TimeoutError):
                log = (await self._copies.fetch(job, self._client)).log
                await log.close()
                total, elided = log.total, log.elided
                self._update(replace(job, total_lines=total, elided_lines=elided))
        finally:
            self._copies.drop(job.job_id)

    @property
    @override
    def _surroundings(self) -> Surroundings:
        """Return what the server said last."""
        if self._ready:
            state = BuilderState.READY
        elif self._problem is None:
            state = BuilderState.CONNECTING
        else:
            state = BuilderState.UNAVAILABLE
        return Surroundings(
            state=state,
            version=self._version,
            problem=self._problem,
            configurations=self._found,
        )

    @override
    async def _check_names(self, names: Collection[str]) -> None:
        """Raise `UnknownConfigurationError` unless the server has all of them."""
        await self._first_try.wait()
        client = self._client
        if not self._ready or client is None:
            raise BuilderUnavailableError(self._info.message or "It is stopping.")
        if not self._configurations.keys() >= set(names):
            # It may have been written a moment ago.
            try:
                await self._look(client)
            except DeviceBuilderError as err:
                raise BuilderUnavailableError(str(err)) from err
        self._require(names)

    @override
    async def _stale(self, names: Collection[str]) -> set[str]:
        """Return running jobs whose configuration was changed since they started."""
        running = [
            job
            for job in self._queue.active
            if job.status is JobStatus.RUNNING and job.configuration in names
        ]
        return await self._sources.older(running, self._client)

    @override
    async def _expect(self, job: Job) -> Expected:
        """Return what a device runs when an upload has worked."""
        before = self.jobs.get(job.depends_on or "")
        return Expected(version=None if before is None else before.esphome_version)

    @override
    def _look_soon(self) -> None:
        """Look what an ended job has changed."""
        self._look_now.set()

    @override
    def _extra(self) -> Mapping[str, object]:
        """Return which job is which on the server."""
        return self._ties.stored()

    @override
    def _clean_up(self) -> None:
        """Forget what the history does not hold, here and in what ties it."""
        super()._clean_up()
        self._ties.keep(self.jobs.keys())

    @override
    def _update(self, job: Job, *, quiet: bool = False) -> None:
        """Take over a job's new state, and let go of it when it has ended."""
        super()._update(job, quiet=quiet)
        if job.status.ended:
            self._let_go(job.job_id)

    def _let_go(self, job_id: str) -> None:
        """Free what an active job needs, and whoever waits for its end."""
        self._close_gauge(job_id)
        self._copies.drop(job_id)
        self._sources.drop(job_id)
        self._latest.pop(job_id, None)
        self._heard.pop(job_id, None)
        self._causes.pop(job_id, None)
        self._connections.pop(job_id, None)
        self._ties.end_wait(job_id)
        for waiting in self._canceling.pop(job_id, ()):
            if not waiting.done():
                waiting.set_result(None)

    def _load(self) -> Stored:
        """Read what an earlier run left; blocking."""
        self._settings.cache_dir.mkdir(parents=True, exist_ok=True)
        return load(self._settings.cache_dir / "jobs.json")

    # The connection.

    async def _serve(self, client: Client) -> None:
        """Use a connection until it ends, which raises why."""
        try:
            async with client.stream("firmware/follow_jobs", self._on_event) as answer:
                async with asyncio.timeout(SEED_SECONDS):
                    await self._seed(client)
                looking = asyncio.create_task(self._keep_looking(client))
                answer.add_done_callback(lambda _: looking.cancel())
                try:
                    await asyncio.wait([looking])
                finally:
                    looking.cancel()
                if answer.done():
                    answer.result()
                if not looking.cancelled():
                    looking.result()
                raise ProtocolError("The server ended its stream of jobs.")
        except TimeoutError:
            raise CannotConnectError("The server tells no end of jobs.") from None
        finally:
            self._disconnected(client)

    async def _seed(self, client: Client) -> None:
        """Learn what there is, and put it in the place of what was known before."""
        self._seen = {}
        self._version = client.info.esphome_version
        self._found = await self._list_devices(client)
        # What was sent before the second of two answers without a job between them is
        # all there is: the server sends what it knows in one go.
        count = -1
        while count != len(self._seen):
            count = len(self._seen)
            await client.command("ping")
        seen, self._seen = self._seen, None
        self._client = client
        self._ready, self._problem, self._refused = True, None, False
        self._active_there = {job_id: job for job_id, job in seen.items() if job.active}
        self._resolve_doubts(seen)
        for job in sorted(seen.values(), key=mapping.created):
            self._on_job(job, quiet=not self._was_ready)
        await self._ask_for_missing(client, seen)
        self._was_ready = True
        self._shut_down = False
        self._link.up()
        self._touched.update(self._found, self._configurations)
        for job_id in self._copies.jobs:
            self._tap(job_id)
        self._first_try.set()
        self._pump()
        self._publish()

    def _disconnected(self, client: Client) -> None:
        """Do without a connection from now on."""
        self._shut_down = client.shut_down
        self._client = None
        self._ready = False
        self._seen = None
        self._active_there.clear()
        too_much = isinstance(client.error, TooMuchError)
        self._copies.cut_off(self._concluding, too_much=too_much)
        for task in self._concluding.values():
            task.cancel()
        self._release(self._causes)

    def _release(self, jobs: Iterable[str] | None) -> None:
        """Tell those who wait for jobs to end that it will not happen now."""
        for job_id in tuple(self._canceling if jobs is None else jobs):
            for waiting in self._canceling.pop(job_id, ()):
                if not waiting.done():
                    waiting.set_exception(
                        BuilderUnavailableError("The connection to the server broke.")
                    )

    def _on_down(self, error: DeviceBuilderError) -> None:
        """Tell that the server cannot be used, and why."""
        self._problem = f"ESPHome Device Builder cannot be used: {error}"
        self._first_try.set()
        self._pump()
        self._publish()
        if isinstance(error, InvalidAuthError) and not self._refused:
            self._refused = True
            if self._on_invalid_auth is not None:
                self._on_invalid_auth()

    async def _keep_looking(self, client: Client) -> None:
        """Look at devices, and at jobs that nothing is heard of."""
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._look_now.wait()
                # Several jobs may end together.
                await asyncio.sleep(_SETTLE_SECONDS)
            except TimeoutError:
                await self._ask_for_silent(client)
            self._look_now.clear()
            await self._look(client)

    async def _look(self, client: Client) -> None:
        """Take over the list of devices."""
        found = await self._list_devices(client)
        self._touched.update(found, self._found)
        self._found = found
        self._publish()

    async def _list_devices(self, client: Client) -> Mapping[str, Configuration]:
        try:
            answer = await client.command("devices/list")
        except CommandError as err:
            raise CannotConnectError(f"It does not list its devices: {err}.") from err
        return parse_devices(answer, self._entry_id, self._version)

    # What the server tells.

    def _on_event(self, event: str, data: Any) -> None:  # noqa: ANN401 - checked here
        """Take an event of the stream of all jobs; ignore what is not known."""
        if event in _STEPS:
            job = parse_job(data)
            if self._seen is None:
                if event == "job_queued" and self._is_known(job):
                    # An answer was faster than the stream.
                    return
                self._on_job(job)
                self._pump()
                self._publish()
            elif len(self._seen) < _MAX_SERVER_JOBS:
                self._seen[job.job_id] = job
            else:
                raise ProtocolError("The server tells no end of jobs.")
        elif event == "job_output" and isinstance(data, Mapping):
            self._on_output(data.get("job_id"), data.get("line"))

    def _on_output(self, server_id: object, line: object) -> None:
        if not isinstance(server_id, str) or not isinstance(line, str):
            raise ProtocolError("The server sent output that makes no sense.")
        if (job_id := self._ties.ours(server_id)) is not None:
            self._heard[job_id] = asyncio.get_running_loop().time()
            if (gauge := self._gauges.get(job_id)) is not None:
                gauge.feed(line)

    def _on_job(self, server: ServerJob, *, quiet: bool = False) -> None:
        """Take over a job as the server has it now."""
        if server.active:
            self._active_there[server.job_id] = server
        else:
            self._active_there.pop(server.job_id, None)
        job_id = self._ties.ours(server.job_id) or self._match_upload(server)
        if job_id is None:
            if not mapping.is_shown(server):
                return
            if (waiting := self._sending.get(server.configuration)) is not None:
                # It may be what the server is about to answer.
                waiting.append(server)
                return
            job_id = self._adopt(server, quiet=quiet)
        if job_id is not None:
            self._apply(job_id, server)

    def _is_known(self, server: ServerJob) -> bool:
        return self._ties.ours(server.job_id) in self._latest

    def _match_upload(self, server: ServerJob) -> str | None:
        """Return the upload of ours that was asked for together with its compile.

        Or that the server begins because its device is back.
        """
        if (begun := self._armed.begun(server, self._queue.active)) is not None:
            return self._claim(begun.job_id, server)
        for job in self._queue.active:
            tie = self._ties.get(job.job_id)
            if (
                tie is not None
                and tie.chained
                and tie.server_id is None
                and self._comes_after(job, server)
            ):
                return self._claim(job.job_id, server)
        return None

    def _comes_after(self, job: Job, server: ServerJob) -> bool:
        """Return whether an upload on the server is the one for our compile.

        It names none where it was put off and the device came back during the compile.
        """
        if server.depends_on is not None:
            return job.depends_on == self._ties.ours(server.depends_on)
        before = self._latest.get(job.depends_on or "")
        return (
            before is not None
            and before.deferred
            and not before.active
            and mapping.is_like(job, server)
        )

    def _claim(self, job_id: str, server: ServerJob) -> str:
        """Take what the server has begun for a job of ours; return the job's id."""
        self._tie(job_id, server.job_id)
        if job_id in self._causes:
            # It was to end before the server had told of it.
            self._spawn(self._cancel_there(self.jobs[job_id], server.job_id))
        return job_id

    def _tie(self, job_id: str, server_id: str) -> None:
        self._ties.tie(job_id, server_id)
        self._store.changed()

    def _adopt(self, server: ServerJob, *, quiet: bool) -> str | None:
        """Take in a job of somebody else; return its id unless there is nothing to do.

        Of those that ended long before, only as many as the history has room for.
        """
        ended = len(self.jobs) - len(self._queue.active)
        if server.kind is None or (quiet and not server.active and ended >= HISTORY):
            return None
        depends_on = self._ties.ours(server.depends_on)
        job = replace(
            self._queue.adopt(
                server.kind,
                server.configuration,
                server.created_at or datetime.now(UTC),
            ),
            address=server.address if server.kind is JobKind.UPLOAD else None,
            depends_on=depends_on,
            phase=None if depends_on is None else Phase.WAITING,
        )
        self._tie(job.job_id, server.job_id)
        if server.active or not quiet:
            self._update(job)
            return job.job_id
        end = verdict(job, server, Diagnosis.of(job))
        self._update(mapping.ended(job, server, end), quiet=True)
        return None

    def _apply(self, job_id: str, server: ServerJob) -> None:
        """Bring a job to the state that it has on the server."""
        job = self.jobs.get(job_id)
        if job is None or job.status.ended or job_id in self._concluding:
            return
        if job_id in self._verifications or self._is_over(job_id, server):
            return
        self._latest[job_id] = server
        self._heard[job_id] = asyncio.get_running_loop().time()
        if job.depends_on in self._concluding:
            # What comes first has ended there, and soon will here.
            return
        if server.status == "queued":
            self._apply_queued(job, server)
            return
        if self._is_deferred(job, server):
            self._put_back(job, armed=True)
            return
        if server.status != "running":
            canceled = self._canceled(job_id, server)
            task = asyncio.create_task(self._conclude_job(job_id, server, canceled))
            self._concluding[job_id] = task
            # One that is canceled before it began does not do that itself.
            task.add_done_callback(lambda _: self._forget_conclusion(job_id, task))
        if server.status == "running" or server.started_at not in (
            None,
            job.started_at,
        ):
            self._apply_running(job, server)

    def _is_over(self, job_id: str, server: ServerJob) -> bool:
        """Return whether what the server tells is of an attempt before."""
        tie = self._ties.get(job_id)
        return tie is not None and (tie.waits or tie.server_id != server.job_id)

    def _is_deferred(self, job: Job, server: ServerJob) -> bool:
        """Return whether the server has put an upload off before it began."""
        return (
            server.status == "cancelled"
            and was_deferred(server)
            and self._may_be_armed(job)
        )

    def _may_be_armed(self, job: Job) -> bool:
        """Return whether an upload may wait until the server begins another."""
        return (
            can_wait(job)
            and self._waiting.enabled
            and job.job_id not in self._causes
            and datetime.now(UTC) < self._waiting.until(self._queue, job)
        )

    def _rest(self, job_id: str) -> None:
        """Let go of what one attempt of an upload needed."""
        self._close_gauge(job_id)
        self._copies.drop(job_id)
        self._sources.drop(job_id)
        self._latest.pop(job_id, None)
        self._connections.pop(job_id, None)
        self._store.changed()

    def _apply_queued(self, job: Job, server: ServerJob) -> None:
        if job.status is JobStatus.RUNNING:
            self._close_gauge(job.job_id)
        self._update(mapping.queued(job, server))

    def _apply_running(self, job: Job, server: ServerJob) -> None:
        again = mapping.began_again(job, server)
        if self._client is not None and (again or job.status is JobStatus.QUEUED):
            self._sources.note(job, self._client)
        if again or job.job_id not in self._connections:
            self._note_device(job, late=server.status != "running")
        self._update(mapping.running(job, server, self._version))
        if again:
            self._close_gauge(job.job_id)
        if job.job_id not in self._gauges:
            self._gauges[job.job_id] = Gauge(job.kind, self._reporter(job.job_id))
        self._tap(job.job_id)

    def _close_gauge(self, job_id: str) -> None:
        if (gauge := self._gauges.pop(job_id, None)) is not None:
            gauge.close()

    def _reporter(self, job_id: str) -> Callable[[Phase | None, int | None], None]:
        """Return what puts the progress that is seen into a job."""

        def _report(phase: Phase | None, progress: int | None) -> None:
            job = self.jobs[job_id]
            log = self._copies.log(job_id)
            self._update(
                replace(
                    job,
                    phase=phase or job.phase,
                    progress=progress if phase or progress else job.progress,
                    total_lines=log.total if log else job.total_lines,
                    elided_lines=log.elided if log else job.elided_lines,
                )
            )

        return _report

    # The end of jobs.

    def _forget_conclusion(self, job_id: str, task: asyncio.Task[None]) -> None:
        if self._concluding.get(job_id) is task:
            del self._concluding[job_id]

    async def _conclude_job(
        self, job_id: str, server: ServerJob, canceled: Verdict
    ) -> None:
        """Get the output of a job that has ended, then give it its end."""
        try:
            job = self.jobs[job_id]
            if server.started_at is None:
                copy = await self._copies.open(job)
            else:
                copy = await self._copies.complete(job, self._client)
        except CannotConnectError:
            # It is not lost: the next connection tells of this end again.
            return
        finally:
            self._concluding.pop(job_id, None)
        end = verdict(job, server, copy.diagnosis, canceled)
        if server.status == "cancelled" and job_id in self._causes:
            # Whoever asked for that first counts.
            end = canceled
        job = self.jobs[job_id]
        if is_held(server, end) and self._concerns_us(job):
            self._hold_there(job, copy.log)
            return
        if job_id not in self._causes and self._waits_again(job, end):
            self._put_back(job, copy.log)
            return
        if not self._verify(job_id, end, server.exit_code, copy.log):
            self._end_as(job_id, server, end, copy.log)

    def _concerns_us(self, job: Job) -> bool:
        """Return whether it matters here that the server holds a job.

        What others asked for there is theirs to end, unless it waits here as well.
        """
        return can_wait(job) and (
            job.requested_by is not None
            or job.job_id in self._causes
            or self._may_be_armed(job)
        )

    def _hold_there(self, job: Job, log: JobLog | None = None) -> None:
        """Let an upload wait that the server holds; end it if it shall not wait."""
        may_wait = self._may_be_armed(job)
        self._put_back(job, log, armed=True)
        if may_wait:
            return
        if (cause := self._causes.get(job.job_id)) is not None:
            end = stopped(cause)
        else:
            end = self._waiting.gave_up() if self._waiting.enabled else NOT_SENT
        self._armed.disarm(job, self._client, end)

    def _put_back(
        self, job: Job, log: JobLog | None = None, *, armed: bool = False
    ) -> None:
        """Let an upload wait that begins once more when the device is back."""
        self._ties.put_back(job.job_id, armed=armed)
        self._rest(job.job_id)
        self._wait_again(job.job_id, log)

    def _end_as(
        self, job_id: str, server: ServerJob, end: Verdict, log: JobLog
    ) -> None:
        """Give a job the end that it had on the server."""
        job = self.jobs.get(job_id)
        if job is None or job.status.ended:
            return
        waiting = self._queue.dependents(job_id)
        later = {it.job_id: self._latest.get(it.job_id) for it in waiting}
        if end.status is not JobStatus.COMPLETED:
            self._end_those_with_a_cause(waiting)
        elif waiting and server.deferred:
            # What becomes of the upload is said by that itself.
            end = replace(end, message=None)
        self._finish(
            job_id,
            end,
            server.exit_code,
            log,
            finished_at=server.completed_at,
        )
        for upload in waiting:
            self._after_compile(upload, server, later[upload.job_id])

    def _end_those_with_a_cause(self, waiting: Iterable[Job]) -> None:
        """End what was being canceled, before it would end for its prerequisite."""
        for upload in waiting:
            if (cause := self._causes.get(upload.job_id)) is not None:
                self._finish(upload.job_id, stopped(cause))

    def _canceled(self, job_id: str, server: ServerJob) -> Verdict:
        """Return who canceled a job, as far as can be known."""
        if (cause := self._causes.get(job_id)) is not None:
            return stopped(cause)
        begun = mapping.created(server)
        if any(
            server.configuration in other.touches and mapping.created(other) > begun
            for other in self._active_there.values()
        ):
            return stopped(Cause.SUPERSEDED)
        return SHUT_DOWN if self._shut_down else CANCELED

    def _after_compile(
        self, upload: Job, server: ServerJob, later: ServerJob | None
    ) -> None:
        """Go on with what waited for a compile."""
        if self.jobs[upload.job_id].status.ended:
            return
        if later is not None:
            self._apply(upload.job_id, later)
        elif self._in_doubt(upload.job_id):
            # It was asked for together with the compile, but the server has none.
            if server.deferred:
                self._hold_there(upload)
            else:
                self._spawn(self._find_upload(upload.job_id, server))

    async def _find_upload(self, job_id: str, head: ServerJob) -> None:
        """Look for an upload whose beginning was not told."""
        client = self._client
        if client is None:
            return
        with suppress(DeviceBuilderError):
            answer = await client.command(
                "firmware/get_jobs", configuration=head.configuration
            )
            for job in parse_jobs(answer):
                if job.depends_on == head.job_id:
                    self._on_job(job)
            if self._in_doubt(job_id) and not self.jobs[job_id].status.ended:
                self._finish(job_id, UNKNOWN_END)

    def _in_doubt(self, job_id: str) -> bool:
        """Return whether a job was asked for and no answer has come."""
        return job_id in self._ties and self._ties.server_id(job_id) is None

    # After a break.

    def _resolve_doubts(self, seen: Mapping[str, ServerJob]) -> None:
        """Find what was asked for when the connection broke, among the server's jobs.

        What is not found is sent again, unless it may have flashed a device.
        """
        for job in self._queue.active:
            tie = self._ties.get(job.job_id)
            if tie is None or tie.server_id is not None or tie.chained or tie.waits:
                continue
            theirs = (it for it in seen.values() if not self._ties.ours(it.job_id))
            if (found := mapping.newest_like(job, theirs)) is not None:
                self._tie(job.job_id, found.job_id)
                continue
            chained = [
                it
                for it in self._queue.dependents(job.job_id)
                if it.job_id in self._ties
            ]
            if job.kind is not JobKind.UPLOAD and not chained:
                self._ties.drop(job.job_id)
                continue
            for lost in (*chained, job):
                self._finish(lost.job_id, IN_DOUBT)

    async def _ask_for_missing(
        self, client: Client, seen: Mapping[str, ServerJob]
    ) -> None:
        """Learn what became of jobs that the server did not tell of."""
        for job in self._queue.active:
            tie = self._ties.get(job.job_id)
            if tie is None or tie.waits or tie.server_id in seen:
                continue
            if job.job_id in self._verifications:
                continue
            head = self.jobs.get(job.depends_on or "")
            if tie.server_id is None:
                if head is None or head.status.ended:
                    self._finish(job.job_id, UNKNOWN_END)
            else:
                await self._ask_for(client, job, tie.server_id)

    async def _ask_for_silent(self, client: Client) -> None:
        """Learn what became of jobs that nothing was heard of for a while."""
        deadline = asyncio.get_running_loop().time() - LOOK_SECONDS
        for job in self._queue.active:
            server_id = self._ties.server_id(job.job_id)
            if (
                server_id is not None
                and not self._ties.waits(job.job_id)
                and job.job_id not in self._verifications
                and job.job_id not in self._concluding
                and self._heard.get(job.job_id, 0.0) < deadline
            ):
                await self._ask_for(client, job, server_id)

    async def _ask_for(self, client: Client, job: Job, server_id: str) -> None:
        answer = await client.command("firmware/get_job", job_id=server_id)
        if answer is not None:
            self._on_job(parse_job(answer))
        elif (last := self._latest.get(job.job_id)) is not None and not last.active:
            self._on_job(last)
        else:
            self._finish(job.job_id, UNKNOWN_END)

    # What is asked of the server.

    @override
    def _pump(self) -> None:
        """Send what can be sent."""
        client = self._client
        if not self._accepting:
            return
        away = self._hold()
        if not self._ready or client is None or client.error:
            return
        busy = {name for job in self._active_there.values() for name in job.touches}
        for job in self._queue.runnable(away=away):
            if self._is_under_way(job.job_id):
                continue
            if job.kind is JobKind.VALIDATE:
                self._start_check(job, client)
            elif job.configuration in busy:
                continue
            elif self._ties.armed(job.job_id):
                self._armed.take_back(job, client)
            else:
                self._start_sending(job)

    def _is_under_way(self, job_id: str) -> bool:
        """Return whether a job was asked of the server, or is about to be."""
        if job_id in self._checks or job_id in self._armed:
            return True
        return job_id in self._ties and not self._ties.waits(job_id)

    @override
    def _could_start(self, job: Job) -> bool:
        """Return whether all that an upload may lack is its device."""
        known = job.configuration in self._found or self._ties.armed(job.job_id)
        return (
            known and super()._could_start(job) and not self._is_under_way(job.job_id)
        )

    @override
    def _is_off(self, job: Job) -> bool:
        """Return whether an upload would not reach its device now.

        Of one that the server begins by itself, it knows that; others may know better.
        """
        device = self._device_for(job)
        if device is None or device.online is None:
            return self._ties.armed(job.job_id)
        return not device.online

    @override
    def _give_up(self, job: Job) -> None:
        """End an upload that has waited for its device for too long."""
        if not self._ties.armed(job.job_id):
            super()._give_up(job)
        elif self._first_try.is_set():
            self._armed.disarm(job, self._client, self._waiting.gave_up())

    def _on_taken_back(self) -> None:
        """Go on when the server holds an upload no longer."""
        self._store.changed()
        self._pump()
        self._publish()

    def _start_sending(self, job: Job) -> None:
        upload = None
        if job.kind is JobKind.COMPILE:
            waiting = self._queue.dependents(job.job_id)
            unsent = (
                it
                for it in waiting
                if it.job_id not in self._ties and not self._would_wait(it)
            )
            upload = next(unsent, None)
        self._ties.promise(job.job_id)
        if upload is not None:
            self._ties.promise(upload.job_id, chained=True)
        self._sending[job.configuration] = []
        self._spawn(self._send(job, upload))

    def _would_wait(self, upload: Job) -> bool:
        """Return whether an upload would wait for its device if it could start now."""
        return self._waiting.enabled and can_wait(upload) and self._is_off(upload)

    async def _send(self, job: Job, upload: Job | None) -> None:
        """Ask for a job, and for the upload after it, in one request."""
        try:
            # The server would do what comes together in any order.
            async with self._in_order:
                server = await self._try_to_send(job, upload)
        finally:
            for told in self._sending.pop(job.configuration):
                self._on_job(told)
        if server is not None and job.job_id not in self._latest:
            # What the stream tells is older than the answer, but in order.
            self._on_job(server)
        for it in filter(None, (upload, job)):
            now = self.jobs[it.job_id]
            if it.job_id in self._causes and not now.status.ended:
                self._end(now, self._causes[it.job_id])
        self._pump()
        self._publish()

    async def _try_to_send(self, job: Job, upload: Job | None) -> ServerJob | None:
        """Return what the server made of a request, if it answered."""
        end = None
        try:
            # From here on a restart knows of this request.
            self._store.changed()
            await self._store.flush()
            server = await self._request(job, upload)
        except _NotSentError:
            pass
        except OSError:
            end = refused("the list of jobs cannot be stored here")
        except CommandError as err:
            end = refused(str(err))
        except CannotConnectError:
            # Whether it was heard is found out when the server is back.
            return None
        else:
            self._tie(job.job_id, server.job_id)
            return server
        for it in filter(None, (upload, job)):
            self._ties.drop(it.job_id)
            if end is not None and not self.jobs[it.job_id].status.ended:
                self._finish(it.job_id, end)
        return None

    async def _request(self, job: Job, upload: Job | None) -> ServerJob:
        client = self._client
        if client is None or client.error is not None:
            raise _NotSentError
        command: str = job.kind
        arguments: dict[str, Any] = {"configuration": job.configuration}
        if upload is not None:
            command = "install"
            arguments["port"] = upload.address or OTA
        elif job.kind is JobKind.UPLOAD:
            arguments["port"] = job.address or OTA
        return parse_job(await client.command(f"firmware/{command}", **arguments))

    @override
    def _end(self, job: Job, cause: Cause) -> None:
        """End a job from outside: at once if it waits, else as soon as it can be."""
        if job.status.ended:
            return
        if job.job_id in self._checks:
            self._checks.cancel(job.job_id, cause)
        elif job.job_id in self._verifications:
            self._verifications.cancel(job.job_id, cause)
        elif not self._is_there(job.job_id) or self._armed.holds_another(
            job, self._queue.active
        ):
            self._finish(job.job_id, stopped(cause))
        elif self._ties.armed(job.job_id):
            self._causes.setdefault(job.job_id, cause)
            self._armed.disarm(job, self._client, stopped(cause))
        else:
            self._causes.setdefault(job.job_id, cause)
            server_id = self._ties.server_id(job.job_id)
            if server_id is not None:
                self._spawn(self._cancel_there(job, server_id))

    async def _cancel_there(self, job: Job, server_id: str) -> None:
        """Let the server end a job; its end comes as that of any other."""
        client = self._client
        if client is None:
            return
        with suppress(DeviceBuilderError):
            try:
                await client.command("firmware/cancel", job_id=server_id)
            except CommandError:
                # It was faster, or is not there any more.
                await self._ask_for(client, job, server_id)

    def _start_check(self, job: Job, client: Client) -> None:
        self._sources.note(job, client)
        job = replace(
            job,
            status=JobStatus.RUNNING,
            started_at=datetime.now(UTC),
            esphome_version=self._version,
            phase=Phase.VALIDATING,
        )
        self._update(job)
        self._checks.start(job, client)

    def _on_checked(
        self, job_id: str, end: Verdict, exit_code: int | None, log: JobLog | None
    ) -> None:
        """Give a check its end, or another try: nothing is lost by that."""
        job = self.jobs[job_id]
        if end is not CUT_OFF or job.attempt > 1 or not self._accepting:
            self._finish(job_id, end, exit_code, log)
            return
        self._update(
            replace(
                job,
                status=JobStatus.QUEUED,
                started_at=None,
                phase=None,
                attempt=2,
                total_lines=log.total if log else 0,
            )
        )
        self._pump()
        self._publish()

    # Output.

    def _tap(self, job_id: str) -> Tap | None:
        """Copy the output of a running job while somebody wants it."""
        if self._client is None or job_id in self._concluding:
            return None
        return self._copies.tap(self.jobs[job_id], self._client)

    def _nudge(self, job_id: str) -> None:
        """Let the length of a log be told."""
        if (gauge := self._gauges.get(job_id)) is not None:
            gauge.nudge()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _NotSentError(Exception):
    """There was no connection, so nothing was sent."""
