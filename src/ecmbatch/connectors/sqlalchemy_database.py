"""A database that SQLAlchemy reaches through a dialect: connections that only read, statements, and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError

from ecmbatch.connectors.sqlite_source import bindable
from ecmbatch.errors import EcmbatchError, PluginError, SourceError, Unreachable
from ecmbatch.protocol.scalars import Scalar

_READ_ONLY: Mapping[str, str] = {
    "postgresql": "SET TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
_FOR_THE_NEXT_TRANSACTION = frozenset({"mysql", "mariadb"})

_PACKAGES: Mapping[str, str] = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "mysql": "mysql-connector-python",
    "pymysql": "pymysql",
    "mariadb": "mariadb",
    "pyodbc": "pyodbc",
    "oracledb": "oracledb",
    "cx_Oracle": "oracledb",
    "pymssql": "pymssql",
}
_WORDS_OF_REFUSAL = ("password", "authentication", "access denied", "login failed")


@dataclass(frozen=True, slots=True)
class Bound:
    """A value in the midst of a statement's text."""

    value: Scalar


Statement = Sequence[str | Bound]
"""Pieces of SQL and the values between them."""


class Database:
    """The database at *url*; a relative path of a SQLite file is relative to *folder*.

    Every connection is opened when it is needed and closed afterwards.
    """

    def __init__(self, url: sa.URL, folder: Path) -> None:
        self._url = url
        # SQLite would make a file that is missing.
        self._file = folder / Path(url.database or "").expanduser() if self.name == "sqlite" else None
        if self._file is not None:
            self._url = url.set(database=str(self._file))
        self._engine: sa.Engine | None = None

    @property
    def name(self) -> str:
        """The name of the dialect, such as ``postgresql``."""
        return self._url.get_backend_name()

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """Lend a connection, which only reads where the database knows how to.

        Raises :class:`~ecmbatch.errors.Unreachable` where there is no answer or the user is refused, and
        :class:`~ecmbatch.errors.PluginError` where the driver is not installed.
        """
        engine = self._opened()
        path = self._file
        if path is not None and not path.is_file():
            raise SourceError(
                f"there is no SQLite file {path}", hint="its path is relative to the project's folder"
            )
        try:
            connection = engine.connect()
        except DBAPIError as error:
            raise self._not_connected(error) from None
        with connection:
            read_only = _READ_ONLY.get(self.name)
            if read_only is not None:
                with self.reading():
                    connection.exec_driver_sql(read_only)
                    if self.name in _FOR_THE_NEXT_TRANSACTION:
                        connection.commit()
            yield connection

    def quoted(self, identifier: str) -> str:
        """Return *identifier* as the dialect writes it, in quotes where it needs them."""
        return str(self._opened().dialect.identifier_preparer.quote(identifier))

    def execute(
        self, connection: sa.Connection, statement: Statement, rows: int | None = None
    ) -> sa.CursorResult[Any]:
        """Execute *statement*; with *rows* its result is fetched so many rows at a time."""
        sql, values = self._composed(statement)
        options = {} if rows is None else {"stream_results": True, "yield_per": rows}
        if not values:
            return connection.exec_driver_sql(sql, execution_options={**options, "no_parameters": True})
        return connection.exec_driver_sql(sql, values, execution_options=options)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Turn what the database says of a query that reads no rows into a
        :class:`~ecmbatch.errors.SourceError` with its words."""
        try:
            yield
        except NoSuchTableError as error:
            raise SourceError(f"there is no table or view '{error}' in {self.shown}") from None
        except DBAPIError as error:
            if isinstance(error, sa.exc.DataError) or error.connection_invalidated:
                raise self._failed(error) from None
            raise SourceError(
                f"{self.name} refused the query: {self._words(error)}",
                hint="the query must be one SELECT that can stand in parentheses behind FROM",
            ) from None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what is raised while rows are read into ours, without its words: they may hold values."""
        try:
            yield
        except SQLAlchemyError as error:
            raise self._failed(error) from None
        except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
            # Drivers raise these for values that Python has no like of, such as dates beyond the year 9999.
            raise SourceError(
                f"the driver of {self.name} could not read a value: {type(error).__name__}",
                hint="cast the column to text in the query",
            ) from None

    def close(self) -> None:
        """Forget the dialect; it is made again when it is needed again."""
        self._engine = None

    def _opened(self) -> sa.Engine:
        if self._engine is None:
            try:
                self._engine = sa.create_engine(self._url, poolclass=sa.NullPool, hide_parameters=True)
            except ImportError as error:
                module = str(error.name)
                package = _PACKAGES.get(module.partition(".")[0], module)
                raise PluginError(
                    f"the driver of {self._url.drivername} is not installed: there is no module {module}",
                    hint=f"pip install '{package}'",
                ) from None
        return self._engine

    def _composed(self, statement: Statement) -> tuple[str, Any]:
        """Return *statement* and its values as the driver takes them."""
        style = self._opened().dialect.paramstyle
        found = [piece.value for piece in statement if isinstance(piece, Bound)]
        values = [_bindable(value, self.name) for value in found]
        # Where placeholders begin with a percent sign, any other is written twice.
        twice = bool(values) and style in ("format", "pyformat")
        pieces, number = [], 0
        for piece in statement:
            if isinstance(piece, Bound):
                number += 1
                pieces.append(_PLACES[style].format(number))
            else:
                pieces.append(piece.replace("%", "%%") if twice else piece)
        by_name = style in ("pyformat", "named")
        named = {f"p{place}": value for place, value in enumerate(values, 1)}
        return "".join(pieces), named if by_name else tuple(values)

    def _not_connected(self, error: DBAPIError) -> EcmbatchError:
        words = self._words(error)
        refused = any(word in words.lower() for word in _WORDS_OF_REFUSAL)
        return Unreachable(
            f"{self.shown} cannot be reached: {words}",
            hint="see whether the server runs, and host, port, user and password in the connector's 'url'",
            error_class="permanent" if refused else "transient",
        )

    def _failed(self, error: SQLAlchemyError) -> EcmbatchError:
        kind = type(getattr(error, "orig", None) or error).__name__
        if isinstance(error, DBAPIError) and (error.connection_invalidated or "locked" in str(error.orig)):
            return Unreachable(f"{self.shown} was lost while it was read: {kind}")
        return SourceError(
            f"{self.name} failed while it read the query's rows: {kind} (its message may hold values)",
            hint="run the query there to see the message",
        )

    def _words(self, error: DBAPIError) -> str:
        """Return the first line of what the driver says, without the password."""
        words = next(iter(str(error.orig).strip().splitlines()), type(error.orig).__name__)
        password = self._url.password
        return words.replace(str(password), "***") if password else words


def shown(statement: Statement) -> str:
    """Return *statement* for people, with its values as ``$1``, ``$2`` …"""
    pieces, number = [], 0
    for piece in statement:
        number += isinstance(piece, Bound)
        pieces.append(f"${number}" if isinstance(piece, Bound) else piece)
    return "".join(pieces)


def read_url(text: str) -> sa.URL:
    """Return the URL that *text* is; raises ``ValueError`` that completes "must be …" and never repeats it."""
    try:
        url = sa.make_url(text)
        dialect = url.get_dialect()
    except NoSuchModuleError:
        raise ValueError(
            f"must be of a dialect that is installed, and there is none called '{url.drivername}'"
        ) from None
    except (SQLAlchemyError, ValueError):
        raise ValueError("must be a URL such as dialect+driver://user:password@host/database") from None
    if dialect.is_async:
        raise ValueError(f"must be of a driver that is not asynchronous, as '{url.drivername}' is")
    return url


_PLACES: Mapping[str, str] = {
    "qmark": "?",
    "format": "%s",
    "pyformat": "%(p{})s",
    "named": ":p{}",
    "numeric": ":{}",
    "numeric_dollar": "${}",
}


def _bindable(value: Scalar, dialect: str) -> Scalar:
    """Return *value* as drivers take it: most know neither UUIDs nor zones."""
    if dialect == "sqlite":
        return bindable(value)
    if dialect == "postgresql":
        return value
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return str(value) if isinstance(value, UUID) else value
