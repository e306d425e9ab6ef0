"""Keys as JSON values that give the very same key back, and as people write them in a job.

A cursor and a bound outlive the process, so they must not round: times are their integers in the column's own unit
(a ``datetime`` has no nanoseconds and no infinity), decimals are text, bytes are hexadecimal.

==========================================  ======================================
key                                         JSON
==========================================  ======================================
NULL, boolean, integer, text                itself
float                                       itself; ``{"float": "nan"}`` and alike
decimal                                     ``{"decimal": "1.50"}``
binary, UUID                                ``{"bytes": "00ff"}``
date, time, timestamp                       its integer since the epoch or midnight
==========================================  ======================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from ecmbatch.protocol.scalars import decode_scalar, encode_scalar


def encode_key(key: pa.Scalar) -> Any:
    """Return the JSON form of *key*; :func:`decode_key` with its type gives an equal key back."""
    if isinstance(key, pa.ExtensionScalar):
        key = key.value
    if key is None or not key.is_valid:
        return None
    if pa.types.is_temporal(key.type):
        return key.cast(_integer_of(key.type)).as_py()
    return encode_scalar(key.as_py())


def decode_key(value: Any, kind: pa.DataType) -> pa.Array:
    """Return an array of one, the key of type *kind* whose JSON form is *value*.

    Raises ``ValueError`` or ``pyarrow.ArrowException`` where *value* is no key of that type.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, decode_key(value, kind.storage_type))
    if value is not None and pa.types.is_temporal(kind):
        if type(value) is not int:
            raise ValueError(f"a key of type {kind} is remembered as an integer")
        return pa.array([value], _integer_of(kind)).view(kind)
    return pa.array([decode_scalar(value)], kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type by which keys of type *kind* are compared: no extension, dictionary or runs, and none
    of the types that Arrow cannot sort."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return pa.float32() if pa.types.is_float16(kind) else kind


def plain_keys(keys: pa.Array) -> pa.Array:
    """Return *keys* as an array of :func:`plain_type`."""
    if isinstance(keys, pa.ExtensionArray):
        return plain_keys(keys.storage)
    if pa.types.is_dictionary(keys.type):
        return plain_keys(keys.dictionary_decode())
    if pa.types.is_run_end_encoded(keys.type):
        return plain_keys(pc.run_end_decode(keys))
    return keys.cast(plain_type(keys.type))


def read_key(value: Any, kind: pa.DataType) -> pa.Array:
    """Return an array of one, the key of type *kind* that *value* writes in a job, as :func:`plain_keys` does.

    Numbers stand for numbers; texts for texts, dates, times, timestamps (ISO 8601, zoned ones with an offset),
    UUIDs, decimals, and binary in hexadecimal. Raises ``ValueError`` that completes "must be …".
    """
    plain = plain_type(kind)
    found = next(((meaning, read) for is_kind, meaning, read in _WRITTEN if is_kind(kind)), None)
    if found is None:
        raise ValueError(f"of another type: a column of type {kind} cannot be a partitioning key")
    meaning, read = found
    try:
        return read(value, plain)
    except (ValueError, TypeError, OverflowError, InvalidOperation, pa.ArrowException) as error:
        raise ValueError(f"{meaning}: the key is a column of type {kind}") from error


def shown_key(key: pa.Scalar) -> str:
    """Return *key* for people: as :func:`read_key` would read it, if a job can write it at all."""
    if isinstance(key, pa.ExtensionScalar):
        return str(key.as_py())
    if _is_bytes(key.type):
        return str(key.as_py().hex())
    if pa.types.is_boolean(key.type) or pa.types.is_integer(key.type) or pa.types.is_floating(key.type):
        return str(key.as_py()).lower()
    if pa.types.is_decimal(key.type):
        return f"{key.as_py():f}"
    if pa.types.is_temporal(key.type):
        text = shown_time(key)
        return f"the {key.type} of {encode_key(key)}" if text is None else text.replace(" ", "T")
    return str(key.as_py())


def shown_time(key: pa.Scalar) -> str | None:
    """Return a date, time or timestamp as ISO 8601, in UTC if it is zoned, or as ``infinity``.

    ``None`` outside of the years 1 to 9999: what Arrow would write there is another time.
    """
    number: int = encode_key(key)
    most = 2 ** (key.type.bit_width - 1) - 1
    if abs(number) == most:
        return "infinity" if number > 0 else "-infinity"
    if pa.types.is_time(key.type):
        at_midnight = number == _units_of_a_day(key.type.unit)
        return "24:00:00" if at_midnight else str(key.cast(pa.string()).as_py())
    day = number // _units_of_a_day(_unit(key.type))
    if not _FIRST_DAY <= day <= _LAST_DAY:
        return None
    if pa.types.is_timestamp(key.type) and key.type.tz is not None:
        key = key.cast(pa.timestamp(key.type.unit, "UTC"))
    return str(key.cast(pa.string()).as_py())


_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_UNITS_OF_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _unit(kind: pa.DataType) -> str:
    return "day" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit


def _units_of_a_day(unit: str) -> int:
    return 1 if unit == "day" else 86_400 * _UNITS_OF_A_SECOND[unit]


_Read = Callable[[Any, pa.DataType], pa.Array]


def _exactly(python_value: Callable[[Any], Any]) -> _Read:
    """Return a reader of what *python_value* makes of a value; refuses what the type would round."""

    def read(value: Any, kind: pa.DataType) -> pa.Array:
        wanted = python_value(value)
        made = pa.array([wanted], kind)
        if made[0].as_py() != wanted:
            raise ValueError("would be rounded")
        return made

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise TypeError
    return Decimal(str(value))


def _time(value: Any) -> time:
    # Python would leave out what is finer than a microsecond.
    if re.search(r"[.,]\d{7}", _text(value)):
        raise ValueError
    return time.fromisoformat(value)


def _uuid(value: Any, kind: pa.DataType) -> pa.Array:
    return pa.array([UUID(_text(value)).bytes], kind)


def _float(value: Any, kind: pa.DataType) -> pa.Array:
    """Read a number; its decimal digits may be rounded, for they mean the nearest that there is."""
    if type(value) not in (int, float):
        raise TypeError
    # Adding 0.0 turns -0.0 into 0.0: they are one key.
    made = pa.array([float(value) + 0.0], kind)
    read = made[0].as_py()
    if not math.isfinite(read) or (type(value) is int and read != value):
        raise ValueError("would be rounded")
    return made


def _moment(value: Any, kind: pa.DataType) -> pa.Array:
    return pa.array([_text(value)], pa.string()).cast(kind)


def _zoned_moment(value: Any, kind: pa.DataType) -> pa.Array:
    if re.fullmatch(r"\d{4}-\d\d-\d\d", _text(value)):
        value += "T00:00:00Z"
    return _moment(value, kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def _is_zoned(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.tz is not None)


_Written = tuple[Callable[[pa.DataType], bool], str, _Read]


def _plain(is_kind: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    return lambda kind: not isinstance(kind, pa.BaseExtensionType) and is_kind(plain_type(kind))


_WRITTEN: tuple[_Written, ...] = (
    (_is_uuid, "a text that is a UUID", _uuid),
    (_plain(_is_text), "a text", _exactly(_text)),
    (
        _plain(_is_bytes),
        "a text of hexadecimal digits",
        _exactly(lambda value: bytes.fromhex(_text(value))),
    ),
    (_plain(pa.types.is_boolean), "true or false", _exactly(_boolean)),
    (_plain(pa.types.is_integer), "a whole number that fits", _exactly(_integer)),
    (_plain(pa.types.is_floating), "a number that fits", _float),
    (
        _plain(pa.types.is_decimal),
        "a number, or a text that is one, with no more digits than fit",
        _exactly(_decimal),
    ),
    (_plain(pa.types.is_date), "a text such as 2013-01-31", _moment),
    (_plain(pa.types.is_time), "a text such as 23:59:59", _exactly(_time)),
    (_plain(_is_zoned), "a text such as 2013-01-31T23:59:59Z, with an offset", _zoned_moment),
    (
        _plain(pa.types.is_timestamp),
        "a text such as 2013-01-31T23:59:59, without an offset",
        _moment,
    ),
)


def _integer_of(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if kind.bit_width == 32 else pa.int64()
