"""Functions of numbers; each keeps the type of its input, decimals included."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from ecmbatch.processors.field_mapper.values import WrongInput, is_number

_FLOATS_ARE_WHOLE_FROM = 2.0**52


def round_half_away(values: pa.Array, digits: int = 0) -> pa.Array:
    """SQL's rounding: 2.5 becomes 3 and -2.5 becomes -3."""
    numbers = _numbers(values)
    if pat.is_null(numbers.type):
        return numbers
    if pat.is_floating(numbers.type):
        return _round_floats(numbers.cast(pa.float64()), digits).cast(numbers.type)
    return _round(numbers, digits)


def absolute(values: pa.Array) -> pa.Array:
    numbers = _numbers(values)
    return numbers if pat.is_null(numbers.type) else pc.abs_checked(numbers)


def ceil(values: pa.Array) -> pa.Array:
    numbers = _numbers(values)
    return numbers if _is_whole(numbers.type) else pc.ceil(numbers)


def floor(values: pa.Array) -> pa.Array:
    numbers = _numbers(values)
    return numbers if _is_whole(numbers.type) else pc.floor(numbers)


def _round_floats(numbers: pa.Array, digits: int) -> pa.Array:
    """Arrow multiplies by 10**digits, which large floats do not survive; they have no fraction to round."""
    if digits <= 0:
        return _round(numbers, digits)
    is_whole = pc.greater_equal(pc.abs(numbers), _FLOATS_ARE_WHOLE_FROM)
    return pc.if_else(is_whole, numbers, _round(pc.if_else(is_whole, 0.0, numbers), digits))


def _round(numbers: pa.Array, digits: int) -> pa.Array:
    return pc.round(numbers, ndigits=digits, round_mode="half_towards_infinity")


def _numbers(values: pa.Array) -> pa.Array:
    if not (is_number(values.type) or pat.is_null(values.type)):
        raise WrongInput(f'takes numbers, not {values.type}; write {{"cast": [..., "float64"]}} or a decimal')
    return values


def _is_whole(data_type: pa.DataType) -> bool:
    return bool(pat.is_integer(data_type) or pat.is_null(data_type))
