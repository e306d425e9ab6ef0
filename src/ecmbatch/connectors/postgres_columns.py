"""The columns of a PostgreSQL query as Arrow: which come as they are, which the server casts, which are refused.

A column has three forms. What the query *gives*; what is *read*, a value of a type that Arrow has, by which rows
are ordered and partitioned; and how that *travels*: decimals as text, which is faster than their own format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.errors import error_from_result

from ecmbatch.connectors.postgres_errors import ARRAY_MARK
from ecmbatch.connectors.postgres_session import Rows
from ecmbatch.errors import SourceError

_ARROW: Mapping[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "uuid": pa.uuid(),
}
_ELEMENTS = frozenset(_ARROW) - {"time", "uuid"}
_UNREADABLE: Mapping[str, str] = {"money": "numeric(19,2)"}
"""Their text depends on a setting of the server."""

_MOST_DIGITS = 38
_FIRST_DAY = -2_440_588
"""The first day that PostgreSQL has, in days before 1970. The driver adds without looking: infinity, and what is
later than Arrow's last microsecond, become a time before that day."""

_NAMES = """
SELECT t.typname, t.typnamespace = 'pg_catalog'::regnamespace, format_type(given.kind, given.modifier)
FROM unnest(%s::oid[], %s::int4[]) WITH ORDINALITY AS given(kind, modifier, place)
LEFT JOIN pg_type AS t ON t.oid = given.kind ORDER BY given.place
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a query: its type as PostgreSQL writes it, and the table's column that it is, if it is one.

    ``kind`` is the type's short name, empty for those that do not come with PostgreSQL.
    """

    name: str
    type: str
    kind: str
    modifier: int
    table: int
    number: int

    @property
    def arrow(self) -> pa.DataType:
        """How the column arrives."""
        digits = self._digits
        if digits is not None:
            return pa.decimal128(*digits)
        if self.kind == "oid":
            return pa.int64()
        if self._element is not None:
            return pa.list_(_ARROW[self._element] if self._element in _ELEMENTS else pa.string())
        return _ARROW.get(self.kind, pa.string())

    @property
    def read_type(self) -> str:
        """The SQL type of what is read."""
        if self.kind in _ARROW or self._digits is not None or self._element in _ELEMENTS:
            return self.type
        if self.kind == "oid":
            return "bigint"
        return "text" if self._element is None else "text[]"

    @property
    def read(self) -> str:
        """What is read, as an expression over what the query gives."""
        name = quoted(self.name)
        return name if self.read_type == self.type else f"{name}::{self.read_type} AS {name}"

    @property
    def travelling(self) -> str:
        """What the server sends, as an expression over what is read."""
        name = quoted(self.name)
        if self._digits is not None:
            return f"{name}::text AS {name}"
        if self._element is None:
            return name
        # The driver would flatten several dimensions without a word. There is no such setting: asking for it fails.
        mark = f"current_setting('{ARRAY_MARK}{self.name.encode().hex()}')::{self.read_type}"
        is_odd = f"array_ndims({name}) > 1 OR array_lower({name}, 1) <> 1"
        return f"CASE WHEN {is_odd} THEN {mark} ELSE {name} END AS {name}"

    @property
    def _element(self) -> str | None:
        """The short name of an array's elements."""
        is_array = self.type.endswith("[]")
        return self.kind.removeprefix("_") if is_array else None

    @property
    def _digits(self) -> tuple[int, int] | None:
        """Precision and scale of decimals that fit into Arrow's."""
        if self.kind != "numeric" or self.modifier < 4:
            return None
        precision = (self.modifier - 4) >> 16 & 0xFFFF
        scale = ((self.modifier - 4 & 0x7FF) ^ 0x400) - 0x400
        precision, scale = max(precision - min(scale, 0), scale), max(scale, 0)
        return (precision, scale) if precision <= _MOST_DIGITS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What the server says of a query without running it; ``parameters`` are the types of ``$1``, ``$2`` …"""

    columns: tuple[Column, ...]
    parameters: tuple[str, ...]


def quoted(identifier: str) -> str:
    """Return *identifier* quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def described(connection: Rows, sql: str, types: Sequence[int] = ()) -> Described:
    """Return the columns of *sql*, and the types of its parameters, which are given by *types* or found (0).

    The server parses *sql* as one statement; whatever else it is, it is refused.
    """
    pgconn = connection.pgconn
    for result in (
        pgconn.prepare(b"", sql.encode(), list(types)),
        pgconn.describe_prepared(b""),
    ):
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise error_from_result(result, encoding="utf-8")
    places = range(result.nfields)
    kinds = _names(connection, [(result.ftype(place), result.fmod(place)) for place in places])
    parameters = _names(connection, [(result.param_type(place), -1) for place in range(result.nparams)])
    columns = tuple(
        Column(
            name=(result.fname(place) or b"").decode(),
            type=kinds[place][1],
            kind=kinds[place][0],
            modifier=result.fmod(place),
            table=result.ftable(place),
            number=result.ftablecol(place),
        )
        for place in places
    )
    return Described(columns=columns, parameters=tuple(name for _, name in parameters))


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """Return the columns as Arrow.

    Raises :class:`~ecmbatch.errors.SourceError` that names a column which has no lossless form, and the cast
    to write.
    """
    for column in columns:
        if column.kind in _UNREADABLE:
            cast = f"{quoted(column.name)}::{_UNREADABLE[column.kind]} AS {quoted(column.name)}"
            raise SourceError(
                f"column '{column.name}' has the type {column.type}, which cannot be read as it is",
                hint=f"cast it in the query: {cast}",
            )
    return pa.schema([pa.field(column.name, column.arrow) for column in columns])


def finished(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    """Return *batch* as it travelled with the types of :func:`schema_of`."""
    arrays = [_finished(array, column) for array, column in zip(batch.columns, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _finished(array: pa.Array, column: Column) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if column.kind == "uuid":
        return pa.ExtensionArray.from_storage(pa.uuid(), array.cast(pa.binary(16)))
    if pa.types.is_decimal(column.arrow):
        return _decimals(array, column)
    times = array.flatten() if pa.types.is_list(array.type) else array
    if pa.types.is_date(times.type) or pa.types.is_timestamp(times.type):
        _check_times(times, column)
    return array.cast(column.arrow)


def _decimals(array: pa.Array, column: Column) -> pa.Array:
    try:
        return array.cast(column.arrow)
    except pa.ArrowInvalid:
        raise SourceError(
            f"column '{column.name}' of type {column.type} has a value that is not a number",
            hint=f"cast it in the query: {quoted(column.name)}::text AS {quoted(column.name)}, "
            f"or make it NULL: nullif({quoted(column.name)}, 'NaN') AS {quoted(column.name)}",
        ) from None


def _check_times(times: pa.Array, column: Column) -> None:
    is_date = pa.types.is_date(times.type)
    numbers = times.cast(pa.int32()) if is_date else times.cast(pa.int64())
    least = pc.min(numbers).as_py()
    if least is not None and least < (_FIRST_DAY if is_date else _FIRST_DAY * 86_400_000_000):
        raise SourceError(
            f"column '{column.name}' of type {column.type} has a value that is infinite or too late to be read",
            hint=f"cast it in the query: {quoted(column.name)}::text AS {quoted(column.name)}",
        )


def _names(connection: Rows, types: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
    """Return the short name, if it is PostgreSQL's own, and the full one of every type and its modifier."""
    if not types:
        return []
    kinds, modifiers = zip(*types, strict=True)
    found = connection.execute(_NAMES, [list(kinds), list(modifiers)]).fetchall()
    return [(str(short) if is_built_in else "", str(full)) for short, is_built_in, full in found]
