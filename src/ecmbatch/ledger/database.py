"""The ledger's database: transactions, its time, and the version of its tables, whatever keeps it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine, select

from ecmbatch.ledger.tables import SCHEMA_VERSION, schema_version

Clock = Callable[[], datetime]

LONGEST_WAIT_SECONDS = 30
"""For whoever holds the write lock. Shorter than a lease by so much that a worker whose renewal is blocked
still stops itself in time."""


class Database(ABC):
    """A database that holds one ledger, opened at the current schema version.

    Only one write transaction is under way at any time, and each sees everything that was committed before
    it began: whoever reads and then writes in one needs no other lock. Raises
    :class:`~ecmbatch.errors.Unreachable` when the database cannot be opened or used.
    """

    def __init__(self, engine: Engine, clock: Clock | None) -> None:
        self._engine = engine
        self._clock = clock

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its beginning, durable when it ends."""
        with (
            self._problems_named(),
            self._engine.connect() as connection,
            connection.execution_options(ecmbatch_write=True).begin(),
        ):
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state and blocks nobody."""
        with self._problems_named(), self._engine.connect() as connection, connection.begin():
            yield connection

    def now(self, connection: Connection) -> datetime:
        """Return ledger time: that of a clock given by hand, else that which all workers share."""
        return self._clock() if self._clock is not None else self._shared_time(connection)

    def clock(self) -> datetime:
        """Return ledger time, outside of any transaction of the caller's."""
        if self._clock is not None:
            return self._clock()
        with self.read() as connection:
            return self._shared_time(connection)

    def version(self) -> str | None:
        """Return the version of the ledger's tables, ``None`` where there are none."""
        with self.read() as connection:
            return self._version(connection)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _bring_up_to_date(self) -> None:
        if self.version() == SCHEMA_VERSION:
            return
        # Several processes may find an old or an empty ledger at once; one of them changes it.
        with self._upgrading(), self.write() as connection:
            version = self._version(connection)
            if version is None:
                self._create(connection)
                connection.execute(schema_version.insert().values(version_num=SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                from ecmbatch.ledger.migrations import upgrade

                upgrade(connection)

    def _version(self, connection: Connection) -> str | None:
        if not self._has_tables(connection):
            return None
        return str(connection.execute(select(schema_version.c.version_num)).scalar_one())

    @abstractmethod
    def _upgrading(self) -> AbstractContextManager[None]:
        """Keep other processes from changing the tables meanwhile."""

    @abstractmethod
    def _has_tables(self, connection: Connection) -> bool:
        """Tell whether there is a ledger."""

    @abstractmethod
    def _create(self, connection: Connection) -> None:
        """Make the tables of the current version."""

    @abstractmethod
    def _shared_time(self, connection: Connection) -> datetime:
        """Return the time that all workers of the ledger agree about."""

    @abstractmethod
    def _problems_named(self) -> AbstractContextManager[None]:
        """Tell what the driver, SQLAlchemy or the system says in our errors, naming the ledger."""
