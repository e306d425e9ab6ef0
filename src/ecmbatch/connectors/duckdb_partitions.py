"""The rows of some partitions as predicates of a DuckDB query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from ecmbatch.connectors.connector import ReadRequest, Scan
from ecmbatch.connectors.duckdb_columns import quoted
from ecmbatch.connectors.duckdb_database import defined
from ecmbatch.protocol.key_values import decode_key, encode_key, plain_keys, shown_time
from ecmbatch.protocol.partitioning.partitions import HashPartitions, ListPartitions, RangePartitions
from ecmbatch.protocol.scalars import Scalar

_SHOWN_HASH = "ecm_hash_1"

_TIMESTAMPS = {"s": "TIMESTAMP_S", "ms": "TIMESTAMP_MS", "us": "TIMESTAMP", "ns": "TIMESTAMP_NS"}
_MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Nanoseconds do not reach beyond the years that have a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """The partitioning key: its name, how it is compared in SQL, its Arrow type, and what it is a column of."""

    name: str
    expression: str
    kind: pa.DataType
    readable: str
    values: Sequence[Scalar]


@contextmanager
def of_partitions(
    connection: duckdb.DuckDBPyConnection, key: Key | None, request: ReadRequest, scan: Scan
) -> Iterator[list[str]]:
    """Yield the predicates that keep the rows of the scan's partitions, none if it reads all of them."""
    partitioning = request.partitioning
    if key is None or not isinstance(partitioning, HashPartitions) or _reads_all(request, scan):
        yield _of_values(key, request, scan)
        return
    keys_of = f"SELECT {quoted(key.name)} FROM ({key.readable})"
    (argument,) = connection.sql(keys_of, params=list(key.values) or None).types

    def partition(keys: pa.ChunkedArray) -> pa.Array:
        return pa.array(partitioning.assign(keys.combine_chunks()))

    with defined(connection, partition, str(argument)) as function:
        yield [_of_hash(function, key, scan)]


def shown_conditions(key: Key | None, request: ReadRequest, scan: Scan) -> list[str]:
    """Return the predicates of :func:`of_partitions` as people read them: the hash by its own name."""
    if key is None or not isinstance(request.partitioning, HashPartitions) or _reads_all(request, scan):
        return _of_values(key, request, scan)
    return [_of_hash(_SHOWN_HASH, key, scan)]


def literal(key: pa.Scalar) -> str:
    """Return *key* in SQL, exactly."""
    kind = key.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return str(key.as_py()).upper()
    if pa.types.is_floating(kind):
        return f"CAST('{key.as_py()!r}' AS {'DOUBLE' if kind.bit_width == 64 else 'FLOAT'})"
    if pa.types.is_decimal(kind):
        return f"CAST('{key.as_py():f}' AS DECIMAL({kind.precision},{kind.scale}))"
    if pa.types.is_temporal(kind):
        return _time_literal(key)
    value: str | bytes = key.as_py()
    if isinstance(value, bytes):
        return f"from_hex('{value.hex()}')"
    # SQL text ends at a NUL character.
    if "\0" in value:
        return f"decode(from_hex('{value.encode().hex()}'))"
    return "'" + value.replace("'", "''") + "'"


def _time_literal(key: pa.Scalar) -> str:
    sql_type, text = _time_type(key.type), shown_time(key)
    if text is not None:
        return f"CAST('{text}' AS {sql_type})"
    if sql_type == "DATE":
        return f"(DATE '1970-01-01' + ({encode_key(key)}))"
    micros = encode_key(key) * _MICROS[key.type.unit]
    return f"CAST(make_timestamp({micros}) AS {sql_type})"


def _time_type(kind: pa.DataType) -> str:
    if pa.types.is_date(kind):
        return "DATE"
    if pa.types.is_time(kind):
        return "TIME_NS" if kind.unit == "ns" else "TIME"
    if kind.tz is not None:
        return "TIMESTAMPTZ_NS" if kind.unit == "ns" else "TIMESTAMPTZ"
    return _TIMESTAMPS[kind.unit]


def _reads_all(request: ReadRequest, scan: Scan) -> bool:
    return len(scan.partitions) == request.partitions


def _of_hash(function: str, key: Key, scan: Scan) -> str:
    return f"{function}({quoted(key.name)}) IN ({', '.join(str(partition) for partition in scan.partitions)})"


def _of_values(key: Key | None, request: ReadRequest, scan: Scan) -> list[str]:
    if key is None or _reads_all(request, scan):
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
        conditions.append(f"{key.expression} >= {_literal(ranges.bounds[first - 1], key)}")
    if last < len(ranges.bounds):
        below = f"{key.expression} < {_literal(ranges.bounds[last], key)}"
        conditions.append(below if first > 0 else f"({below} OR {quoted(key.name)} IS NULL)")
    return conditions


def _of_lists(key: Key, lists: ListPartitions, partitions: Sequence[int]) -> str:
    """Return the predicate of some groups; who has the rest also has NULL and what no group lists."""
    wanted = [value for group in _groups(lists, partitions) for value in group]
    conditions = [f"{key.expression} IN ({_literals(wanted, key)})"] if wanted else []
    if lists.rest in partitions:
        everything = [value for group in lists.groups for value in group]
        conditions.append(f"{quoted(key.name)} IS NULL")
        conditions.append(f"{key.expression} NOT IN ({_literals(everything, key)})")
    return f"({' OR '.join(conditions)})"


def _groups(lists: ListPartitions, partitions: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    return (lists.groups[number] for number in partitions if number < len(lists.groups))


def _literals(values: Sequence[Any], key: Key) -> str:
    return ", ".join(_literal(value, key) for value in values)


def _literal(value: Any, key: Key) -> str:
    return literal(plain_keys(decode_key(value, key.kind))[0])
