"""``lookup``: columns of another table, by key.

The table is read once per run and held in memory. Each row takes the columns of the one row of the table that
has its key; rows without one are counted as ``missing``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from ecmbatch import __version__
from ecmbatch.errors import InvalidDocument, Problem, TransformError
from ecmbatch.processors.processor import Processor, ProcessorType, Reference, RunFacts, Transformed
from ecmbatch.protocol.document import Section, did_you_mean, parse_model, refusal, under
from ecmbatch.protocol.key_values import plain_keys, plain_type
from ecmbatch.protocol.names import ColumnName, PluginName
from ecmbatch.protocol.partitioning.hashing import hash_keys
from ecmbatch.protocol.query import placeholders

_Rows = NDArray[np.int64]
_ODD = np.uint64(0x9E3779B97F4A7C15)


def _by_name(value: Any) -> Any:
    """A list of names means columns that are called the same on both sides."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: name for name in value}
    return value


_Columns = Annotated[dict[ColumnName, ColumnName], BeforeValidator(_by_name), Field(min_length=1)]


class LookupConfig(Section):
    """``transform.config`` of a lookup.

    ``key`` says which column of the rows must equal which of the table, ``columns`` what each new column is
    called and where in the table it comes from.
    """

    connector: PluginName | None = None
    store: PluginName | None = None
    table: ColumnName | None = None
    query: Annotated[str, Field(min_length=1)] | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    key: _Columns
    columns: _Columns
    missing: Literal["null", "drop", "fail"] = "null"

    @model_validator(mode="after")
    def _names_one_table(self) -> LookupConfig:
        if (self.connector is None) == (self.store is None):
            raise ValueError("needs either connector or store")
        if [self.table, self.query, self.path].count(None) != 2:
            raise ValueError("needs one of table, query and path")
        return self

    @model_validator(mode="after")
    def _query_is_complete(self) -> LookupConfig:
        if self.query is not None:
            try:
                names = placeholders(self.query)
            except InvalidDocument as error:
                raise refusal(*under("/query", error.problems)) from None
            if names:
                raise refusal(Problem("/query", "has :names; a table to look things up in takes no values"))
        return self

    @property
    def reference(self) -> Reference:
        """The table, as its source is asked for it."""
        return Reference(
            connector=self.connector, store=self.store, table=self.table, query=self.query, path=self.path
        )


class Lookup(Processor):
    """Looks rows up in ``run.references[0]``.

    Raises :class:`~ecmbatch.errors.TransformError` where the table lacks a column, has a key twice or has one
    that cannot be looked up by.
    """

    def __init__(self, config: LookupConfig, run: RunFacts) -> None:
        (table,) = run.references
        self._config = config
        self._keys = [_key_column(table, name) for name in config.key.values()]
        self._values = {name: _column(table, taken) for name, taken in config.columns.items()}
        self._index = _Index(self._keys, list(config.key.values()))

    def process(self, batch: pa.RecordBatch) -> Transformed:
        self._check_columns(batch.schema)
        rows = self._index.rows_of([batch.column(name) for name in self._config.key])
        missing = rows.null_count
        if missing and self._config.missing == "fail":
            raise TransformError(
                f"{missing} of {batch.num_rows} rows have a key that the table to look it up in does not have",
                hint='choose "missing": "null" or "drop"; or add the keys to the table and start anew with '
                "--fresh, for a run reads the table once",
            )
        fields = [*batch.schema]
        columns = [*batch.columns]
        for name, values in self._values.items():
            fields.append(pa.field(name, values.type))
            columns.append(values.take(rows))
        found = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
        if missing and self._config.missing == "drop":
            found = found.filter(rows.is_valid())
        return Transformed(found, {"missing": missing})

    def _check_columns(self, schema: pa.Schema) -> None:
        for name in self._config.key:
            if name not in schema.names:
                raise TransformError(
                    f"the rows have no column '{name}' to look up; they have {', '.join(schema.names)}",
                    hint=did_you_mean(name, schema.names),
                )
        for (name, taken), keys in zip(self._config.key.items(), self._keys, strict=True):
            if _comparable_type(schema.field(name).type) != _comparable_type(keys.type):
                raise TransformError(
                    f"column '{name}' is {schema.field(name).type}, but '{taken}' of the table to look it up in "
                    f"is {keys.type}",
                    hint="cast one of them, in the query or in a step before",
                )
        for name in self._values:
            if name in schema.names:
                raise TransformError(
                    f"the rows have a column '{name}' already",
                    hint='give the new one another name: "columns": {"new_name": "name_in_table"}',
                )


class _Index:
    """Finds the row of a table that has a key, of one or several columns, batch by batch.

    The rows of the table are sorted by a hash of their keys, once. Arrow's own look-ups keep nothing between
    calls: they would hash all keys of the table again for every batch.
    """

    def __init__(self, keys: Sequence[pa.Array], names: Sequence[str]) -> None:
        self._keys = [_comparable(each) for each in keys]
        hashed = _hashed(self._keys)
        self._rows = _by_hash(hashed, _complete(self._keys))
        self._hashes = hashed[self._rows]
        self._refuse_repeated_keys(names)

    def rows_of(self, keys: Sequence[pa.Array]) -> pa.Array:
        """Return the number of the table's row for each key, NULL where it has none; NULL keys have none."""
        wanted = [_comparable(each) for each in keys]
        hashed = _hashed(wanted)
        found = np.full(len(hashed), -1)
        # In the order of their hashes: searched for one after the other, they stay within the processor's cache.
        waiting = _by_hash(hashed, _complete(wanted))
        places = np.searchsorted(self._hashes, hashed[waiting])
        # Where the hash of a key is that of another one, the key may be at the next place.
        while waiting.size:
            fits = places < self._hashes.size
            fits[fits] = self._hashes[places[fits]] == hashed[waiting[fits]]
            waiting, places = waiting[fits], places[fits]
            rows = self._rows[places]
            same = _same(self._keys, rows, wanted, waiting)
            found[waiting[same]] = rows[same]
            waiting, places = waiting[~same], places[~same] + 1
        return pa.array(found, mask=found < 0)

    def _refuse_repeated_keys(self, names: Sequence[str]) -> None:
        distance = 1
        while (alike := np.flatnonzero(self._hashes[distance:] == self._hashes[:-distance])).size:
            same = _same(self._keys, self._rows[alike], self._keys, self._rows[alike + distance])
            if same.any():
                raise TransformError(
                    f"the table to look things up in has {np.count_nonzero(same)} rows whose key "
                    f"({', '.join(names)}) another row has too; which to take is not defined",
                    hint="correct the table and run again, or make the key unique in a query, with GROUP BY "
                    "or QUALIFY",
                )
            distance += 1


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.schema.names:
        raise TransformError(
            f"the table to look things up in has no column '{name}'; it has {', '.join(table.schema.names)}",
            hint=did_you_mean(name, table.schema.names),
        )
    return table.column(name).combine_chunks()


def _key_column(table: pa.Table, name: str) -> pa.Array:
    keys = _column(table, name)
    kind = plain_type(keys.type)
    refused = (pa.types.is_nested, pa.types.is_null, pa.types.is_duration, pa.types.is_interval)
    if any(is_kind(kind) for is_kind in refused):
        raise TransformError(
            f"'{name}' of the table to look things up in is {keys.type}; nothing can be looked up by that",
            hint="use columns of numbers, text, binary, dates, times, booleans or UUIDs",
        )
    return keys


def _hashed(keys: Sequence[pa.Array]) -> NDArray[np.uint64]:
    """Return a hash of every key; what stands at incomplete keys is unspecified."""
    hashed = hash_keys(keys[0])
    for column in keys[1:]:
        hashed = hashed * _ODD + hash_keys(column)
    return hashed


def _by_hash(hashed: NDArray[np.uint64], rows: _Rows) -> _Rows:
    return rows[np.argsort(hashed[rows], kind="stable")]


def _complete(keys: Sequence[pa.Array]) -> _Rows:
    """Return the numbers of the rows whose keys have no NULL."""
    valid = np.ones(len(keys[0]), np.bool_)
    for column in keys:
        if column.null_count:
            valid &= column.is_valid().to_numpy(zero_copy_only=False)
    return np.flatnonzero(valid)


def _same(
    ours: Sequence[pa.Array], our_rows: _Rows, theirs: Sequence[pa.Array], their_rows: _Rows
) -> NDArray[np.bool_]:
    """Tell pair by pair whether the keys of these rows, which are complete, are the same."""
    same = np.ones(len(our_rows), np.bool_)
    for our, their in zip(ours, theirs, strict=True):
        equal = pc.equal(our.take(pa.array(our_rows)), their.take(pa.array(their_rows)))
        same &= equal.to_numpy(zero_copy_only=False)
    return same


def _comparable(keys: pa.Array) -> pa.Array:
    """Return *keys* in a form in which equal ones are equal bit by bit."""
    wide = plain_keys(keys).cast(_comparable_type(keys.type))
    if not pa.types.is_floating(wide.type):
        return wide
    # NaN is not equal to itself, but one and the same key; and so are 0.0 and -0.0.
    return pc.if_else(pc.is_nan(wide), math.nan, pc.add(wide, 0.0)).view(pa.int64())


def _comparable_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which keys of several widths are compared; none loses a value."""
    kind = plain_type(kind)
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_decimal128(kind):
        return pa.decimal128(38, kind.scale)
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_binary(kind):
        return pa.large_binary()
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")
    return kind


def _parse_config(config: Mapping[str, Any]) -> LookupConfig:
    return parse_model(LookupConfig, dict(config), what="configuration of processor 'lookup'")


LOOKUP = ProcessorType(
    name="lookup",
    version=__version__,
    parse_config=_parse_config,
    build=Lookup,
    references=lambda config: (config.reference,),
)
