"""Bringing an older ledger to the current schema, with Alembic.

A new ledger is created from :mod:`ecmbatch.ledger.tables` directly, which starts faster; a test keeps the
two ways equal. Alembic is imported only here.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from ecmbatch.errors import UsageError


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Apply every migration up to *revision* that the ledger lacks, in the transaction of *connection*.

    Raises :class:`~ecmbatch.errors.UsageError` for a ledger that a newer version of ecmbatch wrote.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise UsageError(
            "the ledger was written by another version of ecmbatch",
            hint="use the version that wrote it, or a newer one: pip install --upgrade ecmbatch",
        ) from error
