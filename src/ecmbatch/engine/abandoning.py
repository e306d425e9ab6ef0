"""Abandoning a run: it can never be published afterwards, not even by a worker that merely sleeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecmbatch.crash_points import crash_point
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import PluginError, RunAlreadyActive, RunAlreadyComplete
from ecmbatch.ledger.records import RunRecord
from ecmbatch.protocol.run import FINAL, RunStatus

if TYPE_CHECKING:
    from ecmbatch.engine.plan import RunPlan
    from ecmbatch.stores.store import Store


def _store_of(plan: RunPlan, run_id: str, resources: Resources) -> Store:
    try:
        return resources.store(plan.sink.store)
    except PluginError as error:
        raise PluginError(
            f"run {run_id} may have published to the store {plan.sink.store!r}: {error.message}",
            hint=f"declare [stores.{plan.sink.store}] again until the run is finished or abandoned",
        ) from error


def abandon_run(run_id: str, reason: str, resources: Resources) -> RunRecord:
    """Give a run up for good; one that the store says was published becomes a success instead.

    The tombstone in the store comes first: a process killed in between leaves a run that can be abandoned
    again, never one that the ledger calls abandoned and the store would still take.

    Raises ``RunAlreadyActive`` while somebody executes it and ``StoreBusy`` when the store cannot be written.
    """
    runs = resources.ledger.runs
    run = runs.get(run_id)
    if run.status is RunStatus.ABANDONED:
        return run
    if run.status in FINAL:
        raise RunAlreadyComplete(f"run {run_id} is over ({run.status}); there is nothing to abandon")
    if runs.is_live(run_id):
        raise RunAlreadyActive(
            f"run {run_id} is being executed; it cannot be abandoned now",
            hint=f"stop it first: ecmbatch stop {run_id}",
        )
    if run.plan is not None:
        # A scheduler is to be small: what it needs once in a blue moon is imported then.
        from ecmbatch.engine.plan import RunPlan
        from ecmbatch.engine.publishing import publication_document

        plan = RunPlan.from_document(run.plan)
        marker = _store_of(plan, run_id, resources).abandon(run_id, resources.ledger.clock())
        crash_point("abandon.tombstone")
        if marker.outcome == "published":
            return runs.settle(
                run_id, RunStatus.SUCCESS, error=None, publication=publication_document(marker, plan)
            )
    run = runs.settle(run_id, RunStatus.ABANDONED, error={"code": "abandoned", "message": reason})
    resources.stage.remove(run_id)
    return run
