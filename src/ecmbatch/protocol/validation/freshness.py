"""``freshness``: how old the newest row is (protocol: Quality Validation)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from ecmbatch.protocol.duration import format_duration
from ecmbatch.protocol.validation.columns import find_column
from ecmbatch.protocol.validation.instant import (
    NANOSECONDS,
    duration_of,
    format_instant,
    instant_of,
    instant_of_local,
)
from ecmbatch.protocol.validation.judgement import Judgement, rows_in_words, within
from ecmbatch.protocol.validation.observation import Observation, Unobservable
from ecmbatch.protocol.validation.predicate import Where
from ecmbatch.protocol.validation.rules import FreshnessRule, Stage
from ecmbatch.protocol.validation.selection import select

_DAY = 86_400 * NANOSECONDS["s"]
_ZONED = r"[ T][0-9:.]+(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The number of rows, how many have no time, and the newest time in nanoseconds since 1970 (UTC)."""

    rows: int = 0
    nulls: int = 0
    newest: int | None = None
    error: str | None = None


class FreshnessObservation(Observation[Newest]):
    """Keeps the newest value of a field, exactly.

    Read are timestamps (zoned or not), dates (the start of their day), texts with ``format``, integers with
    ``unit``. ``iso8601`` texts are those of the years 1678 to 2261. A pattern reads a day beyond the month's
    end as a day of the next month, as ``strptime`` does.
    """

    def __init__(
        self,
        *,
        stage: Stage,
        where: Where | None,
        field: str,
        timezone: str,
        format: str | None,  # noqa: A002 (the rule's own key)
        unit: str | None,
    ) -> None:
        super().__init__(stage=stage, where=where)
        self.field = field
        self.zone = ZoneInfo(timezone)
        self.format = format
        self.unit = unit

    def init(self) -> Newest:
        return Newest()

    def _count(self, batch: pa.RecordBatch) -> Newest:
        selection = select(batch, self.where, self.stage)
        values = selection.of(find_column(batch, self.field, self.stage).values())
        return Newest(rows=selection.rows, nulls=values.null_count, newest=self._newest(values))

    def _failed(self, error: str) -> Newest:
        return Newest(error=error)

    def _sum(self, first: Newest, second: Newest) -> Newest:
        return Newest(
            rows=first.rows + second.rows,
            nulls=first.nulls + second.nulls,
            newest=_later(first.newest, second.newest),
        )

    def _encode(self, state: Newest) -> dict[str, Any]:
        # As text: most readers of JSON keep only 53 bits of a number.
        newest = None if state.newest is None else str(state.newest)
        return {"rows": state.rows, "nulls": state.nulls, "newest": newest}

    def _decode(self, value: dict[str, Any]) -> Newest:
        newest = value["newest"]
        return Newest(
            rows=int(value["rows"]),
            nulls=int(value["nulls"]),
            newest=None if newest is None else int(newest),
        )

    def _newest(self, values: pa.Array) -> int | None:
        """The newest of *values* as an instant. Only the greatest is converted, as conversions keep order."""
        kind = values.type
        if pa.types.is_timestamp(kind):
            return self._instant(_greatest(values), NANOSECONDS[kind.unit], zoned=kind.tz is not None)
        if pa.types.is_date32(kind):
            return self._instant(_greatest(values), _DAY, zoned=False)
        if pa.types.is_date64(kind):
            milliseconds = _greatest(values)
            day = None if milliseconds is None else milliseconds // 86_400_000
            return self._instant(day, _DAY, zoned=False)
        if pa.types.is_integer(kind):
            if self.unit is None:
                raise Unobservable(f"'{self.field}' is {kind}; integers need 'unit': s, ms, us or ns")
            return self._instant(_greatest(values), NANOSECONDS[self.unit], zoned=True)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return self._newest_text(values)
        if pa.types.is_null(kind):
            return None
        raise Unobservable(
            f"'{self.field}' is {kind}; freshness needs timestamps, dates, texts with 'format' "
            "or integers with 'unit'"
        )

    def _newest_text(self, values: pa.Array) -> int | None:
        if self.format is None:
            raise Unobservable(f"'{self.field}' holds texts; they need 'format', such as 'iso8601'")
        if self.format != "iso8601":
            times = pc.strptime(values, format=self.format, unit="s", error_is_null=True)
            if times.null_count > values.null_count:
                raise Unobservable(f"'{self.field}' holds texts that are not in the 'format' of the rule")
            return self._newest(times)
        zoned = pc.match_substring_regex(values, pattern=_ZONED)
        try:
            instants = values.filter(zoned).cast(pa.timestamp("ns", "UTC"))
            locals_ = values.filter(pc.invert(zoned)).cast(pa.timestamp("ns"))
        except pa.ArrowInvalid as reason:
            raise Unobservable(
                f"'{self.field}' holds texts that are not ISO 8601 times of the years 1678 to 2261"
            ) from reason
        return _later(self._newest(instants), self._newest(locals_))

    def _instant(self, number: int | None, nanoseconds: int, *, zoned: bool) -> int | None:
        if number is None:
            return None
        return number * nanoseconds if zoned else instant_of_local(number * nanoseconds, self.zone)


def _greatest(values: pa.Array) -> int | None:
    greatest = pc.max(values)
    if not greatest.is_valid:
        return None
    return int(greatest.as_py() if pa.types.is_integer(values.type) else greatest.value)


def _later(first: int | None, second: int | None) -> int | None:
    if first is None or second is None:
        return second if first is None else first
    return max(first, second)


def judge_freshness(rule: FreshnessRule, state: Newest, reference: datetime) -> Judgement:
    """Judge the age of the newest time at *reference*: exactly, and not too far in the future."""
    against = instant_of(reference)
    observed = {"newest": None, "nulls": state.nulls, "reference": format_instant(against)}
    if state.newest is None:
        all_null = f"no time in '{rule.field}': all {rows_in_words(state.rows)} are null"
        message = all_null if state.rows else f"no rows, so nothing in '{rule.field}' is fresh"
        return Judgement(outcome="fail", message=message, observed=observed)
    observed["newest"] = format_instant(state.newest)
    age = against - state.newest
    if -age > duration_of(rule.max_future):
        return Judgement(outcome="fail", message=_future_in_words(rule, -age), observed=observed)
    outcome = within(
        age <= duration_of(rule.max_age),
        rule.warn is not None and age <= duration_of(rule.warn.max_age),
    )
    return Judgement(outcome=outcome, message=_age_in_words(rule, age), observed=observed)


def _future_in_words(rule: FreshnessRule, ahead: int) -> str:
    limit = rule.max_future
    return (
        f"newest '{rule.field}' is {_amount(ahead, limit)} in the future, accepted {format_duration(limit)}"
    )


def _age_in_words(rule: FreshnessRule, age: int) -> str:
    amount = _amount(max(age, 0), rule.max_age)
    return f"newest '{rule.field}' is {amount} old, accepted {format_duration(rule.max_age)}"


def _amount(nanoseconds: int, limit: timedelta) -> str:
    """A length of time to the second, and a word more where only its fraction exceeds *limit*."""
    seconds = nanoseconds // NANOSECONDS["s"]
    longest = timedelta.max // timedelta(seconds=1)
    if seconds > longest:
        return "more than 999,999,999 days"
    shown = timedelta(seconds=seconds)
    just_over = nanoseconds > duration_of(limit) and shown <= limit
    return ("just over " if just_over else "") + format_duration(limit if just_over else shown)
