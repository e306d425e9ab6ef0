"""What has happened: events from outside and the ends of runs, and what of it each job has consumed.

The table is only added to. Writers take turns, so that whoever sees an event sees all those before it, and
"consumed up to a sequence" is all that has to be remembered of a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.records import EventRecord, RunRecord
from ecmbatch.protocol.run import RunStatus

_COMPLETIONS = frozenset({RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.VALIDATION_FAILED})


class Events:
    """The ledger's events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def emit(self, name: str, *, key: str | None = None) -> tuple[EventRecord, bool]:
        """Add an event from outside; tell whether it is new.

        Of all events of one name with one *key* there is only one: whoever is not sure to have emitted it may
        emit it again.
        """
        event_key = None if key is None else f"{name}:{key}"
        with self._database.write() as connection:
            if event_key is not None:
                there = connection.execute(
                    select(tables.events).where(tables.events.c.event_key == event_key)
                ).one_or_none()
                if there is not None:
                    return _event(there), False
            sequence = connection.execute(
                insert(tables.events)
                .values(at=self._database.now(connection), name=name, event_key=event_key)
                .returning(tables.events.c.sequence)
            ).scalar_one()
            added = connection.execute(
                select(tables.events).where(tables.events.c.sequence == sequence)
            ).one()
            return _event(added), True

    def waiting_for(
        self, job_id: str, *, names: Sequence[str], jobs: Sequence[str]
    ) -> tuple[Sequence[EventRecord], Mapping[str, int]]:
        """Return the events of *names* and of runs of *jobs* that may not be consumed yet, oldest first, and up
        to where the job has consumed those of each leg."""
        with self._database.read() as connection:
            consumed = consumed_by(connection, job_id)
            return events_after(connection, min(consumed.values(), default=0), names, jobs), consumed


def add_completion(connection: Connection, run: RunRecord, status: RunStatus, now: datetime) -> None:
    """Add the end of a live run to what has happened; a backfill of the past is nobody's news."""
    if run.live and status in _COMPLETIONS:
        connection.execute(
            insert(tables.events).values(at=now, job_id=run.job_id, status=status, run_id=run.run_id)
        )


def latest_sequence(connection: Connection) -> int:
    """Return the sequence of the newest event, 0 where there is none."""
    return int(connection.execute(select(func.coalesce(func.max(tables.events.c.sequence), 0))).scalar_one())


def consumed_by(connection: Connection, job_id: str) -> dict[str, int]:
    """Return up to which sequence a job has consumed the events of each of its legs."""
    cursors = tables.event_cursors.c
    rows = connection.execute(select(cursors.leg, cursors.sequence).where(cursors.job_id == job_id))
    return {row.leg: row.sequence for row in rows}


def set_legs(connection: Connection, job_id: str, legs: Sequence[str]) -> None:
    """Let a job listen to *legs* and no others; a leg that is new to it begins with what happens from now on."""
    cursors = tables.event_cursors
    known = consumed_by(connection, job_id)
    connection.execute(delete(cursors).where(cursors.c.job_id == job_id, cursors.c.leg.not_in(legs)))
    begin = latest_sequence(connection)
    for leg in legs:
        if leg not in known:
            connection.execute(insert(cursors).values(job_id=job_id, leg=leg, sequence=begin))


def consume(connection: Connection, job_id: str, up_to: int) -> None:
    """Remember that a job has consumed everything up to a sequence."""
    cursors = tables.event_cursors
    connection.execute(
        update(cursors).where(cursors.c.job_id == job_id, cursors.c.sequence < up_to).values(sequence=up_to)
    )


def events_after(
    connection: Connection, sequence: int, names: Sequence[str], jobs: Sequence[str]
) -> Sequence[EventRecord]:
    """Return the events of *names* and of runs of *jobs* after *sequence*, oldest first."""
    events = tables.events.c
    query = (
        select(tables.events)
        .where(events.sequence > sequence, or_(events.name.in_(names), events.job_id.in_(jobs)))
        .order_by(events.sequence)
    )
    return [_event(row) for row in connection.execute(query)]


def _event(row: Row[Any]) -> EventRecord:
    values = row._asdict()
    status = values["status"]
    return EventRecord(**{**values, "status": None if status is None else RunStatus(status)})
