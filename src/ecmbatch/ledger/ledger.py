"""The ledger: what is remembered of jobs, durable and shared by every process of a project."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from ecmbatch.ledger.database import Database
from ecmbatch.ledger.progress import Progress
from ecmbatch.ledger.retention import Retention
from ecmbatch.ledger.runs import Runs
from ecmbatch.ledger.untouched import UntouchedDatabase
from ecmbatch.ledger.verdicts import Verdicts
from ecmbatch.ledger.watermarks import Watermarks

LEASE = timedelta(seconds=60)
"""How long a worker may be silent before somebody else may take its run over."""


class Ledger:
    """A SQLite ledger at *path*, created when it does not exist.

    All of its times come from *clock*. Raises :class:`~ecmbatch.errors.Unreachable` when the file cannot be
    used and :class:`~ecmbatch.errors.UsageError` when it is not a ledger.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        lease: timedelta = LEASE,
    ) -> None:
        self._open(Database(path), clock, lease)

    @classmethod
    def untouched(cls, path: Path, *, clock: Callable[[], datetime]) -> Self:
        """Open the ledger at *path* only to look at it: nothing is created, brought up to date or written.

        Raises :class:`~ecmbatch.errors.UsageError` when it is a ledger of another version.
        """
        database = UntouchedDatabase(path)
        database.require_this_version()
        ledger = cls.__new__(cls)
        ledger._open(database, clock, LEASE)
        return ledger

    def _open(self, database: Database, clock: Callable[[], datetime], lease: timedelta) -> None:
        self._database = database
        self.clock = clock
        self.lease = lease
        self.runs = Runs(database, clock, lease)
        self.progress = Progress(database, clock)
        self.verdicts = Verdicts(database, clock)
        self.watermarks = Watermarks(database, clock)
        self.retention = Retention(database)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()
