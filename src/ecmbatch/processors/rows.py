"""A user's function applied row by row: Python objects in, a dict or nothing out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ecmbatch.errors import TransformError
from ecmbatch.processors.failures import shown_failure
from ecmbatch.processors.processor import Processor
from ecmbatch.processors.python_values import UnfitValue, as_column, as_python, can_hold_python
from ecmbatch.protocol.document import did_you_mean

RowFunction = Callable[[dict[str, Any]], "dict[str, Any] | None"]


@dataclass(frozen=True, slots=True)
class RowShape:
    """The columns that come out: those that go in, without *drop*, with *columns* added or of another type."""

    columns: Mapping[str, pa.DataType]
    drop: frozenset[str]

    def output_schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns that come out where *schema* goes in. Raise TransformError."""
        for name in sorted(self.drop - set(schema.names)):
            raise TransformError(
                f"the rows have no column '{name}' to drop; they have {', '.join(schema.names)}",
                hint=did_you_mean(name, schema.names),
                error_class="permanent",
            )
        types = {field.name: field.type for field in schema if field.name not in self.drop}
        types |= self.columns
        for name, kind in types.items():
            if not can_hold_python(kind):
                raise TransformError(
                    f"column '{name}' is {kind}, which cannot be made of Python objects",
                    hint="cast it in a step before, or leave it out with drop=(…) and a step before",
                    error_class="permanent",
                )
        return pa.schema(types.items())


@dataclass(frozen=True, slots=True)
class RowProcessor(Processor):
    """Gives each row to *function*, which returns the row that comes out, or None to drop it."""

    function: RowFunction
    shape: RowShape

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        schema = self.shape.output_schema(batch.schema)
        made = list(self._applied(batch, frozenset(schema.names)))
        numbers, rows = [number for number, _ in made], [row for _, row in made]
        columns = [_column(field, [row[field.name] for row in rows], numbers) for field in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _applied(
        self, batch: pa.RecordBatch, expected: frozenset[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows that come out, each with the number of the row it was made of."""
        for number, row in enumerate(_rows(batch)):
            try:
                made = self.function(row)
            except Exception as error:
                raise TransformError(f"{shown_failure(error)}, given {_place(number)}") from error
            if made is None:
                continue
            if not isinstance(made, dict):
                raise TransformError(
                    f"the function returned {type(made).__name__} for {_place(number)}",
                    hint="return the row as a dict, or None to drop it",
                )
            if made.keys() != expected:
                self._check_keys(made, expected, number)
            yield number, made

    def _check_keys(self, row: Mapping[Any, Any], expected: frozenset[str], number: int) -> None:
        if missing := [name for name in sorted(expected) if name not in row]:
            raise TransformError(
                f"the function returned {_place(number)} without {_keys(missing)}",
                hint='return all columns, as in {**row, "new": …}; leave some out with drop=("name",)',
            )
        if surplus := [key for key in row if key not in expected | self.shape.drop]:
            raise TransformError(
                f"the function returned {_place(number)} with {_keys(surplus)}, which no column is called",
                hint='declare new columns: @row_processor(…, columns={"name": "string"})',
            )


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    columns = [_objects(field, column) for field, column in zip(batch.schema, batch.columns, strict=True)]
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _objects(field: pa.Field, column: pa.Array) -> list[Any]:
    try:
        return as_python(column)
    except UnfitValue as reason:
        raise TransformError(
            f"column '{field.name}' is {field.type} and holds {reason}",
            hint="cast it in a step before, for example with field_mapper",
        ) from None


def _column(field: pa.Field, values: Sequence[Any], numbers: Sequence[int]) -> pa.Array:
    try:
        return as_column(values, field.type)
    except UnfitValue:
        number, reason = _first_unfit(values, numbers, field.type)
        raise TransformError(
            f"column '{field.name}' must be {field.type}, but the function returned {reason} for {_place(number)}",
            hint="convert the value, or declare the column's type: "
            f'@row_processor(…, columns={{"{field.name}": "…"}})',
        ) from None


def _first_unfit(values: Iterable[Any], numbers: Iterable[int], kind: pa.DataType) -> tuple[int, str]:
    for number, value in zip(numbers, values, strict=True):
        try:
            as_column([value], kind)
        except UnfitValue as reason:
            return number, str(reason)
    raise AssertionError("each value fits alone")


def _place(number: int) -> str:
    return f"row {number} of the batch (from 0)"


def _keys(keys: Sequence[Any]) -> str:
    # A key that is no text could be a value that came into the wrong place.
    shown = [repr(key) if isinstance(key, str) else f"a key of type {type(key).__name__}" for key in keys]
    return ", ".join(shown)
