"""Up to where each stream of a job is loaded: what ``previous_job.end_time`` means, with its history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, select

from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.records import RunRecord, Watermark


class Watermarks:
    """The ledger's watermarks. Every change is kept; the newest one counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def latest(self, job_id: str, stream: str) -> Watermark | None:
        """Return up to where the stream is loaded."""
        history = self.history(job_id, stream, limit=1)
        return history[0] if history else None

    def history(self, job_id: str, stream: str, *, limit: int = 20) -> Sequence[Watermark]:
        """Return the stream's watermarks, newest first."""
        marks = tables.watermarks.c
        query = (
            select(marks.window_end, marks.run_id, marks.reason, marks.at)
            .where(marks.job_id == job_id, marks.stream == stream)
            .order_by(marks.id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return [Watermark(**row._asdict()) for row in connection.execute(query)]

    def set(self, job_id: str, stream: str, window_end: datetime | None, reason: str) -> None:
        """Move the watermark by hand; a run under way keeps the window that it started with."""
        with self._database.write() as connection:
            connection.execute(
                insert(tables.watermarks).values(
                    job_id=job_id,
                    stream=stream,
                    window_end=window_end,
                    run_id=None,
                    reason=reason,
                    at=self._database.now(connection),
                )
            )


def move_watermark(connection: Connection, run: RunRecord, now: datetime) -> None:
    """Let a successful live run's window end count, in the transaction that makes it a success."""
    if run.window_end is None:
        return
    connection.execute(
        insert(tables.watermarks).values(
            job_id=run.job_id,
            stream=run.stream,
            window_end=run.window_end,
            run_id=run.run_id,
            reason="run succeeded",
            at=now,
        )
    )
