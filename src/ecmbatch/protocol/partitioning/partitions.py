"""The partitions of a run: plain values that say to which one a key belongs.

============  =======================================  ===================================================
strategy      partition of a key                       partition of NULL
============  =======================================  ===================================================
``hash``      **ecm-hash-1** modulo their number       0
``range``     how many bounds are not greater than it  0
``list``      the group that lists it, or the default  the default, else the last, which nothing else is in
============  =======================================  ===================================================

Order and equality are those of the key's type; texts are compared by their UTF-8 bytes, whatever the collation
of the source, NaN is the greatest number, and -0.0 is 0.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ecmbatch.errors import SourceError
from ecmbatch.protocol.key_values import decode_key, plain_keys, plain_type
from ecmbatch.protocol.partitioning.hashing import hash_partitions

Assigned = NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class HashPartitions:
    """*count* partitions by the hash of the column *key*."""

    key: str
    count: int

    def assign(self, keys: pa.Array) -> Assigned:
        """Return the partition of every key."""
        return hash_partitions(keys, self.count)

    def label(self, partition: int) -> str:
        """Return what people call the partition."""
        return f"hash {partition} of {self.count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePartitions:
    """Half-open ranges of the column *key*; *bounds* ascend, in the JSON form of keys, *shown* as people write.

    The first is open below and has the NULL keys, the last is open above. With *ordered* they are read one
    at a time, ascending.
    """

    key: str
    bounds: tuple[Any, ...]
    shown: tuple[str, ...]
    ordered: bool = False

    @property
    def count(self) -> int:
        """How many partitions there are."""
        return len(self.bounds) + 1

    def assign(self, keys: pa.Array) -> Assigned:
        """Return the partition of every key."""
        keys = plain_keys(keys)
        assigned = _ranges(keys, _typed(json.dumps(self.bounds), keys.type))
        if keys.null_count:
            assigned[_as_numpy(keys.is_null())] = 0
        return assigned

    def label(self, partition: int) -> str:
        """Return what people call the partition."""
        start = self.shown[partition - 1] if partition else None
        end = self.shown[partition] if partition < len(self.shown) else None
        if start is None:
            return "everything" if end is None else f"< {end}, NULL"
        return f">= {start}" if end is None else f">= {start}, < {end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPartitions:
    """Groups of values of the column *key*, in the JSON form of keys, and the name of the *default*."""

    key: str
    names: tuple[str, ...]
    groups: tuple[tuple[Any, ...], ...]
    default: str | None = None

    @property
    def count(self) -> int:
        """How many partitions there are: the groups, and one more unless the default is one of them."""
        return len(self.groups) + (self.default not in self.names)

    @property
    def rest(self) -> int:
        """The partition of NULL keys and, if there is a default, of values that no group lists."""
        return self.names.index(self.default) if self.default in self.names else len(self.groups)

    def assign(self, keys: pa.Array) -> Assigned:
        """Return the partition of every key.

        Raises :class:`~ecmbatch.errors.SourceError` where there is no default and a key that no group lists.
        """
        keys = plain_keys(keys)
        listed = [value for group in self.groups for value in group]
        groups = np.repeat(np.arange(len(self.groups)), [len(group) for group in self.groups])
        # The place behind all values stands for those that are not among them.
        values = _typed(json.dumps(listed), keys.type)
        places = pc.index_in(_without_minus_zero(keys), value_set=_without_minus_zero(values))
        places = places.fill_null(len(listed))
        assigned: Assigned = np.append(groups, self.rest)[_as_numpy(places)].astype(np.uint16)
        if self.default is None:
            self._refuse_unlisted(keys, assigned == self.rest)
        return assigned

    def label(self, partition: int) -> str:
        """Return what people call the partition."""
        if partition == self.rest and partition == len(self.groups):
            return self.default or "NULL"
        return self.names[partition]

    def _refuse_unlisted(self, keys: pa.Array, unmatched: NDArray[np.bool_]) -> None:
        unlisted = int(np.count_nonzero(unmatched & _as_numpy(keys.is_valid())))
        if unlisted:
            raise SourceError(
                f"column '{self.key}' has values that no list partition names, in at least {unlisted} rows",
                hint='list them in partitioning.values, or add "default" to partitioning',
            )


Partitions = HashPartitions | RangePartitions | ListPartitions

_STRATEGIES: Mapping[str, type[Partitions]] = {
    "hash": HashPartitions,
    "range": RangePartitions,
    "list": ListPartitions,
}


def strategy_of(partitions: Partitions) -> str:
    """Return the protocol's word for how the partitions were made."""
    return next(name for name, kind in _STRATEGIES.items() if isinstance(partitions, kind))


def partitions_to_json(partitions: Partitions | None) -> dict[str, Any] | None:
    """Return the JSON form."""
    return None if partitions is None else {"strategy": strategy_of(partitions), **asdict(partitions)}


def partitions_from_json(document: Mapping[str, Any] | None) -> Partitions | None:
    """Return the partitions whose JSON form is *document*."""
    if document is None:
        return None
    values = {name: _tuples(value) for name, value in document.items() if name != "strategy"}
    return _STRATEGIES[document["strategy"]](**values)


def split(batch: pa.RecordBatch, partitions: Partitions) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield ``(partition, rows)`` for every partition that occurs in *batch*, ascending, rows in order."""
    if not batch.num_rows:
        return
    assigned = partitions.assign(batch.column(partitions.key))
    first = int(assigned[0])
    if (assigned == first).all():
        yield first, batch
        return
    # A stable sort of small integers is a radix sort; one `take` and slices are cheaper than n filters.
    order = np.argsort(assigned, kind="stable")
    rows = batch.take(pa.array(order))
    occurring, starts = np.unique(assigned[order], return_index=True)
    ends = np.append(starts[1:], batch.num_rows)
    for partition, start, end in zip(occurring, starts, ends, strict=True):
        yield int(partition), rows.slice(int(start), int(end - start))


def keep(batch: pa.RecordBatch, partitions: Partitions, wanted: Sequence[int]) -> pa.RecordBatch:
    """Return the rows of *batch* that are in the *wanted* partitions."""
    assigned = partitions.assign(batch.column(partitions.key))
    return batch.filter(pa.array(np.isin(assigned, wanted)))


def _ranges(keys: pa.Array, bounds: pa.Array) -> Assigned:
    if _is_numeric(keys.type):
        values, limits = (_as_numpy(array.fill_null(0)) for array in (_as_numbers(keys), _as_numbers(bounds)))
        return np.searchsorted(limits, values, side="right").astype(np.uint16)
    # Bounds stand before equal keys in a stable order; how many do is what is asked for.
    order = _as_numpy(pc.array_sort_indices(pa.concat_arrays([bounds, keys])))
    bounds_before = np.empty(len(order), np.uint16)
    bounds_before[order] = np.cumsum(order < len(bounds))
    return bounds_before[len(bounds) :]


def _without_minus_zero(keys: pa.Array) -> pa.Array:
    """Return *keys* with 0.0 for -0.0, which Arrow orders as equal and looks up as different."""
    return pc.add(keys, pa.scalar(0, keys.type)) if pa.types.is_floating(keys.type) else keys


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_temporal(kind)
        or pa.types.is_boolean(kind)
    )


def _as_numbers(keys: pa.Array) -> pa.Array:
    """Return what numpy orders as Arrow does, dates and times by their integers."""
    if pa.types.is_boolean(keys.type):
        return keys.cast(pa.uint8())
    if pa.types.is_temporal(keys.type):
        return keys.cast(pa.int32() if keys.type.bit_width == 32 else pa.int64())
    return keys


def _as_numpy(array: pa.Array) -> NDArray[Any]:
    return np.array(array.to_numpy(zero_copy_only=False))


@lru_cache(maxsize=256)
def _typed(values: str, kind: pa.DataType) -> pa.Array:
    """Return the keys whose JSON forms are the list *values*, made once for all batches."""
    decoded = [plain_keys(decode_key(value, kind)) for value in json.loads(values)]
    return pa.concat_arrays(decoded) if decoded else pa.array([], plain_type(kind))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list | tuple) else value
