"""Opening the ledger's database: connection settings, schema version, transactions."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, inspect, select
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from ecmbatch.errors import Unreachable, UsageError
from ecmbatch.ledger.tables import SCHEMA_VERSION, metadata, schema_version

_BUSY_TIMEOUT_SECONDS = 30
"""Shorter than a lease by so much that a worker whose renewal is blocked still stops itself in time."""
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}
)


class Database:
    """The ledger's database, opened at the current schema version.

    Raises :class:`~ecmbatch.errors.Unreachable` when it cannot be opened or used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_network_file_system(path)
        with problems_named(self.path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._engine = create_engine(
                f"sqlite:///{path}",
                # A failing statement must not show a cursor's key, which is a value of a row.
                hide_parameters=True,
                connect_args={"timeout": _BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            event.listen(self._engine, "connect", _on_connect)
            event.listen(self._engine, "begin", _on_begin)
            self._bring_up_to_date()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its beginning, durable when it ends."""
        with (
            problems_named(self.path),
            self._engine.connect() as connection,
            connection.execution_options(ecmbatch_write=True).begin(),
        ):
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state and blocks nobody."""
        with problems_named(self.path), self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    def _bring_up_to_date(self) -> None:
        if self._version() == SCHEMA_VERSION:
            return
        # Several processes may find an old or an empty ledger at once; one of them changes it.
        with (self.path.parent / f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._switch_to_write_ahead_log()
            version = self._version()
            if version is None:
                with self.write() as connection:
                    metadata.create_all(connection)
                    connection.execute(schema_version.insert().values(version_num=SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                from ecmbatch.ledger.migrations import upgrade

                with self.write() as connection:
                    upgrade(connection)

    def _switch_to_write_ahead_log(self) -> None:
        """The file remembers the mode. Processes that switch at once can fail without waiting, hence the lock."""
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()

    def _version(self) -> str | None:
        with self.read() as connection:
            if not inspect(connection).has_table(schema_version.name):
                return None
            return str(connection.execute(select(schema_version.c.version_num)).scalar_one())


def _on_connect(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling would begin late and take the write lock later still.
    connection.isolation_level = None
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_TIMEOUT_SECONDS * 1000}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("ecmbatch_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextmanager
def problems_named(path: Path) -> Iterator[None]:
    """Tell what SQLite, SQLAlchemy or the disk says about the ledger at *path* in our errors."""
    try:
        yield
    except OperationalError as error:
        raise Unreachable(
            f"the ledger {path} cannot be used: {error.orig}",
            hint="check the disk's free space and permissions; nothing is lost, run the command again",
        ) from error
    except DatabaseError as error:
        if "UNIQUE constraint" in str(error.orig):
            raise
        raise UsageError(
            f"the ledger {path} is not a ledger of this version: {error.orig}",
            hint="point [ledger] url elsewhere, or restore the file from a backup",
        ) from error
    except SQLAlchemyError as error:
        raise Unreachable(f"the ledger {path} cannot be used: {type(error).__name__}") from error
    except OSError as error:
        raise Unreachable(f"the ledger {path} cannot be used: {error.strerror}") from error


def refuse_network_file_system(path: Path) -> None:
    """SQLite's locks do not hold on network file systems; two hosts would both believe to own a run."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return
    folder = str(path.resolve().parent)
    best, kind = "", ""
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    if kind in _NETWORK_FILE_SYSTEMS:
        raise UsageError(
            f"the ledger {path} is on a network file system ({kind}), where SQLite's locks do not hold",
            hint="put the ledger on a local disk",
        )
