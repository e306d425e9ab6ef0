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
from ecmbatch.ledger.records import Alert, RunRecord
from ecmbatch.protocol.run import UNFINISHED, RunStatus

_OUTCOME = "run"
"""The key of alerts about the ends of runs."""

_DELIVERY = timedelta(minutes=1)
"""How long a delivery may take before somebody else begins it again."""

NO_RUN = ""
"""The run of an alert that is about a job and not about any of its runs."""

OF_ONE_RUN = ("late", "left", "waited")
"""The first words of keys that name a run after them: it began late, nobody went on with it, it waited in vain."""


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

    def of_unfinished_runs(self) -> frozenset[str]:
        """Return the keys of the alerts of runs that are under way or will be."""
        runs, alerts = tables.runs.c, tables.alerts.c
        query = (
            select(alerts.key)
            .join_from(tables.runs, tables.alerts, alerts.run_id == runs.run_id)
            .where(runs.status.in_(UNFINISHED))
        )
        with self._database.read() as connection:
            return frozenset(connection.execute(query).scalars())

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


def put_outcome(connection: Connection, run: RunRecord, now: datetime) -> None:
    """Tell when the runs of a job begin to fail that nobody watches, and when one succeeds again, whoever ran it.

    A backfill tells of its runs at its end.
    """
    if run.backfill_id is not None or not run.live:
        return
    failed = run.status is RunStatus.FAILED and run.job_version is not None
    if failed or run.status is RunStatus.SUCCESS:
        alert = NewAlert(
            key=_OUTCOME,
            outcome="failed" if failed else "pass",
            recipients=_recipients(connection, run),
            message=f"{run.job_id}, run {run.run_id} "
            + (f"failed: {(run.error or {}).get('message', '')}" if failed else "succeeded again"),
        )
        put_alert(connection, run.job_id, alert, now, run_id=run.run_id)


def _recipients(connection: Connection, run: RunRecord) -> Sequence[str]:
    """Return who is told of a run: those whom its job names; of one by hand, who heard of the failure."""
    if run.job_version is not None:
        versions = tables.job_versions.c
        document = connection.execute(
            select(versions.document).where(
                versions.job_id == run.job_id, versions.version == run.job_version
            )
        ).scalar_one()
        return list(document.get("alerts", []))
    alerts = tables.alerts.c
    told = connection.execute(
        select(alerts.recipients)
        .where(alerts.job_id == run.job_id, alerts.key == _OUTCOME)
        .order_by(alerts.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return told or []


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
