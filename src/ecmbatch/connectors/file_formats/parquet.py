"""Parquet: read row group by row group. A place is a row of a row group; no group before it is decoded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from ecmbatch.connectors.file_formats.file_format import (
    FileFormat,
    Place,
    SourceFile,
    check_columns,
    readable,
)
from ecmbatch.connectors.file_formats.united_schema import fitted, united
from ecmbatch.errors import SourceError

_READ_AHEAD_BYTES = 1024 * 1024
"""Column chunks are read through buffers of this size, not as a whole."""

_WHAT = "Parquet file"


class ParquetFormat(FileFormat[pa.Schema]):
    """Files that know their own types; every batch is checked in full (offsets, UTF-8) before it is handed on."""

    def learn(self, file: SourceFile) -> pa.Schema:
        with _ParquetRows(file) as rows:
            return rows.schema

    def unite(self, learnt: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
        return united(learnt)

    def batches(
        self, file: SourceFile, schema: pa.Schema, after: Place | None, batch_rows: int
    ) -> Iterator[tuple[pa.RecordBatch, Place]]:
        group, row = (after["row_group"], after["row"]) if after else (0, 0)
        with _ParquetRows(file) as rows:
            for batch, group_after, row_after in rows.batches(group, row, batch_rows):
                with readable(file.path, _WHAT):
                    ready = fitted(batch, schema)
                yield ready, {"row_group": group_after, "row": row_after}


class _ParquetRows:
    """The rows of one Parquet file, which may be broken in any way."""

    def __init__(self, file: SourceFile) -> None:
        self._path = file.path
        with readable(file.path, _WHAT):
            self._parquet = pq.ParquetFile(file.opened, buffer_size=_READ_AHEAD_BYTES, pre_buffer=False)
            self.schema: pa.Schema = self._parquet.schema_arrow.remove_metadata()
            metadata = self._parquet.metadata
            self._rows_in = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
            if min(self._rows_in, default=0) < 0 or sum(self._rows_in) != metadata.num_rows:
                raise SourceError(f"{file.path} is not a sound Parquet file: its row counts disagree")
            check_columns(file.path, self.schema.names)

    def __enter__(self) -> _ParquetRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._parquet.close()

    def batches(self, group: int, row: int, batch_rows: int) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        """Yield the rows from *row* of row group *group* on, and the row group and row behind each batch."""
        # The first row behind each row group, counted from the start of the file.
        ends = list(accumulate(self._rows_in))
        start = ends[group] - self._rows_in[group] if group < len(ends) else sum(self._rows_in)
        skip, place = row, start
        for batch in self._decoded(range(group, len(ends)), batch_rows):
            place += batch.num_rows
            kept = batch.slice(skip)
            skip = max(0, skip - batch.num_rows)
            if kept.num_rows:
                at = bisect_right(ends, place)
                yield kept, at, place - (ends[at - 1] if at else 0)
        if place != sum(self._rows_in):
            raise SourceError(
                f"{self._path} is not a sound Parquet file: it has {place} rows where its footer says "
                f"{sum(self._rows_in)}"
            )

    def _decoded(self, groups: range, batch_rows: int) -> Iterator[pa.RecordBatch]:
        if not groups:
            return
        with readable(self._path, _WHAT):
            decoding = self._parquet.iter_batches(batch_size=batch_rows, row_groups=list(groups))
        while True:
            with readable(self._path, _WHAT):
                batch = next(decoding, None)
                if batch is None:
                    return
                batch.validate(full=True)
            yield batch
