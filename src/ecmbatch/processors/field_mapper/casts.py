"""``cast``: a value of another type, or a refusal; never a silently damaged value."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from ecmbatch.processors.field_mapper.values import Values, WrongInput, common_type, convert_or_null

_UINT64_DIGITS = 20
_WRITTEN_LIKE: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pat.is_integer, r"^-?(\d+|0[xX][\da-fA-F]+)$"),
    (pat.is_floating, r"^[-+]?(\d|\.\d|(?i:nan|inf))"),
    (pat.is_decimal, r"^[-+]?\.?\d"),
    (pat.is_temporal, r"^\d{4}-\d\d-\d\d"),
)
"""How text starts that numbers and times can be read from; more may follow than can be read."""


def cast(values: pa.Array, data_type: pa.DataType, null_on_error: bool = False) -> pa.Array:
    if null_on_error:
        return convert_or_null(
            values, lambda part: safe_cast(part, data_type), lambda part: _plausible(part, data_type)
        )
    return safe_cast(values, data_type)


def _plausible(values: pa.Array, data_type: pa.DataType) -> pa.Array:
    """False for values that cannot be cast; true for all that can, and for some that cannot."""
    if pat.is_floating(values.type) and pat.is_integer(data_type):
        return pc.equal(pc.floor(values), values)
    if pat.is_string(values.type) or pat.is_large_string(values.type):
        pattern = next((pattern for is_kind, pattern in _WRITTEN_LIKE if is_kind(data_type)), "")
        return pc.match_substring_regex(values, pattern=pattern)
    return pa.repeat(True, len(values))


def safe_cast(values: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Arrow's checked cast, with its two gaps closed. Raise ValueError for a value that does not fit."""
    if pat.is_integer(values.type) and pat.is_decimal(data_type):
        # Arrow judges by the integer's type (int64 would need 19 digits), we by the values.
        wide = pa.decimal256(_UINT64_DIGITS + data_type.scale, data_type.scale)
        return values.cast(wide).cast(data_type)
    result = values.cast(data_type)
    if pat.is_float32(data_type) and pat.is_float64(values.type):
        # Arrow turns a float64 that is too large into infinity.
        overflown = pc.and_(pc.is_inf(result), pc.is_finite(values))
        if pc.any(overflown).as_py():
            raise ValueError("too large for float32")
    return result


def fitted(values: Values, data_type: pa.DataType) -> Values:
    """A column or constant as *data_type*, which :func:`common_type` found."""
    if not isinstance(values, pa.Scalar):
        return safe_cast(values, data_type)
    try:
        return safe_cast(pa.repeat(values, 1), data_type)[0]
    except (ValueError, pa.ArrowNotImplementedError):
        raise WrongInput(f"has a {values.type} constant that cannot be taken as {data_type}") from None


def coalesce(*inputs: Values) -> Values:
    """The first value that is not NULL."""
    data_type = common_type(inputs)
    return pc.coalesce(*(fitted(values, data_type) for values in inputs))


def nullif(values: Values, other: Values) -> Values:
    """NULL where both are equal, else *values*, whose type is kept."""
    data_type = common_type([values, other])
    equal = pc.equal(fitted(values, data_type), fitted(other, data_type))
    return pc.if_else(pc.fill_null(equal, False), pa.scalar(None, values.type), values)
