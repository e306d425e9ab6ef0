"""The verdict: what every rule says about the rows, and what has to follow (protocol: Quality Validation).

A rule's outcome is ``fail`` or ``error`` exactly when it keeps the rows from being published. What failed but
may not abort, by its severity or its ``on_failure``, is a ``warn``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from typing import Any, cast

from ecmbatch.protocol.validation.freshness import Newest, judge_freshness
from ecmbatch.protocol.validation.judgement import RANK, Judgement, Outcome
from ecmbatch.protocol.validation.null_check import NullCounts, judge_null_check
from ecmbatch.protocol.validation.observation import State
from ecmbatch.protocol.validation.observations import Observations, observation_of
from ecmbatch.protocol.validation.on_failure import OnFailure
from ecmbatch.protocol.validation.row_count import RowCount, judge_row_count
from ecmbatch.protocol.validation.rules import FreshnessRule, NullCheckRule, RowCountRule, Rule, Validation

_NAMED_PARTITIONS = 10
_REPORTED_ONLY = OnFailure(action="warn")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleVerdict:
    """One rule of the report."""

    id: str
    type: str
    outcome: Outcome
    observed: dict[str, Any]
    """Counts and the newest time; never values of rows."""
    expected: dict[str, Any]
    evaluated_rows: int
    message: str
    """One sentence for people."""

    def document(self) -> dict[str, Any]:
        """Return the entry of the run document's ``validation.rules``."""
        return {
            "id": self.id,
            "type": self.type,
            "outcome": self.outcome,
            "observed": self.observed,
            "expected": self.expected,
            "evaluated_rows": self.evaluated_rows,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictAction:
    """What has to follow: whether the rows may be published, and who is told (``alert_to`` names alerts)."""

    publish: bool = True
    alert: bool = False
    alert_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of all rules: the worst of theirs, ``pass`` where there are none."""

    outcome: Outcome
    rules: tuple[RuleVerdict, ...]
    action: VerdictAction

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each rule that keeps the rows from being published."""
        return self._sentences(("fail", "error"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each rule that is a warning."""
        return self._sentences(("warn",))

    def _sentences(self, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
        chosen = [rule for rule in self.rules if rule.outcome in outcomes]
        return tuple(f"{rule.type} ({rule.id}): {rule.message}" for rule in chosen)

    def document(self) -> dict[str, Any]:
        """Return the run document's ``validation``."""
        return {"outcome": self.outcome, "rules": [rule.document() for rule in self.rules]}

    def to_json(self) -> dict[str, Any]:
        """Return the whole verdict as JSON, to be remembered."""
        return {
            "outcome": self.outcome,
            "rules": [{**rule.document(), "message": rule.message} for rule in self.rules],
            "action": {
                "publish": self.action.publish,
                "alert": self.action.alert,
                "alert_to": list(self.action.alert_to),
            },
        }


def judge(
    validation: Validation,
    observations: Mapping[int, Observations],
    *,
    now: datetime,
    reference: datetime | None = None,
    window_end: datetime | None = None,
    default_alerts: Sequence[str] = (),
) -> Verdict:
    """Judge every rule of *validation* by the *observations* of all partitions, by their number.

    *now* is the clock when judging; *reference* is what ages are measured against unless a rule says
    otherwise (the window's end for backfills; None is *now*); *window_end* serves rules that ask for it. All
    three have a zone.
    *default_alerts* are told where ``on_failure`` alerts without naming anybody.
    """
    clock = _Clock(now=now, reference=reference or now, window_end=window_end)
    judged = [_judge_rule(rule, validation.on_failure, observations, clock) for rule in validation.rules]
    outcomes = [one.verdict.outcome for one in judged]
    return Verdict(
        outcome=max(outcomes, key=RANK.__getitem__, default="pass"),
        rules=tuple(one.verdict for one in judged),
        action=_strictest([one.failed for one in judged if one.failed is not None], default_alerts),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    now: datetime
    reference: datetime
    window_end: datetime | None

    def for_rule(self, rule: FreshnessRule) -> datetime | None:
        match rule.reference:
            case "clock":
                return self.now
            case "window_end":
                return self.window_end
            case None:
                return self.reference


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A rule's entry in the report, and what follows if it failed."""

    verdict: RuleVerdict
    failed: OnFailure | None


def _judge_rule(
    rule: Rule, on_failure: OnFailure, observations: Mapping[int, Observations], clock: _Clock
) -> _Judged:
    states = {number: observations[number].state_of(rule) for number in sorted(observations)}
    judgement, rows = _judge_states(rule, states, clock)
    failed = _action(rule, on_failure) if judgement.outcome in ("fail", "error") else None
    verdict = RuleVerdict(
        id=rule.id,
        type=rule.type,
        outcome=judgement.outcome if failed is None or failed.aborts else "warn",
        observed=judgement.observed,
        expected=rule.expected,
        evaluated_rows=rows,
        message=judgement.message,
    )
    return _Judged(verdict=verdict, failed=failed)


def _judge_states(rule: Rule, states: Mapping[int, State | None], clock: _Clock) -> tuple[Judgement, int]:
    counted = {number: state for number, state in states.items() if state is not None}
    if len(counted) < len(states):
        return _not_evaluated("the rows were not counted for this rule"), 0
    observation = observation_of(rule)
    total: State = reduce(observation.merge, counted.values(), observation.init())
    if rule.scope == "total" or not counted:
        return _judge_state(rule, total, clock), total.rows
    judgements = {number: _judge_state(rule, state, clock) for number, state in counted.items()}
    return _worst(judgements), sum(state.rows for state in counted.values())


def _judge_state(rule: Rule, state: State, clock: _Clock) -> Judgement:
    if state.error is not None:
        return _not_evaluated(state.error)
    if state.rows == 0 and rule.on_empty is not None:
        return Judgement(outcome=rule.on_empty, message="no rows", observed={"rows": 0})
    match rule:
        case RowCountRule():
            return judge_row_count(rule, cast(RowCount, state))
        case NullCheckRule():
            return judge_null_check(rule, cast(NullCounts, state))
        case FreshnessRule():
            reference = clock.for_rule(rule)
            if reference is None:
                return _not_evaluated("'reference' is 'window_end', but the run has no window")
            return judge_freshness(rule, cast(Newest, state), reference)


def _not_evaluated(why: str) -> Judgement:
    return Judgement(outcome="error", message=f"could not be evaluated: {why}", observed={"error": why})


def _worst(judgements: Mapping[int, Judgement]) -> Judgement:
    """The judgement of the first of the worst partitions, with all of those named."""
    outcome = max((judgement.outcome for judgement in judgements.values()), key=RANK.__getitem__)
    numbers = [number for number, judgement in judgements.items() if judgement.outcome == outcome]
    first = judgements[numbers[0]]
    observed = {
        "partitions": len(judgements),
        "worst_count": len(numbers),
        "worst_partitions": numbers[:_NAMED_PARTITIONS],
        "worst": first.observed,
    }
    message = f"{outcome} in {_partitions_in_words(numbers, len(judgements))}: {first.message}"
    return replace(first, message=message, observed=observed)


def _partitions_in_words(numbers: Sequence[int], partitions: int) -> str:
    if len(numbers) == 1:
        return f"partition {numbers[0]} of {partitions}"
    named = ", ".join(str(number) for number in numbers[:_NAMED_PARTITIONS])
    more = ", …" if len(numbers) > _NAMED_PARTITIONS else ""
    return f"{len(numbers)} of {partitions} partitions ({named}{more}), first"


def _action(rule: Rule, on_failure: OnFailure) -> OnFailure:
    """What follows when *rule* fails; of severity ``warn``, without its own word, it is only reported."""
    if rule.on_failure is not None:
        return rule.on_failure
    return _REPORTED_ONLY if rule.severity == "warn" else on_failure


def _strictest(failed: Iterable[OnFailure], default_alerts: Sequence[str]) -> VerdictAction:
    """One failing rule that aborts is enough to abort, one that alerts is enough to alert."""
    failed = list(failed)
    alerting = [action for action in failed if action.alerts]
    names = [name for action in alerting for name in action.alert or default_alerts]
    return VerdictAction(
        publish=not any(action.aborts for action in failed),
        alert=bool(alerting),
        alert_to=tuple(dict.fromkeys(names)),
    )
