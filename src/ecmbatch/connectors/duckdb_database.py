"""A DuckDB file that is opened to be read and for nothing else."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from uuid import uuid4

import duckdb
import pyarrow as pa

from ecmbatch.errors import EcmbatchError, SourceError, Unreachable
from ecmbatch.protocol.scalars import Scalar

_CONFIG = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
"""DuckDB shares an open file only among connections of one configuration: a store that is read while a job
reads from it opens its file with this one too."""

_SETTINGS = (
    "SET GLOBAL TimeZone = 'UTC'",
    # A query could otherwise name a Python variable of this process as a table.
    "SET GLOBAL python_enable_replacements = false",
    "SET GLOBAL enable_external_access = false",
    "SET GLOBAL lock_configuration = true",
)

# Messages of these kinds speak of names and syntax; those of all others may repeat values of rows.
_ABOUT_THE_QUERY = ("Binder", "Catalog", "Parser", "Syntax", "Permission")


class DuckDBDatabase:
    """The file at *path*, opened when it is first needed and shared by the threads of this process.

    Nothing but the file can be reached through it: external access and extensions are off and the
    configuration is locked. Sorts that do not fit into memory spill to *spill*, which DuckDB tidies up,
    also after a process that was killed.
    """

    def __init__(self, path: Path, *, spill: Path, memory_limit: str, threads: int | None) -> None:
        self.path = path
        self._spill = spill
        self._limits = {
            "memory_limit": memory_limit,
            "temp_directory": str(spill),
        } | ({} if threads is None else {"threads": str(threads)})
        self._lock = threading.Lock()
        # It keeps the file open between scans.
        self._kept: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file if need be and lend a connection, for one thread and one result at a time.

        It stays usable when the database is closed meanwhile, as a cursor would not.
        Raises :class:`~ecmbatch.errors.Unreachable` while another process writes to the file, and
        :class:`~ecmbatch.errors.SourceError` where there is none or none that can be read.
        """
        with self._lock:
            if self._kept is None:
                self._kept = self._open()
            lent = self._connect()
        try:
            yield lent
        finally:
            lent.close()

    def ping(self) -> None:
        """Open the file and close it again; raises as :meth:`connection` does, and leaves nothing behind."""
        self._check_is_file()
        self._connect().close()

    def close(self) -> None:
        """Close the file once no connection is lent; it is opened again when it is needed again."""
        with self._lock:
            if self._kept is not None:
                self._kept.close()
                self._kept = None

    def _check_is_file(self) -> None:
        if not self.path.is_file():
            raise SourceError(
                f"there is no DuckDB file {self.path}",
                hint="its 'path' is relative to the project's folder; a store's file is made when a run is first "
                "published to it",
            )

    def _open(self) -> duckdb.DuckDBPyConnection:
        self._check_is_file()
        try:
            self._spill.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SourceError(f"{self._spill} cannot be made to spill sorts to: {error.strerror}") from error
        connection = self._connect()
        try:
            for name, value in self._limits.items():
                connection.execute(f"SET GLOBAL {name} = {_literal(value)}")
            for setting in _SETTINGS:
                connection.execute(setting)
        except duckdb.InvalidInputException:
            # Another connector of this process has the file open, and locked the configuration already.
            if connection.execute("SELECT current_setting('lock_configuration')").fetchall() != [(True,)]:
                raise
        return connection

    def _connect(self) -> duckdb.DuckDBPyConnection:
        try:
            return duckdb.connect(str(self.path), read_only=True, config=dict(_CONFIG))
        except duckdb.Error as error:
            raise self._not_opened(error) from error

    def _not_opened(self, error: duckdb.Error) -> EcmbatchError:
        text = str(error)
        if isinstance(error, duckdb.ConnectionException):
            return Unreachable(
                f"this process already has {self.path} open with other settings",
                hint="give all connectors and stores of the file the same settings, or one connector",
            )
        if "lock" in text.lower():
            holder = re.search(r"PID (\d+)", text)
            who = f"the process {holder[1]}" if holder else "another process"
            return Unreachable(
                f"{who} has {self.path} open for writing",
                hint="end that process or let it close the file, then run again",
            )
        return SourceError(f"{self.path} cannot be opened: {_first_line(text)}")


@contextmanager
def defined(
    connection: duckdb.DuckDBPyConnection, function: Callable[[pa.ChunkedArray], pa.Array], argument: str
) -> Iterator[str]:
    """Let queries of *connection* call *function*, from one *argument* type to ``uint16``; yield its name.

    DuckDB would crash on a function whose connection is gone, and all connections of a file see the same
    functions. So it has a name that no other has, and ends before its connection does.
    """
    name = f"_ecm_function_{uuid4().hex}"
    connection.create_function(name, function, [argument], "USMALLINT", type="arrow", null_handling="special")
    try:
        yield name
    finally:
        connection.remove_function(name)


class DuckDBRows:
    """The rows of one query, read batch by batch; ``schema`` is known before the first."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, sql: str, values: list[Scalar], rows: int
    ) -> None:
        self._reader: pa.RecordBatchReader = connection.sql(sql, params=values or None).to_arrow_reader(rows)
        self.schema: pa.Schema = self._reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            with refusals():
                try:
                    batch = self._reader.read_next_batch()
                except StopIteration:
                    return
            yield batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what DuckDB raises into a :class:`~ecmbatch.errors.SourceError`.

    An error while rows are read comes through Arrow, as an ``OSError`` with DuckDB's words.
    """
    try:
        yield
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        raise _refusal(str(error)) from error


def _refusal(text: str) -> SourceError:
    kind, separator, _ = text.partition(" Error:")
    kind = kind if separator and len(kind) < 40 else "unknown"
    if kind == "Out of Memory":
        return SourceError(
            "DuckDB needs more memory for the query than the connector's 'memory_limit'",
            hint="raise memory_limit, lower threads, or simplify the query",
        )
    if kind in _ABOUT_THE_QUERY:
        return SourceError(f"DuckDB refused the query: {_first_line(text)}")
    return SourceError(
        f"DuckDB failed while it read the query's rows: {kind} error (its message may hold values)",
        hint="run the query in DuckDB to see the message",
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(text: str) -> str:
    """Return the message without the lines that point into the query, which is wrapped in ours."""
    return " ".join(line for line in text.partition("\n\nLINE ")[0].splitlines() if line)
