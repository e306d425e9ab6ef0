"""What there is to tell of an attempt, as the ledger has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from ecmbatch.engine.lineage.datasets import DatasetName, Place, place_of
from ecmbatch.engine.plan import RunPlan
from ecmbatch.engine.resources import Resources
from ecmbatch.ledger.records import AttemptRecord, RunRecord, VerdictRecord
from ecmbatch.processors.processor import Reference
from ecmbatch.protocol.job import JobDefinition, SourceName
from ecmbatch.protocol.parameters import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFacts:
    """An attempt at a run, with what is known so far: no plan before it is frozen, no verdict before it is judged.

    ``inputs`` are the tables and files of the source, as far as they are known; ``references`` those that
    processors look things up in. ``rows_read`` and ``rows_staged`` are those of all attempts.
    """

    job: JobDefinition
    run: RunRecord
    attempt: AttemptRecord
    plan: RunPlan | None
    verdict: VerdictRecord | None
    inputs: tuple[DatasetName, ...]
    references: tuple[DatasetName, ...]
    output: DatasetName
    dialect: str | None
    rows_read: int
    rows_staged: int

    @property
    def source_schema(self) -> pa.Schema | None:
        """The columns that are read, where one table or folder has them all."""
        return self.plan.source_schema if self.plan is not None and len(self.inputs) == 1 else None


def facts_of(job: JobDefinition, run_id: str, attempt: int, resources: Resources) -> AttemptFacts:
    """Ask the ledger, and no source and no store, for what there is to tell of *attempt* at the run."""
    ledger = resources.ledger
    run = ledger.runs.get(run_id)
    record = next(each for each in ledger.runs.attempts(run_id) if each.attempt == attempt)
    partitions = ledger.progress.partitions(run_id)
    verdict = ledger.verdicts.latest(run_id)
    plan = RunPlan.from_document(run.plan) if run.plan is not None else None
    sink = SourceName("store", job.sink.store)
    return AttemptFacts(
        job=job,
        run=run,
        attempt=record,
        plan=plan,
        # Another attempt's verdict says nothing of this one, unless it stands.
        verdict=verdict if verdict is not None and (verdict.publish or verdict.attempt == attempt) else None,
        inputs=tuple(_inputs(job, plan, resources)),
        references=tuple(dict.fromkeys(_references(plan, resources))),
        output=_place(sink, resources).table(job.table),
        dialect=_dialect(job.source.named, resources),
        rows_read=sum(partition.offset for partition in partitions),
        rows_staged=sum(partition.staged for partition in partitions),
    )


def _inputs(job: JobDefinition, plan: RunPlan | None, resources: Resources) -> Iterator[DatasetName]:
    source = job.source
    place = _place(source.named, resources)
    path = plan.request.path if plan is not None else source.path
    if plan is not None and plan.source_tables is not None:
        yield from (place.table(table) for table in plan.source_tables)
    elif source.table is not None:
        yield place.table(source.table)
    elif path is not None and not parse(path).references:
        yield place.path(path)


def _references(plan: RunPlan | None, resources: Resources) -> Iterator[DatasetName]:
    """Yield what the processors look things up in, but for queries: what those read is not known."""
    for planned in plan.transform if plan is not None else ():
        plugin = resources.plugins.processors.get(planned.name)
        for reference in plugin.references(plugin.parse_config(planned.config)):
            yield from _named(reference, resources)


def _named(reference: Reference, resources: Resources) -> Iterator[DatasetName]:
    place = _place(reference.source, resources)
    if reference.table is not None:
        yield place.table(reference.table)
    elif reference.path is not None:
        yield place.path(reference.path)


def _place(named: SourceName, resources: Resources) -> Place:
    file = resources.project_file
    places = file.settings.connectors if named.kind == "connector" else file.settings.stores
    return place_of(named.name, places[named.name], file)


def _dialect(named: SourceName, resources: Resources) -> str | None:
    settings = resources.project_file.settings
    kind = (settings.connectors if named.kind == "connector" else settings.stores)[named.name]["type"]
    return str(kind) if kind in ("duckdb", "postgres", "sqlite") else None
