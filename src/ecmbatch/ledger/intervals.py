"""Which intervals of a job are loaded, kept as ranges: a run may be forgotten, what it has loaded never is.

A *scope* is a stream of a job, or one backfill. The rows of a scope are disjoint, and two that touch differ.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, or_, select, update

from ecmbatch.ledger import tables
from ecmbatch.ledger.records import RunRecord
from ecmbatch.protocol.intervals import (
    UNFINISHED,
    BackfillStatus,
    Interval,
    IntervalRange,
    IntervalStatus,
    Ranges,
    gaps,
    marked,
)
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.scalars import decode_scalar

_NOT_LOADED = frozenset({RunStatus.FAILED, RunStatus.VALIDATION_FAILED, RunStatus.ABANDONED})
_OF_BACKFILL = {
    RunStatus.SUCCESS: IntervalStatus.LOADED,
    RunStatus.FAILED: IntervalStatus.FAILED,
    RunStatus.VALIDATION_FAILED: IntervalStatus.FAILED,
    RunStatus.SKIPPED: IntervalStatus.FAILED,
    RunStatus.STOPPED: IntervalStatus.STOPPED,
}


def job_scope(job_id: str, stream: str) -> str:
    """Return where it is kept what a stream of a job has loaded."""
    return f"job:{job_id}:{stream}"


def backfill_scope(backfill_id: str) -> str:
    """Return where it is kept how far a backfill is."""
    return f"backfill:{backfill_id}"


def interval_of(run: RunRecord) -> Interval | None:
    """Return the interval that a run was asked for, ``None`` for a live run."""
    window = run.options.get("window")
    if run.live or window is None:
        return None
    start, end = decode_scalar(window["start"]), decode_scalar(window["end"])
    assert isinstance(start, datetime) and isinstance(end, datetime)
    return Interval(start, end)


def mark_interval(connection: Connection, run: RunRecord, status: RunStatus) -> None:
    """Remember how the run of an interval ended, in the transaction that ends it; nothing for live runs.

    A failure changes nothing about what was loaded before. In a backfill that stops at failures, it is what
    stops it.
    """
    interval = interval_of(run)
    if interval is None:
        return
    scope = job_scope(run.job_id, run.stream)
    if status is RunStatus.SUCCESS:
        mark(connection, scope, interval, IntervalStatus.LOADED)
    elif status in _NOT_LOADED:
        mark(connection, scope, interval, IntervalStatus.FAILED, keep={IntervalStatus.LOADED})
    if run.backfill_id is not None:
        _mark_in_backfill(connection, run.backfill_id, interval, status)


def ranges_in(connection: Connection, scope: str, interval: Interval) -> Ranges:
    """Return the ranges of *scope* that overlap or touch *interval*, whole."""
    found = tables.interval_ranges.c
    # The one before and those that begin inside: a range of the primary key, however many there are.
    before = (
        select(found.window_start, found.window_end, found.status)
        .where(found.scope == scope, found.window_start <= interval.start)
        .order_by(found.window_start.desc())
        .limit(1)
    )
    inside = (
        select(found.window_start, found.window_end, found.status)
        .where(found.scope == scope, found.window_start > interval.start, found.window_start <= interval.end)
        .order_by(found.window_start)
    )
    rows = [row for row in connection.execute(before) if row.window_end >= interval.start]
    rows += connection.execute(inside)
    return [IntervalRange(row.window_start, row.window_end, IntervalStatus(row.status)) for row in rows]


def mark(
    connection: Connection,
    scope: str,
    interval: Interval,
    status: IntervalStatus,
    *,
    keep: Collection[IntervalStatus] = (),
) -> None:
    """Remember *status* for all of *interval* but where it has one of *keep*."""
    before = ranges_in(connection, scope, interval)
    after = before
    for part in gaps([each for each in before if each.status in keep], interval):
        after = marked(after, part, status)
    _replace(connection, scope, before, after)


def forget(connection: Connection, scope: str, statuses: Collection[IntervalStatus]) -> None:
    """Forget which intervals of *scope* have one of *statuses*."""
    found = tables.interval_ranges.c
    connection.execute(delete(tables.interval_ranges).where(found.scope == scope, found.status.in_(statuses)))


def withdraw_runs(connection: Connection, backfill_id: str) -> None:
    """Stop the runs of a backfill that no worker has begun, or that one has put back."""
    runs = tables.runs.c
    connection.execute(
        update(tables.runs)
        .where(runs.backfill_id == backfill_id, runs.status.in_((RunStatus.QUEUED, RunStatus.WAITING)))
        .values(status=RunStatus.STOPPED, epoch=runs.epoch + 1)
    )


def _mark_in_backfill(
    connection: Connection, backfill_id: str, interval: Interval, status: RunStatus
) -> None:
    scope = backfill_scope(backfill_id)
    if status is RunStatus.ABANDONED:
        # What is under way or still to do is then loaded by another run.
        if list(gaps(ranges_in(connection, scope, interval), interval)):
            return
        mark(connection, scope, interval, IntervalStatus.FAILED)
    elif status is RunStatus.QUEUED:
        _keep_from_going_on(connection, backfill_id)
    elif status in _OF_BACKFILL:
        mark(connection, scope, interval, _OF_BACKFILL[status])
    _stop_or_go_on(connection, backfill_id, _OF_BACKFILL.get(status))


def _keep_from_going_on(connection: Connection, backfill_id: str) -> None:
    """What a worker puts back when it shuts down waits for its backfill, if that is not running."""
    found = tables.backfills.c
    running = select(found.backfill_id).where(
        found.backfill_id == backfill_id, found.status == BackfillStatus.RUNNING
    )
    if connection.execute(running).first() is None:
        withdraw_runs(connection, backfill_id)


def _stop_or_go_on(connection: Connection, backfill_id: str, outcome: IntervalStatus | None) -> None:
    """A failure stops a backfill that is to stop at failures; the success of all that had failed lets it go on."""
    found = tables.backfills.c
    this = update(tables.backfills).where(found.backfill_id == backfill_id)
    if outcome is IntervalStatus.FAILED:
        stopped = connection.execute(
            this.where(found.status == BackfillStatus.RUNNING, found.on_failure == "stop").values(
                status=BackfillStatus.FAILED
            )
        )
        if stopped.rowcount:
            withdraw_runs(connection, backfill_id)
    elif outcome is IntervalStatus.LOADED and not _has_failures(connection, backfill_id):
        # Where another one has had a part of its range since, its intervals may be loaded in other pieces.
        connection.execute(
            this.where(found.status == BackfillStatus.FAILED, ~_has_come_between()).values(
                status=BackfillStatus.RUNNING, finished_at=None
            )
        )


def _has_come_between() -> ColumnElement[bool]:
    """Tell of a backfill whether another one has a part of its range, or was made for a part of it later."""
    found, other = tables.backfills.c, tables.backfills.alias("other").c
    which = and_(
        other.backfill_id != found.backfill_id,
        other.job_id == found.job_id,
        other.stream == found.stream,
        other.window_start < found.window_end,
        other.window_end > found.window_start,
        or_(other.status.in_(UNFINISHED), other.created_at > found.created_at),
    )
    return exists().where(which).correlate(tables.backfills)


def _has_failures(connection: Connection, backfill_id: str) -> bool:
    found = tables.interval_ranges.c
    query = select(found.scope).where(
        found.scope == backfill_scope(backfill_id), found.status == IntervalStatus.FAILED
    )
    return connection.execute(query.limit(1)).first() is not None


def _replace(connection: Connection, scope: str, before: Ranges, after: Ranges) -> None:
    """Let *after* stand where *before* stood: all rows of a part of *scope*."""
    if after == before:
        return
    found = tables.interval_ranges.c
    if before:
        connection.execute(
            delete(tables.interval_ranges).where(
                found.scope == scope,
                found.window_start >= before[0].start,
                found.window_start <= before[-1].start,
            )
        )
    rows = [
        {"scope": scope, "window_start": each.start, "window_end": each.end, "status": each.status}
        for each in after
    ]
    connection.execute(insert(tables.interval_ranges), rows)
