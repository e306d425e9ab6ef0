"""Durations as jobs write them: ``24 hours``, ``1d 12h``, ``90 min``, ``PT24H``.

One grammar for every duration of a job: freshness, dependencies, time-outs. A duration is elapsed time:
``1 day`` is 24 hours whatever the calendar says, so months and years do not exist. The arithmetic is exact;
what cannot be held in whole microseconds is refused rather than rounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

_MICROSECONDS: Mapping[str, int] = {
    "week": 604_800_000_000,
    "day": 86_400_000_000,
    "hour": 3_600_000_000,
    "minute": 60_000_000,
    "second": 1_000_000,
    "millisecond": 1_000,
}
_UNITS = tuple(_MICROSECONDS)  # from the longest to the shortest: the order in which they must stand
_SPELLINGS: Mapping[str, Sequence[str]] = {
    "week": ("w", "week", "weeks"),
    "day": ("d", "day", "days"),
    "hour": ("h", "hour", "hours"),
    "minute": ("m", "min", "mins", "minute", "minutes"),
    "second": ("s", "sec", "secs", "second", "seconds"),
    "millisecond": ("ms", "millisecond", "milliseconds"),
}
_UNIT_OF = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings}

# [0-9] and not \d: other scripts have digits too, and they are refused.
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-zA-Z]+)")
_PLAIN = re.compile(rf"{_PART.pattern}(?: ?{_PART.pattern})*")
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_ISO = re.compile(
    rf"P(?=[0-9T])(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?"
)
_CALENDAR = re.compile(r"[0-9] ?(?:mo|mos|mon|month|months|y|yr|yrs|year|years)\b", re.IGNORECASE)
_ISO_CALENDAR = re.compile(r"P(?:[0-9.]+Y|[^T]*[0-9]M)")
_EXAMPLES = "for example '24 hours', '1d 12h', '90 min' or 'PT24H'"
_MAX_TEXT = 100

_Part = tuple[str, str]
"""A number as it was written, and the name of its unit."""


def parse_duration(text: str) -> timedelta:
    """Return the duration that *text* says, exactly.

    Numbers with units from the longest to the shortest, each once: ``24 hours``, ``1h30m``, ``1.5 hours``; or
    ISO 8601 without months and years: ``P1D``, ``PT24H``, ``P1W``. Only the last number may have a decimal
    point.

    Raises ``ValueError`` for bare numbers, months and years, signs, upper-case units (``5M``), clock times
    (``01:30``), repeated or unordered units, anything around the duration, non-ASCII digits, and what whole
    microseconds cannot hold.
    """
    if len(text) > _MAX_TEXT:
        raise ValueError(f"a duration has at most {_MAX_TEXT} characters, {_EXAMPLES}")
    parts = _iso_parts(text) if text.startswith("P") else _plain_parts(text)
    _check_order([unit for _, unit in parts])
    if any("." in number for number, _ in parts[:-1]):
        raise ValueError("only the last number of a duration may have a decimal point: '1 hour 30.5 minutes'")
    microseconds = sum((Fraction(number) * _MICROSECONDS[unit] for number, unit in parts), Fraction(0))
    if microseconds.denominator != 1:
        raise ValueError("a duration is a whole number of microseconds; this one is finer")
    try:
        return timedelta(microseconds=int(microseconds))
    except OverflowError:
        raise ValueError("a duration is at most 999,999,999 days; this one is longer") from None


def format_duration(duration: timedelta) -> str:
    """Return *duration* for people, exactly: ``6 h 50 min``. :func:`parse_duration` reads it back.

    Raises ``ValueError`` for a negative duration: there is no way to write one.
    """
    if duration < timedelta(0):
        raise ValueError("a negative duration cannot be written")
    rest = duration // timedelta(microseconds=1)
    words = []
    for unit, symbol in (("day", "d"), ("hour", "h"), ("minute", "min"), ("second", "s")):
        count, rest = divmod(rest, _MICROSECONDS[unit])
        if count:
            words.append(f"{count} {symbol}")
    if rest:
        words.append(f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + " ms")
    return " ".join(words) or "0 s"


def _plain_parts(text: str) -> list[_Part]:
    if not _PLAIN.fullmatch(text):
        raise ValueError(_refusal(text))
    return [(number, _unit(written, text)) for number, written in _PART.findall(text)]


def _unit(written: str, text: str) -> str:
    if unit := _UNIT_OF.get(written):
        return unit
    if _CALENDAR.search(text):
        raise ValueError("months and years have no fixed length; write days or hours")
    if written.lower() in _UNIT_OF:
        raise ValueError(f"units are written in lower case; 'M' could be minutes or months, {_EXAMPLES}")
    raise ValueError("unknown unit; known are weeks, days, hours, minutes, seconds, ms")


def _iso_parts(text: str) -> list[_Part]:
    match = _ISO.fullmatch(text)
    if match is None:
        if _ISO_CALENDAR.match(text):
            raise ValueError("months and years have no fixed length; write days or hours")
        raise ValueError(
            "not an ISO 8601 duration of weeks, days, hours, minutes and seconds, such as 'PT24H' or 'P1W'"
        )
    return [(number, unit) for number, unit in zip(match.groups(), _UNITS, strict=False) if number]


def _check_order(units: Sequence[str]) -> None:
    places = [_UNITS.index(unit) for unit in units]
    if len(set(places)) < len(places):
        raise ValueError("each unit may stand once in a duration")
    if places != sorted(places):
        raise ValueError("units stand from the longest to the shortest: '1 hour 30 minutes'")


def _refusal(text: str) -> str:
    if not text.isascii():
        return f"durations are written in ASCII, {_EXAMPLES}"
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return f"a duration needs a unit, {_EXAMPLES}"
    if text.startswith(("+", "-")):
        return f"a duration has no sign, {_EXAMPLES}"
    if ":" in text:
        return f"a duration is not a clock time, {_EXAMPLES}"
    return f"not a duration; write numbers with units and nothing around them, {_EXAMPLES}"


def _read(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise ValueError("a duration has no sign")
        return value
    if not isinstance(value, str):
        raise ValueError(f"a duration is a text with a unit, {_EXAMPLES}")
    return parse_duration(value)


Duration = Annotated[
    timedelta,
    PlainValidator(_read),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "maxLength": _MAX_TEXT, "description": f"Elapsed time, {_EXAMPLES}."}),
]
"""A duration in a document's model; written back in the one form of :func:`format_duration`."""


def _positive(duration: timedelta) -> timedelta:
    if not duration:
        raise ValueError("must be longer than nothing")
    return duration


Period = Annotated[Duration, AfterValidator(_positive)]
"""A duration that is longer than nothing."""
