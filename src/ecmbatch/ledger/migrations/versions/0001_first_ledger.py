"""The ledger of version 0.1."""

from __future__ import annotations

from alembic import op

from ecmbatch.ledger.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    # The first revision is the tables as they stand; the second one must freeze them here.
    metadata.create_all(op.get_bind(), checkfirst=True)
