"""What PostgreSQL and its drivers raise, in words for people and without values of rows."""

from __future__ import annotations

import re

import adbc_driver_manager
import psycopg
from psycopg import errors

from ecmbatch.errors import EcmbatchError, SourceError, Unreachable

DRIVER_ERRORS: tuple[type[Exception], ...] = (psycopg.Error, adbc_driver_manager.Error)

ARRAY_MARK = "ecmbatch.array_of_"
"""Begins the name of a setting that there is not; behind it stands a column's name in hexadecimal."""

# Messages of these classes speak of names, syntax and rights; those of all others may repeat values of rows.
_ABOUT_THE_QUERY = ("0A", "25", "34", "3F", "42")
_GONE = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "53300")
_REFUSED = ("28", "3D", "57P04")
_MAY_PASS = ("40", "53", "58")
_NOT_BY_RETRYING = re.compile(
    r"password|pg_hba\.conf|(role|database) \".*\" does not exist|not permitted to log in|certificate|"
    r"permission denied|SSL"
)


def refusal(error: Exception, place: str, *, reading: bool = False) -> EcmbatchError:
    """Return *error* of a driver as one of ours; *place* is how people call the database.

    While it is *reading* rows, what looks like a name in the server's words may be the value of one.
    """
    sqlstate: str | None = getattr(error, "sqlstate", None)
    if sqlstate is None:
        return _without_state(error, place)
    message = _message(error)
    if sqlstate.startswith(_GONE):
        return Unreachable(f"{place} ended the connection: {message}")
    if sqlstate.startswith(_REFUSED):
        return Unreachable(f"{place} cannot be used: {message}", error_class="permanent")
    if sqlstate == "57014":
        return _cancelled(message, place)
    if sqlstate == "42704" and ARRAY_MARK in message:
        return _odd_array(message)
    if sqlstate == "55P03":
        return Unreachable(
            f"{place} has a table that somebody else holds locked: {message}",
            hint="pg_locks tells who; what was read is checkpointed, resume the run afterwards",
        )
    if reading and sqlstate.startswith(_ABOUT_THE_QUERY) and sqlstate != "42501":
        return _while_reading(sqlstate)
    if sqlstate == "42501":
        return SourceError(
            f"PostgreSQL refused the query: {message}", hint="grant the connector's user SELECT on it"
        )
    if sqlstate.startswith(_ABOUT_THE_QUERY):
        return SourceError(f"PostgreSQL refused the query: {message}", hint=_hint(error))
    return _while_reading(sqlstate)


def _while_reading(sqlstate: str) -> SourceError:
    return SourceError(
        f"PostgreSQL failed while it read the query's rows: {_condition(sqlstate)} (its message may hold values)",
        hint="run the query in psql to see the message",
        error_class="transient" if sqlstate.startswith(_MAY_PASS) else "permanent",
    )


def not_connected(error: Exception, place: str) -> Unreachable:
    """Return why there is no connection; the words of the client library hold no password."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0].rpartition("failed: ")[2].removeprefix("FATAL:").strip() if lines else "no reason given"
    lasting = _NOT_BY_RETRYING.search(reason) is not None
    return Unreachable(
        f"cannot connect to {place}: {reason}",
        hint="see 'url' in the project file" if lasting else "see whether the server runs and can be reached",
        error_class="permanent" if lasting else "transient",
    )


def _without_state(error: Exception, place: str) -> EcmbatchError:
    """The server had no say: the connection broke, or the driver cannot read what came."""
    text = str(error)
    if "Failed to connect" in text:
        return not_connected(error, place)
    if "ReadRecord failed" in text or isinstance(error, psycopg.DataError | psycopg.ProgrammingError):
        return SourceError(
            "PostgreSQL's driver cannot read a value of the query (its message may hold values)",
            hint='cast columns of unusual types to text in the query: "name"::text AS "name"',
        )
    return Unreachable(f"the connection to {place} broke while it was read from")


def _cancelled(message: str, place: str) -> EcmbatchError:
    if "timeout" in message:
        return SourceError(
            f"PostgreSQL refused the query: {message}",
            hint="raise the limit for the connector's user: ALTER ROLE … SET statement_timeout = …",
        )
    return Unreachable(f"{place} cancelled the query: {message}")


def _odd_array(message: str) -> SourceError:
    found = re.search(re.escape(ARRAY_MARK) + "([0-9a-f]+)", message)
    assert found is not None  # the mark was found, and always stands before a column's name
    name = bytes.fromhex(found[1]).decode()
    return SourceError(
        f"column '{name}' has an array with several dimensions, or one that does not begin at 1",
        hint=f'cast it in the query: "{name}"::text AS "{name}"',
    )


def _message(error: Exception) -> str:
    """Return the server's message alone, without the lines that point into the query or at values."""
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or str(error).partition("\n")[0]
    found = re.search(r"\b[A-Z]+:  (.*)", str(error))
    return found[1].strip() if found else "no message"


def _hint(error: Exception) -> str | None:
    return error.diag.message_hint if isinstance(error, psycopg.Error) else None


def _condition(sqlstate: str) -> str:
    """Return what people call an SQLSTATE: ``22P02`` is an invalid text representation."""
    try:
        name = errors.lookup(sqlstate).__name__
    except KeyError:
        return f"error {sqlstate}"
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()
