"""The last key that was read, as a JSON value that gives the very same key back.

A cursor outlives the process, so it must not round: times are their integers in the column's own unit
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

from typing import Any

import pyarrow as pa

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


def _integer_of(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if kind.bit_width == 32 else pa.int64()
