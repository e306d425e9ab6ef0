"""Where a ledger is: a SQLite file, or a schema of a PostgreSQL database."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ecmbatch.postgres_url import without_password

DEFAULT_SCHEMA = "ecmbatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresPlace:
    """A schema of the database at *url*, a libpq URL. The text form says where, without the password."""

    url: str = field(repr=False)
    schema: str = DEFAULT_SCHEMA

    def __str__(self) -> str:
        return f"{without_password(self.url)} (schema {self.schema})"


LedgerPlace = Path | PostgresPlace
"""A path is that of a SQLite file."""
