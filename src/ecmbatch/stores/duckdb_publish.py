"""What happens inside the one transaction that publishes a run to a DuckDB file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow.parquet as pq

from ecmbatch.crash_points import crash_point
from ecmbatch.stores import duckdb_statements as sql
from ecmbatch.stores.duckdb_target import (
    Target,
    change_table,
    check_columns,
    delivery_into,
    find_target,
    not_filled,
    table_name,
    unfillable_columns,
)
from ecmbatch.stores.publication_check import (
    check_head,
    check_row_count,
    check_version,
    empty_replace,
    null_keys,
    published_before,
    refused,
    repeated_stored_keys,
)
from ecmbatch.stores.store import Head, Marker, Publication, PublishedRows, StagedFile

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def publish_in_transaction(
    connection: duckdb.DuckDBPyConnection, publication: Publication, at: datetime, *, part_bytes: int
) -> Marker:
    """Do everything but the commit. *part_bytes* bounds the staged bytes that an upsert holds at once."""
    create_own_tables(connection)
    marker = find_marker(connection, publication.run_id)
    if marker is not None:
        return published_before(marker)
    if publication.expected_version is not None:
        versions = find_versions(connection)
        check_version(publication, versions.get(table_name(publication.table), 0))
    _insert_marker(connection, publication, at)
    crash_point("publish.marker")
    if publication.live:
        _move_head(connection, publication)
    crash_point("publish.head")
    stored = find_target(connection, publication.table)
    target = change_table(connection, publication, stored, check_columns(connection, publication, stored))
    delivery = delivery_into(target, publication)
    folded = _fold(connection, publication, delivery)
    crash_point("publish.fold")
    rows = _Apply(connection, publication, target, delivery, folded, part_bytes).apply()
    crash_point("publish.apply")
    connection.execute(sql.COUNT_PUBLISHED_ROWS, {"run_id": publication.run_id, **asdict(rows)})
    return Marker(
        run_id=publication.run_id, outcome="published", manifest=publication.manifest, rows=rows, at=at
    )


def create_own_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the tables of markers and heads where they are missing."""
    connection.execute(sql.CREATE_PUBLICATIONS)
    connection.execute(sql.CREATE_HEADS)


def find_marker(connection: duckdb.DuckDBPyConnection, run_id: str) -> Marker | None:
    """Return the marker of a run; the table of markers must exist."""
    row = connection.execute(sql.MARKER, {"run_id": run_id}).fetchone()
    if row is None:
        return None
    outcome, manifest, inserted, updated, deleted, unchanged, folded, outdated, at = row
    return Marker(
        run_id=run_id,
        outcome=outcome,
        manifest=manifest,
        rows=PublishedRows(
            inserted=inserted,
            updated=updated,
            deleted=deleted,
            unchanged=unchanged,
            folded=folded,
            outdated=outdated,
        ),
        at=_instant(at),
    )


def find_head(connection: duckdb.DuckDBPyConnection, job_id: str, table: str, stream: str) -> Head | None:
    """Return the head; the table of heads must exist."""
    row = connection.execute(sql.HEAD, {"job_id": job_id, "target": table, "stream": stream}).fetchone()
    if row is None:
        return None
    run_id, window_end = row
    return Head(run_id=run_id, window_end=None if window_end is None else _instant(window_end))


def find_versions(connection: duckdb.DuckDBPyConnection) -> Mapping[str, int]:
    """Return how many runs were published to each table; the table of markers must exist."""
    versions: Counter[str] = Counter()
    for target, published in connection.execute(sql.VERSIONS).fetchall():
        versions[table_name(target)] += published
    return dict(versions)


def _insert_marker(connection: duckdb.DuckDBPyConnection, publication: Publication, at: datetime) -> None:
    connection.execute(
        sql.INSERT_MARKER,
        {
            "run_id": publication.run_id,
            "job_id": publication.job_id,
            "stream": publication.stream,
            "target": publication.table,
            "mode": publication.mode,
            "manifest": publication.manifest,
            "at": at,
        },
    )


def _move_head(connection: duckdb.DuckDBPyConnection, publication: Publication) -> None:
    current = find_head(connection, publication.job_id, publication.table, publication.stream)
    check_head(publication, current)
    connection.execute(
        sql.MOVE_HEAD,
        {
            "job_id": publication.job_id,
            "target": publication.table,
            "stream": publication.stream,
            "run_id": publication.run_id,
            "window_end": publication.window_end,
        },
    )


def _fold(connection: duckdb.DuckDBPyConnection, publication: Publication, delivery: sql.Delivery) -> int:
    """Refuse rows without a key, remember those that give way to another of their key, and count them."""
    files = _with_rows(publication.files)
    if publication.mode == "append" or not publication.key or not files:
        return 0
    staged = _parameters(files)
    rows, without_key, keys = connection.execute(sql.count_keys(delivery), staged).fetchone() or (0, 0, 0)
    check_row_count(publication, rows)
    if without_key:
        raise null_keys(publication, without_key)
    if rows > keys:
        connection.execute(sql.create_losers(delivery), staged)
    return int(rows - keys)


@dataclass(frozen=True, slots=True)
class _Apply:
    """The mode of a publication, applied to a table that has all the columns."""

    connection: duckdb.DuckDBPyConnection
    publication: Publication
    target: Target
    delivery: sql.Delivery
    folded: int
    part_bytes: int

    def apply(self) -> PublishedRows:
        match self.publication.mode:
            case "append":
                return self._insert_all()
            case "replace":
                return self._replace()
            case "upsert":
                return self._upsert()

    def _replace(self) -> PublishedRows:
        staged = sum(file.rows for file in self.publication.files)
        if not staged and self.target.rows and not self.publication.allow_empty:
            raise empty_replace(self.publication, self.target.rows)
        # Delete and insert, rather than swap in a new table: as fast, and constraints, indexes, defaults,
        # comments and views survive.
        self.connection.execute(sql.delete_all(self.target.name))
        inserted = self._insert_all()
        return PublishedRows(inserted=inserted.inserted, folded=inserted.folded, deleted=self.target.rows)

    def _upsert(self) -> PublishedRows:
        if not self.target.rows:
            self._refuse_new_rows_that_cannot_be_filled(sum(file.rows for file in self.publication.files))
            return self._insert_all()
        verdicts = {"inserted": 0, "updated": 0, "unchanged": 0, "outdated": 0}
        first_file = 0
        for part in _parts(_with_rows(self.publication.files), self.part_bytes):
            for verdict, rows in self._upsert_part(part, first_file).items():
                verdicts[verdict] += rows
            first_file += len(part)
        winners = sum(file.rows for file in self.publication.files) - self.folded
        if (repeated := sum(verdicts.values()) - winners) > 0:
            raise repeated_stored_keys(self.publication, repeated)
        return PublishedRows(folded=self.folded, **verdicts)

    def _upsert_part(self, part: Sequence[StagedFile], first_file: int) -> Mapping[str, int]:
        judge = sql.judge_part(self.delivery, folds=self.folded > 0)
        self.connection.execute(judge, _parameters(part, first_file))
        verdicts: dict[str, int] = dict(self.connection.execute(sql.COUNT_VERDICTS).fetchall())
        if verdicts.get("updated"):
            self.connection.execute(sql.delete_updated(self.delivery))
            self.connection.execute(sql.insert_updated(self.delivery), self._provenance())
        if verdicts.get("inserted"):
            self._refuse_new_rows_that_cannot_be_filled(verdicts["inserted"])
            self.connection.execute(sql.insert_new(self.delivery), self._provenance())
        self.connection.execute(sql.DROP_JUDGED)
        return verdicts

    def _insert_all(self) -> PublishedRows:
        files = _with_rows(self.publication.files)
        if not files:
            return PublishedRows()
        insert = sql.insert_staged(self.delivery, folds=self.folded > 0)
        (inserted,) = self.connection.execute(
            insert, {**_parameters(files), **self._provenance()}
        ).fetchone() or (0,)
        check_row_count(self.publication, inserted + self.folded)
        return PublishedRows(inserted=inserted, folded=self.folded)

    def _provenance(self) -> dict[str, Any]:
        if not self.delivery.provenance:
            return {}
        # Where nobody keeps the column up, unknown is better than the name of an older run.
        return {"provenance": self.publication.run_id if self.publication.provenance else None}

    def _refuse_new_rows_that_cannot_be_filled(self, rows: int) -> None:
        unfillable = unfillable_columns(self.publication, self.target)
        if rows and unfillable:
            raise refused(self.publication.table, [not_filled(name) for name in unfillable])


def _with_rows(files: Sequence[StagedFile]) -> list[StagedFile]:
    return [file for file in files if file.rows]


def _parameters(files: Sequence[StagedFile], first_file: int = 0) -> dict[str, Any]:
    return {"files": [str(file.path.absolute()) for file in files], "first_file": first_file}


def _parts(files: Sequence[StagedFile], part_bytes: int) -> Iterator[list[StagedFile]]:
    """Yield the files in their order, in groups of about *part_bytes* of unpacked rows, at least one each."""
    part: list[StagedFile] = []
    size = 0
    for file in files:
        footer = pq.read_metadata(file.path)
        file_size = sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
        if part and size + file_size > part_bytes:
            yield part
            part, size = [], 0
        part.append(file)
        size += file_size
    if part:
        yield part


def _instant(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
