"""``partitioning`` as a job declares it: hash, range or list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ecmbatch.errors import Problem
from ecmbatch.protocol.document import Many, Matching, Section, refusal
from ecmbatch.protocol.names import ColumnName

MAX_PARTITIONS = 65_536


def _key_value(value: Any) -> Any:
    if value is None:
        raise ValueError("NULL keys have a partition already: the first of a range, the default of a list")
    if not isinstance(value, str | bool | int | float):
        raise ValueError("must be a text, a number, true or false")
    return value


KeyValue = Annotated[
    Any,
    BeforeValidator(_key_value),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
"""A key as JSON writes it; dates, times, UUIDs and exact decimals are texts."""

GroupName = Annotated[
    str, Matching(r"[^\x00-\x1f\x7f]{1,128}", "a name of 1 to 128 characters without control characters")
]


class HashPartitioning(Section):
    """Rows spread evenly by a hash of their key; NULL keys are in partition 0."""

    strategy: Literal["hash"]
    key: ColumnName = Field(description="The column whose values decide; rows of one value stay together.")
    partitions: int = Field(ge=1, le=MAX_PARTITIONS)


class RangePartitioning(Section):
    """Rows by where their key lies between bounds; the first range has the NULL keys."""

    strategy: Literal["range"]
    key: ColumnName = Field(description="The column whose values decide.")
    partitions: int | None = Field(
        default=None,
        ge=1,
        le=MAX_PARTITIONS,
        description="How many ranges; their bounds are computed from a sample of the keys.",
    )
    bounds: Annotated[Many[KeyValue], Field(min_length=1)] | None = Field(
        default=None,
        description="Where one range ends and the next begins, ascending; the last and the first are open.",
    )
    ordered: bool = Field(default=False, description="One range at a time, in ascending order.")

    @model_validator(mode="after")
    def _has_one_of_both(self) -> RangePartitioning:
        if (self.partitions is None) == (self.bounds is None):
            raise ValueError("needs either partitions or bounds")
        return self

    @model_validator(mode="after")
    def _bounds_ascend(self) -> RangePartitioning:
        bounds = self.bounds or ()
        _refuse_mixed_kinds(bounds, "/bounds")
        # Texts may be dates or decimals: their order is known when the type of the key is.
        if bounds and not isinstance(bounds[0], str):
            for number, (one, other) in enumerate(pairwise(bounds), start=1):
                if not one < other:
                    raise refusal(Problem(f"/bounds/{number}", "must be greater than the bound before it"))
        return self


class ListPartitioning(Section):
    """Rows by groups of key values; NULL keys are in the default, or in a last partition of their own."""

    strategy: Literal["list"]
    key: ColumnName = Field(description="The column whose values decide.")
    values: dict[GroupName, Many[KeyValue]] | Many[Many[KeyValue]] = Field(
        min_length=1,
        max_length=MAX_PARTITIONS - 1,
        description="Named groups of values, or a list of groups.",
    )
    default: GroupName | None = Field(
        default=None, description="Where values of no group go; without it they are an error."
    )

    @property
    def groups(self) -> Sequence[tuple[str, Sequence[Any]]]:
        """Return the groups with their names; groups of a plain list are called by their number."""
        if isinstance(self.values, dict):
            return list(self.values.items())
        return [(str(number), values) for number, values in enumerate(self.values)]

    @model_validator(mode="after")
    def _values_differ(self) -> ListPartitioning:
        names = self.values if isinstance(self.values, dict) else range(len(self.values))
        places = [f"/values/{str(name).replace('~', '~0').replace('/', '~1')}" for name in names]
        seen: set[tuple[type, Any]] = set()
        everything: list[Any] = []
        for place, (_, values) in zip(places, self.groups, strict=True):
            if not values:
                raise refusal(Problem(place, "must have at least one value"))
            for number, value in enumerate(values):
                # In Python true is 1; in a job it is not.
                if (type(value), value) in seen:
                    raise refusal(Problem(f"{place}/{number}", "is listed twice"))
                seen.add((type(value), value))
            everything += values
        _refuse_mixed_kinds(everything, "/values")
        return self


def _refuse_mixed_kinds(values: Sequence[Any], place: str) -> None:
    """Raise the refusal of a list that holds texts beside numbers, or booleans beside either."""
    kinds = {"text" if isinstance(v, str) else "boolean" if isinstance(v, bool) else "number" for v in values}
    if len(kinds) > 1:
        raise refusal(Problem(place, f"mixes {' and '.join(sorted(kinds))} values; a key has one type"))


Partitioning = Annotated[
    HashPartitioning | RangePartitioning | ListPartitioning, Field(discriminator="strategy")
]
"""Any partitioning."""
