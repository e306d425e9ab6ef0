"""The time of a PostgreSQL server, and up to when a read sees everything that was written.

A row carries at the earliest the time when its transaction began: ``now()``. So the bound is the beginning of the
oldest transaction that is still open, and the clock where there is none. The order of the questions matters:

1. The clock is read *before* the sessions are looked at. A transaction that is not seen there has either begun
   later, so that its rows carry a later time than the clock's, or has ended, so that the read, which takes its
   snapshot later still, sees its rows. A session between reading its own start and showing it is the matter of
   microseconds; for that, and for clocks of clients that are a little slow, there is the lag.
2. Prepared transactions are asked for *after* the sessions, for a transaction moves from these to those.

All other sessions of the database count: idle ones in a transaction, those that have written nothing yet (they
may still), and our own that only read: nothing tells that they only read but their own word. A long read thus
holds the windows of other jobs back until it is over; they lose nothing by it.

No bound is known, and the lag is minutes, where sessions are hidden from the user (those of others, without the
role ``pg_read_all_stats``) or show nothing (``track_activities`` is off); where a transaction is prepared, which
tells when it was prepared, not when it began; where a logical replication writes rows with another server's times;
and on a standby, which does not see the sessions that write.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from psycopg import Cursor

from ecmbatch.connectors.connector import WindowBound
from ecmbatch.connectors.postgres_session import Rows
from ecmbatch.connectors.window_lag import LAG_WITHOUT_BOUND

_SAFE = timedelta(seconds=10)

_CLOCK = """
SELECT clock_timestamp(), pg_is_in_recovery(),
    CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() END
"""

_SESSIONS = """
SELECT
    -- Between the beginning of a statement and that of its transaction only the former is shown.
    min(coalesce(xact_start, CASE WHEN backend_type = 'client backend' AND state = 'active' THEN query_start END)),
    coalesce(bool_or(
        backend_type IS NULL OR state = 'disabled' OR backend_type LIKE 'logical replication%'
    ), false)
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

_PREPARED = "SELECT min(prepared) FROM pg_prepared_xacts WHERE database = current_database()"


def clock(connection: Rows) -> datetime:
    """Return the server's time."""
    at, _, _ = _row(connection.execute(_CLOCK))
    return _utc(at)


def window_bound(connection: Rows) -> WindowBound:
    """Return up to when a read that begins after this sees everything; *connection* has asked for nothing yet."""
    now, in_recovery, replayed = _row(connection.execute(_CLOCK))
    if in_recovery:
        # What the primary has committed since is not here yet.
        return WindowBound(at=min(_utc(now), _utc(replayed or now)), lag=LAG_WITHOUT_BOUND)
    oldest, hidden = _row(connection.execute(_SESSIONS))
    (prepared,) = _row(connection.execute(_PREPARED))
    is_unsafe = hidden or prepared is not None
    begun = [_utc(at) for at in (now, oldest, prepared) if at is not None]
    return WindowBound(at=min(begun), lag=LAG_WITHOUT_BOUND if is_unsafe else _SAFE)


def _row(cursor: Cursor[tuple[object, ...]]) -> tuple[object, ...]:
    row = cursor.fetchone()
    assert row is not None  # aggregates and constants always have one
    return row


def _utc(at: object) -> datetime:
    assert isinstance(at, datetime)
    return at.astimezone(UTC)
