"""What a rule's counts amount to, before severity and ``on_failure`` are considered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "warn", "fail", "error", "skipped"]

RANK: Mapping[Outcome, int] = {"skipped": 0, "pass": 1, "warn": 2, "fail": 3, "error": 4}
"""From harmless to worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One rule, asked of one state: the outcome, one sentence for people, and the values found, as JSON."""

    outcome: Outcome
    message: str
    observed: dict[str, Any] = field(default_factory=dict)


def within(accepted: bool, tolerated: bool) -> Outcome:
    """``pass`` within the rule's own threshold, ``warn`` within its looser one, else ``fail``."""
    if accepted:
        return "pass"
    return "warn" if tolerated else "fail"


def rows_in_words(rows: int) -> str:
    """``1 row``, ``1,200 rows``."""
    return f"{rows:,} row{'' if rows == 1 else 's'}"
