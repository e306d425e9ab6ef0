"""Looking at a ledger without leaving a trace: no file is made, nothing in it is changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, NullPool, create_engine, text

from ecmbatch.errors import UsageError
from ecmbatch.ledger.database import Database, problems_named, refuse_network_file_system
from ecmbatch.ledger.tables import SCHEMA_VERSION


class UntouchedDatabase(Database):
    """The ledger's database at *path*, which must exist, opened for reading and nothing else.

    Raises :class:`~ecmbatch.errors.Unreachable` when it cannot be read and
    :class:`~ecmbatch.errors.UsageError` when it is no ledger or lies on a network file system.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_network_file_system(path)
        # No pool: the ledger's files are as they were as soon as the reading is over.
        self._engine = create_engine(
            "sqlite://", creator=self._connection, poolclass=NullPool, hide_parameters=True
        )

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Refuse to; whoever comes here has a defect."""
        raise AssertionError("a ledger that is only looked at is not written")
        yield

    def version(self) -> str | None:
        """Return the version of the ledger's tables, ``None`` where there are none."""
        return self._version()

    def require_this_version(self) -> None:
        """Raise :class:`~ecmbatch.errors.UsageError` unless its tables are those of this version."""
        version = self.version()
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"the ledger {self.path} has version {version or 'none'}, this ecmbatch has {SCHEMA_VERSION}",
                hint="any command that writes, such as ecmbatch run, brings an older ledger up to date",
            )

    def damage(self) -> str | None:
        """Return what SQLite's own check finds wrong with the file; ``None`` where it is sound."""
        with self.read() as connection, problems_named(self.path):
            found = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        return None if found == "ok" else str(found)

    def _connection(self) -> sqlite3.Connection:
        # A write-ahead log that is there belongs to a process at work, or was left by one that was killed:
        # a last reader who may write would fold it into the file. Where there is none, a reader who may not
        # write would leave an empty one behind.
        log = self.path.with_name(f"{self.path.name}-wal")
        mode = "ro" if log.exists() else "rw"
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode={mode}", uri=True, check_same_thread=False
        )
        connection.execute("PRAGMA query_only=ON")
        return connection
