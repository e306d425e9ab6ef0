"""The ledger of version 0.1, as its tables were then."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

revision = "0001"
down_revision = None

metadata = MetaData()

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
    Column("scheduled_for", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("window_start", DateTime(timezone=True)),
    Column("window_end", DateTime(timezone=True)),
    Column("plan", JSON),
    Column("publication", JSON),
    Column("error", JSON),
    UniqueConstraint("job_id", "run_key", name="one_run_per_key"),
)
Index("runs_of_a_lane", runs.c.job_id, runs.c.lane, runs.c.number)

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
    Column("lease_expires_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("skipped", Integer, nullable=False),
    Column("resumed", Integer, nullable=False),
    Column("error", JSON),
)
_IS_ACTIVE = attempts.c.active == text("true")
Index(
    "one_active_attempt_per_run",
    attempts.c.run_id,
    unique=True,
    sqlite_where=_IS_ACTIVE,
    postgresql_where=_IS_ACTIVE,
)
Index(
    "one_active_attempt_per_lane",
    attempts.c.job_id,
    attempts.c.lane,
    unique=True,
    sqlite_where=_IS_ACTIVE,
    postgresql_where=_IS_ACTIVE,
)

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
    Column("counts", JSON, nullable=False),
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
    Column("at", DateTime(timezone=True), nullable=False),
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
    Column("at", DateTime(timezone=True), nullable=False),
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
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("delivered_at", DateTime(timezone=True)),
)
Index("alerts_of_a_job", alerts.c.job_id, alerts.c.key, alerts.c.id)

watermarks = Table(
    "watermarks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", String(128), nullable=False),
    Column("stream", String(64), nullable=False),
    Column("window_end", DateTime(timezone=True)),
    Column("run_id", String(64)),
    Column("reason", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)
Index("watermarks_of_a_stream", watermarks.c.job_id, watermarks.c.stream, watermarks.c.id)


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=True)
