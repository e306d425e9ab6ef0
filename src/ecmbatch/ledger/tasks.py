"""Upkeep that one of several schedulers does for all."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database


class Tasks:
    """When upkeep was last begun, whoever did it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, name: str, *, every: timedelta) -> bool:
        """Tell whether the caller is to do *name* now: it was not begun by anybody for as long as *every*."""
        with self._database.read() as connection:
            if not _is_due(connection, name, every, self._database.now(connection)):
                return False
        with self._database.write() as connection:
            now = self._database.now(connection)
            if not _is_due(connection, name, every, now):
                return False
            found = tables.tasks.c
            changed = connection.execute(update(tables.tasks).where(found.name == name).values(at=now))
            if changed.rowcount == 0:
                connection.execute(insert(tables.tasks).values(name=name, at=now))
            return True


def _is_due(connection: Connection, name: str, every: timedelta, now: datetime) -> bool:
    begun = connection.execute(
        select(tables.tasks.c.at).where(tables.tasks.c.name == name)
    ).scalar_one_or_none()
    return begun is None or now >= begun + every
