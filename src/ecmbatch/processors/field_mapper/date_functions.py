"""``parse_date`` and ``format_date``: dates and times from and to text.

Arrow's ``strptime`` follows the C library of the machine, turns 30 February into 1 March and knows no
fractions of a second; so formats are read here, everywhere the same, and refuse a day that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from ecmbatch.processors.field_mapper.values import WrongInput, as_text

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_SHORT_MONTHS = tuple(month[:3] for month in _MONTHS)
_DIRECTIVES = {
    "%Y": r"(?P<year>\d{4})",
    "%y": r"(?P<short_year>\d{2})",
    "%m": r"(?P<month>\d{1,2})",
    "%b": f"(?P<month_name>(?i:{'|'.join(_SHORT_MONTHS)}))",
    "%B": f"(?P<month_name>(?i:{'|'.join(_MONTHS)}))",
    "%d": r"(?P<day>\d{1,2})",
    "%H": r"(?P<hour>\d{1,2})",
    "%I": r"(?P<half_hour>\d{1,2})",
    "%p": r"(?P<half>(?i:am|pm))",
    "%M": r"(?P<minute>\d{1,2})",
    "%S": r"(?P<second>\d{1,2})",
    "%f": r"(?P<fraction>\d{1,6})",
    "%z": r"(?P<zone>Z|[+-]\d{2}:?\d{2})",
    "%%": "%",
}
_PARTS = {
    "%Y": "year",
    "%y": "year",
    "%m": "month",
    "%b": "month",
    "%B": "month",
    "%d": "day",
    "%H": "hour",
    "%I": "hour",
    "%p": "half",
    "%M": "minute",
    "%S": "second",
    "%f": "fraction",
    "%z": "zone",
}
_DATE_PARTS = {"year", "month", "day"}
_TOKEN = re.compile(r"%.?|[^%]+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DateFormat:
    """A checked format: its directives and the text between them."""

    tokens: tuple[str, ...]

    def has(self, *directives: str) -> bool:
        return any(token in directives for token in self.tokens)

    def parts(self) -> set[str]:
        return {_PARTS[token] for token in self.tokens if token in _PARTS}

    @property
    def pattern(self) -> str:
        """The regular expression of the whole text, with one named group for each directive."""
        return f"^{''.join(_DIRECTIVES.get(token) or re.escape(token) for token in self.tokens)}$"

    @property
    def parsed_type(self) -> pa.DataType:
        if self.has("%z"):
            return pa.timestamp("us", tz="UTC")
        return pa.date32() if self.parts() <= _DATE_PARTS else pa.timestamp("us")


def read_output_format(text: object) -> DateFormat:
    """Raise ValueError for an unknown directive."""
    if not isinstance(text, str) or not text:
        raise ValueError('a format is text such as "%Y-%m-%d"')
    tokens = tuple(_TOKEN.findall(text))
    unknown = next((token for token in tokens if token[0] == "%" and token not in _DIRECTIVES), None)
    if unknown:
        raise ValueError(f"no directive '{unknown}' in a format; directives are {' '.join(_DIRECTIVES)}")
    return DateFormat(tokens)


def read_input_format(text: object) -> DateFormat:
    """Raise ValueError for a format that does not say one date."""
    found = read_output_format(text)
    parts = [_PARTS[token] for token in found.tokens if token in _PARTS]
    if len(set(parts)) < len(parts):
        raise ValueError("a format says each part of a date once")
    if not set(parts) >= _DATE_PARTS:
        raise ValueError("a format needs the year (%Y or %y), the month (%m, %b or %B) and the day (%d)")
    if found.has("%I") != found.has("%p"):
        raise ValueError("%I (1 to 12) and %p (AM, PM) go together")
    return found


def parse_date(values: pa.Array, date_format: DateFormat, null_on_error: bool = False) -> pa.Array:
    # Reading is slow and dates repeat.
    distinct = as_text(values).dictionary_encode()
    text = distinct.dictionary
    parsed = _parse(text, date_format)
    if not null_on_error and parsed.null_count > text.null_count:
        raise ValueError("text that is no date of the format")
    return parsed.take(distinct.indices)


def format_date(values: pa.Array, date_format: DateFormat) -> pa.Array:
    """Text of dates and timestamps; a zoned timestamp is shown in its own zone."""
    times = _times(values)
    if date_format.has("%z") and times.type.tz is None:
        raise WrongInput(f"has %z in its format, but {values.type} has no time zone")
    # Formatting is slow and times repeat, days above all.
    distinct = _whole(times, date_format).dictionary_encode()
    pieces = [
        _microseconds(times)
        if piece == "%f"
        else pc.strftime(distinct.dictionary, format=piece).take(distinct.indices)
        for piece in _around_fractions(date_format.tokens)
    ]
    return pc.binary_join_element_wise(*pieces, "")


def _parse(text: pa.Array, date_format: DateFormat) -> pa.Array:
    """NULL where the text does not follow the format or says a date or time that does not exist."""
    found = pc.extract_regex(text, pattern=date_format.pattern)
    parts = {field.name: pc.struct_field(found, index) for index, field in enumerate(found.type)}
    days = _days(parts)
    if date_format.parsed_type == pa.date32():
        return days.cast(pa.int32()).cast(pa.date32())
    return _microseconds_since_1970(days, parts).cast(date_format.parsed_type)


def _days(parts: dict[str, pa.Array]) -> pa.Array:
    """Days since 1970-01-01."""
    year, month, day = _year(parts), _within(_month(parts), 1, 12), _int(parts["day"])
    # Years that begin in March put the leap day last, so that lengths of months follow one formula.
    before_march = pc.less(month, 3)
    march_year = pc.subtract(year, before_march.cast(pa.int64()))
    march_month = pc.add(month, pc.if_else(before_march, 9, -3))
    day_of_year = pc.add(pc.divide(pc.add(pc.multiply(march_month, 153), 2), 5), pc.subtract(day, 1))
    leap_days = pc.add(
        pc.subtract(pc.divide(march_year, 4), pc.divide(march_year, 100)), pc.divide(march_year, 400)
    )
    days = pc.subtract(pc.add(pc.add(pc.multiply(march_year, 365), leap_days), day_of_year), 719468)
    # A day that the month does not have has become one of the next month.
    exists = pc.equal(pc.day(days.cast(pa.int32()).cast(pa.date32())), day)
    return _where(exists, days)


def _year(parts: dict[str, pa.Array]) -> pa.Array:
    if "year" in parts:
        return _within(_int(parts["year"]), 1, 9999)
    short = _int(parts["short_year"])
    return pc.add(short, pc.if_else(pc.less(short, 69), 2000, 1900))


def _month(parts: dict[str, pa.Array]) -> pa.Array:
    if "month" in parts:
        return _int(parts["month"])
    short_names = pc.utf8_slice_codeunits(pc.utf8_lower(parts["month_name"]), 0, 3)
    known = pa.array(_SHORT_MONTHS, short_names.type)
    return pc.add(pc.index_in(short_names, value_set=known).cast(pa.int64()), 1)


def _microseconds_since_1970(days: pa.Array, parts: dict[str, pa.Array]) -> pa.Array:
    hours = pc.add(pc.multiply(days, 24), _hour(parts, days))
    minutes = pc.add(pc.multiply(hours, 60), _in_range(parts, "minute", 0, 59, days))
    seconds = pc.add(pc.multiply(minutes, 60), _in_range(parts, "second", 0, 59, days))
    if "zone" in parts:
        seconds = pc.subtract(seconds, _zone_seconds(parts["zone"]))
    microseconds = pc.multiply(seconds, 1_000_000)
    if "fraction" in parts:
        microseconds = pc.add(microseconds, _int(pc.ascii_rpad(parts["fraction"], 6, "0")))
    return microseconds


def _hour(parts: dict[str, pa.Array], like: pa.Array) -> pa.Array:
    if "half_hour" not in parts:
        return _in_range(parts, "hour", 0, 23, like)
    hour = _in_range(parts, "half_hour", 1, 12, like)
    afternoon = pc.equal(pc.utf8_lower(parts["half"]), pa.scalar("pm", parts["half"].type))
    hour_of_half = pc.if_else(pc.equal(hour, 12), 0, hour)
    return pc.add(hour_of_half, pc.if_else(afternoon, 12, 0))


def _zone_seconds(zone: pa.Array) -> pa.Array:
    digits = pc.replace_substring(zone, pattern=":", replacement="")
    digits = pc.replace_substring(digits, pattern="Z", replacement="+0000")
    hours = _int(pc.utf8_slice_codeunits(digits, 1, 3))
    minutes = _int(pc.utf8_slice_codeunits(digits, 3, 5))
    seconds = pc.add(pc.multiply(_within(hours, 0, 23), 3600), pc.multiply(_within(minutes, 0, 59), 60))
    return pc.if_else(pc.starts_with(digits, pattern="-"), pc.negate(seconds), seconds)


def _in_range(parts: dict[str, pa.Array], name: str, lowest: int, highest: int, like: pa.Array) -> pa.Array:
    """A part of the time; 0 where the format does not have it."""
    return _within(_int(parts[name]), lowest, highest) if name in parts else pc.multiply(like, 0)


def _within(numbers: pa.Array, lowest: int, highest: int) -> pa.Array:
    return _where(pc.and_(pc.greater_equal(numbers, lowest), pc.less_equal(numbers, highest)), numbers)


def _where(condition: pa.Array, numbers: pa.Array) -> pa.Array:
    return pc.if_else(condition, numbers, pa.scalar(None, numbers.type))


def _int(text: pa.Array) -> pa.Array:
    return text.cast(pa.int64())


def _times(values: pa.Array) -> pa.Array:
    if pat.is_null(values.type) or pat.is_date(values.type):
        return values.cast(pa.timestamp("s"))
    if not pat.is_timestamp(values.type):
        raise WrongInput(f"takes dates and timestamps, not {values.type}; see parse_date and cast")
    return values


def _whole(times: pa.Array, date_format: DateFormat) -> pa.Array:
    """Cut what the format does not show (Arrow's ``%S`` shows fractions): down, before 1970 too."""
    if not date_format.has("%z"):
        local = pc.local_timestamp(times) if times.type.tz else times
        unit = "day" if date_format.parts() <= _DATE_PARTS else "second"
        return pc.floor_temporal(local, unit=unit).cast(pa.timestamp("s"))
    utc = pc.floor_temporal(times.cast(pa.timestamp(times.type.unit)), unit="second")
    return utc.cast(pa.timestamp("s", tz=times.type.tz))


def _microseconds(times: pa.Array) -> pa.Array:
    number = pc.add(pc.multiply(pc.millisecond(times), 1000), pc.microsecond(times))
    return pc.ascii_lpad(number.cast(pa.string()), 6, "0")


def _around_fractions(tokens: Iterable[str]) -> list[str]:
    """The format in pieces: ``%f``, which Arrow's strftime does not know, and what stands between."""
    groups = groupby(tokens, key="%f".__eq__)
    return [piece for is_fraction, group in groups for piece in (group if is_fraction else ["".join(group)])]
