"""A ledger in a SQLite file, for the processes of one machine."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, NullPool, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from ecmbatch.errors import Unreachable, UsageError
from ecmbatch.ledger.database import LONGEST_WAIT_SECONDS, Clock, Database
from ecmbatch.ledger.tables import metadata, schema_version

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}
)


class SQLiteDatabase(Database):
    """The ledger in the file *path*, made when it does not exist. Its time is that of the machine.

    Raises :class:`~ecmbatch.errors.UsageError` when it is no ledger or lies on a network file system.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        engine = create_engine(
            f"sqlite:///{path}",
            # A failing statement must not show a cursor's key, which is a value of a row.
            hide_parameters=True,
            connect_args={"timeout": LONGEST_WAIT_SECONDS, "check_same_thread": False},
        )
        super().__init__(engine, clock)
        self.path = path
        refuse_network_file_system(path)
        with self._problems_named():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            event.listen(engine, "connect", _on_connect)
            event.listen(engine, "begin", _on_begin)
            self._bring_up_to_date()

    @contextmanager
    def _upgrading(self) -> Iterator[None]:
        with (self.path.parent / f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._switch_to_write_ahead_log()
            yield

    def _switch_to_write_ahead_log(self) -> None:
        """The file remembers the mode. Processes that switch at once can fail without waiting, hence the lock."""
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()

    def _has_tables(self, connection: Connection) -> bool:
        return inspect(connection).has_table(schema_version.name)

    def _create(self, connection: Connection) -> None:
        metadata.create_all(connection)

    def _shared_time(self, connection: Connection) -> datetime:
        return datetime.now(UTC)

    def clock(self) -> datetime:
        """Return ledger time."""
        return self._clock() if self._clock is not None else datetime.now(UTC)

    @contextmanager
    def _problems_named(self) -> Iterator[None]:
        path = self.path
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


class UntouchedSQLite(SQLiteDatabase):
    """The ledger in the file *path*, which must exist, opened for reading and nothing else.

    Raises :class:`~ecmbatch.errors.Unreachable` when it cannot be read and
    :class:`~ecmbatch.errors.UsageError` when it is no ledger or lies on a network file system.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self.path = path
        refuse_network_file_system(path)
        # No pool: the ledger's files are as they were as soon as the reading is over.
        engine = create_engine(
            "sqlite://", creator=self._connection, poolclass=NullPool, hide_parameters=True
        )
        Database.__init__(self, engine, clock)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Refuse to; whoever comes here has a defect."""
        raise AssertionError("a ledger that is only looked at is not written")
        yield

    def damage(self) -> str | None:
        """Return what SQLite's own check finds wrong with the file; ``None`` where it is sound."""
        with self.read() as connection:
            found = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        return None if found == "ok" else str(found)

    def state(self) -> str:
        """Return what there is to say of a ledger that is well."""
        return f"{self.path} is sound, {self.path.stat().st_size / 2**20:,.1f} MiB"

    def lacks(self) -> None:
        """Return the right that is lacking to make a ledger here: whoever may write the folder may."""

    def _connection(self) -> sqlite3.Connection:
        # A write-ahead log that is there belongs to a process at work, or was left by one that was killed:
        # a last reader who may write would fold it into the file. Where there is none, a reader who may not
        # write would leave an empty one behind.
        log = self.path.with_name(f"{self.path.name}-wal")
        mode = "ro" if log.exists() else "rw"
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode={mode}", uri=True, check_same_thread=False
        )
        connection.execute("PRAGMA query_only=ON")
        return connection


def _on_connect(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling would begin late and take the write lock later still.
    connection.isolation_level = None
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={LONGEST_WAIT_SECONDS * 1000}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("ecmbatch_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


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
            hint='put the ledger on a local disk, or into PostgreSQL: [ledger] url = "postgresql://…"',
        )
