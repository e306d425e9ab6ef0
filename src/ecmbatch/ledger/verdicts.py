"""Verdicts, and the outbox of alerts that they cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.records import Alert, Document, Fence, VerdictRecord
from ecmbatch.ledger.runs import check_fence


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAlert:
    """A message for *recipients*; it is kept only where the outcome of the job's *key* changed.

    The outcome before the first alert counts as ``pass``.
    """

    key: str
    outcome: str
    recipients: Sequence[str]
    message: str


class Verdicts:
    """The ledger's verdicts and alerts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(
        self,
        fence: Fence,
        job_id: str,
        *,
        manifest: str,
        rules_digest: str,
        publish: bool,
        report: Document,
        alerts: Sequence[NewAlert],
    ) -> None:
        """Save a verdict and put its alerts into the outbox, in one transaction: a crash loses neither."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            check_fence(connection, fence)
            connection.execute(
                insert(tables.verdicts).values(
                    run_id=fence.run_id,
                    attempt=fence.attempt,
                    at=now,
                    manifest=manifest,
                    rules_digest=rules_digest,
                    publish=publish,
                    report=dict(report),
                )
            )
            for alert in alerts:
                before = _latest_outcome(connection, job_id, alert.key) or "pass"
                if before == alert.outcome:
                    continue
                connection.execute(
                    insert(tables.alerts).values(
                        run_id=fence.run_id,
                        job_id=job_id,
                        key=alert.key,
                        outcome=alert.outcome,
                        recipients=list(alert.recipients),
                        message=alert.message,
                        created_at=now,
                    )
                )

    def latest(self, run_id: str) -> VerdictRecord | None:
        """Return the run's latest verdict."""
        found = tables.verdicts.c
        query = (
            select(found.attempt, found.at, found.manifest, found.rules_digest, found.publish, found.report)
            .where(found.run_id == run_id)
            .order_by(found.id.desc())
        )
        with self._database.read() as connection:
            row = connection.execute(query.limit(1)).first()
        return None if row is None else VerdictRecord(**row._asdict())

    def alerts(self, *, run_id: str | None = None, undelivered: bool = False) -> Sequence[Alert]:
        """Return alerts, oldest first."""
        query = select(tables.alerts).order_by(tables.alerts.c.id)
        if run_id is not None:
            query = query.where(tables.alerts.c.run_id == run_id)
        if undelivered:
            query = query.where(tables.alerts.c.delivered_at.is_(None))
        with self._database.read() as connection:
            return [Alert(**row._asdict()) for row in connection.execute(query)]

    def mark_delivered(self, alert_id: int) -> None:
        """Remember that an alert reached its recipients."""
        with self._database.write() as connection:
            connection.execute(
                update(tables.alerts)
                .where(tables.alerts.c.id == alert_id)
                .values(delivered_at=self._database.now(connection))
            )


def _latest_outcome(connection: Connection, job_id: str, key: str) -> Any:
    query = (
        select(tables.alerts.c.outcome)
        .where(tables.alerts.c.job_id == job_id, tables.alerts.c.key == key)
        .order_by(tables.alerts.c.id.desc())
    )
    return connection.execute(query.limit(1)).scalars().first()
