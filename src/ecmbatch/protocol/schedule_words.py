"""A schedule in words: what it says, when it is due next, and what may surprise (protocol: Scheduling Protocol)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from ecmbatch.errors import Problem
from ecmbatch.protocol.cron import ClockChange, Cron, clock_changes
from ecmbatch.protocol.document import pointer
from ecmbatch.protocol.duration import format_duration
from ecmbatch.protocol.schedule import (
    CronSchedule,
    EventLeg,
    EventSchedule,
    IntervalSchedule,
    RunOutcome,
    Schedule,
)
from ecmbatch.protocol.ticks import Ticks, tick_source

_UTC_ZONE = ZoneInfo("UTC")
_LOOKED_AHEAD = timedelta(days=2 * 366)


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTick:
    """One tick: the instant in UTC, and the same in the zone of the schedule it comes from."""

    local: datetime
    utc: datetime

    def document(self) -> dict[str, str]:
        """Return both as ISO 8601."""
        return {"local": self.local.isoformat(), "utc": self.utc.isoformat().replace("+00:00", "Z")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleDescription:
    """What a job's schedule says, and its next ticks, ascending; none for schedules that do not go by time."""

    explanation: str
    next: tuple[NextTick, ...]

    def document(self) -> dict[str, Any]:
        """Return the description as JSON."""
        return {"explanation": self.explanation, "next": [tick.document() for tick in self.next]}


def describe(schedule: Sequence[Schedule], now: datetime, count: int) -> ScheduleDescription:
    """Return what a job's *schedule* says, with its next *count* ticks after *now*."""
    ticks = Ticks.of(schedule)
    following = islice(ticks.after(now), count) if ticks else ()
    return ScheduleDescription(
        explanation="; ".join(map(_explained, schedule)) or "No schedule",
        next=tuple(NextTick(local=tick.astimezone(_zone_of(tick, schedule)), utc=tick) for tick in following),
    )


def schedule_warnings(schedule: Sequence[Schedule], now: datetime) -> list[Problem]:
    """Return what is allowed in a job's *schedule* but may surprise in the two years after *now*."""
    warnings: list[Problem] = []
    for number, each in enumerate(schedule):
        if isinstance(each, CronSchedule):
            # A single schedule is nearly always written without a list around it.
            place = "/schedule" if len(schedule) == 1 else pointer(("schedule", number))
            cron = Cron.of(each.cron, each.timezone)
            warnings += [Problem(place, message, hint) for message, hint in _surprises(cron, now)]
    return warnings


def _explained(schedule: Schedule) -> str:
    match schedule:
        case CronSchedule():
            cron = Cron.of(schedule.cron, schedule.timezone)
            return f"{_explained_cron(cron)} ({schedule.timezone})"
        case IntervalSchedule():
            return f"Every {format_duration(schedule.every)}, counted from 1970-01-01 00:00 (UTC)"
        case EventSchedule():
            return _explained_events(schedule)
        case _:
            return "Only when somebody asks"


def _explained_cron(cron: Cron) -> str:
    explained = cron.explained()
    if cron.either_day_matches:
        # cronsim writes "and" between the day and the weekday, of which one is enough.
        explained = explained.replace(" and on ", " or on ", 1)
    # cronsim writes 21th, 22th and 23th.
    return re.sub(
        r"\b([02-9])([123])th\b",
        lambda number: number[1] + number[2] + ("st", "nd", "rd")[int(number[2]) - 1],
        explained,
    )


_OUTCOMES: dict[RunOutcome, str] = {
    "success": "has succeeded",
    "failed": "has failed",
    "finished": "has finished",
}


def _explained_events(schedule: EventSchedule) -> str:
    joined = (" or " if schedule.match == "any" else " and ").join(map(_explained_leg, schedule.on))
    if schedule.debounce is None:
        return f"When {joined}"
    quiet, longest = map(format_duration, (schedule.debounce.quiet, schedule.debounce.max_wait))
    return f"When {joined}, as soon as that has paused for {quiet}, at most {longest} later"


def _explained_leg(leg: EventLeg) -> str:
    if leg.event is not None:
        return f"{leg.event} has come"
    return f"{leg.job} {_OUTCOMES[leg.status or 'success']}"


def _zone_of(tick: datetime, schedule: Sequence[Schedule]) -> ZoneInfo:
    """Return the zone of the first schedule that has *tick*; intervals know none."""
    for each in schedule:
        source = tick_source(each)
        if source is not None and source.latest(tick) == tick:
            return source.zone if isinstance(source, Cron) else _UTC_ZONE
    return _UTC_ZONE


def _surprises(cron: Cron, now: datetime) -> Iterator[tuple[str, str]]:
    if cron.either_day_matches:
        yield "both the day and the weekday are set: either of them is enough", "write * for one of them"
    if not cron.is_fixed:
        return
    told: set[bool] = set()
    for change in clock_changes(cron.zone, now.astimezone(UTC), now.astimezone(UTC) + _LOOKED_AHEAD):
        wall = _first_wall(cron, change)
        if wall is not None and change.is_gap not in told:
            told.add(change.is_gap)
            yield _surprise(cron, change, wall), "choose another time, or UTC, if that matters"


def _first_wall(cron: Cron, change: ClockChange) -> datetime | None:
    """Return the first time of *cron* among the local times that *change* leaves out or repeats."""
    start = min(change.before, change.after)
    wall = next(cron.walls(start - timedelta(minutes=1)), None)
    return wall if wall is not None and wall < start + change.length else None


def _surprise(cron: Cron, change: ClockChange, wall: datetime) -> str:
    before, after = f"{change.before:%H:%M}", f"{change.after:%H:%M}"
    if change.is_gap:
        return (
            f"there is no {wall:%H:%M} in {cron.zone.key} on {wall:%Y-%m-%d}: clocks go from {before} to {after}, "
            f"and the run of that day is due at {after}"
        )
    return (
        f"{wall:%H:%M} comes twice in {cron.zone.key} on {wall:%Y-%m-%d}: clocks go from {before} back to "
        f"{after}, and only the first time counts"
    )
