"""The tables that processors look things up in: read once per run, kept in its stage, the same in every attempt.

Had a resumed run read them again, rows before and after a crash could have been enriched differently. As with
chunks, a staged table exists for nobody before the ledger names it: :attr:`.RunPlan.references`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pyarrow as pa

from ecmbatch.connectors.connector import Connector, ReadRequest
from ecmbatch.engine.plan import ProcessorPlan, RunPlan
from ecmbatch.engine.resources import Resources
from ecmbatch.errors import InvalidDocument, TransformError
from ecmbatch.ledger.records import Fence
from ecmbatch.processors.processor import Reference
from ecmbatch.stage.stage import SealedFile

Tables = Mapping[str, pa.Table]
"""Tables by the :attr:`~.Reference.digest` of what was asked for."""

_MOST_BYTES = 1024 * 1024 * 1024
"""A table to look things up in is held in memory as a whole, by every worker process."""


@dataclass(frozen=True, slots=True)
class _Needed:
    """A reference, and the processor that needs it."""

    processor: str
    reference: Reference


def empty_tables(transform: Sequence[ProcessorPlan], resources: Resources) -> Tables:
    """Return tables without rows, with the columns of those that the processors look things up in."""
    tables = {}
    for needed in _needed(transform, resources):
        with _source(needed, resources) as source:
            schema = source.plan(_request(needed.reference)).schema
        tables[needed.reference.digest] = schema.empty_table()
    return tables


def unread_tables(plan: RunPlan, resources: Resources) -> Tables:
    """Read the tables that the processors look things up in and that the run has not read yet."""
    return {
        needed.reference.digest: _read(needed, resources)
        for needed in _needed(plan.transform, resources)
        if needed.reference.digest not in plan.references
    }


def staged_tables(run_id: str, plan: RunPlan, resources: Resources) -> Tables:
    """Return the tables that the run has read before; raises ``IntegrityError`` where one is lost."""
    digests = {needed.reference.digest for needed in _needed(plan.transform, resources)}
    return {
        digest: resources.stage.reference(run_id, plan.references[digest])
        for digest in sorted(digests & plan.references.keys())
    }


def stage_tables(fence: Fence, tables: Tables, resources: Resources) -> Mapping[str, SealedFile]:
    """Keep *tables* in the run's stage, under names that no other attempt uses."""
    return {
        digest: resources.stage.save_reference(fence.run_id, f"{digest}-e{fence.epoch}", table)
        for digest, table in tables.items()
    }


def _needed(transform: Sequence[ProcessorPlan], resources: Resources) -> Iterator[_Needed]:
    if transform:
        resources.load_processors()
    for planned in transform:
        plugin = resources.plugins.processors.get(planned.name)
        for reference in plugin.references(plugin.parse_config(planned.config)):
            yield _Needed(planned.name, reference)


def _source(needed: _Needed, resources: Resources) -> AbstractContextManager[Connector]:
    reference = needed.reference
    problems = resources.unread_fields(reference.source, reference)
    if problems:
        raise InvalidDocument(
            f"processor {needed.processor!r} cannot look things up: {problems[0].message}", problems=problems
        )
    return resources.reading(reference.source)


def _read(needed: _Needed, resources: Resources) -> pa.Table:
    with _source(needed, resources) as source:
        return _all_rows(needed.processor, source, _request(needed.reference))


def _all_rows(processor: str, source: Connector, request: ReadRequest) -> pa.Table:
    plan = source.plan(request)
    batches: list[pa.RecordBatch] = []
    size = 0
    for scan in plan.scans:
        with source.read(request, scan, None) as rows:
            for scanned in rows:
                batches.append(scanned.batch)
                size += scanned.batch.nbytes
                if size > _MOST_BYTES:
                    raise TransformError(
                        f"the table that processor {processor!r} looks things up in is larger than "
                        f"{_MOST_BYTES // 2**20} MiB; it is held in memory",
                        hint="select fewer columns or rows with a query, or join in the source's query",
                    )
    return pa.Table.from_batches(batches, plan.schema)


def _request(reference: Reference) -> ReadRequest:
    return ReadRequest(query=reference.query, table=reference.table, path=reference.path, resumable=False)
