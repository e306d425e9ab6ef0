"""Figures for monitoring: computed from the ledger when they are asked for, in a few statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select

from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.protocol.run import FINAL, RunStatus

_RUNS, _MARKS, _ALERTS, _JOBS = (
    tables.runs.c,
    tables.watermarks.c,
    tables.alerts.c,
    tables.jobs.c,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatistics:
    """The figures of one moment, most of them by job or by job and run status."""

    at: datetime
    unfinished: Mapping[tuple[str, str], int]
    """Runs that have not ended for good."""
    ended: Mapping[tuple[str, str], int]
    """Runs that ended for good; these numbers only grow."""
    waiting_since: Mapping[str, datetime]
    """When the oldest run was made that waits for its dependencies."""
    queued_since: Mapping[str, datetime]
    """When the oldest run was made that waits for a worker."""
    window_ends: Mapping[str, datetime]
    """Up to where jobs that have a file are loaded, in their stream without parameters."""
    last_success: Mapping[str, datetime]
    """When a live run last succeeded."""
    late: Mapping[str, int]
    """Live runs that should have started, did not, and were told of."""
    undelivered_alerts: int


class Statistics:
    """What the ledger can be asked for figures."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now(self, stream: str) -> LedgerStatistics:
        """Return the figures; *stream* is the one without parameters."""
        with self._database.read() as connection:
            counts: Counter[tuple[str, str]] = Counter()
            last_success: dict[str, datetime] = {}
            for group in connection.execute(_run_groups()):
                counts[group.job_id, group.status] += group.runs
                if group.live and group.status == RunStatus.SUCCESS:
                    last_success[group.job_id] = group.last
            return LedgerStatistics(
                at=self._database.now(connection),
                unfinished={each: count for each, count in counts.items() if each[1] not in FINAL},
                ended={each: count for each, count in counts.items() if each[1] in FINAL},
                waiting_since=_by_job(connection, _oldest(RunStatus.WAITING)),
                queued_since=_by_job(connection, _oldest(RunStatus.QUEUED)),
                window_ends=_by_job(connection, _window_ends(stream)),
                last_success=last_success,
                late=_by_job(connection, _late()),
                undelivered_alerts=connection.execute(_undelivered()).scalar_one(),
            )


def _run_groups() -> Select[Any]:
    """How many runs of each job and status there are, live and not, and when the last one of them ended."""
    group = (_RUNS.job_id, _RUNS.status, _RUNS.live)
    return select(*group, func.count().label("runs"), func.max(_RUNS.finished_at).label("last")).group_by(
        *group
    )


def _by_job(connection: Connection, query: Select[Any]) -> dict[str, Any]:
    return {job_id: value for job_id, value in connection.execute(query) if value is not None}


def _oldest(status: RunStatus) -> Select[Any]:
    """When the oldest run of each job was made that is in *status*."""
    return (
        select(_RUNS.job_id, func.min(_RUNS.created_at)).where(_RUNS.status == status).group_by(_RUNS.job_id)
    )


def _window_ends(stream: str) -> Select[Any]:
    """The watermark that counts, of each job that schedulers look after."""
    of_job = tables.watermarks.alias("of_job").c
    newest = (
        select(func.max(of_job.id))
        .where(of_job.stream == stream, of_job.job_id == _JOBS.job_id)
        .scalar_subquery()
    )
    return (
        select(_JOBS.job_id, _MARKS.window_end)
        .join(tables.watermarks, _MARKS.job_id == _JOBS.job_id)
        .where(_JOBS.active, _MARKS.id == newest)
    )


def _late() -> Select[Any]:
    """How many runs of each job have not started and were told to be late."""
    return (
        select(_RUNS.job_id, func.count())
        .join(tables.alerts, (_ALERTS.job_id == _RUNS.job_id) & (_ALERTS.key == "late " + _RUNS.run_id))
        .where(_RUNS.status.in_((RunStatus.QUEUED, RunStatus.WAITING)), _RUNS.attempt == 0)
        .group_by(_RUNS.job_id)
    )


def _undelivered() -> Select[Any]:
    """How many alerts nobody was told of yet."""
    return select(func.count()).select_from(tables.alerts).where(_ALERTS.delivered_at.is_(None))
