"""The rows of a batch that a ``where`` predicate selects, for a rule or a filter; evaluated by Arrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ecmbatch.protocol.validation.columns import Column, find_column
from ecmbatch.protocol.validation.observation import Unobservable
from ecmbatch.protocol.validation.predicate import AllOf, AnyOf, Comparison, Not, Where
from ecmbatch.protocol.validation.rules import Stage

_COMPARE: dict[str, Callable[[pa.Array, pa.Scalar], pa.BooleanArray]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """``rows`` of a batch are selected: all of them, or those where ``mask`` is true."""

    rows: int
    mask: pa.BooleanArray | None = None

    def of(self, values: pa.Array) -> pa.Array:
        """The selected ones of *values*."""
        return values if self.mask is None else values.filter(self.mask)


def select(batch: pa.RecordBatch, where: Where | None, stage: Stage | None = None) -> Selection:
    """Return which rows of *batch* satisfy *where*; raises :class:`Unobservable`.

    *stage* says which rows a rule looks at, for the error's words.
    """
    if where is None:
        return Selection(rows=batch.num_rows)
    mask = pc.fill_null(_truth(batch, where, stage), False)
    return Selection(rows=mask.true_count, mask=mask)


def _truth(batch: pa.RecordBatch, where: Where, stage: Stage | None) -> pa.BooleanArray:
    """True, false, or null where that is unknown."""
    match where:
        case AllOf():
            return reduce(pc.and_kleene, [_truth(batch, part, stage) for part in where.parts])
        case AnyOf():
            return reduce(pc.or_kleene, [_truth(batch, part, stage) for part in where.parts])
        case Not():
            return pc.invert(_truth(batch, where.part, stage))
        case Comparison():
            return _compare(find_column(batch, where.field, stage), where)


def _compare(column: Column, comparison: Comparison) -> pa.BooleanArray:
    match comparison.op:
        case "is_null":
            return column.nulls()
        case "is_not_null":
            return pc.invert(column.nulls())
        case "in" | "not_in":
            return _is_among(column, comparison.value, wanted=comparison.op == "in")
    values = column.values()
    return _COMPARE[comparison.op](values, _scalar(comparison.value, values.type, column.name))


def _is_among(column: Column, listed: tuple[Any, ...], *, wanted: bool) -> pa.BooleanArray:
    values = column.values()
    known = pa.array([_scalar(item, values.type, column.name).as_py() for item in listed], values.type)
    found = pc.is_in(values, value_set=known)
    return pc.if_else(pc.is_valid(values), found if wanted else pc.invert(found), pa.scalar(None, pa.bool_()))


def _scalar(value: Any, kind: pa.DataType, name: str) -> pa.Scalar:
    """*value* in the column's own type; types are not mixed and nothing is rounded away silently."""
    for is_kind, accepted, described in _KINDS:
        if is_kind(kind):
            if type(value) not in accepted:
                raise Unobservable(f"column '{name}' is {kind}; its value in 'where' must be {described}")
            return _cast(value, kind, name)
    raise Unobservable(f"column '{name}' is {kind}, which 'where' can only ask for null")


def _cast(value: Any, kind: pa.DataType, name: str) -> pa.Scalar:
    try:
        if pa.types.is_temporal(kind):
            return pa.array([value]).cast(kind)[0]
        if pa.types.is_decimal(kind):
            return pa.scalar(Decimal(repr(value)), kind)
        return pa.scalar(value, kind)
    except (pa.ArrowInvalid, OverflowError) as reason:
        zone = " with a zone" if pa.types.is_timestamp(kind) and kind.tz else ""
        raise Unobservable(
            f"a value in 'where' cannot be read as {kind}{zone}, the type of '{name}'"
        ) from reason


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


_KINDS: tuple[tuple[Callable[[pa.DataType], bool], tuple[type, ...], str], ...] = (
    (pa.types.is_boolean, (bool,), "true or false"),
    (pa.types.is_integer, (int,), "a whole number"),
    (pa.types.is_floating, (int, float), "a number"),
    (pa.types.is_decimal, (int, float), "a number"),
    (_is_text, (str,), "a text"),
    (_is_time, (str,), "a text such as '2024-01-15' or '2024-01-15T03:45:00Z'"),
)
