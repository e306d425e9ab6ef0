"""Advancing backfills: the next intervals get runs, and what is through gets its end (protocol: Backfill).

A backfill keeps the version of the job that it was made with. Its runs never move the live watermark.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property

from ecmbatch.engine.abandoning import abandon_run
from ecmbatch.engine.launching import LaunchOptions, current_definition, digest_of, new_run
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import RunAlreadyActive
from ecmbatch.ledger.alerts import NewAlert
from ecmbatch.ledger.backfill_queries import BackfillRecord, BackfillState
from ecmbatch.ledger.intervals import interval_of
from ecmbatch.ledger.records import JobVersion, NewRun, RunRecord
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.intervals import BackfillIntervals, BackfillStatus, Interval, IntervalStatus
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import ACTIVE, RunStatus
from ecmbatch.protocol.scalars import decode_scalar

log = logging.getLogger("ecmbatch")

COUNTED = ("loaded", "skipped", "failed", "stopped", "running", "queued", "waiting", "pending")
"""What an interval can be; each is one of these."""


def advance_backfill(backfill_id: str, resources: Resources) -> BackfillStatus:
    """Make the next runs of a backfill, or settle it; return where it stands. To be repeated by anybody."""
    backfills = resources.ledger.backfills
    work = Work(backfills.get(backfill_id), resources)
    while True:
        step = backfills.advance(backfill_id, work)
        for run_id in step.started:
            log.info(
                "backfill %s: run %s of %s is queued",
                backfill_id,
                run_id,
                work.backfill.job_id,
                extra={"event": "run.created", "job_id": work.backfill.job_id, "run_id": run_id},
            )
        cleared = [_out_of_the_way(run_id, backfill_id, resources) for run_id in step.in_the_way]
        if not any(cleared):
            break
    if step.status is not work.backfill.status:
        log.info(
            "backfill %s of %s is %s",
            backfill_id,
            work.backfill.job_id,
            step.status,
            extra={"event": "backfill.ended", "backfill_id": backfill_id, "status": str(step.status)},
        )
    return step.status


class Work:
    """What a backfill loads: its intervals, and runs of them by the version of the job that it keeps."""

    def __init__(self, backfill: BackfillRecord, resources: Resources) -> None:
        self.backfill = backfill
        self._resources = resources

    @cached_property
    def job(self) -> JobDefinition:
        """The job as it was when the backfill was made."""
        return JobDefinition.from_json(json.dumps(self._version.document))

    @cached_property
    def intervals(self) -> BackfillIntervals:
        """The intervals."""
        return BackfillIntervals.of(self.backfill.whole, self.backfill.split, self.job.schedule)

    def new_run(self, interval: Interval, now: datetime) -> NewRun:
        """Return the run that loads *interval*."""
        options = LaunchOptions(
            params={name: decode_scalar(value) for name, value in self.backfill.options["params"].items()},
            window=(interval.start, interval.end),
            ignore_dependencies=self.backfill.options["ignore_dependencies"],
        )
        # As for all runs of workers, the definition is frozen when the run starts.
        new = new_run(self.job, self._version.job_file, options, {}, now)
        waits = bool(self.job.dependencies) and not options.ignore_dependencies
        return replace(
            new,
            digest="",
            job_version=self.backfill.job_version,
            backfill_id=self.backfill.backfill_id,
            # It waits as long as it takes: what it depends on may be a backfill of days.
            waiting=[] if waits else None,
        )

    def continues(self, run: RunRecord) -> bool:
        """Tell whether *run* was begun under the definition that the job has here now, or not begun at all."""
        return run.plan is None or run.digest == self._digest

    def digest(self, state: BackfillState, warned: int) -> NewAlert | None:
        """Return the one alert of the backfill: a failure, what succeeds after one, or warnings."""
        numbers = counts(self.intervals, state)
        failed = state.backfill.status is BackfillStatus.FAILED
        outcome = "failed" if failed else "warn" if warned else "pass"
        told = ", ".join(f"{numbers[name]:,} {name}" for name in COUNTED if numbers[name])
        warnings = f"; validation warned in {warned:,}" if warned else ""
        backfill = state.backfill
        return NewAlert(
            key=f"backfill {backfill.backfill_id}",
            outcome=outcome,
            recipients=list(self.job.alerts),
            message=f"{backfill.job_id}: backfill {backfill.backfill_id} from {rfc3339(backfill.window_start)} to "
            f"{rfc3339(backfill.window_end)} is {backfill.status}: of {self.intervals.count():,} intervals "
            f"{told}{warnings}",
        )

    @cached_property
    def _version(self) -> JobVersion:
        return self._resources.ledger.jobs.version(self.backfill.job_id, self.backfill.job_version)

    @cached_property
    def _digest(self) -> str:
        return digest_of(current_definition(self.job, self._resources))


def counts(intervals: BackfillIntervals, state: BackfillState) -> Mapping[str, int]:
    """Return how many intervals are what, by the names in ``COUNTED``; together they are all."""
    found: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    for each in state.ranges:
        found[each.status] += intervals.count(each.interval)
    for run in state.runs:
        found[_word(run)] += 1
        before = _status_of(run, state)
        if before is not None:
            # It is tried again: what came of it before does not count.
            found[before] -= 1
    found["pending"] = intervals.count() - found.total()
    return found


def _word(run: RunRecord) -> str:
    return "running" if run.status in ACTIVE else str(run.status)


def _status_of(run: RunRecord, state: BackfillState) -> IntervalStatus | None:
    interval = interval_of(run)
    if interval is None:
        return None
    return next((each.status for each in state.ranges if each.interval.overlaps(interval)), None)


def _out_of_the_way(run_id: str, backfill_id: str, resources: Resources) -> bool:
    """Abandon an unfinished run that cannot go on, so that its interval can be loaded by another one."""
    try:
        run = abandon_run(run_id, f"backfill {backfill_id} loads its interval anew", resources)
    except RunAlreadyActive:
        return False
    return run.status in (RunStatus.ABANDONED, RunStatus.SUCCESS)
