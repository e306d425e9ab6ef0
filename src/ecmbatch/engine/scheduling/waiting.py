"""Runs that wait for other jobs: released, told why, or given up (protocol: Dependency Management)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from ecmbatch.engine.launching import waited_alert
from ecmbatch.engine.scheduling.gates import unmet_dependencies
from ecmbatch.engine.scheduling.known_jobs import KnownJobs
from ecmbatch.errors import EcmbatchError, Unreachable
from ecmbatch.ledger.alerts import NewAlert
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.queue import QueuedRun
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.scalars import decode_scalar
from ecmbatch.protocol.schedule import policy_of

log = logging.getLogger("ecmbatch")

Carefully = Callable[[str, Callable[[], None]], None]
"""Does something that has a name, and survives that it fails."""


def release_or_give_up(run: QueuedRun, ledger: Ledger, jobs: KnownJobs) -> None:
    """Look at a run that waits: queue it, remember what it still waits for, or give it up.

    Raises what keeps its version of the job from being read, until its patience is over.
    """
    if run.job_version is None:
        _bury(run, ledger)
        return
    is_over = run.wait_until is not None and ledger.clock() >= run.wait_until
    try:
        job = jobs.get(run.job_id, run.job_version)
        reasons = _unmet(job, run, ledger)
    except Unreachable:
        raise
    except EcmbatchError as error:
        if not is_over:
            raise
        _give_up(run, (), [error.message], ledger)
        return
    if not reasons:
        ledger.queue.release(run.run_id)
        log.info("%s %s: its dependencies are met", run.job_id, run.run_id, extra=_about("run.released", run))
    elif is_over:
        _give_up(run, job.alerts, reasons, ledger)
    elif list(run.waiting or ()) != reasons:
        ledger.queue.keep_waiting(run.run_id, reasons)
        log.info(
            "%s %s waits: %s",
            run.job_id,
            run.run_id,
            "; ".join(reasons),
            extra=_about("run.waiting", run),
        )


def _unmet(job: JobDefinition, run: QueuedRun, ledger: Ledger) -> list[str]:
    if run.options["ignore_dependencies"]:
        return []
    interval = run.options["window"]
    at = decode_scalar(interval["end"]) if interval else run.scheduled_for
    assert isinstance(at, datetime)
    return unmet_dependencies(job, at=at, backfill=not run.live, ledger=ledger)


def _give_up(run: QueuedRun, recipients: Sequence[str], reasons: list[str], ledger: Ledger) -> None:
    message = f"{run.job_id} did not run for {rfc3339(run.scheduled_for)}: {'; '.join(reasons)}"
    error = {
        "code": "dependency_not_met",
        "message": message,
        "problems": [],
        "hint": f"run what it depends on, then: ecmbatch run {run.job_id}",
    }
    if ledger.queue.give_up(run.run_id, error, waited_alert(run.run_id, recipients, message)):
        log.error("%s", message, extra=_about("run.skipped", run))


def _bury(run: QueuedRun, ledger: Ledger) -> None:
    """A run that its own command waits for is that command's business, unless it has died."""
    if not ledger.queue.is_waited_for(run):
        message = f"the command that waited to run {run.job_id} is gone"
        error = {
            "code": "worker_lost",
            "message": message,
            "hint": f"run it again: ecmbatch run {run.job_id}",
        }
        ledger.queue.give_up(run.run_id, error, waited_alert(run.run_id, (), message))


def tell_lateness(ledger: Ledger, jobs: KnownJobs, carefully: Carefully) -> None:
    """Raise an alert, once, for every run that should have started and did not, or that nobody goes on with.

    *carefully* does what it is given, named by the version of a job that may not be read any more.
    """
    now, told = ledger.clock(), ledger.alerts.of_unfinished_runs()
    for run in ledger.queue.unstarted():
        if run.live and f"late {run.run_id}" not in told:
            carefully(_version_of(run), partial(_tell_if_late, run, now, ledger, jobs))
    for run in ledger.queue.begun():
        if f"left {run.run_id}" not in told and not ledger.runs.is_live(run.run_id):
            carefully(_version_of(run), partial(_tell_if_left, run, now, ledger, jobs))


def _tell_if_late(run: QueuedRun, now: datetime, ledger: Ledger, jobs: KnownJobs) -> None:
    job = _job_of(run, jobs)
    if now - max(run.scheduled_for, run.created_at) < policy_of(job.schedule).late_after:
        return
    why = "; ".join(run.waiting or ()) or "no worker has taken it, or the run before it is not over"
    message = f"{run.job_id} is late: its run for {rfc3339(run.scheduled_for)} has not started: {why}"
    _tell("late", run, job, message, ledger)


def _tell_if_left(run: QueuedRun, now: datetime, ledger: Ledger, jobs: KnownJobs) -> None:
    job, begun = _job_of(run, jobs), ledger.runs.get(run.run_id)
    since = ledger.runs.last_sign_of_life(begun)
    if now - since < policy_of(job.schedule).late_after:
        return
    stage = begun.stage
    where = f": its rows are staged in {stage['path']} on {stage['host']}" if stage else ""
    message = (
        f"{run.job_id} is late: its run for {rfc3339(run.scheduled_for)} has begun, and no worker has gone on "
        f"with it since {rfc3339(since)}{where}"
    )
    _tell("left", run, job, message, ledger)


def _tell(kind: str, run: QueuedRun, job: JobDefinition, message: str, ledger: Ledger) -> None:
    alert = NewAlert(key=f"{kind} {run.run_id}", outcome="late", recipients=job.alerts, message=message)
    if ledger.alerts.put(run.job_id, alert, run_id=run.run_id):
        log.warning("%s", message, extra=_about("run.late", run))


def _job_of(run: QueuedRun, jobs: KnownJobs) -> JobDefinition:
    assert run.job_version is not None
    return jobs.get(run.job_id, run.job_version)


def _version_of(run: QueuedRun) -> str:
    return f"job {run.job_id}, version {run.job_version}"


def _about(event: str, run: QueuedRun) -> dict[str, str]:
    return {"event": event, "job_id": run.job_id, "run_id": run.run_id}
