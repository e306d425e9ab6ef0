"""Rows in key order, with a cursor wherever a group of equal keys ends.

A scan that goes on with ``key > last`` may only start between two groups, so that the key need not be
unique. Nothing is copied: a batch that ends inside a group is cut in two slices, and a group of any size
passes through batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from ecmbatch.connectors.connector import Cursor, ScannedBatch


def at_most(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield *batches* cut into slices of at most *rows* rows; empty ones are left out."""
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def by_key_groups(
    batches: Iterable[pa.RecordBatch], key: str, cursor_of: Callable[[pa.Scalar], Cursor]
) -> Iterator[ScannedBatch]:
    """Yield *batches*, which are ordered by *key* and not empty, with ``cursor_of(last key)`` at group ends.

    One batch is held back: whether its last group is over shows in the first row of the next.
    """
    held: pa.RecordBatch | None = None
    for batch in batches:
        if held is not None:
            yield from _before(batch, held, key, cursor_of)
        held = batch
    if held is not None:
        yield ScannedBatch(held, cursor_of(_last(held, key)))


def _before(
    following: pa.RecordBatch, batch: pa.RecordBatch, key: str, cursor_of: Callable[[pa.Scalar], Cursor]
) -> Iterator[ScannedBatch]:
    last = _last(batch, key)
    if not equal_keys(following.column(key).slice(0, 1), last)[0].as_py():
        yield ScannedBatch(batch, cursor_of(last))
        return
    keys = batch.column(key)
    start = len(keys) - int(pc.sum(equal_keys(keys, last)).as_py())
    if start:
        yield ScannedBatch(batch.slice(0, start), cursor_of(keys[start - 1]))
    yield ScannedBatch(batch.slice(start), None)


def _last(batch: pa.RecordBatch, key: str) -> pa.Scalar:
    return batch.column(key)[batch.num_rows - 1]


def equal_keys(keys: pa.Array, key: pa.Scalar) -> pa.Array:
    """Return where *keys* equal *key* as an ordered scan sees it: NULL is NULL, and NaN is NaN."""
    if isinstance(keys, pa.ExtensionArray):
        keys, key = keys.storage, key.value
    if key is None or not key.is_valid:
        return pc.is_null(keys)
    if pa.types.is_floating(keys.type) and pc.is_nan(key).as_py():
        return pc.fill_null(pc.is_nan(keys), False)
    return pc.fill_null(pc.equal(keys, key), False)
