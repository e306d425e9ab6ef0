"""SQLite files for tests, written as applications write them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

_DECLARED: Mapping[pa.DataType, str] = {
    pa.int64(): "BIGINT",
    pa.int8(): "TINYINT",
    pa.bool_(): "BOOLEAN",
    pa.string(): "VARCHAR(80)",
    pa.binary(): "BLOB",
    pa.decimal128(18, 4): "DECIMAL(18, 4)",
    pa.date32(): "DATE",
    pa.time64("us"): "TIME",
    pa.timestamp("us"): "DATETIME",
    pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
}


def stored(value: Any) -> Any:
    """Return *value* as applications store it: times as texts, decimals as numbers."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def write_table(path: Path, table: pa.Table, *, index: bool = False, collation: str = "") -> None:
    """Write *table* into a new file as ``t``."""
    columns = ", ".join(
        f"{field.name} {_DECLARED[field.type]} {collation if field.type == pa.string() else ''}"
        for field in table.schema
    )
    rows = zip(*([stored(value) for value in column.to_pylist()] for column in table.columns), strict=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE t ({columns})")
        database.executemany("INSERT INTO t VALUES (?, ?)", rows)
        if index:
            database.execute('CREATE INDEX by_key ON t ("key" COLLATE BINARY)')
