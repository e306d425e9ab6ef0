"""CSV records as Arrow rows with given types, and what is wrong with a record that is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from ecmbatch.connectors.file_formats.csv_records import CsvRecords
from ecmbatch.connectors.file_formats.csv_settings import CsvSettings
from ecmbatch.connectors.file_formats.text_problems import BadText, settle
from ecmbatch.connectors.file_formats.text_rows import Parser
from ecmbatch.connectors.file_formats.text_types import LOCAL_TIME, TEXT, check_precision
from ecmbatch.protocol.type_names import type_name

COLUMNS_SETTING = "csv.columns"

_BOM = "\ufeff".encode()
_ISO = "iso8601"
_ZERO, _MINUS, _NEWLINE = 48, 45, 10
_SLICE_BYTES = 128 * 1024
"""What is looked at byte by byte stays in the processor's cache: less than half the time of all at once."""

_INFINITY = r"(?i)^\s*[-+]?inf(inity)?\s*$"


class CsvParser(Parser):
    """Parses records of the columns *names*, each of its type in *types*, text where it has none."""

    def __init__(
        self,
        settings: CsvSettings,
        records: CsvRecords,
        names: Sequence[str],
        types: Mapping[str, pa.DataType],
    ) -> None:
        self._settings = settings
        self._records = records
        self._names = list(names)
        self.schema = pa.schema([(name, types.get(name, TEXT)) for name in names])
        # In a file of one column an empty line is a NULL; in others it is nothing.
        self._dialect = _dialect(settings, ignore_empty_lines=len(self._names) > 1)
        self._without_quotes = _dialect(
            settings, ignore_empty_lines=len(self._names) > 1, quote_char=False, newlines_in_values=False
        )
        self._conversion = self._conversion_to({field.name: field.type for field in self.schema})
        self._loses_zeros = np.array(
            [_is_number(f.type) and f.name not in settings.columns for f in self.schema]
        )
        self._takes_hexadecimal = np.array([pa.types.is_integer(field.type) for field in self.schema])
        self._floats = [field.name for field in self.schema if pa.types.is_floating(field.type)]

    def parse(self, text: bytes) -> pa.RecordBatch:
        if len(self._names) > 1 and text.isspace() and not text.strip(b"\r\n"):
            return pa.RecordBatch.from_pylist([], self.schema)
        # Arrow is faster when it need not look for quotes.
        has_marks = self._records.has_marks(text)
        rows = self._read(text, self._conversion, self._dialect if has_marks else self._without_quotes)
        if self._takes_hexadecimal.any() or self._loses_zeros.any():
            self._refuse_lost_digits(text)
        self._refuse_overflow(text, rows)
        self._refuse_days_that_are_none(text, rows)
        check_precision(rows)
        return pa.RecordBatch.from_arrays(
            [_fitted(rows.column(field.name), field.type) for field in self.schema], schema=self.schema
        )

    def describe(self, record: bytes) -> tuple[str, str | None]:
        found = self._fields_in(record)
        if found is not None:
            return (
                f"{found} fields where {len(self._names)} are expected",
                "quote fields that hold the delimiter, and check csv.delimiter, csv.quote and csv.escape",
            )
        for field in self.schema:
            if not self.holds(record, field.name, field.type):
                return (
                    f"the value in column '{field.name}' is no {type_name(field.type)}",
                    settle(COLUMNS_SETTING, is_declared=field.name in self._settings.columns),
                )
        return "the record cannot be read with the types of its columns", f"declare them in {COLUMNS_SETTING}"

    def holds(self, text: bytes, name: str, kind: pa.DataType) -> bool:
        """Tell whether the values of the column *name* are of type *kind*."""
        types = {each: kind if each == name else TEXT for each in self._names}
        alone = CsvParser(self._settings, self._records, self._names, types)
        try:
            alone.parse(text)
        except (pa.ArrowException, ValueError, BadText):
            return False
        return True

    def _conversion_to(
        self, types: Mapping[str, pa.DataType], only: Sequence[str] = ()
    ) -> pacsv.ConvertOptions:
        settings = self._settings
        formats = [pacsv.ISO8601 if each == _ISO else each for each in settings.timestamp_formats]
        as_read = {name: _as_read(kind, bool(formats)) for name, kind in types.items()}
        return pacsv.ConvertOptions(
            # Whoever cuts text into blocks has looked already.
            check_utf8=False,
            column_types=as_read,
            include_columns=list(only),
            null_values=list(settings.null_values),
            true_values=list(settings.true_values),
            false_values=list(settings.false_values),
            decimal_point=settings.decimal_point,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            timestamp_parsers=formats,
        )

    def _read(
        self, text: bytes, conversion: pacsv.ConvertOptions, dialect: pacsv.ParseOptions | None = None
    ) -> pa.RecordBatch:
        text = _as_arrow_reads(text)
        options = pacsv.ReadOptions(use_threads=False, column_names=self._names, block_size=len(text) + 1)
        table = pacsv.read_csv(pa.BufferReader(text), options, dialect or self._dialect, conversion)
        rows = table.combine_chunks().to_batches()
        return rows[0] if rows else pa.RecordBatch.from_pylist([], table.schema)

    def _fields_in(self, record: bytes) -> int | None:
        """Return how many fields the record has, ``None`` where it has as many as it must."""
        found: list[int] = []

        def note(row: pacsv.InvalidRow) -> str:
            found.append(row.actual_columns)
            return "skip"

        dialect = _dialect(self._settings, ignore_empty_lines=len(self._names) > 1, invalid_row_handler=note)
        self._read(record, self._conversion_to(dict.fromkeys(self._names, TEXT)), dialect)
        return found[0] if found else None

    def _refuse_lost_digits(self, text: bytes) -> None:
        """Refuse what Arrow would take for numbers: ``007`` where no type was declared, and ``0x7``."""
        zeros, is_decimal = _leading_zeros(text, self._settings.delimiter, self._settings.quote)
        if not len(zeros):
            return
        columns = self._records.columns_of(text, zeros, len(self._names))
        refused = np.where(is_decimal, self._loses_zeros[columns], self._takes_hexadecimal[columns])
        for position, column in zip(zeros[refused], columns[refused], strict=True):
            field = self.schema.field(int(column))
            raise BadText(
                int(position),
                f"the value in column '{field.name}' starts with a zero that {type_name(field.type)} would lose",
                settle(COLUMNS_SETTING, is_declared=field.name in self._settings.columns),
            )

    def _refuse_overflow(self, text: bytes, rows: pa.RecordBatch) -> None:
        """Refuse numbers that are too large for a float, which Arrow makes infinite."""
        infinite = [name for name in self._floats if pc.any(pc.is_inf(rows.column(name))).as_py()]
        if not infinite:
            return
        texts = self._read(text, self._conversion_to(dict.fromkeys(infinite, TEXT), infinite))
        for name in infinite:
            meant = pc.match_substring_regex(texts.column(name), _INFINITY)
            if pc.any(pc.and_not(pc.is_inf(rows.column(name)), meant)).as_py():
                raise ValueError("a number is too large")

    def _refuse_days_that_are_none(self, text: bytes, rows: pa.RecordBatch) -> None:
        """Refuse a 31 February in a declared format, which Arrow would take for 2 March."""
        formats = [each for each in self._settings.timestamp_formats if each != _ISO]
        if not formats:
            return
        for name in (field.name for field in rows.schema if pa.types.is_timestamp(field.type)):
            suspicious = _may_be_rolled_over(rows.column(name))
            if pc.any(suspicious).as_py():
                texts = self._read(text, self._conversion_to({name: TEXT}, [name]), self._dialect).column(
                    name
                )
                for value in pc.unique(texts.filter(suspicious)).to_pylist():
                    _check_day(value, formats, self._settings.timestamp_formats)


def header_names(header: bytes, settings: CsvSettings) -> list[str]:
    """Return the fields of the first record of *header*."""
    header = _as_arrow_reads(header)
    options = pacsv.ReadOptions(use_threads=False, block_size=len(header) + 1)
    names: list[str] = pacsv.read_csv(pa.BufferReader(header), options, _dialect(settings)).schema.names
    return names


def _as_arrow_reads(text: bytes) -> bytes:
    """Return *text* so that Arrow leaves nothing out.

    It takes an empty last field for quoted if the field before it is, and no last line for a header, unless the
    line ends; and it drops a byte order mark, which in the middle of a file is a character.
    """
    if not text.endswith(b"\n"):
        text += b"\n"
    return _BOM + text if text.startswith(_BOM) else text


def _dialect(settings: CsvSettings, **options: Any) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(
        delimiter=settings.delimiter,
        escape_char=settings.escape or False,
        **{"quote_char": settings.quote or False, "newlines_in_values": True, **options},
    )


def _may_be_rolled_over(times: pa.Array) -> pa.Array:
    """Return where a time may come from a day that its month does not have: then it is early in the next one."""
    if times.type.tz is not None:
        return times.is_valid()
    early = pc.less_equal(pc.day(times), 3)
    return pc.fill_null(pc.and_(early, pc.is_in(pc.month(times), pa.array([3, 5, 7, 10, 12]))), False)


def _check_day(value: str, formats: Sequence[str], all_formats: Sequence[str]) -> None:
    for each in formats:
        with suppress(ValueError):
            datetime.strptime(value.strip(), each)
            return
    if len(all_formats) == len(formats):
        raise ValueError("no such day")
    datetime.fromisoformat(value.strip())


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _as_read(kind: pa.DataType, has_formats: bool) -> pa.DataType:
    """Return the type to parse; Arrow knows formats for times, but not for dates."""
    return LOCAL_TIME if has_formats and pa.types.is_date(kind) else kind


def _fitted(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.type == kind:
        return values
    dates = values.cast(kind)
    if not dates.cast(values.type).equals(values):
        raise ValueError("a date has a time of day")
    return dates


def _leading_zeros(text: bytes, delimiter: str, quote: str) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return where fields start with a zero before another digit (true) or an x (false)."""
    content = np.frombuffer(text, np.uint8)
    marks = [ord(delimiter), *quote.encode()] if quote.encode() in text else [ord(delimiter)]
    # The first field has nothing before it.
    first = _zeros_behind(np.array([_NEWLINE, *content[:2]], np.uint8), marks)
    others = [
        _zeros_behind(content[at : at + _SLICE_BYTES + 2], marks) + at + 1
        for at in range(0, len(text), _SLICE_BYTES)
    ]
    zeros = np.concatenate([first, *others])
    zeros = zeros[zeros + 1 < len(content)]
    following = content[zeros + 1]
    is_decimal = (following - np.uint8(_ZERO)) < 10
    wanted = is_decimal | (following | 32 == ord("x"))
    return zeros[wanted], is_decimal[wanted]


def _zeros_behind(content: NDArray[np.uint8], marks: Sequence[int]) -> NDArray[np.intp]:
    """Return where, counted from the second byte on, behind a newline or one of *marks* a number starts with 0."""
    before, after = content[:-1], content[1:]
    starts = before == _NEWLINE
    for mark in marks:
        starts |= before == mark
    signed = np.flatnonzero(starts[:-1] & (after[:-1] == _MINUS)) + 1
    return np.concatenate((np.flatnonzero(starts & (after == _ZERO)), signed[after[signed] == _ZERO]))
