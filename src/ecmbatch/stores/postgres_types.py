"""Arrow types on their way into PostgreSQL, and the types of stored columns as rows to publish would have them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from pyarrow import types

_KEPT = {
    pa.bool_(): pa.bool_(),
    pa.int8(): pa.int16(),
    pa.int16(): pa.int16(),
    pa.int32(): pa.int32(),
    pa.int64(): pa.int64(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.float32(): pa.float32(),
    pa.float64(): pa.float64(),
    pa.string(): pa.string(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.binary(): pa.binary(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.date32(): pa.date32(),
    pa.date64(): pa.date32(),
    pa.time32("s"): pa.time32("s"),
    pa.time32("ms"): pa.time32("ms"),
    pa.time64("us"): pa.time64("us"),
    pa.time64("ns"): pa.time64("us"),
}
_EXTENSIONS = {"arrow.uuid": pa.uuid(), "arrow.json": pa.json_(), "arrow.bool8": pa.bool_()}
_SQL = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.binary(): "bytea",
    pa.date32(): "date",
    pa.month_day_nano_interval(): "interval",
    pa.uuid(): "uuid",
    pa.json_(): "jsonb",
}
_STORED = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "citext": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "interval": pa.month_day_nano_interval(),
    "uuid": pa.uuid(),
    "json": pa.json_(),
    "jsonb": pa.json_(),
}
_ANY_NUMERIC = pa.decimal256(76, 38)
"""Stands for numeric without a precision: it takes whatever decimal or integer rows have."""
_MOST_DIGITS = 76
_JSON_DIGITS = 38
_MICROSECONDS = 6
_VARLENA_HEADER = 4
"""What PostgreSQL adds to a length or precision in the modifier of a type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredType:
    """The type of a stored column as the catalog describes it; that of its domain's base where it has one.

    ``element`` is the name of an array's element type; ``modifier`` is -1 where there is none.
    """

    name: str
    modifier: int
    enum: bool = False
    element: str | None = None
    element_enum: bool = False


def kept_type(type_: pa.DataType) -> pa.DataType | None:
    """Return the Arrow type of what PostgreSQL keeps of an Arrow type, ``None`` where it can keep nothing.

    Every value stays, except that nanoseconds must be whole microseconds. Lists of simple values become
    arrays; everything else that is nested becomes JSON.
    """
    if isinstance(type_, pa.BaseExtensionType):
        return _EXTENSIONS.get(type_.extension_name)
    if types.is_dictionary(type_):
        return kept_type(type_.value_type)
    if types.is_decimal(type_):
        return _kept_decimal(type_)
    if types.is_timestamp(type_):
        return pa.timestamp("us" if type_.unit == "ns" else type_.unit, "UTC" if type_.tz else None)
    if types.is_duration(type_):
        return pa.month_day_nano_interval()
    if types.is_fixed_size_binary(type_):
        return pa.binary()
    if types.is_null(type_):
        return type_
    if types.is_nested(type_):
        if is_array(type_):
            return pa.list_(kept_type(type_.value_type))
        return pa.json_() if _fits_json(type_) else None
    return _KEPT.get(type_)


def is_array(type_: pa.DataType) -> bool:
    """Tell whether the type is a list that becomes an array of PostgreSQL."""
    return _is_list(type_) and (
        type_.value_type in _KEPT
        or types.is_decimal(type_.value_type)
        or types.is_timestamp(type_.value_type)
        or types.is_fixed_size_binary(type_.value_type)
    )


def becomes_json(type_: pa.DataType) -> bool:
    """Tell whether values of the type are turned into JSON on their way."""
    return bool(types.is_nested(type_)) and not is_array(type_)


def sql_type(kept: pa.DataType) -> str | None:
    """Return the PostgreSQL type of a new column for a type of :func:`kept_type`."""
    if types.is_decimal(kept):
        return f"numeric({kept.precision},{kept.scale})"
    if types.is_timestamp(kept):
        return "timestamp with time zone" if kept.tz else "timestamp without time zone"
    if types.is_time(kept):
        return "time without time zone"
    if types.is_list(kept):
        element = sql_type(kept.value_type)
        return None if element is None else f"{element}[]"
    return _SQL.get(kept)


def loaded_type(type_: pa.DataType) -> tuple[pa.DataType, str]:
    """Return how a staged column of a type that can be kept is loaded: its Arrow type and PostgreSQL's.

    JSON is loaded as text and becomes JSON when it is published, so that what is wrong with it can be told.
    """
    kept = kept_type(type_)
    if kept is None:
        raise ValueError(f"{type_} cannot be kept")
    if types.is_null(kept) or kept == pa.json_():
        return pa.string(), "text"
    loaded = pa.duration("us") if types.is_duration(type_) else _in_microseconds(kept)
    sql = sql_type(kept)
    assert sql is not None
    return loaded, sql


def stored_type(stored: StoredType) -> pa.DataType:
    """Return the Arrow type of a stored column; an opaque one, which no rows have, for what only PostgreSQL has."""
    if stored.element is not None:
        element = StoredType(name=stored.element, modifier=stored.modifier, enum=stored.element_enum)
        return pa.list_(stored_type(element))
    if stored.enum:
        return pa.string()
    match stored.name:
        case "numeric":
            return _numeric(stored.modifier)
        case "interval" if stored.modifier != -1:
            # PostgreSQL would drop the fields and digits that the column does not have.
            return _opaque(stored.name)
        case "timestamp":
            return pa.timestamp(_unit(stored.modifier))
        case "timestamptz":
            return pa.timestamp(_unit(stored.modifier), "UTC")
        case "time":
            unit = _unit(stored.modifier)
            return pa.time64(unit) if unit == "us" else pa.time32(unit)
    return _STORED.get(stored.name) or _opaque(stored.name)


def most_characters(stored: StoredType) -> int | None:
    """Return how many characters a stored text, or one in a stored array, may have; ``None`` for any number."""
    if stored.modifier == -1 or (stored.element or stored.name) not in ("varchar", "bpchar"):
        return None
    return stored.modifier - _VARLENA_HEADER


def _opaque(name: str) -> pa.DataType:
    return pa.opaque(pa.null(), name, "PostgreSQL")


def _kept_decimal(type_: pa.DataType) -> pa.DataType | None:
    if type_.precision > _MOST_DIGITS or not 0 <= type_.scale <= type_.precision:
        return None
    make = pa.decimal128 if type_.precision <= _JSON_DIGITS else pa.decimal256
    return make(type_.precision, type_.scale)


def _in_microseconds(kept: pa.DataType) -> pa.DataType:
    if types.is_timestamp(kept):
        return pa.timestamp("us", kept.tz)
    if types.is_time(kept):
        return pa.time64("us")
    if types.is_list(kept):
        return pa.list_(_in_microseconds(kept.value_type))
    return kept


def _is_list(type_: pa.DataType) -> bool:
    return bool(types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_))


def _fits_json(type_: pa.DataType) -> bool:
    """Tell whether every value of the type has one form in JSON: bytes, durations and unions have none."""
    if types.is_dictionary(type_):
        return _fits_json(type_.value_type)
    if types.is_struct(type_):
        return type_.num_fields > 0 and all(_fits_json(field.type) for field in type_)
    if types.is_map(type_):
        return not types.is_nested(type_.key_type) and all(map(_fits_json, (type_.key_type, type_.item_type)))
    if _is_list(type_):
        return _fits_json(type_.value_type)
    if types.is_decimal(type_):
        return bool(type_.precision <= _JSON_DIGITS and 0 <= type_.scale <= type_.precision)
    kept = kept_type(type_)
    return kept is not None and not types.is_binary(kept) and not types.is_interval(kept)


def _numeric(modifier: int) -> pa.DataType:
    if modifier == -1:
        return _ANY_NUMERIC
    precision, scale = (modifier - _VARLENA_HEADER) >> 16 & 0xFFFF, (modifier - _VARLENA_HEADER) & 0x7FF
    if precision > _MOST_DIGITS or scale > precision:
        return _opaque("numeric")
    return pa.decimal128(precision, scale) if precision <= _JSON_DIGITS else pa.decimal256(precision, scale)


def _unit(modifier: int) -> str:
    """Return the finest unit that a time with so many digits holds; PostgreSQL rounds what is finer."""
    if modifier == -1 or modifier >= _MICROSECONDS:
        return "us"
    return "ms" if modifier >= 3 else "s"
