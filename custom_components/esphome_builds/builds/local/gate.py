"""Whether this host is fit for jobs: looked at now and again, and before each of them.

What makes a job wait is not told to anybody as an obstacle before it has stayed for a
while, and until it has been gone for a while, since memory and disk come and go.
"""

import asyncio
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import logging
import math
from typing import Final

from ..findings import Finding, Obstacle, Severity, worst_first
from ..models import Job
from .environment import COMPILERS, limit_compilers
from .host import Host, look
from .preflight import findings, parallel_compilers
from .settings import LocalSettings
from .watch import Watch

_LOGGER = logging.getLogger(__name__)

CONFIRM_SECONDS: Final = 50.0
"""For so long what comes and goes must be as it is before that is told."""

LOOK_SECONDS: Final = 60.0
"""Between two looks that no job asks for; while one is held there are more."""

WAIT_SECONDS: Final = 30 * 60.0
"""For so long a job waits for a host on which nothing else of ours is compiled."""

_FICKLE: Final = frozenset({Obstacle.DISK_FULL, Obstacle.DISK_LOW, Obstacle.MEMORY_LOW})
# It comes and goes all the time, and only means that fewer compilers are started.
_HARMLESS: Final = frozenset({Obstacle.MEMORY_SCARCE})
_STOP_SECONDS: Final = 2.0

# The compiles of all builders of this process, which share the host.
_compiling: Final[set[tuple[str, str]]] = set()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """A job that has to wait, the reason, and since when nothing else explains it."""

    job: Job
    finding: Finding
    since: float


class Gate:
    """Lets a job start when a look at the host right before it found nothing."""

    def __init__(
        self,
        settings: LocalSettings,
        environment: Mapping[str, str],
        watch: Watch,
        on_look: Callable[[], None],
    ) -> None:
        """Prepare; nothing is looked at yet. `on_look` is called after each look."""
        self._asked: set[str] = set()
        self._cleared: set[str] = set()
        self._environment = environment
        self._found: tuple[Finding, ...] = ()
        self._held: dict[str, _Held] = {}
        self._host: Host | None = None
        self._looked_at = -math.inf
        self._on_look = on_look
        self._settings = settings
        self._steady = _Steady()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None
        self._told: tuple[Finding, ...] = ()
        self._version: str | None = None
        self._watch = watch

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return what concerns the configurations there are, the worst first."""
        configurations = self._watch.configurations.values()
        platforms = {configuration.platform for configuration in configurations}
        return tuple(
            finding
            for finding in self._told
            if finding.platforms is None or finding.platforms & platforms
        )

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Return the names of what is found, but for what nobody has to mend."""
        names = (finding.obstacle for finding in self.findings)
        # Once each, in the order of the findings.
        return tuple(
            name.value for name in dict.fromkeys(names) if name not in _HARMLESS
        )

    @property
    def held(self) -> dict[str, Finding]:
        """Return the jobs that have to wait, and for what."""
        return {
            job_id: held.finding
            for job_id, held in self._held.items()
            if job_id not in self._cleared
        }

    def ask(self, job: Job) -> tuple[Finding, ...] | None:
        """Return what concerns a job, the worst first; None while it has to wait.

        If it may only warn, the job can start. Where it is not known, it will be, and
        `on_look` called then.
        """
        if job.job_id not in self._cleared:
            self._asked.add(job.job_id)
            self._look()
            return None
        self._cleared.discard(job.job_id)
        found = self._concerning(job)
        if not _waits(found):
            self._held.pop(job.job_id, None)
            return found
        if self._held.pop(job.job_id, None) is not None:
            # It was let go because it has waited for too long.
            return found
        since = asyncio.get_running_loop().time()
        self._held[job.job_id] = _Held(job=job, finding=found[0], since=since)
        return None

    def forget(self, job_id: str) -> None:
        """Let a job go that has ended."""
        self._asked.discard(job_id)
        self._held.pop(job_id, None)

    def look_if_due(self) -> None:
        """Look again if that is to be, in the background."""
        now = asyncio.get_running_loop().time()
        if (
            self._held
            or now - self._looked_at >= LOOK_SECONDS
            or self._version != self._watch.version
        ):
            self._look()

    async def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if (task := self._task) is not None:
            # A look takes a moment, but for one at a disk that does not answer.
            await asyncio.wait([task], timeout=_STOP_SECONDS)
            task.cancel()

    @contextmanager
    def compiling(self, job: Job) -> Generator[None]:
        """Count a compile among those that share the host, for a time."""
        entry = (job.entry_id, job.job_id)
        _compiling.add(entry)
        try:
            yield
        finally:
            _compiling.discard(entry)

    def limit(self, own_compiles: int) -> tuple[dict[str, str], str | None]:
        """Return the environment of a compile, and what to say of its compilers.

        `own_compiles` is how many this builder will run side by side.
        """
        host, entry_id = self._host, self._settings.entry_id
        if host is None or COMPILERS in self._environment:
            return {**self._environment}, None
        others = sum(other != entry_id for other, _ in _compiling)
        builds = own_compiles + others
        shared = parallel_compilers(None, cores=host.cores, builds=builds)
        # Where none fits any more since it was let through, one is tried.
        fitting = max(
            1, parallel_compilers(host.memory, cores=host.cores, builds=builds)
        )
        if fitting == host.cores:
            return {**self._environment}, None
        note = None
        if fitting < shared:
            note = f"The free memory is enough for {fitting} of {shared} compilers."
        return limit_compilers(self._environment, fitting), note

    def _concerning(self, job: Job) -> tuple[Finding, ...]:
        configuration = self._watch.configurations.get(job.configuration)
        platform = None if configuration is None else configuration.platform
        return tuple(
            finding for finding in self._found if finding.concerns(job.kind, platform)
        )

    def _look(self) -> None:
        """Look in the background, now or after the look that is under way."""
        if self._task is None and not self._stopped:
            self._task = asyncio.create_task(self._look_for_all())

    async def _look_for_all(self) -> None:
        """Look, and again as long as a job asks that came too late for the last."""
        try:
            while not self._stopped:
                asked, self._asked = self._asked, set()
                await self._look_once()
                # One that asked again before it was held has its answer.
                self._cleared = (asked - self._held.keys()) | self._released()
                self._on_look()
                self._cleared = set()
                if not self._asked:
                    break
        finally:
            self._task = None

    async def _look_once(self) -> None:
        """Look, and take over what is found."""
        loop = asyncio.get_running_loop()
        self._looked_at, self._version = loop.time(), self._watch.version
        try:
            self._host = await asyncio.to_thread(
                look, self._settings.cache_dir, self._environment
            )
        except Exception:
            # It is not known that anything is wrong with the host.
            _LOGGER.exception("This host cannot be looked at")
            self._host = None
        self._found = () if self._host is None else self._judge(self._host)
        self._told = self._steady.take(self._found, loop.time())

    def _judge(self, host: Host) -> tuple[Finding, ...]:
        return findings(
            host, esphome_version=self._version, managed=not self._settings.esphome
        )

    def _released(self) -> set[str]:
        """Return the jobs that need not wait any more, or have done so for too long."""
        now = asyncio.get_running_loop().time()
        released = set()
        for job_id, held in self._held.items():
            found = self._concerning(held.job)
            # What our own compiles take they give back, and they have an end.
            since = now if _compiling else held.since
            if not _waits(found) or now - since >= WAIT_SECONDS:
                released.add(job_id)
            else:
                self._held[job_id] = replace(held, finding=found[0], since=since)
        return released


class _Steady:
    """Lets what comes and goes count when it has come, or gone, for some time."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._different_since: dict[Obstacle, float] = {}
        self._told: dict[Obstacle, Finding] = {}

    def take(self, found: Collection[Finding], now: float) -> tuple[Finding, ...]:
        """Return what counts now, the worst first."""
        fickle = {one.obstacle: one for one in found if one.obstacle in _FICKLE}
        for obstacle in _FICKLE:
            finding = fickle.get(obstacle)
            if (finding is not None) == (obstacle in self._told):
                self._different_since.pop(obstacle, None)
            elif (
                now - self._different_since.setdefault(obstacle, now) < CONFIRM_SECONDS
            ):
                continue
            self._told.pop(obstacle, None)
            if finding is not None:
                self._told[obstacle] = finding
        steady = [one for one in found if one.obstacle not in _FICKLE]
        return worst_first((*steady, *self._told.values()))


def _waits(found: Sequence[Finding]) -> bool:
    """Return whether what is found makes a job wait."""
    return bool(found) and found[0].severity is Severity.WAIT
