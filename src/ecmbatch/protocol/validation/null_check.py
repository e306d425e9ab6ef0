"""``null_check``: how many rows have no value in a field (protocol: Quality Validation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ecmbatch.protocol.validation.columns import find_column
from ecmbatch.protocol.validation.judgement import RANK, Judgement, Outcome, rows_in_words, within
from ecmbatch.protocol.validation.observation import Observation
from ecmbatch.protocol.validation.predicate import Where
from ecmbatch.protocol.validation.rules import NullCheckRule, Stage
from ecmbatch.protocol.validation.selection import select


@dataclass(frozen=True, slots=True, kw_only=True)
class NullCounts:
    """The number of rows, and how many of them are null in each field, in the order of the rule's fields."""

    rows: int = 0
    nulls: tuple[int, ...] = ()
    error: str | None = None


class NullCheckObservation(Observation[NullCounts]):
    """Counts logical nulls in each field by itself."""

    def __init__(
        self, *, stage: Stage, where: Where | None, fields: Sequence[str], nan_as_null: bool
    ) -> None:
        super().__init__(stage=stage, where=where)
        self.fields = fields
        self.nan_as_null = nan_as_null

    def init(self) -> NullCounts:
        return NullCounts(nulls=(0,) * len(self.fields))

    def _count(self, batch: pa.RecordBatch) -> NullCounts:
        selection = select(batch, self.where, self.stage)
        columns = [find_column(batch, field, self.stage) for field in self.fields]
        nulls = [column.count_nulls(nan_as_null=self.nan_as_null, among=selection.mask) for column in columns]
        return NullCounts(rows=selection.rows, nulls=tuple(nulls))

    def _failed(self, error: str) -> NullCounts:
        return NullCounts(error=error)

    def _sum(self, first: NullCounts, second: NullCounts) -> NullCounts:
        nulls = (one + other for one, other in zip(first.nulls, second.nulls, strict=True))
        return NullCounts(rows=first.rows + second.rows, nulls=tuple(nulls))

    def _encode(self, state: NullCounts) -> dict[str, Any]:
        return {"rows": state.rows, "nulls": list(state.nulls)}

    def _decode(self, value: dict[str, Any]) -> NullCounts:
        nulls = tuple(int(count) for count in value["nulls"])
        if len(nulls) != len(self.fields):
            raise ValueError("a null count for each field is expected")
        return NullCounts(rows=int(value["rows"]), nulls=nulls)


def judge_null_check(rule: NullCheckRule, state: NullCounts) -> Judgement:
    """Judge every field by itself; the worst one decides."""
    nulls = dict(zip(rule.fields, state.nulls, strict=True))
    outcomes = {field: _outcome(rule, count, state.rows) for field, count in nulls.items()}
    worst = max(outcomes.values(), key=RANK.__getitem__)
    # Where all is well the field with the most nulls stands for the others.
    named = [field for field in nulls if outcomes[field] != "pass"] or [max(nulls, key=nulls.__getitem__)]
    counts = ", ".join(f"{nulls[field]:,} in {field}" for field in named)
    message = f"nulls in {rows_in_words(state.rows)}: {counts}; accepted: {rule.threshold} in each field"
    return Judgement(outcome=worst, message=message, observed={"nulls": nulls})


def _outcome(rule: NullCheckRule, nulls: int, rows: int) -> Outcome:
    tolerated = rule.warn is not None and rule.warn.threshold.accepts(nulls, rows)
    return within(rule.threshold.accepts(nulls, rows), tolerated)
