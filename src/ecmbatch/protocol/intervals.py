"""The intervals of a backfill (protocol: Scheduling Protocol, backfill): which there are, and which are done.

Everything is half-open. Intervals are computed, never listed: a million of them costs as much as one. What is
done is kept as ranges, neighbours of one status as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

from ecmbatch.errors import UsageError
from ecmbatch.protocol.duration import format_duration, parse_duration

if TYPE_CHECKING:
    from ecmbatch.protocol.schedule import Schedule
    from ecmbatch.protocol.ticks import Ticks

Order = Literal["asc", "desc"]
Reprocess = Literal["missing", "failed", "all"]
OnFailure = Literal["stop", "continue"]

DEFAULT_SPLIT = "1 day"
"""Days in, days out, whatever the job's schedule is and whether it has one."""

_MOMENT = timedelta(microseconds=1)
_SHORTEST = timedelta(seconds=1)


class IntervalStatus(StrEnum):
    """What became of an interval. One that has none is still to be done."""

    LOADED = "loaded"
    FAILED = "failed"
    STOPPED = "stopped"
    """Somebody stopped its run; it goes on when the backfill is resumed."""
    SKIPPED = "skipped"
    """Left out of a backfill: it was loaded, or had failed, before."""


class BackfillStatus(StrEnum):
    """Where a backfill stands."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FAILED = "failed"
    """A failure has stopped it, or it is through and something failed."""
    COMPLETED = "completed"


UNFINISHED = frozenset({BackfillStatus.RUNNING, BackfillStatus.PAUSED})
"""They keep their range for themselves."""


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """The time from ``start`` to ``end``, without ``end``; both have a zone."""

    start: datetime
    end: datetime

    def overlaps(self, other: Interval) -> bool:
        """Tell whether some moment is in both."""
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True, order=True)
class IntervalRange:
    """Intervals of one status that lie side by side."""

    start: datetime
    end: datetime
    status: IntervalStatus

    @property
    def interval(self) -> Interval:
        """Where it lies."""
        return Interval(self.start, self.end)


Ranges = Sequence[IntervalRange]
"""Ascending and disjoint; two that touch differ in their status."""


def marked(ranges: Ranges, interval: Interval, status: IntervalStatus) -> Ranges:
    """Return *ranges* with *status* for all of *interval*, whatever was there."""
    return _coalesced(
        sorted([*_without(ranges, interval), IntervalRange(interval.start, interval.end, status)])
    )


def gaps(ranges: Iterable[IntervalRange], interval: Interval) -> Iterator[Interval]:
    """Yield the parts of *interval* that none of *ranges*, which are ascending, reaches; ascending."""
    begin = interval.start
    for each in ranges:
        if each.start >= interval.end:
            break
        if begin < each.start:
            yield Interval(begin, each.start)
        begin = max(begin, each.end)
    if begin < interval.end:
        yield Interval(begin, interval.end)


def united(intervals: Iterable[Interval]) -> Sequence[Interval]:
    """Return the same moments as few intervals, ascending and apart."""
    found: list[Interval] = []
    for each in sorted(intervals):
        if found and each.start <= found[-1].end:
            found[-1] = Interval(found[-1].start, max(found[-1].end, each.end))
        else:
            found.append(each)
    return found


def without(interval: Interval, others: Iterable[Interval]) -> Iterator[Interval]:
    """Yield the parts of *interval* that are in none of *others*, ascending."""
    taken = [IntervalRange(each.start, each.end, IntervalStatus.SKIPPED) for each in united(others)]
    return gaps(taken, interval)


def _without(ranges: Ranges, interval: Interval) -> Iterator[IntervalRange]:
    for each in ranges:
        if not each.interval.overlaps(interval):
            yield each
            continue
        if each.start < interval.start:
            yield IntervalRange(each.start, interval.start, each.status)
        if interval.end < each.end:
            yield IntervalRange(interval.end, each.end, each.status)


def _coalesced(ranges: Iterable[IntervalRange]) -> Ranges:
    found: list[IntervalRange] = []
    for each in ranges:
        if found and found[-1].end == each.start and found[-1].status is each.status:
            found[-1] = IntervalRange(found[-1].start, each.end, each.status)
        else:
            found.append(each)
    return found


class Cuts(Protocol):
    """Where a range is cut into intervals."""

    def after(self, moment: datetime) -> datetime | None:
        """Return the first cut after *moment*."""

    def before(self, moment: datetime) -> datetime | None:
        """Return the last cut before *moment*."""

    def between(self, interval: Interval) -> int:
        """Return how many cuts are inside *interval*, its ends not counted."""


@dataclass(frozen=True, slots=True)
class EvenCuts:
    """A cut every so often, counted from ``origin``."""

    origin: datetime
    every: timedelta

    def after(self, moment: datetime) -> datetime | None:
        return self._cut((moment - self.origin) // self.every + 1)

    def before(self, moment: datetime) -> datetime | None:
        return self._cut(-((self.origin - moment) // self.every) - 1)

    def between(self, interval: Interval) -> int:
        first = (interval.start - self.origin) // self.every + 1
        last = -((self.origin - interval.end) // self.every) - 1
        return max(last - first + 1, 0)

    def _cut(self, number: int) -> datetime | None:
        try:
            return self.origin + number * self.every
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class TickCuts:
    """A cut at each tick of a schedule: the intervals that live runs on time would have had."""

    ticks: Ticks
    within: Interval

    def after(self, moment: datetime) -> datetime | None:
        return self.ticks.next_after(moment)

    def before(self, moment: datetime) -> datetime | None:
        return self.ticks.latest(after=self.within.start, until=moment - _MOMENT)

    def between(self, interval: Interval) -> int:
        return sum(1 for _ in self.ticks.between(interval.start, interval.end - _MOMENT))


@dataclass(frozen=True, slots=True)
class NoCuts:
    """Everything is one interval."""

    def after(self, moment: datetime) -> datetime | None:
        return None

    def before(self, moment: datetime) -> datetime | None:
        return None

    def between(self, interval: Interval) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class BackfillIntervals:
    """The intervals that ``whole`` is cut into, side by side and without a gap.

    The first and the last may be shorter than the others. Asking for neighbours, numbers and the intervals in a
    part takes the same time however many there are; only those of a schedule are counted one by one.
    """

    whole: Interval
    cuts: Cuts

    @classmethod
    def of(cls, whole: Interval, split: str, schedule: Sequence[Schedule]) -> BackfillIntervals:
        """Return the intervals of *whole*: *split* is a duration, ``schedule`` (the job's) or ``none``.

        Raises :class:`~ecmbatch.errors.UsageError` for another *split*, and for ``schedule`` without ticks.
        """
        match split:
            case "none":
                return cls(whole, NoCuts())
            case "schedule":
                # Calendars are imported by those who split by one.
                from ecmbatch.protocol.ticks import Ticks

                ticks = Ticks.of(schedule)
                if ticks is None:
                    raise UsageError(
                        "the job has no cron or interval schedule to split by",
                        hint=f'give a duration, for example --split "{DEFAULT_SPLIT}"',
                    )
                return cls(whole, TickCuts(ticks, whole))
            case _:
                return cls(whole, EvenCuts(whole.start, _duration(split)))

    @property
    def first(self) -> Interval:
        """The earliest interval."""
        return Interval(self.whole.start, self._after(self.whole.start))

    @property
    def last(self) -> Interval:
        """The latest interval."""
        return Interval(self._before(self.whole.end), self.whole.end)

    def count(self, part: Interval | None = None) -> int:
        """Return how many intervals there are, in all or in a *part* that begins and ends with one."""
        return self.cuts.between(part or self.whole) + 1

    def inside(self, part: Interval) -> Interval | None:
        """Return what the intervals that lie wholly in *part* make up, ``None`` if there are none."""
        start = self._boundary_from(part.start)
        end = self._boundary_until(part.end)
        return Interval(start, end) if start < end else None

    def around(self, part: Interval) -> Interval | None:
        """Return what the intervals that *part* overlaps make up, ``None`` if there are none."""
        if not self.whole.overlaps(part):
            return None
        return Interval(self._boundary_until(part.start), self._boundary_from(part.end))

    def each(self, part: Interval, order: Order) -> Iterator[Interval]:
        """Yield the intervals of a *part* that begins and ends with one."""
        start, end = part.start, part.end
        while start < end:
            if order == "asc":
                interval = Interval(start, self._after(start))
                start = interval.end
            else:
                interval = Interval(self._before(end), end)
                end = interval.start
            yield interval

    def _after(self, moment: datetime) -> datetime:
        return min(self.cuts.after(moment) or self.whole.end, self.whole.end)

    def _before(self, moment: datetime) -> datetime:
        return max(self.cuts.before(moment) or self.whole.start, self.whole.start)

    def _boundary_from(self, moment: datetime) -> datetime:
        """Return the first boundary at *moment* or later."""
        return self.whole.start if moment <= self.whole.start else self._after(moment - _MOMENT)

    def _boundary_until(self, moment: datetime) -> datetime:
        """Return the last boundary at *moment* or earlier."""
        return self.whole.end if moment >= self.whole.end else self._before(moment + _MOMENT)


def checked_split(split: str) -> str:
    """Return *split* as it is remembered: the same text for the same duration.

    Raises :class:`~ecmbatch.errors.UsageError` for what is neither a duration, ``schedule`` nor ``none``.
    """
    return split if split in ("none", "schedule") else format_duration(_duration(split))


def _duration(split: str) -> timedelta:
    try:
        duration = parse_duration(split)
    except ValueError as error:
        raise UsageError(
            f"--split must be a duration, 'schedule' or 'none': {error}",
            hint=f'for example --split "{DEFAULT_SPLIT}"',
        ) from None
    if duration < _SHORTEST:
        raise UsageError(f"--split must be at least {format_duration(_SHORTEST)}")
    return duration
