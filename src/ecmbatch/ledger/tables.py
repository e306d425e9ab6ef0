"""The ledger's tables.

Times are stored in UTC. JSON columns hold plain values only. The partial unique indexes on ``attempts`` are
the mutual exclusion of the whole product: one active attempt per run, and one per lane of a job.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

SCHEMA_VERSION = "0003"
"""The newest revision of ``migrations/versions``; it leads to what stands here."""

metadata = MetaData()


class Instant(TypeDecorator[datetime]):
    """An aware instant; databases without zones keep it in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        instant: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
        return instant.astimezone(UTC)


schema_version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("job_id", String(128), nullable=False),
    Column("run_key", String(200), nullable=False),
    Column("stream", String(64), nullable=False),
    Column("lane", String(200), nullable=False),
    Column("live", Boolean, nullable=False),
    Column("trigger", String(32), nullable=False),
    Column("status", String(32), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("definition", JSON, nullable=False),
    Column("job_file", Text),
    Column("options", JSON, nullable=False),
    Column("scheduled_for", Instant, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("window_start", Instant),
    Column("window_end", Instant),
    Column("plan", JSON),
    Column("publication", JSON),
    Column("error", JSON),
    Column("stage", JSON),
    Column("job_version", Integer),
    Column("waiting", JSON),
    Column("wait_until", Instant),
    Column("backfill_id", String(64)),
    UniqueConstraint("job_id", "run_key", name="one_run_per_key"),
)
Index("runs_of_a_lane", runs.c.job_id, runs.c.lane, runs.c.number)
Index("runs_by_job_and_status", runs.c.job_id, runs.c.status, runs.c.live, runs.c.finished_at)
Index("runs_by_status", runs.c.status, runs.c.number)
Index("runs_of_a_job", runs.c.job_id, runs.c.live, runs.c.status, runs.c.scheduled_for)
Index("runs_by_coverage", runs.c.job_id, runs.c.window_end)
Index("runs_of_a_backfill", runs.c.backfill_id, runs.c.status, runs.c.number)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("job_id", String(128), nullable=False),
    Column("lane", String(200), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("owner", JSON, nullable=False),
    Column("lease_expires_at", Instant, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("skipped", Integer, nullable=False),
    Column("resumed", Integer, nullable=False),
    Column("error", JSON),
)
IS_ACTIVE = attempts.c.active == text("true")
PARTIAL_INDEXES = (
    Index("one_active_attempt_per_run", attempts.c.run_id, unique=True, sqlite_where=IS_ACTIVE),
    Index(
        "one_active_attempt_per_lane",
        attempts.c.job_id,
        attempts.c.lane,
        unique=True,
        sqlite_where=IS_ACTIVE,
    ),
)
"""Each holds the rows for which ``IS_ACTIVE``. To say so for PostgreSQL too is left to `postgres`: the keyword
alone would load that dialect, 50 ms of every command that does not need it."""

scans = Table(
    "scans",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("scan", Integer, primary_key=True, autoincrement=False),
    Column("token", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("cursor", JSON),
    Column("completed", Boolean, nullable=False),
)

partitions = Table(
    "partitions",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("scan", Integer, nullable=False),
    Column("status", String(32), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("staged", BigInteger, nullable=False),
    Column("filtered", BigInteger, nullable=False),
    Column("counts", JSON, nullable=False, default=dict),
    Column("observations", JSON),
)

chunks = Table(
    "chunks",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("scan", Integer, primary_key=True, autoincrement=False),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("file", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(64), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("status", String(32), nullable=False),
    Column("at", Instant, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("cursor", JSON),
    Column("file", Text),
)

Index("checkpoints_of_a_partition", checkpoints.c.run_id, checkpoints.c.partition, checkpoints.c.id)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(64), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("at", Instant, nullable=False),
    Column("manifest", String(64), nullable=False),
    Column("rules_digest", String(64), nullable=False),
    Column("publish", Boolean, nullable=False),
    Column("report", JSON, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(64), nullable=False),
    Column("job_id", String(128), nullable=False),
    Column("key", String(200), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("recipients", JSON, nullable=False),
    Column("message", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("delivered_at", Instant),
    Column("delivering", JSON),
    Column("delivering_until", Instant),
)
Index("alerts_of_a_job", alerts.c.job_id, alerts.c.key, alerts.c.id)
Index("alerts_of_a_run", alerts.c.run_id)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String(128), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("pause_reason", Text),
    Column("paused_at", Instant),
    Column("cursor", Instant, nullable=False),
    Column("problem", JSON),
)
"""What the scheduler knows of a job. No tick at or before its ``cursor`` fires any more."""

job_versions = Table(
    "job_versions",
    metadata,
    Column("job_id", String(128), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("document", JSON, nullable=False),
    Column("job_file", Text),
)

events = Table(
    "events",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("name", String(200)),
    Column("event_key", String(400), unique=True),
    Column("job_id", String(128)),
    Column("status", String(32)),
    Column("run_id", String(64)),
    sqlite_autoincrement=True,
)
Index("events_by_name", events.c.name, events.c.sequence)
Index("events_of_a_job", events.c.job_id, events.c.sequence)
"""What has happened: an event by its ``name``, or the end of a run of ``job_id``. Only added to."""

event_cursors = Table(
    "event_cursors",
    metadata,
    Column("job_id", String(128), primary_key=True),
    Column("leg", String(300), primary_key=True),
    Column("sequence", Integer, nullable=False),
)
"""Up to which event a job has consumed those of one leg of its trigger."""

backfills = Table(
    "backfills",
    metadata,
    Column("backfill_id", String(64), primary_key=True),
    Column("job_id", String(128), nullable=False),
    Column("job_version", Integer, nullable=False),
    Column("stream", String(64), nullable=False),
    Column("options", JSON, nullable=False),
    Column("window_start", Instant, nullable=False),
    Column("window_end", Instant, nullable=False),
    Column("split", String(64), nullable=False),
    Column("order", String(8), nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("reprocess", String(16), nullable=False),
    Column("on_failure", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
)
Index("backfills_by_status", backfills.c.status)

interval_ranges = Table(
    "interval_ranges",
    metadata,
    Column("scope", String(300), primary_key=True),
    Column("window_start", Instant, primary_key=True),
    Column("window_end", Instant, nullable=False),
    Column("status", String(16), nullable=False),
)
"""Which intervals are loaded, of a job's stream or of one backfill: neighbours of one status are one row."""

tasks = Table(
    "tasks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("at", Instant, nullable=False),
)
"""When upkeep that one scheduler does for all was last begun."""

watermarks = Table(
    "watermarks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", String(128), nullable=False),
    Column("stream", String(64), nullable=False),
    Column("window_end", Instant),
    Column("run_id", String(64)),
    Column("reason", Text, nullable=False),
    Column("at", Instant, nullable=False),
)
Index("watermarks_of_a_stream", watermarks.c.job_id, watermarks.c.stream, watermarks.c.id)
