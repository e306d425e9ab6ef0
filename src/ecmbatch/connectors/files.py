"""Reading Parquet files below one folder.

One scan reads the files in the order of their paths, row group by row group; its cursor is the place of the
next row, so that a resumed scan opens the right file and decodes nothing before the row group it was in.
Files are hostile until read: whatever they make the reader raise becomes an error that names the file, and
every batch is checked in full (offsets, UTF-8) before it is handed on.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from ecmbatch.connectors.columns import check_names, check_request
from ecmbatch.connectors.connector import (
    Connector,
    ConnectorType,
    Cursor,
    ReadPlan,
    ReadRequest,
    ResumeKind,
    Scan,
    ScannedBatch,
)
from ecmbatch.connectors.file_list import FrozenFile, check_unchanged, freeze, matching_files, open_frozen
from ecmbatch.connectors.parquet_schema import fitted, united
from ecmbatch.errors import EcmbatchError, SourceError, Unreachable
from ecmbatch.protocol.document import Section, parse_model

_READ_AHEAD_BYTES = 1024 * 1024
"""Column chunks are read through buffers of this size, not as a whole."""


class FilesSource(Section):
    """Settings of a ``files`` connector: ``root``, relative to the project's folder, confines its jobs."""

    root: Annotated[str, Field(min_length=1)] = "data"


class FilesConnector(Connector):
    """Reads the Parquet files that ``source.path``, a glob below the root, names when a run is planned."""

    def __init__(self, settings: FilesSource, folder: Path) -> None:
        self._root = (folder / Path(settings.root).expanduser()).resolve()

    def plan(self, request: ReadRequest) -> ReadPlan:
        assert request.path is not None  # a request names one of those that FILES.fields lists
        if not self._root.is_dir():
            raise SourceError(
                f"there is no folder {self._root}",
                hint="the connector's 'root' is relative to the project's folder, 'data' by default",
            )
        if request.order_by is not None:
            raise SourceError(
                "files are read in their own order; source.order_by has no use", hint="leave it out"
            )
        with _readable(request.path):
            files = [freeze(self._root, path) for path in matching_files(self._root, request.path)]
        schema = united((file.path, self._schema_of(file)) for file in files)
        check_names(schema.names)
        check_request(schema, request)
        resume, reason = _resume_kind(request)
        scan = Scan(
            number=0,
            partitions=tuple(range(request.partitions)),
            resume=resume,
            reason=reason,
            detail={"files": [file.to_json() for file in files], "schema": _schema_to_json(schema)},
        )
        return ReadPlan(schema=schema, scans=(scan,))

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        batches = self._read(request.batch_rows, scan, after)
        try:
            yield batches
        finally:
            batches.close()

    def _read(self, batch_rows: int, scan: Scan, after: Cursor | None) -> Generator[ScannedBatch, None, None]:
        schema = _schema_from_json(scan.detail["schema"])
        files = [FrozenFile.from_json(document) for document in scan.detail["files"]]
        first = 0 if after is None else int(after["file"])
        for number in range(first, len(files)):
            group, row = (int(after["row_group"]), int(after["row"])) if after and number == first else (0, 0)
            with self._opened(files[number]) as file, _ParquetRows(files[number].path, file) as rows:
                for batch, group_after, row_after in rows.batches(group, row, batch_rows):
                    with _readable(files[number].path):
                        ready = fitted(batch, schema)
                    place = {"file": number, "row_group": group_after, "row": row_after}
                    yield ScannedBatch(ready, None if scan.resume == "none" else place)
                check_unchanged(file, files[number])

    def _schema_of(self, file: FrozenFile) -> pa.Schema:
        with self._opened(file) as opened, _ParquetRows(file.path, opened) as rows:
            return rows.schema

    @contextmanager
    def _opened(self, file: FrozenFile) -> Iterator[BinaryIO]:
        with _readable(file.path):
            opened = open_frozen(self._root, file)
        with opened:
            yield opened


class _ParquetRows:
    """The rows of one Parquet file, which may be broken in any way."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        with _readable(path):
            self._parquet = pq.ParquetFile(file, buffer_size=_READ_AHEAD_BYTES, pre_buffer=False)
            self.schema: pa.Schema = self._parquet.schema_arrow.remove_metadata()
            metadata = self._parquet.metadata
            self._rows_in = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
            if min(self._rows_in, default=0) < 0 or sum(self._rows_in) != metadata.num_rows:
                raise SourceError(f"{path} is not a sound Parquet file: its row counts disagree")
            check_names(self.schema.names)

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
        with _readable(self._path):
            decoding = self._parquet.iter_batches(batch_size=batch_rows, row_groups=list(groups))
        while True:
            with _readable(self._path):
                batch = next(decoding, None)
                if batch is None:
                    return
                batch.validate(full=True)
            yield batch


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn whatever a broken file makes the reader raise into an error that names the file."""
    try:
        yield
    except EcmbatchError:
        raise
    except PermissionError as error:
        raise Unreachable(f"the source file {path} cannot be read: {error.strerror}") from error
    except Exception as error:
        raise SourceError(
            f"{path} is not a sound Parquet file ({type(error).__name__})",
            hint="write it again, or leave it out of source.path",
        ) from error


def _resume_kind(request: ReadRequest) -> tuple[ResumeKind, str]:
    if not request.resumable:
        return "none", "the job asks to replay partial partitions from their start"
    return "position", "rows of a file keep their places"


def _schema_to_json(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize()).decode("ascii")


def _schema_from_json(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _parse_config(settings: Any) -> FilesSource:
    return parse_model(FilesSource, dict(settings), what="connector")


FILES = ConnectorType(
    name="files", fields=frozenset({"path"}), parse_config=_parse_config, build=FilesConnector
)
