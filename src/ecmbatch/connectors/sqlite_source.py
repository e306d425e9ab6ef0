"""A request as SQLite takes it: what it selects from, which columns that has, and what its words do."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pyarrow as pa

from ecmbatch.connectors.columns import RESERVED_PREFIX
from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.connectors.query_words import (
    OF_NOW,
    TIME_FUNCTIONS,
    check_names_of_subquery,
    query_parts,
    takes_some_rows,
)
from ecmbatch.connectors.sqlite_columns import (
    SQLiteColumn,
    affinity_of,
    cast_types,
    declared_kind,
    declared_types,
    kinds_by_values,
    quoted,
)
from ecmbatch.connectors.sqlite_database import Reader, preparing
from ecmbatch.connectors.sqlite_partitions import SQLiteKey, sqlite_key
from ecmbatch.errors import SourceError
from ecmbatch.protocol.document import did_you_mean
from ecmbatch.protocol.query import bind
from ecmbatch.protocol.scalars import Scalar
from ecmbatch.protocol.type_names import type_name

_VOLATILE = frozenset(
    {
        "random",
        "randomblob",
        "changes",
        "total_changes",
        "last_insert_rowid",
        "current_date",
        "current_time",
        "current_timestamp",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteSource:
    """What a request reads: ``relation`` stands behind FROM, ``shown`` is the same for people.

    ``tie_break`` orders rows of one key, ``volatile`` tells that other rows may come each time, ``utf8`` how
    the file encodes texts.
    """

    relation: str
    shown: str
    values: list[Scalar]
    columns: tuple[SQLiteColumn, ...]
    tables: tuple[str, ...] | None
    tie_break: str | None
    volatile: bool
    limited: bool
    utf8: bool

    @property
    def schema(self) -> pa.Schema:
        """The columns in Arrow's types."""
        return pa.schema([(column.name, column.kind) for column in self.columns])

    @property
    def named_types(self) -> dict[str, str]:
        """The types of the columns by their names, in words."""
        return {column.name: type_name(column.kind) for column in self.columns}

    def key(self, name: str | None) -> SQLiteKey | None:
        """Return how the column *name* is ordered; ``None`` without a name, or where it cannot be."""
        found = next((column for column in self.columns if column.name == name), None)
        return None if found is None else sqlite_key(found, utf8=self.utf8)

    def select(self, relation: str, conditions: Sequence[str], order: SQLiteKey | None) -> str:
        """Return the query for those rows that fulfil all *conditions*, in the order of a key."""
        names = ", ".join(quoted(column.name) for column in self.columns)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        if order is None:
            return f"SELECT {names} FROM {relation}{where}"
        tie_break = f", {self.tie_break}" if self.tie_break else ""
        # NULL is the lowest of all in SQLite.
        return f"SELECT {names} FROM {relation}{where} ORDER BY {order.expression}{tie_break}"


def describe(
    connection: sqlite3.Connection,
    reader: Reader,
    request: ReadRequest,
    *,
    declared: Mapping[str, pa.DataType],
    by_values: Mapping[str, pa.DataType],
) -> SQLiteSource:
    """Return *request* as SQLite takes it, or raise what SQLite and we have against it.

    Types in *declared* win over those of the tables. Columns that have neither are looked at, unless that has
    been done before: *by_values* is what came of it.
    """
    if request.query is None:
        assert request.table is not None  # a request names one of those that SQLITE.fields lists
        relation = shown = empty = quoted(_existing_table(connection, request.table))
        values: list[Scalar] = []
    else:
        bound, parts = bind(request.query, "question"), query_parts(request.query)
        relation = _subquery(bound.sql)
        shown = _subquery(bind(request.query, "numbered").sql)
        # A view has no parameters; its columns have the same types with any.
        empty = _subquery(parts.joined(["NULL"] * len(parts.names)))
        values = [bindable(request.parameters[name]) for name in bound.names]
    with preparing():
        steps = connection.execute(f"EXPLAIN SELECT * FROM {relation}", values).fetchall()
    functions, tables, views = set(reader.functions), set(reader.tables), set(reader.views)
    types = declared_types(connection, f"SELECT * FROM {empty}")
    if request.table is not None:
        types = {name: kind for name, kind in types.items() if not name.lower().startswith(RESERVED_PREFIX)}
    check_names_of_subquery(list(types))
    if not all(types.values()):
        casts = cast_types(connection, f"SELECT * FROM {relation}", values)
        types = {name: kind or casts[name] for name, kind in types.items()}
    texts = [request.query or "", *_texts_of(connection, views)]
    columns = _columns(
        connection, relation, values, types, declared, by_values, is_table=request.table is not None
    )
    return SQLiteSource(
        relation=relation,
        shown=shown,
        values=values,
        columns=columns,
        tables=_tables(connection, tables),
        tie_break=_tie_break(connection, relation) if request.table is not None else None,
        volatile=_is_volatile(functions, steps, values, texts),
        limited=request.query is not None and takes_some_rows(request.query),
        utf8=connection.execute("PRAGMA encoding").fetchone()[0] == "UTF-8",
    )


def bindable(value: Scalar) -> Scalar:
    """Return *value* as SQLite stores such values: times are texts as its own functions write them, in UTC.

    Raises :class:`~ecmbatch.errors.SourceError` for a number that SQLite would round or cannot hold.
    """
    match value:
        case datetime():
            utc = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
            return utc.isoformat(" ")
        case date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            return _number(value)
        case int() if not -(2**63) <= value < 2**63:
            raise SourceError("a parameter is a whole number that SQLite cannot hold")
    return value


def _number(value: Decimal) -> int | float:
    if value == value.to_integral_value() and abs(value) < 2**63:
        return int(value)
    if Decimal(repr(float(value))) != value:
        raise SourceError(
            "a parameter is a decimal of more digits than a number in SQLite has",
            hint="give it as a text, and cast the column it is compared with to TEXT",
        )
    return float(value)


def _subquery(sql: str) -> str:
    return f"(\n{sql}\n) AS source"


def _existing_table(connection: sqlite3.Connection, name: str) -> str:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    names: dict[str, str] = {found.lower(): found for (found,) in rows}
    wanted = name.lower()
    if wanted not in names and wanted.startswith("main."):
        wanted = wanted.removeprefix("main.")
    if wanted not in names:
        raise SourceError(f"there is no table or view '{name}'", hint=did_you_mean(name, names.values()))
    return names[wanted]


def _columns(
    connection: sqlite3.Connection,
    relation: str,
    values: list[Scalar],
    types: Mapping[str, str],
    declared: Mapping[str, pa.DataType],
    by_values: Mapping[str, pa.DataType],
    *,
    is_table: bool,
) -> tuple[SQLiteColumn, ...]:
    kinds = {name: declared.get(name, _kind(kind, is_table=is_table)) for name, kind in types.items()}
    unknown = [name for name, kind in kinds.items() if kind is None]
    unseen = {name: types[name] for name in unknown if name not in by_values}
    seen = kinds_by_values(connection, relation, values, unseen) if unseen else {}
    return tuple(
        SQLiteColumn(
            name=name,
            kind=kinds[name] or by_values.get(name) or seen[name],
            affinity=affinity_of(kind),
            by_values=name in unknown,
        )
        for name, kind in types.items()
    )


def _kind(declared: str, *, is_table: bool) -> pa.DataType | None:
    # Newer releases of SQLite also say BLOB of what a query computes, and mean that it may be anything.
    return None if declared == "BLOB" and not is_table else declared_kind(declared)


def _texts_of(connection: sqlite3.Connection, views: set[str]) -> list[str]:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view'").fetchall()
    return [text for name, text in rows if name in views]


def _tables(connection: sqlite3.Connection, read: set[str]) -> tuple[str, ...] | None:
    """Return the tables among *read* as ``main.table``; ``None`` where a name has a dot, which would mislead."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = sorted(read & {name for (name,) in rows})
    return None if any("." in table for table in tables) else tuple(f"main.{table}" for table in tables)


def _tie_break(connection: sqlite3.Connection, relation: str) -> str | None:
    try:
        connection.execute(f"EXPLAIN SELECT rowid FROM {relation}")
    except sqlite3.Error:
        return None
    return "rowid"


def _is_volatile(
    functions: set[str], steps: Sequence[Sequence[object]], values: Sequence[Scalar], texts: Sequence[str]
) -> bool:
    """Tell whether the query, or a view that it reads, calls what gives other values each time."""
    if functions & _VOLATILE:
        return True
    if not functions & TIME_FUNCTIONS:
        return False
    constants = {str(step[5]).lower() for step in steps if step[1] == "String8"}
    constants |= {value.lower() for value in values if isinstance(value, str)}
    return "now" in constants or any(OF_NOW.search(text) for text in texts)
