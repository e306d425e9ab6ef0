"""Reading what the ledger knows of backfills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select

from ecmbatch.errors import UsageError
from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.intervals import backfill_scope, interval_of, job_scope, ranges_in
from ecmbatch.ledger.records import Document, RunRecord
from ecmbatch.ledger.run_queries import active_attempt, is_live, run_of
from ecmbatch.protocol.intervals import UNFINISHED as UNFINISHED_BACKFILLS
from ecmbatch.protocol.intervals import BackfillStatus, Interval, OnFailure, Order, Ranges, Reprocess
from ecmbatch.protocol.run import UNFINISHED, RunStatus

_PACE = 20
"""Runs from whose ends the pace is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBackfill:
    """A backfill as it is asked for. ``options`` are those of its runs."""

    backfill_id: str
    job_id: str
    job_version: int
    stream: str
    options: Document
    window_start: datetime
    window_end: datetime
    split: str
    order: Order
    concurrency: int
    reprocess: Reprocess
    on_failure: OnFailure

    @property
    def whole(self) -> Interval:
        """The range that is filled."""
        return Interval(self.window_start, self.window_end)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRecord(NewBackfill):
    """A backfill as it is remembered. ``finished_at`` is set while nothing of it is to be done."""

    status: BackfillStatus
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillState:
    """How far a backfill is at one moment."""

    backfill: BackfillRecord
    ranges: Ranges
    """What became of its intervals; those that are in none are still to be done."""
    runs: Sequence[RunRecord]
    """Its runs that are under way or will be, oldest first."""
    others: Sequence[RunRecord]
    """Runs of other commands that load a part of its range now; it waits for them there."""
    now: datetime


class BackfillQueries:
    """What can be asked about backfills."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, backfill_id: str) -> BackfillRecord:
        """Return a backfill; raises :class:`~ecmbatch.errors.UsageError` where there is none."""
        with self._database.read() as connection:
            return backfill_of(connection, backfill_id)

    def recent(self, *, job_id: str | None = None, limit: int = 20) -> Sequence[BackfillRecord]:
        """Return the newest backfills, newest first."""
        found = tables.backfills.c
        query = (
            select(tables.backfills).order_by(found.created_at.desc(), found.backfill_id.desc()).limit(limit)
        )
        if job_id is not None:
            query = query.where(found.job_id == job_id)
        with self._database.read() as connection:
            return [record_of(row) for row in connection.execute(query)]

    def unsettled(self) -> Sequence[str]:
        """Return the backfills of which there is something to do, oldest first."""
        found = tables.backfills.c
        query = select(found.backfill_id).where(_unsettled()).order_by(found.created_at, found.backfill_id)
        with self._database.read() as connection:
            return connection.execute(query).scalars().all()

    def overlapping(self, job_id: str, stream: str, interval: Interval) -> Sequence[BackfillRecord]:
        """Return the unfinished backfills of a stream that have a part of *interval*, oldest first."""
        with self._database.read() as connection:
            return overlapping_in(connection, job_id, stream, interval)

    def state(self, backfill_id: str) -> BackfillState:
        """Return how far a backfill is."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            return state_in(connection, backfill_of(connection, backfill_id), now)

    def done(self, job_id: str, stream: str, interval: Interval) -> Ranges:
        """Return what of *interval* a stream of a job has loaded, or failed to load."""
        with self._database.read() as connection:
            return ranges_in(connection, job_scope(job_id, stream), interval)

    def runs_under_way(self, job_id: str, stream: str, interval: Interval) -> Sequence[RunRecord]:
        """Return the runs that load a part of *interval* now, oldest first."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            return _others(connection, job_id, stream, interval, None, now)

    def latest_ends(self, backfill_id: str) -> Sequence[datetime]:
        """Return when the latest successful runs of a backfill ended, newest first."""
        runs = tables.runs.c
        query = (
            select(runs.finished_at)
            .where(runs.backfill_id == backfill_id, runs.status == RunStatus.SUCCESS)
            .order_by(runs.number.desc())
            .limit(_PACE)
        )
        with self._database.read() as connection:
            return sorted(connection.execute(query).scalars(), reverse=True)

    def latest_failures(self, backfill_id: str, *, limit: int = 5) -> Sequence[RunRecord]:
        """Return the latest runs of a backfill that did not load their interval, newest first."""
        runs = tables.runs.c
        failed = (RunStatus.FAILED, RunStatus.VALIDATION_FAILED, RunStatus.SKIPPED)
        with self._database.read() as connection:
            query = (
                select(runs.run_id)
                .where(runs.backfill_id == backfill_id, runs.status.in_(failed))
                .order_by(runs.number.desc())
                .limit(limit)
            )
            return [run_of(connection, run_id) for run_id in connection.execute(query).scalars().all()]


def backfill_of(connection: Connection, backfill_id: str) -> BackfillRecord:
    """Return a backfill; raises ``UsageError`` where there is none."""
    row = connection.execute(
        select(tables.backfills).where(tables.backfills.c.backfill_id == backfill_id)
    ).one_or_none()
    if row is None:
        raise UsageError(
            f"there is no backfill {backfill_id!r} in this ledger",
            hint="list them with: ecmbatch backfill status",
        )
    return record_of(row)


def record_of(row: Row[Any]) -> BackfillRecord:
    """Return the record in a row of the table."""
    values = row._asdict()
    return BackfillRecord(**{**values, "status": BackfillStatus(values["status"])})


def overlapping_in(
    connection: Connection, job_id: str, stream: str, interval: Interval
) -> Sequence[BackfillRecord]:
    """Return the unfinished backfills of a stream that have a part of *interval*, oldest first."""
    found = tables.backfills.c
    query = (
        select(tables.backfills)
        .where(
            found.job_id == job_id,
            found.stream == stream,
            found.status.in_(UNFINISHED_BACKFILLS),
            found.window_start < interval.end,
            found.window_end > interval.start,
        )
        .order_by(found.created_at)
    )
    return [record_of(row) for row in connection.execute(query)]


def state_in(connection: Connection, backfill: BackfillRecord, now: datetime) -> BackfillState:
    """Return how far a backfill is."""
    return BackfillState(
        backfill=backfill,
        ranges=ranges_in(connection, backfill_scope(backfill.backfill_id), backfill.whole),
        runs=own_runs(connection, backfill.backfill_id),
        others=_others(
            connection, backfill.job_id, backfill.stream, backfill.whole, backfill.backfill_id, now
        ),
        now=now,
    )


def own_runs(connection: Connection, backfill_id: str) -> list[RunRecord]:
    """Return the runs of a backfill that are under way or will be, oldest first."""
    runs = tables.runs.c
    return _runs(connection, runs.backfill_id == backfill_id, runs.status.in_(UNFINISHED))


def _others(
    connection: Connection,
    job_id: str,
    stream: str,
    interval: Interval,
    backfill_id: str | None,
    now: datetime,
) -> list[RunRecord]:
    """Return the runs of other commands that load a part of *interval*, or are going to."""
    runs = tables.runs.c
    found = _runs(
        connection,
        runs.job_id == job_id,
        runs.stream == stream,
        ~runs.live,
        runs.status.in_(UNFINISHED),
        or_(runs.backfill_id.is_(None), runs.backfill_id != (backfill_id or "")),
    )
    return [
        run
        for run in found
        if (of_run := interval_of(run)) is not None
        and of_run.overlaps(interval)
        and _is_under_way(connection, run, now)
    ]


def _is_under_way(connection: Connection, run: RunRecord, now: datetime) -> bool:
    """A run of a worker goes on with another one when its own dies; any other has died with its command."""
    if run.job_version is not None:
        return True
    attempt = active_attempt(connection, tables.attempts.c.run_id == run.run_id)
    return attempt is not None and is_live(attempt, now)


def _runs(connection: Connection, *conditions: Any) -> list[RunRecord]:
    """Return some runs, oldest first."""
    query = select(tables.runs.c.run_id).where(*conditions).order_by(tables.runs.c.number)
    return [run_of(connection, run_id) for run_id in connection.execute(query).scalars().all()]


def warned_runs(connection: Connection, backfill_id: str) -> int:
    """Return how many runs of a backfill were published with a warning of validation."""
    runs, verdicts = tables.runs.c, tables.verdicts.c
    query = (
        select(func.count(func.distinct(runs.run_id)))
        .select_from(tables.runs.join(tables.verdicts, verdicts.run_id == runs.run_id))
        .where(
            runs.backfill_id == backfill_id,
            runs.status == RunStatus.SUCCESS,
            verdicts.report["outcome"].as_string() == "warn",
        )
    )
    return int(connection.execute(query).scalar_one())


def is_unsettled(backfill: BackfillRecord) -> bool:
    """Tell whether there is something to do for a backfill: to go on with it, or to tell that it has failed."""
    failed_just_now = backfill.status is BackfillStatus.FAILED and backfill.finished_at is None
    return backfill.status is BackfillStatus.RUNNING or failed_just_now


def _unsettled() -> Any:
    """As :func:`is_unsettled`, of the table."""
    found = tables.backfills.c
    return or_(
        found.status == BackfillStatus.RUNNING,
        (found.status == BackfillStatus.FAILED) & found.finished_at.is_(None),
    )
