"""Single values that are bound to queries or remembered as positions, and their JSON form.

JSON has no times, decimals, bytes or UUIDs; those travel as ``{"<type>": "<text>"}``. Everything else is
plain JSON, so records stay readable: ``{"last_sync": {"datetime": "2026-11-21T02:00:00+00:00"}}``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

Scalar = None | bool | int | float | str | bytes | Decimal | datetime | date | time | UUID


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not a decimal number") from error


_READERS: Mapping[str, Callable[[str], Scalar]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": _decimal,
    "bytes": bytes.fromhex,
    "uuid": UUID,
    "float": float,
}


def encode_scalar(value: Scalar) -> Any:
    """Return the JSON form of *value*; :func:`decode_scalar` gives an equal value of the same type back."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            # NaN and infinities are not JSON.
            return value if math.isfinite(value) else {"float": repr(value)}
        case datetime():
            return {"datetime": value.isoformat()}
        case date():
            return {"date": value.isoformat()}
        case time():
            return {"time": value.isoformat()}
        case Decimal():
            return {"decimal": str(value)}
        case bytes():
            return {"bytes": value.hex()}
        case UUID():
            return {"uuid": str(value)}
    raise TypeError(f"a value of type {type(value).__name__} cannot be remembered")


def decode_scalar(value: Any) -> Scalar:
    """Return the value whose JSON form is *value*; raises ``ValueError`` for what no scalar encodes to."""
    if isinstance(value, Mapping):
        ((kind, text),) = value.items()
        if kind not in _READERS or not isinstance(text, str):
            raise ValueError(f"no scalar of type {kind!r}")
        return _READERS[kind](text)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"no scalar is written as a JSON {type(value).__name__}")


def encode_scalars(values: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return *values* in their JSON form."""
    return {name: encode_scalar(value) for name, value in values.items()}


def decode_scalars(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the values whose JSON form is *values*."""
    return {name: decode_scalar(value) for name, value in values.items()}
