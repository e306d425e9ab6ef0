"""What the mapping functions take and give: Arrow arrays, and scalars for constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

Values: TypeAlias = pa.Array | pa.Scalar
"""One value per row, or a constant (a scalar) that stands for every row."""


class WrongInput(Exception):
    """The configuration cannot work on this input schema; true for every row or for none."""


class ValueRefused(Exception):
    """A function cannot work on some value of the rows; the message names the function, never the value."""


def decoded(values: Values) -> Values:
    """Dictionary-encoded and view columns as plain ones, the only kinds all Arrow kernels know."""
    if pat.is_dictionary(values.type):
        return decoded(values.cast(values.type.value_type))
    if values.type == pa.string_view():
        return values.cast(pa.string())
    if values.type == pa.binary_view():
        return values.cast(pa.binary())
    return values


def as_array(values: Values, rows: int) -> pa.Array:
    """Constants are repeated once for each row."""
    return pa.repeat(values, rows) if isinstance(values, pa.Scalar) else values


def as_text(values: Values) -> Values:
    """Check that the column holds text; an untyped (all NULL) column counts as text."""
    if pat.is_null(values.type):
        return values.cast(pa.string())
    if not (pat.is_string(values.type) or pat.is_large_string(values.type)):
        raise WrongInput(f'takes text, not {values.type}; write {{"cast": [..., "string"]}}')
    return values


def is_number(data_type: pa.DataType) -> bool:
    return bool(pat.is_integer(data_type) or pat.is_floating(data_type) or pat.is_decimal(data_type))


def common_type(inputs: Sequence[Values]) -> pa.DataType:
    """The type that holds all inputs; constants follow the columns and decide only among themselves."""
    columns = [values.type for values in inputs if isinstance(values, pa.Array)]
    types = columns or [values.type for values in inputs]
    try:
        schemas = [pa.schema([("value", data_type)]) for data_type in types]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        names = ", ".join(dict.fromkeys(str(data_type) for data_type in types))
        raise WrongInput(f"takes values of one type, not of {names}; cast them to one type") from None


def convert_or_null(
    values: pa.Array,
    convert: Callable[[pa.Array], pa.Array],
    plausible: Callable[[pa.Array], pa.Array],
) -> pa.Array:
    """Convert; values that *convert* refuses with a ValueError become NULL.

    Arrow does not tell which values it refused. Those that *plausible* rules out are surely among them. To
    find the rest, the distinct values are halved until the refused ones stand alone: slow where they are many.
    """
    try:
        return convert(values)
    except ValueError:
        distinct = values.dictionary_encode()
        values = distinct.dictionary
        values = pc.if_else(plausible(values), values, pa.scalar(None, values.type))
        return _halved(values, convert).take(distinct.indices)


def _halved(values: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> pa.Array:
    try:
        return convert(values)
    except ValueError:
        if len(values) == 1:
            return pa.nulls(1, convert(values.slice(0, 0)).type)
        middle = len(values) // 2
        halves = (values.slice(0, middle), values.slice(middle))
        return pa.concat_arrays([_halved(half, convert) for half in halves])
