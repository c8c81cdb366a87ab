"""Order, attaching, dependencies, restarts and history of jobs."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings, strategies as st
import pytest

from custom_components.esphome_builds.builds import queue as queue_module
from custom_components.esphome_builds.builds.builder import (
    BuilderUnavailableError,
    BuildRequest,
)
from custom_components.esphome_builds.builds.models import (
    Cause,
    Job,
    JobKind,
    JobStatus,
    Phase,
    Requester,
    RequestKind,
)
from custom_components.esphome_builds.builds.queue import (
    HISTORY,
    HISTORY_OF_CONFIGURATION,
    MAX_ACTIVE,
    UPLOAD_SLOTS,
    VALIDATE_SLOTS,
    Accepted,
    JobIds,
    JobQueue,
    Lane,
    local_slots,
    restored,
    without_prerequisite,
)

from .stand_in import NOW, make_job

_STOPPED = Cause.HOME_ASSISTANT_STOPPED


@pytest.fixture
def queue() -> JobQueue:
    """Return an empty queue with one place to compile."""
    return JobQueue("entry", local_slots(1), ())


def submit(
    queue: JobQueue,
    kind: RequestKind,
    *names: str,
    stale: Iterable[str] = (),
    address: str | None = None,
    replace: bool = False,
) -> Accepted:
    """Ask for something."""
    request = BuildRequest(
        kind=kind, configurations=names, address=address, replace=replace
    )
    return queue.submit(request, NOW, set(stale))


def start(queue: JobQueue) -> list[Job]:
    """Let all run that can run now."""
    jobs = queue.runnable()
    for job in jobs:
        queue.put(replace(job, status=JobStatus.RUNNING))
    return jobs


def finish(
    queue: JobQueue, job: Job, status: JobStatus = JobStatus.COMPLETED
) -> list[Job]:
    """End a job, and with it those that wait for it in vain."""
    queue.put(replace(queue.jobs[job.job_id], status=status))
    cancelled = []
    if status is not JobStatus.COMPLETED:
        cancelled = queue.dependents(job.job_id)
        for waiting in cancelled:
            queue.put(without_prerequisite(waiting, NOW))
    return cancelled


def names(jobs: Iterable[Job]) -> list[tuple[str, JobKind]]:
    """Return what jobs do."""
    return [(job.configuration, job.kind) for job in jobs]


def test_rules_are_the_promised_ones() -> None:
    """The numbers are those of the design."""
    assert (UPLOAD_SLOTS, VALIDATE_SLOTS) == (4, 2)
    assert (HISTORY, HISTORY_OF_CONFIGURATION) == (500, 20)
    assert MAX_ACTIVE >= 2 * 200


class TestIds:
    """Ids sort by creation."""

    def test_increasing(self) -> None:
        """Also many at once, and when the clock is set back."""
        ids = JobIds()
        made = [ids.next(NOW) for _ in range(100)]
        made += [ids.next(NOW - timedelta(days=days)) for days in range(100)]
        made += [ids.next(NOW + timedelta(seconds=1)) for _ in range(100)]

        assert made == sorted(set(made))
        assert {len(job_id) for job_id in made} == {22}

    def test_continued(self) -> None:
        """A restart goes on after the newest id, whatever the clock says."""
        newest = JobIds().next(NOW)

        assert JobIds(newest).next(NOW - timedelta(days=1000)) > newest
        assert JobIds(newest).next(NOW + timedelta(days=1)) > newest

    def test_unguessable(self) -> None:
        """Two builders that start at the same time do not make the same ids."""
        assert JobIds().next(NOW) != JobIds().next(NOW)

    def test_queue_continues(self) -> None:
        """A queue goes on after the jobs it was given."""
        late = JobIds().next(NOW + timedelta(days=365))
        queue = JobQueue("entry", local_slots(1), [make_job(late)])

        (job,) = submit(queue, RequestKind.COMPILE, "a.yaml").jobs

        assert job.job_id > late


class TestSubmit:
    """A request becomes jobs."""

    @pytest.mark.parametrize("kind", ["validate", "compile", "upload", "clean"])
    def test_one_job(self, queue: JobQueue, kind: str) -> None:
        """Most requests are one job for each configuration."""
        requester = Requester(user_id="me", context_id="here")
        request = BuildRequest(
            kind=RequestKind(kind),
            configurations=("b.yaml", "a.yaml", "b.yaml"),
            requested_by=requester,
        )

        accepted = queue.submit(request, NOW)

        assert names(accepted.jobs) == [
            ("b.yaml", JobKind(kind)),
            ("a.yaml", JobKind(kind)),
        ]
        for job in accepted.jobs:
            assert job == make_job(
                job.job_id,
                configuration=job.configuration,
                kind=JobKind(kind),
                requested_by=requester,
            )
        assert [*queue.jobs.values()] == queue.active == accepted.jobs
        assert not accepted.attached
        assert not accepted.superseded

    def test_install(self, queue: JobQueue) -> None:
        """An install is a compile, and an upload that waits for it."""
        accepted = submit(
            queue, RequestKind.INSTALL, "a.yaml", "b.yaml", address="1.2.3.4"
        )

        assert names(accepted.jobs) == [
            ("a.yaml", JobKind.COMPILE),
            ("a.yaml", JobKind.UPLOAD),
            ("b.yaml", JobKind.COMPILE),
            ("b.yaml", JobKind.UPLOAD),
        ]
        build, upload, *_ = accepted.jobs
        assert (build.depends_on, build.address, build.phase) == (None, None, None)
        assert upload.depends_on == build.job_id
        assert upload.address == "1.2.3.4"
        assert upload.phase is Phase.WAITING

    @pytest.mark.parametrize("running", [False, True])
    @pytest.mark.parametrize("kind", ["validate", "compile", "upload", "clean"])
    def test_attach(self, queue: JobQueue, kind: str, running: bool) -> None:
        """The same request again gets the job that is there, waiting or running."""
        (job,) = submit(queue, RequestKind(kind), "a.yaml").jobs
        if running:
            start(queue)

        again = submit(queue, RequestKind(kind), "a.yaml", "b.yaml")

        assert again.attached == [job.job_id]
        assert again.jobs[0] is queue.jobs[job.job_id]
        assert len(queue.jobs) == 2

    def test_attach_install(self, queue: JobQueue) -> None:
        """A second install is the first; a compile alone is a part of it."""
        first = submit(queue, RequestKind.INSTALL, "a.yaml")
        ids = [job.job_id for job in first.jobs]

        assert submit(queue, RequestKind.INSTALL, "a.yaml").attached == ids
        assert submit(queue, RequestKind.COMPILE, "a.yaml").attached == ids[:1]
        assert submit(queue, RequestKind.UPLOAD, "a.yaml").attached == ids[1:]
        assert len(queue.jobs) == 2

    def test_install_after_compile(self, queue: JobQueue) -> None:
        """An install attaches to a compile that is there, and adds the upload."""
        (build,) = submit(queue, RequestKind.COMPILE, "a.yaml").jobs

        accepted = submit(queue, RequestKind.INSTALL, "a.yaml")

        assert accepted.attached == [build.job_id]
        assert accepted.jobs[1].depends_on == build.job_id

    def test_install_does_not_take_an_older_upload(self, queue: JobQueue) -> None:
        """What an install flashes is what it compiled, not what was there before."""
        (old,) = submit(queue, RequestKind.UPLOAD, "a.yaml").jobs

        accepted = submit(queue, RequestKind.INSTALL, "a.yaml")

        assert not accepted.attached
        assert old not in accepted.jobs
        first = submit(queue, RequestKind.INSTALL, "b.yaml").jobs
        start(queue)
        finish(queue, first[0])
        start(queue)
        again = submit(queue, RequestKind.INSTALL, "b.yaml")
        assert first[1].job_id not in [job.job_id for job in again.jobs]

    def test_other_requests_do_not_attach(self, queue: JobQueue) -> None:
        """Another kind, configuration or address is another request."""
        submit(queue, RequestKind.UPLOAD, "a.yaml", address="1.2.3.4")

        assert not submit(queue, RequestKind.UPLOAD, "a.yaml").attached
        assert not submit(
            queue, RequestKind.UPLOAD, "a.yaml", address="1.2.3.5"
        ).attached
        assert not submit(
            queue, RequestKind.UPLOAD, "b.yaml", address="1.2.3.4"
        ).attached
        assert not submit(queue, RequestKind.VALIDATE, "a.yaml").attached
        assert submit(queue, RequestKind.UPLOAD, "a.yaml", address="1.2.3.4").attached

    @pytest.mark.parametrize("status", [s for s in JobStatus if s.ended])
    def test_ended_jobs_do_not_attach(self, queue: JobQueue, status: JobStatus) -> None:
        """What has ended is done again."""
        (job,) = submit(queue, RequestKind.COMPILE, "a.yaml").jobs
        start(queue)
        finish(queue, job, status)

        assert not submit(queue, RequestKind.COMPILE, "a.yaml").attached

    def test_stale(self, queue: JobQueue) -> None:
        """What runs on an older file is not what is asked for now."""
        old = submit(queue, RequestKind.INSTALL, "a.yaml").jobs
        start(queue)

        new = submit(queue, RequestKind.INSTALL, "a.yaml", stale=[old[0].job_id])

        assert not new.attached
        assert new.jobs[1].depends_on == new.jobs[0].job_id
        # The newest is the one to attach to from now on.
        third = submit(queue, RequestKind.INSTALL, "a.yaml", stale=[old[0].job_id])
        assert third.attached == [job.job_id for job in new.jobs]

    def test_replace(self, queue: JobQueue) -> None:
        """Replacing makes new jobs, and names all that are in their way."""
        old = submit(queue, RequestKind.INSTALL, "a.yaml").jobs
        other = submit(queue, RequestKind.VALIDATE, "a.yaml").jobs
        start(queue)

        accepted = submit(queue, RequestKind.INSTALL, "a.yaml", replace=True)

        assert not accepted.attached
        assert sorted(accepted.superseded) == [job.job_id for job in old]
        assert accepted.jobs[1].depends_on == accepted.jobs[0].job_id
        assert other[0].job_id not in accepted.superseded

    def test_too_many(self, queue: JobQueue) -> None:
        """What waits is bounded; what does not fit makes no job at all."""
        for first in range(0, MAX_ACTIVE // 2, 100):
            some = [f"{number}.yaml" for number in range(first, first + 100)]
            submit(queue, RequestKind.INSTALL, *some)
        assert len(queue.active) == MAX_ACTIVE

        with pytest.raises(BuilderUnavailableError):
            submit(queue, RequestKind.VALIDATE, "a.yaml")
        assert len(queue.jobs) == MAX_ACTIVE


class TestOrder:
    """Which jobs run when."""

    def test_first_come_first_served(self, queue: JobQueue) -> None:
        """One place to compile takes them in order."""
        submit(queue, RequestKind.COMPILE, "b.yaml", "a.yaml", "c.yaml")
        order = []
        while jobs := start(queue):
            assert start(queue) == []
            (job,) = jobs
            order.append(job.configuration)
            finish(queue, job)

        assert order == ["b.yaml", "a.yaml", "c.yaml"]

    def test_lanes_run_side_by_side(self) -> None:
        """Two places to compile, four to upload, two to validate."""
        queue = JobQueue("entry", local_slots(2), ())
        for kind in (RequestKind.COMPILE, RequestKind.UPLOAD, RequestKind.VALIDATE):
            submit(queue, kind, *(f"{kind}-{number}.yaml" for number in range(6)))

        started = [job.kind for job in start(queue)]

        assert started == [JobKind.COMPILE] * 2 + [JobKind.UPLOAD] * 4 + (
            [JobKind.VALIDATE] * 2
        )
        assert start(queue) == []

    def test_clean_takes_a_place_to_compile(self, queue: JobQueue) -> None:
        """Cleaning and compiling do not run side by side on a small host."""
        submit(queue, RequestKind.CLEAN, "a.yaml")
        submit(queue, RequestKind.COMPILE, "b.yaml")

        assert names(start(queue)) == [("a.yaml", JobKind.CLEAN)]
        assert start(queue) == []

    def test_one_at_a_time_for_a_configuration(self, queue: JobQueue) -> None:
        """Jobs of one configuration run in order, also of different lanes."""
        for kind in (RequestKind.VALIDATE, RequestKind.UPLOAD, RequestKind.CLEAN):
            submit(queue, kind, "a.yaml")
        submit(queue, RequestKind.UPLOAD, "b.yaml")

        (validate, upload) = start(queue)
        assert names([validate, upload]) == [
            ("a.yaml", JobKind.VALIDATE),
            ("b.yaml", JobKind.UPLOAD),
        ]
        finish(queue, validate, JobStatus.FAILED)
        assert names(start(queue)) == [("a.yaml", JobKind.UPLOAD)]

    def test_upload_waits_for_its_compile(self, queue: JobQueue) -> None:
        """Uploads overlap the next compile."""
        submit(queue, RequestKind.INSTALL, "a.yaml", "b.yaml")

        (build,) = start(queue)
        assert build.kind is JobKind.COMPILE
        finish(queue, build)
        assert names(start(queue)) == [
            ("a.yaml", JobKind.UPLOAD),
            ("b.yaml", JobKind.COMPILE),
        ]

    @pytest.mark.parametrize("status", ["failed", "cancelled", "interrupted"])
    def test_upload_without_its_compile(self, queue: JobQueue, status: str) -> None:
        """Without its compile an upload never runs, and others go on."""
        submit(queue, RequestKind.INSTALL, "a.yaml", "b.yaml")
        (build,) = start(queue)

        cancelled = finish(queue, build, JobStatus(status))

        assert names(cancelled) == [("a.yaml", JobKind.UPLOAD)]
        upload = queue.jobs[cancelled[0].job_id]
        assert upload.status is JobStatus.CANCELLED
        assert upload.cause is Cause.PREREQUISITE_FAILED
        assert upload.message
        assert (upload.phase, upload.finished_at) == (None, NOW)
        assert names(start(queue)) == [("b.yaml", JobKind.COMPILE)]

    def test_latest(self, queue: JobQueue) -> None:
        """A configuration knows its active and its last job."""
        assert queue.latest("a.yaml") == (None, None)
        first, second = submit(queue, RequestKind.INSTALL, "a.yaml").jobs
        assert queue.latest("a.yaml") == (first.job_id, None)
        start(queue)
        finish(queue, first)
        assert queue.latest("a.yaml") == (second.job_id, first.job_id)
        start(queue)
        finish(queue, second, JobStatus.FAILED)
        assert queue.latest("a.yaml") == (None, second.job_id)

    def test_jobs_cannot_be_changed_from_outside(self, queue: JobQueue) -> None:
        """What is handed out is a view."""
        submit(queue, RequestKind.COMPILE, "a.yaml")

        with pytest.raises(TypeError):
            queue.jobs["x"] = make_job()  # type: ignore[index]
        queue.active.clear()
        assert queue.active


class TestHistory:
    """What is remembered of what has ended."""

    def ended(self, count: int, *configurations: str) -> JobQueue:
        """Return a queue of as many ended jobs, in turn of each configuration."""
        ids = JobIds()
        return JobQueue(
            "entry",
            local_slots(1),
            [
                make_job(
                    ids.next(NOW),
                    status=JobStatus.COMPLETED,
                    configuration=configurations[number % len(configurations)],
                )
                for number in range(count)
            ],
        )

    def test_all_within_the_bound(self) -> None:
        """500 jobs are remembered, also all of one configuration."""
        assert self.ended(HISTORY, "a.yaml").forget() == []

    def test_oldest_of_the_busiest_first(self) -> None:
        """Who has more than 20 loses the oldest of those before anybody else."""
        queue = self.ended(HISTORY, "a.yaml")
        ids = [*queue.jobs]
        quiet = [
            job.job_id
            for _ in range(HISTORY_OF_CONFIGURATION)
            for job in submit(queue, RequestKind.VALIDATE, "b.yaml").jobs
            if finish(queue, job) == []
        ]

        removed = [job.job_id for job in queue.forget()]

        assert removed == ids[:HISTORY_OF_CONFIGURATION]
        assert set(quiet) <= set(queue.jobs)
        assert len(queue.jobs) == HISTORY
        assert queue.forget() == []

    def test_then_the_oldest(self) -> None:
        """Many configurations share the 500."""
        queue = self.ended(800, *(f"{number}.yaml" for number in range(40)))
        ids = [*queue.jobs]

        removed = [job.job_id for job in queue.forget()]

        assert removed == ids[:300]
        assert len(queue.jobs) == HISTORY

    @pytest.mark.parametrize("hours", [1, -1])
    def test_what_has_just_ended_stays(self, hours: int) -> None:
        """A job that ran for long is not forgotten at its end for being old.

        Not even where the clock was set back meanwhile.
        """
        queue = JobQueue("entry", local_slots(1), [])
        (old,) = submit(queue, RequestKind.COMPILE, "old.yaml").jobs
        for number in range(HISTORY + 50):
            (job,) = submit(queue, RequestKind.VALIDATE, f"{number}.yaml").jobs
            ended = NOW + timedelta(seconds=number)
            queue.put(replace(job, status=JobStatus.COMPLETED, finished_at=ended))
        ended = NOW + timedelta(hours=hours)
        queue.put(replace(old, status=JobStatus.COMPLETED, finished_at=ended))

        removed = queue.forget()

        assert [job.configuration for job in removed] == [
            f"{number}.yaml" for number in range(51)
        ]

    def test_nothing_is_left_of_a_forgotten_configuration(self) -> None:
        """A configuration whose jobs are all forgotten takes no memory."""
        queue = self.ended(HISTORY + 1, "a.yaml", *["b.yaml"] * HISTORY)
        queue.put(replace(next(iter(queue.jobs.values())), status=JobStatus.COMPLETED))
        some = submit(queue, RequestKind.COMPILE, "c.yaml").jobs
        finish(queue, some[0])
        queue.forget()

        assert queue.latest("a.yaml")[1] in (None, *queue.jobs)
        assert set(queue._of) == {job.configuration for job in queue.jobs.values()}

    def test_active_jobs_are_never_forgotten(self) -> None:
        """They do not even count."""
        queue = self.ended(HISTORY, "a.yaml")
        submit(queue, RequestKind.COMPILE, *(f"{n}.yaml" for n in range(100)))

        assert queue.forget() == []

    def test_what_is_waited_for_is_not_forgotten(self) -> None:
        """An upload that waits long still finds the compile it waits for."""
        queue = self.ended(HISTORY, "a.yaml")
        build, upload = submit(queue, RequestKind.INSTALL, "b.yaml").jobs
        start(queue)
        finish(queue, build)
        for number in range(HISTORY + 100):
            some = submit(queue, RequestKind.VALIDATE, f"{number}.yaml").jobs
            finish(queue, some[0])
            queue.forget()

        assert [job.job_id for job in start(queue)] == [upload.job_id]


def after_restart(*jobs: Job) -> list[Job]:
    """Return what jobs are after a restart."""
    return restored(jobs, NOW)


class TestRestart:
    """What a restart makes of jobs."""

    @pytest.mark.parametrize("kind", JobKind)
    @pytest.mark.parametrize("attempt", [1, 2])
    def test_queued_is_queued(self, kind: JobKind, attempt: int) -> None:
        """What waited still waits."""
        job = make_job(kind=kind, attempt=attempt)

        assert after_restart(job) == [job]

    @pytest.mark.parametrize("kind", JobKind)
    @pytest.mark.parametrize(
        "status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]
    )
    def test_ended_is_ended(self, kind: JobKind, status: JobStatus) -> None:
        """What is over stays so."""
        job = make_job(kind=kind, status=status, cause=Cause.UNKNOWN)

        assert after_restart(job) == [job]

    @pytest.mark.parametrize(
        "kind", [JobKind.COMPILE, JobKind.VALIDATE, JobKind.INSTALL_ESPHOME]
    )
    @pytest.mark.parametrize(
        ("status", "cause"),
        [(JobStatus.RUNNING, None), (JobStatus.INTERRUPTED, _STOPPED)],
    )
    def test_builds_are_resumed_once(
        self, kind: JobKind, status: JobStatus, cause: Cause | None
    ) -> None:
        """What was cut off is queued again, as the second attempt of the same job."""
        job = make_job(
            kind=kind,
            status=status,
            cause=cause,
            message="stopped" if cause else None,
            started_at=NOW,
            finished_at=NOW if cause else None,
            phase=Phase.COMPILING,
            progress=40,
            exit_code=-15,
            total_lines=7,
            esphome_version="2026.10.0",
        )

        assert after_restart(job) == [
            make_job(kind=kind, attempt=2, total_lines=7, esphome_version="2026.10.0")
        ]

    @pytest.mark.parametrize(
        "kind", [JobKind.COMPILE, JobKind.VALIDATE, JobKind.INSTALL_ESPHOME]
    )
    def test_never_a_third_time(self, kind: JobKind) -> None:
        """A build that takes the host down cannot do it again and again."""
        job = make_job(
            kind=kind, status=JobStatus.RUNNING, attempt=2, progress=3, total_lines=9
        )

        (after,) = after_restart(job)

        assert after.status is JobStatus.INTERRUPTED
        assert after.cause is Cause.CRASHED
        assert "third time" in (after.message or "")
        assert (after.attempt, after.finished_at) == (2, NOW)
        assert (after.phase, after.progress, after.total_lines) == (None, None, 9)

    @pytest.mark.parametrize("kind", [JobKind.UPLOAD, JobKind.CLEAN])
    def test_uploads_are_never_sent_again(self, kind: JobKind) -> None:
        """It may have reached the device."""
        (after,) = after_restart(make_job(kind=kind, status=JobStatus.RUNNING))

        assert after.status is JobStatus.INTERRUPTED
        assert after.cause is Cause.CRASHED
        assert after.message
        assert after.attempt == 1

    @pytest.mark.parametrize("kind", JobKind)
    def test_stopped_stays_stopped(self, kind: JobKind) -> None:
        """What was stopped in order and cannot be resumed stays as it is told."""
        attempt = 1 if kind in (JobKind.UPLOAD, JobKind.CLEAN) else 2
        job = make_job(
            kind=kind, status=JobStatus.INTERRUPTED, cause=_STOPPED, attempt=attempt
        )

        assert after_restart(job) == [job]

    def test_crashed_stays_crashed(self) -> None:
        """What one restart ended is not resumed by the next."""
        once = after_restart(make_job(status=JobStatus.RUNNING, attempt=2))

        assert after_restart(*once) == once

    def test_upload_of_a_resumed_build_waits_on(self) -> None:
        """The compile is done again, and its upload after it."""
        _, upload = after_restart(
            make_job("1", status=JobStatus.RUNNING),
            make_job("2", kind=JobKind.UPLOAD, depends_on="1"),
        )

        assert upload.status is JobStatus.QUEUED

    def test_upload_of_a_completed_build_waits_on(self) -> None:
        """A restart between compile and upload changes nothing."""
        _, upload = after_restart(
            make_job("1", status=JobStatus.COMPLETED),
            make_job("2", kind=JobKind.UPLOAD, depends_on="1"),
        )

        assert upload.status is JobStatus.QUEUED

    @pytest.mark.parametrize(
        "before",
        [
            [make_job("1", status=JobStatus.RUNNING, attempt=2)],
            [make_job("1", status=JobStatus.FAILED)],
            [make_job("1", status=JobStatus.INTERRUPTED, cause=_STOPPED, attempt=2)],
            [],
        ],
        ids=["crashed twice", "failed", "stopped twice", "unknown"],
    )
    def test_upload_of_a_build_that_is_not_there(self, before: list[Job]) -> None:
        """An upload whose build will not complete is canceled."""
        *_, upload = after_restart(
            *before,
            make_job("2", kind=JobKind.UPLOAD, depends_on="1", phase=Phase.WAITING),
        )

        assert upload.status is JobStatus.CANCELLED
        assert upload.cause is Cause.PREREQUISITE_FAILED


_CONFIGURATIONS = ("a.yaml", "b.yaml", "c.yaml", "d.yaml")
_STEPS = st.one_of(
    st.tuples(
        st.just("submit"),
        st.sampled_from(RequestKind),
        st.sets(st.sampled_from(_CONFIGURATIONS), min_size=1),
        st.sampled_from([None, None, "10.0.0.1"]),
        st.booleans(),
        st.booleans(),
    ),
    st.tuples(
        st.just("finish"),
        st.integers(0, 7),
        st.sampled_from([JobStatus.COMPLETED] * 3 + [JobStatus.FAILED]),
    ),
    st.tuples(st.sampled_from(["cancel", "crash", "stop"]), st.integers(0, 7)),
)


class Life:
    """A queue that things happen to, checked against what must always be so."""

    def __init__(self) -> None:
        """Start with an empty queue."""
        self.queue = JobQueue("entry", local_slots(2), ())
        self.now = datetime(2026, 11, 24, tzinfo=UTC)
        self.starts: dict[str, int] = {}

    def submit(
        self,
        kind: RequestKind,
        configurations: set[str],
        address: str | None,
        replace_them: bool,
        stale: bool,
    ) -> None:
        """Ask for something, as a builder does."""
        running = [job for job in self.queue.active if job.status is JobStatus.RUNNING]
        before = {job.job_id for job in self.queue.active}
        accepted = submit(
            self.queue,
            kind,
            *sorted(configurations),
            address=address,
            replace=replace_them,
            stale=[job.job_id for job in running] if stale else (),
        )
        assert set(accepted.attached) <= before
        assert not accepted.attached or not replace_them
        assert len(accepted.jobs) == len(configurations) * (
            2 if kind is RequestKind.INSTALL else 1
        )
        for job in accepted.jobs:
            assert (job.job_id in before) == (job.job_id in accepted.attached)
            assert not job.status.ended
        for job_id in accepted.superseded:
            if not self.queue.jobs[job_id].status.ended:
                finish(self.queue, self.queue.jobs[job_id], JobStatus.CANCELLED)

    def finish(self, number: int, status: JobStatus) -> None:
        """End one of those that run."""
        running = [job for job in self.queue.active if job.status is JobStatus.RUNNING]
        if running:
            finish(self.queue, running[number % len(running)], status)

    def cancel(self, number: int) -> None:
        """End one of those that wait or run."""
        if active := self.queue.active:
            finish(self.queue, active[number % len(active)], JobStatus.CANCELLED)

    def crash(self, _: int) -> None:
        """Restart after Home Assistant was killed."""
        jobs = restored([*self.queue.jobs.values()], NOW)
        assert not [job for job in jobs if job.status is JobStatus.RUNNING]
        self.queue = JobQueue("entry", local_slots(2), jobs)

    def stop(self, number: int) -> None:
        """Restart in order."""
        for job in self.queue.active:
            if job.status is JobStatus.RUNNING:
                self.queue.put(
                    replace(job, status=JobStatus.INTERRUPTED, cause=_STOPPED)
                )
        self.crash(number)

    def start(self) -> None:
        """Start what can start."""
        for job in start(self.queue):
            before = self.starts.get(job.job_id, 0)
            assert before < (2 if job.kind in _RESUMED else 1)
            self.starts[job.job_id] = before + 1
            if job.depends_on is not None:
                build = self.queue.jobs[job.depends_on]
                assert build.status is JobStatus.COMPLETED

    def check(self) -> None:
        """Check what must always be so."""
        jobs = [*self.queue.jobs.values()]
        active = [job for job in jobs if not job.status.ended]
        assert self.queue.active == active
        assert [*self.queue.jobs] == sorted(self.queue.jobs)
        running = [job for job in active if job.status is JobStatus.RUNNING]
        assert len({job.configuration for job in running}) == len(running)
        for kinds, slots in (
            ({JobKind.COMPILE, JobKind.CLEAN}, 2),
            ({JobKind.UPLOAD}, UPLOAD_SLOTS),
            ({JobKind.VALIDATE}, VALIDATE_SLOTS),
        ):
            assert len([job for job in running if job.kind in kinds]) <= slots
        # Nothing waits while nothing runs.
        assert running or not active
        for name in _CONFIGURATIONS:
            mine = [job for job in jobs if job.configuration == name]
            waiting = [job.job_id for job in mine if not job.status.ended]
            over = [job.job_id for job in mine if job.status.ended]
            assert self.queue.latest(name) == (
                waiting[0] if waiting else None,
                over[-1] if over else None,
            )
            # Only the oldest of a configuration can run.
            for job in running:
                assert job.configuration != name or job.job_id == waiting[0]
        needed = {job.depends_on for job in active}
        history = [job for job in jobs if job.status.ended and job.job_id not in needed]
        assert len(history) <= queue_module.HISTORY


_RESUMED = (JobKind.COMPILE, JobKind.VALIDATE)


@settings(max_examples=200)
@given(st.lists(_STEPS, max_size=40))
def test_any_life(steps: list[tuple[object, ...]]) -> None:
    """Whatever is asked for and happens: rules are kept and nothing waits for ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue_module, "HISTORY", 6)
        patch.setattr(queue_module, "HISTORY_OF_CONFIGURATION", 2)
        life = Life()
        for what, *arguments in steps:
            getattr(life, str(what))(*arguments)
            life.start()
            life.queue.forget()
            life.check()


def test_adopted_job() -> None:
    """A job of somebody else is known when it is put, in its place."""
    queue = JobQueue("entry", {}, ())
    job = queue.adopt(JobKind.CLEAN, "kitchen.yaml", NOW)
    assert job.job_id not in queue.jobs
    queue.put(job)
    assert queue.active == [job]
    queue.put(replace(job, status=JobStatus.COMPLETED))
    assert not queue.active
    assert queue.latest("kitchen.yaml") == (None, job.job_id)


def test_lanes_without_a_limit() -> None:
    """Where somebody else decides what runs, nothing waits here for a slot."""
    queue = JobQueue("entry", {Lane.VALIDATE: 1}, ())
    jobs = [queue.adopt(JobKind.COMPILE, f"{it}.yaml", NOW) for it in range(50)]
    checks = [queue.adopt(JobKind.VALIDATE, f"v{it}.yaml", NOW) for it in range(2)]
    for job in (*jobs, *checks):
        queue.put(job)
    assert queue.runnable() == [*jobs, checks[0]]


def test_what_runs_elsewhere_is_not_cut_off() -> None:
    """A restart here changes nothing about jobs that run on a server."""
    jobs = [
        make_job("1", status=JobStatus.RUNNING),
        make_job("2", status=JobStatus.RUNNING, kind=JobKind.UPLOAD),
        make_job("3", depends_on="gone"),
    ]
    assert restored(jobs, NOW, {"1", "2", "3"}) == jobs
    assert restored(jobs, NOW, {"1"})[1].status is JobStatus.INTERRUPTED


def test_jobs_that_are_away() -> None:
    """Nothing waits for an upload whose device is off; one that runs comes first."""
    queue = JobQueue("entry", {Lane.UPLOAD: 1}, ())
    away, build, later = (
        make_job("1", kind=JobKind.UPLOAD),
        make_job("2"),
        make_job("3", kind=JobKind.VALIDATE),
    )
    for job in (away, build, later):
        queue.put(job)
    assert queue.runnable() == [away]
    assert queue.runnable(away={"1"}) == [build]
    assert queue.runnable(held={"1"}) == []
    assert queue.latest("kitchen.yaml") == ("1", None)

    queue.put(replace(build, status=JobStatus.RUNNING))
    # The device is back, but what would be sent to it is being built.
    assert queue.runnable() == []
    assert queue.latest("kitchen.yaml") == ("2", None)


def test_no_slot_for_a_wait() -> None:
    """An upload that only waits for its device to come back takes no slot."""
    sent = make_job(
        "1", kind=JobKind.UPLOAD, status=JobStatus.RUNNING, phase=Phase.VERIFYING
    )
    same = make_job("2", kind=JobKind.UPLOAD)
    other = make_job("3", kind=JobKind.UPLOAD, configuration="other.yaml")
    queue = JobQueue("entry", {Lane.UPLOAD: 1}, (sent, same, other))
    assert queue.runnable() == [other]
    queue.put(replace(sent, phase=Phase.UPLOADING))
    assert queue.runnable() == []


def test_verification_goes_on() -> None:
    """What was sent before the restart was not cut off by it."""
    sent = make_job(
        "1", kind=JobKind.UPLOAD, status=JobStatus.RUNNING, phase=Phase.VERIFYING
    )
    assert after_restart(sent) == [sent]
