"""The DuckDB types of new columns, from the Arrow types of the rows."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types

from ecmbatch.stores.duckdb_statements import quoted

_PLAIN = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.large_string(): "VARCHAR",
    pa.string_view(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.large_binary(): "BLOB",
    pa.binary_view(): "BLOB",
    pa.date32(): "DATE",
    pa.date64(): "DATE",
    pa.time32("s"): "TIME",
    pa.time32("ms"): "TIME",
    pa.time64("us"): "TIME",
    pa.time64("ns"): "TIME_NS",
    pa.timestamp("s"): "TIMESTAMP_S",
    pa.timestamp("ms"): "TIMESTAMP_MS",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("ns"): "TIMESTAMP_NS",
}
_EXTENSIONS = {"arrow.uuid": "UUID", "arrow.json": "JSON", "arrow.bool8": "BOOLEAN"}
_DECIMAL_DIGITS = 38


def duckdb_type(type_: pa.DataType) -> str | None:
    """Return the DuckDB type that keeps every value of an Arrow type, ``None`` where there is none."""
    if isinstance(type_, pa.BaseExtensionType):
        return _EXTENSIONS.get(type_.extension_name)
    if types.is_dictionary(type_):
        return duckdb_type(type_.value_type)
    if types.is_decimal(type_):
        return _decimal(type_)
    if types.is_timestamp(type_) and type_.tz is not None:
        return "TIMESTAMPTZ_NS" if type_.unit == "ns" else "TIMESTAMPTZ"
    if types.is_fixed_size_binary(type_):
        return "BLOB"
    if types.is_nested(type_):
        return _nested(type_)
    return _PLAIN.get(type_)


def _decimal(type_: pa.DataType) -> str | None:
    if type_.precision > _DECIMAL_DIGITS or not 0 <= type_.scale <= type_.precision:
        return None
    return f"DECIMAL({type_.precision},{type_.scale})"


def _nested(type_: pa.DataType) -> str | None:
    if types.is_struct(type_):
        fields = [(field.name, duckdb_type(field.type)) for field in type_]
        if not fields or any(inner is None for _, inner in fields):
            return None
        return f"STRUCT({', '.join(f'{quoted(name)} {inner}' for name, inner in fields)})"
    if types.is_map(type_):
        key, item = duckdb_type(type_.key_type), duckdb_type(type_.item_type)
        return None if key is None or item is None else f"MAP({key}, {item})"
    if types.is_union(type_):
        return None
    value = duckdb_type(type_.value_type)
    if value is None:
        return None
    return f"{value}[{type_.list_size}]" if types.is_fixed_size_list(type_) else f"{value}[]"
