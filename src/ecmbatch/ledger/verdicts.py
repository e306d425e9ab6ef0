"""Verdicts, and the alerts that they cause."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select

from ecmbatch.ledger import tables
from ecmbatch.ledger.alerts import NewAlert, put_alert
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.records import Document, Fence, VerdictRecord
from ecmbatch.ledger.runs import check_fence


class Verdicts:
    """The ledger's verdicts."""

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
                put_alert(connection, job_id, alert, now, run_id=fence.run_id)

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
