"""How the columns of a table must change before staged rows fit, decided from two schemas alone.

A column never loses values: a staged type goes into a stored type that holds every value of it (``int8`` into
``int64``); else the column is widened to the smallest type that holds every value of both (``int32`` and
``uint32`` become ``int64``); else the rows are refused by name. No column gets narrower or is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from pyarrow import types

from ecmbatch.stores.store import PROVENANCE_COLUMN, TableChange, WidenedColumn

_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
_UNSIGNED_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
_MOST_DIGITS = 38
_EXACT_INTEGER_BITS = {16: 11, 32: 24, 64: 53}
"""Bits of a float's width, and how many bits of an integer it holds exactly."""
_TIME_UNITS = ("s", "ms", "us", "ns")
_WIDER_NUMBERS = (
    pa.int16(),
    pa.uint16(),
    pa.int32(),
    pa.uint32(),
    pa.int64(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
)
"""What two numbers are widened to, decimals apart: the first that holds both."""


def schema_change(
    stored: pa.Schema,
    staged: pa.Schema,
    *,
    evolve: bool,
    provenance: bool,
    same_name: Callable[[str], str] = str,
) -> tuple[TableChange, list[str]]:
    """Decide how a table with the columns *stored* takes rows with the columns *staged*.

    Returns the change and, as sentences, what is against it; with any, nothing may be published. *same_name*
    brings names into the form in which the store compares them. With *provenance* the column
    ``_ecm_run_id`` must be there or be added, as any new column.
    """
    stored_fields = {same_name(field.name): field for field in stored}
    staged_names = {same_name(field.name) for field in staged}
    added = [field.name for field in staged if same_name(field.name) not in stored_fields]
    undelivered = [
        field.name
        for name, field in stored_fields.items()
        if name not in staged_names and name != same_name(PROVENANCE_COLUMN)
    ]
    new = added + [PROVENANCE_COLUMN] * (provenance and same_name(PROVENANCE_COLUMN) not in stored_fields)
    problems = [] if evolve else [_not_in_frozen_table(name) for name in new]
    widened = []
    for field in staged:
        target = stored_fields.get(same_name(field.name))
        if target is None or fits(field.type, target.type):
            continue
        wider = wider_type(target.type, field.type)
        if wider is None or not evolve:
            problems.append(_does_not_fit(field, target, wider))
        else:
            widened.append(WidenedColumn(name=target.name, before=target.type, after=wider))
    change = TableChange(added=tuple(added), widened=tuple(widened), undelivered=tuple(undelivered))
    return change, problems


def wider_type(stored: pa.DataType, staged: pa.DataType) -> pa.DataType | None:
    """Return the type that holds every value of both, unchanged; ``None`` where there is none.

    That is the stored one where the staged one :func:`fits` it. A number never becomes a text, a date never a
    timestamp, and a floating point number never a decimal: readers would see other values.
    """
    if fits(staged, stored):
        return stored
    stored, staged = _plain(stored), _plain(staged)
    if types.is_null(stored):
        return staged
    if _is_number(stored) and _is_number(staged):
        return _wider_number(stored, staged)
    if types.is_timestamp(stored) and types.is_timestamp(staged):
        return pa.timestamp(staged.unit, stored.tz) if (stored.tz is None) == (staged.tz is None) else None
    if types.is_time(stored) and types.is_time(staged):
        return staged
    return _wider_nested(stored, staged)


def fits(staged: pa.DataType, stored: pa.DataType) -> bool:
    """Tell whether a stored column of one type can take every value of the other, unchanged.

    Texts go into UUID and JSON columns too: those take a text as it is or refuse it.
    """
    staged, stored = _plain(staged), _plain(stored)
    if staged.equals(stored) or types.is_null(staged):
        return True
    if types.is_decimal(stored):
        return _fits_decimal(staged, stored)
    if types.is_integer(staged):
        return _fits_number(staged, stored)
    if types.is_floating(staged):
        return bool(types.is_floating(stored) and staged.bit_width <= stored.bit_width)
    if types.is_timestamp(staged):
        return (
            types.is_timestamp(stored)
            and (staged.tz is None) == (stored.tz is None)
            and _unit_fits(staged, stored)
        )
    if types.is_time(staged):
        return types.is_time(stored) and _unit_fits(staged, stored)
    if types.is_string(staged):
        return isinstance(stored, pa.BaseExtensionType) and stored.extension_name == "arrow.uuid"
    return _fits_nested(staged, stored)


def _plain(type_: pa.DataType) -> pa.DataType:
    """Return the type without what only concerns its layout in memory."""
    if types.is_dictionary(type_):
        return _plain(type_.value_type)
    if types.is_large_string(type_) or types.is_string_view(type_):
        return pa.string()
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_):
        return pa.binary()
    if types.is_fixed_size_binary(type_):
        return pa.binary()
    if types.is_date64(type_):
        return pa.date32()
    if isinstance(type_, pa.BaseExtensionType):
        return {"arrow.json": pa.string(), "arrow.bool8": pa.bool_()}.get(type_.extension_name, type_)
    return type_


def _fits_decimal(staged: pa.DataType, stored: pa.DataType) -> bool:
    digits = _digits(staged)
    if digits is None:
        return False
    whole, scale = digits
    return bool(scale <= stored.scale and whole <= stored.precision - stored.scale)


def _digits(type_: pa.DataType) -> tuple[int, int] | None:
    """Return how many digits a number has before and behind the point, ``None`` where that is not fixed."""
    if types.is_decimal(type_):
        return type_.precision - type_.scale, type_.scale
    if types.is_integer(type_):
        widths = _INTEGER_DIGITS if types.is_signed_integer(type_) else _UNSIGNED_DIGITS
        return widths[type_.bit_width], 0
    return None


def _fits_number(staged: pa.DataType, stored: pa.DataType) -> bool:
    """Tell whether every value of an integer type is one of a number type other than decimals."""
    signed = types.is_signed_integer(staged)
    value_bits = staged.bit_width - signed
    if types.is_integer(stored):
        stored_signed = types.is_signed_integer(stored)
        return bool(value_bits <= stored.bit_width - stored_signed and (stored_signed or not signed))
    return bool(types.is_floating(stored) and value_bits <= _EXACT_INTEGER_BITS[stored.bit_width])


def _unit_fits(staged: pa.DataType, stored: pa.DataType) -> bool:
    return _TIME_UNITS.index(staged.unit) <= _TIME_UNITS.index(stored.unit)


def _fits_nested(staged: pa.DataType, stored: pa.DataType) -> bool:
    if types.is_struct(staged) and types.is_struct(stored):
        return _fits_struct(staged, stored)
    if types.is_map(staged) and types.is_map(stored):
        return fits(staged.key_type, stored.key_type) and fits(staged.item_type, stored.item_type)
    if types.is_fixed_size_list(stored):
        return (
            types.is_fixed_size_list(staged)
            and staged.list_size == stored.list_size
            and fits(staged.value_type, stored.value_type)
        )
    return _is_list(staged) and _is_list(stored) and fits(staged.value_type, stored.value_type)


def _fits_struct(staged: pa.DataType, stored: pa.DataType) -> bool:
    stored_fields = {field.name: field.type for field in stored}
    return {field.name for field in staged} == stored_fields.keys() and all(
        fits(field.type, stored_fields[field.name]) for field in staged
    )


def _is_number(type_: pa.DataType) -> bool:
    return bool(types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_))


def _wider_number(stored: pa.DataType, staged: pa.DataType) -> pa.DataType | None:
    if not types.is_decimal(stored) and not types.is_decimal(staged):
        for wider in _WIDER_NUMBERS:
            if fits(stored, wider) and fits(staged, wider):
                return wider
    return _wider_decimal(stored, staged)


def _wider_decimal(stored: pa.DataType, staged: pa.DataType) -> pa.DataType | None:
    both = (_digits(stored), _digits(staged))
    if None in both:
        return None
    (whole, scale), (staged_whole, staged_scale) = (digits for digits in both if digits is not None)
    scale = max(scale, staged_scale)
    precision = max(whole, staged_whole) + scale
    return pa.decimal128(precision, scale) if precision <= _MOST_DIGITS else None


def _wider_nested(stored: pa.DataType, staged: pa.DataType) -> pa.DataType | None:
    if types.is_struct(stored) and types.is_struct(staged):
        return _wider_struct(stored, staged)
    if types.is_map(stored) and types.is_map(staged):
        key = wider_type(stored.key_type, staged.key_type)
        item = wider_type(stored.item_type, staged.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if not (_is_list(stored) and _is_list(staged)):
        return None
    value = wider_type(stored.value_type, staged.value_type)
    if value is None:
        return None
    sizes = {type_.list_size if types.is_fixed_size_list(type_) else None for type_ in (stored, staged)}
    (size,) = sizes if len(sizes) == 1 else (None,)
    return pa.list_(value) if size is None else pa.list_(value, size)


def _wider_struct(stored: pa.DataType, staged: pa.DataType) -> pa.DataType | None:
    staged_fields = {field.name: field.type for field in staged}
    if {field.name for field in stored} != staged_fields.keys():
        return None
    members = []
    for field in stored:
        wider = wider_type(field.type, staged_fields[field.name])
        if wider is None:
            return None
        members.append(field.with_type(wider))
    return pa.struct(members)


def _is_list(type_: pa.DataType) -> bool:
    return bool(
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_fixed_size_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )


def _not_in_frozen_table(name: str) -> str:
    if name == PROVENANCE_COLUMN:
        return (
            f"the table has no column {name!r} and its schema is frozen "
            '(set "provenance": false in the sink, or add the column)'
        )
    return f"column {name!r} is not in the table and its schema is frozen"


def _does_not_fit(staged: pa.Field, stored: pa.Field, wider: pa.DataType | None) -> str:
    types_ = f"column {staged.name!r} is {staged.type} in the rows to publish but {stored.type} in the table"
    if wider is None:
        return (
            f"{types_}, and no type holds every value of both: cast it in the transform, or deliver it as "
            "another column"
        )
    return (
        f"{types_}, which cannot hold every value of it, and its schema is frozen: cast it in the transform"
    )
