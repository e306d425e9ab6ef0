"""Instants in whole nanoseconds since 1970-01-01T00:00:00Z, as exact integers.

Columns hold times that ``datetime`` cannot: nanoseconds, and years beyond 9999 (a database's infinity).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_SECOND = NANOSECONDS["s"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = int((datetime(1, 1, 2, tzinfo=UTC) - _EPOCH).total_seconds())
_LATEST = int((datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH).total_seconds())


def instant_of(moment: datetime) -> int:
    """Return *moment*, which must have a zone, as an instant; raises ``ValueError`` if it has none."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone is no instant")
    return duration_of(moment - _EPOCH)


def duration_of(duration: timedelta) -> int:
    """Return *duration* in nanoseconds."""
    return duration // timedelta(microseconds=1) * NANOSECONDS["us"]


def instant_of_local(local: int, zone: ZoneInfo) -> int:
    """Return the instant at which clocks in *zone* show *local*, which is written as if in UTC.

    A time that occurs twice means its earlier occurrence; one that is skipped means the instant of the change.
    So a later local time is never an earlier instant, and the newest local time is the newest instant.
    """
    seconds = min(max(local // _SECOND, _EARLIEST), _LATEST)
    shown = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=zone)
    before, after = _offset(shown.replace(fold=0)), _offset(shown.replace(fold=1))
    if before >= after:
        return local - before * _SECOND
    return _change_between(seconds - after, seconds - before, zone) * _SECOND


def _change_between(low: int, high: int, zone: ZoneInfo) -> int:
    """The second after *low* and up to *high* at which the offset of *zone* changes."""
    old = _offset_at(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_at(middle, zone) == old:
            low = middle
        else:
            high = middle
    return high


def _offset_at(second: int, zone: ZoneInfo) -> int:
    return _offset((_EPOCH + timedelta(seconds=second)).astimezone(zone))


def _offset(moment: datetime) -> int:
    return (moment.utcoffset() or timedelta(0)) // timedelta(seconds=1)


def format_instant(instant: int) -> str:
    """Return *instant* as RFC 3339 in UTC with as many decimals as it needs."""
    seconds, nanoseconds = divmod(instant, _SECOND)
    if not _EARLIEST <= seconds <= _LATEST:
        return "before the year 1" if seconds < 0 else "after the year 9999"
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return text + (f".{nanoseconds:09d}".rstrip("0") if nanoseconds else "") + "Z"
