"""The opponent: ``python -m benchmarks.handwritten SOURCE TARGET MODE``.

The fastest plain pipeline that does the same transform in Arrow, batch by batch: no stage, no checkpoints, no
validation, nothing to resume. Alternatives that were measured and lost: a ``pyarrow.dataset`` scanner that
transforms in its own threads (as fast, more memory), larger batches, MERGE and ON CONFLICT for the upsert.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.limits import MEMORY_LIMIT, THREADS

_BATCH_ROWS = 65_536
_READING = {"threads": THREADS, "memory_limit": MEMORY_LIMIT}
# Rows may be written in any order: DuckDB's threads then do not wait for each other.
_WRITING = {**_READING, "preserve_insertion_order": False}

_UPSERT = """
BEGIN;
DELETE FROM customers WHERE context_id IN (SELECT context_id FROM fresh);
INSERT INTO customers SELECT * FROM fresh;
COMMIT;
"""


def main(source: Path, target: Path, mode: str) -> None:
    """Load *source* into the table ``customers`` of *target*."""
    incoming = _reader(map(_transformed, _batches(source)))
    with duckdb.connect(str(target), config=_WRITING) as connection:
        connection.register("incoming", incoming)
        if mode == "append":
            connection.execute("CREATE TABLE customers AS SELECT * FROM incoming")
        else:
            connection.execute("CREATE TEMP TABLE fresh AS SELECT * FROM incoming")
            connection.execute(_UPSERT)


def _batches(source: Path) -> Iterator[pa.RecordBatch]:
    if source.suffix == ".parquet":
        yield from pq.ParquetFile(source).iter_batches(_BATCH_ROWS)
    else:
        with duckdb.connect(str(source), read_only=True, config=_READING) as connection:
            yield from connection.sql("SELECT * FROM customers").to_arrow_reader(_BATCH_ROWS)


def _transformed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """What the job's ``field_mapper`` does: one column renamed, one in lower case, one constant."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns = {"context_id": columns.pop("id"), **columns}
    columns["email"] = pc.utf8_lower(columns["email"])
    columns["origin"] = pa.repeat(pa.scalar("crm"), batch.num_rows)
    return pa.RecordBatch.from_pydict(columns)


def _reader(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
    first = next(batches)
    return pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
