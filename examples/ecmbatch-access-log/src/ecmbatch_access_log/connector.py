"""The connector: which files a job reads, and how it goes on in the middle of one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from ecmbatch.connectors.columns import check_names, check_request
from ecmbatch.connectors.connector import (
    Connector,
    ConnectorType,
    Cursor,
    ReadPlan,
    ReadRequest,
    Scan,
    ScannedBatch,
)
from ecmbatch.connectors.scan_shares import shares
from ecmbatch.errors import SourceError
from ecmbatch.protocol.document import Section, parse_model
from ecmbatch.protocol.partitioning.partitions import keep
from pydantic import Field

from ecmbatch_access_log.blocks import BLOCK, LineTooLong
from ecmbatch_access_log.layout import COMBINED, Layout, Unreadable
from ecmbatch_access_log.log_files import LogFile, LogFolder

START: Cursor = {"file": 0, "byte": 0, "line": 0}


class AccessLogSettings(Section):
    """Settings under [connectors.NAME]."""

    root: Annotated[str, Field(min_length=1)]


class AccessLogConnector(Connector):
    """Lines of a log keep their places. A cursor is a file of the plan, and the bytes and lines read of it."""

    def __init__(
        self, settings: AccessLogSettings, folder: Path, *, layout: Layout = COMBINED, block: int = BLOCK
    ) -> None:
        self._files = LogFolder(folder / settings.root, block)
        self._layout = layout

    def plan(self, request: ReadRequest) -> ReadPlan:
        if request.order_by is not None:
            raise SourceError("a log is read in its own order", hint="leave source.order_by out")
        schema = self._layout.schema
        check_names(schema.names)
        check_request(schema, request)
        files = [file.document() for file in self._files.find(str(request.path))]
        scans = [
            Scan(
                number=number,
                partitions=partitions,
                resume="position" if request.resumable else "none",
                reason=(
                    "lines of a log keep their places"
                    if request.resumable
                    else "the job asks to replay partial partitions from their start"
                ),
                detail={"files": files},
            )
            for number, partitions in enumerate(shares(request, scans=1))
        ]
        return ReadPlan(schema=schema, scans=tuple(scans))

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        with closing(self._scanned(request, scan, after or START)) as batches:
            yield batches

    def ping(self) -> None:
        self._files.check()

    def _scanned(self, request: ReadRequest, scan: Scan, start: Cursor) -> Generator[ScannedBatch]:
        for rows, cursor in self._rows(_files(scan), start, request.batch_rows):
            batch = _of_scan(rows, request, scan)
            if batch.num_rows:
                yield ScannedBatch(batch, None if scan.resume == "none" else cursor)

    def _rows(
        self, files: Sequence[LogFile], start: Cursor, batch_rows: int
    ) -> Iterator[tuple[pa.RecordBatch, Cursor]]:
        byte, line = start["byte"], start["line"]
        for number in range(start["file"], len(files)):
            for batch, end in self._rows_of(files[number], byte, line, batch_rows):
                line += batch.num_rows
                yield batch, {"file": number, "byte": end, "line": line}
            byte, line = 0, 0

    def _rows_of(
        self, file: LogFile, byte: int, line: int, batch_rows: int
    ) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield rows from *byte* on, before which there are *line* lines, and the byte at which they end."""
        with closing(self._files.lines(file, byte)) as found:
            try:
                for lines in found:
                    for chunk, end in lines.chunks(batch_rows):
                        yield self._layout.parse(chunk), byte + end
                        line += len(chunk)
                    byte += lines.size
            except Unreadable as error:
                raise _refused(file, line + error.row, error.reason) from None
            except LineTooLong:
                raise _refused(file, line, "it is too long for a line") from None


def _refused(file: LogFile, line: int, reason: str) -> SourceError:
    return SourceError(
        f"{file.path}, line {line + 1}: {reason}",
        hint="correct the line, or have source.path leave the file out; then: ecmbatch run JOB --fresh",
    )


def _files(scan: Scan) -> list[LogFile]:
    return [LogFile.from_document(document) for document in scan.detail["files"]]


def _of_scan(batch: pa.RecordBatch, request: ReadRequest, scan: Scan) -> pa.RecordBatch:
    """Return the rows that are in the scan's partitions; the others are for other scans."""
    if request.partitioning is None or len(scan.partitions) == request.partitions:
        return batch
    return keep(batch, request.partitioning, scan.partitions)


def _parse(settings: Mapping[str, Any]) -> AccessLogSettings:
    return parse_model(AccessLogSettings, dict(settings), what="access_log connector")


ACCESS_LOG = ConnectorType(
    name="access_log", fields=frozenset({"path"}), parse_config=_parse, build=AccessLogConnector
)
