"""Logical nulls and dotted names, over every array layout that hides nulls."""

import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.protocol.validation.columns import find_column
from ecmbatch.protocol.validation.observation import Unobservable


def column(array: pa.Array) -> Any:
    return find_column(pa.record_batch([array], names=["a"]), "a", "output")


def counted(array: pa.Array, *, nan_as_null: bool = True, among: list[bool] | None = None) -> int:
    mask = None if among is None else pa.array(among, pa.bool_())
    return int(column(array).count_nulls(nan_as_null=nan_as_null, among=mask))


def with_null_in_dictionary(values: list[float | None]) -> pa.Array:
    distinct = [None, 1.0, 2.0, math.nan]
    places = [next(i for i, d in enumerate(distinct) if d is v or d == v or _both_nan(d, v)) for v in values]
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), pa.array(distinct, pa.float64()))


def _both_nan(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and math.isnan(one) and math.isnan(other)


def sparse_union(values: list[float | None]) -> pa.Array:
    codes = pa.array([i % 2 for i in range(len(values))], pa.int8())
    children = [pa.array(values, pa.float64()), pa.array(values, pa.float32())]
    return pa.UnionArray.from_sparse(codes, children)


def dense_union(values: list[float | None]) -> pa.Array:
    codes = pa.array([i % 2 for i in range(len(values))], pa.int8())
    offsets = pa.array([i // 2 for i in range(len(values))], pa.int32())
    children = [pa.array(values[0::2], pa.float64()), pa.array(values[1::2], pa.float64())]
    return pa.UnionArray.from_dense(codes, offsets, children)


LAYOUTS: dict[str, Callable[[list[float | None]], pa.Array]] = {
    "plain": lambda values: pa.array(values, pa.float64()),
    "half": lambda values: pa.array(values, pa.float64()).cast(pa.float16()),
    "dictionary": lambda values: pa.array(values, pa.float64()).dictionary_encode(),
    "dictionary with a null value": with_null_in_dictionary,
    "run-end encoded": lambda values: pc.run_end_encode(pa.array(values, pa.float64())),
    "sparse union": sparse_union,
    "dense union": dense_union,
    "run-end encoded of dictionary": lambda values: pa.RunEndEncodedArray.from_arrays(
        pa.array(range(1, len(values) + 1), pa.int32()), with_null_in_dictionary(values)
    ),
}
VALUES = st.lists(st.sampled_from([None, 1.0, 2.0, math.nan]), max_size=12)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(values=VALUES, data=st.data())
def test_nulls_are_counted_logically_in_every_layout_and_slice(
    layout: str, values: list[float | None], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(values)))
    seen = values[start : start + data.draw(st.integers(0, len(values)))]
    array = LAYOUTS[layout](values).slice(start, len(seen))
    among = data.draw(st.lists(st.booleans(), min_size=len(seen), max_size=len(seen)))
    nulls = [value is None for value in seen]
    blanks = [value is None or math.isnan(value) for value in seen]
    assert counted(array, nan_as_null=False) == sum(nulls)
    assert counted(array, nan_as_null=True) == sum(blanks)
    assert counted(array, among=among) == sum(b and chosen for b, chosen in zip(blanks, among, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(values=VALUES, data=st.data())
def test_a_field_of_a_null_struct_is_null(
    layout: str, values: list[float | None], data: st.DataObject
) -> None:
    absent = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    struct = pa.StructArray.from_arrays(
        [LAYOUTS[layout](values)], ["email"], mask=pa.array(absent, pa.bool_())
    )
    start = data.draw(st.integers(0, len(values)))
    batch = pa.record_batch([struct], names=["data"]).slice(start)
    expected = [gone or value is None for gone, value in zip(absent, values, strict=True)][start:]
    found = find_column(batch, "data.email", "output")
    assert found.nulls().to_pylist() == expected
    assert found.count_nulls(nan_as_null=False, among=None) == sum(expected)


def test_the_null_type_and_nested_types_are_counted_too() -> None:
    assert counted(pa.nulls(3)) == 3
    assert counted(pa.array([[1], None, []])) == 1
    assert counted(pa.array([{"x": None}, None])) == 1
    assert counted(pa.array(["a", None], pa.string_view())) == 1
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16)))
    assert counted(uuids) == 1


def test_an_empty_text_is_no_null() -> None:
    assert counted(pa.array(["", None])) == 1


def nested() -> pa.RecordBatch:
    return pa.record_batch(
        {
            "data": pa.array([{"email": "in struct", "deep": {"x.y": 1}}]),
            "data.email": pa.array(["exact"]),
            "other": pa.array([{"email": "other"}]),
            "a.b": pa.array([{"c": "dotted parent"}]),
        }
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.email", "exact"),
        ("other.email", "other"),
        ("data.deep.x.y", 1),
        ("a.b.c", "dotted parent"),
    ],
)
def test_a_column_of_the_exact_name_comes_before_a_path(name: str, value: object) -> None:
    assert find_column(nested(), name, "output").values().to_pylist() == [value]


@pytest.mark.parametrize(
    "name", ["missing", "data.missing", "other.email.x", ".", "data.", ".data", "other..email"]
)
def test_a_missing_column_is_named_with_a_hint(name: str) -> None:
    with pytest.raises(Unobservable, match="there is no column") as raised:
        find_column(nested(), name, "output")
    assert '"stage": "source"' in str(raised.value)
    with pytest.raises(Unobservable) as raised:
        find_column(nested(), name, "source")
    assert '"stage"' not in str(raised.value)


def test_two_columns_of_one_name_are_refused() -> None:
    batch = pa.record_batch([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(Unobservable, match="two columns"):
        find_column(batch, "a", "output")
