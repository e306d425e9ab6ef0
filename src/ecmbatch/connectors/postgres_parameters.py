"""The parameters of a query as settings of the transaction, for a query with bound values cannot be streamed.

``:name`` becomes ``current_setting('ecmbatch.p1')::type``. Such a value is stable, so an index on what it is
compared with is used. The type is that of the value, as if it stood in the query:

=================================  =============================================================
value                              type
=================================  =============================================================
text, NULL                         what the place needs, as PostgreSQL finds it; else ``text``
whole number                       ``integer``, or ``bigint``, or ``numeric``: the first it fits
number                             ``numeric`` where it is compared with one, else ``double precision``
decimal                            ``numeric`` of its own digits
true, time, date, binary, UUID     ``boolean``, ``timestamptz`` with an offset, …
=================================  =============================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from uuid import UUID

import psycopg

from ecmbatch.connectors.postgres_columns import described
from ecmbatch.connectors.postgres_session import Rows
from ecmbatch.connectors.query_words import QueryParts, query_parts
from ecmbatch.errors import SourceError
from ecmbatch.protocol.scalars import Scalar

_UNKNOWN = 0
_TEXT, _NUMERIC, _FLOAT8 = 25, 1700, 701
_MOST_DIGITS = 38


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundQuery:
    """A query as the server takes it, the settings it reads, and how it is shown: with ``$1``, ``$2`` …"""

    sql: str
    settings: Mapping[str, str]
    shown: str


def bound_query(connection: Rows, query: str, parameters: Mapping[str, Scalar]) -> BoundQuery:
    """Return *query* with its placeholders bound to *parameters*.

    Raises :class:`~ecmbatch.errors.InvalidDocument` where the query is not one complete statement.
    """
    parts = query_parts(query)
    names = list(dict.fromkeys(parts.names))
    types = _types(connection, parts, names, parameters)
    settings, places, shown = {}, {}, {}
    for number, (name, kind) in enumerate(zip(names, types, strict=True), 1):
        value = parameters[name]
        if value is None:
            places[name] = f"(NULL::{kind})"
        else:
            settings[f"ecmbatch.p{number}"] = _text(name, value)
            places[name] = f"(current_setting('ecmbatch.p{number}')::{kind})"
        shown[name] = f"(${number}::{kind})"
    return BoundQuery(
        sql=parts.joined([places[name] for name in parts.names]),
        settings=settings,
        shown=parts.joined([shown[name] for name in parts.names]),
    )


def _types(
    connection: Rows, parts: QueryParts, names: list[str], parameters: Mapping[str, Scalar]
) -> list[str]:
    fixed = [_type(parameters[name]) for name in names]
    if None not in fixed:
        return [kind for kind in fixed if kind is not None]
    numbers = {name: number for number, name in enumerate(names, 1)}
    sql = parts.joined([f"(${numbers[name]})" for name in parts.names])
    # What has a type of its own is declared as text here only where its type does not matter to the others.
    found = _found(connection, sql, [_UNKNOWN if kind is None else _oid(connection, kind) for kind in fixed])
    return [
        kind or _fitting(parameters[name], wanted)
        for name, kind, wanted in zip(names, fixed, found or ["text"] * len(names), strict=True)
    ]


def _found(connection: Rows, sql: str, types: list[int]) -> tuple[str, ...] | None:
    """Return the types that PostgreSQL finds, ``None`` where it cannot; what else is wrong shows later."""
    connection.execute("SAVEPOINT types")
    try:
        return described(connection, sql, types).parameters
    except psycopg.errors.Error as error:
        if error.sqlstate is None:
            raise
        connection.execute("ROLLBACK TO SAVEPOINT types")
        return None


def _oid(connection: Rows, kind: str) -> int:
    row = connection.execute("SELECT %s::regtype::oid", [kind.partition("(")[0]]).fetchone()
    assert row is not None and isinstance(row[0], int)
    return row[0]


def _fitting(value: Scalar, wanted: str) -> str:
    if isinstance(value, float):
        return "numeric" if wanted == "numeric" and math.isfinite(value) else "double precision"
    return "text" if wanted in ("unknown", "???", "-") else wanted


def _type(value: Scalar) -> str | None:
    """Return the type of *value*, ``None`` where its place in the query decides."""
    match value:
        case bool():
            return "boolean"
        case int():
            bits = value.bit_length()
            return "integer" if bits < 32 else "bigint" if bits < 64 else "numeric"
        case Decimal():
            return _decimal_type(value)
        case datetime():
            return "timestamp" if value.tzinfo is None else "timestamptz"
        case date():
            return "date"
        case time():
            return "time"
        case bytes():
            return "bytea"
        case UUID():
            return "uuid"
    return None


def _decimal_type(value: Decimal) -> str:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        return "numeric"
    scale = max(-exponent, 0)
    precision = max(len(value.as_tuple().digits) + max(exponent, 0), scale, 1)
    return f"numeric({precision},{scale})" if precision <= _MOST_DIGITS else "numeric"


def _text(name: str, value: str | int | float | Decimal | datetime | date | time | bytes | UUID) -> str:
    """Return *value* as PostgreSQL reads it."""
    match value:
        case bool():
            return "true" if value else "false"
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return f"\\x{value.hex()}"
        case Decimal():
            return f"{value:f}"
        case float():
            return repr(value)
    text = str(value)
    if "\0" in text:
        raise SourceError(f"the parameter :{name} has a NUL character, which no text in PostgreSQL has")
    return text
