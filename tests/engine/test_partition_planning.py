"""From the partitioning that a job declares to the partitions of a run."""

from bisect import bisect_right
from collections import Counter
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ecmbatch.connectors.connector import KeySample, ReadRequest
from ecmbatch.connectors.memory import MemoryConnector
from ecmbatch.engine.partition_planning import estimated_rows, plan_partitions, quantile_bounds
from ecmbatch.errors import InvalidDocument, SourceError
from ecmbatch.protocol.partitioning.declaration import Partitioning
from ecmbatch.protocol.partitioning.partitions import (
    HashPartitions,
    ListPartitions,
    Partitions,
    RangePartitions,
)

REQUEST = ReadRequest(table="t")


class Unsampled(MemoryConnector):
    """A source that is too long to look at as a whole."""

    def sample_keys(self, request: ReadRequest, key: str, size: int) -> KeySample:
        return replace(super().sample_keys(request, key, size), rows=None)


def connector(keys: pa.Array, kind: type[MemoryConnector] = MemoryConnector) -> MemoryConnector:
    return kind(pa.table({"k": keys}))


def planned(keys: pa.Array, **partitioning: Any) -> tuple[Partitions, tuple[str, ...]]:
    return plan_partitions(declared(**partitioning), REQUEST, connector(keys))


def declared(**partitioning: Any) -> Partitioning:
    adapter: TypeAdapter[Partitioning] = TypeAdapter(Partitioning)
    return adapter.validate_python({"key": "k", **partitioning})


def ranges(keys: pa.Array, partitions: int, **more: Any) -> RangePartitions:
    partitioning, _ = planned(keys, strategy="range", partitions=partitions, **more)
    assert isinstance(partitioning, RangePartitions)
    return partitioning


def problems(keys: pa.Array, **partitioning: Any) -> list[str]:
    with pytest.raises(InvalidDocument) as raised:
        planned(keys, **partitioning)
    return [str(problem) for problem in raised.value.problems]


def sizes(keys: list[Any], bounds: list[Any]) -> list[int]:
    """How many keys each range has."""
    counted = Counter(0 if key is None else bisect_right(bounds, key) for key in keys)
    return [counted[number] for number in range(len(bounds) + 1)]


def bounds_of(keys: list[Any], partitions: int, kind: pa.DataType | None = None) -> list[Any]:
    return [bound.as_py() for bound in quantile_bounds(pa.array(keys, kind), partitions)]


# --- computed bounds -------------------------------------------------------------------------------------


def test_keys_that_all_differ_are_divided_evenly() -> None:
    keys = list(range(1000))
    assert set(sizes(keys, bounds_of(keys, 16))) == {62, 63}
    texts = [f"{key:04}" for key in reversed(keys)]
    assert set(sizes(texts, bounds_of(texts, 16))) == {62, 63}


def test_a_value_with_half_of_the_rows_has_its_own_range_and_the_others_share_the_rest() -> None:
    keys = [300] * 1000 + list(range(1000))
    found = sizes(keys, bounds_of(keys, 16))
    assert len(found) == 16
    assert sorted(found)[-1] == 1001
    assert sorted(found)[-2] < 130


@pytest.mark.parametrize("heavy", [0, 50, 99])
def test_a_heavy_value_at_either_end_costs_no_range(heavy: int) -> None:
    keys = [heavy] * 900 + list(range(100))
    found = sizes(keys, bounds_of(keys, 4))
    assert len(found) == 4
    assert 0 not in found


def test_many_nulls_have_the_first_range_to_themselves() -> None:
    keys = [None] * 500 + list(range(500))
    assert sizes(keys, bounds_of(keys, 4)) == [500, 166, 167, 167]


@pytest.mark.parametrize(
    ("keys", "kind", "bounds"),
    [
        ([], pa.int64(), []),
        ([None, None], pa.int64(), []),
        ([None], pa.null(), []),
        ([7] * 9, pa.int64(), []),
        ([None, 7, 7], pa.int64(), [7]),
        ([True, False], pa.bool_(), [True]),
        ([None, True, False], pa.bool_(), [False, True]),
        (["b", "a", "b"], pa.string(), ["b"]),
        ([float("nan"), float("inf"), float("-inf")], pa.float64(), []),
        ([float("nan"), 2.0, 1.0, float("inf")], pa.float64(), [2.0]),
    ],
)
def test_fewer_values_than_ranges_have_a_range_each(
    keys: list[Any], kind: pa.DataType, bounds: list[Any]
) -> None:
    assert bounds_of(keys, 9, kind) == bounds


@settings(deadline=None)
@given(
    keys=st.lists(st.none() | st.sampled_from([1, 2, 50]) | st.integers(0, 60), max_size=80),
    partitions=st.integers(1, 12),
)
def test_computed_ranges_are_as_many_as_can_be_and_none_is_empty(
    keys: list[int | None], partitions: int
) -> None:
    bounds = bounds_of(keys, partitions, pa.int64())
    assert bounds == sorted(set(bounds))
    assert len(bounds) + 1 == max(min(partitions, len(set(keys))), 1)
    assert not keys or 0 not in sizes(keys, bounds)
    # No range is larger than an even share, its heaviest value and what its neighbour could not take.
    heaviest = max(Counter(keys).values(), default=0)
    assert max(sizes(keys, bounds)) <= max(len(keys) // partitions, 1) + heaviest


def test_a_computed_range_has_its_bounds_in_the_run_and_as_people_write_them() -> None:
    days = ranges(pa.array([date(2013, 1, day) for day in range(1, 29)]), 4, ordered=True)
    assert days == RangePartitions(
        key="k",
        bounds=(15713, 15720, 15727),
        shown=("2013-01-08", "2013-01-15", "2013-01-22"),
        ordered=True,
    )
    keys = pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([UUID(int=number).bytes for number in range(4)], pa.binary(16))
    )
    assert ranges(keys, 2).label(0) == "< 00000000-0000-0000-0000-000000000002, NULL"
    assert ranges(pa.array(["a", "b"]), 2).shown == ("b",)
    assert ranges(pa.array(["a", "b"]).dictionary_encode(), 2).shown == ("b",)
    assert ranges(pa.array([Decimal("1.50"), Decimal("2.50")]), 2).bounds == ({"decimal": "2.50"},)


def test_too_few_values_and_a_sample_of_the_beginning_are_told() -> None:
    _, notes = planned(pa.array([1, 1, 2]), strategy="range", partitions=4)
    assert notes == ("column 'k' has too few different values for 4 ranges; the run has 2",)
    job = declared(strategy="range", partitions=2)
    _, notes = plan_partitions(job, REQUEST, connector(pa.array([1, 2, 3]), Unsampled))
    assert notes == ("the bounds of the ranges come from the source's first rows; it is too long to sample",)


def test_an_unknown_or_nested_key_is_refused_by_its_name() -> None:
    for strategy in (
        {"strategy": "range", "partitions": 2},
        {"strategy": "range", "bounds": [1]},
        {"strategy": "list", "values": [[1]]},
    ):
        with pytest.raises(SourceError, match="'kee'"):
            planned(pa.array([1]), **strategy, key="kee")
        with pytest.raises(SourceError, match="nested"):
            planned(pa.array([[1]]), **strategy)


# --- given bounds ----------------------------------------------------------------------------------------


def test_given_bounds_are_read_by_the_type_of_the_key() -> None:
    days = planned(pa.array([date(2013, 1, 1)]), strategy="range", bounds=["2013-01-01", "2013-07-01"])[0]
    assert days == RangePartitions(key="k", bounds=(15706, 15887), shown=("2013-01-01", "2013-07-01"))
    money = planned(pa.array([Decimal("1.5")], pa.decimal128(9, 2)), strategy="range", bounds=[2, 10])[0]
    assert money == RangePartitions(
        key="k", bounds=({"decimal": "2.00"}, {"decimal": "10.00"}), shown=("2.00", "10.00")
    )


@pytest.mark.parametrize(
    ("kind", "bounds", "found"),
    [
        (pa.decimal128(9, 2), ["9", "10"], []),
        (pa.string(), ["9", "10"], ["1"]),
        (pa.string(), ["a", "Z", "b"], ["1"]),
        (pa.date32(), ["2013-07-01", "2013-01-01", "2013-02-01"], ["1"]),
        (pa.timestamp("us", "UTC"), ["2013-01-01T00:00:00Z", "2013-01-01T01:00:00+02:00"], ["1"]),
        (pa.timestamp("us", "UTC"), ["2013-01-01T00:00:00Z", "2013-01-01T02:00:00+02:00"], ["1"]),
        (pa.decimal128(9, 2), ["1", "1.0"], ["1"]),
        (pa.float32(), [0.1, 0.10000000149], ["1"]),
    ],
    ids=str,
)
def test_bounds_ascend_by_the_type_of_the_key(kind: pa.DataType, bounds: list[Any], found: list[str]) -> None:
    partitioning = {"strategy": "range", "bounds": bounds}
    if found:
        assert problems(pa.nulls(1, kind), **partitioning) == [
            f"/partitioning/bounds/{number}: must be greater than the bound before it" for number in found
        ]
    else:
        assert planned(pa.nulls(1, kind), **partitioning)[0].count == len(bounds) + 1


def test_bounds_that_are_no_keys_are_all_told_by_their_place() -> None:
    found = problems(pa.array([date(2013, 1, 1)]), strategy="range", bounds=["2013-01-01", "later", "2013"])
    assert found == [
        f"/partitioning/bounds/{number}: must be a text such as 2013-01-31: the key is a column of type date32[day]"
        for number in (1, 2)
    ]
    assert problems(pa.array([1]), strategy="range", bounds=[1.5]) == [
        "/partitioning/bounds/0: must be a whole number that fits: the key is a column of type int64"
    ]


# --- lists -----------------------------------------------------------------------------------------------


def test_the_values_of_a_list_are_read_by_the_type_of_the_key() -> None:
    partitioning, notes = planned(
        pa.array([datetime(2013, 1, 1)]), strategy="list", values={"new year": ["2013-01-01"]}, default="rest"
    )
    assert partitioning == ListPartitions(
        key="k", names=("new year",), groups=((1356998400000000,),), default="rest"
    )
    assert notes == ()


def test_one_value_in_two_writings_is_listed_twice() -> None:
    found = problems(
        pa.nulls(1, pa.decimal128(9, 2)), strategy="list", values={"a/b": ["1"], "c": ["2", "1.0"]}
    )
    assert found == ["/partitioning/values/c/1: is listed twice as a value of type decimal128(9, 2)"]
    assert problems(pa.array([1]), strategy="list", values={"a/b": [1, 1.5]}) == [
        "/partitioning/values/a~1b/1: must be a whole number that fits: the key is a column of type int64"
    ]


# --- estimates -------------------------------------------------------------------------------------------


def test_estimates_are_exact_where_all_keys_are_sampled() -> None:
    source = connector(pa.array([None, 1, 2, 3, 10]))
    request = replace(REQUEST, partitioning=RangePartitions(key="k", bounds=(2, 5), shown=("2", "5")))
    assert estimated_rows(request, source) == [2, 2, 1]
    assert estimated_rows(REQUEST, source) == [None]


def test_estimates_of_a_long_source_are_scaled_up() -> None:
    source = connector(pa.array(range(1_000_000)))
    request = replace(REQUEST, partitioning=HashPartitions(key="k", count=4))
    estimates = [rows or 0 for rows in estimated_rows(request, source)]
    assert sum(estimates) == pytest.approx(1_000_000, rel=0.001)
    assert all(rows == pytest.approx(250_000, rel=0.1) for rows in estimates)


def test_nothing_is_estimated_from_a_sample_of_the_beginning() -> None:
    request = replace(REQUEST, partitioning=HashPartitions(key="k", count=4))
    assert estimated_rows(request, connector(pa.array(range(10)), Unsampled)) == [None] * 4


def test_an_empty_source_has_estimates_of_nothing() -> None:
    request = replace(REQUEST, partitioning=HashPartitions(key="k", count=2))
    assert estimated_rows(request, connector(pa.array([], pa.int64()))) == [0, 0]
