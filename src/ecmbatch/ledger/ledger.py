"""The ledger: what is remembered of jobs, durable and shared by every process of a project."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ecmbatch.errors import UsageError
from ecmbatch.ledger.alerts import Alerts
from ecmbatch.ledger.backfills import Backfills
from ecmbatch.ledger.database import Clock, Database
from ecmbatch.ledger.events import Events
from ecmbatch.ledger.jobs import Jobs
from ecmbatch.ledger.place import LedgerPlace, PostgresPlace
from ecmbatch.ledger.progress import Progress
from ecmbatch.ledger.queue import Queue
from ecmbatch.ledger.retention import Retention
from ecmbatch.ledger.runs import Runs
from ecmbatch.ledger.sqlite import SQLiteDatabase, UntouchedSQLite
from ecmbatch.ledger.statistics import Statistics
from ecmbatch.ledger.tables import SCHEMA_VERSION
from ecmbatch.ledger.tasks import Tasks
from ecmbatch.ledger.upstreams import Upstreams
from ecmbatch.ledger.verdicts import Verdicts
from ecmbatch.ledger.watermarks import Watermarks
from ecmbatch.postgres_url import drivers_missing

if TYPE_CHECKING:
    from ecmbatch.ledger.postgres import UntouchedPostgres

LEASE = timedelta(seconds=60)
"""How long a worker may be silent before somebody else may take its run over."""


class Ledger:
    """The ledger at *place*, a SQLite file or a schema of PostgreSQL, made when it does not exist.

    All of its times come from *clock*; without one, from the machine's or the server's. Raises
    :class:`~ecmbatch.errors.Unreachable` when it cannot be used, :class:`~ecmbatch.errors.UsageError` when it is
    not a ledger and :class:`~ecmbatch.errors.PluginError` where the driver for PostgreSQL is not installed.
    """

    def __init__(self, place: LedgerPlace, *, clock: Clock | None = None, lease: timedelta = LEASE) -> None:
        self._open(_database(place, clock), lease)

    @classmethod
    def untouched(cls, place: LedgerPlace, *, clock: Clock | None = None) -> Self | None:
        """Open the ledger at *place* only to look at it: nothing is made, brought up to date or written.

        Returns ``None`` where there is none. Raises :class:`~ecmbatch.errors.UsageError` when it is a ledger of
        another version.
        """
        database = untouched_database(place, clock=clock)
        if database is None:
            return None
        version = database.version()
        if version is None and isinstance(place, PostgresPlace):
            database.close()
            return None
        if version != SCHEMA_VERSION:
            database.close()
            raise UsageError(
                f"the ledger {place} has version {version or 'none'}, this ecmbatch has {SCHEMA_VERSION}",
                hint="any command that writes, such as ecmbatch run, brings an older ledger up to date",
            )
        ledger = cls.__new__(cls)
        ledger._open(database, LEASE)
        return ledger

    def _open(self, database: Database, lease: timedelta) -> None:
        self._database = database
        self.lease = lease
        self.runs = Runs(database, lease)
        self.jobs = Jobs(database)
        self.events = Events(database)
        self.queue = Queue(database, self.runs)
        self.backfills = Backfills(database, self.runs)
        self.progress = Progress(database)
        self.verdicts = Verdicts(database)
        self.alerts = Alerts(database)
        self.upstreams = Upstreams(database)
        self.watermarks = Watermarks(database)
        self.retention = Retention(database)
        self.tasks = Tasks(database)
        self.statistics = Statistics(database)

    def clock(self) -> datetime:
        """Return ledger time, which all workers agree about."""
        return self._database.clock()

    def close(self) -> None:
        """Close all connections."""
        self._database.close()


def ledger_exists(place: LedgerPlace) -> bool:
    """Tell whether there is a ledger at *place*, of whatever version."""
    database = untouched_database(place)
    if database is None or isinstance(place, Path):
        return database is not None
    try:
        return database.version() is not None
    finally:
        database.close()


def untouched_database(
    place: LedgerPlace, *, clock: Clock | None = None
) -> UntouchedSQLite | UntouchedPostgres | None:
    """Return the database at *place* for reading and nothing else, ``None`` where there is no such file."""
    if isinstance(place, Path):
        return UntouchedSQLite(place, clock=clock) if place.exists() else None
    _require_driver()
    from ecmbatch.ledger.postgres import UntouchedPostgres

    return UntouchedPostgres(place, clock=clock)


def _database(place: LedgerPlace, clock: Clock | None) -> Database:
    if isinstance(place, Path):
        return SQLiteDatabase(place, clock=clock)
    _require_driver()
    from ecmbatch.ledger.postgres import PostgresDatabase

    return PostgresDatabase(place, clock=clock)


def _require_driver() -> None:
    try:
        import psycopg  # noqa: F401 - only to see whether it is there
    except ImportError as error:
        raise drivers_missing("a ledger on PostgreSQL") from error
