"""A slow and simple reading of cron: look at the clock on the wall every minute, and see what fires.

It shares nothing with the product: its own parser, its own calendar, its own walk through a zone.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np

MINUTE = timedelta(minutes=1)
CHANGES = {
    "Europe/Berlin": ["2026-03-29", "2026-10-25"],
    "America/New_York": ["2026-03-08", "2026-11-01"],
    "America/Havana": ["2026-03-08", "2026-11-01"],
    "Africa/Cairo": ["2026-04-24", "2026-10-30"],
    "America/Santiago": ["2026-04-05", "2026-09-06"],
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],
    "Pacific/Apia": ["2011-09-24", "2011-12-30", "2012-04-01"],
    "UTC": ["2024-02-29", "2026-12-31"],
    # Changes at a minute past midnight, by two hours, from half an hour to half an hour.
    "America/St_Johns": ["2010-03-14", "2010-11-07"],
    "Antarctica/Troll": ["2026-03-29", "2026-10-25"],
    "Asia/Pyongyang": ["2015-08-15", "2018-05-05"],
}
"""Days around which the clocks of a zone are changed; for UTC days around which months end."""


@dataclass(frozen=True)
class Days:
    """Three and a half days of a zone, minute by minute, around a change of its clocks."""

    zone: str
    around: str

    @cached_property
    def start(self) -> datetime:
        return datetime.fromisoformat(self.around).replace(tzinfo=UTC) - timedelta(hours=42)

    @property
    def end(self) -> datetime:
        """The last minute that is looked at."""
        return self.start + timedelta(hours=84)

    @cached_property
    def instants(self) -> list[datetime]:
        return list(_minutes(self.start, self.end))

    @cached_property
    def clock(self) -> list[datetime]:
        """What the clock on the wall shows at each instant."""
        zone = ZoneInfo(self.zone)
        return [instant.astimezone(zone).replace(tzinfo=None) for instant in self.instants]

    @cached_property
    def shown(self) -> Walls:
        return Walls(self.clock)

    @cached_property
    def all_walls(self) -> Walls:
        """Every minute of the calendar in these days, whether the clock showed it or not."""
        return Walls(list(_minutes(self.clock[0], max(self.clock))))

    @cached_property
    def reached(self) -> np.ndarray:
        """For each of ``all_walls`` the number of the instant at which the clock first showed it or more."""
        reached: list[int] = []
        for number, wall in enumerate(self.clock):
            while len(reached) < len(self.all_walls.walls) and self.all_walls.walls[len(reached)] <= wall:
                reached.append(number)
        return np.array(reached)

    def fires(self, expression: str) -> list[datetime]:
        """Return when *expression* fires from ``start`` to ``end``, both included."""
        fields = expression.upper().split()
        if fields[0].startswith("*") or fields[1].startswith("*"):
            numbers = np.flatnonzero(self.shown.matching(fields))
        else:
            numbers = np.unique(self.reached[self.all_walls.matching(fields)])
        return [self.instants[number] for number in numbers]


class Walls:
    """Local times, taken apart."""

    def __init__(self, walls: list[datetime]) -> None:
        self.walls = walls
        self.minutes = np.array([wall.minute for wall in walls])
        self.hours = np.array([wall.hour for wall in walls])
        self.months = np.array([wall.month for wall in walls])
        self.dates = sorted({wall.date() for wall in walls})
        self.day_numbers = np.array([(wall.date() - self.dates[0]).days for wall in walls])

    def matching(self, fields: list[str]) -> np.ndarray:
        minute, hour, day, month, weekday = fields
        is_day = np.zeros(self.day_numbers.max() + 1, dtype=bool)
        for each in self.dates:
            is_day[(each - self.dates[0]).days] = _is_day(each, day, weekday)
        return (
            np.isin(self.minutes, sorted(_numbers(minute, 0, 59)))
            & np.isin(self.hours, sorted(_numbers(hour, 0, 23)))
            & np.isin(self.months, sorted(_numbers(month, 1, 12, _MONTH_NAMES)))
            & is_day[self.day_numbers]
        )


def all_days() -> list[Days]:
    """Return the days around every change."""
    return [Days(zone, around) for zone, changes in CHANGES.items() for around in changes]


def _minutes(start: datetime, end: datetime) -> Iterator[datetime]:
    while start <= end:
        yield start
        start += MINUTE


def _is_day(day: date, days: str, weekdays: str) -> bool:
    in_month = any(_is_day_of_month(day, part) for part in days.split(","))
    in_week = any(_is_weekday(day, part) for part in weekdays.split(","))
    if days.startswith("*") or weekdays.startswith("*"):
        return in_month and in_week
    return in_month or in_week


def _is_day_of_month(day: date, part: str) -> bool:
    length = calendar.monthrange(day.year, day.month)[1]
    if part == "L":
        return day.day == length
    if part == "LW":
        workdays = [number for number in range(1, length + 1) if day.replace(day=number).isoweekday() <= 5]
        return day.day == workdays[-1]
    return day.day in _numbers(part, 1, 31)


def _is_weekday(day: date, part: str) -> bool:
    number = day.isoweekday() % 7
    if part.endswith("L"):
        is_last = (day + timedelta(days=7)).month != day.month
        return int(part[:-1]) % 7 == number and is_last
    if "#" in part:
        name, nth = part.split("#")
        return _number(name, _DAY_NAMES) % 7 == number and (day.day - 1) // 7 + 1 == int(nth)
    return number in {each % 7 for each in _numbers(part, 0, 7, _DAY_NAMES)}


_DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
_DAY_NAMES = {name: number for number, name in enumerate(_DAYS)}
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_MONTH_NAMES = {name: number for number, name in enumerate(_MONTHS, start=1)}


def _number(text: str, names: dict[str, int]) -> int:
    return names[text] if text in names else int(text)


def _numbers(field: str, low: int, high: int, names: dict[str, int] | None = None) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = (_number(end, names or {}) for end in span.split("-"))
        else:
            first = _number(span, names or {})
            last = high if step else first
        found.update(range(first, last + 1, int(step or 1)))
    return found


def _is_month(day: date, months: str) -> bool:
    return day.month in _numbers(months.upper(), 1, 12, _MONTH_NAMES)


# Expressions to try

_EIGHT_YEARS = [date(2024, 1, 1) + timedelta(days=number) for number in range(8 * 366)]


def expressions(count: int, seed: int) -> list[str]:
    """Return *count* different expressions, most of them for the small hours in which clocks are changed."""
    chance = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        fields = [
            _field(chance, "minute"),
            _field(chance, "hour"),
            _field(chance, "day"),
            _field(chance, "month"),
            _field(chance, "weekday"),
        ]
        if any(
            _is_day(day, fields[2], fields[4].upper()) and _is_month(day, fields[3]) for day in _EIGHT_YEARS
        ):
            found[" ".join(fields)] = None
    return list(found)


def _field(chance: random.Random, kind: str) -> str:
    return chance.choice(_KINDS[kind])(chance)


def _values(low: int, high: int) -> Callable[[random.Random], str]:
    return lambda chance: ",".join(str(chance.randint(low, high)) for _ in range(chance.randint(1, 3)))


def _span(low: int, high: int) -> Callable[[random.Random], str]:
    def span(chance: random.Random) -> str:
        first, last = sorted(chance.sample(range(low, high + 1), 2))
        return f"{first}-{last}" + (f"/{chance.randint(1, 20)}" if chance.random() < 0.4 else "")

    return span


def _stepped(low: int, high: int, start: str | None = None) -> Callable[[random.Random], str]:
    return lambda chance: f"{start or chance.randint(low, high)}/{chance.randint(2, high)}"


def _one(*texts: str) -> Callable[[random.Random], str]:
    return lambda chance: chance.choice(texts)


_STAR = _one("*")
_KINDS: dict[str, list[Callable[[random.Random], str]]] = {
    "minute": [
        _values(0, 59),
        _values(0, 59),
        _one("0", "1", "30", "59", "0,30"),
        _span(0, 59),
        _stepped(0, 59),
        _stepped(0, 59, "*"),
        _one("*", "*/5", "*/20", "*/30,7", "*,5"),
    ],
    "hour": [
        _values(0, 3),
        _values(0, 3),
        _values(0, 23),
        _span(0, 4),
        _one("0", "1", "2", "3", "23", "22-23", "0-23", "0-23/2"),
        _stepped(0, 23),
        _stepped(0, 23, "*"),
        _STAR,
    ],
    "day": [
        *[_STAR] * 6,
        _values(1, 31),
        _span(1, 31),
        _stepped(1, 31, "*"),
        _one("L", "LW", "L,15", "LW,1", "29", "30", "31", "28-31"),
    ],
    "month": [*[_STAR] * 8, _span(1, 12), _values(1, 12), _one("MAR,OCT", "apr-nov", "JAN-DEC/2", "*/2")],
    "weekday": [
        *[_STAR] * 6,
        _values(0, 7),
        _span(0, 7),
        _stepped(0, 7, "*"),
        _one(
            "SUN",
            "7",
            "0",
            "MON-FRI",
            "sat,sun",
            "5L",
            "7L",
            "0L",
            "SUN#2",
            "1#5,3",
            "Fri#5",
            "6-7",
            "MON#1,5L",
        ),
    ],
}
