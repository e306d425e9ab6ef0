"""Reading tables and queries from a DuckDB file.

A job partitioned by **hash** is read by one scan, ordered by the key and split locally. Measured once on
two busy cores with DuckDB 2.0: 10 M rows of about 200 bytes, 16 partitions by an integer and by a text key,
staged to Parquet by two workers. 1.0 is the sorted read of one partition:

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

**Ranges and lists** of a table's rows have a scan each, up to 16; of any other query, one scan. Measured
once on the same busy cores: seconds of processors of ``ecmbatch run`` up to the verdict, two workers, 5 M
rows that are clustered by the key or shuffled:

===============================================  ===============  ===============
partitions                                       clustered        shuffled
===============================================  ===============  ===============
scans                                            1, 16 and 64     1, 16 and 64
16 ranges of an integer                          12.4, 8.2        10.5, 13.2
16 ranges of a date                              12.2, 9.1        12.7, 16.4
64 ranges of an integer                          11.8, 8.5, 8.0   13.7, 17.2, 29.1
8 lists of one value (1 and 8 scans)             10.4, 7.1        11.0, 9.5
the same with ``order_by``                       10.7, 9.2        11.0, 12.1
16 ranges of a join with an aggregate            19.7, 12.1       16.3, 16.9
16 ranges of a sum in an aggregate               12.5, **154**
===============================================  ===============  ===============

A predicate on a column of a table skips what is clustered, and what it leaves is sorted in less memory. On
shuffled rows each scan costs a pass over the key, which pays on two workers up to about 16. What a query
computes it computes for every scan, unless DuckDB can push the predicate below it; and every scan would ask
anew for what may differ from time to time. So a query that does more than select and filter rows of one
table has one scan, and ``scans`` is there for those who know better.

Rows of one key keep the source's own order, which costs about a tenth: DuckDB's sort is not stable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import duckdb
import pyarrow as pa
from pydantic import Field

from ecmbatch.connectors.columns import RESERVED_PREFIX, check_column, check_names, check_request
from ecmbatch.connectors.connector import (
    Connector,
    ConnectorType,
    Cursor,
    KeySample,
    ReadPlan,
    ReadRequest,
    Scan,
    ScannedBatch,
)
from ecmbatch.connectors.duckdb_columns import quoted, readable_columns, uuid_columns, with_uuids
from ecmbatch.connectors.duckdb_database import DuckDBDatabase, DuckDBRows, refusals
from ecmbatch.connectors.duckdb_partitions import Key, of_partitions, shown_conditions
from ecmbatch.connectors.duckdb_syntax import Select, check_is_select
from ecmbatch.connectors.key_groups import at_most, by_key_groups
from ecmbatch.connectors.query_scans import (
    VOLATILE,
    QueryNature,
    check_unchanged,
    order_column,
    order_of,
    plan_scans,
)
from ecmbatch.protocol.document import Matching, Section, parse_model
from ecmbatch.protocol.key_values import decode_key, encode_key, plain_keys
from ecmbatch.protocol.partitioning.partitions import HashPartitions
from ecmbatch.protocol.query import bind
from ecmbatch.protocol.scalars import Scalar

_LAST = "_ecm_last"
_ROW = "_ecm_row"
_SPILL = Path(".ecmbatch", "tmp", "duckdb")
_SCANS_OF_ROWS = 16


class DuckDBSource(Section):
    """Settings of a ``duckdb`` connector.

    ``path`` is relative to the project's folder. ``scans`` is how many scans serve a partitioned job, at most:
    each runs the query, several run at once, at most ``max_connections``. ``memory_limit`` is for
    DuckDB in this process; what does not fit spills to the project's ``.ecmbatch/tmp``.
    """

    path: Annotated[str, Field(min_length=1)]
    scans: Annotated[int, Field(ge=1, le=256)] | None = None
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
            select = Select(connection, source.sql)
            limited = request.query is not None and select.is_limited
            volatile = request.query is not None and select.is_volatile
            schema = _schema(connection, source)
            tables = select.tables
            most_scans = self._scans or _default_scans(select, request)
        check_request(schema, request)
        nature = QueryNature(limited=limited, changing=VOLATILE if volatile else None)
        detail = {"order_by": order_column(request), "columns": source.named_types}
        scans = plan_scans(request, nature, most_scans, detail)
        return ReadPlan(schema=schema, scans=scans, tables=tables)

    def sample_keys(self, request: ReadRequest, key: str, size: int) -> KeySample:
        with self._database.connection() as connection, refusals():
            source = _source(connection, request)
            check_column(_schema(connection, source), "partitioning.key", key)
            column = f"SELECT {quoted(key)} FROM ({source.readable})"
            ((rows,),) = connection.execute(f"SELECT count(*) FROM ({column})", source.values).fetchall()
            sampled = f"SELECT * FROM ({column}) USING SAMPLE reservoir({size} ROWS) REPEATABLE (1)"
            table = _relation(connection, sampled, source.values).to_arrow_table()
        return KeySample(keys=plain_keys(table.column(0).combine_chunks()), rows=rows)

    def statement(self, request: ReadRequest, scan: Scan) -> str:
        with self._database.connection() as connection, refusals():
            source = _source(connection, request)
            key = _key(source, _schema(connection, source), request)
            return _scan_sql(source, shown_conditions(key, request, scan), order_of(request, scan))

    def ping(self) -> None:
        self._database.ping()

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        order = order_of(request, scan)
        with self._database.connection() as connection, ExitStack() as opened:
            with refusals():
                source = _source(connection, request)
                check_unchanged(scan, source.named_types)
                schema = _schema(connection, source)
                conditions = opened.enter_context(
                    of_partitions(connection, _key(source, schema, request), request, scan)
                )
                if order is not None and after is not None:
                    conditions.append(_after(connection, source, schema.field(order).type, order, after))
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
        sql, values = _whole_table(connection, request.table), []
    else:
        bound = bind(request.query, "numbered")
        sql, values = bound.sql, [request.parameters[name] for name in bound.names]
        check_is_select(connection, sql)
    # Wrapped, DuckDB refuses whatever is not a plain SELECT; and it renames duplicates, so ask for them first.
    wrapped = _relation(connection, f"SELECT * FROM (\n{sql}\n) AS source", values)
    check_names(_relation(connection, sql, values).columns, fold_case=True)
    return _Source(sql=sql, values=values, types=dict(zip(wrapped.columns, wrapped.types, strict=True)))


def _relation(
    connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Scalar]
) -> duckdb.DuckDBPyRelation:
    return connection.sql(sql, params=list(values) or None)


def _whole_table(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """Return the query for a table, without the columns that a store of ours has added to it."""
    sql = f"SELECT * FROM {_table(name)}"
    ours = [
        column
        for column in _relation(connection, sql, []).columns
        if column.lower().startswith(RESERVED_PREFIX)
    ]
    return f"SELECT * EXCLUDE ({', '.join(map(quoted, ours))}) FROM {_table(name)}" if ours else sql


def _table(name: str) -> str:
    return ".".join(quoted(part) for part in name.split("."))


def _schema(connection: duckdb.DuckDBPyConnection, source: _Source) -> pa.Schema:
    with DuckDBRows(connection, f"{source.readable} LIMIT 0", source.values, 1) as rows:
        return with_uuids(pa.RecordBatch.from_pylist([], schema=rows.schema), source.uuids).schema


def _default_scans(select: Select, request: ReadRequest) -> int:
    """Ranges and lists of a table's rows are cheaper to find and sort one by one; the table above says why."""
    if isinstance(request.partitioning, HashPartitions | None):
        return 1
    return _SCANS_OF_ROWS if select.selects_rows else 1


def _key(source: _Source, schema: pa.Schema, request: ReadRequest) -> Key | None:
    if request.key is None:
        return None
    return Key(
        name=request.key,
        expression=_by_bytes(source, request.key),
        kind=schema.field(request.key).type,
        readable=source.readable,
        values=source.values,
    )


def _after(
    connection: duckdb.DuckDBPyConnection, source: _Source, kind: pa.DataType, order: str, after: Cursor
) -> str:
    """Return the predicate for the key groups behind the cursor; NULL is the first of them.

    The key travels as Arrow and becomes a constant: exact for every type, and usable by zone maps.
    """
    if after["key"] is None:
        return f"{quoted(order)} IS NOT NULL"
    key = decode_key(after["key"], kind)
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
