"""A database that SQLAlchemy reaches through a dialect: connections that only read, statements, and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError

from ecmbatch.connectors.sqlite_source import bindable
from ecmbatch.errors import EcmbatchError, PluginError, SourceError, Unreachable
from ecmbatch.protocol.scalars import Scalar

# A key that is spelled out may be long, and what is beyond this length would not be looked at by ORDER BY.
_MYSQL = ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_sort_length = 8388608")
_FIRST: Mapping[str, Sequence[str]] = {
    "postgresql": ("SET TRANSACTION READ ONLY",),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "oracle": ("SET TRANSACTION READ ONLY",),
    "sqlite": ("PRAGMA query_only = ON",),
}
"""What every connection begins with, so that it only reads, and reads whole keys."""
_FOR_THE_NEXT_TRANSACTION = frozenset({"mysql", "mariadb"})

_CLOCKS: Mapping[str, str] = {
    "postgresql": "SELECT clock_timestamp()",
    "mysql": "SELECT UTC_TIMESTAMP(6)",
    "mariadb": "SELECT UTC_TIMESTAMP(6)",
    "mssql": "SELECT SYSUTCDATETIME()",
    "oracle": "SELECT SYS_EXTRACT_UTC(SYSTIMESTAMP) FROM DUAL",
}

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
        """The URL without its password, and without its parameters: some drivers take passwords there."""
        return self._url.set(query={}).render_as_string(hide_password=True)

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
            with self.reading():
                for statement in _FIRST.get(self.name, ()):
                    connection.exec_driver_sql(statement)
                if self.name in _FOR_THE_NEXT_TRANSACTION:
                    connection.commit()
            yield connection

    def clock(self) -> datetime:
        """Return the database's own time, in UTC, where its dialect has one that is known to be; else this
        machine's. Raises as :meth:`connection` does."""
        question = _CLOCKS.get(self.name)
        if question is None:
            return datetime.now(UTC)
        with self.connection() as connection, self.reading():
            at = connection.exec_driver_sql(question).scalar_one()
        assert isinstance(at, datetime)  # that is what these functions give
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)

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
        """Return the first line of what the driver says, without the URL's secrets, however they are encoded."""
        words = next(iter(str(error.orig).strip().splitlines()), type(error.orig).__name__)
        spellings = {way(secret) for secret in _secrets(self._url) for way in (str, quote_plus, _quoted)}
        if not spellings:
            return words
        longest_first = sorted(spellings, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), "***", words, flags=re.IGNORECASE)


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
    if (url.username is not None or url.host) and text.count("@") > (url.username is not None):
        # What is behind the first one would be taken for the host, and shown.
        raise ValueError(
            "must be a URL in which '@' and '/' of user, password and parameters are written %40 and %2F"
        )
    if dialect.is_async:
        raise ValueError(f"must be of a driver that is not asynchronous, as '{url.drivername}' is")
    return url


def _secrets(url: sa.URL) -> Iterator[str]:
    """Give what is secret in *url*: its password, and what parameters that seem to hold one give."""
    if url.password:
        yield str(url.password)
    for name, values in url.normalized_query.items():
        for value in values:
            if _SECRET_NAME.search(name):
                yield value
            # ODBC's own settings may be one parameter.
            yield from (found[1] for found in _SECRET_IN_ODBC.finditer(value))


def _quoted(text: str) -> str:
    return quote(text, safe="")


_SECRET_NAME = re.compile("pass|pwd|secret|token|key", re.IGNORECASE)
_SECRET_IN_ODBC = re.compile(r"\b(?:PWD|PASSWORD)\s*=\s*\{?([^;}]+)", re.IGNORECASE)

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
