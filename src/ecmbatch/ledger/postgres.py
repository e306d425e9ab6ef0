"""A ledger in a schema of a PostgreSQL database, for the processes of many machines.

A write transaction begins with an advisory lock of its ledger, so that write transactions follow one another
as they do in SQLite. READ COMMITTED is enough for them: every statement behind the lock sees all that earlier
holders have committed, and nobody commits meanwhile. A worker that falls asleep inside of one loses its
session, and the lock with it, before the others stop waiting.

Settings go with each transaction, in the message that begins it: they hold behind a connection pooler too,
and cost no message of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ecmbatch.errors import EcmbatchError, Unreachable, UsageError
from ecmbatch.ledger.database import LONGEST_WAIT_SECONDS, Clock, Database
from ecmbatch.ledger.place import PostgresPlace
from ecmbatch.ledger.tables import IS_ACTIVE, PARTIAL_INDEXES, metadata, schema_version

_LONGEST_SLEEP_SECONDS = 10
"""After so long inside a transaction without a word the server ends a session and frees its locks."""
_CONNECTION = {
    "application_name": "ecmbatch ledger",
    "connect_timeout": "10",
    # A network that swallows everything is noticed soon enough to give up before a lease expires.
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
_NOT_UNIQUE = "23505"
_NOT_ALLOWED = "42501"
_READ_ONLY = "25006"
"""The role's transactions, or the whole server, may not write."""
_OTHER_TABLES = ("42", "3F")
"""Classes of errors that speak of names: tables and columns are not what this version makes."""
_NOT_LET_IN = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied for database",
)
"""The driver tells no code for these, which trying again does not cure."""

for _index in PARTIAL_INDEXES:
    _index.dialect_options["postgresql"]["where"] = IS_ACTIVE


class PostgresDatabase(Database):
    """The ledger at *place*; its schema and tables are made when they do not exist. Its time is the server's.

    Raises :class:`~ecmbatch.errors.UsageError` when the URL is none, or what is there is no ledger.
    """

    def __init__(self, place: PostgresPlace, *, clock: Clock | None = None) -> None:
        self._parameters = _connection_parameters(place)
        self._schema = '"' + place.schema.replace('"', '""') + '"'
        self._lock = int.from_bytes(
            sha256(f"ecmbatch ledger {place.schema}".encode()).digest()[:8], "big", signed=True
        )
        engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connection,
            # A connection that died while nobody used it must not fail a checkpoint.
            pool_pre_ping=True,
            hide_parameters=True,
            use_native_hstore=False,
        )
        event.listen(engine, "begin", self._on_begin)
        super().__init__(engine, clock)
        self.place = place
        self._open()

    def _open(self) -> None:
        self._bring_up_to_date()

    def _connection(self) -> psycopg.Connection[Any]:
        # Transactions are begun by `_on_begin`. Prepared statements would not survive another version's migration.
        return psycopg.connect(**self._parameters, autocommit=True, prepare_threshold=None)

    def _on_begin(self, connection: Connection) -> None:
        writing = connection.get_execution_options().get("ecmbatch_write")
        connection.exec_driver_sql(
            f"BEGIN ISOLATION LEVEL {'READ COMMITTED' if writing else 'REPEATABLE READ, READ ONLY'};"
            f"SET LOCAL search_path = {self._schema};"
            "SET LOCAL timezone = 'UTC';"
            f"SET LOCAL lock_timeout = '{LONGEST_WAIT_SECONDS}s';"
            f"SET LOCAL statement_timeout = '{2 * LONGEST_WAIT_SECONDS}s';"
            f"SET LOCAL idle_in_transaction_session_timeout = '{_LONGEST_SLEEP_SECONDS}s';"
            + (f"SELECT pg_advisory_xact_lock({self._lock})" if writing else "")
        )

    def _upgrading(self) -> AbstractContextManager[None]:
        # The write lock is enough.
        return nullcontext()

    def _has_tables(self, connection: Connection) -> bool:
        # Names are looked up in a cache, which may not have heard of what was committed while we waited for the
        # lock; rows of the catalogue are those of the statement's own beginning.
        found = connection.exec_driver_sql(
            "SELECT has_schema_privilege(pg_namespace.oid, 'USAGE')"
            " FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            " WHERE nspname = %(schema)s AND relname = %(table)s",
            {"schema": self.place.schema, "table": schema_version.name},
        )
        row = found.first()
        if row is not None and not row[0]:
            raise UsageError(
                f"the role may not use the ledger {self.place}: it lacks USAGE on the schema",
                hint=f"GRANT USAGE ON SCHEMA {self.place.schema} TO …, and the rights on its tables",
            )
        return row is not None

    def _create(self, connection: Connection) -> None:
        there = connection.exec_driver_sql(
            "SELECT 1 FROM pg_namespace WHERE nspname = %(name)s", {"name": self.place.schema}
        )
        # Asked before, for `IF NOT EXISTS` wants the right to make it all the same.
        if there.first() is None:
            connection.exec_driver_sql(f"CREATE SCHEMA {self._schema}")
        metadata.create_all(connection, checkfirst=False)

    def _shared_time(self, connection: Connection) -> datetime:
        now: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return now.astimezone(UTC)

    @contextmanager
    def _problems_named(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _NOT_UNIQUE:
                raise
            raise _told(self.place, error.orig) from error
        except SQLAlchemyError as error:
            raise Unreachable(f"the ledger {self.place} cannot be used: {type(error).__name__}") from error


class UntouchedPostgres(PostgresDatabase):
    """The ledger at *place*, opened for reading and nothing else; there may be none."""

    def _open(self) -> None:
        """Do nothing: it is as it is."""

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Refuse to; whoever comes here has a defect."""
        raise AssertionError("a ledger that is only looked at is not written")
        yield

    def damage(self) -> None:
        """Return what is wrong with its files: the server looks after them."""

    def state(self) -> str:
        """Return what there is to say of a ledger that is well: where it is, on which version of the server."""
        with self.read() as connection:
            server = connection.exec_driver_sql("SHOW server_version").scalar_one()
        return f"{self.place} on PostgreSQL {str(server).partition(' ')[0]}"

    def lacks(self) -> str | None:
        """Return the right that the role lacks to make a ledger here, if it lacks one."""
        query = (
            "SELECT has_database_privilege(current_database(), 'CREATE'),"
            " (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = %(name)s)"
        )
        with self.read() as connection:
            may_make_schemas, may_make_tables = connection.exec_driver_sql(
                query, {"name": self.place.schema}
            ).one()
        if may_make_tables is None:
            return None if may_make_schemas else "CREATE on the database"
        return None if may_make_tables else f"CREATE on the schema {self.place.schema}"


def _connection_parameters(place: PostgresPlace) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(place.url)
    except psycopg.Error:
        # What libpq says of a URL repeats it, and with it the password.
        raise UsageError(
            "[ledger] url is not a PostgreSQL URL",
            hint="write postgresql://user:password@host:5432/database; characters such as @ : / ? # % in a "
            "password are percent-encoded",
        ) from None
    return {**_CONNECTION, **given}


def _told(place: PostgresPlace, error: BaseException | None) -> EcmbatchError:
    """Return our error for one of the driver; only its first part is repeated, details may hold values."""
    state = getattr(error, "sqlstate", None) or ""
    diagnosis = getattr(error, "diag", None)
    primary = getattr(diagnosis, "message_primary", None) or " ".join(str(error).split())
    if state in (_NOT_ALLOWED, _READ_ONLY):
        return UsageError(
            f"the role may not use the ledger {place}: {primary}",
            hint="grant it CREATE on the database, or make the schema for it: CREATE SCHEMA … AUTHORIZATION …",
        )
    if state.startswith(_OTHER_TABLES):
        return UsageError(
            f"{place} is not a ledger of this version: {primary}",
            hint="point [ledger] elsewhere, or restore the schema from a backup",
        )
    if not state and any(words in primary for words in _NOT_LET_IN):
        return Unreachable(
            f"the ledger {place} cannot be opened: {primary}",
            hint="correct [ledger] url, or the rights of its user",
            error_class="permanent",
        )
    return Unreachable(
        f"the ledger {place} cannot be used: {primary}",
        hint="when it can be reached again, give the command again: what is recorded counts, nothing is lost",
    )
