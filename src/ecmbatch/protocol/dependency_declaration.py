"""What a job says of other jobs that must have run (protocol: Dependency Management)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from ecmbatch.errors import Problem
from ecmbatch.protocol.document import Many, Part, Section, pointer, refusal
from ecmbatch.protocol.duration import Period
from ecmbatch.protocol.names import JobId
from ecmbatch.protocol.schedule import RunOutcome

MAX_GROUPS = 3
"""How deep groups may stand in each other; a person has to understand why a run waits."""


class Dependency(Section):
    """Another job that must have run. With neither ``window`` nor ``status``, success is asked for."""

    job: JobId
    window: Period | None = Field(
        default=None, description="A successful run covers data later than this long before."
    )
    status: RunOutcome | None = Field(default=None, description="How the newest run ended.")
    optional: bool = Field(default=False, description="Met while the other job has never run.")

    @property
    def required_status(self) -> RunOutcome | None:
        """How the newest run must have ended; ``None`` if only the window counts."""
        return "success" if self.status is None and self.window is None else self.status


def _not_empty(rules: tuple[DependencyRule, ...]) -> tuple[DependencyRule, ...]:
    if not rules:
        raise ValueError("must name at least one dependency")
    return rules


_Rules = Annotated[
    "Many[DependencyRule]", AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1})
]


class _Group(Section):
    """Base of what holds several dependencies under one key."""

    @model_validator(mode="before")
    @classmethod
    def _only_its_key(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        others = [key for key in value if key not in cls.model_fields and not key.startswith("x-")]
        if others:
            hint = "write it inside the group"
            raise refusal(
                *(
                    Problem(pointer((key,)), "stands beside a group, which has no other keys", hint)
                    for key in others
                )
            )
        return value

    @model_validator(mode="after")
    def _not_too_deep(self) -> Self:
        if _depth(self) > MAX_GROUPS:
            raise refusal(Problem("", f"has groups in groups more than {MAX_GROUPS} deep"))
        return self


class AnyGroup(_Group):
    """Alternatives: one of them must be met."""

    any: _Rules = Field(description="One of these must be met.")


class AllGroup(_Group):
    """Dependencies that belong together: all of them must be met."""

    all: _Rules = Field(description="All of these must be met.")


def _kind(value: Any) -> str:
    """Name the variant of a dependency; the names differ from every key, which keeps error locations clear."""
    if isinstance(value, AnyGroup) or (isinstance(value, dict) and "any" in value):
        return "any group"
    if isinstance(value, AllGroup) or (isinstance(value, dict) and "all" in value):
        return "all group"
    return "single dependency"


DependencyRule = Annotated[
    Annotated[Dependency, Tag("single dependency")]
    | Annotated[AnyGroup, Tag("any group")]
    | Annotated[AllGroup, Tag("all group")],
    Discriminator(_kind),
]
"""One other job, or a group of such rules."""

AnyGroup.model_rebuild()
AllGroup.model_rebuild()


def leaves(
    rules: Iterable[DependencyRule], place: tuple[Part, ...] = ()
) -> Iterator[tuple[tuple[Part, ...], Dependency]]:
    """Yield every single dependency among *rules* and in their groups, with the way to it."""
    for number, rule in enumerate(rules):
        match rule:
            case Dependency():
                yield (*place, number), rule
            case AnyGroup():
                yield from leaves(rule.any, (*place, number, "any"))
            case AllGroup():
                yield from leaves(rule.all, (*place, number, "all"))


def _depth(rule: Section) -> int:
    match rule:
        case AnyGroup():
            return 1 + max(map(_depth, rule.any))
        case AllGroup():
            return 1 + max(map(_depth, rule.all))
        case _:
            return 0
