"""What a line of a log holds: a pattern that takes it apart, and columns made of the parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

Parts = Mapping[str, pa.Array]

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTH_NAMES = pa.array(MONTHS)
MONTH_NUMBERS = pa.array([f"{number:02}" for number in range(1, 13)])


class Unreadable(Exception):
    """A line does not fit the layout. It never holds what the line says."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the result, made of the parts of all lines at once."""

    type: pa.DataType
    decode: Callable[[Parts], pa.Array]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One kind of log. The pattern is of RE2, names its parts, and matches a line without its end."""

    name: str
    pattern: str
    columns: Mapping[str, Column]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(name, column.type) for name, column in self.columns.items()])

    def parse(self, lines: pa.Array) -> pa.RecordBatch:
        """Return the rows of *lines*, binary values; raise :class:`Unreadable` for the first that is none."""
        try:
            return self._rows(lines)
        except Unreadable:
            row = self._first_unreadable(lines)
        try:
            self._rows(lines.slice(row, 1))
        except Unreadable as error:
            raise Unreadable(row, error.reason) from None
        raise AssertionError("the line can be read by itself")

    def _rows(self, lines: pa.Array) -> pa.RecordBatch:
        try:
            texts = lines.cast(pa.string())
        except pa.ArrowInvalid:
            raise Unreadable(0, "it is not UTF-8") from None
        found = pc.extract_regex(texts, rf"\A(?:{self.pattern})\r?\n?\z")
        if found.null_count:
            raise Unreadable(0, f"it is not in the {self.name}")
        parts = dict(zip((field.name for field in found.type), found.flatten(), strict=True))
        arrays = [_decoded(name, column, parts) for name, column in self.columns.items()]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _first_unreadable(self, lines: pa.Array) -> int:
        """Return the first row that cannot be read, by halving."""
        first, count = 0, len(lines)
        while count > 1:
            half = count // 2
            try:
                self._rows(lines.slice(first, half))
            except Unreadable:
                count = half
            else:
                first += half
                count -= half
        return first


def text(part: str) -> Column:
    """Return a column of what the server wrote."""
    return Column(type=pa.string(), decode=lambda parts: parts[part])


def optional_text(part: str) -> Column:
    """Return a column of what the server wrote, NULL for ``-``."""
    return Column(type=pa.string(), decode=lambda parts: null_if(parts[part], "-"))


def number(part: str, kind: pa.DataType) -> Column:
    """Return a column of numbers, NULL for ``-``."""
    return Column(type=kind, decode=lambda parts: null_if(parts[part], "-").cast(kind))


def null_if(values: pa.Array, absent: str) -> pa.Array:
    return pc.if_else(pc.equal(values, absent), pa.scalar(None, values.type), values)


def _decoded(name: str, column: Column, parts: Parts) -> pa.Array:
    try:
        return column.decode(parts)
    except pa.ArrowInvalid:
        # Arrow's message quotes the value; ours must not.
        raise Unreadable(0, f"its {name} cannot be read") from None


def _time(parts: Parts) -> pa.Array:
    month = pc.take(MONTH_NUMBERS, pc.index_in(parts["month"], MONTH_NAMES))
    date = pc.binary_join_element_wise(parts["year"], month, parts["day"], "-")
    instant = pc.binary_join_element_wise(date, "T", parts["clock"], parts["zone"], "")
    return instant.cast(pa.timestamp("us", "UTC"))


def _path(parts: Parts) -> pa.Array:
    """Return the path; of a request that is not HTTP all of it, as it came."""
    return pc.coalesce(null_if(parts["path"], ""), null_if(parts["request"], "-"))


# A quoted text; servers put a backslash before a quote that is part of it.
_QUOTED = r'(?:[^"\\\n]|\\.)*'
_COMBINED = (
    r"(?P<host>[^ \n]+) (?P<identity>[^ \n]+) (?P<user>[^\n]+?) "
    rf"\[(?P<day>[0-9]{{2}})/(?P<month>{'|'.join(MONTHS)})/(?P<year>[0-9]{{4}})"
    r":(?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2}) (?P<zone>[+-][0-9]{4})\] "
    r'"(?:(?P<method>[A-Za-z0-9_-]+) (?P<path>(?:[^"\\\n]|\\.)+?)(?: (?P<protocol>HTTP/[0-9.]+))?'
    rf'|(?P<request>{_QUOTED}))" '
    r"(?P<status>[0-9]{3}) (?P<bytes>[0-9]{1,18}|-) "
    rf'"(?P<referrer>{_QUOTED})" "(?P<user_agent>{_QUOTED})"'
)

COMBINED = Layout(
    name="Combined Log Format",
    pattern=_COMBINED,
    columns={
        "host": text("host"),
        "identity": optional_text("identity"),
        "user": optional_text("user"),
        "time": Column(type=pa.timestamp("us", "UTC"), decode=_time),
        "method": Column(type=pa.string(), decode=lambda parts: null_if(parts["method"], "")),
        "path": Column(type=pa.string(), decode=_path),
        "protocol": Column(type=pa.string(), decode=lambda parts: null_if(parts["protocol"], "")),
        "status": number("status", pa.int16()),
        "bytes": number("bytes", pa.int64()),
        "referrer": optional_text("referrer"),
        "user_agent": optional_text("user_agent"),
    },
)
