"""Tidying the stage: what was staged for a run that is over is of no use to anybody."""

from __future__ import annotations

from ecmbatch.engine.resources import Resources
from ecmbatch.protocol.run import FINAL


def remove_finished_stages(resources: Resources) -> None:
    """Delete the staged rows of runs that ended for good: this one, those it superseded, those of a process
    that was killed before it could tidy up. Runs that the ledger does not know are left alone."""
    for run_id in resources.stage.run_ids():
        run = resources.ledger.runs.find(run_id)
        if run is not None and run.status in FINAL:
            resources.stage.remove(run_id)
