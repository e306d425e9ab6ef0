"""The rows of some partitions, and those behind a cursor, as predicates of a PostgreSQL query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ecmbatch.connectors.connector import Cursor, ReadRequest, Scan
from ecmbatch.connectors.postgres_columns import Column, quoted
from ecmbatch.errors import SourceError
from ecmbatch.protocol.key_values import decode_key, encode_key, plain_keys, shown_time
from ecmbatch.protocol.partitioning.partitions import ListPartitions, RangePartitions

_MICROS_OF_A_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A column that rows are ordered or partitioned by; ``bytewise`` where a collation may call texts equal."""

    column: Column
    bytewise: bool

    @property
    def name(self) -> str:
        """The column that is read: without ``source`` the order would be that of the form in which it travels."""
        return f"source.{quoted(self.column.name)}"

    @property
    def expression(self) -> str:
        """What rows are ordered by and compared with a cursor: the column itself, for its indexes' sake.

        Different texts are never equal in there, whatever order their collation gives them.
        """
        return self.by_bytes if self.bytewise else self._value

    @property
    def by_bytes(self) -> str:
        """What is compared with bounds, which come in the order of bytes."""
        return f'{self._value} COLLATE "C"' if self.is_text else self._value

    @property
    def _value(self) -> str:
        # To compare characters of fixed length is to overlook their trailing blanks, which arrive.
        return f"textin(bpcharout({self.name}))" if self.column.kind == "bpchar" else self.name

    @property
    def is_text(self) -> bool:
        """Whether it has a collation."""
        arrow = self.column.arrow
        return bool(pa.types.is_string(arrow.value_type if pa.types.is_list(arrow) else arrow))

    def literal(self, value: Any) -> str:
        """Return the key whose JSON form is *value* in SQL, exactly."""
        return _literal(plain_keys(decode_key(value, self.column.arrow))[0], self.column.kind)


def behind(key: Key, after: Cursor) -> str:
    """Return the predicate of the key groups behind the cursor; NULL is the first of them."""
    if after["key"] is None:
        return f"{key.name} IS NOT NULL"
    return f"{key.expression} > {key.literal(after['key'])}"


def of_partitions(key: Key | None, request: ReadRequest, scan: Scan) -> list[str]:
    """Return the predicates that keep the rows of the scan's partitions; none for partitions by hash, whose rows
    are told apart here."""
    if key is None or len(scan.partitions) == request.partitions:
        return []
    match request.partitioning:
        case RangePartitions() as ranges:
            return _of_ranges(key, ranges, scan.partitions[0], scan.partitions[-1])
        case ListPartitions() as lists:
            return [_of_lists(key, lists, scan.partitions)]
    return []


def _of_ranges(key: Key, ranges: RangePartitions, first: int, last: int) -> list[str]:
    """Return the predicates of neighbouring ranges; the first of all has the NULL keys too."""
    conditions = []
    if first > 0:
        conditions.append(f"{key.by_bytes} >= {key.literal(ranges.bounds[first - 1])}")
    if last < len(ranges.bounds):
        below = f"{key.by_bytes} < {key.literal(ranges.bounds[last])}"
        conditions.append(below if first > 0 else f"({below} OR {key.name} IS NULL)")
    return conditions


def _of_lists(key: Key, lists: ListPartitions, partitions: Sequence[int]) -> str:
    """Return the predicate of some groups; who has the rest also has NULL and what no group lists."""
    groups = [lists.groups[number] for number in partitions if number < len(lists.groups)]
    wanted = [value for group in groups for value in group]
    conditions = [f"{key.expression} IN ({_literals(wanted, key)})"] if wanted else []
    if lists.rest in partitions:
        everything = [value for group in lists.groups for value in group]
        conditions.append(f"{key.name} IS NULL")
        conditions.append(f"{key.expression} NOT IN ({_literals(everything, key)})")
    return f"({' OR '.join(conditions)})"


def _literals(values: Sequence[Any], key: Key) -> str:
    return ", ".join(key.literal(value) for value in values)


def _literal(key: pa.Scalar, kind: str) -> str:
    arrow = key.type
    if pa.types.is_boolean(arrow):
        return str(key.as_py()).lower()
    if pa.types.is_integer(arrow):
        return f"'{key.as_py()}'::int{arrow.bit_width // 8}"
    if pa.types.is_floating(arrow):
        return f"'{key.as_py()!r}'::float{arrow.bit_width // 8}"
    if pa.types.is_decimal(arrow):
        return f"'{key.as_py():f}'::numeric"
    if pa.types.is_temporal(arrow):
        return _time_literal(key)
    value: str | bytes = key.as_py()
    if isinstance(value, bytes):
        return f"'{value.hex()}'::uuid" if kind == "uuid" else f"'\\x{value.hex()}'::bytea"
    if "\0" in value:
        raise SourceError("partitioning has a text with a NUL character, which no text in PostgreSQL has")
    return f"""'{value.replace("'", "''")}'::text"""


def _time_literal(key: pa.Scalar) -> str:
    text = shown_time(key)
    if pa.types.is_time(key.type):
        return f"'{text}'::time"
    if pa.types.is_date(key.type):
        return f"('1970-01-01'::date + ({encode_key(key)}))" if text is None else f"'{text}'::date"
    kind = "timestamp" if key.type.tz is None else "timestamptz"
    if text is not None:
        return f"'{text}'::{kind}"
    # Years that have no text are a number of days and microseconds, neither of which is rounded.
    days, micros = divmod(encode_key(key), _MICROS_OF_A_DAY)
    epoch = "1970-01-01" if kind == "timestamp" else "1970-01-01 00:00:00+00"
    return f"('{epoch}'::{kind} + interval '{days} days {micros} microseconds')"
