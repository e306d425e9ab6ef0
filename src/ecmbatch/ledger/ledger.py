"""The ledger: what is remembered of jobs, durable and shared by every process of a project."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ecmbatch.ledger.database import Database
from ecmbatch.ledger.progress import Progress
from ecmbatch.ledger.runs import Runs
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
        self._database = Database(path)
        self.clock = clock
        self.lease = lease
        self.runs = Runs(self._database, clock, lease)
        self.progress = Progress(self._database, clock)
        self.verdicts = Verdicts(self._database, clock)
        self.watermarks = Watermarks(self._database, clock)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()
