"""The opponent where PostgreSQL is the source or the target: arguments ``SOURCE TARGET MODE``, or their file.

``SOURCE`` is a Parquet file or a URL, ``TARGET`` a DuckDB file or a URL. ADBC reads and writes by COPY, batch
by batch; an upsert goes through a temporary table and ``ON CONFLICT``. No stage, no marker, nothing to resume.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.handwritten import _BATCH_ROWS, _WRITING, _reader, _transformed

_SOURCE = """
CREATE TABLE customers (
    id bigint PRIMARY KEY, email text, name text, tier text, region text, amount numeric(12, 2), payload text,
    created_at timestamp, updated_at timestamp
)
"""
_COLUMNS = "context_id, email, name, tier, region, amount, payload, created_at, updated_at, origin"
_UPSERT = f"""
INSERT INTO customers ({_COLUMNS}) SELECT {_COLUMNS} FROM fresh
ON CONFLICT (context_id) DO UPDATE SET ({_COLUMNS}) = ROW(excluded.*)
"""


def main(source: str, target: str, mode: str) -> None:
    """Load *source* into the table ``customers`` of *target*; ``copy`` makes a source of it."""
    with _batches(source) as batches:
        incoming = _reader(batches if mode == "copy" else map(_transformed, map(_with_decimals, batches)))
        if target.startswith("postgresql:"):
            _into_postgres(incoming, target, mode)
        else:
            with duckdb.connect(target, config=_WRITING) as connection:
                connection.register("incoming", incoming)
                connection.execute("CREATE TABLE customers AS SELECT * FROM incoming")


@contextmanager
def _batches(source: str) -> Iterator[Iterator[pa.RecordBatch]]:
    if not source.startswith("postgresql:"):
        yield pq.ParquetFile(Path(source)).iter_batches(_BATCH_ROWS)
        return
    with adbc.connect(source) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM customers")
        yield cursor.fetch_record_batch()


def _with_decimals(batch: pa.RecordBatch) -> pa.RecordBatch:
    """ADBC gives numeric columns as text."""
    place = batch.schema.get_field_index("amount")
    amount = batch.column(place)
    if isinstance(amount, pa.ExtensionArray):
        amount = pc.cast(amount.storage, pa.decimal128(12, 2))
    return batch.set_column(place, "amount", amount)


def _into_postgres(incoming: pa.RecordBatchReader, target: str, mode: str) -> None:
    with adbc.connect(target) as connection, connection.cursor() as cursor:
        if mode == "copy":
            cursor.execute(_SOURCE)
            cursor.adbc_ingest("customers", incoming, mode="append")
        elif mode == "append":
            cursor.adbc_ingest("customers", incoming, mode="create")
        else:
            cursor.adbc_ingest("fresh", incoming, mode="create", temporary=True)
            cursor.execute(_UPSERT)
        connection.commit()


if __name__ == "__main__":
    main(*(sys.argv[1:] if len(sys.argv) > 2 else json.loads(Path(sys.argv[1]).read_text())))
