"""Reading files below one folder: Parquet, CSV and JSON lines.

One scan reads the files in the order of their paths; its cursor is the number of a file and a place in it, in the
words of its format. Which files those are, how they are written and what their columns are is frozen in the
plan: a resumed scan opens the right file, finds it unchanged, and parses nothing before its place.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
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
from ecmbatch.connectors.file_formats.csv_settings import CsvSettings
from ecmbatch.connectors.file_formats.file_format import SourceFile, readable
from ecmbatch.connectors.file_formats.formats import FormatChoice, FormatName, chosen_format
from ecmbatch.connectors.file_formats.json_settings import JsonSettings
from ecmbatch.connectors.file_formats.path_columns import check_apart, path_fields, with_path_columns
from ecmbatch.connectors.file_list import FrozenFile, check_unchanged, freeze, matching_files, open_frozen
from ecmbatch.connectors.scan_shares import shares
from ecmbatch.errors import SourceError
from ecmbatch.protocol.document import Section, parse_model
from ecmbatch.protocol.partitioning.partitions import keep


class FilesSource(Section):
    """Settings of a ``files`` connector: ``root``, relative to the project's folder, confines its jobs.

    ``format`` is that of files whose names do not tell; ``csv`` and ``json`` say how such files are written.
    """

    root: Annotated[str, Field(min_length=1)] = "data"
    format: FormatName | None = None
    path_columns: Literal["hive", "none"] = "hive"
    csv: CsvSettings = CsvSettings()
    json_: Annotated[JsonSettings, Field(alias="json")] = JsonSettings()


class FilesConnector(Connector):
    """Reads the files that ``source.path``, a glob below the root, names when a run is planned."""

    def __init__(self, settings: FilesSource, folder: Path) -> None:
        self._settings = settings
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
        paths = matching_files(self._root, request.path)
        choice = chosen_format(paths, self._settings.format, self._settings.csv, self._settings.json_)
        with readable(request.path, "path"):
            files = [freeze(self._root, path) for path in paths]
        schema = self._united(choice, files)
        check_names(schema.names)
        check_request(schema, request)
        resume, reason = _resume_kind(request)
        detail = {
            "files": [file.to_json() for file in files],
            "format": choice.to_json(),
            "schema": _schema_to_json(schema),
            "path_columns": self._settings.path_columns,
        }
        scans = [
            Scan(number=number, partitions=partitions, resume=resume, reason=reason, detail=detail)
            for number, partitions in enumerate(shares(request, scans=1))
        ]
        return ReadPlan(schema=schema, scans=tuple(scans))

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        batches = self._read(request, scan, after)
        try:
            yield batches
        finally:
            batches.close()

    def _read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Generator[ScannedBatch, None, None]:
        files = [FrozenFile.from_json(document) for document in scan.detail["files"]]
        first, place = (0, None) if after is None else _file_and_place(after)
        for number in range(first, len(files)):
            for batch, behind in self._batches(request.batch_rows, scan, files[number], place):
                rows = _of_scan(batch, request, scan)
                if rows.num_rows:
                    cursor = None if scan.resume == "none" else {"file": number, **behind}
                    yield ScannedBatch(rows, cursor)
            place = None

    def _batches(
        self, batch_rows: int, scan: Scan, file: FrozenFile, place: Mapping[str, int] | None
    ) -> Iterator[tuple[pa.RecordBatch, Mapping[str, int]]]:
        """Yield the rows of one file behind *place*, and the place behind each batch."""
        schema = _schema_from_json(scan.detail["schema"])
        file_format = FormatChoice.from_json(scan.detail["format"]).reader()
        from_path = path_fields([file.path]) if scan.detail["path_columns"] == "hive" else []
        in_file = pa.schema(list(schema)[: len(schema) - len(from_path)])
        with self._opened(file) as opened:
            for batch, behind in file_format.batches(opened, in_file, place, batch_rows):
                yield with_path_columns(batch, file.path, schema), behind
            check_unchanged(opened.opened, file)

    def _united(self, choice: FormatChoice, files: list[FrozenFile]) -> pa.Schema:
        """Return the columns of all files: those in them, then those that their folders name."""
        file_format = choice.reader()
        schema = file_format.unite((file.path, self._learn(file_format, file)) for file in files)
        if self._settings.path_columns == "none":
            return schema
        fields = path_fields([file.path for file in files])
        check_apart(schema, fields)
        return pa.schema([*schema, *fields])

    def _learn(self, file_format: Any, file: FrozenFile) -> Any:
        with self._opened(file) as opened:
            return file_format.learn(opened)

    @contextmanager
    def _opened(self, file: FrozenFile) -> Iterator[SourceFile]:
        with readable(file.path, "file"):
            opened = open_frozen(self._root, file)
        with opened:
            yield SourceFile(path=file.path, opened=opened)


def _of_scan(batch: pa.RecordBatch, request: ReadRequest, scan: Scan) -> pa.RecordBatch:
    """Return the rows of *batch* that are in the scan's partitions; others are for other scans."""
    if request.partitioning is None or len(scan.partitions) == request.partitions:
        return batch
    return keep(batch, request.partitioning, scan.partitions)


def _file_and_place(cursor: Cursor) -> tuple[int, Mapping[str, int]]:
    return cursor["file"], {name: value for name, value in cursor.items() if name != "file"}


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
