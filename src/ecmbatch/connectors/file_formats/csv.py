"""CSV: delimited text (RFC 4180 and its dialects). Types are inferred when a run is planned, and fixed then."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from ecmbatch.connectors.file_formats.csv_parser import COLUMNS_SETTING, CsvParser, header_names
from ecmbatch.connectors.file_formats.csv_records import CsvRecords
from ecmbatch.connectors.file_formats.csv_settings import CsvSettings
from ecmbatch.connectors.file_formats.file_format import (
    FileFormat,
    Place,
    SourceFile,
    check_columns,
    readable,
)
from ecmbatch.connectors.file_formats.text_blocks import Block, TextBlocks
from ecmbatch.connectors.file_formats.text_rows import TextRows
from ecmbatch.connectors.file_formats.text_stream import TextStream
from ecmbatch.connectors.file_formats.text_types import (
    ANYTHING,
    INSTANT,
    LOCAL_TIME,
    TEXT,
    Candidates,
    ColumnTypes,
    Notation,
    candidates,
)
from ecmbatch.errors import SourceError

_WHAT = "CSV file"
_ENCODING_SETTING = "csv.encoding"
_HEADER_BYTES = 64 * 1024
_NEWLINE = re.compile(rb"\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenedCsv:
    """A CSV file whose header was read: the names of its columns, and where its rows start."""

    path: str
    stream: TextStream
    names: Sequence[str]
    start: Place


class CsvFormat(FileFormat[Mapping[str, Candidates]]):
    """CSV files of one dialect."""

    def __init__(self, settings: CsvSettings) -> None:
        self._settings = settings
        self._declared = settings.types()
        self._records = CsvRecords(delimiter=settings.delimiter, quote=settings.quote, escape=settings.escape)

    def learn(self, file: SourceFile) -> Mapping[str, Candidates]:
        with readable(file.path, _WHAT):
            opened = self._opened(file)
            if all(name in self._declared for name in opened.names):
                return dict.fromkeys(opened.names, (TEXT,))
            return self._inferred(opened)

    def unite(self, learnt: Iterable[tuple[str, Mapping[str, Candidates]]]) -> pa.Schema:
        types = ColumnTypes(COLUMNS_SETTING, self._declared)
        for path, columns in learnt:
            types.add(path, columns)
        return types.schema()

    def batches(
        self, file: SourceFile, schema: pa.Schema, after: Place | None, batch_rows: int
    ) -> Iterator[tuple[pa.RecordBatch, Place]]:
        with readable(file.path, _WHAT):
            opened = self._opened(file)
            place = after or opened.start
            parser = self._parser(opened, {name: schema.field(name).type for name in opened.names})
            rows = self._rows(opened, parser, place)
        yield from rows.batches(schema, place, batch_rows)

    def _inferred(self, opened: _OpenedCsv) -> Mapping[str, Candidates]:
        parser = self._parser(opened, {})
        rows = self._rows(opened, parser, opened.start)
        sample = rows.blocks.sample(opened.start["offset"], opened.start["line"])
        if not sample.text:
            return dict.fromkeys(opened.names, ANYTHING)
        texts = rows.parsed(sample)
        notation = Notation(
            true_values=self._settings.true_values,
            false_values=self._settings.false_values,
            decimal_point=self._settings.decimal_point,
            iso_times=not self._settings.timestamp_formats,
        )
        found = {name: candidates(texts.column(name), notation) for name in opened.names}
        if self._settings.timestamp_formats:
            for name, types in found.items():
                if types == (TEXT,):
                    found[name] = self._times(parser, sample, name)
        return found

    def _times(self, parser: CsvParser, sample: Block, name: str) -> Candidates:
        """Return the types of times that the values of a column have in the declared formats."""
        return (*(kind for kind in (LOCAL_TIME, INSTANT) if parser.holds(sample.text, name, kind)), TEXT)

    def _parser(self, opened: _OpenedCsv, types: Mapping[str, pa.DataType]) -> CsvParser:
        return CsvParser(self._settings, self._records, opened.names, types)

    def _rows(self, opened: _OpenedCsv, parser: CsvParser, place: Place) -> TextRows:
        """Return the rows of the file, its stream moved to *place*."""
        opened.stream.skip_to(place["offset"])
        return TextRows(
            path=opened.path,
            what=_WHAT,
            blocks=self._blocks(opened.path, opened.stream),
            records=self._records,
            parser=parser,
        )

    def _opened(self, file: SourceFile) -> _OpenedCsv:
        offset = self._behind_skipped_lines(file)
        start: Place = {"offset": offset, "line": self._settings.skip_rows + 1, "row": 0}
        names: Sequence[str] = list(self._declared)
        if self._settings.header:
            names, start = self._header(file, start)
        check_columns(file.path, names)
        return _OpenedCsv(path=file.path, stream=self._stream(file), names=names, start=start)

    def _stream(self, file: SourceFile) -> TextStream:
        return TextStream(file, self._settings.encoding, _ENCODING_SETTING)

    def _behind_skipped_lines(self, file: SourceFile) -> int:
        """Return the offset behind the lines to skip."""
        offset, lines = 0, self._settings.skip_rows
        stream = self._stream(file)
        while lines and (text := stream.read(_HEADER_BYTES)):
            ends = [match.end() for match in islice(_NEWLINE.finditer(text), lines)]
            lines -= len(ends)
            offset += len(text) if lines else ends[-1]
        return offset

    def _header(self, file: SourceFile, start: Place) -> tuple[Sequence[str], Place]:
        """Return the names in the first record that is not empty, and the place behind it."""
        stream = self._stream(file)
        stream.skip_to(start["offset"])
        for block in self._blocks(file.path, stream).blocks(start["offset"], start["line"], _HEADER_BYTES):
            begin = 0
            for end in self._records.ends(block.text):
                if block.text[begin:end].strip(b"\r\n"):
                    header = Block.at(block.text[begin:end], block.offset + begin, block.line_of(begin))
                    return header_names(header.text, self._settings), header.place_behind()
                begin = end
        raise SourceError(
            f"{file.path} has no header",
            hint="leave it out of source.path, or set csv.header = false and declare csv.columns",
        )

    def _blocks(self, path: str, stream: TextStream) -> TextBlocks:
        return TextBlocks(path, stream, self._records, _ENCODING_SETTING)
