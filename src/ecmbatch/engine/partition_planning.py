"""From the partitioning that a job declares to the partitions of a run (protocol: Partitioning Strategy)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ecmbatch.connectors.columns import check_column
from ecmbatch.connectors.connector import Connector, KeySample, ReadRequest
from ecmbatch.errors import Problem
from ecmbatch.protocol.document import invalid, pointer
from ecmbatch.protocol.key_values import decode_key, encode_key, plain_type, read_key, shown_key
from ecmbatch.protocol.partitioning.declaration import (
    HashPartitioning,
    ListPartitioning,
    Partitioning,
    RangePartitioning,
)
from ecmbatch.protocol.partitioning.partitions import (
    HashPartitions,
    ListPartitions,
    Partitions,
    RangePartitions,
)

_SAMPLED_KEYS = 20_000


def plan_partitions(
    declared: Partitioning, request: ReadRequest, connector: Connector
) -> tuple[Partitions, tuple[str, ...]]:
    """Return the partitions of a run, and notes for people.

    *request* is the run's, not yet partitioned. Raises :class:`~ecmbatch.errors.InvalidDocument` where bounds
    or values do not fit the type of the key, and what the connector raises.
    """
    match declared:
        case HashPartitioning():
            return HashPartitions(key=declared.key, count=declared.partitions), ()
        case ListPartitioning():
            return _lists(declared, _key_type(declared.key, request, connector)), ()
        case RangePartitioning():
            kind = _key_type(declared.key, request, connector)
            if declared.partitions is None:
                return _given_ranges(declared, kind), ()
            sample = connector.sample_keys(request, declared.key, _SAMPLED_KEYS)
            return _computed_ranges(declared, declared.partitions, kind, sample)


def estimated_rows(request: ReadRequest, connector: Connector) -> Sequence[int | None]:
    """Return about how many rows each partition has, from a sample; ``None`` where the source is too long."""
    if request.partitioning is None:
        return [None]
    whole = replace(request, partitioning=None)
    sample = connector.sample_keys(whole, request.partitioning.key, _SAMPLED_KEYS)
    assigned = request.partitioning.assign(sample.keys)
    if sample.rows is None:
        return [None] * request.partitions
    counted = np.bincount(assigned, minlength=request.partitions)
    share = sample.rows / max(len(sample.keys), 1)
    return [round(int(rows) * share) for rows in counted]


def _key_type(key: str, request: ReadRequest, connector: Connector) -> pa.DataType:
    schema = connector.plan(request).schema
    check_column(schema, "partitioning.key", key)
    return schema.field(key).type


def _computed_ranges(
    declared: RangePartitioning, count: int, kind: pa.DataType, sample: KeySample
) -> tuple[RangePartitions, tuple[str, ...]]:
    bounds = quantile_bounds(sample.keys, count)
    notes = []
    if sample.rows is None:
        notes.append("the bounds of the ranges come from the source's first rows; it is too long to sample")
    if len(bounds) + 1 < count:
        notes.append(
            f"column '{declared.key}' has too few different values for {count} ranges; "
            f"the run has {len(bounds) + 1}"
        )
    return _range_partitions(declared, bounds, kind), tuple(notes)


def quantile_bounds(keys: pa.Array, partitions: int) -> list[pa.Scalar]:
    """Return at most ``partitions - 1`` ascending bounds between which *keys* lie as evenly as they can.

    A value with more rows than a range should have gets one of its own, as far as there are values for the
    others, which share what is left evenly. NULL counts as a value below all others.
    """
    codes, values = _ordered_codes(keys)
    lowest = int(codes[0]) if len(codes) else 0
    count = min(partitions, len(values) - lowest)
    bounds: list[int] = []
    rows_before, last = 0, lowest
    for left in range(count, 1, -1):
        middle = int(codes[rows_before + (len(codes) - rows_before) // left])
        # Each of the ranges to come needs a value to begin with.
        last = min(max(middle, last + 1), len(values) - left + 1)
        rows_before = int(np.searchsorted(codes, last))
        bounds.append(last)
    return [values[bound] for bound in bounds]


def _ordered_codes(keys: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """Return the different values, ascending, and the place of each key's among them, ascending; NULL's is -1.

    Infinities and NaN are left out: no range begins with them.
    """
    known = keys.drop_null()
    if pa.types.is_floating(known.type):
        # -0.0 and 0.0 are one key.
        known = pc.add(known.filter(pc.is_finite(known)), pa.scalar(0, known.type))
    ordered = known.take(pc.array_sort_indices(known))
    # In an ordered array the codes of a dictionary ascend with the values.
    encoded = ordered.dictionary_encode()
    codes = np.concatenate([np.full(keys.null_count, -1), encoded.indices.to_numpy(zero_copy_only=False)])
    return codes, encoded.dictionary


def _given_ranges(declared: RangePartitioning, kind: pa.DataType) -> RangePartitions:
    read = _Reader(kind)
    bounds = [read.key(value, ("bounds", number)) for number, value in enumerate(declared.bounds or ())]
    read.raise_problems()
    ranks = pc.rank(pa.concat_arrays(bounds), tiebreaker="dense").to_pylist()
    for number, (one, other) in enumerate(pairwise(ranks), start=1):
        if not one < other:
            read.refuse(("bounds", number), "must be greater than the bound before it")
    read.raise_problems()
    return _range_partitions(declared, [bound[0] for bound in bounds], kind)


def _range_partitions(
    declared: RangePartitioning, bounds: Sequence[pa.Scalar], kind: pa.DataType
) -> RangePartitions:
    return RangePartitions(
        key=declared.key,
        bounds=tuple(encode_key(bound) for bound in bounds),
        shown=tuple(_shown(bound, kind) for bound in bounds),
        ordered=declared.ordered,
    )


def _shown(bound: pa.Scalar, kind: pa.DataType) -> str:
    """Return a bound as people write it; a UUID is one only by the type of its column."""
    is_special = isinstance(kind, pa.BaseExtensionType)
    return shown_key(decode_key(encode_key(bound), kind)[0] if is_special else bound)


def _lists(declared: ListPartitioning, kind: pa.DataType) -> ListPartitions:
    read = _Reader(kind)
    groups = []
    seen: set[str] = set()
    for at, (name, values) in enumerate(declared.groups):
        place = name if isinstance(declared.values, dict) else at
        group = []
        for number, value in enumerate(values):
            key = encode_key(read.key(value, ("values", place, number))[0])
            if json.dumps(key) in seen and key is not None:
                read.refuse(("values", place, number), f"is listed twice as a value of type {kind}")
            seen.add(json.dumps(key))
            group.append(key)
        groups.append(tuple(group))
    read.raise_problems()
    names = tuple(name for name, _ in declared.groups)
    return ListPartitions(key=declared.key, names=names, groups=tuple(groups), default=declared.default)


class _Reader:
    """Reads keys of one type as the job writes them, and collects what is wrong with them."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._problems: list[Problem] = []

    def key(self, value: Any, place: Sequence[str | int]) -> pa.Array:
        try:
            return read_key(value, self._kind)
        except ValueError as error:
            self.refuse(place, f"must be {error}")
            return pa.nulls(1, plain_type(self._kind))

    def refuse(self, place: Sequence[str | int], message: str) -> None:
        self._problems.append(Problem(pointer(("partitioning", *place)), message))

    def raise_problems(self) -> None:
        if self._problems:
            raise invalid("job", self._problems)
