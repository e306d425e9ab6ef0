"""Rows of Python values as Arrow columns: exactly, or not at all.

A database driver that is not made for Arrow gives a tuple for each row. Columns are made from whole batches;
what kinds of values a column has is looked at first, since Arrow by itself would take bytes for text, drop
the time of day of a ``datetime`` among dates, and forget a zone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from types import NoneType
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator

from ecmbatch.errors import Problem
from ecmbatch.protocol.document import pointer, refusal
from ecmbatch.protocol.type_names import parse_type_name, type_name

UUIDS = pa.uuid()


def _types_exist(columns: dict[str, str]) -> dict[str, str]:
    problems = []
    for name, kind in columns.items():
        try:
            parse_type_name(kind)
        except ValueError as error:
            problems.append(Problem(pointer([name]), str(error)))
    if problems:
        raise refusal(*problems)
    return columns


DeclaredColumns = Annotated[dict[str, str], AfterValidator(_types_exist)]
"""A setting: the types of columns by their names, in the words of :mod:`ecmbatch.protocol.type_names`."""

_DATE = r"\d{4}-\d\d-\d\d"
_TIME = r"\d\d:\d\d:\d\d(\.\d{1,9})?"
_DATES = rf"^{_DATE}$"
_TIMES = rf"^{_TIME}$"
_MOMENTS = rf"^{_DATE}[ T]{_TIME}$"
_ZONED_MOMENTS = rf"^{_DATE}[ T]{_TIME}(Z|[+-]\d\d(:?\d\d)?)$"

_Kinds = frozenset[type]
_Values = Sequence[Any]

_CALLED: Mapping[type, str] = {
    bool: "a truth value",
    int: "a whole number",
    float: "a floating-point number",
    Decimal: "a decimal",
    str: "a text",
    bytes: "bytes",
    date: "a date",
    datetime: "a timestamp",
    time: "a time",
    UUID: "a UUID",
}


_WITHOUT_A_NAME = {str(kind): kind for kind in (pa.null(), pa.time64("us"), UUIDS)}


def remembered_kind(name: str) -> pa.DataType:
    """Return the type of which :func:`~ecmbatch.protocol.type_names.type_name` is *name*, of those that columns
    here can have."""
    return _WITHOUT_A_NAME[name] if name in _WITHOUT_A_NAME else parse_type_name(name)


class Misfit(Exception):
    """A value that its column's type cannot hold: ``column``, its ``kind``, and what was ``found``, in words
    that do not repeat the value."""

    def __init__(self, column: str, kind: pa.DataType, found: str) -> None:
        super().__init__(f"column '{column}' is read as {type_name(kind)}, and a row has {found} there")
        self.column = column
        self.kind = kind
        self.found = found


class _Unfit(Exception):
    """A column cannot be made from values of these kinds."""


def batches_of(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield *rows*, at least one, in the columns of *schema*; in several batches where texts or bytes of one
    would be more than Arrow's 2 GiB.

    Raises :class:`Misfit` where a value does not fit its column.
    """
    columns = [
        column_of(field.name, values, field.type)
        for field, values in zip(schema, zip(*rows, strict=True), strict=True)
    ]
    if any(isinstance(column, pa.ChunkedArray) for column in columns):
        half = len(rows) // 2
        yield from batches_of(rows[:half], schema)
        yield from batches_of(rows[half:], schema)
    else:
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def column_of(name: str, values: _Values, kind: pa.DataType) -> pa.Array:
    """Return *values* as a column of type *kind*; raises :class:`Misfit` where one of them does not fit."""
    kinds = frozenset(map(type, values)) - {NoneType}
    try:
        return _maker(kind)(values, kinds, kind) if kinds else _nulls(len(values), kind)
    except _Unfit as misfit:
        raise Misfit(name, kind, str(misfit)) from None
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        # Arrow's errors are among these, and quote the value.
        raise Misfit(name, kind, f"{called(kinds)} that does not fit") from None


def called(kinds: _Kinds) -> str:
    """Return the words for values of these Python types."""
    return " or ".join(sorted(_CALLED.get(each, f"a value of type {each.__name__}") for each in kinds))


def _nulls(count: int, kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.nulls(count, kind.storage_type))
    return pa.nulls(count, kind)


def _only(kinds: _Kinds, *allowed: type) -> None:
    others = kinds.difference(allowed)
    if others:
        raise _Unfit(called(others))


def _integers(values: _Values, kinds: _Kinds, kind: pa.DataType) -> pa.Array:
    _only(kinds, int, Decimal)
    return pa.array(values, kind) if kinds == {int} else pa.array(values).cast(kind)


def _floats(values: _Values, kinds: _Kinds, kind: pa.DataType) -> pa.Array:
    _only(kinds, float, int, Decimal)
    # Whole numbers that a float cannot hold are refused, by Arrow.
    made = pa.array(values, pa.float64()) if Decimal not in kinds else _rounded(values)
    return made.cast(kind, safe=False)


def _rounded(values: _Values) -> pa.Array:
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def _decimals(values: _Values, kinds: _Kinds, kind: pa.DataType) -> pa.Array:
    _only(kinds, int, float, Decimal, str)
    if kinds <= {int, Decimal}:
        return pa.array(values, kind)
    # The shortest digits that mean the float: what was written, up to fifteen of them.
    return pa.array([None if value is None else str(value) for value in values], pa.string()).cast(kind)


def _booleans(values: _Values, kinds: _Kinds, _kind: pa.DataType) -> pa.Array:
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    _only(kinds, int)
    numbers = pa.array(values, pa.int64())
    if not pc.all(pc.is_in(numbers, pa.array([0, 1, None], pa.int64()))).as_py():
        raise _Unfit("a number other than 0 and 1")
    return numbers.cast(pa.bool_())


def _texts(values: _Values, kinds: _Kinds, kind: pa.DataType) -> pa.Array:
    _only(kinds, str)
    return pa.array(values, kind)


def _bytes(values: _Values, kinds: _Kinds, kind: pa.DataType) -> pa.Array:
    _only(kinds, bytes, bytearray, memoryview)
    return pa.array(values, kind)


def _dates(values: _Values, kinds: _Kinds, kind: pa.DataType) -> pa.Array:
    if kinds == {date}:
        return pa.array(values, kind)
    _only(kinds, str)
    return _written(values, _DATES, "2024-01-31").cast(kind)


def _times(values: _Values, kinds: _Kinds, kind: pa.DataType) -> pa.Array:
    if kinds == {time}:
        if any(value is not None and value.tzinfo is not None for value in values):
            raise _Unfit("a time with a zone")
        return pa.array(values, kind)
    _only(kinds, str)
    texts = _written(values, _TIMES, "23:59:59")
    # Arrow reads timestamps, not times; all these are of one day.
    on_a_day = pc.binary_join_element_wise("1970-01-01", texts, "T")
    return on_a_day.cast(pa.timestamp(kind.unit)).cast(kind)


def _moments(values: _Values, kinds: _Kinds, kind: pa.DataType) -> pa.Array:
    zoned = kind.tz is not None
    if kinds == {datetime}:
        if any(value is not None and (value.tzinfo is not None) != zoned for value in values):
            raise _Unfit("a time without a zone" if zoned else "a time with a zone")
        return pa.array(values, pa.timestamp("us", kind.tz)).cast(kind)
    _only(kinds, str)
    if zoned:
        return _written(values, _ZONED_MOMENTS, "2024-01-31T23:59:59Z").cast(kind)
    return _written(values, _MOMENTS, "2024-01-31 23:59:59").cast(kind)


def _written(values: _Values, pattern: str, example: str) -> pa.Array:
    """Return texts, all of which are written like *example*."""
    texts = pa.array(values, pa.string())
    if not pc.all(pc.match_substring_regex(texts, pattern)).as_py():
        raise _Unfit(f"a text that is not written like {example}")
    return texts


def _uuids(values: _Values, kinds: _Kinds, kind: pa.DataType) -> pa.Array:
    _only(kinds, UUID, str)
    read = [None if value is None else value if type(value) is UUID else UUID(value) for value in values]
    stored = pa.array([None if value is None else value.bytes for value in read], kind.storage_type)
    return pa.ExtensionArray.from_storage(kind, stored)


class _Making(NamedTuple):
    is_kind: Callable[[pa.DataType], bool]
    make: Callable[[_Values, _Kinds, pa.DataType], pa.Array]


def _no_values(_values: _Values, kinds: _Kinds, _kind: pa.DataType) -> pa.Array:
    raise _Unfit(called(kinds))


_MAKING = (
    _Making(pa.types.is_null, _no_values),
    _Making(pa.types.is_boolean, _booleans),
    _Making(pa.types.is_integer, _integers),
    _Making(pa.types.is_floating, _floats),
    _Making(pa.types.is_decimal, _decimals),
    _Making(pa.types.is_string, _texts),
    _Making(pa.types.is_binary, _bytes),
    _Making(pa.types.is_date, _dates),
    _Making(pa.types.is_time, _times),
    _Making(pa.types.is_timestamp, _moments),
)


def _maker(kind: pa.DataType) -> Callable[[_Values, _Kinds, pa.DataType], pa.Array]:
    if kind == UUIDS:
        return _uuids
    return next(making.make for making in _MAKING if making.is_kind(kind))
