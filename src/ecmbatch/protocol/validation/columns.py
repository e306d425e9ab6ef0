"""Columns of a batch as a rule means them: found by dotted names, with their logical nulls and plain values.

``null_count`` is not enough: a dictionary can hold a null among its values, run-end encoded and union arrays
have no validity of their own, and a struct's fields do not know which of their parents are null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ecmbatch.protocol.validation.observation import Unobservable
from ecmbatch.protocol.validation.rules import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column or a field inside struct columns; ``hidden`` is true where a struct around it is null."""

    name: str
    array: pa.Array
    hidden: pa.BooleanArray | None

    def count_nulls(self, *, nan_as_null: bool, among: pa.BooleanArray | None) -> int:
        """Count the logical nulls, only where *among* is true if it is given."""
        if among is None and self.hidden is None and not _has_hidden_nulls(self.array.type, nan_as_null):
            return int(self.array.null_count)
        mask = self.nulls(nan_as_null=nan_as_null)
        return int((mask if among is None else pc.and_(mask, among)).true_count)

    def nulls(self, *, nan_as_null: bool = False) -> pa.BooleanArray:
        """True for each row whose value is logically null (or NaN, if *nan_as_null*)."""
        mask = _null_mask(self.array, nan_as_null)
        return mask if self.hidden is None else pc.or_(mask, self.hidden)

    def values(self) -> pa.Array:
        """The values without dictionary, run-end or extension wrapping; null where logically null."""
        plain = _plain(self.array)
        if self.hidden is None or pa.types.is_null(plain.type):
            return plain
        return pc.if_else(self.hidden, pa.scalar(None, plain.type), plain)


def find_column(batch: pa.RecordBatch, name: str, stage: Stage | None) -> Column:
    """Return the column *name*: one of exactly that name, else a path of dots into struct columns.

    *stage* says which rows a rule looks at, for the error's words.

    Raises :class:`Unobservable` where there is none, or where two have that name.
    """
    path = _find(batch.schema.names, batch.column, name)
    if path is None:
        hint = '; did the transform rename it? "stage": "source" looks at the rows as extracted'
        rows = f"the {stage} rows" if stage else "the rows"
        raise Unobservable(f"there is no column '{name}' in {rows}{hint if stage == 'output' else ''}")
    *parents, array = path
    hidden = None
    for parent in parents:
        mask = _null_mask(parent, nan_as_null=False)
        hidden = mask if hidden is None else pc.or_(hidden, mask)
    return Column(name=name, array=array, hidden=hidden)


def _find(names: Sequence[str], child: Callable[[int], pa.Array], name: str) -> list[pa.Array] | None:
    """The arrays on the way to *name*, from the outermost to the one that is meant."""
    if name in names:
        return [_only(names, child, name)]
    for head, tail in _splits(name):
        if head in names:
            parent = _storage(_only(names, child, head))
            if pa.types.is_struct(parent.type):
                fields = [parent.type.field(place).name for place in range(parent.type.num_fields)]
                inner = _find(fields, parent.field, tail)
                if inner is not None:
                    return [parent, *inner]
    return None


def _only(names: Sequence[str], child: Callable[[int], pa.Array], name: str) -> pa.Array:
    if names.count(name) > 1:
        raise Unobservable(f"two columns are named '{name}'; give them different names")
    return child(names.index(name))


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """``a.b.c`` as ``a.b`` and ``c``, then ``a`` and ``b.c``: the longest column name wins."""
    place = name.rfind(".")
    while place > 0:
        yield name[:place], name[place + 1 :]
        place = name.rfind(".", 0, place)


def _storage(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _has_hidden_nulls(kind: pa.DataType, nan_as_null: bool) -> bool:
    wrapped = (
        isinstance(kind, pa.BaseExtensionType)
        or pa.types.is_dictionary(kind)
        or pa.types.is_run_end_encoded(kind)
        or pa.types.is_union(kind)
    )
    return wrapped or (nan_as_null and pa.types.is_floating(kind))


def _null_mask(array: pa.Array, nan_as_null: bool) -> pa.BooleanArray:
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _null_mask(array.storage, nan_as_null)
    if pa.types.is_dictionary(kind):
        return pc.fill_null(pc.take(_null_mask(array.dictionary, nan_as_null), array.indices), True)
    if pa.types.is_run_end_encoded(kind):
        runs = pa.RunEndEncodedArray.from_arrays(array.run_ends, _null_mask(array.values, nan_as_null))
        return pc.run_end_decode(runs.slice(array.offset, len(array)))
    if pa.types.is_union(kind):
        return _union_null_mask(array, nan_as_null)
    return pc.is_null(array, nan_is_null=nan_as_null and pa.types.is_floating(kind))


def _union_null_mask(array: pa.UnionArray, nan_as_null: bool) -> pa.BooleanArray:
    # Read from the buffers: the arrays that pyarrow returns for codes and offsets ignore slices.
    codes = pa.Array.from_buffers(pa.int8(), len(array), [None, array.buffers()[1]], offset=array.offset)
    dense = array.type.mode == "dense"
    if dense:
        places = pa.Array.from_buffers(
            pa.int32(), len(array), [None, array.buffers()[2]], offset=array.offset
        )
    result = pa.repeat(pa.scalar(False), len(array))
    for child, code in enumerate(array.type.type_codes):
        mine = pc.equal(codes, pa.scalar(code, pa.int8()))
        mask = _null_mask(array.field(child), nan_as_null)
        if dense:
            own_places = pc.if_else(mine, places, pa.scalar(None, pa.int32()))
            mask = pc.fill_null(pc.take(mask, own_places), False)
        result = pc.or_(result, pc.and_(mine, mask))
    return result


def _plain(array: pa.Array) -> pa.Array:
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(array))
    if pa.types.is_string_view(kind):
        return array.cast(pa.large_string())
    return array
