"""The staged rows of a run, loaded by COPY into a table that nobody else reads.

The table is unlogged and outside the publishing transaction: it can be dropped at any time. Whoever loads
or publishes it holds an advisory lock of its name, so that ``gc`` can tell that it is in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from secrets import token_hex

import adbc_driver_manager
import adbc_driver_postgresql.dbapi
import duckdb
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from ecmbatch.errors import EcmbatchError, StageError, StoreError, Unreachable
from ecmbatch.stores import postgres_statements as sql
from ecmbatch.stores.postgres_session import Database, Session, cancelled, column_at_fault, lock_key, run
from ecmbatch.stores.postgres_types import becomes_json, loaded_type
from ecmbatch.stores.publication_check import check_row_count, refused
from ecmbatch.stores.store import PARTITION_COLUMN, Publication, StagedFile

STAGING_PREFIX = "_ecmbatch_stage_"
_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 50_000
_JSON_MEMORY = "256MB"


@dataclass(frozen=True, slots=True)
class _Column:
    """How a staged column is loaded: its type in the files, and its Arrow and PostgreSQL types on the way."""

    name: str
    staged: pa.DataType
    loaded: pa.DataType
    sql: str


@contextmanager
def staged_rows(database: Database, session: Session, schema: str, publication: Publication) -> Iterator[str]:
    """Load the staged rows into a table of their own, and drop it afterwards; gives its full quoted name."""
    name = f"{STAGING_PREFIX}{_short(publication.run_id)}_{token_hex(4)}"
    table = f"{sql.quoted(schema)}.{sql.quoted(name)}"
    run(session, sql.HOLD_NAME, {"key": lock_key("staging", schema, name)})
    columns = [_Column(field.name, field.type, *loaded_type(field.type)) for field in publication.schema]
    places = [(PARTITION_COLUMN, "integer"), (sql.ROW_COLUMN, "bigint")] if _folds(publication) else []
    try:
        definitions = [*((column.name, column.sql) for column in columns), *places]
        run(session, sql.create_staging(table, definitions))
        run(session, sql.comment_on(table, publication.run_id))
        rows = _Rows(publication, columns)
        if any(file.rows for file in publication.files):
            _copy(database, rows, schema, name)
        check_row_count(publication, rows.count)
        run(session, sql.analyze(table))
        yield table
    finally:
        _drop(database, session, table)


def _drop(database: Database, session: Session, table: str) -> None:
    """Drop the table even where its session was lost; what cannot be dropped now is for ``gc``."""
    with suppress(psycopg.Error):
        if not session.closed:
            run(session, sql.drop_table(table))
            return
    with suppress(psycopg.Error), database.session("drop") as another:
        # The transaction of the lost session may live on and read it; whoever comes after must not wait for that.
        run(another, sql.WAIT_BRIEFLY)
        run(another, sql.drop_table(table))


def _short(run_id: str) -> str:
    """The end of the id of a run differs most from that of others."""
    return "".join(filter(str.isalnum, run_id)).lower()[-12:]


def _folds(publication: Publication) -> bool:
    return bool(publication.key) and publication.mode != "append"


def _copy(database: Database, rows: _Rows, schema: str, name: str) -> None:
    publication = rows.publication
    try:
        with (
            adbc_driver_postgresql.dbapi.connect(
                database.conninfo(f"{publication.run_id} load"), autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.adbc_ingest(name, rows.reader(), mode="append", db_schema_name=schema)
    except adbc_driver_manager.Error as error:
        if rows.failure is not None:
            raise rows.failure from None
        raise _not_loaded(publication, error) from None


def _not_loaded(publication: Publication, error: adbc_driver_manager.Error) -> EcmbatchError:
    """Say what the server had against a row, in words without its values."""
    said = str(error)
    state = error.sqlstate or ""
    column = column_at_fault(said)
    where = f"column {column!r}" if column else "a column"
    if state == "22021":
        reason = (
            f"{where} has a text with a NUL character, which PostgreSQL cannot keep: "
            "replace it in the transform"
        )
        return refused(publication.table, [reason], error_class="data")
    if state[:2] == "22":
        reason = f"{where} has a value that PostgreSQL cannot keep (SQLSTATE {state})"
        return refused(publication.table, [reason], error_class="data")
    outcome = f"nothing was published to table {publication.table!r}"
    first = said.splitlines()[0].rpartition("ERROR:")[2].strip()
    if state == "57014":
        return cancelled(outcome, first)
    if state[:2] in ("53", "40"):
        return StoreError(f"{outcome}: {first}", error_class="transient")
    if not state or state[:2] in ("08", "57"):
        return Unreachable(f"{outcome}: {first}", hint="what is staged is kept: resume the run")
    return StoreError(f"{outcome}: {first}", error_class="permanent")


class _Rows:
    """The staged rows as they are loaded: a stream of bounded batches in (file, row) order.

    What stops the stream is kept in ``failure``: whoever reads it sees only that it stopped.
    """

    def __init__(self, publication: Publication, columns: list[_Column]) -> None:
        self.publication = publication
        self.count = 0
        self.failure: BaseException | None = None
        self._columns = columns
        fields = [pa.field(column.name, column.loaded) for column in columns]
        if _folds(publication):
            fields += [pa.field(PARTITION_COLUMN, pa.int32()), pa.field(sql.ROW_COLUMN, pa.int64())]
        self._schema = pa.schema(fields)

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._schema, self._remembering())

    def _remembering(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches()
        except BaseException as failure:
            self.failure = failure
            raise

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for file in self.publication.files:
            for batch in _read(file):
                yield self._loaded(batch)
                self.count += batch.num_rows

    def _loaded(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = [self._converted(column, batch.column(column.name)) for column in self._columns]
        if _folds(self.publication):
            arrays.append(batch.column(PARTITION_COLUMN))
            arrays.append(pa.array(np.arange(self.count, self.count + batch.num_rows)))
        return pa.record_batch(arrays, schema=self._schema)

    def _converted(self, column: _Column, values: pa.Array) -> pa.Array:
        try:
            if becomes_json(column.staged):
                return _as_json(values, self._json)
            return _cast(values, column.loaded)
        except (pa.ArrowInvalid, OverflowError):
            # Arrow's message may quote the value.
            reason = (
                f"column {column.name!r} has a value that PostgreSQL cannot keep as {column.sql}: "
                "times are kept to the microsecond; round or cast it in the transform"
            )
            raise refused(self.publication.table, [reason], error_class="data") from None
        except duckdb.Error as error:
            reason = f"column {column.name!r} cannot be written as JSON ({type(error).__name__})"
            raise refused(self.publication.table, [reason], error_class="data") from None

    @cached_property
    def _json(self) -> duckdb.DuckDBPyConnection:
        """What writes JSON, by far faster than Python; it goes with these rows."""
        connection = duckdb.connect(config={"memory_limit": _JSON_MEMORY, "threads": 1})
        connection.execute("SET TimeZone = 'UTC'")
        return connection


def _read(file: StagedFile) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file.path) as parquet:
            footer = parquet.metadata
            size = sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
            rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * footer.num_rows // max(size, 1)))
            yield from parquet.iter_batches(batch_size=rows)
    except (OSError, pa.ArrowException) as error:
        raise StageError(f"the staged file {file.path} cannot be read: {error}") from error


def _cast(values: pa.Array, type_: pa.DataType) -> pa.Array:
    if isinstance(values.type, pa.BaseExtensionType) and values.type != type_:
        values = values.storage
    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if types.is_null(values.type):
        return pa.nulls(len(values), type_)
    return values if values.type == type_ else pc.cast(values, type_)


def _as_json(values: pa.Array, connection: duckdb.DuckDBPyConnection) -> pa.Array:
    rows = pa.table({"value": values})
    texts = connection.from_arrow(rows).query("rows", "SELECT CAST(to_json(value) AS VARCHAR) FROM rows")
    return pa.chunked_array(texts.to_arrow_table().column(0), pa.string()).combine_chunks()
