"""Publishing: the one moment at which readers see anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ecmbatch.crash_points import crash_point
from ecmbatch.engine.judging import manifest_of
from ecmbatch.engine.plan import RunPlan
from ecmbatch.engine.resources import Resources
from ecmbatch.ledger.records import RunRecord
from ecmbatch.stage.stage import SealedFile, manifest_digest
from ecmbatch.stores.store import Marker, Publication, StagedFile


def publish_run(run: RunRecord, plan: RunPlan, resources: Resources) -> Marker:
    """Publish what was judged, or find that it was published already; raises what the store raises."""
    files = manifest_of(resources.ledger.progress.chunks(run.run_id))
    store = resources.store(plan.sink.store)
    crash_point("publish.before")
    marker = store.publish(publication_of(run, plan, files, resources), resources.ledger.clock())
    crash_point("publish.after")
    return marker


def publication_of(
    run: RunRecord, plan: RunPlan, files: Sequence[SealedFile], resources: Resources
) -> Publication:
    """Return what the store is asked to publish."""
    sink = plan.sink
    return Publication(
        run_id=run.run_id,
        job_id=run.job_id,
        stream=run.stream,
        table=sink.table,
        mode=sink.mode,
        key=sink.key,
        order_by=sink.order_by,
        schema=plan.output_schema,
        files=[
            StagedFile(path=resources.stage.path(run.run_id, file.file), rows=file.rows) for file in files
        ],
        manifest=manifest_digest(files),
        live=run.ordered,
        expected_head=sink.expected_head,
        expected_version=_version_read(plan, resources),
        window_end=run.window_end,
        provenance=sink.provenance,
        evolve=sink.evolve,
        allow_empty=sink.allow_empty,
    )


def _version_read(plan: RunPlan, resources: Resources) -> int | None:
    """Return the version of the target that the run has read, if it reads the table that it writes."""
    if plan.tables_read is None or plan.source.name != plan.sink.store:
        return None
    return plan.tables_read.version_of(resources.store(plan.sink.store).table_name(plan.sink.table))


def publication_document(marker: Marker, plan: RunPlan) -> dict[str, Any]:
    """Return what the ledger remembers of a publication."""
    return {
        "store": plan.sink.store,
        "table": plan.sink.table,
        "mode": plan.sink.mode,
        "manifest": marker.manifest,
        "rows": asdict(marker.rows),
    }
