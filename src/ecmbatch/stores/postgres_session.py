"""Sessions of a PostgreSQL store: connecting, time limits, who blocks whom, and what an error means for a run."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ecmbatch.errors import EcmbatchError, ErrorClass, StoreBusy, StoreError, Unreachable
from ecmbatch.protocol.duration import format_duration
from ecmbatch.stores import postgres_statements as sql

Session = psycopg.Connection[tuple[Any, ...]]

_LONGEST_IDENTIFIER = 63
_DEFAULTS: Mapping[str, Any] = {
    "connect_timeout": 10,
    # Without these a session whose server or network vanished would be waited for without end.
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_FIRST_LOOK = 1.0
"""Seconds after which somebody who waits is told for whom."""

_REFUSED_FOR_GOOD = re.compile(
    r"password authentication failed|no password supplied|fe_sendauth|no pg_hba\.conf entry|"
    r'(?:role|database) ".*" does not exist|permission denied for database'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database and how its sessions behave. ``tell`` gets a sentence when somebody else has to be waited for."""

    url: str = field(repr=False)
    busy_timeout: timedelta
    tell: Callable[[str], None]

    @contextmanager
    def session(self, purpose: str) -> Iterator[Session]:
        """Connect, in autocommit; *purpose* is what the session is called in ``pg_stat_activity``.

        Raises psycopg's errors; :func:`refusals_explained` makes ours of them.
        """
        connection = psycopg.connect(self.conninfo(purpose), autocommit=True, prepare_threshold=None)
        try:
            milliseconds = max(1, int(self.busy_timeout.total_seconds() * 1000))
            connection.execute(sql.SET_UP_SESSION, {"lock_timeout": f"{milliseconds}ms"})
            with suppress(psycopg.Error):
                # Servers before 14, and those on some systems, cannot look whether a client is still there.
                connection.execute(sql.WATCH_CLIENT)
            yield connection
        finally:
            connection.close()

    def conninfo(self, purpose: str) -> str:
        """Return what to connect with; parameters of the URL come before ours."""
        given = conninfo_to_dict(self.url)
        name = f"ecmbatch {purpose}".encode()[:_LONGEST_IDENTIFIER].decode(errors="ignore")
        return make_conninfo(**{**_DEFAULTS, **given, "application_name": name, "client_encoding": "UTF8"})


def run(
    session: Session, statement: str, values: Mapping[str, Any] | None = None
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Execute a statement; with values or without, a percent sign in it is written twice."""
    return session.execute(statement.encode(), values or {})


def lock_key(*names: str) -> int:
    """Return the advisory lock that stands for *names*, the same in every process."""
    digest = sha256("\x00".join(("ecmbatch", *names)).encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


class Watch:
    """Looks, from a session of its own, for whom another session waits; tells it and remembers it."""

    def __init__(self, database: Database, session: Session, table: str) -> None:
        self._database = database
        self._pid = session.info.backend_pid
        self._table = table
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again, daemon=True)
        self.blocker: str | None = None

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look_again_and_again(self) -> None:
        pause = min(_FIRST_LOOK, self._database.busy_timeout.total_seconds() / 4)
        if self._over.wait(pause):
            return
        # Who blocks is only for the message; whatever goes wrong here, the waiting itself goes on.
        with suppress(psycopg.Error), self._database.session("watch") as session:
            self._look(session)
            while not self._over.wait(pause):
                self._look(session)

    def _look(self, session: Session) -> None:
        found = run(session, sql.BLOCKERS, {"pid": self._pid}).fetchone()
        if found is None:
            return
        pid, application, user = found
        blocker = f"session {pid} ({application}, user {user})"
        if blocker != self.blocker:
            self.blocker = blocker
            limit = format_duration(self._database.busy_timeout)
            self._database.tell(f"table {self._table!r} is locked by {blocker}; waiting up to {limit} for it")


@contextmanager
def refusals_explained(outcome: str, watch: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Turn psycopg's errors into ours. Those that may quote values of rows are replaced, cause included.

    *watch* tells who was last seen to block the session.
    """
    try:
        yield
    except psycopg.Error as error:
        explained = _explained(error, outcome, watch())
        raise explained from (None if _quotes_values(error) else error)


def column_at_fault(said: str) -> str | None:
    """Return the column that PostgreSQL names in the context of a failed binary COPY."""
    found = re.search(r"CONTEXT: +COPY .*, line \d+, column (.+)$", said, re.MULTILINE)
    return found[1] if found else None


def _explained(error: psycopg.Error, outcome: str, blocker: str | None) -> EcmbatchError:
    state = error.sqlstate or ""
    said = error.diag.message_primary or next(iter(str(error).splitlines()), type(error).__name__)
    if not state and isinstance(error, psycopg.OperationalError):
        return _disconnected(outcome, str(error))
    match state[:2]:
        case "08":
            return _disconnected(outcome, said)
        case "53":
            return StoreError(f"{outcome}: {said}", error_class="transient")
        case "40":
            return StoreError(f"{outcome}: {said}", error_class="transient")
        case "22":
            return _refusal(outcome, "a value is not possible in the type of the table's column", "data")
        case "23":
            return _refusal(outcome, said, "data")
        case "P0":
            return _refusal(
                outcome, f"a function or trigger of the database refused it (SQLSTATE {state})", "data"
            )
    if error.diag.source_function == "check_enable_rls":
        hint = (
            "policies would hide rows, which would then be kept or stored twice: let the role of the store own the "
            "table, without FORCE ROW LEVEL SECURITY, or have BYPASSRLS"
        )
        return StoreError(f"{outcome}: {said}", hint=hint, error_class="permanent")
    if state == "55P03":
        return StoreBusy(
            f"{outcome}: {blocker or 'another session'} holds a lock on it and did not let go in time; "
            "what is staged is kept",
            hint="end it and resume the run; busy_timeout in the project file sets how long is waited",
        )
    if state == "57014":
        return cancelled(outcome, said)
    if state[:2] == "57" or state in ("25P03", "25P04"):
        return _disconnected(outcome, said)
    if state == "0A000" and error.diag.message_detail:
        said = f"{said} ({error.diag.message_detail})"
    return _refusal(outcome, said, "permanent")


def cancelled(outcome: str, said: str) -> StoreError:
    """Return what to tell of a statement that took longer than the role may."""
    hint = "raise statement_timeout of the role, or leave it out for it"
    return StoreError(f"{outcome}: {said}", hint=hint, error_class="permanent")


def _disconnected(outcome: str, said: str) -> EcmbatchError:
    first = next(iter(said.splitlines()), "the connection was lost")
    if _REFUSED_FOR_GOOD.search(said):
        hint = "see the url of the store in the project file, and what the role may do"
        return StoreError(f"{outcome}: {first}", hint=hint, error_class="permanent")
    return Unreachable(
        f"{outcome}, as far as is known: {first}",
        hint="what is staged is kept, and what was committed is found again: resume the run",
    )


def _refusal(outcome: str, reason: str, error_class: ErrorClass) -> StoreError:
    return StoreError(f"{outcome}: {reason}", error_class=error_class)


def _quotes_values(error: psycopg.Error) -> bool:
    return (error.sqlstate or "")[:2] in ("22", "23", "P0")
