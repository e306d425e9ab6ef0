"""Forgetting runs that ended long ago, never what later runs build on.

First the details go, which only a run under way needs. A run's row, its attempts, partitions, verdicts and
publication stay, and so do watermarks: keys that must not be used twice, ``previous_job``, dependencies and what
``show`` tells. The rows of ``scans`` go with the details in one transaction: a run without them has been pruned.

Where a project wants that, whole runs go too. What was loaded is remembered without them: the cursors of
jobs, their watermarks and the ranges of intervals stay, and so does the latest run of each stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    Table,
    and_,
    cast,
    delete,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
    update,
)

from ecmbatch.ledger import tables
from ecmbatch.ledger.alerts import OF_ONE_RUN
from ecmbatch.ledger.database import Database
from ecmbatch.protocol.run import FINAL, RunStatus

_ALL = 2**62
_SOMETHING = "something"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """What could be forgotten of a run; ``records`` counts rows of the ledger."""

    run_id: str
    job_id: str
    ended_at: datetime
    records: int


class Retention:
    """The ledger's memory of runs that ended for good."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def details_before(self, before: datetime) -> Sequence[RunDetails]:
        """Return the runs that ended for good before *before* and still have their details, oldest first."""
        runs, details = tables.runs.c, _numbers_of_details().subquery()
        records = func.sum(details.c.records)
        query = (
            select(
                runs.run_id,
                runs.job_id,
                runs.finished_at.label("ended_at"),
                cast(records, BigInteger).label("records"),
            )
            .join_from(tables.runs, details, details.c.run_id == runs.run_id)
            .where(runs.status.in_(FINAL), runs.finished_at < before)
            .group_by(runs.run_id, runs.job_id, runs.finished_at, runs.number)
            .order_by(runs.number)
        )
        with self._database.read() as connection:
            return [RunDetails(**row._asdict()) for row in connection.execute(query)]

    def forget(self, run_id: str) -> None:
        """Delete the details of a run that ended for good; one transaction, nothing where there are none.

        Each partition keeps its latest checkpoint without the cursor, which holds a value of the source. An
        alert stays that is the latest of its kind: it tells whether the next one is news. No other follows of one
        that is about this run alone.
        """
        partitions, checkpoints = tables.partitions, tables.checkpoints
        with self._database.write() as connection:
            ended = select(tables.runs.c.run_id).where(
                tables.runs.c.run_id == run_id, tables.runs.c.status.in_(FINAL)
            )
            if connection.execute(ended).first() is None:
                return
            for table, which in _details_of(run_id):
                connection.execute(delete(table).where(which))
            connection.execute(
                update(checkpoints).where(checkpoints.c.run_id == run_id).values(cursor=null())
            )
            connection.execute(
                update(partitions).where(partitions.c.run_id == run_id).values(observations=null())
            )

    def runs_before(self, before: datetime) -> Sequence[RunDetails]:
        """Return the runs that ended for good before *before* and that no later run builds on, oldest first."""
        runs = tables.runs.c
        query = (
            select(
                runs.run_id,
                runs.job_id,
                runs.finished_at.label("ended_at"),
                literal(1).label("records"),
            )
            .where(runs.status.in_(FINAL), runs.finished_at < before, runs.number.not_in(_heads_of_streams()))
            .order_by(runs.number)
        )
        with self._database.read() as connection:
            return [RunDetails(**row._asdict()) for row in connection.execute(query)]

    def forget_run(self, run_id: str) -> None:
        """Delete a run that ended for good, with everything that is known of it but what it has loaded."""
        self.forget(run_id)
        with self._database.write() as connection:
            gone = connection.execute(
                delete(tables.runs).where(tables.runs.c.run_id == run_id, tables.runs.c.status.in_(FINAL))
            )
            if gone.rowcount:
                for table in (tables.attempts, tables.partitions, tables.checkpoints, tables.verdicts):
                    connection.execute(delete(table).where(table.c.run_id == run_id))

    def forget_events(self, before: datetime) -> int:
        """Delete the events from before *before* that no job still waits to consume; return how many."""
        events, gone = tables.events.c, 0
        with self._database.write() as connection:
            consumed = _consumed_by_all(connection)
            kinds = select(events.name, events.job_id).where(events.at < before).distinct()
            for kind in connection.execute(kinds).all():
                is_outside = kind.name is not None
                about = f"event:{kind.name}" if is_outside else f"job:{kind.job_id}"
                which = events.name == kind.name if is_outside else events.job_id == kind.job_id
                up_to = min(consumed.get(about, _ALL), consumed.get(_SOMETHING, _ALL))
                gone += connection.execute(
                    delete(tables.events).where(events.at < before, events.sequence <= up_to, which)
                ).rowcount
        return gone

    def is_forgotten(self, run_id: str) -> bool:
        """Tell whether the details of a run that had some are gone."""
        query = select(exists().where(tables.partitions.c.run_id == run_id), _has_scans(run_id))
        with self._database.read() as connection:
            had_partitions, has_scans = connection.execute(query).one()
        return bool(had_partitions) and not has_scans


def _consumed_by_all(connection: Connection) -> dict[str, int]:
    """Return up to which event everybody has consumed those of an event's name or of a job.

    A leg that only its hash is known of could be about anything.
    """
    consumed: dict[str, int] = {}
    for row in connection.execute(select(tables.event_cursors.c.leg, tables.event_cursors.c.sequence)):
        for one in row.leg.split("|"):
            kind, _, name = one.partition(":")
            about = {"event": one, "job": f"job:{name.rpartition(':')[0]}"}.get(kind, _SOMETHING)
            consumed[about] = min(row.sequence, consumed.get(about, row.sequence))
    return consumed


def _details_of(run_id: str) -> Sequence[tuple[Table, ColumnElement[bool]]]:
    """Return which rows of which tables can go; those of the scans are last."""
    chunks, checkpoints, alerts, scans = tables.chunks, tables.checkpoints, tables.alerts, tables.scans
    later = checkpoints.alias("later")
    not_the_latest = exists().where(
        later.c.run_id == checkpoints.c.run_id,
        later.c.partition == checkpoints.c.partition,
        later.c.id > checkpoints.c.id,
    )
    return (
        (chunks, chunks.c.run_id == run_id),
        (checkpoints, and_(checkpoints.c.run_id == run_id, not_the_latest)),
        (alerts, and_(alerts.c.run_id == run_id, _of_no_more_use())),
        (scans, scans.c.run_id == run_id),
    )


def _of_no_more_use() -> ColumnElement[bool]:
    """Which alerts can go: those delivered that are not the latest of their key, or are about their run alone."""
    alerts, newer = tables.alerts.c, tables.alerts.alias("newer").c
    told_again = exists().where(newer.job_id == alerts.job_id, newer.key == alerts.key, newer.id > alerts.id)
    of_this_run_alone = alerts.key.in_([f"{kind} " + alerts.run_id for kind in OF_ONE_RUN])
    return and_(alerts.delivered_at.is_not(None), or_(told_again, of_this_run_alone))


def _numbers_of_details() -> CompoundSelect[Any]:
    """How many rows could go of each run that has some: one pass over each table, however many runs there are."""
    chunks, checkpoints, alerts, scans = (
        tables.chunks.c,
        tables.checkpoints.c,
        tables.alerts.c,
        tables.scans.c,
    )
    records = func.count().label("records")
    not_the_latest = func.count() - func.count(checkpoints.partition.distinct())
    return union_all(
        select(chunks.run_id, records).group_by(chunks.run_id),
        select(checkpoints.run_id, not_the_latest).group_by(checkpoints.run_id).having(not_the_latest > 0),
        select(alerts.run_id, records).where(_of_no_more_use()).group_by(alerts.run_id),
        select(scans.run_id, records).group_by(scans.run_id),
    )


def _heads_of_streams() -> CompoundSelect[Any]:
    """The numbers of the runs that the next one of their stream builds on: its latest, and its latest success."""
    runs = tables.runs.c
    latest = select(func.max(runs.number)).where(runs.live).group_by(runs.job_id, runs.stream)
    return union_all(latest, latest.where(runs.status == RunStatus.SUCCESS))


def _has_scans(run_id: str) -> ColumnElement[bool]:
    return exists().where(tables.scans.c.run_id == run_id)
