"""Columns as Python objects and back, without a value that changes on the way.

Arrow itself would make 1 of 1.5, take a time without a zone for UTC, and cut off what is finer than a
column's unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from numbers import Integral, Real
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.types as pat


class UnfitValue(Exception):
    """A value that has no place in a column, described without the value itself: ``"a str"``."""


def as_python(column: pa.Array) -> list[Any]:
    """Return the values as Python objects. Raise :class:`UnfitValue` for those that Python has none for."""
    try:
        # Python counts in microseconds: the cast refuses what it would lose.
        objects: list[Any] = column.cast(_in_microseconds(column.type)).to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        raise UnfitValue("a value that no Python object can stand for") from None
    return objects


def as_column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return *values* as a column of type *kind*. Raise :class:`UnfitValue` where one does not fit."""
    _check(values, kind)
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        raise UnfitValue("a value that does not fit") from None


def can_hold_python(kind: pa.DataType) -> bool:
    """Whether :func:`as_column` can make columns of type *kind*."""
    try:
        as_column([], kind)
    except UnfitValue:
        return False
    return True


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    if pat.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pat.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    return pa.time64("us") if kind == pa.time64("ns") else kind


def _check(values: Sequence[Any], kind: pa.DataType) -> None:
    if pat.is_dictionary(kind) or pat.is_run_end_encoded(kind):
        _check(values, kind.value_type)
        return
    accepted, refused = _classes(kind)
    for found in set(map(type, values)) - {type(None)}:
        if not issubclass(found, accepted) or issubclass(found, refused):
            raise UnfitValue(f"a {found.__name__}")
    if pat.is_nested(kind):
        _check_within([value for value in values if value is not None], kind)
    elif pat.is_timestamp(kind) or pat.is_time(kind) or pat.is_duration(kind):
        _check_times([value for value in values if value is not None], kind)


def _check_times(values: Sequence[Any], kind: pa.DataType) -> None:
    if pat.is_duration(kind):
        finer = (value.microseconds for value in values)
    else:
        has_zone = pat.is_timestamp(kind) and kind.tz is not None
        if any((value.tzinfo is not None) != has_zone for value in values):
            raise UnfitValue(f"a time {'without' if has_zone else 'with'} a time zone")
        finer = (value.microsecond for value in values)
    step = {"s": 1_000_000, "ms": 1_000}.get(kind.unit, 1)
    if step > 1 and any(microseconds % step for microseconds in finer):
        raise UnfitValue("a time finer than that")


def _check_within(values: Sequence[Any], kind: pa.DataType) -> None:
    if pat.is_struct(kind):
        names = {field.name for field in kind}
        if any(value.keys() - names for value in values):
            raise UnfitValue("a dict with keys that the struct does not have")
        for field in kind:
            _check([value.get(field.name) for value in values], field.type)
    elif pat.is_map(kind):
        pairs = list(chain.from_iterable(values))
        if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise UnfitValue("a list of something else than (key, value)")
        _check([key for key, _ in pairs], kind.key_type)
        _check([item for _, item in pairs], kind.item_type)
    else:
        _check(list(chain.from_iterable(values)), kind.value_type)


_Classes = tuple[type, ...]
_CLASSES: tuple[tuple[Callable[[pa.DataType], bool], _Classes, _Classes], ...] = (
    (pat.is_null, (), ()),
    (pat.is_boolean, (bool,), ()),
    (pat.is_integer, (Integral,), (bool,)),
    (pat.is_floating, (Real,), (bool,)),
    (pat.is_decimal, (Decimal, Integral), (bool,)),
    (lambda kind: pat.is_string(kind) or pat.is_large_string(kind) or pat.is_string_view(kind), (str,), ()),
    (
        lambda kind: (
            pat.is_binary(kind)
            or pat.is_large_binary(kind)
            or pat.is_binary_view(kind)
            or pat.is_fixed_size_binary(kind)
        ),
        (bytes,),
        (),
    ),
    (pat.is_date, (date,), (datetime,)),
    (pat.is_time, (time,), ()),
    (pat.is_timestamp, (datetime,), ()),
    (pat.is_duration, (timedelta,), ()),
    (pat.is_struct, (dict,), ()),
    (pat.is_map, (list,), ()),
    (
        lambda kind: pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind),
        (list, tuple),
        (),
    ),
    (lambda kind: kind == pa.uuid(), (UUID,), ()),
    (lambda kind: kind == pa.json_(), (str,), ()),
)
"""For each kind of types: the classes of its values, and which of their subclasses are not meant."""


def _classes(kind: pa.DataType) -> tuple[_Classes, _Classes]:
    for is_kind, accepted, refused in _CLASSES:
        if is_kind(kind):
            return accepted, refused
    raise UnfitValue("a value of any kind")
