"""Runs that the scheduler makes and workers execute: firing, waiting for dependencies, claiming.

Whoever fires a job moves its cursor in the transaction that makes the runs, and writers take turns: every tick
and every event makes its runs once, however many schedulers look and wherever one of them is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, Row, case, func, select, update
from sqlalchemy.exc import IntegrityError

from ecmbatch.errors import RunAlreadyActive, StageElsewhere
from ecmbatch.ledger import tables
from ecmbatch.ledger.alerts import NewAlert, put_alert
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.events import consume, consumed_by, events_after
from ecmbatch.ledger.jobs import job_state
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import Document, EventRecord, Fence, JobState, NewRun, RunRecord
from ecmbatch.ledger.run_queries import active_attempts, is_live, run_of
from ecmbatch.ledger.runs import WORKER_LOST, Runs, create_run, skipped_key
from ecmbatch.protocol.run import ACTIVE, UNFINISHED, RunStatus

_UNSTARTED = (RunStatus.QUEUED, RunStatus.WAITING)
_WAITER = "waiter"
_WAITER_LEASE = timedelta(minutes=1)

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

    def begun(self) -> Sequence[QueuedRun]:
        """Return the runs of workers that were started and are not over, executed or not, oldest first."""
        return [run for run in self._unfinished(RunStatus.IN_PROGRESS, RunStatus.QUEUED) if run.attempt > 0]

    def active(self) -> Sequence[QueuedRun]:
        """Return the runs that somebody executes, or did when he died; those of commands too, oldest first."""
        with self._database.read() as connection:
            query = _queued_runs().where(tables.runs.c.status.in_(ACTIVE))
            return [_queued_run(row) for row in connection.execute(query)]

    def wait(self, new: NewRun, owner: Owner) -> None:
        """Add a run that its own command, *owner*, waits to begin; it has to say so with :meth:`keep_waited_for`.

        Raises :class:`~ecmbatch.errors.RunAlreadyActive` where another command waits for the same interval.
        """
        try:
            with self._database.write() as connection:
                now = self._database.now(connection)
                options = {**new.options, _WAITER: _waiter(owner, now)}
                create_run(connection, replace(new, options=options), now, RunStatus.WAITING)
        except IntegrityError as error:
            raise RunAlreadyActive(f"another process waits to run {new.job_id} for this interval") from error

    def keep_waited_for(self, run_id: str, owner: Owner, reasons: Sequence[str]) -> bool:
        """Remember what a run waits for, and that *owner* still does; tell whether the run still waits."""
        runs = tables.runs.c
        with self._database.read() as connection:
            run, now = run_of(connection, run_id), self._database.now(connection)
        waiter = run.options[_WAITER]
        is_fresh = now < datetime.fromisoformat(waiter["until"]) - _WAITER_LEASE / 2
        if run.status is not RunStatus.WAITING or (is_fresh and run.waiting == list(reasons)):
            return run.status is RunStatus.WAITING
        with self._database.write() as connection:
            return _change_run(
                connection,
                (runs.run_id == run_id) & (runs.status == RunStatus.WAITING),
                waiting=list(reasons),
                options={**run.options, _WAITER: _waiter(owner, now)},
            )

    def is_waited_for(self, run: QueuedRun) -> bool:
        """Tell whether the command that waits to begin *run* is alive, as far as the ledger knows."""
        waiter = run.options[_WAITER]
        with self._database.read() as connection:
            holds = self._database.now(connection) < datetime.fromisoformat(waiter["until"])
        return holds and not Owner.from_document(waiter["owner"]).is_certainly_dead()

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
                run = run_of(connection, run_id)
                if run.job_version is None:
                    _change_run(connection, runs.run_id == run_id, run_key=skipped_key(run.run_key, run_id))
                put_alert(connection, run.job_id, alert, now, run_id=run_id)
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
    begun_first = case((runs.status == RunStatus.IN_PROGRESS, 0), else_=1)
    place = func.row_number().over(partition_by=(runs.job_id, runs.lane), order_by=(begun_first, runs.number))
    candidates = select(
        runs.run_id,
        runs.job_id,
        runs.lane,
        runs.status,
        runs.number,
        begun_first.label("begun_first"),
        case((runs.backfill_id.is_(None), 0), else_=1).label("live_first"),
        place.label("place"),
    ).where(
        runs.job_version.is_not(None),
        runs.status.in_((RunStatus.IN_PROGRESS, RunStatus.QUEUED, RunStatus.WAITING)),
    )
    if backfill_id is not None:
        candidates = candidates.where(runs.backfill_id == backfill_id)
    of_lanes = candidates.subquery()
    # Of one lane the oldest goes first, even while it waits: its successor would supersede it.
    heads = (
        select(of_lanes)
        .where(of_lanes.c.place == 1, of_lanes.c.status != RunStatus.WAITING)
        .order_by(of_lanes.c.begun_first, of_lanes.c.live_first, of_lanes.c.number)
    )
    found = connection.execute(heads).all()
    if not found:
        return []
    attempts = active_attempts(connection).items()
    alive = {lane for lane, attempt in attempts if is_live(attempt, now)}
    return [run.run_id for run in found if (run.job_id, run.lane) not in alive]


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


def _waiter(owner: Owner, now: datetime) -> dict[str, Any]:
    return {"owner": owner.document(), "until": (now + _WAITER_LEASE).isoformat()}


def _change_run(connection: Connection, which: Any, **values: Any) -> bool:
    return connection.execute(update(tables.runs).where(which).values(**values)).rowcount > 0
