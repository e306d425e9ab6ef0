"""The columns of a query's result as Arrow: which come as they are, which are cast, which are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ecmbatch.errors import TransformError

_CARRIED = frozenset(
    {
        "null",
        "boolean",
        "tinyint",
        "smallint",
        "integer",
        "bigint",
        "utinyint",
        "usmallint",
        "uinteger",
        "ubigint",
        "float",
        "double",
        "decimal",
        "varchar",
        "blob",
        "uuid",
        "date",
        "time",
        "time_ns",
        "timestamp",
        "timestamp_s",
        "timestamp_ms",
        "timestamp_ns",
        "timestamp with time zone",
        "timestamptz_ns",
    }
)
_NESTED = frozenset({"list", "array", "struct", "map"})
_CAST_TO: Mapping[str, str] = {"hugeint": "DECIMAL(38, 0)", "uhugeint": "DECIMAL(38, 0)", "tuple": "JSON"}
"""What to write for other types; for most of them it is text."""


def quoted(identifier: str) -> str:
    """Return *identifier* quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def check_input(schema: pa.Schema) -> None:
    """Raise :class:`~ecmbatch.errors.TransformError` where SQL could not tell two columns apart."""
    if twice := _alike(schema.names):
        raise TransformError(
            f"the rows have columns whose names differ in case at most, which SQL takes for one: {twice}",
            hint="rename one of them in a step before, for example with field_mapper",
        )


def check_result(names: Sequence[str], types: Sequence[Any]) -> None:
    """Raise :class:`~ecmbatch.errors.TransformError` for columns of one name, or that Arrow cannot carry."""
    if twice := _alike(names):
        raise TransformError(
            f"the query returns several columns of one name (upper and lower case are the same): {twice}",
            hint="give each a name of its own with AS, or leave one out with * EXCLUDE (…)",
        )
    for name, kind in zip(names, types, strict=True):
        for part in _not_carried(kind):
            target = _CAST_TO.get(part.id, "VARCHAR") if part is kind else "JSON"
            raise TransformError(
                f"column '{name}' of the query has the type {kind}, which cannot leave DuckDB as it is",
                hint=f"cast it in the query: CAST(… AS {target}) AS {quoted(name)}",
            )


def exported(sql: str, names: Sequence[str], types: Sequence[Any]) -> str:
    """Return the query that gives the result of *sql* with UUIDs as their sixteen bytes."""
    uuids = [quoted(name) for name, kind in zip(names, types, strict=True) if kind.id == "uuid"]
    if not uuids:
        return sql
    casts = ", ".join(f"CAST({name} AS BLOB) AS {name}" for name in uuids)
    # The query may end in a line comment.
    return f"SELECT * REPLACE ({casts}) FROM (\n{sql}\n) AS result"


def imported(result: pa.Table, types: Sequence[Any]) -> pa.RecordBatch:
    """Return the exported *result* of columns of these DuckDB *types* as one batch."""
    columns = [
        _as_arrow(pa.concat_arrays([*column.chunks, pa.nulls(0, column.type)]), kind)
        for column, kind in zip(result.columns, types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=result.column_names)


def _as_arrow(column: pa.Array, kind: Any) -> pa.Array:
    if kind.id == "uuid":
        return pa.ExtensionArray.from_storage(pa.uuid(), column.cast(pa.binary(16)))
    if str(kind) == "JSON":
        return pa.ExtensionArray.from_storage(pa.json_(), column)
    return column


def _not_carried(kind: Any) -> Iterator[Any]:
    """Yield the parts of a type that Arrow or a store has nothing like."""
    if kind.id in _NESTED:
        for name, child in kind.children:
            if name != "size" or kind.id != "array":
                yield from _not_carried(child)
    elif kind.id not in _CARRIED:
        yield kind


def _alike(names: Sequence[str]) -> str:
    """The names that are the same but for case, each group once."""
    counts = Counter(name.lower() for name in names)
    return ", ".join(dict.fromkeys(name for name in names if counts[name.lower()] > 1))
