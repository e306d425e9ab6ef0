"""The columns of a SQLite query and their Arrow types.

A column of SQLite holds values of any kind; what it is meant to hold is the type its table declares, and an
*affinity* that SQLite derives from it. Both are found through a query by letting SQLite make a temporary view
of it (which passes declared types on) and a temporary table without rows (which passes on the affinity of a
``CAST``). What neither tells is decided by the values of all rows, in one pass.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from ecmbatch.connectors.row_columns import Misfit
from ecmbatch.connectors.sqlite_database import preparing, reading
from ecmbatch.errors import SourceError
from ecmbatch.protocol.scalars import Scalar

Affinity = Literal["INTEGER", "REAL", "NUMERIC", "TEXT", "BLOB"]

_NAMED: Mapping[str, pa.DataType] = {
    "BOOL": pa.bool_(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP WITHOUT TIME ZONE": pa.timestamp("us"),
    "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC"),
    "TIME": pa.time64("us"),
    "TIME WITHOUT TIME ZONE": pa.time64("us"),
    "UUID": pa.string(),
    "JSON": pa.string(),
}
_OF_AFFINITY: Mapping[Affinity, pa.DataType | None] = {
    "INTEGER": pa.int64(),
    "REAL": pa.float64(),
    "TEXT": pa.string(),
    "BLOB": pa.binary(),
    "NUMERIC": None,
}
_OF_VALUES: Mapping[frozenset[str], pa.DataType] = {
    frozenset({"integer"}): pa.int64(),
    frozenset({"real"}): pa.float64(),
    frozenset({"integer", "real"}): pa.float64(),
    frozenset({"text"}): pa.string(),
    frozenset({"blob"}): pa.binary(),
}
_DECLARED = re.compile(r"(?P<name>[^(]*?)\s*(?:\((?P<arguments>[^)]*)\)\s*(?P<rest>.*))?", re.DOTALL)
_DECIMALS = frozenset({"DECIMAL", "NUMERIC", "DEC", "NUMBER"})
_PRECISION = re.compile(r"\s*(\d{1,2})\s*(?:,\s*(\d{1,2})\s*)?")
_FRACTION = re.compile(r"\s*\d\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteColumn:
    """A column: its name, its type, the affinity of what it holds, and whether its values had to tell the type."""

    name: str
    kind: pa.DataType
    affinity: Affinity
    by_values: bool = False


def quoted(identifier: str) -> str:
    """Return *identifier* quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def affinity_of(declared: str) -> Affinity:
    """Return the affinity of a column by its declared type, as SQLite's own rules have it."""
    upper = declared.upper()
    if "INT" in upper:
        return "INTEGER"
    if any(part in upper for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not upper or "BLOB" in upper:
        return "BLOB"
    return "REAL" if any(part in upper for part in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def declared_kind(declared: str) -> pa.DataType | None:
    """Return the Arrow type that a declared type means; ``None`` where it means none in particular."""
    found = _DECLARED.fullmatch(declared.strip().upper())
    assert found is not None  # any text has a name in front of what parentheses it may have
    name = " ".join(f"{found['name']} {found['rest'] or ''}".split())
    if name in _DECIMALS:
        return _decimal(found["arguments"] or "")
    if name in _NAMED and (found["arguments"] is None or _FRACTION.fullmatch(found["arguments"])):
        return _NAMED[name]
    return _OF_AFFINITY[affinity_of(declared)] if declared else None


def declared_types(connection: sqlite3.Connection, select: str) -> dict[str, str]:
    """Return the names of the columns of *select*, which has no parameters, and the types they were declared
    with in their tables: ``""`` for what is computed."""
    with preparing():
        connection.execute(f"CREATE TEMP VIEW _ecm_columns AS {select}")
        rows = connection.execute("PRAGMA temp.table_info(_ecm_columns)").fetchall()
    return {row[1]: row[2] for row in rows}


def cast_types(connection: sqlite3.Connection, select: str, values: list[Scalar]) -> dict[str, str]:
    """Return the names of the columns of *select* and the types that they would have in a table made of it."""
    with preparing():
        connection.execute(f"CREATE TEMP TABLE _ecm_affinities AS {select} LIMIT 0", values)
        rows = connection.execute("PRAGMA temp.table_info(_ecm_affinities)").fetchall()
    return {row[1]: row[2] for row in rows}


def kinds_by_values(
    connection: sqlite3.Connection, relation: str, values: list[Scalar], declared: Mapping[str, str]
) -> dict[str, pa.DataType]:
    """Return types that hold all values of these columns of *relation*, looking at every row.

    Columns *declared* as BLOB hold bytes unless their values tell otherwise. A column without values is one of
    NULLs, which fits any column of a store.
    Raises :class:`~ecmbatch.errors.SourceError` where no type holds all values.
    """
    storage = ", ".join(f"group_concat(DISTINCT typeof({quoted(name)}))" for name in declared)
    with reading():
        (found,) = connection.execute(f"SELECT {storage} FROM {relation}", values).fetchall()
    return {
        name: _kind_of(name, each, pa.binary() if kind == "BLOB" else pa.null())
        for (name, kind), each in zip(declared.items(), found, strict=True)
    }


def misfit_hint(misfit: Misfit) -> str:
    """Return what to do about a value that does not fit its column."""
    name, kind = quoted(misfit.column), misfit.kind
    if pa.types.is_timestamp(kind) and kind.tz is None and "text" in misfit.found:
        return (
            "where texts end in Z or an offset, declare the column as timestamp[us, UTC] under the connector's "
            f"'columns'; else cast it in the query: strftime('%Y-%m-%d %H:%M:%f', {name}) AS {name}"
        )
    if pa.types.is_timestamp(kind):
        return (
            f"seconds since 1970 are cast in the query by datetime({name}, 'unixepoch') AS {name}, Julian days by "
            f"datetime({name}) AS {name}, and declared under the connector's 'columns'"
        )
    if pa.types.is_date(kind):
        return (
            f"cast it in the query: date({name}) AS {name}, date({name}, 'unixepoch') for seconds since 1970; and "
            "declare it as date under the connector's 'columns'"
        )
    if pa.types.is_decimal(kind):
        return (
            f"cast it in the query: round({name}, {kind.scale}) AS {name}, or CAST({name} AS TEXT) AS {name}"
        )
    return (
        f"cast it in the query: CAST({name} AS TEXT) AS {name}, or declare it under the connector's 'columns'"
    )


def _decimal(arguments: str) -> pa.DataType | None:
    found = _PRECISION.fullmatch(arguments)
    if found is None:
        return None
    precision, scale = int(found[1]), int(found[2] or 0)
    return pa.decimal128(precision, scale) if 1 <= precision <= 38 and scale <= precision else None


def _kind_of(name: str, storage: str | None, without_values: pa.DataType) -> pa.DataType:
    found = frozenset((storage or "").split(",")) - {"", "null"}
    if not found:
        return without_values
    if found not in _OF_VALUES:
        raise SourceError(
            f"column '{name}' has no declared type, and values of several kinds: {' and '.join(sorted(found))}",
            hint=f"cast it in the query, such as CAST({quoted(name)} AS TEXT) AS {quoted(name)}, or declare it "
            "under the connector's 'columns'",
        )
    return _OF_VALUES[found]
