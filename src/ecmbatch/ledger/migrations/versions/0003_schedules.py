"""Jobs are known to the ledger with their versions; ticks, events and backfills make runs for workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ecmbatch.ledger.tables import Instant

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("runs", sa.Column("job_version", sa.Integer))
    op.add_column("runs", sa.Column("waiting", sa.JSON))
    op.add_column("runs", sa.Column("wait_until", Instant))
    op.add_column("runs", sa.Column("backfill_id", sa.String(64)))
    op.add_column("alerts", sa.Column("delivering", sa.JSON))
    op.add_column("alerts", sa.Column("delivering_until", Instant))
    op.create_index("alerts_of_a_run", "alerts", ["run_id"])
    op.create_index("runs_by_job_and_status", "runs", ["job_id", "status", "live", "finished_at"])
    op.create_index("runs_by_status", "runs", ["status", "number"])
    op.create_index("runs_of_a_job", "runs", ["job_id", "live", "status", "scheduled_for"])
    op.create_index("runs_by_coverage", "runs", ["job_id", "window_end"])
    op.create_index("runs_of_a_backfill", "runs", ["backfill_id", "status", "number"])
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(128), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("pause_reason", sa.Text),
        sa.Column("paused_at", Instant),
        sa.Column("cursor", Instant, nullable=False),
        sa.Column("problem", sa.JSON),
    )
    op.create_table(
        "job_versions",
        sa.Column("job_id", sa.String(128), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", Instant, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("job_file", sa.Text),
    )
    op.create_table(
        "events",
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("at", Instant, nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("event_key", sa.String(400), unique=True),
        sa.Column("job_id", sa.String(128)),
        sa.Column("status", sa.String(32)),
        sa.Column("run_id", sa.String(64)),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_name", "events", ["name", "sequence"])
    op.create_index("events_of_a_job", "events", ["job_id", "sequence"])
    op.create_table(
        "event_cursors",
        sa.Column("job_id", sa.String(128), primary_key=True),
        sa.Column("leg", sa.String(300), primary_key=True),
        sa.Column("sequence", sa.Integer, nullable=False),
    )
    op.create_table(
        "backfills",
        sa.Column("backfill_id", sa.String(64), primary_key=True),
        sa.Column("job_id", sa.String(128), nullable=False),
        sa.Column("job_version", sa.Integer, nullable=False),
        sa.Column("stream", sa.String(64), nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("window_start", Instant, nullable=False),
        sa.Column("window_end", Instant, nullable=False),
        sa.Column("split", sa.String(64), nullable=False),
        sa.Column("order", sa.String(8), nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("reprocess", sa.String(16), nullable=False),
        sa.Column("on_failure", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("finished_at", Instant),
    )
    op.create_index("backfills_by_status", "backfills", ["status"])
    op.create_table(
        "interval_ranges",
        sa.Column("scope", sa.String(300), primary_key=True),
        sa.Column("window_start", Instant, primary_key=True),
        sa.Column("window_end", Instant, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("at", Instant, nullable=False),
    )
