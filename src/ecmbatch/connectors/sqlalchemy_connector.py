"""Reading tables and queries of any database for which SQLAlchemy has a dialect: row by row, the slow way.

The driver makes a Python object of every value and SQLAlchemy a row of them, under Python's lock: several scans
would take turns. So one scan reads everything, ordered by the key and split locally; ranges that are to be read
one at a time each read the query anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import sqlalchemy as sa
from pydantic import AfterValidator, Field

from ecmbatch.connectors.columns import RESERVED_PREFIX, check_column, check_request
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
from ecmbatch.connectors.key_sample import MOST_ROWS, Sampler
from ecmbatch.connectors.query_scans import (
    VOLATILE,
    QueryNature,
    check_unchanged,
    of_scan,
    order_column,
    plan_scans,
)
from ecmbatch.connectors.query_words import (
    check_names_of_subquery,
    may_change,
    query_parts,
    takes_some_rows,
)
from ecmbatch.connectors.row_columns import DeclaredColumns, Misfit, batches_of, remembered_kind
from ecmbatch.connectors.sqlalchemy_columns import SAMPLE_ROWS, kind_of_values, misfit_hint, reflected_kind
from ecmbatch.connectors.sqlalchemy_database import Bound, Database, Statement, read_url, shown
from ecmbatch.connectors.sqlalchemy_order import Order, knows_windows_and_limit, order_of
from ecmbatch.connectors.window_lag import LAG_WITHOUT_BOUND
from ecmbatch.errors import SourceError
from ecmbatch.protocol.document import Section, parse_model
from ecmbatch.protocol.key_values import decode_key, encode_key
from ecmbatch.protocol.type_names import parse_type_name, type_name

_ORDER = "_ecm_order"
_ROW = "_ecm_row"


def _is_url(text: str) -> str:
    read_url(text)
    return text


class SQLAlchemySettings(Section):
    """Settings of a ``sqlalchemy`` connector: SQLAlchemy's URL, and types of columns by their names."""

    url: Annotated[str, AfterValidator(_is_url), Field(repr=False)]
    max_connections: Annotated[int, Field(ge=1, le=256)] | None = None
    columns: DeclaredColumns = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A request as the database takes it: what stands behind FROM, and the columns of that."""

    relation: Statement
    schema: pa.Schema
    quoted: Mapping[str, str]

    @property
    def named_types(self) -> dict[str, str]:
        return {field.name: type_name(field.type) for field in self.schema}

    def columns(self) -> str:
        return ", ".join(self.quoted[name] for name in self.schema.names)


class SQLAlchemyConnector(Connector):
    """Reads a database through its dialect; every scan has a connection, in a transaction that only reads."""

    def __init__(self, settings: SQLAlchemySettings, folder: Path) -> None:
        self.max_scans = settings.max_connections
        self._declared = {name: parse_type_name(kind) for name, kind in settings.columns.items()}
        self._database = Database(read_url(settings.url), folder)

    def plan(self, request: ReadRequest) -> ReadPlan:
        with self._database.connection() as connection:
            source = self._source(connection, request)
        check_request(source.schema, request)
        limited = request.query is not None and takes_some_rows(request.query)
        volatile = request.query is not None and may_change(request.query)
        nature = QueryNature(
            limited=limited,
            changing=VOLATILE if volatile else None,
            unordered=self._unordered(request, source),
        )
        detail = {"order_by": order_column(request), "columns": source.named_types}
        scans = plan_scans(request, nature, 1, detail)
        return ReadPlan(schema=source.schema, scans=scans)

    def sample_keys(self, request: ReadRequest, key: str, size: int) -> KeySample:
        sampler = Sampler(size)
        with self._database.connection() as connection:
            source = self._source(connection, request)
            check_column(source.schema, "partitioning.key", key)
            field = source.schema.field(key)
            keys = ["SELECT ", source.quoted[key], " FROM ", *source.relation]
            for batch in self._batches(connection, keys, pa.schema([field]), request.batch_rows):
                sampler.take(batch.column(0))
                if sampler.rows >= MOST_ROWS:
                    return KeySample(keys=sampler.keys(field.type), rows=None)
        return KeySample(keys=sampler.keys(field.type), rows=sampler.rows)

    def statement(self, request: ReadRequest, scan: Scan) -> str:
        with self._database.connection() as connection:
            source = self._source(connection, request, scan)
        return shown(self._select(source, self._order(request, source, scan), None))

    def clock(self) -> datetime:
        return self._database.clock()

    def window_bound(self) -> WindowBound:
        return WindowBound(at=self.clock(), lag=LAG_WITHOUT_BOUND)

    def ping(self) -> None:
        with self._database.connection():
            pass

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        with self._database.connection() as connection:
            source = self._source(connection, request, scan)
            check_unchanged(scan, source.named_types)
            order = self._order(request, source, scan)
            schema = _with_order(source.schema, order)
            statement = self._select(source, order, after)
            batches = at_most(
                (
                    of_scan(batch, request, scan)
                    for batch in self._batches(connection, statement, schema, request.batch_rows)
                ),
                request.batch_rows,
            )
            if order is None:
                yield (ScannedBatch(batch, None) for batch in batches)
            else:
                by = order.key if order.by_itself else _ORDER
                groups = by_key_groups(batches, by, lambda key: {"key": encode_key(key)})
                names = source.schema.names
                yield (ScannedBatch(each.batch.select(names), each.cursor) for each in groups)

    def close(self) -> None:
        self._database.close()

    def _source(self, connection: sa.Connection, request: ReadRequest, scan: Scan | None = None) -> _Source:
        """Return *request* as the database takes it; columns have the types they had when *scan* was planned."""
        database = self._database
        relation = self._relation(request)
        with database.preparing():
            found = database.execute(connection, ["SELECT * FROM ", *relation, " WHERE 1 = 0"])
            names = [str(name) for name in found.keys()]  # noqa: SIM118
            found.close()
        if request.table is not None:
            names = [name for name in names if not name.lower().startswith(RESERVED_PREFIX)]
        check_names_of_subquery(names)
        quoted = {name: database.quoted(name) for name in names}
        kinds = dict(self._declared)
        if scan is not None:
            kinds |= {name: remembered_kind(kind) for name, kind in scan.detail["columns"].items()}
        elif request.table is not None:
            kinds = self._reflected(connection, request.table) | kinds
        unknown = [name for name in names if name not in kinds]
        if unknown and scan is None:
            kinds |= self._looked_at(connection, relation, {name: quoted[name] for name in unknown})
        schema = pa.schema([(name, kinds.get(name, pa.null())) for name in names])
        return _Source(relation=relation, schema=schema, quoted=quoted)

    def _relation(self, request: ReadRequest) -> Statement:
        if request.query is None:
            assert request.table is not None  # a request names one of those that SQLALCHEMY.fields lists
            return [".".join(self._database.quoted(part) for part in request.table.split("."))]
        parts = query_parts(request.query)
        pieces: list[str | Bound] = ["(\n", parts.texts[0]]
        for name, text in zip(parts.names, parts.texts[1:], strict=True):
            pieces += [Bound(request.parameters[name]), text]
        return [*pieces, "\n) ecm_source"]

    def _reflected(self, connection: sa.Connection, table: str) -> dict[str, pa.DataType]:
        schema, _, name = table.rpartition(".")
        with self._database.preparing():
            columns = sa.inspect(connection).get_columns(name, schema or None)
        kinds = {column["name"]: reflected_kind(column["type"], self._database.name) for column in columns}
        return {name: kind for name, kind in kinds.items() if kind is not None}

    def _looked_at(
        self, connection: sa.Connection, relation: Statement, names: Mapping[str, str]
    ) -> dict[str, pa.DataType]:
        """Return the types of columns by their first values."""
        database = self._database
        limit = f" LIMIT {SAMPLE_ROWS}" if knows_windows_and_limit(database.name) else ""
        statement = ["SELECT ", ", ".join(names.values()), " FROM ", *relation, limit]
        with database.reading():
            found = database.execute(connection, statement, SAMPLE_ROWS)
            rows = found.fetchmany(SAMPLE_ROWS)
            found.close()
        columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(names)
        return {name: kind_of_values(name, values) for name, values in zip(names, columns, strict=True)}

    def _select(self, source: _Source, order: Order | None, after: Cursor | None) -> Statement:
        columns = source.columns()
        if order is None:
            return ["SELECT ", columns, " FROM ", *source.relation]
        database = self._database
        by = order.expression if order.by_itself else database.quoted(_ORDER)
        extra = [] if order.by_itself else [f"{order.expression} AS {by}"]
        row = database.quoted(_ROW)
        numbered = knows_windows_and_limit(database.name)
        inner = [columns, *extra, *([f"row_number() OVER () AS {row}"] if numbered else [])]
        outer = [columns, *([] if order.by_itself else [by])]
        order_by = [f"CASE WHEN {by} IS NULL THEN 0 ELSE 1 END", by, *([row] if numbered else [])]
        return [
            f"SELECT {', '.join(outer)} FROM (SELECT {', '.join(inner)} FROM ",
            *source.relation,
            *_behind(order, source, after),
            f") ecm_rows ORDER BY {', '.join(order_by)}",
        ]

    def _order(self, request: ReadRequest, source: _Source, scan: Scan | None) -> Order | None:
        name = order_column(request)
        if name is None or (scan is not None and scan.resume == "none"):
            return None
        kind, declared = source.schema.field(name).type, name in self._declared
        return order_of(self._database.name, name, source.quoted[name], kind, declared=declared)

    def _unordered(self, request: ReadRequest, source: _Source) -> str | None:
        name = order_column(request)
        if name is None or self._order(request, source, None) is not None:
            return None
        kind = type_name(source.schema.field(name).type)
        return (
            f"'{name}' is {kind}, which {self._database.name} may order by rules of its own; set "
            "source.order_by to a column of whole numbers to resume in the middle"
        )

    def _batches(
        self, connection: sa.Connection, statement: Statement, schema: pa.Schema, rows: int
    ) -> Iterator[pa.RecordBatch]:
        database = self._database
        with database.reading():
            partitions = database.execute(connection, statement, rows).partitions(rows)
        while True:
            with database.reading():
                some = next(partitions, None)
            if not some:
                return
            try:
                yield from batches_of(some, schema)
            except Misfit as misfit:
                raise SourceError(str(misfit), hint=misfit_hint(misfit)) from None


def _with_order(schema: pa.Schema, order: Order | None) -> pa.Schema:
    return schema if order is None or order.by_itself else schema.append(pa.field(_ORDER, pa.string()))


def _behind(order: Order, source: _Source, after: Cursor | None) -> Statement:
    """Return the WHERE clause for what is behind the cursor *after*; NULL is the first of all."""
    if after is None:
        return []
    if after["key"] is None:
        return [f" WHERE {order.expression} IS NOT NULL"]
    kind = source.schema.field(order.key).type if order.by_itself else pa.string()
    return [f" WHERE {order.expression} > ", Bound(decode_key(after["key"], kind)[0].as_py())]


SQLALCHEMY = ConnectorType(
    name="sqlalchemy",
    fields=frozenset({"query", "table"}),
    parse_config=lambda settings: parse_model(SQLAlchemySettings, dict(settings), what="connector"),
    build=SQLAlchemyConnector,
)
