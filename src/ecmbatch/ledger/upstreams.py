"""The runs of another job that a dependency asks for, found by index: histories are long, gates are asked often."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, select, union_all

from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.intervals import job_scope
from ecmbatch.protocol.dependencies import UNDECIDED, UpstreamRun
from ecmbatch.protocol.intervals import IntervalStatus
from ecmbatch.protocol.run import RunStatus

_RUNS = tables.runs.c
_COLUMNS = (_RUNS.run_id, _RUNS.number, _RUNS.status, _RUNS.live, _RUNS.scheduled_for, _RUNS.window_end)
_OVER = tuple(sorted(set(RunStatus) - UNDECIDED - {RunStatus.SKIPPED}))
_LAST_SCHEDULED = (_RUNS.scheduled_for.desc(), _RUNS.number.desc())
_AT = bindparam("at", type_=tables.Instant)
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


class Upstreams:
    """What gates need to know of the runs of other jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def deciding_runs(self, job_id: str, *, at: datetime, backfill: bool) -> Sequence[UpstreamRun]:
        """Return the few runs of a job that decide about any dependency on it at *at* (T), as of one moment.

        :func:`~ecmbatch.protocol.dependencies.unmet` says the same of them as of all runs of the job. Empty if the
        job never ran.
        """
        with self._database.read() as connection:
            if backfill:
                runs = _runs(connection, _COVERING, job_id=job_id, at=at)
            else:
                runs = _live_runs(connection, job_id)
            if any(run.status != RunStatus.SKIPPED for run in runs):
                return runs
            # That there is any is all that is left to know, and it takes the longest to find out.
            return [*runs, *_runs(connection, _ANY, job_id=job_id)]

    def loaded_up_to(self, job_id: str, *, at: datetime) -> datetime | None:
        """Return up to where, at most *at*, data of a job are loaded, whether or not its runs are remembered."""
        marks, ranges = tables.watermarks.c, tables.interval_ranges.c
        live = select(func.max(marks.window_end, type_=tables.Instant)).where(
            marks.job_id == job_id, marks.run_id.is_not(None), marks.window_end <= at
        )
        intervals = select(func.max(ranges.window_end, type_=tables.Instant)).where(
            ranges.scope.startswith(job_scope(job_id, ""), autoescape=True),
            ranges.status == IntervalStatus.LOADED,
            ranges.window_start < at,
        )
        with self._database.read() as connection:
            ends = [connection.execute(query).scalar_one_or_none() for query in (live, intervals)]
        return max((min(end, at) for end in ends if end is not None), default=None)


def _live_runs(connection: Connection, job_id: str) -> Sequence[UpstreamRun]:
    runs = _runs(connection, _LIVE, job_id=job_id)
    over = (run.scheduled_for for run in runs if run.live and run.status not in UNDECIDED)
    return [*runs, *_runs(connection, _IN_VAIN, job_id=job_id, at=max(over, default=_LONG_AGO))]


def _runs(connection: Connection, query: Any, **values: Any) -> Sequence[UpstreamRun]:
    rows = connection.execute(query, values)
    return [_run(row) for row in {row.run_id: row for row in rows}.values()]


def _run(row: Row[Any]) -> UpstreamRun:
    return UpstreamRun(
        run_id=row.run_id,
        number=row.number,
        status=RunStatus(row.status),
        live=row.live,
        scheduled_for=row.scheduled_for,
        as_of=row.window_end,
    )


def _of_job(*which: Any) -> Select[Any]:
    return select(*_COLUMNS).where(_RUNS.job_id == bindparam("job_id"), *which)


def _together(*queries: Select[Any]) -> Any:
    return union_all(*(select(query.subquery()) for query in queries))


# Built once: to put such a statement together takes longer than to execute it.

_UP_TO = _RUNS.window_end <= _AT
_SUCCESSES = (
    _of_job(_RUNS.status == RunStatus.SUCCESS, _RUNS.window_end.is_not(None))
    .order_by(_RUNS.window_end.desc())
    .limit(1)
)

_LIVE = _together(
    _of_job(_RUNS.live, _RUNS.status.in_(UNDECIDED)),
    *(_of_job(_RUNS.live, _RUNS.status == over).order_by(*_LAST_SCHEDULED).limit(1) for over in _OVER),
    _SUCCESSES,
)
"""The live runs that are not over, the last of each other status, and the success that covers most."""

_IN_VAIN = (
    _of_job(
        _RUNS.live,
        _RUNS.status == RunStatus.SKIPPED,
        _RUNS.scheduled_for >= _AT,
        _RUNS.job_version.is_not(None),
        _RUNS.error["code"].as_string() == "dependency_not_met",
    )
    .order_by(*_LAST_SCHEDULED)
    .limit(1)
)
"""The last tick whose run waited for dependencies until its time was over, if it is not before ``at``.

A run that somebody asked for and that was refused at once stands for nothing that the job should have done."""

_COVERING = _together(
    _of_job(_RUNS.status != RunStatus.SKIPPED, _UP_TO)
    .order_by(_RUNS.window_end.desc(), *_LAST_SCHEDULED)
    .limit(1),
    _SUCCESSES.where(_UP_TO),
)
"""The run, and the success, that covers most up to ``at``."""

_ANY = _of_job(_RUNS.status != RunStatus.SKIPPED).limit(1)
