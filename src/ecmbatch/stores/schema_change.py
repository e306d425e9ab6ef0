"""How the columns of a table must change before staged rows fit, decided from two schemas alone.

A column never loses values: a staged type goes into a stored type that holds every value of it (``int32`` into
``int64``), and every other pair of types is refused by name. Stored columns are never retyped or dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import types

from ecmbatch.stores.store import PROVENANCE_COLUMN

_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
_UNSIGNED_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
_EXACT_INTEGER_BITS = {16: 11, 32: 24, 64: 53}
"""Bits of a float's width, and how many bits of an integer it holds exactly."""
_TIME_UNITS = ("s", "ms", "us", "ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaChange:
    """What a publication means for the columns of a stored table.

    ``added`` are staged columns that the table lacks, ``undelivered`` stored ones that the stage lacks (the
    provenance column apart), each in its own order. ``problems`` are sentences; with any, nothing may be
    published.
    """

    added: tuple[str, ...]
    undelivered: tuple[str, ...]
    problems: tuple[str, ...]


def schema_change(
    stored: pa.Schema,
    staged: pa.Schema,
    *,
    evolve: bool,
    provenance: bool,
    same_name: Callable[[str], str] = str,
) -> SchemaChange:
    """Decide how a table with the columns *stored* takes rows with the columns *staged*.

    *same_name* brings names into the form in which the store compares them. With *provenance* the column
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
    for field in staged:
        target = stored_fields.get(same_name(field.name))
        if target is not None and not fits(field.type, target.type):
            problems.append(
                f"column {field.name!r} is {field.type} in the rows to publish but {target.type} in the table, "
                "which cannot hold every value of it"
            )
    return SchemaChange(added=tuple(added), undelivered=tuple(undelivered), problems=tuple(problems))


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
    if types.is_decimal(staged):
        digits, scale = staged.precision - staged.scale, staged.scale
    elif types.is_integer(staged):
        widths = _INTEGER_DIGITS if types.is_signed_integer(staged) else _UNSIGNED_DIGITS
        digits, scale = widths[staged.bit_width], 0
    else:
        return False
    return bool(scale <= stored.scale and digits <= stored.precision - stored.scale)


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
