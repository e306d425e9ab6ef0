"""The worker: claiming runs that the scheduler made, and executing them."""

from __future__ import annotations

import json
import logging

from ecmbatch.engine.resources import Resources
from ecmbatch.engine.runner import Runner
from ecmbatch.engine.staging import refuse_other_stage
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import EcmbatchError
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import Fence, RunRecord
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import RunStatus

log = logging.getLogger("ecmbatch")


def claimable(resources: Resources) -> int:
    """Return how many runs could be claimed now."""
    return resources.ledger.queue.claimable()


def execute_next(
    resources: Resources, *, workers: int, stop: StopSignal, backfill_id: str | None = None
) -> RunRecord | None:
    """Claim the next run and execute it; return how it ended, or ``None`` where there was none to claim.

    *workers* is how many scans are read at once. Where *stop* is set with ``RunReleased``, the run is put back
    for the next worker. Raises ``Unreachable`` where the ledger cannot be used.
    """
    claimed = resources.ledger.queue.claim(
        Owner.this_process(), lambda run: refuse_other_stage(run, resources), backfill_id=backfill_id
    )
    if claimed is None:
        return None
    run, fence = claimed
    _tell("run.started", run, "%s %s: attempt %d", run.job_id, run.run_id, run.attempt)
    error: EcmbatchError | None = None
    try:
        Runner(_job_of(run, fence, resources), resources, workers=workers, stop=stop).execute(run, fence)
    except EcmbatchError as raised:
        error = raised
    ended = resources.ledger.runs.get(run.run_id)
    _tell_end(ended, error)
    return ended


def _job_of(run: RunRecord, fence: Fence, resources: Resources) -> JobDefinition:
    """Return the version of the job that the run was made of; a run of one that cannot be read fails."""
    assert run.job_version is not None
    document = resources.ledger.jobs.version(run.job_id, run.job_version).document
    try:
        return JobDefinition.from_json(json.dumps(document))
    except EcmbatchError as error:
        resources.ledger.runs.finish(
            fence, RunStatus.FAILED, error={"code": error.code, "message": error.message}
        )
        raise


def _tell_end(run: RunRecord, error: EcmbatchError | None) -> None:
    reason = f": {error.message}" if error is not None else ""
    level = logging.ERROR if run.status in (RunStatus.FAILED, RunStatus.VALIDATION_FAILED) else logging.INFO
    log.log(
        level,
        "%s %s is %s%s",
        run.job_id,
        run.run_id,
        run.status,
        reason,
        extra={"event": "run.ended", "job_id": run.job_id, "run_id": run.run_id, "status": str(run.status)},
    )


def _tell(event: str, run: RunRecord, message: str, *values: object) -> None:
    log.info(message, *values, extra={"event": event, "job_id": run.job_id, "run_id": run.run_id})
