"""The outbox of alerts: kept in the transaction that has the reason for them, delivered afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import Alert

_DELIVERY = timedelta(minutes=1)
"""How long a delivery may take before somebody else begins it again."""

NO_RUN = ""
"""The run of an alert that is about a job and not about any of its runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAlert:
    """A message for *recipients*; it is kept only where the outcome of the job's *key* changed.

    The outcome before the first alert counts as ``pass``.
    """

    key: str
    outcome: str
    recipients: Sequence[str]
    message: str


class Alerts:
    """The ledger's alerts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, job_id: str, alert: NewAlert, *, run_id: str = NO_RUN) -> bool:
        """Keep an alert if it is news; tell whether it was."""
        with self._database.write() as connection:
            return put_alert(connection, job_id, alert, self._database.now(connection), run_id=run_id)

    def all(self, *, run_id: str | None = None, undelivered: bool = False) -> Sequence[Alert]:
        """Return alerts, oldest first."""
        query = select(tables.alerts).order_by(tables.alerts.c.id)
        if run_id is not None:
            query = query.where(tables.alerts.c.run_id == run_id)
        if undelivered:
            query = query.where(tables.alerts.c.delivered_at.is_(None))
        with self._database.read() as connection:
            return [_alert(row) for row in connection.execute(query)]

    def claim(self, owner: Owner) -> Sequence[Alert]:
        """Return the alerts that wait, oldest first, for *owner* to deliver; nobody else gets them meanwhile.

        Those that a process claimed and did not live to deliver are given to the next.
        """
        alerts = tables.alerts.c
        query = select(tables.alerts).where(alerts.delivered_at.is_(None)).order_by(alerts.id)
        with self._database.read() as connection:
            if connection.execute(query.limit(1)).first() is None:
                return []
        with self._database.write() as connection:
            now = self._database.now(connection)
            free = [row for row in connection.execute(query) if _is_free(row, now)]
            connection.execute(
                update(tables.alerts)
                .where(alerts.id.in_([row.id for row in free]))
                .values(delivering=owner.document(), delivering_until=now + _DELIVERY)
            )
            return [_alert(row) for row in free]

    def mark_delivered(self, alert_id: int) -> None:
        """Remember that an alert reached its recipients."""
        with self._database.write() as connection:
            connection.execute(
                update(tables.alerts)
                .where(tables.alerts.c.id == alert_id)
                .values(delivered_at=self._database.now(connection))
            )


def put_alert(
    connection: Connection, job_id: str, alert: NewAlert, now: datetime, *, run_id: str = NO_RUN
) -> bool:
    """Keep an alert if it is news, in the transaction of the caller; tell whether it was."""
    if (_latest_outcome(connection, job_id, alert.key) or "pass") == alert.outcome:
        return False
    connection.execute(
        insert(tables.alerts).values(
            run_id=run_id,
            job_id=job_id,
            key=alert.key,
            outcome=alert.outcome,
            recipients=list(alert.recipients),
            message=alert.message,
            created_at=now,
        )
    )
    return True


def _is_free(row: Row[Any], now: datetime) -> bool:
    is_claimed = row.delivering_until is not None and now < row.delivering_until
    return not is_claimed or Owner.from_document(row.delivering).is_certainly_dead()


def _alert(row: Row[Any]) -> Alert:
    values = row._asdict()
    del values["delivering"], values["delivering_until"]
    return Alert(**values)


def _latest_outcome(connection: Connection, job_id: str, key: str) -> Any:
    query = (
        select(tables.alerts.c.outcome)
        .where(tables.alerts.c.job_id == job_id, tables.alerts.c.key == key)
        .order_by(tables.alerts.c.id.desc())
    )
    return connection.execute(query.limit(1)).scalars().first()
