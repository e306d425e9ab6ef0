"""Random types before and after: every value stays readable as it was, or nothing changes at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckdb_tables import read_table
from ecmbatch.errors import StoreError
from ecmbatch.stores.duckdb import DUCKDB
from ecmbatch.stores.memory import MemoryStore
from ecmbatch.stores.store import Store
from ecmbatch.testing.store_contract import AT, publication
from ecmbatch.testing.store_contract.staging import comparable

Column = tuple[pa.DataType, Sequence[Any]]
"""A type and some values of it."""

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
TICKS = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1}
"""Units of time in microseconds: Python knows no shorter ones."""


def integers(type_: pa.DataType) -> st.SearchStrategy[int]:
    signed = pa.types.is_signed_integer(type_)
    largest = 2 ** (type_.bit_width - signed) - 1
    return st.integers(-largest - 1 if signed else 0, largest) | st.just(largest)


@st.composite
def decimal_types(draw: st.DrawFn) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    precision = draw(st.integers(1, 38))
    scale = draw(st.integers(0, precision))
    largest = 10**precision - 1
    return pa.decimal128(precision, scale), st.integers(-largest, largest).map(
        lambda digits: Decimal((digits < 0, tuple(map(int, str(abs(digits)))), -scale))
    )


def timestamps(unit: str) -> st.SearchStrategy[datetime]:
    # Nanoseconds reach from 1677 to 2262 only.
    first, last = (1700, 2200) if unit == "ns" else (1, 9999)
    return st.datetimes(datetime(first, 1, 1), datetime(last, 1, 1)).map(lambda at: in_units(at, unit))


def in_units(at: Any, unit: str) -> Any:
    return at.replace(microsecond=at.microsecond // TICKS[unit] * TICKS[unit], fold=0)


simple_types = st.one_of(
    st.sampled_from(INTEGERS).map(lambda type_: (type_, integers(type_))),
    st.sampled_from([32, 64]).map(
        lambda width: (pa.float32() if width == 32 else pa.float64(), st.floats(width=width))
    ),
    decimal_types(),
    st.sampled_from(["s", "ms", "us", "ns"]).map(lambda unit: (pa.timestamp(unit), timestamps(unit))),
    st.sampled_from([pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]).map(
        lambda type_: (type_, st.times().map(lambda at: in_units(at, type_.unit)))
    ),
    st.sampled_from([(pa.string(), st.text("ab", max_size=2)), (pa.date32(), st.dates())]),
)
Shape = Callable[[pa.DataType], pa.DataType]
SHAPES: Sequence[tuple[Shape, Callable[[Any], Any]]] = [
    (lambda type_: type_, lambda value: value),
    (lambda type_: pa.list_(type_), lambda value: [value, None]),
    (lambda type_: pa.struct([("a", type_), ("b c", pa.string())]), lambda value: {"a": value, "b c": "x"}),
    (lambda type_: pa.map_(pa.string(), type_), lambda value: [("k", value)]),
]


@st.composite
def evolutions(draw: st.DrawFn) -> tuple[Column, Column]:
    """A column before and after, more often than not of a kind."""
    shape, wrap = draw(st.sampled_from([SHAPES[0], *SHAPES]))

    def column() -> Column:
        type_, values = draw(simple_types)
        drawn = draw(st.lists(st.none() | values, min_size=1, max_size=4))
        return shape(type_), [None if value is None else wrap(value) for value in drawn]

    return column(), column()


def readable(rows: Sequence[dict[str, Any]]) -> list[str]:
    # NaN is not equal to itself, but its text is; and numbers of other types are the same numbers.
    return sorted(f"{row['id']} {as_text(comparable(row['value']))}" for row in rows)


def as_text(value: Any) -> str:
    if isinstance(value, dict):
        return str({name: as_text(inner) for name, inner in value.items()})
    if isinstance(value, list):
        return str([as_text(inner) for inner in value])
    if isinstance(value, int | float | Decimal) and value == value and abs(value) != float("inf"):
        # An integer ratio is exact whatever the type; 0 and -0 are one.
        return str(value.as_integer_ratio())
    return repr(value)


def check_evolution(
    store: Store, read: Callable[[], pa.Table], folder: Path, columns: tuple[Column, Column]
) -> None:
    def run(number: int, column: Column) -> Any:
        type_, values = column
        schema = pa.schema([("id", pa.int64()), ("value", type_)])
        rows = [{"id": 10 * number + place, "value": value} for place, value in enumerate(values)]
        return publication(folder, f"run-{number}", rows, schema=schema), rows

    first, before = run(1, columns[0])
    second, after = run(2, columns[1])
    store.publish(first, AT)
    untouched = read()
    try:
        store.publish(second, AT)
    except StoreError:
        assert repr(read().to_pylist()) == repr(untouched.to_pylist())
        assert read().schema == untouched.schema
        assert store.marker("run-2") is None
    else:
        assert readable(read().to_pylist()) == readable([*before, *after])
        assert store.check(first).widened == store.check(second).widened == ()


@settings(deadline=None)
@given(evolutions())
def test_a_memory_store_keeps_every_value_or_changes_nothing(columns):
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        check_evolution(store, lambda: store.tables.tables["customers"], Path(folder), columns)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(evolutions())
def test_a_duckdb_store_keeps_every_value_or_changes_nothing(columns):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "context.duckdb"
        store = DUCKDB.build(DUCKDB.parse_config({"path": str(path), "threads": 1}), Path(folder), print)
        check_evolution(store, lambda: read_table(path, "customers"), Path(folder), columns)
