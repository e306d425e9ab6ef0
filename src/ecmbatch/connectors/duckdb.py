"""Reading tables and queries from a DuckDB file.

A partitioned job is read by **one scan**, ordered by the key and split locally. Measured once on two busy
cores with DuckDB 2.0: 10 M rows of about 200 bytes, 16 partitions by an integer and by a text key, staged
to Parquet by two workers. 1.0 is the sorted read of one partition:

=====================================================  ===========  ====
scans                                                  integer      text
=====================================================  ===========  ====
one, without an order (``resume: none``), not split    0.6          0.3
one, split locally                                     1.2          1.0
two, :func:`hash_partitions` as a function in DuckDB   1.4          1.3
four, the same (of 1 M rows: 1.6 and 2.8)              1.5          1.8
two and four, **ecm-hash-1** written in SQL            1.1 and 1.2  –
=====================================================  ===========  ====

The function holds Python's lock and every scan evaluates it for all rows, so more scans cost more than
they win unless the transform is what takes the time. Then set ``scans``: they run on several workers, and
partitions are completed group by group. The SQL serves integers only and wins too little to keep.

Rows of one key keep the source's own order, which costs about a tenth: DuckDB's sort is not stable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import duckdb
import pyarrow as pa
from pydantic import Field

from ecmbatch.connectors.columns import check_names, check_request
from ecmbatch.connectors.connector import (
    Connector,
    ConnectorType,
    Cursor,
    ReadPlan,
    ReadRequest,
    ResumeKind,
    Scan,
    ScannedBatch,
)
from ecmbatch.connectors.duckdb_columns import quoted, readable_columns, uuid_columns, with_uuids
from ecmbatch.connectors.duckdb_database import DuckDBDatabase, DuckDBRows, defined, refusals
from ecmbatch.connectors.key_cursor import decode_key, encode_key
from ecmbatch.connectors.key_groups import at_most, by_key_groups
from ecmbatch.errors import SourceChanged, SourceError
from ecmbatch.protocol.document import Matching, Section, parse_model
from ecmbatch.protocol.partitioning import hash_partitions
from ecmbatch.protocol.query import bind
from ecmbatch.protocol.scalars import Scalar

_LAST = "_ecm_last"
_ROW = "_ecm_row"
_SPILL = Path(".ecmbatch", "tmp", "duckdb")


class DuckDBSource(Section):
    """Settings of a ``duckdb`` connector.

    ``path`` is relative to the project's folder. ``scans`` is how many scans serve a partitioned job: each
    costs a pass over the source, several run at once, at most ``max_connections``. ``memory_limit`` is for
    DuckDB in this process; what does not fit spills to the project's ``.ecmbatch/tmp``.
    """

    path: Annotated[str, Field(min_length=1)]
    scans: Annotated[int, Field(ge=1, le=256)] = 1
    max_connections: Annotated[int, Field(ge=1, le=256)] | None = None
    memory_limit: Annotated[
        str, Matching(r"\d{1,6}(\.\d{1,3})? ?([KMGT]i?B)", "a size such as 1GB or 512MiB")
    ] = "512MB"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A request as DuckDB takes it: the query, its bound values, its columns and their DuckDB types."""

    sql: str
    values: list[Scalar]
    types: Mapping[str, Any]

    @property
    def readable(self) -> str:
        return f"SELECT {readable_columns(self.types)} FROM (\n{self.sql}\n) AS source"

    @property
    def uuids(self) -> frozenset[str]:
        return uuid_columns(self.types)

    @property
    def named_types(self) -> dict[str, str]:
        return {name: str(kind) for name, kind in self.types.items()}


class DuckDBConnector(Connector):
    """Reads a DuckDB file, which no other process may write to meanwhile."""

    def __init__(self, settings: DuckDBSource, folder: Path) -> None:
        self.max_scans = settings.max_connections
        self._scans = settings.scans
        self._database = DuckDBDatabase(
            folder / Path(settings.path).expanduser(),
            spill=folder / _SPILL,
            memory_limit=settings.memory_limit,
            threads=settings.threads,
        )

    def plan(self, request: ReadRequest) -> ReadPlan:
        with self._database.connection() as connection, refusals():
            source = _source(connection, request)
            limited = request.query is not None and _is_limited(connection, source.sql)
            schema = _schema(connection, source)
        check_request(schema, request)
        if limited and request.partitions > 1:
            raise SourceError(
                "the query ends in LIMIT, OFFSET or a sample, and the job has "
                f"{request.partitions} partitions: each would take other rows",
                hint="leave it out, or leave partitioning out",
            )
        resume, reason = _resume_kind(request, limited=limited)
        detail = {"order_by": _order_column(request), "columns": source.named_types}
        scans = tuple(
            Scan(number=number, partitions=partitions, resume=resume, reason=reason, detail=detail)
            for number, partitions in enumerate(_shares(request.partitions, self._scans))
        )
        return ReadPlan(schema=schema, scans=scans)

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        order = None if scan.resume == "none" else _order_column(request)
        with self._database.connection() as connection, ExitStack() as opened:
            with refusals():
                source = _source(connection, request)
                _check_unchanged(source, scan)
                conditions = opened.enter_context(_of_partitions(connection, source, request, scan))
                if order is not None and after is not None:
                    conditions.append(_after(connection, source, order, after))
                sql = _scan_sql(source, conditions, order)
                rows = opened.enter_context(DuckDBRows(connection, sql, source.values, request.batch_rows))
            # What the reader of the batches raises is not the source's: no refusals from here on.
            batches = (with_uuids(batch, source.uuids) for batch in at_most(rows, request.batch_rows))
            if order is None:
                yield (ScannedBatch(batch, None) for batch in batches)
            else:
                yield by_key_groups(batches, order, lambda key: {"key": encode_key(key)})

    def close(self) -> None:
        self._database.close()


def _source(connection: duckdb.DuckDBPyConnection, request: ReadRequest) -> _Source:
    """Return *request* as DuckDB takes it, or raise what DuckDB and we have against it."""
    if request.query is None:
        assert request.table is not None  # a request names one of those that DUCKDB.fields lists
        sql, values = f"SELECT * FROM {_table(request.table)}", []
    else:
        bound = bind(request.query, "numbered")
        sql, values = bound.sql, [request.parameters[name] for name in bound.names]
        _check_statement(connection, sql)
    # Wrapped, DuckDB refuses whatever is not a plain SELECT; and it renames duplicates, so ask for them first.
    wrapped = _relation(connection, f"SELECT * FROM (\n{sql}\n) AS source", values)
    check_names(_relation(connection, sql, values).columns, fold_case=True)
    return _Source(sql=sql, values=values, types=dict(zip(wrapped.columns, wrapped.types, strict=True)))


def _relation(
    connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Scalar]
) -> duckdb.DuckDBPyRelation:
    return connection.sql(sql, params=list(values) or None)


def _table(name: str) -> str:
    return ".".join(quoted(part) for part in name.split("."))


def _check_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SourceError("the query must be one SELECT; sources are only read")


def _is_limited(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Return whether the outermost query takes some of its rows only: LIMIT, OFFSET or a sample."""
    ((text,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    parsed = json.loads(text)
    if parsed["error"]:
        raise SourceError("the query must be one SELECT; sources are only read")
    node = parsed["statements"][0]["node"]
    has_limit = any(modifier["type"] == "LIMIT_MODIFIER" for modifier in node["modifiers"])
    return has_limit or node.get("sample") is not None


def _schema(connection: duckdb.DuckDBPyConnection, source: _Source) -> pa.Schema:
    with DuckDBRows(connection, f"{source.readable} LIMIT 0", source.values, 1) as rows:
        return with_uuids(pa.RecordBatch.from_pylist([], schema=rows.schema), source.uuids).schema


def _order_column(request: ReadRequest) -> str | None:
    return request.order_by or request.key


def _resume_kind(request: ReadRequest, *, limited: bool) -> tuple[ResumeKind, str]:
    order = _order_column(request)
    if not request.resumable:
        return "none", "the job asks to replay partial partitions from their start"
    if order is None:
        return "none", "there is neither source.order_by nor a partitioning key to order by"
    if limited:
        return "none", "the query ends in LIMIT, OFFSET or a sample: which rows that takes may differ"
    named = "source.order_by" if request.order_by else "the partitioning key"
    return "cursor", f"rows are read in the order of '{order}', {named}"


def _shares(partitions: int, scans: int) -> list[tuple[int, ...]]:
    """Deal the partitions out to at most *scans* scans."""
    count = min(partitions, scans)
    return [tuple(range(number, partitions, count)) for number in range(count)]


def _check_unchanged(source: _Source, scan: Scan) -> None:
    planned, found = scan.detail["columns"], source.named_types
    if planned != found:
        changed = [name for name in {**planned, **found} if planned.get(name) != found.get(name)]
        raise SourceChanged(
            f"the source's columns are not those the run was planned with; changed: {', '.join(changed)}",
            hint="start a new run with --fresh",
        )


@contextmanager
def _of_partitions(
    connection: duckdb.DuckDBPyConnection, source: _Source, request: ReadRequest, scan: Scan
) -> Iterator[list[str]]:
    """Yield the predicate that keeps the rows of the scan's partitions, if it does not read all."""
    if len(scan.partitions) == request.partitions:
        yield []
        return
    assert request.key is not None  # there are several partitions
    key = quoted(request.key)
    (argument,) = _relation(connection, f"SELECT {key} FROM ({source.readable})", source.values).types

    def partition(keys: pa.ChunkedArray) -> pa.Array:
        return pa.array(hash_partitions(keys.combine_chunks(), request.partitions))

    with defined(connection, partition, str(argument)) as function:
        wanted = ", ".join(str(partition) for partition in scan.partitions)
        yield [f"{function}({key}) IN ({wanted})"]


def _after(connection: duckdb.DuckDBPyConnection, source: _Source, order: str, after: Cursor) -> str:
    """Return the predicate for the key groups behind the cursor; NULL is the first of them.

    The key travels as Arrow and becomes a constant: exact for every type, and usable by zone maps.
    """
    if after["key"] is None:
        return f"{quoted(order)} IS NOT NULL"
    key = decode_key(after["key"], _schema(connection, source).field(order).type)
    connection.register(_LAST, pa.table({"key": key.storage if isinstance(key, pa.ExtensionArray) else key}))
    connection.execute(f"SET VARIABLE {_LAST} = (SELECT key FROM {_LAST})")
    connection.unregister(_LAST)
    return f"{_by_bytes(source, order)} > getvariable('{_LAST}')"


def _by_bytes(source: _Source, order: str) -> str:
    """Return the order column as an expression; text is compared by its bytes whatever its collation.

    A collation calls different texts equal, and rows behind the last key would be taken for read.
    """
    is_text = source.types[order].id in ("varchar", "enum")
    return f'{quoted(order)} COLLATE "binary"' if is_text else quoted(order)


def _scan_sql(source: _Source, conditions: Sequence[str], order: str | None) -> str:
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    if order is None:
        return f"SELECT * FROM ({source.readable}){where}"
    numbered = f"SELECT *, row_number() OVER () AS {_ROW} FROM ({source.readable}){where}"
    by_key = f"{_by_bytes(source, order)} ASC NULLS FIRST, {_ROW}"
    return f"SELECT * EXCLUDE ({_ROW}) FROM ({numbered}) ORDER BY {by_key}"


DUCKDB = ConnectorType(
    name="duckdb",
    fields=frozenset({"query", "table"}),
    parse_config=lambda settings: parse_model(DuckDBSource, dict(settings), what="connector"),
    build=DuckDBConnector,
)
