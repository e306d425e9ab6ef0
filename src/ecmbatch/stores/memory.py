"""A store in the memory of this process, for tests and examples: small, exact and slow."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from ecmbatch.crash_points import crash_point
from ecmbatch.protocol.document import Section, parse_model
from ecmbatch.stores.publication_check import (
    check_head,
    check_publication,
    check_row_count,
    check_version,
    empty_replace,
    null_keys,
    published_before,
    refused,
    repeated_stored_keys,
)
from ecmbatch.stores.store import (
    PARTITION_COLUMN,
    PROVENANCE_COLUMN,
    Head,
    Marker,
    Publication,
    PublishedRows,
    Store,
    StoreType,
    TableChange,
    TargetTable,
)

Row = dict[str, Any]

_NAN = object()


@dataclass(slots=True)
class MemoryTables:
    """What a :class:`MemoryStore` holds. Hand it to another store to play a new process on the same data."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    markers: dict[str, Marker] = field(default_factory=dict)
    heads: dict[tuple[str, str, str], Head] = field(default_factory=dict)
    versions: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class MemoryStore(Store):
    """Keeps tables as Arrow tables in *tables*. Safe to use from several threads."""

    def __init__(self, tables: MemoryTables | None = None) -> None:
        self.tables = MemoryTables() if tables is None else tables

    def rows(self, name: str) -> list[Row]:
        """Return a table's rows with all their columns; an unknown table has none."""
        stored = self.tables.tables.get(name)
        return [] if stored is None else stored.to_pylist()

    def table(self, name: str) -> TargetTable | None:
        stored = self.tables.tables.get(name)
        if stored is None:
            return None
        fields = [field for field in stored.schema if field.name != PROVENANCE_COLUMN]
        return TargetTable(schema=pa.schema(fields), primary_key=(), rows=stored.num_rows)

    def head(self, job_id: str, table: str, stream: str) -> Head | None:
        return self.tables.heads.get((job_id, table, stream))

    def marker(self, run_id: str) -> Marker | None:
        return self.tables.markers.get(run_id)

    def versions(self) -> Mapping[str, int]:
        return dict(self.tables.versions)

    def check(self, publication: Publication) -> TableChange:
        stored = self.tables.tables.get(publication.table)
        return check_publication(publication, None if stored is None else stored.schema)

    def publish(self, publication: Publication, at: datetime) -> Marker:
        with self.tables.lock:
            marker = self.tables.markers.get(publication.run_id)
            if marker is not None:
                return published_before(marker)
            check_version(publication, self.tables.versions[publication.table])
            crash_point("publish.marker")
            head = self._moved_head(publication)
            crash_point("publish.head")
            table, counts = _published(publication, self.tables.tables.get(publication.table))
            crash_point("publish.before_commit")
            marker = Marker(
                run_id=publication.run_id,
                outcome="published",
                manifest=publication.manifest,
                rows=counts,
                at=at,
            )
            self.tables.tables[publication.table] = table
            if head is not None:
                self.tables.heads[_head_key(publication)] = head
            self.tables.versions[publication.table] += 1
            self.tables.markers[publication.run_id] = marker
        crash_point("publish.after_commit")
        return marker

    def abandon(self, run_id: str, at: datetime) -> Marker:
        tombstone = Marker(run_id=run_id, outcome="abandoned", manifest=None, rows=PublishedRows(), at=at)
        with self.tables.lock:
            return self.tables.markers.setdefault(run_id, tombstone)

    def _moved_head(self, publication: Publication) -> Head | None:
        if not publication.live:
            return None
        current = self.tables.heads.get(_head_key(publication))
        check_head(publication, current)
        return Head(run_id=publication.run_id, window_end=publication.window_end)


def _head_key(publication: Publication) -> tuple[str, str, str]:
    return publication.job_id, publication.table, publication.stream


def _published(publication: Publication, stored: pa.Table | None) -> tuple[pa.Table, PublishedRows]:
    """Return the table as it is after publishing, and what that did to its rows."""
    schema = _changed_schema(publication, stored)
    before = [] if stored is None else stored.to_pylist()
    staged = _staged_rows(publication)
    folds = publication.mode != "append" and bool(publication.key)
    kept = _folded(publication, staged) if folds else staged
    incoming = [_incoming(publication, schema, row) for row in kept]
    match publication.mode:
        case "append":
            rows, counts = [*before, *incoming], {"inserted": len(incoming)}
        case "replace":
            if not incoming and before and not publication.allow_empty:
                raise empty_replace(publication, len(before))
            rows, counts = incoming, {"inserted": len(incoming), "deleted": len(before)}
        case "upsert":
            rows, counts = _upserted(publication, before, incoming)
    return _table(publication, rows, schema), PublishedRows(folded=len(staged) - len(kept), **counts)


def _changed_schema(publication: Publication, stored: pa.Table | None) -> pa.Schema:
    """Return the columns of the table as they are after publishing."""
    change = check_publication(publication, None if stored is None else stored.schema)
    wider = {column.name: column.after for column in change.widened}
    fields = [
        field.with_type(wider.get(field.name, field.type))
        for field in (publication.schema if stored is None else stored.schema)
    ]
    fields += [publication.schema.field(name) for name in change.added]
    if publication.provenance and all(field.name != PROVENANCE_COLUMN for field in fields):
        fields.append(pa.field(PROVENANCE_COLUMN, pa.string()))
    return pa.schema(fields)


def _table(publication: Publication, rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, OverflowError):
        # Arrow's own words may quote the value.
        reason = "a value is not possible in the type of its column"
        raise refused(publication.table, [reason], error_class="data") from None


def _staged_rows(publication: Publication) -> list[Row]:
    """Return the staged rows in the order of folding: partition, file, row."""
    rows = [row for file in publication.files for row in pq.read_table(file.path).to_pylist()]
    check_row_count(publication, len(rows))
    return sorted(rows, key=lambda row: int(row[PARTITION_COLUMN]))


def _folded(publication: Publication, staged: Sequence[Row]) -> list[Row]:
    if nulls := sum(any(row[name] is None for name in publication.key) for row in staged):
        raise null_keys(publication, nulls)
    winners: dict[Any, Row] = {}
    for row in staged:
        key = _key(publication, row)
        if key not in winners or not _is_newer(publication, winners[key], row):
            winners[key] = row
    return list(winners.values())


def _incoming(publication: Publication, schema: pa.Schema, row: Row) -> Row:
    kept = {name: value for name, value in row.items() if name != PARTITION_COLUMN}
    if PROVENANCE_COLUMN in schema.names:
        kept[PROVENANCE_COLUMN] = publication.run_id if publication.provenance else None
    return kept


def _upserted(
    publication: Publication, stored: Sequence[Row], incoming: Sequence[Row]
) -> tuple[list[Row], dict[str, int]]:
    places = {_key(publication, row): place for place, row in enumerate(stored)}
    _refuse_repeated_keys(publication, stored, incoming)
    rows = list(stored)
    counts = {"inserted": 0, "updated": 0, "unchanged": 0, "outdated": 0}
    for row in incoming:
        place = places.get(_key(publication, row))
        if place is None:
            rows.append(row)
            counts["inserted"] += 1
        elif _is_newer(publication, rows[place], row):
            counts["outdated"] += 1
        elif all(_same(rows[place].get(name), row[name]) for name in publication.schema.names):
            counts["unchanged"] += 1
        else:
            rows[place] = {**rows[place], **row}
            counts["updated"] += 1
    return rows, counts


def _refuse_repeated_keys(publication: Publication, stored: Sequence[Row], incoming: Sequence[Row]) -> None:
    delivered = {_key(publication, row) for row in incoming}
    matches = [key for row in stored if (key := _key(publication, row)) in delivered]
    if len(matches) > len(set(matches)):
        raise repeated_stored_keys(publication, len(matches) - len(set(matches)))


def _key(publication: Publication, row: Row) -> Any:
    return _hashable([row[name] for name in publication.key])


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(inner) for inner in value)
    if isinstance(value, dict):
        return tuple((name, _hashable(value[name])) for name in sorted(value))
    # NaN is not equal to itself, but it is one and the same key.
    return _NAN if value != value else value


def _is_newer(publication: Publication, stored: Row, incoming: Row) -> bool:
    """Tell whether the stored row is newer by ``order_by``; NULL is lowest, NaN highest, a tie is not newer."""
    if publication.order_by is None:
        return False
    ours, theirs = stored.get(publication.order_by), incoming.get(publication.order_by)
    if ours is None or theirs is None:
        return ours is not None and theirs is None
    if ours != ours or theirs != theirs:
        return bool(ours != ours and theirs == theirs)
    return bool(ours > theirs)


def _same(ours: Any, theirs: Any) -> bool:
    """Tell whether two values are equal, NULL to NULL and NaN to NaN included."""
    return bool(_hashable(ours) == _hashable(theirs))


class MemorySettings(Section):
    """A memory store has no settings."""


def _parse(settings: Mapping[str, Any]) -> BaseModel:
    return parse_model(MemorySettings, dict(settings), what="memory store")


def _build(settings: BaseModel, folder: Path, tell: Callable[[str], None]) -> Store:
    return MemoryStore()


MEMORY = StoreType(name="memory", parse_config=_parse, build=_build)
