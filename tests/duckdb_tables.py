"""Reading back what a DuckDB store holds, by other means than the store's."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa


def read_table(path: Path, name: str) -> pa.Table:
    """Return a table in Arrow's own types; DuckDB exports a UUID as text unless it exports BOOLEAN strangely."""
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.sql(f'SELECT * FROM "{name}"')
        uuids = [column for column, type_ in zip(found.columns, found.types, strict=True) if type_ == "UUID"]
        table = found.to_arrow_table()
    for column in uuids:
        values = [None if text is None else UUID(text).bytes for text in table[column].to_pylist()]
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(values, pa.uuid()))
    return table
