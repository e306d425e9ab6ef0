"""``row_count``: how many rows there are (protocol: Quality Validation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ecmbatch.protocol.validation.judgement import Judgement, rows_in_words, within
from ecmbatch.protocol.validation.observation import Observation
from ecmbatch.protocol.validation.rules import RowCountRule
from ecmbatch.protocol.validation.selection import select


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCount:
    """The number of rows."""

    rows: int = 0
    error: str | None = None


class RowCountObservation(Observation[RowCount]):
    """Counts rows."""

    def init(self) -> RowCount:
        return RowCount()

    def _count(self, batch: pa.RecordBatch) -> RowCount:
        return RowCount(rows=select(batch, self.where, self.stage).rows)

    def _failed(self, error: str) -> RowCount:
        return RowCount(error=error)

    def _sum(self, first: RowCount, second: RowCount) -> RowCount:
        return RowCount(rows=first.rows + second.rows)

    def _encode(self, state: RowCount) -> dict[str, Any]:
        return {"rows": state.rows}

    def _decode(self, value: dict[str, Any]) -> RowCount:
        return RowCount(rows=int(value["rows"]))


def judge_row_count(rule: RowCountRule, state: RowCount) -> Judgement:
    """Judge the number of rows; none at all is a real 0."""
    outcome = within(_lies_in(state.rows, rule.bounds), _lies_in(state.rows, rule.warn_bounds))
    message = f"{rows_in_words(state.rows)}, expected {_in_words(*rule.bounds)}"
    return Judgement(outcome=outcome, message=message, observed={"rows": state.rows})


def _lies_in(rows: int, bounds: tuple[int | None, int | None]) -> bool:
    low, high = bounds
    return (low is None or rows >= low) and (high is None or rows <= high)


def _in_words(low: int | None, high: int | None) -> str:
    if low == high:
        return f"exactly {low:,}"
    if high is None:
        return f"at least {low:,}"
    return f"at most {high:,}" if low is None else f"{low:,} to {high:,}"
