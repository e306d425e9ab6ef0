"""Making the plan of a run: what is fixed when its first attempt starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import pyarrow as pa

from ecmbatch.connectors.connector import ReadPlan, ReadRequest
from ecmbatch.engine.partition_planning import plan_partitions
from ecmbatch.engine.plan import ProcessorPlan, RunPlan, SinkPlan, TablesRead
from ecmbatch.engine.publishing import publication_document, publication_of
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.transform import learned_schema
from ecmbatch.engine.window import Window, bound_values, facts_of, window_of
from ecmbatch.errors import (
    ConflictError,
    DefinitionChanged,
    InvalidDocument,
    PluginError,
    SourceError,
    StoreError,
)
from ecmbatch.ledger.records import RunRecord
from ecmbatch.processors.processor import RunFacts
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.document import invalid, under
from ecmbatch.protocol.job import JobDefinition, SourceName, Transform
from ecmbatch.protocol.parameters import Facts, resolve_text, resolve_tree
from ecmbatch.protocol.run import FINAL, RunStatus
from ecmbatch.protocol.scalars import Scalar
from ecmbatch.stores.store import RESERVED_PREFIX, Head, TableChange


def make_plan(
    job: JobDefinition, run: RunRecord, resources: Resources, *, started_at: datetime
) -> tuple[Window, RunPlan]:
    """Fix the window, resolve parameters, ask the connector how it will read, look at the target.

    Reads no rows. Raises what is wrong with the job here, before anything is staged.
    """
    # Asked once, and before the window is decided: whoever publishes after that supersedes this run.
    head = resources.store(job.sink.store).head(run.job_id, job.table, run.stream) if run.ordered else None
    if head is not None:
        repair_from_head(job, head, resources)
    with resources.reading(job.source.named) as connector:
        window = window_of(job, run, resources.ledger, connector)
        facts = facts_of(job, run, window, started_at, resources.ledger)
        parameters, notes = bound_values(job, window, facts)
        request = _request(job, parameters, facts)
        if job.partitioning is not None:
            partitioning, about_partitions = plan_partitions(job.partitioning, request, connector)
            request = replace(request, partitioning=partitioning)
            notes += about_partitions
        reading = connector.plan(request)
    _check_reading(reading, request)
    tables = _tables_read(job.source.named, reading, resources)
    transform = planned_transform(job.transform, resources, facts)
    run_facts = RunFacts(run_id=run.run_id, job_id=run.job_id, started_at=started_at)
    output = learned_schema(transform, resources, run_facts, reading.schema)
    plan = RunPlan(
        source=job.source.named,
        request=request,
        scans=reading.scans,
        source_schema=reading.schema,
        transform=transform,
        output_schema=output,
        sink=planned_sink(job, output, resources, expected_head=_expected_head(job, run, head, resources)),
        tables_read=tables,
        references={},
        parameters=parameters,
        notes=notes,
        source_tables=reading.tables,
    )
    change = check_sink(replace(run, window_start=window.start, window_end=window.end), plan, resources)
    return window, replace(plan, notes=(*plan.notes, *_about_columns(job.table, change)))


def _about_columns(table: str, change: TableChange) -> Iterator[str]:
    """Say what publishing will do to the columns of the table."""
    if change.added:
        yield f"table {table} gets new columns: {', '.join(change.added)}"
    for column in change.widened:
        yield f"column {column.name} of table {table} becomes {column.after}; it is {column.before}"
    if change.undelivered:
        names = ", ".join(change.undelivered)
        yield f"table {table} has columns that this run does not deliver; they keep what they have: {names}"


def repair_from_head(job: JobDefinition, head: Head, resources: Resources) -> None:
    """Let the store's word count: a run that it says was published is a success, whatever the ledger thinks.

    A worker that slept through its lease may publish after its successor failed; the next window must begin
    where that publication ends.
    """
    published = resources.ledger.runs.find(head.run_id)
    if published is None or published.plan is None or published.status in FINAL:
        return
    marker = resources.store(job.sink.store).marker(published.run_id)
    if marker is not None and marker.outcome == "published":
        plan = RunPlan.from_document(published.plan)
        resources.ledger.runs.settle(
            published.run_id, RunStatus.SUCCESS, error=None, publication=publication_document(marker, plan)
        )


def planned_transform(
    steps: Sequence[Transform], resources: Resources, facts: Facts
) -> tuple[ProcessorPlan, ...]:
    """Return the processors of a job with their configuration resolved and checked."""
    if steps:
        resources.load_processors()
    planned = []
    for step in steps:
        plugin = resources.plugins.processors.get(step.processor)
        config = resolve_tree(step.config, facts)
        plugin.parse_config(config)
        planned.append(ProcessorPlan(name=step.processor, version=plugin.version, config=config))
    return tuple(planned)


def planned_sink(
    job: JobDefinition, output: pa.Schema, resources: Resources, *, expected_head: str | None
) -> SinkPlan:
    """Return where the rows go: target, key, and the head that must still stand when they are published."""
    sink = job.sink
    reserved = [name for name in output.names if name.startswith(RESERVED_PREFIX)]
    if reserved:
        raise StoreError(
            f"the transformed rows have a column {reserved[0]!r}; names that begin with {RESERVED_PREFIX!r} "
            "are ecmbatch's own",
            hint="rename it in the transform",
        )
    return SinkPlan(
        store=sink.store,
        table=job.table,
        mode=job.mode,
        key=_key(job, output, resources),
        order_by=sink.order_by,
        provenance=sink.provenance,
        evolve=sink.schema_mode == "evolve",
        allow_empty=sink.allow_empty,
        expected_head=expected_head,
    )


def replan_transform_and_sink(
    job: JobDefinition, run: RunRecord, plan: RunPlan, resources: Resources
) -> RunPlan:
    """Return *plan* with the job's present transform and sink; source, window and partitions stay frozen.

    Raises :class:`~ecmbatch.errors.DefinitionChanged` when rows are staged that look different.
    """
    if (job.sink.store, job.table) != (plan.sink.store, plan.sink.table):
        raise DefinitionChanged(
            f"run {run.run_id} publishes to {plan.sink.store}.{plan.sink.table}; it cannot change to "
            f"{job.sink.store}.{job.table}",
            hint=f"start anew with: ecmbatch run {run.job_id} --fresh",
        )
    assert run.started_at is not None and run.window_end is not None
    window = Window(start=run.window_start, end=run.window_end)
    facts = facts_of(job, run, window, run.started_at, resources.ledger)
    transform = planned_transform(job.transform, resources, facts)
    run_facts = RunFacts(run_id=run.run_id, job_id=run.job_id, started_at=run.started_at)
    output = learned_schema(transform, resources, run_facts, plan.source_schema)
    if not output.equals(plan.output_schema) and resources.ledger.progress.chunks(run.run_id):
        raise DefinitionChanged(
            f"the new transform yields other columns or types than the rows that run {run.run_id} has staged",
            hint=f"start anew with: ecmbatch run {run.job_id} --fresh",
        )
    sink = planned_sink(job, output, resources, expected_head=plan.sink.expected_head)
    return replace(plan, transform=transform, output_schema=output, sink=sink)


def check_sink(run: RunRecord, plan: RunPlan, resources: Resources) -> TableChange:
    """Let the store refuse now what it would refuse in the end, and tell what it would change."""
    return resources.store(plan.sink.store).check(publication_of(run, plan, (), resources))


def _request(job: JobDefinition, parameters: dict[str, Scalar], facts: Facts) -> ReadRequest:
    source = job.source
    return ReadRequest(
        query=source.query,
        table=source.table,
        path=_resolved_path(source.path, facts) if source.path is not None else None,
        parameters={name: value for name, value in parameters.items() if name in job.placeholders},
        order_by=source.order_by,
        resumable=job.checkpoint.resume == "checkpoint",
        batch_rows=min(source.batch_rows, job.checkpoint.every_rows),
    )


def _tables_read(source: SourceName, reading: ReadPlan, resources: Resources) -> TablesRead | None:
    """Return which tables of a store are read, and how often each was published to."""
    if source.kind == "connector":
        return None
    store = resources.store(source.name)
    versions = store.versions()
    if reading.tables is None:
        return TablesRead(versions=dict(versions), known=False)
    read = {name: versions.get(name, 0) for name in map(store.table_name, reading.tables)}
    return TablesRead(versions=read, known=True)


def _resolved_path(path: str, facts: Facts) -> str:
    try:
        return resolve_text(path, facts)
    except InvalidDocument as error:
        raise invalid("job", under("/source/path", error.problems)) from None


def _check_reading(reading: ReadPlan, request: ReadRequest) -> None:
    """A connector that forgets a partition would lose its rows; better refused here."""
    listed = sorted(partition for scan in reading.scans for partition in scan.partitions)
    if listed != list(range(request.partitions)):
        raise PluginError(f"the connector planned the partitions {listed}, not 0 to {request.partitions - 1}")
    for name in (request.key, request.order_by):
        if name is not None and name not in reading.schema.names:
            raise SourceError(
                f"the source has no column {name!r} to partition or order by; "
                f"it has {', '.join(reading.schema.names)}"
            )


def _key(job: JobDefinition, output: pa.Schema, resources: Resources) -> tuple[str, ...]:
    """Return the key of the target: as declared, by the protocol's name, or the table's own."""
    key = job.sink.key
    if not key and job.mode == "upsert":
        if "context_id" in output.names:
            key = ("context_id",)
        else:
            target = resources.store(job.sink.store).table(job.table)
            key = target.primary_key if target is not None else ()
        if not key:
            raise InvalidDocument(
                f"sink.mode upsert needs a key: the rows have no column 'context_id' and table {job.table!r} "
                "has no primary key",
                hint=f'add "key": ["…"] to the sink; the rows have {", ".join(output.names)}',
            )
    for name in (*key, *([job.sink.order_by] if job.sink.order_by else [])):
        if name not in output.names:
            raise StoreError(
                f"the sink's key or order_by names {name!r}, which the transformed rows do not have; "
                f"they have {', '.join(output.names)}"
            )
    return key


def _expected_head(job: JobDefinition, run: RunRecord, head: Head | None, resources: Resources) -> str | None:
    """Return which run must still be the head when this one is published; refuse one the ledger never saw."""
    if head is None:
        return None
    known = resources.ledger.runs.find(head.run_id) is not None
    mark = resources.ledger.watermarks.latest(run.job_id, run.stream)
    decided_by_hand = mark is not None and mark.run_id is None
    if not known and not decided_by_hand:
        name = run.job_file or run.job_id
        until = f" with data up to {rfc3339(head.window_end)}" if head.window_end else ""
        raise ConflictError(
            f"{job.sink.store}.{job.table} was last loaded by run {head.run_id}{until}, "
            "which this ledger does not know",
            hint="restore the ledger; or, to go on without it, say from where: ecmbatch watermark set "
            f"{name} TIME, or ecmbatch watermark reset {name} to load everything again",
        )
    return head.run_id
