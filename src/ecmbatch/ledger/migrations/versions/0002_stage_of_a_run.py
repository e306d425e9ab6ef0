"""Runs know which stage their rows wait in, so that a host that cannot read it takes none over."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", Column("stage", JSON))
