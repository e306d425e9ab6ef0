"""Runs that the scheduler makes and workers execute: firing, waiting for dependencies, claiming.

Whoever fires a job moves its cursor in the transaction that makes the runs, and writers take turns: every tick
and every event makes its runs once, however many schedulers look and wherever one of them is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, Row, case, select, update

from ecmbatch.errors import StageElsewhere
from ecmbatch.ledger import tables
from ecmbatch.ledger.alerts import NewAlert, put_alert
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.events import consume, consumed_by, events_after
from ecmbatch.ledger.jobs import job_state
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import Document, EventRecord, Fence, JobState, NewRun, RunRecord
from ecmbatch.ledger.run_queries import active_attempts, is_live, run_of
from ecmbatch.ledger.runs import WORKER_LOST, Runs, create_run
from ecmbatch.protocol.run import UNFINISHED, RunStatus

_UNSTARTED = (RunStatus.QUEUED, RunStatus.WAITING)
_MOST_CANDIDATES = 1_000

MOST_LOST_WORKERS = 8
"""Attempts in a row that ended without a word; a run that kills its workers must not do so for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRun:
    """What a scheduler needs to know of a run that is not over. ``attempt`` is 0 before it was ever started."""

    run_id: str
    number: int
    job_id: str
    job_version: int | None
    lane: str
    live: bool
    status: RunStatus
    attempt: int
    options: Document
    scheduled_for: datetime
    created_at: datetime
    waiting: Sequence[str] | None
    wait_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What there is to decide from whether a job fires; all of it holds until the decision is carried out."""

    now: datetime
    job: JobState
    unfinished: Sequence[QueuedRun]
    """The job's live runs that are not over, oldest first."""
    events: Sequence[EventRecord] = ()
    consumed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """What becomes of a job's ticks and events."""

    cursor: datetime | None = None
    consumed: int | None = None
    new: Sequence[tuple[NewRun, RunStatus]] = ()
    skipped: Sequence[tuple[NewRun, Document]] = ()
    """Runs that are only remembered, with the reason why they never began."""
    merged: Mapping[str, Document] = field(default_factory=dict)
    """Options of runs that stand for more than they did, by id."""
    stopped: Sequence[str] = ()
    """Runs that are asked to stop."""


class Queue:
    """The ledger's runs for workers. *runs* are the same ledger's."""

    def __init__(self, database: Database, runs: Runs) -> None:
        self._database = database
        self._runs = runs

    # -- firing ------------------------------------------------------------------------------------

    def fire(
        self,
        job_id: str,
        decide: Callable[[Moment], Firing | None],
        *,
        names: Sequence[str] = (),
        jobs: Sequence[str] = (),
    ) -> Firing | None:
        """Carry out what *decide* says about a job, in one transaction; ``None`` where there is nothing to do.

        It is asked of active jobs that are not paused, with the events of *names* and of runs of *jobs*.
        """
        with self._database.write() as connection:
            state = job_state(connection, job_id)
            if state is None or not state.active or state.paused:
                return None
            consumed = consumed_by(connection, job_id)
            begin = min(consumed.values(), default=0)
            firing = decide(
                Moment(
                    now=self._database.now(connection),
                    job=state,
                    unfinished=_unfinished(connection, job_id),
                    events=events_after(connection, begin, names, jobs) if names or jobs else (),
                    consumed=consumed,
                )
            )
            if firing is not None:
                self._carry_out(connection, job_id, firing)
            return firing

    def _carry_out(self, connection: Connection, job_id: str, firing: Firing) -> None:
        now = self._database.now(connection)
        runs = tables.runs.c
        for run_id in firing.stopped:
            self._runs.stop_in(connection, run_id, now)
        for new, status in firing.new:
            create_run(connection, new, now, status)
        for new, error in firing.skipped:
            create_run(connection, new, now, RunStatus.SKIPPED)
            _change_run(connection, runs.run_id == new.run_id, error=dict(error), finished_at=now)
        for run_id, options in firing.merged.items():
            _change_run(connection, runs.run_id == run_id, options=dict(options))
        if firing.cursor is not None:
            connection.execute(
                update(tables.jobs).where(tables.jobs.c.job_id == job_id).values(cursor=firing.cursor)
            )
        if firing.consumed is not None:
            consume(connection, job_id, firing.consumed)

    # -- waiting -----------------------------------------------------------------------------------

    def waiting(self) -> Sequence[QueuedRun]:
        """Return the runs that wait for dependencies, those of commands too, oldest first."""
        with self._database.read() as connection:
            query = _queued_runs().where(tables.runs.c.status == RunStatus.WAITING)
            return [_queued_run(row) for row in connection.execute(query)]

    def unstarted(self) -> Sequence[QueuedRun]:
        """Return the runs of workers that were never started, oldest first."""
        return [run for run in self._unfinished(*_UNSTARTED) if run.attempt == 0]

    def stopping(self) -> Sequence[QueuedRun]:
        """Return the runs of workers that were asked to stop."""
        return self._unfinished(RunStatus.STOPPING)

    def release(self, run_id: str) -> None:
        """Let a run that waits be executed."""
        self._change_waiting(run_id, status=RunStatus.QUEUED, waiting=None)

    def keep_waiting(self, run_id: str, reasons: Sequence[str]) -> None:
        """Remember what a run waits for."""
        self._change_waiting(run_id, waiting=list(reasons))

    def give_up(self, run_id: str, error: Document, alert: NewAlert) -> bool:
        """Skip a run that has waited too long, and say so; tell whether it was this call that did."""
        runs = tables.runs.c
        with self._database.write() as connection:
            now = self._database.now(connection)
            changed = _change_run(
                connection,
                (runs.run_id == run_id) & (runs.status == RunStatus.WAITING),
                status=RunStatus.SKIPPED,
                error=dict(error),
                finished_at=now,
            )
            if changed:
                put_alert(connection, run_of(connection, run_id).job_id, alert, now, run_id=run_id)
            return changed

    def _change_waiting(self, run_id: str, **values: Any) -> None:
        runs = tables.runs.c
        with self._database.write() as connection:
            _change_run(connection, (runs.run_id == run_id) & (runs.status == RunStatus.WAITING), **values)

    def _unfinished(self, *statuses: RunStatus) -> Sequence[QueuedRun]:
        runs = tables.runs.c
        query = _queued_runs().where(runs.status.in_(statuses), runs.job_version.is_not(None))
        with self._database.read() as connection:
            return [_queued_run(row) for row in connection.execute(query)]

    # -- claiming ----------------------------------------------------------------------------------

    def claimable(self) -> int:
        """Return how many runs a worker could claim now."""
        with self._database.read() as connection:
            return len(_claimable(connection, self._database.now(connection)))

    def claim(
        self,
        owner: Owner,
        permit: Callable[[RunRecord], None],
        *,
        backfill_id: str | None = None,
    ) -> tuple[RunRecord, Fence] | None:
        """Claim the next run for a new attempt: one whose worker died, else the oldest; live before backfill.

        *permit* may refuse a run by raising ``StageElsewhere``: then it is left to others. With *backfill_id* only
        runs of that backfill are claimed.
        """
        with self._database.read() as connection:
            if not _claimable(connection, self._database.now(connection), backfill_id):
                return None
        with self._database.write() as connection:
            now = self._database.now(connection)
            for run_id in _claimable(connection, now, backfill_id):
                run = run_of(connection, run_id)
                if _lost_in_a_row(connection, run) >= MOST_LOST_WORKERS:
                    self._runs.give_up_in(connection, run, now)
                    continue
                try:
                    permit(run)
                except StageElsewhere:
                    continue
                fence = self._runs.claim_in(connection, run, owner, now)
                return run_of(connection, run_id), fence
        return None


def _unfinished(connection: Connection, job_id: str) -> Sequence[QueuedRun]:
    runs = tables.runs.c
    query = _queued_runs().where(runs.job_id == job_id, runs.live, runs.status.in_(UNFINISHED))
    return [_queued_run(row) for row in connection.execute(query)]


def _claimable(connection: Connection, now: datetime, backfill_id: str | None = None) -> list[str]:
    """Return the runs that could be claimed, in the order in which they should be."""
    runs = tables.runs.c
    query = (
        select(runs.run_id, runs.job_id, runs.lane, runs.status)
        .where(
            runs.job_version.is_not(None),
            runs.status.in_((RunStatus.IN_PROGRESS, RunStatus.QUEUED, RunStatus.WAITING)),
        )
        .order_by(
            case((runs.status == RunStatus.IN_PROGRESS, 0), else_=1),
            case((runs.backfill_id.is_(None), 0), else_=1),
            runs.number,
        )
        .limit(_MOST_CANDIDATES)
    )
    if backfill_id is not None:
        query = query.where(runs.backfill_id == backfill_id)
    candidates = connection.execute(query).all()
    if not candidates:
        return []
    alive = {lane: is_live(attempt, now) for lane, attempt in active_attempts(connection).items()}
    found, taken = [], set()
    for candidate in candidates:
        lane = (candidate.job_id, candidate.lane)
        # Of one lane the oldest goes first, even while it waits: its successor would supersede it.
        if lane in taken or alive.get(lane, False):
            continue
        taken.add(lane)
        if candidate.status != RunStatus.WAITING:
            found.append(candidate.run_id)
    return found


def _lost_in_a_row(connection: Connection, run: RunRecord) -> int:
    """Return how many of the run's latest attempts lost their worker, the one under way included."""
    attempts = tables.attempts.c
    rows = connection.execute(
        select(attempts.active, attempts.error)
        .where(attempts.run_id == run.run_id)
        .order_by(attempts.attempt.desc())
        .limit(MOST_LOST_WORKERS)
    )
    lost = takewhile(lambda row: row.active or (row.error or {}).get("code") == WORKER_LOST, rows)
    return sum(1 for _ in lost)


def _queued_runs() -> Any:
    return select(*(tables.runs.c[name] for name in QueuedRun.__dataclass_fields__)).order_by(
        tables.runs.c.number
    )


def _queued_run(row: Row[Any]) -> QueuedRun:
    values = row._asdict()
    return QueuedRun(**{**values, "status": RunStatus(values["status"])})


def _change_run(connection: Connection, which: Any, **values: Any) -> bool:
    return connection.execute(update(tables.runs).where(which).values(**values)).rowcount > 0
