"""Whether a run may begin: its job's dependencies, judged by what the ledger knows of the other jobs."""

from __future__ import annotations

import json
from datetime import datetime

from ecmbatch.errors import InvalidDocument
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.records import JobState
from ecmbatch.protocol.dependencies import Upstream, unmet
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.ticks import Ticks


def unmet_dependencies(job: JobDefinition, *, at: datetime, backfill: bool, ledger: Ledger) -> list[str]:
    """Return one sentence for each dependency of *job* that is not met at *at* (T, aware); none if a run may begin.

    T is the run's ``scheduled_for``, or the end of the interval that a *backfill* loads.
    """
    upstreams = upstreams_of(job, at=at, backfill=backfill, ledger=ledger)
    reasons = (unmet(rule, upstreams, at=at, backfill=backfill) for rule in job.dependencies)
    return [reason for reason in reasons if reason]


def upstreams_of(job: JobDefinition, *, at: datetime, backfill: bool, ledger: Ledger) -> dict[str, Upstream]:
    """Return what the ledger knows at *at* of each job that *job* depends on, by id."""
    names = sorted({dependency.job for dependency in job.upstream_dependencies})
    return {name: _upstream(name, at, backfill, ledger) for name in names}


def _upstream(job_id: str, at: datetime, backfill: bool, ledger: Ledger) -> Upstream:
    if backfill:
        runs = ledger.upstreams.deciding_runs(job_id, at=at, backfill=True)
        is_covered = any(run.status is RunStatus.SUCCESS and run.as_of and run.as_of <= at for run in runs)
        loaded = None if is_covered else ledger.upstreams.loaded_up_to(job_id, at=at)
        return Upstream(runs=runs, loaded_up_to=loaded)
    # The job's cursor is read before its runs: a tick that fires in between is seen twice rather than never.
    state = ledger.jobs.find(job_id)
    is_scheduled = state is not None and state.active and not state.paused
    tick = _pending_tick(state, at, ledger) if state is not None and is_scheduled else None
    return Upstream(
        runs=ledger.upstreams.deciding_runs(job_id, at=at, backfill=False),
        pending_tick=tick,
        paused=state is not None and state.active and state.paused,
    )


def _pending_tick(state: JobState, at: datetime, ledger: Ledger) -> datetime | None:
    """Return the latest tick up to *at* that a scheduler has still to fire."""
    document = ledger.jobs.version(state.job_id, state.version).document
    if not document.get("schedule"):
        return None
    try:
        job = JobDefinition.from_json(json.dumps(document))
    except InvalidDocument:
        # Kept by a version of ecmbatch that took it; no scheduler of this one fires it.
        return None
    ticks = Ticks.of(job.schedule)
    return ticks.latest(after=state.cursor, until=at) if ticks is not None else None
