"""Connections to a PostgreSQL database that read and do nothing else.

Each connection lives for one transaction, ``REPEATABLE READ READ ONLY``: a query cannot leave it, for one
statement is all that the server takes at once, and once a transaction has read it cannot become read-write. All
settings are local to it, so that a pooler in front of the server does not hand them on to others.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

import adbc_driver_manager
import adbc_driver_postgresql
import psycopg
import pyarrow as pa

# The reader that keeps PostgreSQL's SQLSTATE; that of pyarrow has only the text, in the server's language.
from adbc_driver_manager._reader import AdbcRecordBatchReader
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ecmbatch.connectors.postgres_errors import DRIVER_ERRORS, not_connected, refusal
from ecmbatch.errors import EcmbatchError, Unreachable

Rows = psycopg.Connection[tuple[object, ...]]

_DEFAULTS: Mapping[str, Any] = {
    "connect_timeout": "10",
    "application_name": "ecmbatch",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

_SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    # Otherwise a second pass over a large table may begin in its middle.
    "synchronize_seqscans": "off",
    "idle_in_transaction_session_timeout": "0",
    # A table that somebody has locked is told, not waited for without end.
    "lock_timeout": "60s",
}

_OF_NEWER_SERVERS = {
    # It would end the transaction that holds the snapshot, and long reads.
    "transaction_timeout": "0",
    # Without it the query of a client that was killed goes on, and holds the windows of all jobs back.
    "client_connection_check_interval": "5s",
}

_SECONDS_FOR_A_SLOT = 60
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class PostgresDatabase:
    """One database, reached with at most *max_connections* connections at once; snapshots are held by others.

    What people read of it is :attr:`place`; the password is not in there.
    """

    def __init__(self, url: str, *, max_connections: int) -> None:
        given = conninfo_to_dict(url)
        self._conninfo = make_conninfo(**{**_DEFAULTS, **given, "client_encoding": "UTF8"})
        self.place = _place(given)
        self._slots = threading.BoundedSemaphore(max_connections)
        self._most = max_connections
        self._lock = threading.Lock()
        # Making one asks the server for all its types, which connections of one database share.
        self._driver: adbc_driver_manager.AdbcDatabase | None = None
        # What ends each of the waits for the server that may be going on.
        self._waits: set[Callable[[], None]] = set()

    @contextmanager
    def session(self, snapshot: str | None = None) -> Iterator[Rows]:
        """Lend a connection in a transaction, for small questions; what psycopg raises becomes one of our errors.

        Raises :class:`~ecmbatch.errors.Unreachable` where there is none, or no longer such a snapshot.
        """
        with self._slot(), self._connected() as connection:
            self._begin(connection, snapshot)
            yield connection

    @contextmanager
    def held_snapshot(self) -> Iterator[str | None]:
        """Hold a snapshot and give its name, ``None`` where the server exports none."""
        connection = self._connect()
        try:
            name = self._exported(connection)
            # What is raised from here on is another's, even if it is an error of psycopg.
            yield name
        finally:
            connection.close()

    @contextmanager
    def rows(self, sql: str, values: Mapping[str, str], snapshot: str | None) -> Iterator[CopiedRows]:
        """Open the rows of *sql*, which reads *values* by ``current_setting``; leaving cancels the query."""
        with self._slot():
            with self._refusals():
                connection = self._streaming()
            try:
                with self._refusals():
                    self._begin_streaming(connection, snapshot)
                    if values:
                        _set(connection, values)
                    statement = adbc_driver_manager.AdbcStatement(connection)
                with self._cancelled_by(statement.cancel):
                    with self._refusals(reading=True):
                        rows = CopiedRows(statement, sql, self.place)
                    with rows:
                        yield rows
            finally:
                with suppress(*DRIVER_ERRORS), self._lock:
                    connection.close()

    def close(self) -> None:
        """Forget what connections share; those that are open go on."""
        with self._lock:
            driver, self._driver = self._driver, None
            # It refuses to close before its connections do, and then ends with the last of them.
            if driver is not None:
                with suppress(RuntimeError):
                    driver.close()

    def cancel(self) -> None:
        """Let whoever waits for the server just now fail with :class:`~ecmbatch.errors.Unreachable`."""
        with self._lock:
            waits = list(self._waits)
        for end in waits:
            with suppress(*DRIVER_ERRORS):
                end()

    @contextmanager
    def _cancelled_by(self, end: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            self._waits.add(end)
        try:
            yield
        finally:
            with self._lock:
                self._waits.discard(end)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=_SECONDS_FOR_A_SLOT):
            raise Unreachable(
                f"all {self._most} connections to {self.place} have been in use for {_SECONDS_FOR_A_SLOT} s",
                hint="raise max_connections of the connector",
            )
        try:
            yield
        finally:
            self._slots.release()

    @contextmanager
    def _connected(self) -> Iterator[Rows]:
        connection = self._connect()
        try:
            with self._refusals(), self._cancelled_by(connection.cancel_safe):
                yield connection
        finally:
            connection.close()

    def _connect(self) -> Rows:
        try:
            return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise not_connected(error, self.place) from error

    def _exported(self, connection: Rows) -> str | None:
        with self._refusals():
            self._begin(connection, None)
            try:
                exported = connection.execute("SELECT pg_export_snapshot()").fetchone()
            except psycopg.Error as error:
                if error.sqlstate is None:
                    raise
                return None
        return None if exported is None else str(exported[0])

    def _begin(self, connection: Rows, snapshot: str | None) -> None:
        connection.execute(_BEGIN)
        if snapshot is not None:
            try:
                connection.execute(_use(snapshot).encode())
            except psycopg.Error as error:
                raise self._lost(error) from error
        connection.execute(_local_settings().encode())

    def _begin_streaming(self, connection: adbc_driver_manager.AdbcConnection, snapshot: str | None) -> None:
        _execute(connection, _BEGIN)
        if snapshot is not None:
            try:
                _execute(connection, _use(snapshot))
            except adbc_driver_manager.Error as error:
                raise self._lost(error) from error
        _execute(connection, _local_settings())

    def _lost(self, error: Exception) -> EcmbatchError:
        if getattr(error, "sqlstate", None) is None:
            return refusal(error, self.place)
        return Unreachable(
            f"{self.place} no longer has the snapshot that this attempt reads: the connection that held it ended",
            hint="continue the run: its next attempt takes a new one",
        )

    def _streaming(self) -> adbc_driver_manager.AdbcConnection:
        with self._lock:
            if self._driver is None:
                self._driver = adbc_driver_postgresql.connect(self._conninfo)
            return adbc_driver_manager.AdbcConnection(self._driver)

    @contextmanager
    def _refusals(self, *, reading: bool = False) -> Iterator[None]:
        try:
            yield
        except DRIVER_ERRORS as error:
            raise refusal(error, self.place, reading=reading) from error


class CopiedRows:
    """The rows of one query, streamed by COPY and read batch by batch.

    They end when the server says so; a connection that breaks is an error, never an end.
    """

    def __init__(self, statement: adbc_driver_manager.AdbcStatement, sql: str, place: str) -> None:
        self._place = place
        self._ended = False
        self._statement = statement
        try:
            self._statement.set_sql_query(sql)
            handle, _ = self._statement.execute_query()
            self._reader: pa.RecordBatchReader = AdbcRecordBatchReader._import_from_c(handle.address)
        except BaseException:
            self._statement.close()
            raise

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                self._ended = True
                return
            except adbc_driver_manager.Error as error:
                self._ended = True
                raise refusal(error, self._place, reading=True) from error
            yield batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A server that sorts would go on sorting for nobody until it had something to send.
        if not self._ended:
            with suppress(*DRIVER_ERRORS):
                self._statement.cancel()
        with suppress(*DRIVER_ERRORS):
            self._reader.close()
        with suppress(*DRIVER_ERRORS):
            self._statement.close()


def bind_settings(connection: Rows, values: Mapping[str, str]) -> None:
    """Let ``current_setting`` find *values*, until the transaction ends."""
    for name, value in values.items():
        connection.execute("SELECT set_config(%s, %s, true)", [name, value])


def _set(connection: adbc_driver_manager.AdbcConnection, values: Mapping[str, str]) -> None:
    """Bind *values* as settings of the transaction.

    Bound to the query itself, they would keep the driver from COPY: it would hold the whole result in memory.
    """
    calls = ", ".join(f"set_config('{name}', ${place}, true)" for place, name in enumerate(values, 1))
    columns = [pa.array([value], pa.string()) for value in values.values()]
    batch = pa.RecordBatch.from_arrays(columns, names=[f"p{place}" for place in range(len(columns))])
    statement = adbc_driver_manager.AdbcStatement(connection)
    try:
        statement.set_sql_query(f"SELECT {calls}")
        schema, array = batch.__arrow_c_array__()
        statement.bind(array, schema)
        handle, _ = statement.execute_query()
        reader = AdbcRecordBatchReader._import_from_c(handle.address)
        try:
            for _ in reader:
                pass
        finally:
            reader.close()
    finally:
        statement.close()


def _execute(connection: adbc_driver_manager.AdbcConnection, sql: str) -> None:
    statement = adbc_driver_manager.AdbcStatement(connection)
    try:
        statement.set_sql_query(sql)
        statement.execute_update()
    finally:
        statement.close()


def _local_settings() -> str:
    calls = [f"set_config('{name}', '{value}', true)" for name, value in _SETTINGS.items()]
    calls += [
        f"CASE WHEN current_setting('{name}', true) <> '' THEN set_config('{name}', '{value}', true) END"
        for name, value in _OF_NEWER_SERVERS.items()
    ]
    return f"SELECT {', '.join(calls)}"


def _use(snapshot: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f-]{1,100}", snapshot):
        raise ValueError("a snapshot's name has hexadecimal digits and dashes only")
    return f"SET TRANSACTION SNAPSHOT '{snapshot}'"


def _place(given: Mapping[str, object]) -> str:
    """Return what people call the database: its name, host and user."""
    where = str(given.get("host") or given.get("hostaddr") or "this machine")
    if "port" in given and not where.startswith("/"):
        where += f":{given['port']}"
    user = f", user '{given['user']}'" if "user" in given else ""
    name = given.get("dbname") or given.get("user") or ""
    return f"the PostgreSQL database '{name}' at {where}{user}"
