"""A SQLite file that is opened to be read and for nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from ecmbatch.errors import EcmbatchError, SourceError, Unreachable

BUSY_SECONDS = 5.0
"""How long a read waits for another process that is about to change the file."""

_FORBIDDEN_FUNCTIONS = frozenset(
    {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "eval", "lsmode", "zipfile"}
)
"""What builds of SQLite may know and what does more than to compute."""

_OURS = frozenset({"_ecm_columns", "_ecm_affinities"})


class Reader:
    """Allows a connection's statements to read, and remembers what they read: an authorizer of SQLite.

    ``functions`` are the names of the functions that are called, ``tables`` those of the tables in the file
    that are read, and ``views`` those of the views that are read through. While ``describes`` is set our own
    temporary view and table may be made; a query, which stands in parentheses inside of a SELECT, can make none.
    """

    def __init__(self) -> None:
        self.functions: set[str] = set()
        self.tables: set[str] = set()
        self.views: set[str] = set()
        self.describes = False

    def __call__(
        self, action: int, first: str | None, second: str | None, database: str | None, inner: str | None
    ) -> int:
        if action == sqlite3.SQLITE_READ:
            if database == "main":
                self.tables.add(str(first))
            if inner is not None:
                self.views.add(inner)
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            self.functions.add(str(second).lower())
            return sqlite3.SQLITE_DENY if str(second).lower() in _FORBIDDEN_FUNCTIONS else sqlite3.SQLITE_OK
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_UPDATE and first in ("sqlite_master", "sqlite_schema"):
            # So a table function such as json_each makes itself known; the file itself is read-only.
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_OK if self.describes and _describes(action, first) else sqlite3.SQLITE_DENY


def _describes(action: int, first: str | None) -> bool:
    if action in (sqlite3.SQLITE_CREATE_TEMP_VIEW, sqlite3.SQLITE_CREATE_TEMP_TABLE):
        return first in _OURS
    if action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE):
        return first in ("sqlite_temp_master", "sqlite_temp_schema", *_OURS)
    return action == sqlite3.SQLITE_PRAGMA and first in ("table_info", "encoding")


class Database:
    """The file at *path*. Every connection to it reads one state of it, in a transaction of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def describing(self) -> Iterator[tuple[sqlite3.Connection, Reader]]:
        """Lend a connection that may make our temporary view and table, and what its statements read.

        Raises :class:`~ecmbatch.errors.SourceError` where there is no file or it is no database, and
        :class:`~ecmbatch.errors.Unreachable` while another process is changing it.
        """
        with self._connected() as connection:
            reader = Reader()
            reader.describes = True
            connection.set_authorizer(reader)
            yield connection, reader

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that only reads; raises as :meth:`describing` does."""
        with self._connected() as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.set_authorizer(Reader())
            yield connection

    def ping(self) -> None:
        """Open the file and look into it; raises as :meth:`describing` does."""
        with self._connected():
            pass

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise SourceError(
                f"there is no SQLite file {self.path}", hint="its 'path' is relative to the project's folder"
            )
        address = f"file:{quote(str(self.path.absolute()))}?mode=ro"
        with self._opening():
            # A scan may be read by another thread than the one that opened it, one after the other.
            opened = sqlite3.connect(
                address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        with closing(opened) as connection:
            with self._opening():
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            yield connection

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            beside = "in WAL mode it is read through files beside it, which SQLite must be able to make"
            raise _transient(error) or SourceError(
                f"{self.path} cannot be opened: {error}",
                hint=beside if _code(error).startswith("SQLITE_CANTOPEN") else None,
            ) from error


@contextmanager
def preparing() -> Iterator[None]:
    """Turn what SQLite says of a query, before it has read rows, into a
    :class:`~ecmbatch.errors.SourceError` with its words."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        hint = "the query must be one SELECT; sources are only read"
        raise _transient(error) or SourceError(f"SQLite refused the query: {error}", hint=hint) from error


@contextmanager
def reading() -> Iterator[None]:
    """Turn what SQLite raises while it reads rows into ours, without its words: they may hold values."""
    try:
        yield
    except sqlite3.Error as error:
        if "decode to UTF-8" in str(error):
            raise SourceError(
                "SQLite holds a text that is not UTF-8", hint='read it as bytes: CAST("name" AS BLOB)'
            ) from None
        raise _transient(error) or SourceError(
            f"SQLite failed while it read the query's rows: {_code(error)} (its message may hold values)",
            hint="run the query in SQLite to see the message",
        ) from None


def _transient(error: Exception) -> EcmbatchError | None:
    code = _code(error)
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unreachable(
            f"another process is changing the SQLite file, for more than {BUSY_SECONDS:g} seconds",
            hint="run again, or let the other process use WAL mode, in which nobody waits",
        )
    if code.startswith("SQLITE_IOERR"):
        return Unreachable(f"the SQLite file cannot be read: {code}")
    return None


def _code(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", None) or type(error).__name__
