from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.stores.schema_change import fits, schema_change, wider_type
from ecmbatch.stores.store import TableChange, WidenedColumn

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
NUMBERS = [*INTEGERS, pa.float32(), pa.float64()]
decimals = st.integers(1, 38).flatmap(
    lambda precision: st.integers(0, precision).map(lambda scale: pa.decimal128(precision, scale))
)


def extremes(type_: pa.DataType) -> list[int]:
    bits = type_.bit_width
    return (
        [0, 2**bits - 1] if pa.types.is_unsigned_integer(type_) else [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]
    )


@pytest.mark.parametrize("staged", INTEGERS, ids=str)
@pytest.mark.parametrize("stored", NUMBERS, ids=str)
def test_an_integer_fits_a_number_exactly_when_its_extremes_survive(staged, stored):
    def survives(value: int) -> bool:
        try:
            return int(pa.scalar(value, stored).as_py()) == value
        except (pa.ArrowInvalid, OverflowError):
            return False

    # The extreme of a signed type is a power of two, which floats hold; its neighbours show what they lose.
    values = [value + step for value in extremes(staged) for step in (0, 1, -1)]
    held = [value for value in values if extremes(staged)[0] <= value <= extremes(staged)[1]]
    assert fits(staged, stored) == all(survives(value) for value in held)


@given(st.one_of(decimals, st.sampled_from(INTEGERS)), decimals)
def test_a_number_fits_a_decimal_exactly_when_its_extremes_survive(staged, stored):
    def survives(value: Decimal) -> bool:
        try:
            return pa.scalar(value, stored).as_py() == value
        except pa.ArrowInvalid:
            return False

    if pa.types.is_decimal(staged):
        largest = Decimal((0, (9,) * staged.precision, -staged.scale))
        values = [largest, Decimal((0, (1,), -staged.scale))]
    else:
        values = [Decimal(value) for value in extremes(staged)]
    if fits(staged, stored):
        assert all(survives(value) for value in values)
    elif pa.types.is_decimal(staged):
        assert not all(survives(value) for value in values)


@pytest.mark.parametrize(
    ("staged", "stored"),
    [
        (pa.null(), pa.int8()),
        (pa.float32(), pa.float64()),
        (pa.large_string(), pa.string()),
        (pa.string(), pa.dictionary(pa.int8(), pa.string())),
        (pa.dictionary(pa.int8(), pa.int16()), pa.int32()),
        (pa.binary(16), pa.binary()),
        (pa.date64(), pa.date32()),
        (pa.time32("ms"), pa.time64("us")),
        (pa.timestamp("s"), pa.timestamp("us")),
        (pa.timestamp("ms", "Europe/Prague"), pa.timestamp("us", "UTC")),
        (pa.string(), pa.uuid()),
        (pa.list_(pa.int8()), pa.large_list(pa.int64())),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int8())),
        (
            pa.struct([("b", pa.int8()), ("a", pa.string())]),
            pa.struct([("a", pa.string()), ("b", pa.int8())]),
        ),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int16())),
    ],
    ids=str,
)
def test_these_fit_one_way(staged, stored):
    assert fits(staged, stored)


@pytest.mark.parametrize(
    ("staged", "stored"),
    [
        (pa.int64(), pa.float64()),
        (pa.int64(), pa.string()),
        (pa.string(), pa.int64()),
        (pa.float64(), pa.float32()),
        (pa.float64(), pa.decimal128(38, 10)),
        (pa.timestamp("ns"), pa.timestamp("us")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us")),
        (pa.date32(), pa.timestamp("us")),
        (pa.time64("ns"), pa.time64("us")),
        (pa.uuid(), pa.string()),
        (pa.bool_(), pa.int8()),
        (pa.list_(pa.int8()), pa.list_(pa.int8(), 2)),
        (pa.list_(pa.int64()), pa.list_(pa.int8())),
        (pa.struct([("a", pa.int8()), ("b", pa.int8())]), pa.struct([("a", pa.int8())])),
        (pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.int8())),
    ],
    ids=str,
)
def test_these_could_lose_values(staged, stored):
    assert not fits(staged, stored)


def test_columns_are_matched_by_the_names_of_the_store():
    stored = pa.schema([("ID", pa.int64()), ("kept", pa.string()), ("_ecm_run_id", pa.string())])
    staged = pa.schema([("id", pa.int64()), ("new", pa.string())])
    change = schema_change(stored, staged, evolve=True, provenance=True, same_name=str.lower)
    assert change == (TableChange(added=("new",), undelivered=("kept",)), [])


def test_a_frozen_table_without_the_provenance_column_says_what_to_do():
    schema = pa.schema([("id", pa.int64())])
    assert schema_change(schema, schema, evolve=False, provenance=False) == (TableChange(), [])
    _, (problem,) = schema_change(schema, schema, evolve=False, provenance=True)
    assert '"provenance": false' in problem


def test_a_widened_column_keeps_the_name_that_it_has_in_the_table():
    stored, staged = pa.schema([("ID", pa.int16())]), pa.schema([("id", pa.uint32())])
    change, problems = schema_change(stored, staged, evolve=True, provenance=False, same_name=str.lower)
    assert change.widened == (WidenedColumn(name="ID", before=pa.int16(), after=pa.int64()),)
    assert problems == []


# Widening.


@pytest.mark.parametrize(
    ("stored", "staged", "wider"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int8(), pa.uint8(), pa.int16()),
        (pa.uint32(), pa.int8(), pa.int64()),
        (pa.uint64(), pa.int8(), pa.decimal128(20, 0)),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.float16(), pa.int16(), pa.float32()),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int64(), pa.float64(), None),
        (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4)),
        (pa.decimal128(12, 2), pa.decimal128(10, 4), pa.decimal128(14, 4)),
        (pa.decimal128(30, 0), pa.decimal128(18, 9), None),
        (pa.decimal256(50, 0), pa.decimal128(18, 9), None),
        (pa.int64(), pa.decimal128(10, 2), pa.decimal128(21, 2)),
        (pa.decimal128(10, 2), pa.uint64(), pa.decimal128(22, 2)),
        (pa.decimal128(10, 2), pa.float64(), None),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Prague"), pa.timestamp("ns", "UTC")),
        (pa.timestamp("us"), pa.timestamp("ns", "UTC"), None),
        (pa.date32(), pa.timestamp("us"), None),
        (pa.timestamp("us"), pa.date32(), None),
        (pa.time32("s"), pa.time64("us"), pa.time64("us")),
        (pa.null(), pa.dictionary(pa.int8(), pa.int16()), pa.int16()),
        (pa.int16(), pa.null(), pa.int16()),
        (pa.string(), pa.int8(), None),
        (pa.string(), pa.uuid(), None),
        (pa.bool_(), pa.int8(), None),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int16(), 2), pa.list_(pa.int16(), 2)),
        (pa.list_(pa.int8(), 2), pa.large_list(pa.int16()), pa.list_(pa.int16())),
        (pa.list_(pa.int16()), pa.list_(pa.uint16(), 2), pa.list_(pa.int32())),
        (pa.list_(pa.int16()), pa.list_(pa.string()), None),
        (
            pa.struct([("a", pa.int8()), ("b", pa.list_(pa.int64()))]),
            pa.struct([("b", pa.list_(pa.int8())), ("a", pa.int16())]),
            pa.struct([("a", pa.int16()), ("b", pa.list_(pa.int64()))]),
        ),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int16()), ("b", pa.int8())]), None),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.string())]), None),
        (pa.map_(pa.int8(), pa.int64()), pa.map_(pa.int16(), pa.int8()), pa.map_(pa.int16(), pa.int64())),
        (pa.map_(pa.string(), pa.int8()), pa.list_(pa.int8()), None),
    ],
    ids=str,
)
def test_the_wider_type_holds_every_value_of_both(stored, staged, wider):
    assert wider_type(stored, staged) == wider


numbers = st.one_of(decimals, st.sampled_from(NUMBERS))


@given(numbers, numbers)
def test_a_wider_number_takes_both_and_needs_no_widening_again(stored, staged):
    wider = wider_type(stored, staged)
    assert (wider is None) == (wider_type(staged, stored) is None)
    if wider is not None:
        assert fits(stored, wider)
        assert fits(staged, wider)
        assert wider_type(wider, staged) == wider_type(wider, stored) == wider
