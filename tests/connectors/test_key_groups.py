"""Cutting ordered batches where the key changes."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.connectors.connector import ScannedBatch
from ecmbatch.connectors.key_groups import at_most, by_key_groups

NAN = float("nan")


def batch_of(keys: list[Any], kind: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.record_batch({"key": pa.array(keys, kind), "row": pa.array(range(len(keys)))})


def grouped(*batches: list[Any], kind: pa.DataType | None = None) -> list[tuple[list[Any], Any]]:
    scanned = by_key_groups(
        [batch_of(keys, kind) for keys in batches], "key", lambda key: {"key": key.as_py()}
    )
    return [(each.batch.column("key").to_pylist(), each.cursor and each.cursor["key"]) for each in scanned]


def test_batches_that_end_between_groups_pass_unchanged() -> None:
    assert grouped([1, 2], [3], [4, 4]) == [([1, 2], 2), ([3], 3), ([4, 4], 4)]


def test_a_batch_that_ends_inside_a_group_is_cut_before_it() -> None:
    assert grouped([1, 2, 3, 3], [3, 4]) == [([1, 2], 2), ([3, 3], None), ([3, 4], 4)]


def test_a_giant_group_passes_batch_by_batch() -> None:
    assert grouped([1, 7], [7, 7], [7, 7], [7]) == [
        ([1], 1),
        ([7], None),
        ([7, 7], None),
        ([7, 7], None),
        ([7], 7),
    ]


def test_nulls_are_one_group() -> None:
    scanned = list(
        by_key_groups(
            [batch_of([None, None], pa.int64()), batch_of([None, 1])], "key", lambda key: {"key": key.as_py()}
        )
    )
    assert [each.cursor for each in scanned] == [None, {"key": 1}]


def test_nans_are_one_group_and_zeros_are_equal() -> None:
    cursors = [cursor for _, cursor in grouped([1.0, NAN], [NAN, NAN], [NAN])]
    assert cursors[:3] == [1.0, None, None] and np.isnan(cursors[3])
    assert grouped([-0.0], [0.0]) == [([0.0], None), ([0.0], 0.0)]


def test_no_batches_give_none() -> None:
    assert grouped() == []


@given(
    keys=st.lists(st.none() | st.integers(0, 5)),
    sizes=st.lists(st.integers(1, 7), min_size=1),
)
def test_rows_stay_as_they_are_and_cursors_are_exactly_at_group_ends(
    keys: list[int | None], sizes: list[int]
) -> None:
    ordered = sorted(keys, key=lambda key: (key is not None, key))
    table = pa.table({"key": pa.array(ordered, pa.int64()), "row": pa.array(range(len(ordered)), pa.int64())})
    batches, start = [], 0
    while start < len(ordered):
        size = sizes[len(batches) % len(sizes)]
        batches += table.slice(start, size).to_batches()
        start += size
    scanned = list(by_key_groups(batches, "key", lambda key: {"key": key.as_py()}))
    assert rows_of(scanned) == list(range(len(ordered)))
    done = 0
    for each in scanned:
        done += each.batch.num_rows
        if each.cursor is not None:
            assert ordered[done - 1] == each.cursor["key"]
            assert done == len(ordered) or ordered[done] != ordered[done - 1]
    # A cursor is never further away than the group that a batch ends in.
    for one, other in pairwise(scanned):
        assert one.cursor is not None or one.batch.column("key")[-1] == other.batch.column("key")[0]


def rows_of(scanned: list[ScannedBatch]) -> list[int]:
    return [row for each in scanned for row in each.batch.column("row").to_pylist()]


@pytest.mark.parametrize("rows", [1, 3, 10, 11])
def test_batches_are_sliced_to_size_without_copies(rows: int) -> None:
    batch = batch_of(list(range(10)))
    slices = list(at_most([batch, batch.slice(0, 0)], rows))
    assert max(each.num_rows for each in slices) <= rows
    assert sum(each.num_rows for each in slices) == 10
    assert {each.column("row").buffers()[1].address for each in slices} == {
        batch.column("row").buffers()[1].address
    }
