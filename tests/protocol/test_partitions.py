"""Ranges and lists against plain Python, for every type a key can have."""

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmbatch.errors import SourceError
from ecmbatch.protocol.key_values import encode_key, plain_keys
from ecmbatch.protocol.partitioning.partitions import (
    HashPartitions,
    ListPartitions,
    Partitions,
    RangePartitions,
    keep,
    partitions_from_json,
    partitions_to_json,
    split,
)

unhurried = settings(deadline=None)

INSTANTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
SECONDS = st.integers(-(10**10), 10**10)
TEXT = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["", "a", "A", "ä", "€", "🎈", "a\0"]
)


def as_it_is(value: Any) -> Any:
    return value


def nan_last(value: float) -> tuple[bool, float]:
    return (math.isnan(value), 0.0 if math.isnan(value) else value + 0.0)


def raw(kind: pa.DataType) -> Callable[[Sequence[int | None]], pa.Array]:
    return lambda values: pa.array(values, pa.int64()).view(kind)


def of(kind: pa.DataType) -> Callable[[Sequence[Any]], pa.Array]:
    return lambda values: pa.array(values, kind)


def uuids(values: Sequence[UUID | None]) -> pa.Array:
    storage = pa.array([None if value is None else value.bytes for value in values], pa.binary(16))
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


Reference = tuple[Callable[[Sequence[Any]], pa.Array], st.SearchStrategy[Any], Callable[[Any], Any]]

KINDS: dict[str, Reference] = {
    "int8": (of(pa.int8()), st.integers(-128, 127), as_it_is),
    "int32": (of(pa.int32()), st.integers(-(2**31), 2**31 - 1), as_it_is),
    "int64": (of(pa.int64()), st.integers(-(2**63), 2**63 - 1) | st.integers(2**53, 2**53 + 4), as_it_is),
    "uint8": (of(pa.uint8()), st.integers(0, 255), as_it_is),
    "uint64": (of(pa.uint64()), st.integers(0, 2**64 - 1) | st.integers(2**63 - 2, 2**63 + 2), as_it_is),
    "bool": (of(pa.bool_()), st.booleans(), as_it_is),
    "half": (of(pa.float16()), st.floats(width=16).map(np.float16), lambda value: nan_last(float(value))),
    "single": (of(pa.float32()), st.floats(width=32), nan_last),
    "double": (of(pa.float64()), st.floats() | st.sampled_from([0.0, -0.0, float("nan")]), nan_last),
    "decimal32": (of(pa.decimal32(7, 2)), st.decimals(-9999, 9999, places=2), as_it_is),
    "decimal64": (of(pa.decimal64(12, 0)), st.decimals(-(10**9), 10**9, places=0), as_it_is),
    "decimal128": (of(pa.decimal128(38, 10)), st.decimals(-(10**20), 10**20, places=10), as_it_is),
    "decimal256": (of(pa.decimal256(70, 3)), st.decimals(-(10**30), 10**30, places=3), as_it_is),
    "text": (of(pa.string()), TEXT, str.encode),
    "large text": (of(pa.large_string()), TEXT, str.encode),
    "text view": (of(pa.string_view()), TEXT, str.encode),
    "dictionary": (of(pa.dictionary(pa.int16(), pa.string())), TEXT, str.encode),
    "run ends": (lambda values: pc.run_end_encode(pa.array(values, pa.string())), TEXT, str.encode),
    "binary": (of(pa.binary()), st.binary(max_size=5), as_it_is),
    "binary view": (of(pa.binary_view()), st.binary(max_size=5), as_it_is),
    "fixed": (of(pa.binary(3)), st.binary(min_size=3, max_size=3), as_it_is),
    "uuid": (uuids, st.uuids(), lambda value: value.bytes),
    "date": (of(pa.date32()), st.dates(), as_it_is),
    "date64": (of(pa.date64()), st.dates(), as_it_is),
    "time32": (of(pa.time32("s")), st.times().map(lambda value: value.replace(microsecond=0)), as_it_is),
    "time64": (of(pa.time64("us")), st.times(), as_it_is),
    "timestamp s": (raw(pa.timestamp("s")), SECONDS, as_it_is),
    "timestamp ms": (raw(pa.timestamp("ms")), SECONDS, as_it_is),
    "timestamp us": (of(pa.timestamp("us")), INSTANTS, as_it_is),
    "timestamp ns": (raw(pa.timestamp("ns")), st.integers(-(2**63), 2**63 - 1), as_it_is),
    "zoned": (
        of(pa.timestamp("us", "Europe/Berlin")),
        INSTANTS.map(lambda value: value.replace(tzinfo=UTC)),
        as_it_is,
    ),
    "zoned ns": (raw(pa.timestamp("ns", "UTC")), st.integers(-(2**63), 2**63 - 1), as_it_is),
}


@st.composite
def keys_and_values(draw: st.DrawFn, kind: str) -> tuple[pa.Array, list[Any], list[Any]]:
    """Keys as Arrow and as Python, and some different values, ascending; most keys are among them."""
    make, values, order = KINDS[kind]
    drawn = draw(st.lists(values, max_size=6, unique_by=order))
    known = sorted((value for value in drawn if not is_special(value)), key=order)
    keys = draw(st.lists(st.none() | st.sampled_from(known or [None]) | values, max_size=30))
    return make(keys), keys, known


def is_special(value: Any) -> bool:
    return isinstance(value, float | np.floating) and not math.isfinite(value)


def encoded(kind: str, values: Sequence[Any]) -> tuple[Any, ...]:
    stored = [encode_key(key) for key in plain_keys(KINDS[kind][0](values))]
    return tuple(json.loads(json.dumps(stored, allow_nan=False)))


@pytest.mark.parametrize("kind", KINDS)
@unhurried
@given(data=st.data())
def test_a_range_has_what_is_not_below_its_first_bound_and_below_its_second(
    kind: str, data: st.DataObject
) -> None:
    array, keys, bounds = data.draw(keys_and_values(kind))
    order = KINDS[kind][2]
    ranges = RangePartitions(key="k", bounds=encoded(kind, bounds), shown=("",) * len(bounds))
    expected = [0 if key is None else sum(order(bound) <= order(key) for bound in bounds) for key in keys]
    assert ranges.assign(array).tolist() == expected
    assert ranges.assign(array[1:]).tolist() == expected[1:]


@pytest.mark.parametrize("kind", KINDS)
@unhurried
@given(data=st.data())
def test_a_list_partition_has_its_values_and_the_default_the_rest(kind: str, data: st.DataObject) -> None:
    array, keys, values = data.draw(keys_and_values(kind))
    order = KINDS[kind][2]
    at = data.draw(st.integers(0, len(values)))
    chosen = [group for group in (values[:at], values[at:]) if group]
    default = data.draw(st.sampled_from(["rest", *(str(number) for number in range(len(chosen)))]))
    lists = ListPartitions(
        key="k",
        names=tuple(str(number) for number in range(len(chosen))),
        groups=tuple(encoded(kind, group) for group in chosen),
        default=default,
    )
    rest = len(chosen) if default == "rest" else int(default)
    assert (lists.rest, lists.count) == (rest, len(chosen) + (default == "rest"))

    def place(key: Any) -> int:
        groups = (number for number, group in enumerate(chosen) if order(key) in map(order, group))
        return rest if key is None else next(groups, rest)

    expected = [None if key is None else place(key) for key in keys]
    assert lists.assign(array).tolist() == [rest if place is None else place for place in expected]
    assert lists.assign(array[1:]).tolist() == lists.assign(array).tolist()[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_null_of_every_type_is_in_the_first_range_and_in_the_rest_of_a_list(kind: str) -> None:
    keys = KINDS[kind][0]([None, None])
    assert RangePartitions(key="k", bounds=(), shown=()).assign(keys).tolist() == [0, 0]
    assert ListPartitions(key="k", names=("a",), groups=((),)).assign(keys).tolist() == [1, 1]


def test_a_source_without_any_value_has_only_nulls_to_assign() -> None:
    keys = pa.nulls(2)
    assert RangePartitions(key="k", bounds=(), shown=()).assign(keys).tolist() == [0, 0]
    assert HashPartitions(key="k", count=3).assign(keys).tolist() == [0, 0]


def test_numbers_that_a_float_cannot_tell_apart_are_in_different_ranges() -> None:
    ranges = RangePartitions(key="k", bounds=(2**53 + 1,), shown=("",))
    assert ranges.assign(pa.array([2**53, 2**53 + 1])).tolist() == [0, 1]
    assert ranges.assign(pa.array([2**53, 2**53 + 1], pa.uint64())).tolist() == [0, 1]


def test_minus_zero_is_zero_and_nan_is_the_greatest() -> None:
    keys = pa.array([-0.0, 0.0, float("nan"), float("inf"), -1.0])
    assert RangePartitions(key="k", bounds=(0.0, 1e308), shown=("", "")).assign(keys).tolist() == [
        1,
        1,
        2,
        2,
        0,
    ]
    for zero in (0.0, -0.0):
        lists = ListPartitions(key="k", names=("zero",), groups=((zero,),), default="rest")
        assert lists.assign(keys).tolist() == [0, 0, 1, 1, 1]


def test_texts_are_ordered_by_their_bytes() -> None:
    ranges = RangePartitions(key="k", bounds=("Z", "a", "ä"), shown=("Z", "a", "ä"))
    assert ranges.assign(pa.array(["", "A", "Z", "[", "a", "z", "ä", "€", "🎈"])).tolist() == [
        *(0, 0),
        *(1, 1),
        *(2, 2),
        *(3, 3, 3),
    ]


def test_there_may_be_a_thousand_bounds_and_a_thousand_values() -> None:
    keys = pa.array([None, *range(-5, 2005)])
    ranges = RangePartitions(key="k", bounds=tuple(range(0, 2000, 2)), shown=("",) * 1000)
    assert ranges.count == 1001
    assert ranges.assign(keys).tolist() == [0, *(min(max(key // 2 + 1, 0), 1000) for key in range(-5, 2005))]
    lists = ListPartitions(
        key="k",
        names=tuple(map(str, range(1000))),
        groups=tuple((str(number),) for number in range(1000)),
        default="500",
    )
    assert lists.assign(pa.array(["999", "x", None, "0"])).tolist() == [999, 500, 500, 0]


@pytest.mark.slow
def test_the_most_partitions_have_numbers_of_their_own() -> None:
    ranges = RangePartitions(key="k", bounds=tuple(range(1, 65_536)), shown=("",) * 65_535)
    assert ranges.assign(pa.array([0, 1, 65_535, 10**9])).tolist() == [0, 1, 65_535, 65_535]
    texts = RangePartitions(key="k", bounds=tuple(f"{n:05}" for n in range(1, 65_536)), shown=("",) * 65_535)
    assert texts.assign(pa.array(["", "00001", "65535", "99999"])).tolist() == [0, 1, 65_535, 65_535]


def test_values_that_no_group_lists_are_refused_without_being_shown() -> None:
    lists = ListPartitions(key="region", names=("a",), groups=(("EU",),))
    assert lists.assign(pa.array(["EU", None])).tolist() == [0, 1]
    with pytest.raises(
        SourceError, match="'region' has values that no list partition names, in at least 2 rows"
    ) as raised:
        lists.assign(pa.array(["EU", "SECRET", None, "SECRET 2"]))
    assert "SECRET" not in f"{raised.value}{raised.value.hint}"
    assert "default" in str(raised.value.hint)


PARTITIONINGS: list[tuple[Partitions, list[str]]] = [
    (HashPartitions(key="k", count=2), ["hash 0 of 2", "hash 1 of 2"]),
    (
        RangePartitions(key="k", bounds=(1, 3), shown=("1", "3"), ordered=True),
        ["< 1, NULL", ">= 1, < 3", ">= 3"],
    ),
    (RangePartitions(key="k", bounds=(), shown=()), ["everything"]),
    (
        RangePartitions(key="k", bounds=({"decimal": "1.50"}, {"bytes": "00ff"}), shown=("1.50", "00ff")),
        ["< 1.50, NULL", ">= 1.50, < 00ff", ">= 00ff"],
    ),
    (ListPartitions(key="k", names=("a", "b"), groups=(("x", "y"), ("z",))), ["a", "b", "NULL"]),
    (ListPartitions(key="k", names=("a",), groups=((1,),), default="other"), ["a", "other"]),
    (ListPartitions(key="k", names=("a", "b"), groups=((1,), (2,)), default="a"), ["a", "b"]),
]


@pytest.mark.parametrize(("partitions", "labels"), PARTITIONINGS)
def test_partitions_have_labels_and_survive_json(partitions: Partitions, labels: list[str]) -> None:
    assert [partitions.label(number) for number in range(partitions.count)] == labels
    stored = json.loads(json.dumps(partitions_to_json(partitions), allow_nan=False))
    assert partitions_from_json(stored) == partitions


def test_no_partitioning_survives_json_too() -> None:
    assert partitions_to_json(None) is None
    assert partitions_from_json(None) is None


@st.composite
def batches(draw: st.DrawFn) -> tuple[pa.RecordBatch, Partitions]:
    keys = draw(st.lists(st.none() | st.integers(0, 9), max_size=40))
    batch = pa.record_batch({"k": pa.array(keys, pa.int64()), "row": pa.array(range(len(keys)), pa.int64())})
    partitions: st.SearchStrategy[Partitions] = st.sampled_from(
        [
            HashPartitions(key="k", count=3),
            RangePartitions(key="k", bounds=(2, 3, 7), shown=("2", "3", "7")),
            ListPartitions(key="k", names=("a", "b"), groups=((1, 5), (2,)), default="rest"),
            ListPartitions(key="k", names=("a", "b"), groups=((1, 5), (2,)), default="b"),
        ]
    )
    return batch, draw(partitions)


@unhurried
@given(drawn=batches(), slices=st.integers(0, 5))
def test_splitting_keeps_every_row_once_in_its_partition_and_in_order(
    drawn: tuple[pa.RecordBatch, Partitions], slices: int
) -> None:
    whole, partitions = drawn
    batch = whole.slice(slices)
    parts = list(split(batch, partitions))
    assert [number for number, _ in parts] == sorted({number for number, _ in parts})
    rows = [row for _, part in parts for row in part.column("row").to_pylist()]
    assert sorted(rows) == batch.column("row").to_pylist()
    for number, part in parts:
        assert part.num_rows and part.schema == batch.schema
        assert set(partitions.assign(part.column("k")).tolist()) == {number}
        assert part.column("row").to_pylist() == sorted(part.column("row").to_pylist())
        assert keep(batch, partitions, [number]).equals(part)


@unhurried
@given(drawn=batches(), wanted=st.sets(st.integers(0, 3)))
def test_keeping_some_partitions_and_keeping_the_others_is_keeping_everything(
    drawn: tuple[pa.RecordBatch, Partitions], wanted: set[int]
) -> None:
    batch, partitions = drawn
    others = sorted(set(range(partitions.count)) - wanted)
    kept = [
        keep(batch, partitions, numbers).column("row").to_pylist() for numbers in (sorted(wanted), others)
    ]
    assert sorted(kept[0] + kept[1]) == batch.column("row").to_pylist()


def test_bounds_are_those_of_the_type_they_are_asked_about() -> None:
    days = RangePartitions(key="k", bounds=(0,), shown=("1970-01-01",))
    assert days.assign(pa.array([date(1969, 12, 31), date(1970, 1, 1)])).tolist() == [0, 1]
    assert days.assign(pa.array([datetime(1969, 12, 31), datetime(1970, 1, 1)])).tolist() == [0, 1]
    assert days.assign(pa.array([time(0)])).tolist() == [1]
    money = RangePartitions(key="k", bounds=({"decimal": "1.50"},), shown=("1.50",))
    assert money.assign(pa.array([Decimal("1.49"), Decimal("1.50")])).tolist() == [0, 1]
