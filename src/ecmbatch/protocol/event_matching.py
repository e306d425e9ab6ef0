"""Which events start a job (protocol: Event-Driven Processing).

What fires is a function of the sequence of events and their times alone: never of how often, when or by how many
schedulers it is asked. Each event is part of one firing of a job at most, and of one at last if its trigger ever
closes over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

from ecmbatch.protocol.dependencies import OUTCOMES
from ecmbatch.protocol.dependency_declaration import AllGroup, AnyGroup, Dependency, DependencyRule, leaves
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.schedule import Debounce, EventLeg, EventSchedule, RunOutcome

_LONGEST_NAME = 300


class Happening(Protocol):
    """An event by its ``name``, or the end of a live run of ``job_id``; ``sequence`` orders all of them."""

    @property
    def sequence(self) -> int: ...
    @property
    def at(self) -> datetime: ...
    @property
    def name(self) -> str | None: ...
    @property
    def job_id(self) -> str | None: ...
    @property
    def status(self) -> RunStatus | None: ...


H = TypeVar("H", bound=Happening)


@dataclass(frozen=True, slots=True)
class Alternative:
    """One thing that may happen: an event called ``name``, or a run of the job ``name`` with an ``outcome``."""

    name: str
    outcome: RunOutcome | None = None

    def __str__(self) -> str:
        return f"event:{self.name}" if self.outcome is None else f"job:{self.name}:{self.outcome}"

    def matches(self, event: Happening) -> bool:
        """Tell whether this is what has happened."""
        if self.outcome is None:
            return event.name == self.name
        return event.job_id == self.name and event.status in OUTCOMES[self.outcome]


@dataclass(frozen=True, slots=True)
class Leg:
    """What a trigger listens to in one place: any of the alternatives, which are in order."""

    alternatives: tuple[Alternative, ...]

    @property
    def name(self) -> str:
        """What the leg's cursor is kept under: the alternatives, or their hash where they are many."""
        text = "|".join(map(str, self.alternatives))
        return text if len(text) <= _LONGEST_NAME else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def matches(self, event: Happening) -> bool:
        """Tell whether one of the alternatives has happened."""
        return any(alternative.matches(event) for alternative in self.alternatives)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTrigger:
    """What starts a job: ``kind`` is ``event`` for an event schedule, ``dependency`` for its dependencies."""

    kind: Literal["event", "dependency"]
    legs: tuple[Leg, ...]
    match: Literal["all", "any"]
    debounce: Debounce | None = None

    @property
    def leg_names(self) -> tuple[str, ...]:
        """The names of the legs' cursors."""
        return tuple(leg.name for leg in self.legs)

    @property
    def event_names(self) -> tuple[str, ...]:
        """The names of events from outside that matter."""
        return tuple(sorted({each.name for each in self._alternatives() if each.outcome is None}))

    @property
    def job_ids(self) -> tuple[str, ...]:
        """The jobs whose ends matter."""
        return tuple(sorted({each.name for each in self._alternatives() if each.outcome is not None}))

    def _alternatives(self) -> Iterable[Alternative]:
        return (alternative for leg in self.legs for alternative in leg.alternatives)


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing(Generic[H]):
    """A job is started by ``events``, and has consumed everything up to the sequence ``up_to``.

    ``closed_at`` is the instant from which on that is certain.
    """

    up_to: int
    events: tuple[H, ...]
    closed_at: datetime


def trigger_of(job: JobDefinition) -> EventTrigger | None:
    """Return what starts *job* beside time and people: its event schedule; without any schedule, its dependencies.

    ``None`` if it starts by time or by hand only.
    """
    for schedule in job.schedule:
        if isinstance(schedule, EventSchedule):
            return EventTrigger(
                kind="event",
                legs=_distinct([_alternative(leg)] for leg in schedule.on),
                match=schedule.match,
                debounce=schedule.debounce,
            )
    if job.schedule or not job.dependencies:
        return None
    legs = _distinct(leg for rule in job.dependencies for leg in _legs(rule))
    # Where nothing has to happen, each thing that does is a reason to run.
    legs = legs or _distinct([[_completion(each) for _, each in leaves(job.dependencies)]])
    return EventTrigger(kind="dependency", legs=legs, match="all")


def firings(
    trigger: EventTrigger, events: Iterable[H], consumed: Mapping[str, int], now: datetime
) -> Sequence[Firing[H]]:
    """Return what fires up to *now*, oldest first.

    *events* are all that happened since, in any order; *consumed* says up to which sequence the events of each leg
    are consumed, by the leg's name. Events are put into groups: each for itself or, with a debounce, those that
    follow each other closely. ``any`` fires for each closed group; ``all`` as soon as, with a closed group, every
    leg has an event, and consumes all of them.
    """
    found: list[Firing[H]] = []
    taken: list[H] = []
    missing = set(trigger.legs)
    for group, closed_at in _groups(trigger.debounce, _unconsumed(trigger, events, consumed), now):
        taken += group
        missing -= {leg for leg in missing if any(_counts(leg, event, consumed) for event in group)}
        if trigger.match == "any" or not missing:
            found.append(Firing(up_to=taken[-1].sequence, events=tuple(taken), closed_at=closed_at))
            taken, missing = [], set(trigger.legs)
    return found


def _unconsumed(trigger: EventTrigger, events: Iterable[H], consumed: Mapping[str, int]) -> list[H]:
    some = [event for event in events if any(_counts(leg, event, consumed) for leg in trigger.legs)]
    return sorted(some, key=lambda event: event.sequence)


def _counts(leg: Leg, event: Happening, consumed: Mapping[str, int]) -> bool:
    return event.sequence > consumed.get(leg.name, 0) and leg.matches(event)


def _groups(
    debounce: Debounce | None, events: Sequence[H], now: datetime
) -> Iterable[tuple[Sequence[H], datetime]]:
    """Yield the groups of *events* that nothing can join any more, with the instants that they closed at.

    A group is closed by time or by the first event that comes too late for it. So the groups after one of them are
    the same whether those before it are still there or consumed.
    """
    if debounce is None:
        yield from (([event], event.at) for event in events)
        return
    group: list[H] = []
    closes_at = now
    for event in events:
        if group and event.at >= closes_at:
            yield group, closes_at
            group = []
        group.append(event)
        quiet_at = event.at + debounce.quiet
        if len(group) == 1:
            closes_at = quiet_at
        # A clock that was set back must not make the group close earlier.
        closes_at = min(max(closes_at, quiet_at), group[0].at + debounce.max_wait)
    if group and now >= closes_at:
        yield group, closes_at


def _distinct(legs: Iterable[Iterable[Alternative]]) -> tuple[Leg, ...]:
    return tuple(dict.fromkeys(Leg(tuple(sorted(set(leg), key=str))) for leg in legs))


def _alternative(leg: EventLeg) -> Alternative:
    if leg.job is not None:
        return Alternative(leg.job, leg.status or "success")
    assert leg.event is not None
    return Alternative(leg.event)


def _completion(dependency: Dependency) -> Alternative:
    return Alternative(dependency.job, dependency.required_status or "success")


def _legs(rule: DependencyRule) -> list[list[Alternative]]:
    """Return the legs that a dependency implies; what is optional is not waited for."""
    match rule:
        case Dependency():
            return [] if rule.optional else [[_completion(rule)]]
        case AnyGroup():
            alternatives = [each for member in rule.any for leg in _legs(member) for each in leg]
            return [alternatives] if alternatives else []
        case AllGroup():
            return [leg for member in rule.all for leg in _legs(member)]
