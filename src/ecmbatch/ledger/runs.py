"""Runs and the attempts at them: launching, taking over, leases, fencing, ending. Reading is in `run_queries`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ecmbatch.errors import Fenced, NotResumable, RunAlreadyActive, RunAlreadyComplete
from ecmbatch.ledger import tables
from ecmbatch.ledger.alerts import put_outcome
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.events import add_completion
from ecmbatch.ledger.intervals import mark_interval
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import AttemptRecord, Document, Fence, NewRun, RunRecord
from ecmbatch.ledger.run_queries import RunQueries, active_attempt, is_live, latest_run, run_of
from ecmbatch.ledger.watermarks import move_watermark
from ecmbatch.protocol.checkpoint import PartitionStatus, rfc3339
from ecmbatch.protocol.recovery import (
    Launch,
    LaunchDecision,
    PartitionProgress,
    RemainingWork,
    remaining_work,
)
from ecmbatch.protocol.run import ACTIVE, FINAL, RunStatus, may_follow

WORKER_LOST = "worker_lost"
"""The error's code of an attempt whose worker ended without a word."""

GAVE_UP = "gave_up"
"""The error's code of the last of so many such attempts that no other was made."""


class Runs(RunQueries):
    """The ledger's runs. *lease* is how long an attempt's claim holds without being renewed."""

    def __init__(self, database: Database, lease: timedelta) -> None:
        super().__init__(database)
        self._lease = lease

    # -- launching ---------------------------------------------------------------------------------

    def launch(
        self, new: NewRun, decide: Callable[[RunRecord | None], LaunchDecision], owner: Owner
    ) -> tuple[LaunchDecision, RunRecord, Fence | None]:
        """Create or continue a run of *new*'s lane, and claim it, in one transaction.

        *decide* gets the lane's latest run. Where it answers ``REPLACE`` nothing is written: the latest run
        comes back without a fence, for the caller to abandon first.

        Raises :class:`~ecmbatch.errors.RunAlreadyActive` when a live attempt of the lane exists and
        :class:`~ecmbatch.errors.RunAlreadyComplete` when the run's key was successful before.
        """
        try:
            with self._database.write() as connection:
                now = self._database.now(connection)
                latest = latest_run(connection, new.job_id, new.lane)
                self._refuse_if_live(connection, new.job_id, new.lane, now)
                decision = decide(latest)
                if latest is not None and decision.launch is Launch.REPLACE:
                    return decision, latest, None
                if latest is not None and decision.launch is Launch.CONTINUE:
                    run = self._take_from_workers(connection, latest)
                else:
                    run = create_run(connection, new, now)
                fence = self.claim_in(connection, run, owner, now)
                return decision, run_of(connection, run.run_id), fence
        except IntegrityError as error:
            raise RunAlreadyActive(f"another process started {new.job_id} at the same moment") from error

    def resume(
        self,
        run_id: str,
        owner: Owner,
        *,
        permit: Callable[[RunRecord], None] | None = None,
        ended: Fence | None = None,
        error: Document | None = None,
        waited: bool = False,
    ) -> tuple[RunRecord, Fence]:
        """Claim an existing run for a new attempt.

        *permit* may raise, once it is known that the run could be claimed and before anything is changed.
        *ended* is an attempt of the caller's own that is over, with *error*, although the ledger may not have heard
        of it. So is the next one if it is *owner*'s: an earlier call claimed it, whose acknowledgement was lost.

        Only with *waited* is a run taken that waits for other jobs. Raises ``UsageError`` (no such run),
        ``RunAlreadyActive``, ``RunAlreadyComplete``, ``NotResumable``.
        """
        try:
            with self._database.write() as connection:
                now = self._database.now(connection)
                run = run_of(connection, run_id)
                attempt = active_attempt(connection, _in_lane(run.job_id, run.lane))
                if ended is None or attempt is None or not _is_over(attempt, ended, owner):
                    _refuse_live(attempt, run.job_id, now)
                if run.status is RunStatus.SUCCESS:
                    raise RunAlreadyComplete(f"run {run_id} succeeded; there is nothing to resume")
                if run.status is RunStatus.WAITING and not waited:
                    raise NotResumable(
                        f"run {run_id} waits for other jobs: {'; '.join(run.waiting or ())}",
                        hint=f"run it without waiting: ecmbatch run {run.job_id} --ignore-dependencies",
                    )
                if not may_follow(run.status, RunStatus.IN_PROGRESS):
                    raise NotResumable(
                        f"run {run_id} is {run.status} and cannot be resumed",
                        hint=f"start a new run: ecmbatch run {run.job_id}",
                    )
                if permit is not None:
                    permit(run)
                fence = self.claim_in(connection, run, owner, now, error)
                return run_of(connection, run_id), fence
        except IntegrityError as conflict:
            raise RunAlreadyActive(f"another process resumed run {run_id} at the same moment") from conflict

    def refuse_if_live(self, job_id: str, lane: str) -> None:
        """Raise ``RunAlreadyActive`` while somebody executes a run of the lane."""
        with self._database.read() as connection:
            self._refuse_if_live(connection, job_id, lane, self._database.now(connection))

    def record_skipped(self, new: NewRun, error: Document) -> RunRecord:
        """Remember a run that was refused before its first attempt, with the reasons."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            create_run(connection, new, now)
            connection.execute(
                update(tables.runs)
                .where(tables.runs.c.run_id == new.run_id)
                .values(
                    status=RunStatus.SKIPPED,
                    run_key=skipped_key(new.run_key, new.run_id),
                    error=error,
                    finished_at=now,
                )
            )
            return run_of(connection, new.run_id)

    def freeze(
        self,
        fence: Fence,
        *,
        started_at: datetime,
        window: tuple[datetime | None, datetime | None],
        plan: Document,
        digest: str,
        definition: Document,
        partitions_of_scan: Sequence[Sequence[int]],
        stage: Document,
    ) -> None:
        """Fix what every attempt of the run shares: definition, window, resolved parameters, partitions, head,
        and the stage that its rows are in."""
        with self._database.write() as connection:
            check_fence(connection, fence)
            connection.execute(
                update(tables.runs)
                .where(tables.runs.c.run_id == fence.run_id)
                .values(
                    started_at=started_at,
                    window_start=window[0],
                    window_end=window[1],
                    plan=dict(plan),
                    digest=digest,
                    definition=dict(definition),
                    stage=dict(stage),
                )
            )
            scans = [
                {
                    "run_id": fence.run_id,
                    "scan": scan,
                    "token": 0,
                    "sequence": 0,
                    "cursor": None,
                    "completed": False,
                }
                for scan in range(len(partitions_of_scan))
            ]
            connection.execute(insert(tables.scans), scans)
            partitions = [
                {
                    "run_id": fence.run_id,
                    "partition": partition,
                    "scan": scan,
                    "status": PartitionStatus.PENDING,
                    "offset": 0,
                    "staged": 0,
                    "filtered": 0,
                    "observations": None,
                }
                for scan, of_scan in enumerate(partitions_of_scan)
                for partition in of_scan
            ]
            connection.execute(insert(tables.partitions), partitions)

    def amend_plan(self, fence: Fence, plan: Document) -> None:
        """Replace the frozen plan by one that also knows what the run has staged to look things up in."""
        with self._database.write() as connection:
            check_fence(connection, fence)
            connection.execute(
                update(tables.runs).where(tables.runs.c.run_id == fence.run_id).values(plan=dict(plan))
            )

    def amend(self, fence: Fence, *, plan: Document, digest: str, definition: Document) -> None:
        """Replace the frozen plan after an operator accepted a changed definition."""
        with self._database.write() as connection:
            check_fence(connection, fence)
            connection.execute(
                update(tables.runs)
                .where(tables.runs.c.run_id == fence.run_id)
                .values(plan=dict(plan), digest=digest, definition=dict(definition))
            )

    def amend_stage(self, fence: Fence, stage: Document) -> None:
        """Remember another stage for a run that has nothing staged."""
        with self._database.write() as connection:
            check_fence(connection, fence)
            connection.execute(
                update(tables.runs).where(tables.runs.c.run_id == fence.run_id).values(stage=dict(stage))
            )

    def _take_from_workers(self, connection: Connection, run: RunRecord) -> RunRecord:
        """A run that a command begins is its command's: it knows the job as its file says, not a version of it."""
        if run.plan is None and run.job_version is not None:
            connection.execute(
                update(tables.runs).where(tables.runs.c.run_id == run.run_id).values(job_version=None)
            )
        return run

    def claim_in(
        self,
        connection: Connection,
        run: RunRecord,
        owner: Owner,
        now: datetime,
        error: Document | None = None,
    ) -> Fence:
        """Begin the next attempt, in the transaction of the caller: whoever held the run before is fenced off from
        here on. *error* is what that attempt ended with, if it is known."""
        lost = active_attempt(connection, _in_lane(run.job_id, run.lane))
        self._end_lost_attempt(connection, lost, now, error)
        if lost is not None and lost.run_id != run.run_id:
            self._conclude(connection, run_of(connection, lost.run_id), RunStatus.FAILED, now)
        run = run_of(connection, run.run_id)
        fence = Fence(run_id=run.run_id, attempt=run.attempt + 1, epoch=run.epoch + 1)
        work = self._remaining_work(connection, run.run_id)
        self._set_status(
            connection,
            run,
            RunStatus.IN_PROGRESS,
            attempt=fence.attempt,
            epoch=fence.epoch,
            finished_at=None,
            error=None,
        )
        connection.execute(
            insert(tables.attempts).values(
                run_id=run.run_id,
                attempt=fence.attempt,
                job_id=run.job_id,
                lane=run.lane,
                epoch=fence.epoch,
                active=True,
                owner=owner.document(),
                lease_expires_at=now + self._lease,
                started_at=now,
                skipped=len(work.skipped),
                resumed=len(work.resumed),
            )
        )
        return fence

    def settle_lost(self, run_id: str) -> None:
        """Give a run its end whose process is gone, where no worker will take it over; nothing while it is alive.

        A run that was to stop is stopped. One of a command has failed, and is continued by ``run`` as ever.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            run = run_of(connection, run_id)
            attempt = active_attempt(connection, tables.attempts.c.run_id == run_id)
            if run.status not in ACTIVE or (attempt is not None and is_live(attempt, now)):
                return
            if run.status is RunStatus.STOPPING:
                self.stop_in(connection, run_id, now)
            elif run.job_version is None:
                self._end_lost_attempt(connection, attempt, now)
                self._conclude(connection, run_of(connection, run_id), RunStatus.FAILED, now)

    def give_up_in(self, connection: Connection, run: RunRecord, now: datetime) -> None:
        """Let a run fail whose workers keep dying, in the transaction of the caller."""
        self._end_lost_attempt(
            connection, active_attempt(connection, tables.attempts.c.run_id == run.run_id), now
        )
        error = {
            "code": WORKER_LOST,
            "message": f"the workers of {run.attempt} attempts ended without a word (killed, or out of memory)",
            "hint": f"see what ends them, then go on with: ecmbatch resume {run.run_id}",
        }
        attempts = tables.attempts.c
        # Whoever lets it go on afterwards begins to count anew.
        connection.execute(
            update(tables.attempts)
            .where(attempts.run_id == run.run_id, attempts.attempt == run.attempt)
            .values(error={**error, "code": GAVE_UP})
        )
        connection.execute(
            update(tables.runs)
            .where(tables.runs.c.run_id == run.run_id)
            .values(status=RunStatus.FAILED, error=error, finished_at=now)
        )
        self._conclude(connection, run, RunStatus.FAILED, now)

    # -- being alive -------------------------------------------------------------------------------

    def renew(self, fence: Fence) -> RunStatus:
        """Prolong the attempt's lease and tell the run's status; raises ``Fenced`` once it was taken over."""
        with self._database.write() as connection:
            status = check_fence(connection, fence)
            connection.execute(
                update(tables.attempts)
                .where(_this_attempt(fence))
                .values(lease_expires_at=self._database.now(connection) + self._lease)
            )
            return status

    def status(self, fence: Fence) -> RunStatus:
        """Tell the run's status without prolonging anything; raises ``Fenced`` once it was taken over."""
        with self._database.read() as connection:
            row = connection.execute(
                select(tables.runs.c.status, tables.runs.c.epoch).where(tables.runs.c.run_id == fence.run_id)
            ).one()
        if row.epoch != fence.epoch:
            raise _fenced(fence)
        return RunStatus(row.status)

    def request_stop(self, run_id: str) -> RunRecord:
        """Ask the run's worker to stop at its next checkpoint; a run without a worker stops at once.

        Raises :class:`~ecmbatch.errors.RunAlreadyComplete` when the run has ended.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            run = run_of(connection, run_id)
            if run.status not in ACTIVE and not may_follow(run.status, RunStatus.STOPPED):
                raise RunAlreadyComplete(f"run {run_id} is not under way: it is {run.status}")
            self.stop_in(connection, run_id, now)
            stopped = run_of(connection, run_id)
            if stopped.status is RunStatus.STOPPED:
                mark_interval(connection, stopped, RunStatus.STOPPED)
            return stopped

    def stop_in(self, connection: Connection, run_id: str, now: datetime) -> None:
        """Ask a run to stop, in the transaction of the caller; one that nobody executes stops at once."""
        run = run_of(connection, run_id)
        attempt = active_attempt(connection, tables.attempts.c.run_id == run_id)
        if attempt is not None and is_live(attempt, now):
            if run.status is not RunStatus.STOPPING:
                self._set_status(connection, run, RunStatus.STOPPING)
            return
        self._end_lost_attempt(connection, attempt, now)
        self._set_status(connection, run_of(connection, run_id), RunStatus.STOPPED, finished_at=now)

    # -- ending ------------------------------------------------------------------------------------

    def finish(
        self,
        fence: Fence,
        status: RunStatus,
        *,
        error: Document | None = None,
        publication: Document | None = None,
    ) -> RunRecord:
        """End the attempt and give the run its status; success of a live run moves the watermark with it."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            check_fence(connection, fence)
            run = run_of(connection, fence.run_id)
            # A run that was only released goes on with the next worker.
            values: dict[str, Any] = {
                "finished_at": None if status is RunStatus.QUEUED else now,
                "error": error,
            }
            if status is RunStatus.SKIPPED and run.job_version is None:
                values["run_key"] = skipped_key(run.run_key, run.run_id)
            if publication is not None:
                values["publication"] = dict(publication)
            self._set_status(connection, run, status, **values)
            connection.execute(
                update(tables.attempts)
                .where(_this_attempt(fence))
                .values(active=False, finished_at=now, error=error)
            )
            self._conclude(connection, run, status, now)
            return run_of(connection, fence.run_id)

    def settle(
        self, run_id: str, status: RunStatus, *, error: Document | None, publication: Document | None = None
    ) -> RunRecord:
        """Give a run that nobody executes its end: abandoned, or success where the store says published.

        Raises ``RunAlreadyActive`` while somebody executes it.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            run = run_of(connection, run_id)
            if run.status is status:
                return run
            self._refuse_if_live(connection, run.job_id, run.lane, now, run_id=run_id)
            attempt = active_attempt(connection, tables.attempts.c.run_id == run_id)
            self._end_lost_attempt(connection, attempt, now)
            run = run_of(connection, run_id)
            if not may_follow(run.status, status):
                raise NotResumable(f"run {run_id} is {run.status} and cannot become {status}")
            # A worker that only sleeps must find a later epoch when it wakes.
            self._set_status(
                connection,
                run,
                status,
                epoch=run.epoch + 1,
                finished_at=now,
                error=error,
                publication=publication,
            )
            self._conclude(connection, run, status, now)
            return run_of(connection, run_id)

    # -- inside a transaction ----------------------------------------------------------------------

    def _conclude(self, connection: Connection, run: RunRecord, status: RunStatus, now: datetime) -> None:
        """Let the end of *run* count for what comes later, in the transaction that makes it the end."""
        if status is RunStatus.SUCCESS and run.ordered:
            move_watermark(connection, run, now)
            self._supersede_older(connection, run, now)
        add_completion(connection, run, status, now)
        put_outcome(connection, run_of(connection, run.run_id), now)
        mark_interval(connection, run, status)

    def _remaining_work(self, connection: Connection, run_id: str) -> RemainingWork:
        found = tables.partitions.c
        rows = connection.execute(
            select(found.partition, found.scan, found.status, found.offset).where(found.run_id == run_id)
        )
        return remaining_work(
            PartitionProgress(
                partition=row.partition, scan=row.scan, status=PartitionStatus(row.status), offset=row.offset
            )
            for row in rows
        )

    def _refuse_if_live(
        self,
        connection: Connection,
        job_id: str,
        lane: str,
        now: datetime,
        *,
        run_id: str | None = None,
    ) -> None:
        attempt = active_attempt(
            connection, _in_lane(job_id, lane) if run_id is None else tables.attempts.c.run_id == run_id
        )
        _refuse_live(attempt, job_id, now)

    def _end_lost_attempt(
        self,
        connection: Connection,
        attempt: AttemptRecord | None,
        now: datetime,
        error: Document | None = None,
    ) -> None:
        """Close the attempt of a worker that is gone, so that its run and its lane can be claimed."""
        if attempt is None:
            return
        error = error or {"code": WORKER_LOST, "message": f"{attempt.owner} ended without a word"}
        connection.execute(
            update(tables.attempts)
            .where(tables.attempts.c.run_id == attempt.run_id, tables.attempts.c.attempt == attempt.attempt)
            .values(active=False, finished_at=now, error=error)
        )
        connection.execute(
            update(tables.runs)
            .where(tables.runs.c.run_id == attempt.run_id)
            .values(epoch=tables.runs.c.epoch + 1, status=RunStatus.FAILED, finished_at=now, error=error)
        )

    def _set_status(self, connection: Connection, run: RunRecord, status: RunStatus, **values: Any) -> None:
        if not may_follow(run.status, status):
            raise NotResumable(f"run {run.run_id} is {run.status} and cannot become {status}")
        changed = connection.execute(
            update(tables.runs)
            .where(tables.runs.c.run_id == run.run_id, tables.runs.c.epoch == run.epoch)
            .values(status=status, **values)
        )
        if changed.rowcount != 1:
            raise Fenced(f"run {run.run_id} was taken over by another process")

    def _supersede_older(self, connection: Connection, run: RunRecord, now: datetime) -> None:
        older = tables.runs.c
        connection.execute(
            update(tables.runs)
            .where(
                older.job_id == run.job_id,
                older.lane == run.lane,
                older.live,
                older.run_id != run.run_id,
                older.number < run.number,
                older.status.not_in(FINAL),
                # What a schedule made and nobody began has read nothing yet: it may still have its turn.
                or_(older.attempt > 0, older.job_version.is_(None)),
            )
            .values(
                status=RunStatus.ABANDONED,
                epoch=older.epoch + 1,
                finished_at=now,
                error={
                    "code": "superseded",
                    "message": f"superseded by run {run.run_id}, which succeeded later",
                },
            )
        )


def create_run(
    connection: Connection, new: NewRun, now: datetime, status: RunStatus = RunStatus.QUEUED
) -> RunRecord:
    """Add a run in the transaction of the caller; raises SQLAlchemy's ``IntegrityError`` where its key is taken."""
    connection.execute(
        insert(tables.runs).values(
            **asdict(new),
            number=select(func.coalesce(func.max(tables.runs.c.number), 0) + 1).scalar_subquery(),
            status=status,
            attempt=0,
            epoch=0,
            created_at=now,
        )
    )
    return run_of(connection, new.run_id)


def check_fence(connection: Connection, fence: Fence) -> RunStatus:
    """Take the run's row for this transaction and return its status; raise ``Fenced`` where it moved on."""
    held = connection.execute(
        select(tables.runs.c.status)
        .where(
            tables.runs.c.run_id == fence.run_id,
            tables.runs.c.epoch == fence.epoch,
            tables.runs.c.status.in_(ACTIVE),
        )
        .with_for_update()
    )
    status = held.scalar_one_or_none()
    if status is None:
        raise _fenced(fence)
    return RunStatus(status)


def _refuse_live(attempt: AttemptRecord | None, job_id: str, now: datetime) -> None:
    if attempt is not None and is_live(attempt, now):
        raise RunAlreadyActive(
            f"{job_id} is already running: run {attempt.run_id}, attempt {attempt.attempt}, "
            f"by {attempt.owner} (its lease holds until {rfc3339(attempt.lease_expires_at)})",
            hint=f"wait for it, or stop it with: ecmbatch stop {attempt.run_id}",
        )


def _is_over(attempt: AttemptRecord, ended: Fence, owner: Owner) -> bool:
    """Tell whether *owner*, whose attempt *ended* is over, executes *attempt* no more either."""
    follows = (attempt.run_id, attempt.attempt) == (ended.run_id, ended.attempt + 1)
    return _fence_of(attempt) == ended or (follows and attempt.owner == owner)


def skipped_key(run_key: str, run_id: str) -> str:
    """A run that never began must not keep its key from the run that does."""
    return f"{run_key}:skipped:{run_id}"


def _fenced(fence: Fence) -> Fenced:
    return Fenced(
        f"attempt {fence.attempt} of run {fence.run_id} was taken over or ended by another process; "
        "nothing it does counts any more"
    )


def _fence_of(attempt: AttemptRecord) -> Fence:
    return Fence(run_id=attempt.run_id, attempt=attempt.attempt, epoch=attempt.epoch)


def _in_lane(job_id: str, lane: str) -> Any:
    return and_(tables.attempts.c.job_id == job_id, tables.attempts.c.lane == lane)


def _this_attempt(fence: Fence) -> Any:
    return and_(tables.attempts.c.run_id == fence.run_id, tables.attempts.c.attempt == fence.attempt)
