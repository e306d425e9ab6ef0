"""Backfills: beginning and changing them, and which interval is next. Reading is in `backfill_queries`.

A backfill's intervals are ranges in `intervals`; only those under way, and those that were, have runs. What is to
be done next is found out in the transaction that does it, so any number of processes may ask at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, insert, select, update

from ecmbatch.errors import ConflictError, RunAlreadyComplete
from ecmbatch.ledger import tables
from ecmbatch.ledger.alerts import NewAlert, put_alert
from ecmbatch.ledger.backfill_queries import (
    BackfillQueries,
    BackfillRecord,
    BackfillState,
    NewBackfill,
    backfill_of,
    is_unsettled,
    overlapping_in,
    own_runs,
    record_of,
    state_in,
    warned_runs,
)
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.intervals import (
    backfill_scope,
    forget,
    interval_of,
    job_scope,
    mark,
    ranges_in,
    withdraw_runs,
)
from ecmbatch.ledger.records import NewRun, RunRecord
from ecmbatch.ledger.run_queries import latest_run, run_of
from ecmbatch.ledger.runs import Runs, create_run
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.intervals import UNFINISHED as UNFINISHED_BACKFILLS
from ecmbatch.protocol.intervals import (
    BackfillIntervals,
    BackfillStatus,
    Interval,
    IntervalStatus,
    Reprocess,
    united,
    without,
)
from ecmbatch.protocol.run import ACTIVE, FINAL, RunStatus, may_follow

_DONE_BEFORE: dict[Reprocess, frozenset[IntervalStatus]] = {
    "missing": frozenset({IntervalStatus.LOADED, IntervalStatus.FAILED}),
    "failed": frozenset({IntervalStatus.LOADED}),
    "all": frozenset(),
}
"""What a backfill leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """What a step did: runs it made or put back into the queue, and runs in the way, to be abandoned first."""

    started: Sequence[str] = ()
    in_the_way: Sequence[str] = ()
    status: BackfillStatus


class BackfillWork(Protocol):
    """What only the engine knows of a backfill."""

    @property
    def intervals(self) -> BackfillIntervals:
        """The intervals."""

    def new_run(self, interval: Interval, now: datetime) -> NewRun:
        """Return the run that loads *interval*; it waits first where ``waiting`` is not ``None``."""

    def continues(self, run: RunRecord) -> bool:
        """Tell whether an unfinished *run* was begun under the definition that the backfill has."""

    def digest(self, state: BackfillState, warned: int) -> NewAlert | None:
        """Return what is to be told at the end, when *warned* runs were published with a warning."""


class Backfills(BackfillQueries):
    """The ledger's backfills. *runs* are the same ledger's."""

    def __init__(self, database: Database, runs: Runs) -> None:
        super().__init__(database)
        self._runs = runs

    def create(self, new: NewBackfill, intervals: BackfillIntervals) -> tuple[BackfillRecord, bool]:
        """Begin a backfill, or go on with the same one if it is not through; tell whether it is new.

        The same is: job and version, stream, range, split and what is loaded again. Order, concurrency and what
        failures do become those of *new*. Raises :class:`~ecmbatch.errors.ConflictError` where an unfinished
        backfill of the stream has a part of the range.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            same = _same(connection, new)
            _refuse_overlap(connection, new, but=same)
            if same is not None:
                changed = {"order": new.order, "concurrency": new.concurrency, "on_failure": new.on_failure}
                _change(connection, same.backfill_id, **changed, options=dict(new.options))
                _go_on(connection, same)
                return backfill_of(connection, same.backfill_id), False
            values = {**asdict(new), "options": dict(new.options)}
            connection.execute(
                insert(tables.backfills).values(**values, status=BackfillStatus.RUNNING, created_at=now)
            )
            _leave_out(connection, new, intervals, _DONE_BEFORE[new.reprocess])
            return backfill_of(connection, new.backfill_id), True

    def pause(self, backfill_id: str) -> BackfillRecord:
        """Start nothing more of a backfill; what is under way goes on to its end."""
        with self._database.write() as connection:
            backfill = backfill_of(connection, backfill_id)
            if backfill.status not in UNFINISHED_BACKFILLS:
                raise ConflictError(f"backfill {backfill_id} is {backfill.status}; there is nothing to pause")
            withdraw_runs(connection, backfill_id)
            _change(connection, backfill_id, status=BackfillStatus.PAUSED)
            return backfill_of(connection, backfill_id)

    def cancel(self, backfill_id: str) -> BackfillRecord:
        """Start nothing more of a backfill and stop what is under way at its next checkpoint."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            backfill = backfill_of(connection, backfill_id)
            if backfill.status is BackfillStatus.COMPLETED:
                raise RunAlreadyComplete(f"backfill {backfill_id} is completed; there is nothing to cancel")
            withdraw_runs(connection, backfill_id)
            for run in own_runs(connection, backfill_id):
                self._runs.stop_in(connection, run.run_id, now)
            _change(connection, backfill_id, status=BackfillStatus.CANCELLED, finished_at=now)
            return backfill_of(connection, backfill_id)

    def resume(self, backfill_id: str) -> BackfillRecord:
        """Go on with a backfill; one that failed tries again what had failed.

        Raises :class:`~ecmbatch.errors.RunAlreadyComplete` where nothing is left and ``ConflictError`` where
        another backfill has a part of its range meanwhile.
        """
        with self._database.write() as connection:
            backfill = backfill_of(connection, backfill_id)
            if backfill.status is BackfillStatus.COMPLETED:
                raise RunAlreadyComplete(f"backfill {backfill_id} is completed; there is nothing to resume")
            _refuse_overlap(connection, backfill, but=backfill)
            _go_on(connection, backfill)
            return backfill_of(connection, backfill_id)

    def retry(self, backfill_id: str) -> BackfillRecord:
        """Let the intervals that failed be tried again; raises ``ConflictError`` where none did."""
        with self._database.write() as connection:
            backfill = backfill_of(connection, backfill_id)
            ranges = ranges_in(connection, backfill_scope(backfill_id), backfill.whole)
            if not any(each.status is IntervalStatus.FAILED for each in ranges):
                raise ConflictError(f"no interval of backfill {backfill_id} has failed")
            forget(connection, backfill_scope(backfill_id), {IntervalStatus.FAILED})
            if backfill.status is BackfillStatus.FAILED:
                _refuse_overlap(connection, backfill, but=backfill)
                _go_on(connection, backfill)
            return backfill_of(connection, backfill_id)

    def advance(self, backfill_id: str, work: BackfillWork) -> Advanced:
        """Make the next runs of a backfill, as many as may be under way at once, or settle it at its end."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            backfill = backfill_of(connection, backfill_id)
            started: list[str] = []
            in_the_way: list[str] = []
            if backfill.status is BackfillStatus.RUNNING:
                loaded = _DONE_BEFORE[backfill.reprocess] & {IntervalStatus.LOADED}
                _leave_out(connection, backfill, work.intervals, loaded)
                free = backfill.concurrency - len(own_runs(connection, backfill_id))
                for interval in _next_intervals(connection, backfill, work.intervals, now):
                    if len(started) >= free:
                        break
                    run_id, may_start = self._start(connection, backfill, interval, work, now)
                    (started if may_start else in_the_way).append(run_id)
                    if len(in_the_way) >= free:
                        break
            _settle(connection, backfill, work, now)
            status = backfill_of(connection, backfill_id).status
            return Advanced(started=started, in_the_way=in_the_way, status=status)

    def _start(
        self,
        connection: Connection,
        backfill: BackfillRecord,
        interval: Interval,
        work: BackfillWork,
        now: datetime,
    ) -> tuple[str, bool]:
        """Queue a run for *interval*: the one that was begun, if it can go on, else a new one.

        Returns the run, and whether it was queued; otherwise it is in the way.
        """
        new = work.new_run(interval, now)
        begun = latest_run(connection, backfill.job_id, new.lane)
        if begun is None or begun.status in FINAL:
            if _key_is_taken(connection, new):
                new = replace(new, run_key=f"{new.run_key}:{new.run_id}")
            status = RunStatus.QUEUED if new.waiting is None else RunStatus.WAITING
            return create_run(connection, new, now, status).run_id, True
        if not _may_go_on(begun, backfill) or not work.continues(begun):
            return begun.run_id, False
        if begun.status in ACTIVE:
            # Its worker is gone, else the interval would not have been offered.
            self._runs.stop_in(connection, begun.run_id, now)
        # What another job does matters only before a run has read anything.
        waits = begun.plan is None and new.waiting is not None
        _queue_again(connection, begun.run_id, backfill, waits=waits)
        return begun.run_id, True


def _queue_again(connection: Connection, run_id: str, backfill: BackfillRecord, *, waits: bool) -> None:
    """Let a worker go on with a run from its checkpoints, for this backfill from now on; where it *waits*, not
    before its dependencies are met."""
    run, status = run_of(connection, run_id), RunStatus.WAITING if waits else RunStatus.QUEUED
    assert may_follow(run.status, status)
    connection.execute(
        update(tables.runs)
        .where(tables.runs.c.run_id == run_id)
        .values(
            status=status,
            # Whoever executed it and only sleeps must find a later epoch when it wakes.
            epoch=run.epoch + 1,
            finished_at=None,
            error=None,
            waiting=[] if waits else None,
            wait_until=None,
            job_version=backfill.job_version,
            backfill_id=backfill.backfill_id,
        )
    )


def _may_go_on(run: RunRecord, backfill: BackfillRecord) -> bool:
    """What validation refused is read anew: under the same rules the same rows would be refused again."""
    asked_anew = backfill.reprocess == "all" and run.backfill_id != backfill.backfill_id
    return run.status in ACTIVE | {RunStatus.FAILED, RunStatus.STOPPED} and not asked_anew


def _next_intervals(
    connection: Connection, backfill: BackfillRecord, intervals: BackfillIntervals, now: datetime
) -> Iterator[Interval]:
    """Yield the intervals that nobody loads and that are still to be done, in the order of the backfill."""
    state = state_in(connection, backfill, now)
    taken = [each.interval for each in state.ranges] + _under_way(state.runs)
    for interval in _under_way(state.others):
        around = intervals.around(interval)
        taken += [around] if around is not None else []
    parts = list(without(backfill.whole, taken))
    for part in parts if backfill.order == "asc" else reversed(parts):
        yield from intervals.each(part, backfill.order)


def _settle(connection: Connection, backfill: BackfillRecord, work: BackfillWork, now: datetime) -> None:
    """Give a backfill its end if nothing of it is under way, and nothing left to start."""
    state = state_in(connection, backfill, now)
    if not is_unsettled(backfill) or state.runs:
        return
    if backfill.status is BackfillStatus.RUNNING:
        if any(without(backfill.whole, [each.interval for each in state.ranges])):
            return
        status = _outcome({each.status for each in state.ranges})
        _change(connection, backfill.backfill_id, status=status)
        if status is BackfillStatus.PAUSED:
            return
    _change(connection, backfill.backfill_id, finished_at=now)
    ended = state_in(connection, backfill_of(connection, backfill.backfill_id), now)
    alert = work.digest(ended, warned_runs(connection, backfill.backfill_id))
    if alert is not None:
        put_alert(connection, backfill.job_id, alert, now)


def _outcome(statuses: set[IntervalStatus]) -> BackfillStatus:
    if IntervalStatus.STOPPED in statuses:
        return BackfillStatus.PAUSED
    return BackfillStatus.FAILED if IntervalStatus.FAILED in statuses else BackfillStatus.COMPLETED


def _leave_out(
    connection: Connection,
    backfill: NewBackfill,
    intervals: BackfillIntervals,
    statuses: frozenset[IntervalStatus],
) -> None:
    """Skip the intervals that lie wholly in what the job's stream has done with one of *statuses*."""
    if not statuses:
        return
    done = ranges_in(connection, job_scope(backfill.job_id, backfill.stream), backfill.whole)
    keep = {IntervalStatus.LOADED, IntervalStatus.SKIPPED}
    for part in united(each.interval for each in done if each.status in statuses):
        inside = intervals.inside(part)
        if inside is not None:
            mark(connection, backfill_scope(backfill.backfill_id), inside, IntervalStatus.SKIPPED, keep=keep)


def _go_on(connection: Connection, backfill: BackfillRecord) -> None:
    again = {IntervalStatus.STOPPED}
    if backfill.status is BackfillStatus.FAILED:
        again.add(IntervalStatus.FAILED)
    forget(connection, backfill_scope(backfill.backfill_id), again)
    _change(connection, backfill.backfill_id, status=BackfillStatus.RUNNING, finished_at=None)


def _same(connection: Connection, new: NewBackfill) -> BackfillRecord | None:
    found = tables.backfills.c
    query = (
        select(tables.backfills)
        .where(
            found.job_id == new.job_id,
            found.job_version == new.job_version,
            found.stream == new.stream,
            found.window_start == new.window_start,
            found.window_end == new.window_end,
            found.split == new.split,
            found.reprocess == new.reprocess,
            found.status != BackfillStatus.COMPLETED,
        )
        .order_by(found.created_at.desc(), found.backfill_id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    backfill = record_of(row)
    ranges = ranges_in(connection, backfill_scope(backfill.backfill_id), backfill.whole)
    through = not any(without(backfill.whole, [each.interval for each in ranges]))
    return None if backfill.status is BackfillStatus.FAILED and through else backfill


def _refuse_overlap(connection: Connection, new: NewBackfill, *, but: BackfillRecord | None) -> None:
    for other in overlapping_in(connection, new.job_id, new.stream, new.whole):
        if but is not None and other.backfill_id == but.backfill_id:
            continue
        raise ConflictError(
            f"backfill {other.backfill_id} of {new.job_id} has a part of this range: it is {other.status}, from "
            f"{rfc3339(other.window_start)} to {rfc3339(other.window_end)} with version {other.job_version} "
            "of the job",
            hint=f"let it end, or give it up: ecmbatch backfill cancel {other.backfill_id}",
        )


def _under_way(runs: Sequence[RunRecord]) -> list[Interval]:
    return [interval for run in runs if (interval := interval_of(run)) is not None]


def _key_is_taken(connection: Connection, new: NewRun) -> bool:
    runs = tables.runs.c
    query = select(runs.run_id).where(runs.job_id == new.job_id, runs.run_key == new.run_key)
    return connection.execute(query).first() is not None


def _change(connection: Connection, backfill_id: str, **values: Any) -> None:
    connection.execute(
        update(tables.backfills).where(tables.backfills.c.backfill_id == backfill_id).values(**values)
    )
