"""Cron expressions: the instants at which one fires (protocol: Scheduling Protocol, Periodic Execution).

The calendar is matched on a wall clock that knows no zone; what it matches is mapped to instants here. Where
clocks are put forward or back this is the rule of Debian's cron: an expression whose minute or hour begins with
``*`` fires at every such time there is, so never in a gap and in both passes of a repeat. Any other fires once
for every match: in a repeat in the first pass, in a gap at its end.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

FIRST = datetime(1, 1, 3, tzinfo=UTC)
LAST = datetime(9999, 12, 29, tzinfo=UTC)
"""No zone is more than two days from UTC: between these instants every zone's local time can be written."""

_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
# Clocks stay changed for weeks: no zone changes twice within a day.
_STEP = timedelta(days=1)


def check_cron(text: str) -> str:
    """Return *text* if it is a cron expression of five fields, or a name such as ``@daily``, that ever fires.

    Raises ``ValueError`` saying what is wrong.
    """
    if text.startswith("@"):
        if text not in NAMES:
            raise ValueError(f"must be one of {', '.join(NAMES)}, or a cron expression of five fields")
        return text
    if len(text) > 200 or not text.isascii() or len(text.split()) != 5:
        raise ValueError("must be a cron expression of five fields: minute, hour, day, month, weekday")
    if re.search(r"\b(\w+)-\1/", text):
        # cronsim reads 5-5/10 as 5/10, others as 5.
        raise ValueError("has a step over a range of one value; write the value alone")
    try:
        # cronsim gives up after 50 years; of the days there are, 29 February on one weekday is the rarest: 40.
        next(CronSim(text, datetime(2000, 1, 1)))
    except CronSimError as error:
        if _is_never(text):
            raise ValueError("is a cron expression that never fires: no such month has that day") from None
        raise ValueError(f"is not a cron expression: {str(error)[:1].lower()}{str(error)[1:]}") from None
    except StopIteration:
        raise ValueError("is a cron expression that never fires") from None
    except (ValueError, AssertionError, OverflowError):
        raise ValueError("is not a cron expression that can be read") from None
    return text


@dataclass(frozen=True, slots=True)
class ClockChange:
    """At the instant ``at`` (UTC) the clocks of a zone go from the local time ``before`` to ``after``."""

    at: datetime
    before: datetime
    after: datetime

    @property
    def is_gap(self) -> bool:
        """Whether local times are left out; otherwise they come twice."""
        return self.after > self.before

    @property
    def length(self) -> timedelta:
        """How much local time is left out or repeated."""
        return abs(self.after - self.before)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone. ``fields`` are the five fields in upper case; instants are in UTC."""

    fields: str
    zone: ZoneInfo

    @classmethod
    def of(cls, text: str, timezone: str = "UTC") -> Self:
        """Return *text*, which :func:`check_cron` has accepted, in the zone named *timezone*."""
        return cls(" ".join(NAMES.get(text, text).upper().split()), ZoneInfo(timezone))

    @property
    def is_fixed(self) -> bool:
        """Whether it names times of the day, rather than every minute or hour there is."""
        minute, hour, *_ = self.fields.split()
        return not (minute.startswith("*") or hour.startswith("*"))

    @property
    def either_day_matches(self) -> bool:
        """Whether both day fields are restricted, and one of them is enough."""
        _, _, day, _, weekday = self.fields.split()
        return not (day.startswith("*") or weekday.startswith("*"))

    def explained(self) -> str:
        """Return the expression in English, without its zone."""
        return CronSim(self.fields, datetime(2000, 1, 1)).explain()

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the instants after *instant* at which it fires, ascending, each once, until the year 9999."""
        last = max(instant, FIRST)
        if last >= LAST:
            return
        for at in self._ascending(self._wall(last) - self._repeated_at(last)):
            if at > LAST:
                return
            if at > last:
                yield at
                last = at

    def latest(self, until: datetime) -> datetime | None:
        """Return the last instant up to and including *until* at which it fires, ``None`` if there is none."""
        until = min(until, LAST)
        if until < FIRST:
            return None
        found: datetime | None = None
        for wall in self.walls(self._wall(until) + self._repeated_at(until) + _MINUTE, reverse=True):
            instants = self._instants(wall)
            due = [at for at in instants if at <= until]
            found = max([*due, found] if found else due, default=None)
            # In the first pass of a repeat one further back can still be later: in the second pass.
            if due and due == instants:
                break
        return found

    def walls(self, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        """Yield the local times it names after the minute of *start*, or backwards those before that minute.

        They are naive, and need not exist in the zone.
        """
        try:
            yield from CronSim(self.fields, start.replace(second=0, microsecond=0), reverse=reverse)
        except OverflowError:
            return

    def _ascending(self, start: datetime) -> Iterator[datetime]:
        repeated: deque[datetime] = deque()
        for wall in self.walls(start):
            for number, at in enumerate(self._instants(wall)):
                if number:
                    repeated.append(at)
                    continue
                while repeated and repeated[0] < at:
                    yield repeated.popleft()
                yield at
        yield from repeated

    def _instants(self, wall: datetime) -> list[datetime]:
        """Return when it fires for the match *wall*, ascending: nothing, once, or in both passes of a repeat."""
        before, after = _offsets(wall, self.zone)
        if before == after:
            return [_instant(wall, before)]
        if before > after:
            passes = [_instant(wall, before), _instant(wall, after)]
            return passes[:1] if self.is_fixed else passes
        if not self.is_fixed:
            return []
        return [_change_between(_instant(wall, after), _instant(wall, before), self.zone).at]

    def _wall(self, instant: datetime) -> datetime:
        return instant.astimezone(self.zone).replace(tzinfo=None)

    def _repeated_at(self, instant: datetime) -> timedelta:
        """Return how long the repeat is in which *instant* lies; nothing outside of repeats."""
        before, after = _offsets(self._wall(instant), self.zone)
        return max(before - after, timedelta(0))


def clock_changes(zone: ZoneInfo, start: datetime, until: datetime) -> Iterator[ClockChange]:
    """Yield when the clocks of *zone* are put forward or back between *start* and *until*."""
    low = start.replace(microsecond=0)
    while low < until:
        high = min(low + _STEP, until)
        if high.astimezone(zone).utcoffset() != low.astimezone(zone).utcoffset():
            yield _change_between(low, high, zone)
        low = high


def _offsets(wall: datetime, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """Return the offsets from UTC at the local time *wall* by what holds before a change, and after it."""
    before, after = (wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    return _offset(before), _offset(after)


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta(0)


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)


def _change_between(low: datetime, high: datetime, zone: ZoneInfo) -> ClockChange:
    """Return the change of clocks after *low* and up to *high*; there must be one. They are whole seconds."""
    before = _offset(low.astimezone(zone))
    after = _offset(high.astimezone(zone))
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if _offset(middle.astimezone(zone)) == before:
            low = middle
        else:
            high = middle
    wall = high.replace(tzinfo=None)
    return ClockChange(high, wall + before, wall + after)


def _is_never(text: str) -> bool:
    """Tell whether the fields of *text* can be read, only not together: 30 February."""
    minute, hour, day, month, weekday = text.split()
    try:
        for readable in (f"{minute} {hour} {day} * {weekday}", f"* * * {month} *"):
            CronSim(readable, datetime(2000, 1, 1))
    except (CronSimError, ValueError, AssertionError):
        return False
    return True
