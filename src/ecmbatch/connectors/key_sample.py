"""A sample of keys from a source that has to be read for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa

from ecmbatch.connectors.columns import check_column
from ecmbatch.connectors.connector import Connector, KeySample, ReadRequest
from ecmbatch.protocol.key_values import plain_keys

MOST_ROWS = 1_000_000
"""A source that cannot be sampled is read only so far: planning must not take as long as the run."""


def sample_by_reading(connector: Connector, request: ReadRequest, key: str, size: int) -> KeySample:
    """Read the first rows of what *request* asks *connector* for, and return some of their keys."""
    whole = replace(request, partitioning=None, order_by=None, resumable=False)
    plan = connector.plan(whole)
    check_column(plan.schema, "partitioning.key", key)
    (scan,) = plan.scans
    sampler = Sampler(size)
    with connector.read(whole, scan, None) as batches:
        for scanned in batches:
            if sampler.rows >= MOST_ROWS:
                return KeySample(keys=sampler.keys(plan.schema.field(key).type), rows=None)
            sampler.take(scanned.batch.column(key))
    return KeySample(keys=sampler.keys(plan.schema.field(key).type), rows=sampler.rows)


class Sampler:
    """Keeps every n-th key, with n doubled whenever more than twice *size* are kept: no more is ever held."""

    def __init__(self, size: int) -> None:
        self.rows = 0
        self._most = 2 * max(size, 1)
        self._every = 1
        self._kept: list[pa.Array] = []

    def take(self, keys: pa.Array) -> None:
        """Look at further keys."""
        first = -self.rows % self._every
        self.rows += len(keys)
        self._kept.append(keys.take(pa.array(range(first, len(keys), self._every), pa.int64())))
        if sum(map(len, self._kept)) > self._most:
            self._thin_out()

    def keys(self, kind: pa.DataType) -> pa.Array:
        """Return what was kept, as an array of *kind* in its plain form."""
        return plain_keys(_concatenated(self._kept, kind))

    def _thin_out(self) -> None:
        kept = _concatenated(self._kept, self._kept[0].type)
        self._every *= 2
        self._kept = [kept.take(pa.array(range(0, len(kept), 2), pa.int64()))]


def _concatenated(arrays: Iterable[pa.Array], kind: pa.DataType) -> pa.Array:
    return pa.chunked_array(list(arrays), kind).combine_chunks()
