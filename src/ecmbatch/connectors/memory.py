"""Rows that are already in memory: a real connector for tests, which counts what it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecmbatch.connectors.columns import check_column, check_names, check_request
from ecmbatch.connectors.connector import (
    Connector,
    ConnectorType,
    Cursor,
    KeySample,
    ReadPlan,
    ReadRequest,
    ResumeKind,
    Scan,
    ScannedBatch,
)
from ecmbatch.connectors.key_groups import at_most, by_key_groups, equal_keys
from ecmbatch.connectors.key_sample import Sampler
from ecmbatch.connectors.scan_shares import shares
from ecmbatch.errors import InvalidDocument, Problem, SourceChanged
from ecmbatch.protocol.key_values import decode_key, encode_key, plain_keys
from ecmbatch.protocol.partitioning.partitions import keep


@dataclass(frozen=True, slots=True)
class MemoryRead:
    """One call of :meth:`MemoryConnector.read`."""

    scan: int
    partitions: tuple[int, ...]
    after: Cursor | None


class MemoryConnector(Connector):
    """Reads *table*, whatever the job's query, table or path says.

    ``resume`` is the kind of resume that it promises (``cursor`` needs a key or ``order_by``), ``scans``
    how many scans serve a partitioned job. ``reads`` lists the scans that were opened and ``rows_read``
    counts the rows that were handed out, so that a test can prove what was not read.
    """

    def __init__(self, table: pa.Table, *, resume: ResumeKind = "cursor", scans: int = 1) -> None:
        self.table = table
        self.reads: list[MemoryRead] = []
        self.rows_read = 0
        self._resume = resume
        self._scans = scans
        self._lock = threading.Lock()

    def plan(self, request: ReadRequest) -> ReadPlan:
        check_names(self.table.schema.names)
        check_request(self.table.schema, request)
        resume, reason = self._resume_kind(request)
        scans = tuple(
            Scan(number=number, partitions=partitions, resume=resume, reason=reason)
            for number, partitions in enumerate(shares(request, self._scans))
        )
        return ReadPlan(schema=self.table.schema, scans=scans)

    def sample_keys(self, request: ReadRequest, key: str, size: int) -> KeySample:
        check_column(self.table.schema, "partitioning.key", key)
        sampler = Sampler(size)
        sampler.take(self.table.column(key).combine_chunks())
        return KeySample(keys=sampler.keys(self.table.schema.field(key).type), rows=self.table.num_rows)

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        with self._lock:
            self.reads.append(MemoryRead(scan.number, scan.partitions, after))
        rows = self._rows_of(request, scan)
        if scan.resume == "cursor":
            yield self._counted(_by_key(rows, request, after))
        else:
            yield self._counted(_by_position(rows, request, scan, after))

    def _resume_kind(self, request: ReadRequest) -> tuple[ResumeKind, str]:
        if not request.resumable:
            return "none", "the job asks to replay partial partitions from their start"
        if self._resume == "cursor" and (request.order_by or request.key) is None:
            return "none", "there is neither source.order_by nor a partitioning key to order by"
        return self._resume, "the rows are in memory"

    def _rows_of(self, request: ReadRequest, scan: Scan) -> pa.Table:
        if request.partitioning is None:
            return self.table
        batches = self.table.to_batches()
        kept = [keep(batch, request.partitioning, scan.partitions) for batch in batches]
        return pa.Table.from_batches(kept, self.table.schema)

    def _counted(self, batches: Iterator[ScannedBatch]) -> Iterator[ScannedBatch]:
        for scanned in batches:
            with self._lock:
                self.rows_read += scanned.batch.num_rows
            yield scanned


def _by_key(rows: pa.Table, request: ReadRequest, after: Cursor | None) -> Iterator[ScannedBatch]:
    key = request.order_by or request.key
    assert key is not None  # else the scan's resume were "none"
    ordered = rows.take(_order(plain_keys(rows.column(key).combine_chunks())))
    if after is not None:
        ordered = ordered.slice(_behind(ordered.column(key).combine_chunks(), after))
    batches = at_most(ordered.combine_chunks().to_batches(), request.batch_rows)
    return by_key_groups(batches, key, lambda value: {"key": encode_key(value)})


def _by_position(
    rows: pa.Table, request: ReadRequest, scan: Scan, after: Cursor | None
) -> Iterator[ScannedBatch]:
    start = 0 if after is None else int(after["row"])
    for batch in at_most(rows.slice(start).combine_chunks().to_batches(), request.batch_rows):
        start += batch.num_rows
        yield ScannedBatch(batch, None if scan.resume == "none" else {"row": start})


def _order(keys: pa.Array) -> pa.Array:
    """Return the places of *keys* in their order, NULLs first; equal ones keep theirs."""
    ascending = pc.sort_indices(keys)
    nulls_from = len(keys) - keys.null_count
    return pa.concat_arrays([ascending.slice(nulls_from), ascending.slice(0, nulls_from)])


def _behind(keys: pa.Array, after: Cursor) -> int:
    """Return the number of rows up to the end of the cursor's key group."""
    group = np.flatnonzero(equal_keys(keys, decode_key(after["key"], keys.type)[0]))
    if not group.size:
        raise SourceChanged("the rows in memory no longer have the key of the cursor")
    return int(group[-1]) + 1


def memory_type(connector: MemoryConnector, *, name: str = "memory") -> ConnectorType:
    """Return the connector type *name*, without settings, that always gives *connector*: for tests."""

    def parse_config(settings: Mapping[str, Any]) -> None:
        if settings:
            problems = [Problem(f"/{key}", "is not a key known here") for key in settings]
            raise InvalidDocument(f"a {name} connector has no settings", problems=problems)

    def build(_settings: None, _folder: Path) -> Connector:
        return connector

    return ConnectorType(
        name=name, fields=frozenset({"query", "table", "path"}), parse_config=parse_config, build=build
    )
