"""Keys of SQLite: how they are ordered and compared there just as Arrow does, and predicates of partitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ecmbatch.connectors.sqlite_columns import SQLiteColumn, quoted
from ecmbatch.protocol.key_values import decode_key, plain_keys
from ecmbatch.protocol.partitioning.partitions import RangePartitions

_NUMBERS = ("INTEGER", "REAL", "NUMERIC")
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_EXACT_DIGITS = 15
"""Decimals of so many digits are told apart by SQLite, which keeps them as floating-point numbers."""

Place = Callable[[Any], str]
"""Takes a value and returns what stands for it in SQL: a ``?``, or the value itself for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteKey:
    """A key column; ``expression`` is what orders it, ``exact`` tells whether that is the order of Arrow."""

    name: str
    kind: pa.DataType
    expression: str
    exact: bool

    def after(self, key: Any, place: Place) -> str:
        """Return the predicate for what is behind the key with the JSON form *key*; NULL is the first."""
        return f"{quoted(self.name)} IS NOT NULL" if key is None else self._compared(">", key, place)

    def of_ranges(self, ranges: RangePartitions, partitions: Sequence[int], place: Place) -> list[str]:
        """Return the predicates of neighbouring ranges."""
        first, last = partitions[0], partitions[-1]
        conditions = []
        if first > 0:
            conditions.append(self._compared(">=", ranges.bounds[first - 1], place))
        if last < len(ranges.bounds):
            below = self._compared("<", ranges.bounds[last], place)
            conditions.append(below if first > 0 else f"({below} OR {quoted(self.name)} IS NULL)")
        return conditions

    def _compared(self, operator: str, key: Any, place: Place) -> str:
        value = plain_keys(decode_key(key, self.kind))[0]
        return f"{self.expression} {operator} {place(_stored(value))}"


def sqlite_key(column: SQLiteColumn, *, utf8: bool) -> SQLiteKey | None:
    """Return how *column* is ordered; ``None`` where SQLite cannot tell which of two keys is the greater.

    *utf8* is the encoding of the file: texts in another one have another order.
    """
    kind, name = column.kind, quoted(column.name)
    exact = True
    if pa.types.is_string(kind):
        # A number compared with a text that looks like one would be equal; text is what is read.
        text = f"CAST({name} AS TEXT)" if column.affinity in _NUMBERS else name
        expression, exact = f"{text} COLLATE BINARY", utf8
    elif pa.types.is_date(kind):
        expression = f"{name} COLLATE BINARY"
    elif pa.types.is_time(kind):
        expression = _with_all_digits(name, len("23:59:59"), _DIGITS[kind.unit])
    elif pa.types.is_timestamp(kind):
        if kind.tz is not None:
            return None
        expression = _with_all_digits(name, len("2024-01-31 23:59:59"), _DIGITS[kind.unit])
    elif pa.types.is_decimal(kind):
        if column.affinity not in _NUMBERS:
            return None
        expression, exact = name, kind.precision <= _EXACT_DIGITS
    elif pa.types.is_float32(kind):
        # Several numbers of SQLite are read as one.
        return None
    else:
        expression = name
    return SQLiteKey(name=column.name, kind=kind, expression=expression, exact=exact)


def literal(value: Any) -> str:
    """Return *value*, as SQLite stores it, for people."""
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _with_all_digits(name: str, length: int, digits: int) -> str:
    """Return an expression for times as texts of one length, in which their order is that of the times."""
    with_point = f"CASE length({name}) WHEN {length} THEN '.' ELSE '' END"
    whole = length + (digits + 1 if digits else 0)
    return f"substr(replace({name}, 'T', ' ') || {with_point} || '000000000', 1, {whole})"


def _stored(key: pa.Scalar) -> Any:
    """Return *key* as SQLite stores it: a number, a text or bytes."""
    if pa.types.is_temporal(key.type):
        return key.cast(pa.string()).as_py()
    value = key.as_py()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
    return int(value) if isinstance(value, bool) else value
