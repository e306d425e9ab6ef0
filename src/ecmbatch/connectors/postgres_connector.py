"""Reading tables and queries from PostgreSQL.

What people ask for is wrapped twice: ``SELECT what travels FROM (SELECT what is read FROM (query)) WHERE … ORDER
BY …``. PostgreSQL unfolds that, so that predicates and order reach the table's indexes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
import pyarrow as pa

from ecmbatch.connectors.columns import RESERVED_PREFIX, check_column, check_names, check_request
from ecmbatch.connectors.connector import (
    Connector,
    Cursor,
    KeySample,
    ReadPlan,
    ReadRequest,
    Scan,
    ScannedBatch,
    WindowBound,
)
from ecmbatch.connectors.key_groups import at_most, by_key_groups
from ecmbatch.connectors.key_sample import MOST_ROWS, Sampler
from ecmbatch.connectors.postgres import PostgresSource
from ecmbatch.connectors.postgres_clock import clock, window_bound
from ecmbatch.connectors.postgres_columns import Column, described, finished, quoted, schema_of
from ecmbatch.connectors.postgres_explain import QueryFacts, facts_of
from ecmbatch.connectors.postgres_parameters import bound_query
from ecmbatch.connectors.postgres_partitions import Key, behind, of_partitions
from ecmbatch.connectors.postgres_session import PostgresDatabase, Rows, bind_settings
from ecmbatch.connectors.query_scans import QueryNature, check_unchanged, order_column, order_of, plan_scans
from ecmbatch.errors import SourceChanged, SourceError
from ecmbatch.protocol.document import did_you_mean
from ecmbatch.protocol.key_values import encode_key
from ecmbatch.protocol.partitioning.partitions import HashPartitions, keep

_SCANS_OF_ROWS = 16
_ROW = "_ecm_row"

_TABLE = """
SELECT c.oid::int8, c.relkind::text, c.relkind = 'p' OR NOT c.relhassubclass
FROM pg_class AS c WHERE c.oid = to_regclass(%s)
"""

_ROWS = """
SELECT sum(greatest(leaf.reltuples, 0))::int8, bool_or(leaf.reltuples < 0)
FROM pg_class AS leaf WHERE leaf.oid = %s OR leaf.oid IN (SELECT relid FROM pg_partition_tree(%s) WHERE isleaf)
"""

_NAMES = """
SELECT DISTINCT name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
    unnest(ARRAY[c.relname, n.nspname || '.' || c.relname]) AS name
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
LIMIT 10000
"""

_KEY = """
SELECT a.attnotnull AND (c.relkind = 'p' OR NOT c.relhassubclass) AND NOT EXISTS (
    -- NOT NULL that is NOT VALID lets NULLs be that were there before.
    SELECT FROM pg_constraint AS n WHERE n.conrelid = c.oid AND n.contype = 'n' AND NOT n.convalidated
    AND a.attnum = ANY (n.conkey)
), EXISTS (
    SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
    AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
)
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid WHERE a.attrelid = %s AND a.attnum = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A request as PostgreSQL takes it: the query, the settings it reads, how it is shown, and its columns.

    ``table`` is the table that a request names, ``places`` are its columns that tell rows apart, which ``placed``
    has as well.
    """

    sql: str
    shown: str
    settings: Mapping[str, str]
    columns: tuple[Column, ...]
    table: int | None = None
    places: tuple[str, ...] = ()
    placed: str = ""

    @property
    def named_types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.columns}

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


class PostgresConnector(Connector):
    """Reads a PostgreSQL database, in transactions that cannot write."""

    def __init__(self, settings: PostgresSource) -> None:
        self.max_scans = settings.max_connections
        self._scans = settings.scans
        self._database = PostgresDatabase(settings.url, max_connections=settings.max_connections)

    def clock(self) -> datetime:
        with self._database.session() as connection:
            return clock(connection)

    def window_bound(self) -> WindowBound:
        with self._database.session() as connection:
            return window_bound(connection)

    def snapshot(self) -> AbstractContextManager[str | None]:
        return self._database.held_snapshot()

    def plan(self, request: ReadRequest) -> ReadPlan:
        with self._database.session(request.snapshot) as connection:
            source = _source(connection, request)
            schema = schema_of(source.columns)
            check_request(schema, request)
            bind_settings(connection, source.settings)
            facts = facts_of(connection, source.sql)
            detail = _detail(connection, source, request, facts)
        nature = QueryNature(limited=facts.limited, changing=facts.changing)
        scans = plan_scans(request, nature, self._most_scans(request, facts), detail)
        return ReadPlan(schema=schema, scans=scans, tables=facts.tables)

    def sample_keys(self, request: ReadRequest, key: str, size: int) -> KeySample:
        with self._database.session(request.snapshot) as connection:
            source = _source(connection, request)
            check_column(schema_of(source.columns), "partitioning.key", key)
            sampled, rows = _sampled(connection, source, size)
        column = source.column(key)
        sampler = self._sampler(sampled, column, source, request, size)
        if rows is not None and sampler.rows < size:
            # The estimate that the share was made of is out of date.
            rows, sampler = None, self._sampler(source.sql, column, source, request, size)
        if rows is None and sampler.rows < MOST_ROWS:
            rows = sampler.rows
        return KeySample(keys=sampler.keys(column.arrow), rows=rows)

    def statement(self, request: ReadRequest, scan: Scan) -> str:
        with self._database.session(request.snapshot) as connection:
            source = _source(connection, request)
        return _scan_sql(source, source.shown, request, scan, None)

    def ping(self) -> None:
        with self._database.session() as connection:
            connection.execute("SELECT 1")

    def cancel(self) -> None:
        self._database.cancel()

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        with self._database.session(request.snapshot) as connection:
            source = _source(connection, request)
        check_unchanged(scan, source.named_types)
        schema_of(source.columns)
        order = order_of(request, scan)
        sql = _scan_sql(source, source.sql, request, scan, after)
        with self._database.rows(sql, source.settings, request.snapshot) as rows:
            finishing: Iterator[pa.RecordBatch] = (finished(batch, source.columns) for batch in rows)
            if order is not None and scan.detail["not_null"]:
                finishing = _without_nulls(finishing, order)
            batches = at_most(_of_scan(finishing, request, scan), request.batch_rows)
            if order is None:
                yield (ScannedBatch(batch, None) for batch in batches)
            else:
                yield by_key_groups(batches, order, lambda key: {"key": encode_key(key)})

    def close(self) -> None:
        self._database.close()

    def _most_scans(self, request: ReadRequest, facts: QueryFacts) -> int:
        if self._scans is not None:
            return self._scans
        by_hash = isinstance(request.partitioning, HashPartitions | None)
        return _SCANS_OF_ROWS if facts.selects_rows and not by_hash else 1

    def _sampler(self, sql: str, column: Column, source: _Source, request: ReadRequest, size: int) -> Sampler:
        """Read the first keys of *sql*, a million at most."""
        only = _wrapped(sql, [column], [], limit=MOST_ROWS)
        sampler = Sampler(size)
        with self._database.rows(only, source.settings, request.snapshot) as rows:
            for batch in rows:
                sampler.take(finished(batch, [column]).column(0))
        return sampler


def _source(connection: Rows, request: ReadRequest) -> _Source:
    """Return *request* as PostgreSQL takes it, or raise what PostgreSQL and we have against it."""
    try:
        if request.query is None:
            assert request.table is not None  # a request names one of those that POSTGRES.fields lists
            return _of_table(connection, request.table)
        return _of_query(connection, request)
    except psycopg.errors.UndefinedTable as error:
        raise _unknown_table(connection, error) from error


def _of_table(connection: Rows, name: str) -> _Source:
    """Return a table as a source, without the columns that a store of ours has added to it."""
    table = ".".join(quoted(part) for part in name.split("."))
    all_columns = described(connection, f"SELECT * FROM {table}").columns
    columns = tuple(each for each in all_columns if not each.name.lower().startswith(RESERVED_PREFIX))
    check_names([column.name for column in columns])
    row = connection.execute(_TABLE, [table]).fetchone()
    oid, kind, is_whole = row or (None, "", False)
    has_places = kind in ("r", "m", "p")
    # Rows of one key come in the order in which they lie in the table.
    places = () if not has_places else ("ctid",) if kind != "p" and is_whole else ("tableoid", "ctid")
    selected = ", ".join(quoted(column.name) for column in columns)
    named = "".join(f", {place} AS {_ROW}_{place}" for place in places)
    sql = f"SELECT {selected} FROM {table}"
    return _Source(
        sql=sql,
        shown=sql,
        settings={},
        columns=columns,
        table=int(str(oid)) if has_places else None,
        places=places,
        placed=f"SELECT {selected}{named} FROM {table}",
    )


def _of_query(connection: Rows, request: ReadRequest) -> _Source:
    assert request.query is not None
    bound = bound_query(connection, request.query, request.parameters)
    # Parsed by itself it is one whole statement, whatever it is wrapped in later.
    columns = described(connection, bound.sql).columns
    if not columns:
        raise SourceError("the query must be one SELECT; sources are only read")
    check_names([column.name for column in columns])
    try:
        described(connection, f"SELECT * FROM (\n{bound.sql}\n) AS source")
    except psycopg.errors.Error as error:
        if error.sqlstate is None:
            raise
        raise SourceError("the query must be one SELECT; sources are only read") from error
    return _Source(sql=bound.sql, shown=bound.shown, settings=bound.settings, columns=columns)


def _unknown_table(connection: Rows, error: psycopg.Error) -> SourceError:
    message = error.diag.message_primary or ""
    missing = message.partition('"')[2].partition('"')[0]
    connection.execute("ROLLBACK")
    names = [str(name) for (name,) in connection.execute(_NAMES).fetchall()]
    return SourceError(f"PostgreSQL refused the query: {message}", hint=did_you_mean(missing, names))


def _detail(connection: Rows, source: _Source, request: ReadRequest, facts: QueryFacts) -> dict[str, object]:
    """Return what every attempt must know the same of the order of rows."""
    order = order_column(request)
    not_null, unique = False, False
    if order is not None:
        column = source.column(order)
        row = connection.execute(_KEY, [column.table, column.number]).fetchone()
        # Beyond a single table a join may add NULLs, and rows.
        if row is not None and facts.selects_rows:
            not_null, unique = bool(row[0]), bool(row[0] and row[1])
    found = connection.execute("SELECT EXISTS (SELECT FROM pg_collation WHERE NOT collisdeterministic)")
    return {
        "order_by": order,
        "columns": source.named_types,
        "bytewise": found.fetchone() != (False,),
        "not_null": not_null,
        "unique": unique,
    }


def _of_scan(batches: Iterator[pa.RecordBatch], request: ReadRequest, scan: Scan) -> Iterator[pa.RecordBatch]:
    """Leave out the rows of other scans: only here can partitions by hash be told apart."""
    partitioning = request.partitioning
    if not isinstance(partitioning, HashPartitions) or len(scan.partitions) == partitioning.count:
        return batches
    return (keep(batch, partitioning, scan.partitions) for batch in batches)


def _without_nulls(batches: Iterator[pa.RecordBatch], order: str) -> Iterator[pa.RecordBatch]:
    """Hand on *batches* of a scan whose order has no place for NULLs."""
    for batch in batches:
        if batch.column(order).null_count:
            raise SourceChanged(
                f"column '{order}' has NULLs, which it could not have when the run was planned",
                hint="start a new run with --fresh",
            )
        yield batch


def _scan_sql(source: _Source, query: str, request: ReadRequest, scan: Scan, after: Cursor | None) -> str:
    """Return the rows of *scan* behind *after*, in its order."""
    bytewise = bool(scan.detail["bytewise"])
    key = None if request.key is None else Key(column=source.column(request.key), bytewise=bytewise)
    conditions = of_partitions(key, request, scan)
    order = order_of(request, scan)
    if order is None:
        return _wrapped(query, source.columns, conditions)
    by = Key(column=source.column(order), bytewise=bytewise)
    if after is not None:
        conditions.append(behind(by, after))
    # The order of an index on a column with NULLs is another, so NULLs are spoken of only where there are any.
    nulls = "" if scan.detail["not_null"] or after is not None else " NULLS FIRST"
    places = () if scan.detail["unique"] else source.places
    ordered = [f"{by.expression}{nulls}", *(f"{_ROW}_{place}" for place in places)]
    if not places and not scan.detail["unique"]:
        ordered += _others(source.columns, order)
    return _wrapped(
        source.placed if places else query,
        source.columns,
        conditions,
        places=places,
        order=", ".join(ordered),
    )


def _others(columns: Sequence[Column], order: str) -> list[str]:
    """Return what puts rows of one key in the same order every time, where they have no places: all their values.

    The server looks at them only where keys are equal, and at the quickly compared ones first.
    """
    keys = [Key(column=column, bytewise=True) for column in columns if column.name != order]
    return [key.expression for key in sorted(keys, key=lambda key: key.is_text)]


def _wrapped(
    query: str,
    columns: Sequence[Column],
    conditions: Sequence[str],
    *,
    places: Sequence[str] = (),
    order: str | None = None,
    limit: int | None = None,
) -> str:
    """Return *query* as it is sent; it has *places* beside its columns."""
    read = ", ".join([*(column.read for column in columns), *(f"{_ROW}_{place}" for place in places)])
    travelling = ", ".join(column.travelling for column in columns)
    sql = f"SELECT {travelling} FROM (SELECT {read} FROM (\n{query}\n) AS source) AS source"
    if conditions:
        sql += f" WHERE {' AND '.join(conditions)}"
    if order is not None:
        sql += f" ORDER BY {order}"
    return sql if limit is None else f"{sql} LIMIT {limit}"


def _sampled(connection: Rows, source: _Source, size: int) -> tuple[str, int | None]:
    """Return what to take a sample from, and about how many rows there are; ``None`` where nobody knows."""
    if source.table is None:
        return source.sql, None
    row = connection.execute(_ROWS, [source.table, source.table]).fetchone()
    rows, is_unknown = row or (None, True)
    if is_unknown or not isinstance(rows, int) or rows <= 10 * size:
        return source.sql, None
    share = 100 * 4 * size / rows
    return f"{source.sql} TABLESAMPLE SYSTEM ({share:.6f}) REPEATABLE (1)", rows
