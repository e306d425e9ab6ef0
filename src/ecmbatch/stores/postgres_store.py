"""Publishing to PostgreSQL: the stage goes into a table of its own first, then one transaction does the rest.

Sessions are opened for each call. Killing a process does not kill its transaction, so whoever publishes a run
again waits for what became of it: the marker's primary key and the table's lock make sure of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

import pyarrow as pa

from ecmbatch.crash_points import crash_point
from ecmbatch.errors import StoreError
from ecmbatch.stores import postgres_statements as sql
from ecmbatch.stores.postgres import PostgresStoreSettings
from ecmbatch.stores.postgres_publish import (
    ValueRefused,
    column_refused,
    create_own_tables,
    find_head,
    find_marker,
    find_versions,
    has_own_tables,
    publish_in_transaction,
)
from ecmbatch.stores.postgres_session import Database, Session, Watch, lock_key, refusals_explained, run
from ecmbatch.stores.postgres_staging import STAGING_PREFIX, staged_rows
from ecmbatch.stores.postgres_target import check_columns, find_target, qualified, table_name
from ecmbatch.stores.publication_check import published_before, refused
from ecmbatch.stores.store import (
    PROVENANCE_COLUMN,
    Head,
    Leftover,
    Marker,
    Publication,
    Store,
    TableChange,
    TargetTable,
)


class PostgresStore(Store):
    """Publishes to the database of *settings*; *tell* gets a sentence whenever it waits for somebody."""

    def __init__(self, settings: PostgresStoreSettings, tell: Callable[[str], None]) -> None:
        self._schema = settings.schema_
        self._database = Database(url=settings.url, busy_timeout=settings.busy_timeout, tell=tell)

    def table(self, name: str) -> TargetTable | None:
        with self._reading() as session:
            target = find_target(session, name, self._schema)
            if target is None:
                return None
            (rows,) = run(session, sql.count_rows(target.name)).fetchone() or (0,)
        fields = [field for field in target.schema if field.name != PROVENANCE_COLUMN]
        return TargetTable(schema=pa.schema(fields), primary_key=target.primary_key, rows=rows)

    def head(self, job_id: str, table: str, stream: str) -> Head | None:
        with self._reading() as session:
            if not has_own_tables(session, self._schema):
                return None
            return find_head(session, job_id, table, stream, self._schema)

    def marker(self, run_id: str) -> Marker | None:
        with self._reading() as session:
            if not has_own_tables(session, self._schema):
                return None
            return find_marker(session, run_id, self._schema)

    def versions(self) -> Mapping[str, int]:
        with self._reading() as session:
            return find_versions(session, self._schema) if has_own_tables(session, self._schema) else {}

    def table_name(self, name: str) -> str:
        return table_name(name, self._schema)

    def check(self, publication: Publication) -> TableChange:
        qualified(publication.table, self._schema)
        with self._reading() as session:
            target = find_target(session, publication.table, self._schema)
        return check_columns(publication, target)

    def publish(self, publication: Publication, at: datetime) -> Marker:
        outcome = f"nothing was published to table {publication.table!r}"
        with refusals_explained(outcome), self._database.session(publication.run_id) as session:
            create_own_tables(session, self._schema)
            # What would be refused anyhow is not worth loading.
            if (marker := find_marker(session, publication.run_id, self._schema)) is not None:
                return published_before(marker)
            check_columns(publication, find_target(session, publication.table, self._schema))
            with staged_rows(self._database, session, self._schema, publication) as staging:
                return self._publish(session, publication, at, staging)

    def abandon(self, run_id: str, at: datetime) -> Marker:
        outcome = f"run {run_id} was not abandoned"
        with refusals_explained(outcome), self._database.session(run_id) as session:
            create_own_tables(session, self._schema)
            run(session, sql.insert_tombstone(self._schema), {"run_id": run_id, "at": at})
            marker = find_marker(session, run_id, self._schema)
        if marker is None:
            raise StoreError(f"the tombstone of run {run_id} was not stored")
        return marker

    def leftovers(self) -> Sequence[Leftover]:
        with self._reading() as session:
            tables = run(session, sql.STAGING_TABLES, {"schema": self._schema, "prefix": STAGING_PREFIX})
            return [
                Leftover(name=name, run_id=run_id or "", bytes=size)
                for name, run_id, size in tables.fetchall()
                if self._is_free(session, name)
            ]

    def remove_leftover(self, name: str) -> bool:
        outcome = f"table {name!r} was not dropped"
        with (
            refusals_explained(outcome),
            self._database.session("gc") as session,
            session.transaction(),
        ):
            # Until the end of the transaction nobody else can take the name.
            if not name.startswith(STAGING_PREFIX) or not self._is_free(session, name):
                return False
            run(session, sql.drop_table(f"{sql.quoted(self._schema)}.{sql.quoted(name)}"))
            return True

    def _publish(self, session: Session, publication: Publication, at: datetime, staging: str) -> Marker:
        outcome = f"nothing was published to table {publication.table!r}"
        watch = Watch(self._database, session, publication.table)
        try:
            with refusals_explained(outcome, lambda: watch.blocker), watch, session.transaction():
                marker = publish_in_transaction(
                    session, publication, at, staging=staging, schema=self._schema
                )
                crash_point("publish.before_commit")
        except ValueRefused as refusal:
            column = column_refused(session, refusal.delivery)
            where = "a value" if column is None else f"a value of column {column!r}"
            reason = f"{where} is not possible in the type of the table's column"
            raise refused(publication.table, [reason], error_class="data") from None
        crash_point("publish.after_commit")
        return marker

    def _is_free(self, session: Session, name: str) -> bool:
        """Tell whether no session loads or publishes a staging table; holds it until the transaction ends."""
        key = lock_key("staging", self._schema, name)
        (free,) = run(session, sql.NAME_IS_FREE, {"key": key}).fetchone() or (False,)
        return bool(free)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with refusals_explained("the store could not be read"), self._database.session("read") as session:
            yield session
