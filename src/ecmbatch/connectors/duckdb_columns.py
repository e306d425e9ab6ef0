"""The columns of a DuckDB query as Arrow: which come as they are, which are cast, which are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from ecmbatch.errors import SourceError

_CAST_TO: Mapping[str, str] = {
    # An enum would be a dictionary that may differ from batch to batch; JSON is text with a check.
    "enum": "VARCHAR",
    "json": "VARCHAR",
    # Without a cast larger values than fit would arrive as broken decimals; the cast refuses them.
    "hugeint": "DECIMAL(38,0)",
    "uhugeint": "DECIMAL(38,0)",
    # Its sixteen bytes; at the top of a row they become Arrow's UUID again.
    "uuid": "BLOB",
}

_UNREADABLE: Mapping[str, str] = {
    "interval": "VARCHAR",
    "time with time zone": "VARCHAR",
    "bit": "VARCHAR",
    "bignum": "VARCHAR",
    "varint": "VARCHAR",
    "union": "VARCHAR",
    "tuple": "JSON",
    "variant": "JSON",
    "geometry": "VARCHAR",
}

_NESTED = frozenset({"list", "array", "struct", "map"})


def quoted(identifier: str) -> str:
    """Return *identifier* quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def readable_columns(types: Mapping[str, Any]) -> str:
    """Return the select list that reads columns of these DuckDB *types* as plain Arrow.

    Raises :class:`~ecmbatch.errors.SourceError` that names a column which has no such form, and the cast
    to write.
    """
    return ", ".join(_select(name, kind) for name, kind in types.items())


def uuid_columns(types: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the columns that arrive as sixteen bytes and are UUIDs."""
    return frozenset(name for name, kind in types.items() if kind.id == "uuid")


def with_uuids(batch: pa.RecordBatch, uuids: frozenset[str]) -> pa.RecordBatch:
    """Return *batch* with the columns *uuids* as UUIDs."""
    if not uuids:
        return batch
    columns = [
        _uuids(column) if name in uuids else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _uuids(column: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.uuid(), column.cast(pa.binary(16)))


def _select(name: str, kind: Any) -> str:
    unreadable = next(_unreadable(kind), None)
    if unreadable is not None:
        raise SourceError(
            f"column '{name}' has the type {kind}, which cannot be read as it is",
            hint=f"cast it in the query: {quoted(name)}::{unreadable} AS {quoted(name)}",
        )
    target = _readable(kind)
    if target == str(kind):
        return quoted(name)
    return f"CAST({quoted(name)} AS {target}) AS {quoted(name)}"


def _unreadable(kind: Any) -> Iterator[str]:
    """Yield what columns of this type must be cast to, if they must."""
    if kind.id in _NESTED:
        for _, child in _parts(kind):
            if next(_unreadable(child), None) is not None:
                yield "JSON"
    else:
        name = str(kind).lower()
        if kind.id in _UNREADABLE or name in _UNREADABLE:
            yield _UNREADABLE.get(kind.id) or _UNREADABLE[name]


def _readable(kind: Any, *, nested: bool = False) -> str:
    """Return the SQL type to read columns of type *kind* as."""
    if kind.id in _NESTED:
        parts = {name: _readable(child, nested=True) for name, child in _parts(kind)}
        if all(parts[name] == str(child) for name, child in _parts(kind)):
            return str(kind)
        return _nested_type(kind, parts)
    if kind.id == "uuid" and nested:
        return "VARCHAR"
    return _CAST_TO.get(str(kind).lower()) or _CAST_TO.get(kind.id) or str(kind)


def _nested_type(kind: Any, parts: Mapping[str, str]) -> str:
    if kind.id == "struct":
        fields = ", ".join(f"{quoted(name)} {inner}" for name, inner in parts.items())
        return f"STRUCT({fields})"
    if kind.id == "map":
        return f"MAP({parts['key']}, {parts['value']})"
    size = str(dict(kind.children)["size"]) if kind.id == "array" else ""
    return f"{parts['child']}[{size}]"


def _parts(kind: Any) -> list[tuple[str, Any]]:
    return [(name, child) for name, child in kind.children if name != "size" or kind.id != "array"]
