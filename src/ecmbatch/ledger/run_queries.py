"""Reading runs and the attempts at them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from ecmbatch.errors import UsageError
from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import AttemptRecord, RunRecord
from ecmbatch.protocol.run import FINAL, UNFINISHED, RunStatus


class RunQueries:
    """What the ledger knows of runs. Each answer is the state of one moment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, run_id: str) -> RunRecord:
        """Return a run; raises :class:`~ecmbatch.errors.UsageError` where there is none."""
        with self._database.read() as connection:
            return run_of(connection, run_id)

    def find(self, run_id: str) -> RunRecord | None:
        """Return a run, or ``None``."""
        with self._database.read() as connection:
            row = connection.execute(select(tables.runs).where(tables.runs.c.run_id == run_id)).one_or_none()
        return None if row is None else _run(row)

    def latest(self, job_id: str, lane: str) -> RunRecord | None:
        """Return the lane's latest run that passed its gates."""
        with self._database.read() as connection:
            return latest_run(connection, job_id, lane)

    def recent(self, *, job_id: str | None = None, limit: int = 20) -> Sequence[RunRecord]:
        """Return the newest runs, newest first."""
        query = _newest_first(select(tables.runs)).limit(limit)
        if job_id is not None:
            query = query.where(tables.runs.c.job_id == job_id)
        return self._runs(query)

    def of_job(self, job_id: str, *, limit: int = 1_000) -> Sequence[RunRecord]:
        """Return the newest runs of a job that passed its gates, newest first."""
        query = _newest_first(
            select(tables.runs).where(
                tables.runs.c.job_id == job_id, tables.runs.c.status != RunStatus.SKIPPED
            )
        ).limit(limit)
        return self._runs(query)

    def unfinished(self) -> Sequence[RunRecord]:
        """Return the runs that have not ended for good, newest first."""
        return self._runs(_newest_first(select(tables.runs).where(tables.runs.c.status.not_in(FINAL))))

    def latest_success(self, job_id: str, stream: str) -> RunRecord | None:
        """Return the stream's latest successful live run: what ``previous_job`` means."""
        query = _newest_first(
            select(tables.runs).where(
                tables.runs.c.job_id == job_id,
                tables.runs.c.stream == stream,
                tables.runs.c.live,
                tables.runs.c.status == RunStatus.SUCCESS,
            )
        )
        with self._database.read() as connection:
            row = connection.execute(query.limit(1)).first()
        return None if row is None else _run(row)

    def attempts(self, run_id: str) -> Sequence[AttemptRecord]:
        """Return the attempts of a run, first to last."""
        query = (
            select(tables.attempts)
            .where(tables.attempts.c.run_id == run_id)
            .order_by(tables.attempts.c.attempt)
        )
        with self._database.read() as connection:
            return [_attempt(row) for row in connection.execute(query)]

    def is_live(self, run_id: str) -> bool:
        """Tell whether somebody executes the run right now, as far as the ledger knows."""
        with self._database.read() as connection:
            attempt = active_attempt(connection, tables.attempts.c.run_id == run_id)
            return attempt is not None and is_live(attempt, self._database.now(connection))

    def ahead_of(self, run: RunRecord) -> RunRecord | None:
        """Return the run of the same lane that has to be over before *run* can begin, the oldest of several."""
        runs = tables.runs.c
        query = (
            select(tables.runs)
            .where(
                runs.job_id == run.job_id,
                runs.lane == run.lane,
                runs.number < run.number,
                runs.status.in_(UNFINISHED),
            )
            .order_by(runs.number)
        )
        with self._database.read() as connection:
            row = connection.execute(query.limit(1)).first()
        return None if row is None else _run(row)

    def last_sign_of_life(self, run: RunRecord) -> datetime:
        """Return when somebody last did something for the run, a whole lease too late at most."""
        instants = [run.created_at, run.started_at, run.finished_at]
        for attempt in self.attempts(run.run_id):
            instants += [attempt.started_at, attempt.finished_at or attempt.lease_expires_at]
        return max(instant for instant in instants if instant is not None)

    def _runs(self, query: Select[Any]) -> Sequence[RunRecord]:
        with self._database.read() as connection:
            return [_run(row) for row in connection.execute(query)]


def latest_run(connection: Connection, job_id: str, lane: str) -> RunRecord | None:
    """Return the lane's latest run that passed its gates."""
    query = _newest_first(
        select(tables.runs).where(
            tables.runs.c.job_id == job_id,
            tables.runs.c.lane == lane,
            tables.runs.c.status != RunStatus.SKIPPED,
        )
    )
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _run(row)


def run_of(connection: Connection, run_id: str) -> RunRecord:
    """Return a run; raises :class:`~ecmbatch.errors.UsageError` where there is none."""
    row = connection.execute(select(tables.runs).where(tables.runs.c.run_id == run_id)).one_or_none()
    if row is None:
        raise UsageError(
            f"there is no run {run_id!r} in this ledger", hint="list the runs with: ecmbatch runs"
        )
    return _run(row)


def active_attempt(connection: Connection, which: Any) -> AttemptRecord | None:
    """Return the attempt under way of those that the condition *which* names."""
    row = connection.execute(select(tables.attempts).where(which, tables.attempts.c.active)).one_or_none()
    return None if row is None else _attempt(row)


def active_attempts(connection: Connection) -> dict[tuple[str, str], AttemptRecord]:
    """Return the attempts under way by job and lane."""
    rows = connection.execute(select(tables.attempts).where(tables.attempts.c.active))
    return {(row.job_id, row.lane): _attempt(row) for row in rows}


def is_live(attempt: AttemptRecord, now: datetime) -> bool:
    """Tell whether the attempt's lease holds and its process may be there."""
    return now < attempt.lease_expires_at and not attempt.owner.is_certainly_dead()


def _newest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(tables.runs.c.number.desc())


def _run(row: Row[Any]) -> RunRecord:
    values = row._asdict()
    return RunRecord(**{**values, "status": RunStatus(values["status"])})


def _attempt(row: Row[Any]) -> AttemptRecord:
    values = row._asdict()
    del values["job_id"], values["lane"]
    return AttemptRecord(**{**values, "owner": Owner.from_document(values["owner"])})
