"""What people ask of backfills: plan and make one, look how far it is, pause it, go on, execute it here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ecmbatch.engine.alerts import deliver_alerts
from ecmbatch.engine.job_files import JobFile
from ecmbatch.engine.launching import LaunchOptions, new_run, new_run_id, stream_of
from ecmbatch.engine.preview import as_record, shown
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.backfills import Work, advance_backfill, counts
from ecmbatch.engine.scheduling.job_registry import digest_of_document, document_of
from ecmbatch.engine.scheduling.known_jobs import KnownJobs
from ecmbatch.engine.scheduling.waiting import release_or_give_up
from ecmbatch.engine.scheduling.worker import execute_next
from ecmbatch.engine.staging import refuse_other_stage
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.engine.window import Window, bound_values, facts_of
from ecmbatch.errors import ConflictError, DependencyNotMet, StageElsewhere, UsageError
from ecmbatch.ledger.backfills import BackfillRecord, BackfillState, NewBackfill
from ecmbatch.ledger.intervals import interval_of
from ecmbatch.ledger.records import RunRecord
from ecmbatch.protocol import query as sql
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.intervals import (
    DEFAULT_SPLIT,
    BackfillIntervals,
    BackfillStatus,
    Interval,
    IntervalRange,
    IntervalStatus,
    OnFailure,
    Order,
    Ranges,
    Reprocess,
    checked_split,
    united,
    without,
)
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.parameters import resolve_text, unknown_params
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.scalars import Scalar, decode_scalar, encode_scalars

BACKFILL_FORMAT = "ecmbatch.backfill/1"
PLAN_FORMAT = "ecmbatch.backfill_plan/1"

_BOUNDS = frozenset({"previous_job.end_time", "window.start", "window.end"})
"""What ``${…}`` has another value for in each interval."""
_BOUNDED = "write updated_at >= :window_start AND updated_at < :window_end in the query"
_EARLIER_RUNS = 50
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRequest:
    """What is to be loaded: the time from ``start`` to ``end``, without ``end``; both have a zone.

    ``split`` is a duration, ``schedule`` or ``none``. ``reprocess`` says what is loaded again: only what is
    ``missing``, what ``failed`` too, or ``all``.
    """

    start: datetime
    end: datetime
    params: Mapping[str, Scalar] = field(default_factory=dict)
    split: str = DEFAULT_SPLIT
    order: Order = "asc"
    concurrency: int = 1
    reprocess: Reprocess = "missing"
    on_failure: OnFailure = "stop"
    ignore_dependencies: bool = False

    @property
    def whole(self) -> Interval:
        """The range."""
        return Interval(self.start, self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillPlan:
    """What ``create`` with the same arguments would do."""

    job_id: str
    request: BackfillRequest
    intervals: BackfillIntervals
    loaded: int
    """Intervals that were loaded before, whole."""
    failed: int
    """Intervals that have failed and were not loaded since."""
    to_do: int
    continues: str | None
    """The backfill that would go on, ``None`` where a new one would begin."""
    overlapping: Sequence[BackfillRecord]
    under_way: Sequence[RunRecord]
    """Runs that load a part of the range now; the backfill waits for them there."""
    parameters: tuple[Mapping[str, Any], Mapping[str, Any]]
    """Of the first and of the last interval."""
    seconds: float | None
    """About how long it takes with enough workers, from ``earlier_runs`` of the job."""
    earlier_runs: int
    notes: Sequence[str]

    def document(self) -> dict[str, Any]:
        """Return the ``ecmbatch.backfill_plan/1`` document."""
        request, intervals = self.request, self.intervals
        first, last = self.parameters
        return {
            "format": PLAN_FORMAT,
            "job_id": self.job_id,
            "continues": self.continues,
            **_asked(request.whole, request.split, request),
            "intervals": {
                "total": intervals.count(),
                "to_do": self.to_do,
                "loaded": self.loaded,
                "failed": self.failed,
                "first": {**_window(intervals.first), "parameters": first},
                "last": {**_window(intervals.last), "parameters": last},
            },
            "conflicts": [
                {"backfill_id": each.backfill_id, "status": str(each.status), **_window(each.whole)}
                for each in self.overlapping
            ]
            + [
                {"run_id": run.run_id, "status": str(run.status), **_window(interval)}
                for run in self.under_way
                if (interval := interval_of(run)) is not None
            ],
            "estimate": {"seconds": self.seconds, "earlier_runs": self.earlier_runs},
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillView:
    """A backfill and how far it is, as it stood at one moment."""

    state: BackfillState
    intervals: BackfillIntervals
    counts: Mapping[str, int]
    """Intervals by what they are; together they are all."""
    failures: Sequence[RunRecord]
    """The latest runs that failed, newest first."""
    per_hour: float | None
    """Intervals an hour, of late; ``None`` where that is not known or nothing is under way."""

    @property
    def backfill(self) -> BackfillRecord:
        """The backfill itself."""
        return self.state.backfill

    @property
    def total(self) -> int:
        """How many intervals there are."""
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """How many intervals are still to be loaded."""
        return sum(self.counts[name] for name in ("running", "queued", "waiting", "pending"))

    @property
    def eta(self) -> datetime | None:
        """When it is through if it goes on as of late."""
        if not self.per_hour:
            return None
        try:
            return self.state.now + timedelta(hours=self.left / self.per_hour)
        except OverflowError:
            return None

    @property
    def exit_code(self) -> int:
        """What ``--here`` exits with: 0 all done, 1 something failed, 5 paused or cancelled."""
        codes = {BackfillStatus.FAILED: 1, BackfillStatus.PAUSED: 5, BackfillStatus.CANCELLED: 5}
        return codes.get(self.backfill.status, 0)

    @property
    def notes(self) -> list[str]:
        """What is worth knowing, one sentence each."""
        waiting = [
            f"run {run.run_id} waits: {'; '.join(run.waiting)}"
            for run in self.state.runs
            if run.status is RunStatus.WAITING and run.waiting
        ]
        others = [
            f"run {run.run_id}, which is {run.status}, loads a part of the range; its intervals wait for it"
            for run in self.state.others
        ]
        return waiting + others

    @property
    def ranges(self) -> list[tuple[IntervalRange | Interval, int]]:
        """Every part of the range with the number of its intervals, ascending; a plain interval is to be done."""
        known = [(each.interval, each) for each in self.state.ranges]
        open_ = [(each, each) for each in without(self.backfill.whole, [interval for interval, _ in known])]
        parts: list[tuple[Interval, IntervalRange | Interval]] = sorted(
            [*known, *open_], key=lambda part: part[0]
        )
        return [(part, self.intervals.count(interval)) for interval, part in parts]

    def document(self, *, with_ranges: bool = True) -> dict[str, Any]:
        """Return the ``ecmbatch.backfill/1`` document."""
        backfill = self.backfill
        document = {
            "format": BACKFILL_FORMAT,
            "backfill_id": backfill.backfill_id,
            "job_id": backfill.job_id,
            "job_version": backfill.job_version,
            "status": str(backfill.status),
            **_asked(backfill.whole, backfill.split, backfill),
            "parameters": {
                name: shown(decode_scalar(value)) for name, value in backfill.options["params"].items()
            },
            "created_at": rfc3339(backfill.created_at),
            "finished_at": rfc3339(backfill.finished_at) if backfill.finished_at else None,
            "intervals": {"total": self.total, **{name: self.counts[name] for name in self.counts}},
            "per_hour": round(self.per_hour, 1) if self.per_hour else None,
            "eta": rfc3339(self.eta) if self.eta else None,
            "runs": [
                {"run_id": run.run_id, "status": str(run.status), **_window(interval)}
                for run in self.state.runs
                if (interval := interval_of(run)) is not None
            ],
            "failures": [
                {"run_id": run.run_id, "status": str(run.status), **_window(interval), "error": run.error}
                for run in self.failures
                if (interval := interval_of(run)) is not None
            ],
            "notes": self.notes,
        }
        if with_ranges:
            document["ranges"] = [
                {
                    **_window(Interval(part.start, part.end)),
                    "status": str(part.status) if isinstance(part, IntervalRange) else "pending",
                    "intervals": number,
                }
                for part, number in self.ranges
            ]
        return document


class Backfills:
    """The backfills of a project."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._ledger = resources.ledger

    def plan(self, job: JobDefinition, request: BackfillRequest) -> BackfillPlan:
        """Return what :meth:`create` would do; nothing is written. Raises what keeps it from starting."""
        request, intervals = _checked(job, request, self._ledger.clock())
        stream = stream_of(request.params)
        done = self._ledger.backfills.done(job.job_id, stream, request.whole)
        if job.mode == "append" and request.reprocess != "all":
            _refuse_torn_intervals(intervals, done)
        loaded = _whole(intervals, done, {IntervalStatus.LOADED})
        tried = _whole(intervals, done, {IntervalStatus.LOADED, IntervalStatus.FAILED})
        total = intervals.count()
        left_out = {"missing": tried, "failed": loaded, "all": 0}[request.reprocess]
        durations = self._durations(job.job_id)
        overlapping = self._ledger.backfills.overlapping(job.job_id, stream, request.whole)
        same = [each for each in overlapping if self._is_same(each, job, request)]
        return BackfillPlan(
            job_id=job.job_id,
            request=request,
            intervals=intervals,
            loaded=loaded,
            failed=tried - loaded,
            to_do=total - left_out,
            continues=same[0].backfill_id if same else None,
            overlapping=[each for each in overlapping if each not in same],
            under_way=[
                run
                for run in self._ledger.backfills.runs_under_way(job.job_id, stream, request.whole)
                if run.backfill_id not in [each.backfill_id for each in same]
            ],
            parameters=(
                self._parameters(job, request, intervals.first),
                self._parameters(job, request, intervals.last),
            ),
            seconds=statistics.median(durations) * (total - left_out) / request.concurrency
            if durations
            else None,
            earlier_runs=len(durations),
            notes=self._notes(job, request, stream, loaded=loaded, failed=tried - loaded),
        )

    def create(self, file: JobFile, request: BackfillRequest) -> tuple[BackfillView, bool]:
        """Begin a backfill with the job as it is now, or go on with the same one; tell whether it is new.

        Workers execute it, or :meth:`execute`. Raises ``UsageError`` for what cannot be filled, and
        ``ConflictError`` where another backfill of the job is under way in the range.
        """
        plan = self.plan(file.job, request)
        request, document = plan.request, document_of(file.job)
        version = self._ledger.jobs.keep_version(
            file.job.job_id, document, digest_of_document(document), file.path
        )
        new = NewBackfill(
            backfill_id=new_run_id(self._ledger.clock()),
            job_id=file.job.job_id,
            job_version=version,
            stream=stream_of(request.params),
            options={
                "params": encode_scalars(request.params),
                "ignore_dependencies": request.ignore_dependencies,
            },
            window_start=request.start,
            window_end=request.end,
            split=request.split,
            order=request.order,
            concurrency=request.concurrency,
            reprocess=request.reprocess,
            on_failure=request.on_failure,
        )
        backfill, is_new = self._ledger.backfills.create(new, plan.intervals)
        return self._advanced(backfill.backfill_id), is_new

    def status(self, backfill_id: str) -> BackfillView:
        """Return how far a backfill is; raises ``UsageError`` where there is none."""
        state = self._ledger.backfills.state(backfill_id)
        intervals = Work(state.backfill, self._resources).intervals
        ends = self._ledger.backfills.latest_ends(backfill_id) if state.runs else ()
        return BackfillView(
            state=state,
            intervals=intervals,
            counts=counts(intervals, state),
            failures=self._ledger.backfills.latest_failures(backfill_id),
            per_hour=_per_hour(ends, state.now),
        )

    def recent(self, *, job_id: str | None = None, limit: int = 20) -> Sequence[BackfillView]:
        """Return the newest backfills, newest first."""
        return [
            self.status(each.backfill_id)
            for each in self._ledger.backfills.recent(job_id=job_id, limit=limit)
        ]

    def pause(self, backfill_id: str) -> BackfillView:
        """Start nothing more of a backfill; what is under way goes on to its end."""
        self._ledger.backfills.pause(backfill_id)
        return self.status(backfill_id)

    def cancel(self, backfill_id: str) -> BackfillView:
        """Start nothing more of a backfill and stop what is under way at its next checkpoint."""
        self._ledger.backfills.cancel(backfill_id)
        return self.status(backfill_id)

    def resume(self, backfill_id: str) -> BackfillView:
        """Go on with a backfill that was paused, cancelled or stopped by a failure; what failed is tried again."""
        self._refuse_torn(backfill_id)
        self._ledger.backfills.resume(backfill_id)
        return self._advanced(backfill_id)

    def retry(self, backfill_id: str) -> BackfillView:
        """Let the intervals that failed be tried again, from their checkpoints where they have some."""
        self._refuse_torn(backfill_id)
        self._ledger.backfills.retry(backfill_id)
        return self._advanced(backfill_id)

    def execute(self, backfill_id: str, *, workers: int | None = None, stop: StopSignal) -> BackfillView:
        """Execute a backfill in this process, one interval after the other, until it is settled or *stop* is set.

        *workers* is how many scans are read at once, by default the project's. Other processes may help. Where
        *stop* is set the backfill is paused. Raises ``DependencyNotMet`` where nothing can go on before other
        jobs have run, and the backfill is paused then, too; or where what it has begun is staged on another host,
        whose workers may still go on with it.
        """
        jobs = KnownJobs(self._ledger)
        while not stop.is_set():
            status = advance_backfill(backfill_id, self._resources)
            if status is not BackfillStatus.RUNNING and not self._ledger.backfills.state(backfill_id).runs:
                break
            self._release_waiting(backfill_id, jobs)
            scans = workers or self._resources.project_file.settings.run.workers
            if execute_next(self._resources, workers=scans, stop=stop, backfill_id=backfill_id) is None:
                self._refuse_to_wait(backfill_id)
                stop.wait(_SECONDS_BETWEEN_LOOKS)
        if stop.is_set() and self._ledger.backfills.get(backfill_id).status is BackfillStatus.RUNNING:
            self._ledger.backfills.pause(backfill_id)
        deliver_alerts(self._resources)
        return self.status(backfill_id)

    def _is_same(self, backfill: BackfillRecord, job: JobDefinition, request: BackfillRequest) -> bool:
        version = self._ledger.jobs.version(job.job_id, backfill.job_version)
        return (backfill.whole, backfill.split, backfill.reprocess, version.digest) == (
            request.whole,
            request.split,
            request.reprocess,
            digest_of_document(document_of(job)),
        )

    def _release_waiting(self, backfill_id: str, jobs: KnownJobs) -> None:
        ours = {run.run_id for run in self._ledger.backfills.state(backfill_id).runs}
        for run in self._ledger.queue.waiting():
            if run.run_id in ours:
                release_or_give_up(run, self._ledger, jobs)

    def _refuse_torn(self, backfill_id: str) -> None:
        """Another backfill may have had a part of the range since this one was made."""
        backfill = self._ledger.backfills.get(backfill_id)
        work = Work(backfill, self._resources)
        if work.job.mode == "append" and backfill.reprocess != "all":
            done = self._ledger.backfills.done(backfill.job_id, backfill.stream, backfill.whole)
            _refuse_torn_intervals(work.intervals, done)

    def _refuse_to_wait(self, backfill_id: str) -> None:
        """Waiting for jobs that nobody runs, or for rows that are on another host, would never end."""
        state = self._ledger.backfills.state(backfill_id)
        elsewhere = [reason for run in state.runs if (reason := self._staged_elsewhere(run)) is not None]
        waiting = sum(run.status is RunStatus.WAITING for run in state.runs)
        if not state.runs or waiting + len(elsewhere) < len(state.runs):
            return
        if elsewhere:
            raise DependencyNotMet(
                f"backfill {backfill_id} of {state.backfill.job_id} cannot go on here: {'; '.join(elsewhere)}",
                unmet=elsewhere,
                hint=f"let a worker go on there (ecmbatch serve, or: ecmbatch backfill resume {backfill_id} "
                "--here), or give the run up and load its interval anew: ecmbatch abandon RUN",
            )
        reasons = [reason for run in state.runs for reason in run.waiting or ()]
        self._ledger.backfills.pause(backfill_id)
        raise DependencyNotMet(
            f"backfill {backfill_id} of {state.backfill.job_id} cannot go on: {'; '.join(reasons)}",
            unmet=reasons,
            hint=f"fill what it depends on first, then: ecmbatch backfill resume {backfill_id} --here",
        )

    def _staged_elsewhere(self, run: RunRecord) -> str | None:
        """Return why nobody can go on with a run here; ``None`` where somebody can, or does, or it only waits."""
        if run.status is RunStatus.WAITING or self._ledger.runs.is_live(run.run_id):
            return None
        try:
            refuse_other_stage(run, self._resources)
        except StageElsewhere as error:
            return error.message
        return None

    def _advanced(self, backfill_id: str) -> BackfillView:
        advance_backfill(backfill_id, self._resources)
        return self.status(backfill_id)

    def _parameters(
        self, job: JobDefinition, request: BackfillRequest, interval: Interval
    ) -> Mapping[str, Any]:
        """Return what the run of *interval* binds, for people; raises what resolving raises."""
        now = self._ledger.clock()
        options = LaunchOptions(params=request.params, window=(interval.start, interval.end))
        run = as_record(new_run(job, None, options, {}, now), now)
        window = Window(start=interval.start, end=interval.end)
        facts = facts_of(job, run, window, now, self._ledger)
        values, _ = bound_values(job, window, facts)
        told = {name: shown(value) for name, value in values.items()}
        if job.source.path is not None:
            told["source.path"] = resolve_text(job.source.path, facts)
        return told

    def _durations(self, job_id: str) -> list[float]:
        """Return how long the latest successful runs of a job took, those of intervals if there are some."""
        runs = [
            run
            for run in self._ledger.runs.of_job(job_id, limit=_EARLIER_RUNS)
            if run.status is RunStatus.SUCCESS and run.started_at and run.finished_at
        ]
        chosen = [run for run in runs if not run.live] or runs
        return [
            (run.finished_at - run.started_at).total_seconds()
            for run in chosen
            if run.started_at and run.finished_at
        ]

    def _notes(
        self, job: JobDefinition, request: BackfillRequest, stream: str, *, loaded: int, failed: int
    ) -> list[str]:
        notes = []
        if failed and request.reprocess == "missing":
            notes.append(
                f"{failed:,} intervals failed before and are left out; --reprocess failed loads them"
            )
        if loaded and request.reprocess == "all" and job.mode == "append":
            notes.append(f"append adds the rows of {loaded:,} intervals that are loaded already once more")
        mark = self._ledger.watermarks.latest(job.job_id, stream)
        if job.mode == "append" and mark and mark.window_end and mark.window_end > request.start:
            notes.append(
                f"live runs have loaded up to {rfc3339(mark.window_end)}; append adds what they have loaded of "
                "this range once more"
            )
        if job.mode == "replace":
            notes.append("replace leaves nothing in the table but the rows of this interval")
        return notes


def _checked(
    job: JobDefinition, request: BackfillRequest, now: datetime
) -> tuple[BackfillRequest, BackfillIntervals]:
    """Return *request* in its plainest form and its intervals; raise ``UsageError`` for what cannot be filled."""
    unknown = unknown_params(job.references, request.params)
    if unknown:
        raise UsageError(str(unknown[0]), problems=unknown)
    if request.start >= request.end:
        raise UsageError("the range of a backfill must begin before it ends: --from is not before --to")
    if request.end > now:
        raise UsageError(
            f"the range ends in the future, at {rfc3339(request.end)}; it is {rfc3339(now)} now",
            hint="an interval that is not over would count as loaded before all of its rows are there",
        )
    if request.concurrency < 1:
        raise UsageError("--concurrency must be at least 1")
    request = replace(request, split=checked_split(request.split))
    intervals = BackfillIntervals.of(request.whole, request.split, job.schedule)
    _refuse_unbounded(job)
    if intervals.count() > 1:
        _refuse_several(job, intervals)
    return request, intervals


def _refuse_unbounded(job: JobDefinition) -> None:
    if not (job.references & _BOUNDS or set(job.placeholders) & set(sql.WINDOW_NAMES)):
        raise UsageError(
            f"job {job.job_id} reads the same in every interval: nothing in it depends on the window",
            hint=_BOUNDED,
        )


def _refuse_several(job: JobDefinition, intervals: BackfillIntervals) -> None:
    number = intervals.count()
    if job.mode == "replace":
        raise UsageError(
            f"job {job.job_id} replaces its whole table: each of {number:,} intervals would erase the others",
            hint="use upsert, or fill the range as one interval: --split none",
        )
    has_upper = "window_end" in job.placeholders or "window.end" in job.references
    # A path with the window in it names the files of an interval; a query needs both of its ends.
    if job.source.query is not None and not has_upper:
        raise UsageError(
            f"the query of job {job.job_id} has no upper bound: each of {number:,} intervals would read "
            "everything up to now",
            hint=f"{_BOUNDED}, or fill the range as one interval: --split none",
        )


def _refuse_torn_intervals(intervals: BackfillIntervals, done: Ranges) -> None:
    """To append an interval of which a part is loaded would add the rows of that part twice."""
    for loaded in united(each.interval for each in done if each.status is IntervalStatus.LOADED):
        touched = intervals.around(loaded)
        if touched is None:
            continue
        inside = intervals.inside(loaded)
        torn = next(without(touched, [inside] if inside else []), None)
        if torn is not None:
            raise ConflictError(
                f"a part of the interval that begins at {rfc3339(torn.start)} is loaded: "
                f"{rfc3339(loaded.start)} to {rfc3339(loaded.end)}; append would add its rows twice",
                hint="choose --from, --to and --split so that intervals are loaded whole or not at all",
            )


def _whole(intervals: BackfillIntervals, done: Ranges, statuses: set[IntervalStatus]) -> int:
    """Return how many intervals lie wholly in the parts of *done* with one of *statuses*."""
    parts = united(each.interval for each in done if each.status in statuses)
    insides = (intervals.inside(part) for part in parts)
    return sum(intervals.count(inside) for inside in insides if inside is not None)


def _per_hour(ends: Sequence[datetime], now: datetime) -> float | None:
    """Return the pace from the *ends* of the latest runs, newest first, up to now: who stalls gets slower."""
    seconds = (now - ends[-1]).total_seconds() if len(ends) > 1 else 0
    return (len(ends) - 1) * 3600 / seconds if seconds > 0 else None


def _window(interval: Interval) -> dict[str, str]:
    return {"start": rfc3339(interval.start), "end": rfc3339(interval.end)}


def _asked(whole: Interval, split: str, asked: BackfillRequest | NewBackfill) -> dict[str, Any]:
    return {
        "range": _window(whole),
        "split": split,
        "order": asked.order,
        "concurrency": asked.concurrency,
        "reprocess": asked.reprocess,
        "on_failure": asked.on_failure,
    }
