"""The types of stored columns, as rows to publish would have them.

Taken from DuckDB's description of the column and not from an export of its rows: what that looks like depends
on settings, which may be locked by whoever else in this process reads the file.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_PLAIN = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "HUGEINT": pa.decimal128(38, 0),
    "UHUGEINT": pa.decimal128(38, 0),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIME_NS": pa.time64("ns"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP_NS": pa.timestamp("ns"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC"),
    "TIMESTAMPTZ_NS": pa.timestamp("ns", "UTC"),
    "INTERVAL": pa.month_day_nano_interval(),
    "UUID": pa.uuid(),
    "JSON": pa.json_(),
}


def column_type(kind: Any) -> pa.DataType:
    """Return the Arrow type of a column of DuckDB's type *kind*.

    What only DuckDB has becomes what holds the same values (HUGEINT a decimal of 38 digits, ENUM text), or
    else an opaque type, which no rows have.
    """
    children = dict(kind.children) if kind.id in ("decimal", "list", "array", "struct", "map") else {}
    match kind.id:
        case "decimal":
            return pa.decimal128(children["precision"], children["scale"])
        case "enum":
            return pa.string()
        case "list":
            return pa.list_(column_type(children["child"]))
        case "array":
            return pa.list_(column_type(children["child"]), children["size"])
        case "struct":
            return pa.struct([(name, column_type(child)) for name, child in children.items()])
        case "map":
            return pa.map_(column_type(children["key"]), column_type(children["value"]))
    return _PLAIN.get(str(kind)) or pa.opaque(pa.null(), str(kind), "DuckDB")
