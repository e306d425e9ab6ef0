"""What is counted while a job's rows pass by, for all of its rules at once.

States are kept under the digest of *what is counted*, not of what is expected: a rule whose threshold was
corrected finds its counts again, a rule that counts something else does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ecmbatch.protocol.validation.declaration import digest
from ecmbatch.protocol.validation.freshness import FreshnessObservation
from ecmbatch.protocol.validation.null_check import NullCheckObservation
from ecmbatch.protocol.validation.observation import Observation, State
from ecmbatch.protocol.validation.row_count import RowCountObservation
from ecmbatch.protocol.validation.rules import FreshnessRule, NullCheckRule, RowCountRule, Rule, Stage

_FORMAT = "ecmbatch.observations/1"
_COUNTED_KEYS: Mapping[type[Rule], set[str]] = {
    RowCountRule: set(),
    NullCheckRule: {"fields", "nan_as_null"},
    FreshnessRule: {"field", "timezone", "format", "unit"},
}


def observation_of(rule: Rule) -> Observation[Any]:
    """Return what has to be counted for *rule*."""
    match rule:
        case RowCountRule():
            return RowCountObservation(stage=rule.stage, where=rule.where)
        case NullCheckRule():
            return NullCheckObservation(
                stage=rule.stage, where=rule.where, fields=rule.fields, nan_as_null=rule.nan_as_null
            )
        case FreshnessRule():
            return FreshnessObservation(
                stage=rule.stage,
                where=rule.where,
                field=rule.field,
                timezone=rule.timezone,
                format=rule.format,
                unit=rule.unit,
            )


def observation_key(rule: Rule) -> str:
    """Return the digest of what *rule* counts; equal for rules that only differ in what they expect."""
    counted = rule.model_dump(
        mode="json", by_alias=True, include={"type", "stage", "where"} | _COUNTED_KEYS[type(rule)]
    )
    return digest({**counted, "version": observation_of(rule).version})


def _rows_of(stage: Stage) -> RowCountRule:
    return RowCountRule(type="row_count", stage=stage, min=0)


_SOURCE_ROWS = observation_key(_rows_of("source"))
_OUTPUT_ROWS = observation_key(_rows_of("output"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """The states of everything that is counted, of one partition or of several merged ones."""

    states: Mapping[str, State]

    @property
    def source_rows(self) -> int:
        """Rows as extracted; counted whatever the rules are."""
        return self.states[_SOURCE_ROWS].rows

    @property
    def output_rows(self) -> int:
        """Rows that would be published; counted whatever the rules are."""
        return self.states[_OUTPUT_ROWS].rows

    def covers(self, rule: Rule) -> bool:
        """Whether all rows were counted for *rule*, so that it can be judged from here."""
        return observation_key(rule) in self.states

    def state_of(self, rule: Rule) -> State | None:
        """What was counted for *rule*, or None if it was not."""
        return self.states.get(observation_key(rule))


class Observer:
    """Counts for a set of rules, and how many rows there were in any case. Holds no counts itself."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        everything = [_rows_of("source"), _rows_of("output"), *rules]
        self._observations = {observation_key(rule): observation_of(rule) for rule in everything}

    def start(self) -> Observations:
        """The observations of no rows."""
        return Observations(states={key: counter.init() for key, counter in self._observations.items()})

    def observe(self, observations: Observations, batch: pa.RecordBatch, stage: Stage) -> Observations:
        """Return *observations* with the rows of *batch* counted in.

        Only what *observations* already has is counted on: a rule that was added half-way has missed rows,
        and must not look as if it were covered.
        """
        states = dict(observations.states)
        for key, counter in self._observations.items():
            if counter.stage == stage and key in states:
                states[key] = counter.update(states[key], batch)
        return Observations(states=states)

    def merge(self, first: Observations, second: Observations) -> Observations:
        """Return the observations of the rows of both; what only one of them counted is dropped."""
        return Observations(
            states={
                key: counter.merge(first.states[key], second.states[key])
                for key, counter in self._observations.items()
                if key in first.states and key in second.states
            }
        )

    def to_json(self, observations: Observations) -> dict[str, Any]:
        """Return *observations* as JSON, to be saved with a checkpoint."""
        states = {
            key: counter.encode(observations.states[key])
            for key, counter in self._observations.items()
            if key in observations.states
        }
        return {"format": _FORMAT, "states": states}

    def from_json(self, value: Mapping[str, Any]) -> Observations:
        """Return the observations that :meth:`to_json` saved, as far as they are still asked for.

        Raises ``ValueError`` for what :meth:`to_json` did not write.
        """
        saved = value.get("states")
        if value.get("format") != _FORMAT or not isinstance(saved, dict):
            raise ValueError(f"not saved observations: the format is not {_FORMAT}")
        if _SOURCE_ROWS not in saved or _OUTPUT_ROWS not in saved:
            raise ValueError("not saved observations: the numbers of rows are missing")
        return Observations(
            states={
                key: counter.decode(saved[key]) for key, counter in self._observations.items() if key in saved
            }
        )
