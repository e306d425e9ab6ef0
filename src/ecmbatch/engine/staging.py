"""What is in the stage, and tidying it: what was staged for a run that is over is of no use to anybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ecmbatch.engine.resources import Resources
from ecmbatch.errors import StageElsewhere
from ecmbatch.ledger.owner import Owner
from ecmbatch.protocol.run import FINAL

if TYPE_CHECKING:
    from ecmbatch.ledger.ledger import Ledger
    from ecmbatch.ledger.records import RunRecord
    from ecmbatch.stage.stage import Stage, StageSize


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRun:
    """What is staged for a run. ``run`` is ``None`` where the ledger does not know it."""

    run_id: str
    run: RunRecord | None
    size: StageSize
    idle_since: datetime | None = None
    """Since when nobody goes on with a run that could go on; ``None`` where it is over, unknown or alive."""


def stage_here(stage: Stage) -> dict[str, str]:
    """Return what a run remembers of the stage that its rows are in; it gets its identity if it has none."""
    return {"id": stage.identity(), "host": Owner.this_process().host, "path": str(stage.root)}


def refuse_other_stage(run: RunRecord, resources: Resources) -> None:
    """Refuse to go on with a run whose rows are in a folder that this host does not have as its stage.

    A folder that was made anew where the run's was is let through as long as nothing had been staged in it.
    Raises :class:`~ecmbatch.errors.StageElsewhere`.
    """
    there, stage = run.stage, resources.stage
    if there is None or there["id"] == stage.known_identity():
        return
    here = Owner.this_process().host
    if (there["host"], there["path"]) == (here, str(stage.root)):
        if not resources.ledger.progress.chunks(run.run_id):
            return
        # Two hosts may have one name: containers of one image, or what a cloud calls localhost.
        raise StageElsewhere(
            f"the rows of run {run.run_id} are not in {there['path']} on {here} any more: the folder was deleted "
            "or is another one, or this is another host of the same name",
            hint=f"bring back the folder that the run began with, or start anew: "
            f"ecmbatch run {run.job_id} --fresh",
        )
    raise StageElsewhere(
        f"the rows of run {run.run_id} are staged in {there['path']} on {there['host']}, which is not the folder "
        f"{stage.root} on {here}",
        hint=f"let [stage] url name the same folder on both, go on there, or start anew: "
        f"ecmbatch run {run.job_id} --fresh",
    )


def staged_runs(stage: Stage, ledger: Ledger | None) -> Iterator[StagedRun]:
    """Yield the runs that have something staged; what does not look like a run's is left out."""
    # A run is in the ledger before it is in the stage, so what is staged has to be asked first.
    for run_id in stage.run_ids():
        run = ledger.runs.find(run_id) if ledger is not None else None
        if run is None and not stage.holds_run(run_id):
            continue
        yield StagedRun(
            run_id=run_id,
            run=run,
            size=stage.size(run_id),
            idle_since=idle_since(run, ledger) if run is not None and ledger is not None else None,
        )


def idle_since(run: RunRecord, ledger: Ledger) -> datetime | None:
    """Return since when nobody goes on with a run that could go on; ``None`` where it is over or alive."""
    if run.status in FINAL or ledger.runs.is_live(run.run_id):
        return None
    return ledger.runs.last_sign_of_life(run)


def remove_finished_stages(resources: Resources) -> None:
    """Delete the staged rows of runs that ended for good: this one, those it superseded, those of a process
    that was killed before it could tidy up. Runs that the ledger does not know are left alone."""
    for run_id in resources.stage.run_ids():
        run = resources.ledger.runs.find(run_id)
        if run is not None and run.status in FINAL:
            resources.stage.remove(run_id)
