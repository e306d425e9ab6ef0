"""Reading tables and queries from a SQLite file, with the driver of Python's standard library.

One scan reads everything, ordered by the key and split locally. Several would read several states of a file that
is written meanwhile, and lose or repeat rows whose key changes; nor would they be faster, for the driver makes a
Python object of every value under Python's lock. Only ranges that are to be read one at a time have a scan each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Field

from ecmbatch.connectors.columns import check_column, check_request
from ecmbatch.connectors.connector import (
    Connector,
    ConnectorType,
    Cursor,
    KeySample,
    ReadPlan,
    ReadRequest,
    Scan,
    ScannedBatch,
    WindowBound,
)
from ecmbatch.connectors.key_groups import at_most, by_key_groups
from ecmbatch.connectors.query_scans import (
    VOLATILE,
    QueryNature,
    check_unchanged,
    of_scan,
    order_column,
    order_of,
    plan_scans,
)
from ecmbatch.connectors.row_columns import DeclaredColumns, Misfit, batches_of, remembered_kind
from ecmbatch.connectors.sqlite_columns import misfit_hint, quoted
from ecmbatch.connectors.sqlite_database import Database, reading
from ecmbatch.connectors.sqlite_partitions import Place, SQLiteKey, literal
from ecmbatch.connectors.sqlite_source import SQLiteSource, describe
from ecmbatch.connectors.window_lag import LAG_WITHOUT_BOUND
from ecmbatch.errors import SourceError
from ecmbatch.protocol.document import Section, parse_model
from ecmbatch.protocol.key_values import encode_key, plain_keys
from ecmbatch.protocol.partitioning.partitions import RangePartitions
from ecmbatch.protocol.type_names import parse_type_name

_ROW = "_ecm_row"


class SQLiteSettings(Section):
    """Settings of a ``sqlite`` connector.

    ``path`` is relative to the project's folder. ``columns`` gives types to columns, by their names, whatever
    their tables declare.
    """

    path: Annotated[str, Field(min_length=1)]
    max_connections: Annotated[int, Field(ge=1, le=256)] | None = None
    columns: DeclaredColumns = Field(default_factory=dict)


class SQLiteConnector(Connector):
    """Reads a SQLite file. Every scan has a connection, and reads the file as it is when the scan begins."""

    def __init__(self, settings: SQLiteSettings, folder: Path) -> None:
        self.max_scans = settings.max_connections
        self._declared = {name: parse_type_name(kind) for name, kind in settings.columns.items()}
        self._database = Database(folder / Path(settings.path).expanduser())

    def plan(self, request: ReadRequest) -> ReadPlan:
        source = self._source(request)
        check_request(source.schema, request)
        order = order_column(request)
        is_unordered = order is not None and source.key(order) is None
        nature = QueryNature(
            limited=source.limited,
            changing=VOLATILE if source.volatile else None,
            unordered=f"SQLite does not order '{order}' as a column of its type is ordered"
            if is_unordered
            else None,
        )
        detail = {
            "order_by": order,
            "columns": source.named_types,
            "by_values": [column.name for column in source.columns if column.by_values],
        }
        scans = plan_scans(request, nature, 1, detail)
        return ReadPlan(schema=source.schema, scans=scans, tables=source.tables)

    def sample_keys(self, request: ReadRequest, key: str, size: int) -> KeySample:
        source = self._source(request)
        check_column(source.schema, "partitioning.key", key)
        field = source.schema.field(key)
        with self._database.connection() as connection, reading():
            count = f"SELECT count(*) FROM {source.relation}"
            ((rows,),) = connection.execute(count, source.values).fetchall()
            numbered = f"SELECT {quoted(key)}, row_number() OVER () AS {_ROW} FROM {source.relation}"
            every = max(rows // max(size, 1), 1)
            sampled = f"SELECT {quoted(key)} FROM ({numbered}) WHERE {_ROW} % {every} = 0"
            found = connection.execute(sampled, source.values).fetchall()
        batches = _fitting(found, pa.schema([field])) if found else []
        keys = pa.chunked_array([batch.column(0) for batch in batches], field.type).combine_chunks()
        return KeySample(keys=plain_keys(keys), rows=rows)

    def statement(self, request: ReadRequest, scan: Scan) -> str:
        source = self._source(request, scan)
        conditions = _conditions(source, request, scan, None, literal)
        return source.select(source.shown, conditions, _order_of(source, request, scan))

    def window_bound(self) -> WindowBound:
        return WindowBound(at=self.clock(), lag=LAG_WITHOUT_BOUND)

    def ping(self) -> None:
        self._database.ping()

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        source = self._source(request, scan)
        check_unchanged(scan, source.named_types)
        order = _order_of(source, request, scan)
        values: list[Any] = list(source.values)

        def place(value: Any) -> str:
            values.append(value)
            return "?"

        sql = source.select(source.relation, _conditions(source, request, scan, after, place), order)
        with self._database.connection() as connection:
            with reading():
                rows = connection.execute(sql, values)
            batches = (
                of_scan(batch, request, scan)
                for some in _fetched(rows, request.batch_rows)
                for batch in _fitting(some, source.schema)
            )
            if order is None:
                yield (ScannedBatch(batch, None) for batch in at_most(batches, request.batch_rows))
            else:
                yield by_key_groups(
                    at_most(batches, request.batch_rows), order.name, lambda key: {"key": encode_key(key)}
                )

    def _source(self, request: ReadRequest, scan: Scan | None = None) -> SQLiteSource:
        """Return *request* as SQLite takes it; types that values told when *scan* was planned hold on."""
        by_values: Mapping[str, pa.DataType] = {}
        if scan is not None:
            types = scan.detail["columns"]
            by_values = {name: remembered_kind(types[name]) for name in scan.detail["by_values"]}
        with self._database.describing() as (connection, reader):
            return describe(connection, reader, request, declared=self._declared, by_values=by_values)


def _order_of(source: SQLiteSource, request: ReadRequest, scan: Scan) -> SQLiteKey | None:
    return source.key(order_of(request, scan))


def _conditions(
    source: SQLiteSource, request: ReadRequest, scan: Scan, after: Cursor | None, place: Place
) -> list[str]:
    """Return the predicates of the scan's partitions, if SQLite can tell them, and of what is behind *after*."""
    conditions = []
    key, ranges = source.key(request.key), request.partitioning
    # Nothing but ranges is read by several scans; of one that reads all they are no conditions.
    if isinstance(ranges, RangePartitions) and key is not None and key.exact:
        conditions += key.of_ranges(ranges, scan.partitions, place)
    order = _order_of(source, request, scan)
    if order is not None and after is not None:
        conditions.append(order.after(after["key"], place))
    return conditions


def _fetched(rows: sqlite3.Cursor, count: int) -> Iterator[list[tuple[Any, ...]]]:
    while True:
        with reading():
            some = rows.fetchmany(count)
        if not some:
            return
        yield some


def _fitting(rows: list[tuple[Any, ...]], schema: pa.Schema) -> list[pa.RecordBatch]:
    try:
        return list(batches_of(rows, schema))
    except Misfit as misfit:
        raise SourceError(str(misfit), hint=misfit_hint(misfit)) from None


SQLITE = ConnectorType(
    name="sqlite",
    fields=frozenset({"query", "table"}),
    parse_config=lambda settings: parse_model(SQLiteSettings, dict(settings), what="connector"),
    build=SQLiteConnector,
)
