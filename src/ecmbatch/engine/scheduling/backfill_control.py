"""What people ask of backfills: plan and make one, look how far it is, pause it, go on, execute it here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ecmbatch.engine.alerts import deliver_alerts
from ecmbatch.engine.job_files import JobFile
from ecmbatch.engine.launching import LaunchOptions, new_run, new_run_id, stream_of
from ecmbatch.engine.preview import as_record, shown
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.backfill_checks import checked, refuse_torn_intervals
from ecmbatch.engine.scheduling.backfill_views import BackfillPlan, BackfillRequest, BackfillView
from ecmbatch.engine.scheduling.backfills import Work, advance_backfill, counts
from ecmbatch.engine.scheduling.job_registry import digest_of_document, document_of
from ecmbatch.engine.scheduling.known_jobs import KnownJobs
from ecmbatch.engine.scheduling.waiting import release_or_give_up
from ecmbatch.engine.scheduling.worker import execute_next
from ecmbatch.engine.staging import refuse_other_stage
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.engine.window import Window, bound_values, facts_of
from ecmbatch.errors import DependencyNotMet, StageElsewhere
from ecmbatch.ledger.backfill_queries import BackfillRecord, NewBackfill
from ecmbatch.ledger.records import RunRecord
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.intervals import (
    BackfillIntervals,
    BackfillStatus,
    Interval,
    IntervalStatus,
    Ranges,
    united,
)
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.parameters import resolve_text
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.scalars import encode_scalars

_EARLIER_RUNS = 50
_SECONDS_BETWEEN_LOOKS = 1.0


class Backfills:
    """The backfills of a project."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._ledger = resources.ledger

    def plan(self, job: JobDefinition, request: BackfillRequest) -> BackfillPlan:
        """Return what :meth:`create` would do; nothing is written. Raises what keeps it from starting."""
        request, intervals = checked(job, request, self._ledger.clock())
        stream = stream_of(request.params)
        done = self._ledger.backfills.done(job.job_id, stream, request.whole)
        if job.mode == "append" and request.reprocess != "all":
            refuse_torn_intervals(intervals, done)
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
            refuse_torn_intervals(work.intervals, done)

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


def _whole(intervals: BackfillIntervals, done: Ranges, statuses: set[IntervalStatus]) -> int:
    """Return how many intervals lie wholly in the parts of *done* with one of *statuses*."""
    parts = united(each.interval for each in done if each.status in statuses)
    insides = (intervals.inside(part) for part in parts)
    return sum(intervals.count(inside) for inside in insides if inside is not None)


def _per_hour(ends: Sequence[datetime], now: datetime) -> float | None:
    """Return the pace from the *ends* of the latest runs, newest first, up to now: who stalls gets slower."""
    seconds = (now - ends[-1]).total_seconds() if len(ends) > 1 else 0
    return (len(ends) - 1) * 3600 / seconds if seconds > 0 else None
