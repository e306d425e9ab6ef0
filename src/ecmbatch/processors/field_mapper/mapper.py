"""The field mapper at work: one batch in, one batch of target fields out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from ecmbatch.errors import TransformError
from ecmbatch.processors.field_mapper.expressions import Column, Expression, Rows
from ecmbatch.processors.field_mapper.mapping import FieldMapping, Target
from ecmbatch.processors.field_mapper.values import ValueRefused, WrongInput, as_array
from ecmbatch.processors.processor import Processor, RunFacts


@dataclass(frozen=True, slots=True)
class FieldMapper(Processor):
    """Fills the target fields of a :class:`FieldMapping` from each batch."""

    mapping: FieldMapping
    facts: RunFacts

    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = Rows(batch, self.facts)
        filled = [(target.segments, _evaluate(target, rows)) for target in self.mapping.targets]
        columns = [*_nested(filled), *(self._others(batch) if self.mapping.keep_others else ())]
        return pa.RecordBatch.from_arrays(
            [values for _, values in columns], names=[name for name, _ in columns]
        )

    def _others(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.Array]]:
        """Source columns that no target has the name of, and that no target is a mere renaming of."""
        taken = {target.segments[0] for target in self.mapping.targets}
        taken |= {t.expression.name for t in self.mapping.targets if isinstance(t.expression, Column)}
        return (
            (name, values)
            for name, values in zip(batch.schema.names, batch.columns, strict=True)
            if name not in taken
        )


def _evaluate(target: Target, rows: Rows) -> pa.Array:
    try:
        return as_array(target.expression.evaluate(rows), rows.batch.num_rows)
    except WrongInput as wrong:
        raise TransformError(f"field '{target.name}': {wrong}") from None
    except ValueRefused as refused:
        row = _first_refused(target.expression, rows)
        raise TransformError(
            f"field '{target.name}': {refused} cannot take the value in row {row} of the batch (from 0)",
            hint="correct the source or the expression; cast, parse_date and json_parse can also give NULL "
            'for such values with {"on_error": "null"}',
        ) from None


def _first_refused(expression: Expression, rows: Rows) -> int:
    """Find the row by halving: each row is judged by itself alone."""
    start, stop = 0, rows.batch.num_rows
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            expression.evaluate(Rows(rows.batch.slice(start, middle - start), rows.facts))
            start = middle
        except ValueRefused:
            stop = middle
    return start


def _nested(filled: Iterable[tuple[tuple[str, ...], pa.Array]]) -> list[tuple[str, pa.Array]]:
    """Put targets that share a first segment into one struct, which stands where the first of them stood."""
    groups: dict[str, list[tuple[tuple[str, ...], pa.Array]]] = {}
    for segments, values in filled:
        groups.setdefault(segments[0], []).append((segments[1:], values))
    return [(name, _column(members)) for name, members in groups.items()]


def _column(members: list[tuple[tuple[str, ...], pa.Array]]) -> pa.Array:
    if members[0][0] == ():
        return members[0][1]
    fields = _nested(members)
    return pa.StructArray.from_arrays([values for _, values in fields], names=[name for name, _ in fields])
