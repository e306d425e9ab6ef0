"""The store in a DuckDB file: no server, one file, one writer or several readers at a time.

Markers and heads live in the same file as the tables, so one transaction commits them together. The file is
open only while it is needed: readers of the context store wait during the short publish, and a publication
waits for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import duckdb
import pyarrow as pa
from pydantic import Field

from ecmbatch.crash_points import crash_point
from ecmbatch.errors import ErrorClass, StoreError
from ecmbatch.protocol.document import Matching, Section, parse_model
from ecmbatch.protocol.duration import Duration
from ecmbatch.stores import duckdb_statements as sql
from ecmbatch.stores.duckdb_file import DuckDBFile
from ecmbatch.stores.duckdb_publish import (
    create_own_tables,
    find_head,
    find_marker,
    find_versions,
    publish_in_transaction,
)
from ecmbatch.stores.duckdb_target import check_columns, find_target, has_table, table_name
from ecmbatch.stores.store import (
    PROVENANCE_COLUMN,
    Head,
    Marker,
    Publication,
    Store,
    StoreType,
    TableChange,
    TargetTable,
)

_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([KMGT]i?B)")
_UNITS = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_PARTS_OF_MEMORY = 8
"""An upsert in parts of an eighth of the memory limit never had to spill, and larger parts were no faster."""


class DuckDBStoreSettings(Section):
    """Settings of ``type = "duckdb"`` under ``[stores.<name>]``."""

    path: Annotated[str, Field(min_length=1)]
    """The file; a relative path starts at the project's folder. It is created when something is published."""
    memory_limit: Annotated[str, Matching(_SIZE.pattern, "a size such as '1GB' or '512 MiB'")] = "1GB"
    """Memory for publishing, per open connection; what does not fit is spilled to ``<path>.tmp``."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads for publishing; by default one per core and at most four."""
    busy_timeout: Duration = timedelta(seconds=60)
    """How long to wait for another process that holds the file."""


class DuckDBStore(Store):
    """Publishes to the DuckDB file of *settings*; *tell* gets a sentence whenever it waits for somebody."""

    def __init__(self, settings: DuckDBStoreSettings, folder: Path, tell: Callable[[str], None]) -> None:
        self._part_bytes = _bytes_of(settings.memory_limit) // _PARTS_OF_MEMORY
        self._file = DuckDBFile(
            path=(folder / Path(settings.path).expanduser()).absolute(),
            memory_limit=settings.memory_limit,
            threads=settings.threads,
            busy_timeout=settings.busy_timeout,
            tell=tell,
        )

    def table(self, name: str) -> TargetTable | None:
        with self._reading() as connection:
            target = None if connection is None else find_target(connection, name)
        if target is None:
            return None
        fields = [field for field in target.schema if field.name.lower() != PROVENANCE_COLUMN]
        return TargetTable(schema=pa.schema(fields), primary_key=target.primary_key, rows=target.rows)

    def head(self, job_id: str, table: str, stream: str) -> Head | None:
        with self._reading() as connection:
            if connection is not None and has_table(connection, "_ecmbatch_heads"):
                return find_head(connection, job_id, table, stream)
        return None

    def marker(self, run_id: str) -> Marker | None:
        with self._reading() as connection:
            if connection is not None and has_table(connection, "_ecmbatch_publications"):
                return find_marker(connection, run_id)
        return None

    def versions(self) -> Mapping[str, int]:
        with self._reading() as connection:
            if connection is not None and has_table(connection, "_ecmbatch_publications"):
                return find_versions(connection)
        return {}

    def table_name(self, name: str) -> str:
        return table_name(name)

    def check(self, publication: Publication) -> TableChange:
        with self._reading() as connection:
            target = None if connection is None else find_target(connection, publication.table)
            return check_columns(connection, publication, target)

    def publish(self, publication: Publication, at: datetime) -> Marker:
        folders = sorted({file.path.parent.absolute() for file in publication.files})
        outcome = f"nothing was published to table {publication.table!r}"
        with _refusals_explained(outcome), self._file.writing(folders) as connection:
            with _transaction(connection):
                marker = publish_in_transaction(connection, publication, at, part_bytes=self._part_bytes)
                crash_point("publish.before_commit")
            crash_point("publish.after_commit")
        return marker

    def abandon(self, run_id: str, at: datetime) -> Marker:
        with (
            _refusals_explained(f"run {run_id} was not abandoned"),
            self._file.writing() as connection,
            _transaction(connection),
        ):
            create_own_tables(connection)
            if find_marker(connection, run_id) is None:
                connection.execute(sql.INSERT_TOMBSTONE, {"run_id": run_id, "at": at})
            marker = find_marker(connection, run_id)
        if marker is None:
            raise StoreError(f"the tombstone of run {run_id} was not stored")
        return marker

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection | None]:
        """Open the file to read, or give ``None`` where it does not exist yet."""
        if not self._file.path.exists():
            yield None
            return
        with (
            _refusals_explained(f"{self._file.path} could not be read"),
            self._file.reading() as connection,
        ):
            yield connection


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.begin()
    try:
        yield
    except BaseException:
        _roll_back(connection)
        raise
    connection.commit()


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.rollback()
    except duckdb.Error:
        # A connection broken by what went wrong before has nothing left to roll back; that error is raised.
        return


@contextmanager
def _refusals_explained(outcome: str) -> Iterator[None]:
    """Turn DuckDB's errors into ours. Messages that may quote values of rows are replaced, cause included."""
    try:
        yield
    except duckdb.ConstraintException as error:
        raise _refusal(outcome, _broken_constraint(str(error)), "data") from None
    except (duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        raise _refusal(outcome, _unconvertible(str(error)), "data") from None
    except duckdb.OutOfMemoryException as error:
        reason = "the memory limit is too small for it; raise memory_limit of the store in the project file"
        raise _refusal(outcome, reason, "permanent") from error
    except (duckdb.IOException, duckdb.TransactionException) as error:
        raise _refusal(outcome, str(error).splitlines()[0], "transient") from error
    except duckdb.Error as error:
        raise _refusal(outcome, str(error).splitlines()[0], "permanent") from error


def _refusal(outcome: str, reason: str, error_class: ErrorClass) -> StoreError:
    return StoreError(f"{outcome}: {reason}", error_class=error_class)


def _broken_constraint(message: str) -> str:
    if "NOT NULL constraint failed" in message or "CHECK constraint failed" in message:
        return message.splitlines()[0].removeprefix("Constraint Error: ")
    if "foreign key" in message:
        return (
            "a foreign key constraint would be violated (rows that another table refers to cannot be changed)"
        )
    return "a primary key or unique constraint of the table would be violated"


def _unconvertible(message: str) -> str:
    column = re.search(r"when casting from source column (.+)$", message.splitlines()[0])
    where = f"a value of column {column[1]!r}" if column else "a value"
    return f"{where} is not possible in the type of the table's column"


def _bytes_of(size: str) -> int:
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f"{size!r} is not a size")
    return int(float(match[1]) * _UNITS[match[2]])


def _parse(settings: Mapping[str, Any]) -> DuckDBStoreSettings:
    return parse_model(DuckDBStoreSettings, dict(settings), what="settings of the duckdb store")


def _source(settings: DuckDBStoreSettings) -> tuple[str, Mapping[str, Any]]:
    source: dict[str, Any] = {"path": settings.path, "memory_limit": settings.memory_limit}
    return "duckdb", source if settings.threads is None else {**source, "threads": settings.threads}


DUCKDB = StoreType(name="duckdb", parse_config=_parse, build=DuckDBStore, source=_source)
