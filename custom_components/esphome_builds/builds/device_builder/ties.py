"""Which job of ours is which job of the server's."""

from collections.abc import Collection
from dataclasses import dataclass

from ..store import Stored


@dataclass(kw_only=True, slots=True)
class Tie:
    """What ties a job to the server's; `server_id` is None until that answered.

    `base` is the number of the server's first line in our log. An upload that is
    `chained` was asked for together with the compile before it.

    One that `waits` for its device is nothing on the server now: the job that is named
    is over. Where it is `armed`, the server begins another when the device is back.
    `past` is the server's job for the attempt before.
    """

    server_id: str | None = None
    base: int = 0
    chained: bool = False
    waits: bool = False
    armed: bool = False
    past: str | None = None


class Ties:
    """All ties, by our id and by the server's."""

    def __init__(self) -> None:
        """Start with none."""
        self._ties: dict[str, Tie] = {}
        self._ours: dict[str, str] = {}

    def load(self, stored: Stored) -> None:
        """Take over what was stored, of what can be understood."""
        found = stored.extra.get("server")
        known = {job.job_id for job in stored.jobs}
        for job_id, fields in found.items() if isinstance(found, dict) else ():
            if job_id in known and isinstance(fields, dict):
                tie = self.promise(job_id, chained=fields.get("chained") is True)
                tie.waits = fields.get("waits") is True
                tie.armed = fields.get("armed") is True
                if isinstance(past := fields.get("past"), str):
                    tie.past = past
                    self._ours[past] = job_id
                if isinstance(base := fields.get("base"), int):
                    tie.base = base
                if isinstance(server_id := fields.get("id"), str):
                    self.tie(job_id, server_id)

    def stored(self) -> dict[str, object]:
        """Return what is stored, as `load` takes it."""
        return {
            "server": {
                job_id: {
                    "id": tie.server_id,
                    "base": tie.base,
                    "chained": tie.chained,
                    "waits": tie.waits,
                    "armed": tie.armed,
                    "past": tie.past,
                }
                for job_id, tie in self._ties.items()
            }
        }

    @property
    def jobs(self) -> Collection[str]:
        """Return the ids of our jobs that were asked of the server."""
        return self._ties.keys()

    def __contains__(self, job_id: str) -> bool:
        """Return whether a job of ours was asked of the server."""
        return job_id in self._ties

    def get(self, job_id: str) -> Tie | None:
        """Return what ties a job of ours."""
        return self._ties.get(job_id)

    def waits(self, job_id: str) -> bool:
        """Return whether a job of ours waits here until it is asked for once more."""
        tie = self._ties.get(job_id)
        return tie is not None and tie.waits

    def armed(self, job_id: str) -> bool:
        """Return whether the server will begin a job of ours by itself."""
        tie = self._ties.get(job_id)
        return tie is not None and tie.armed

    def server_id(self, job_id: str) -> str | None:
        """Return the server's id of a job of ours, if it is known."""
        tie = self._ties.get(job_id)
        return None if tie is None else tie.server_id

    def ours(self, server_id: str | None) -> str | None:
        """Return our id of a job of the server's."""
        return None if server_id is None else self._ours.get(server_id)

    def promise(self, job_id: str, *, chained: bool = False) -> Tie:
        """Note that a job is asked for, before it is."""
        before = self._ties.get(job_id)
        tie = self._ties[job_id] = Tie(chained=chained)
        if before is not None:
            tie.past = before.server_id or before.past
        return tie

    def tie(self, job_id: str, server_id: str) -> None:
        """Note which job of the server's is ours, instead of any before that."""
        tie = self._ties.setdefault(job_id, Tie())
        if tie.server_id not in (None, server_id):
            tie.past = tie.server_id
        tie.server_id = server_id
        self._ours[server_id] = job_id

    def put_back(self, job_id: str, *, armed: bool) -> None:
        """Note that the server's job is over, and that ours waits for its device."""
        tie = self._ties[job_id]
        tie.waits = True
        tie.armed = armed

    def wake(self, job_id: str, base: int) -> None:
        """Note that a job that was put back begins anew, at a line of its log."""
        self.end_wait(job_id)
        self._ties[job_id].base = base

    def end_wait(self, job_id: str) -> None:
        """Note that a job does not wait for its device, or no longer."""
        if (tie := self._ties.get(job_id)) is not None:
            tie.waits = tie.armed = False

    def drop(self, job_id: str) -> None:
        """Forget what was asked for: it never was, or the job is gone."""
        tie = self._ties.pop(job_id)
        for server_id in (tie.server_id, tie.past):
            if server_id is not None:
                self._ours.pop(server_id, None)

    def keep(self, known: Collection[str]) -> None:
        """Forget all jobs but these."""
        for job_id in self._ties.keys() - known:
            self.drop(job_id)
