"""The names of column types in job and project files: ``int64``, ``decimal(10, 2)``, ``timestamp[us, UTC]`` …"""

from __future__ import annotations

import re
from difflib import get_close_matches
from zoneinfo import ZoneInfo

import pyarrow as pa

_SIMPLE: dict[str, pa.DataType] = {
    "string": pa.string(),
    "binary": pa.binary(),
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")
_TIMESTAMP = re.compile(r"timestamp\[\s*(s|ms|us|ns)\s*(?:,\s*([A-Za-z0-9_+\-/]+)\s*)?\]")
_MOST_DIGITS = 38


def parse_type_name(name: object) -> pa.DataType:
    """The Arrow type called *name*. Raise ValueError, saying which names there are, for anything else."""
    if not isinstance(name, str):
        raise ValueError(f'a type is named by text such as "int64"; {_names()}')
    if simple := _SIMPLE.get(name):
        return simple
    if match := _DECIMAL.fullmatch(name):
        return _decimal(int(match[1]), int(match[2]))
    if match := _TIMESTAMP.fullmatch(name):
        return pa.timestamp(match[1], tz=_zone(match[2]))
    guess = get_close_matches(name, _SIMPLE, n=1)
    raise ValueError(f"no type '{name}'" + (f"; did you mean '{guess[0]}'?" if guess else f"; {_names()}"))


def type_name(kind: pa.DataType) -> str:
    """Return the name of *kind*; types without one of their own are called as Arrow calls them."""
    for name, named in _SIMPLE.items():
        if kind == named:
            return name
    if pa.types.is_decimal128(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return f"timestamp[{kind.unit}, {kind.tz}]"
    return str(kind)


def _decimal(precision: int, scale: int) -> pa.DataType:
    if not (1 <= precision <= _MOST_DIGITS and scale <= precision):
        raise ValueError(f"decimal(p, s) needs 1 <= p <= {_MOST_DIGITS} and 0 <= s <= p")
    return pa.decimal128(precision, scale)


def _zone(name: str | None) -> str | None:
    try:
        return ZoneInfo(name).key if name else None
    except (KeyError, ValueError, OSError):
        raise ValueError(f"no time zone '{name}'; names look like 'UTC' or 'Europe/Berlin'") from None


def _names() -> str:
    return f"types are {', '.join(_SIMPLE)}, decimal(p, s), timestamp[unit] and timestamp[unit, zone]"
