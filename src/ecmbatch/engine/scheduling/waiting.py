"""Runs that wait for other jobs: released, told why, or given up (protocol: Dependency Management)."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from ecmbatch.engine.launching import waited_alert
from ecmbatch.engine.scheduling.gates import unmet_dependencies
from ecmbatch.engine.scheduling.known_jobs import KnownJobs
from ecmbatch.ledger.alerts import NewAlert
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.queue import QueuedRun
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.scalars import decode_scalar
from ecmbatch.protocol.schedule import policy_of

log = logging.getLogger("ecmbatch")

_GRACE = timedelta(minutes=5)


def release_waiting(ledger: Ledger, jobs: KnownJobs) -> None:
    """Look at every run that waits: queue it, remember what it still waits for, or give it up."""
    for run in ledger.queue.waiting():
        if run.job_version is None:
            _bury(run, ledger)
            continue
        job = jobs.get(run.job_id, run.job_version)
        reasons = _unmet(job, run, ledger)
        if not reasons:
            ledger.queue.release(run.run_id)
            log.info(
                "%s %s: its dependencies are met", run.job_id, run.run_id, extra=_about("run.released", run)
            )
        elif run.wait_until is not None and ledger.clock() >= run.wait_until:
            _give_up(job, run, reasons, ledger)
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


def _give_up(job: JobDefinition, run: QueuedRun, reasons: list[str], ledger: Ledger) -> None:
    message = f"{run.job_id} did not run for {rfc3339(run.scheduled_for)}: {'; '.join(reasons)}"
    error = {
        "code": "dependency_not_met",
        "message": message,
        "problems": [],
        "hint": f"run what it depends on, then: ecmbatch run {run.job_id}",
    }
    if ledger.queue.give_up(run.run_id, error, waited_alert(job, run.run_id, message)):
        log.error("%s", message, extra=_about("run.skipped", run))


def _bury(run: QueuedRun, ledger: Ledger) -> None:
    """A run that its own command waits for is its business, unless that has died: its patience is over then."""
    if run.wait_until is None or ledger.clock() < run.wait_until + _GRACE:
        return
    message = f"the command that waited to run {run.job_id} is gone"
    alert = NewAlert(key=f"waited {run.run_id}", outcome="skipped", recipients=(), message=message)
    ledger.queue.give_up(run.run_id, {"code": "dependency_not_met", "message": message}, alert)


def tell_lateness(ledger: Ledger, jobs: KnownJobs) -> None:
    """Raise an alert for every run that should have started and did not, once."""
    for run in ledger.queue.unstarted():
        if not run.live:
            continue
        assert run.job_version is not None
        job = jobs.get(run.job_id, run.job_version)
        late = ledger.clock() - max(run.scheduled_for, run.created_at)
        if late < policy_of(job.schedule).late_after:
            continue
        why = "; ".join(run.waiting or ()) or "no worker has taken it, or the run before it is not over"
        message = f"{run.job_id} is late: its run for {rfc3339(run.scheduled_for)} has not started: {why}"
        if ledger.alerts.put(
            run.job_id,
            NewAlert(key=f"late {run.run_id}", outcome="late", recipients=job.alerts, message=message),
            run_id=run.run_id,
        ):
            log.warning("%s", message, extra=_about("run.late", run))


def _about(event: str, run: QueuedRun) -> dict[str, str]:
    return {"event": event, "job_id": run.job_id, "run_id": run.run_id}
