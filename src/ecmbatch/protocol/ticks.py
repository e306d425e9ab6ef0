"""When a job is due: the instants of all its cron and interval schedules (protocol: Scheduling Protocol).

Ticks depend on the schedules alone, never on when a process was started: everybody who asks gets the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

from ecmbatch.protocol.cron import FIRST, LAST, Cron
from ecmbatch.protocol.schedule import CronSchedule, IntervalSchedule, Schedule

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TickSource(Protocol):
    """One schedule's ticks."""

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the ticks after *instant*, ascending, each once."""

    def latest(self, until: datetime) -> datetime | None:
        """Return the last tick up to and including *until*."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Ticks at the whole multiples of ``every`` since 1970-01-01T00:00Z."""

    every: timedelta

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the ticks after *instant*, ascending, until the year 9999."""
        tick = self._floor(max(instant, FIRST + self.every))
        while LAST - tick >= self.every:
            tick += self.every
            yield tick

    def latest(self, until: datetime) -> datetime | None:
        """Return the last tick up to and including *until*, ``None`` before the second year."""
        return self._floor(min(until, LAST)) if until >= FIRST + self.every else None

    def _floor(self, instant: datetime) -> datetime:
        return _EPOCH + (instant - _EPOCH) // self.every * self.every


@dataclass(frozen=True, slots=True)
class Ticks:
    """The ticks of all schedules of a job together, ascending, each once.

    Instants that are passed in must have a zone; those that come out are in UTC.
    """

    sources: tuple[TickSource, ...]

    @classmethod
    def of(cls, schedule: Sequence[Schedule]) -> Self | None:
        """Return the ticks of a job's *schedule*, ``None`` if nothing of it goes by time."""
        sources = tuple(source for each in schedule if (source := tick_source(each)) is not None)
        return cls(sources) if sources else None

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the ticks after *instant*, ascending, until the year 9999."""
        last = _utc(instant)
        for tick in heapq.merge(*(source.after(last) for source in self.sources)):
            if tick > last:
                yield tick
                last = tick

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first tick after *instant*, ``None`` if there is none before the year 10000."""
        return next(self.after(instant), None)

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the ticks after *after*, up to and including *until*, ascending."""
        for tick in self.after(after):
            if tick > until:
                return
            yield tick

    def latest(self, *, after: datetime, until: datetime) -> datetime | None:
        """Return the last tick after *after*, up to and including *until*; ``None`` if there is none.

        The time it takes does not depend on how many ticks lie between.
        """
        moment = _utc(until)
        ticks = [tick for source in self.sources if (tick := source.latest(moment)) is not None]
        return max((tick for tick in ticks if tick > after), default=None)


def tick_source(schedule: Schedule) -> TickSource | None:
    """Return the ticks of one schedule, ``None`` if it does not go by time."""
    match schedule:
        case CronSchedule():
            return Cron.of(schedule.cron, schedule.timezone)
        case IntervalSchedule():
            return Interval(schedule.every)
        case _:
            return None


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return instant.astimezone(UTC)
