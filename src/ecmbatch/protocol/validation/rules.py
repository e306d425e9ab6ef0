"""The validation block of a job: its rules, and what happens when one fails (protocol: Quality Validation).

These are the declarations only; nothing here needs Arrow, so a job is checked quickly. What a rule counts is
in ``row_count``, ``null_check`` and ``freshness`` beside this module, what follows from it in ``verdict``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ecmbatch.protocol.duration import Duration
from ecmbatch.protocol.validation.declaration import Declaration, JsonList, NotEmpty, digest, suggestion
from ecmbatch.protocol.validation.on_failure import OnFailure, OnFailureValue
from ecmbatch.protocol.validation.predicate import Where
from ecmbatch.protocol.validation.threshold import Threshold, ThresholdValue

RULE_TYPES: Sequence[str] = ("row_count", "null_check", "freshness")

Stage = Literal["source", "output"]
_Empty = Literal["pass", "warn", "fail", "skipped"]
_Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
_Column = Annotated[str, Field(min_length=1)]


class CommonKeys(Declaration):
    """What every rule may say, whatever its type."""

    declared_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] | None = Field(
        default=None, alias="id"
    )
    severity: Literal["error", "warn"] = "error"
    scope: Literal["total", "each_partition"] = "total"
    stage: Stage = "output"
    where: Where | None = None
    on_empty: _Empty | None = None
    on_failure: OnFailureValue | None = None

    @model_validator(mode="after")
    def _severity_fits_action(self) -> CommonKeys:
        if self.severity == "warn" and self.on_failure is not None and self.on_failure.aborts:
            raise ValueError(
                "a rule of severity 'warn' never aborts; use 'warn' or 'warn_and_alert' as its 'on_failure', "
                "or severity 'error'"
            )
        return self

    @property
    def id(self) -> str:
        """The declared id, else a digest of the rule: the same for the same rule, in every version."""
        return self.declared_id or digest(self.as_json(exclude={"declared_id"}))[:12]


class RowBounds(Declaration):
    """The looser bounds of a row count; a bound that is not given stays that of the rule."""

    min: _Count | None = None
    max: _Count | None = None


class RowCountRule(CommonKeys):
    """The number of rows lies between ``min`` and ``max``, both included, or is ``equals``. No rows are 0."""

    type: Literal["row_count"]
    min: _Count | None = None
    max: _Count | None = None
    equals: _Count | None = None
    warn: RowBounds | None = None

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> RowCountRule:
        low, high = self.bounds
        if low is None and high is None:
            raise ValueError("a row_count rule needs 'min', 'max' or 'equals'")
        if self.equals is not None and (self.min is not None or self.max is not None):
            raise ValueError("'equals' stands alone, without 'min' and 'max'")
        _check_order(low, high)
        if self.warn is not None:
            self._check_looser(*self.warn_bounds)
        return self

    def _check_looser(self, low: int | None, high: int | None) -> None:
        own_low, own_high = self.bounds
        _check_order(low, high)
        narrower = _floor(low) > _floor(own_low) or _ceiling(high) < _ceiling(own_high)
        if narrower or (low, high) == (own_low, own_high):
            raise ValueError("'warn' must be looser than the rule: a lower 'min' or a higher 'max'")

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """Least and greatest accepted number; None is no bound."""
        return (self.equals, self.equals) if self.equals is not None else (self.min, self.max)

    @property
    def warn_bounds(self) -> tuple[int | None, int | None]:
        """The bounds within which a violation is only a warning; those of the rule without ``warn``."""
        low, high = self.bounds
        if self.warn is None:
            return low, high
        return (
            low if self.warn.min is None else self.warn.min,
            high if self.warn.max is None else self.warn.max,
        )

    @property
    def expected(self) -> dict[str, Any]:
        """The thresholds, as JSON for a report."""
        return self.model_dump(mode="json", include={"min", "max", "equals", "warn"}, exclude_none=True)


class NullThreshold(Declaration):
    """The looser threshold of a null check."""

    threshold: ThresholdValue


class NullCheckRule(CommonKeys):
    """In each of ``fields``, by itself, at most ``threshold`` rows are null (or NaN, by default)."""

    type: Literal["null_check"]
    fields: Annotated[tuple[_Column, ...], JsonList, NotEmpty]
    threshold: ThresholdValue = Threshold(count=0)
    nan_as_null: bool = True
    warn: NullThreshold | None = None

    @field_validator("fields")
    @classmethod
    def _fields_differ(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(fields)) < len(fields):
            raise ValueError("a field stands once in 'fields'")
        return fields

    @model_validator(mode="after")
    def _warn_is_looser(self) -> NullCheckRule:
        if self.warn is not None and not self.warn.threshold.can_exceed(self.threshold):
            raise ValueError("'warn' must be looser than the rule: a greater 'threshold'")
        return self

    @property
    def expected(self) -> dict[str, Any]:
        """The thresholds, as JSON for a report."""
        return self.model_dump(mode="json", include={"fields", "threshold", "warn"}, exclude_none=True)


class FreshnessLimits(Declaration):
    """The looser limit of a freshness rule."""

    max_age: Duration


class FreshnessRule(CommonKeys):
    """The newest value of ``field`` is at most ``max_age`` old, and at most ``max_future`` ahead.

    Values without a zone (dates and texts too) are read in ``timezone``. Where a local time exists twice the
    earlier instant is meant; where it does not exist, the instant at which the clocks were moved. Texts need
    ``format`` (``iso8601``, or a pattern such as ``%Y-%m-%d %H:%M:%S``), integers the ``unit`` since
    1970-01-01T00:00:00Z. ``reference`` says what age is measured against: ``clock`` (when judging) or
    ``window_end``; left out, the clock, and for backfills the window's end.
    """

    type: Literal["freshness"]
    field: _Column
    max_age: Duration
    max_future: Duration = timedelta(minutes=5)
    timezone: str = "UTC"
    reference: Literal["clock", "window_end"] | None = None
    format: str | None = None
    unit: Literal["s", "ms", "us", "ns"] | None = None
    warn: FreshnessLimits | None = None

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        # 'localtime' is whatever the host says, and differs from one machine to the next.
        try:
            if name.lower() in ("localtime", "local", "posixrules", "factory"):
                raise ValueError
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone; use a name such as 'UTC' or 'Europe/Berlin'") from None
        return name

    @field_validator("format")
    @classmethod
    def _format_is_known(cls, pattern: str | None) -> str | None:
        if pattern is not None and pattern != "iso8601":
            _check_pattern(pattern)
        return pattern

    @model_validator(mode="after")
    def _keys_agree(self) -> FreshnessRule:
        if self.format is not None and self.unit is not None:
            raise ValueError("'format' is for texts and 'unit' for integers; give one of the two")
        if self.warn is not None and self.warn.max_age <= self.max_age:
            raise ValueError("'warn' must be looser than the rule: a longer 'max_age'")
        return self

    @property
    def expected(self) -> dict[str, Any]:
        """The thresholds, as JSON for a report."""
        keys = {"field", "max_age", "max_future", "reference", "warn"}
        return self.model_dump(mode="json", include=keys, exclude_none=True)


def _known_type(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    found = value.get("type")
    if found is None:
        raise ValueError(f"a rule needs a 'type'; this version knows {', '.join(RULE_TYPES)}")
    if found not in RULE_TYPES:
        shown = f" '{found}'" if isinstance(found, str) and re.fullmatch(r"[A-Za-z_-]{1,40}", found) else ""
        raise ValueError(
            f"unknown rule type{shown}; this version knows {', '.join(RULE_TYPES)}"
            + suggestion(found, RULE_TYPES)
        )
    return value


Rule = RowCountRule | NullCheckRule | FreshnessRule

_AnyRule = Annotated[Rule, Field(discriminator="type"), BeforeValidator(_known_type)]


class Validation(Declaration):
    """The ``validation`` block of a job."""

    rules: Annotated[tuple[_AnyRule, ...], JsonList]
    on_failure: OnFailureValue = OnFailure()

    @field_validator("rules")
    @classmethod
    def _ids_differ(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        counts = Counter(rule.id for rule in rules)
        for rule_id, count in counts.items():
            if count > 1:
                places = ", ".join(str(place) for place, rule in enumerate(rules) if rule.id == rule_id)
                raise ValueError(
                    f"rules {places} have the same id '{rule_id}'; "
                    "without an 'id' of their own, equal rules have equal ids"
                )
        return rules

    @model_validator(mode="after")
    def _something_can_fail(self) -> Validation:
        if not self.rules and "on_failure" in self.model_fields_set:
            raise ValueError("'on_failure' without rules checks nothing; add a rule or remove 'on_failure'")
        return self


def _floor(bound: int | None) -> float | int:
    return -1 if bound is None else bound


def _ceiling(bound: int | None) -> float | int:
    return float("inf") if bound is None else bound


def _check_order(low: int | None, high: int | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError("'min' must not be greater than 'max'")


_DIRECTIVES = frozenset("YmdeHIMSpbBFTRz%")


def _check_pattern(pattern: str) -> None:
    """Refuse what would be read differently from host to host, silently ignored, or not at all."""
    used = re.findall(r"%(.?)", pattern)
    if not {"Y", "F"}.intersection(used):
        raise ValueError("'format' is 'iso8601', or a pattern with a year such as '%Y-%m-%d %H:%M:%S'")
    unknown = sorted({f"%{letter}" for letter in used} - {f"%{letter}" for letter in _DIRECTIVES})
    if unknown:
        hint = "; fractions of a second are read by 'iso8601'" if "%f" in unknown else ""
        raise ValueError(f"'format' knows %{', %'.join(sorted(_DIRECTIVES))}, not {', '.join(unknown)}{hint}")
    if pattern.endswith("Z"):
        raise ValueError("a 'Z' in 'format' would be skipped as text; write %z, which reads 'Z' and '+02:00'")
    if ("I" in used) != ("p" in used):
        raise ValueError("%I and %p (hours from 1 to 12) go together")
