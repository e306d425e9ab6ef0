"""What happens inside the one transaction that publishes a run to a PostgreSQL database.

READ COMMITTED is enough: publications to one table take its advisory lock first, one after the other, and
every statement behind that sees what those before have committed. Other writers are held off by a lock on
the table itself, taken once and in the strongest mode needed, so that two can never wait for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from ecmbatch.crash_points import crash_point
from ecmbatch.stores import postgres_statements as sql
from ecmbatch.stores.postgres_session import Session, lock_key, run
from ecmbatch.stores.postgres_target import (
    Target,
    change_table,
    check_columns,
    delivery_into,
    find_target,
    is_unique,
    needs_ddl,
    not_filled,
    split_name,
    table_name,
    unfillable_columns,
)
from ecmbatch.stores.publication_check import (
    check_head,
    check_version,
    empty_replace,
    null_keys,
    published_before,
    refused,
    repeated_stored_keys,
)
from ecmbatch.stores.store import Head, Marker, Publication, PublishedRows


def publish_in_transaction(
    session: Session, publication: Publication, at: datetime, *, staging: str, schema: str
) -> Marker:
    """Do everything but the commit; *staging* is the table of the staged rows, *schema* that of plain names."""
    run(session, sql.LOCK_NAME, {"key": lock_key("table", *split_name(publication.table, schema))})
    marker = find_marker(session, publication.run_id, schema)
    if marker is not None:
        return published_before(marker)
    if publication.expected_version is not None:
        versions = find_versions(session, schema)
        check_version(publication, versions.get(table_name(publication.table, schema), 0))
    if marker := _insert_marker(session, publication, at, schema):
        return published_before(marker)
    crash_point("publish.marker")
    if publication.live:
        _move_head(session, publication, schema)
    crash_point("publish.head")
    stored, target = _changed_table(session, publication, schema)
    delivery = delivery_into(target, staging, publication)
    _refuse_too_long(session, publication, delivery)
    try:
        folded = _fold(session, publication, delivery)
        crash_point("publish.fold")
        rows = _Apply(session, publication, target, delivery, folded).apply()
        if stored is None and publication.mode == "upsert":
            run(session, sql.create_index(target.name, publication.key))
    except psycopg.errors.DataError as error:
        raise ValueRefused(delivery) from error
    crash_point("publish.apply")
    run(session, sql.count_published_rows(schema), {"run_id": publication.run_id, **asdict(rows)})
    return Marker(
        run_id=publication.run_id, outcome="published", manifest=publication.manifest, rows=rows, at=at
    )


class ValueRefused(Exception):
    """A staged value is not possible in the table; *delivery* is what was under way."""

    def __init__(self, delivery: sql.Delivery) -> None:
        super().__init__()
        self.delivery = delivery


def column_refused(session: Session, delivery: sql.Delivery) -> str | None:
    """Return the first column with a value that the table's type does not take; run after the rollback."""
    for column in delivery.columns:
        try:
            if column.type is not None:
                run(session, sql.try_cast(delivery, column))
        except psycopg.errors.DataError:
            return column.name
    return None


def create_own_tables(session: Session, schema: str) -> None:
    """Create the tables of markers and heads where they are missing, and the schema that they are in."""
    if len(_own_tables(session, schema)) == len(_CREATE_OWN):
        return
    with session.transaction():
        # IF NOT EXISTS does not keep two sessions from colliding, and asks for rights to create.
        run(session, sql.LOCK_NAME, {"key": lock_key("own tables")})
        _create_schema(session, schema)
        present = _own_tables(session, schema)
        for name, create in _CREATE_OWN.items():
            if name not in present:
                run(session, create(schema))


def has_own_tables(session: Session, schema: str) -> bool:
    """Tell whether anything can have been published yet."""
    return len(_own_tables(session, schema)) == len(_CREATE_OWN)


def find_marker(session: Session, run_id: str, schema: str) -> Marker | None:
    """Return the marker of a run; the table of markers must exist."""
    row = run(session, sql.marker(schema), {"run_id": run_id}).fetchone()
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
        at=at.astimezone(UTC),
    )


def find_head(session: Session, job_id: str, table: str, stream: str, schema: str) -> Head | None:
    """Return the head; the table of heads must exist."""
    row = run(session, sql.head(schema), {"job_id": job_id, "target": table, "stream": stream}).fetchone()
    if row is None:
        return None
    run_id, window_end = row
    return Head(run_id=run_id, window_end=None if window_end is None else window_end.astimezone(UTC))


def find_versions(session: Session, schema: str) -> Mapping[str, int]:
    """Return how many runs were published to each table; the table of markers must exist."""
    versions: Counter[str] = Counter()
    for target, published in run(session, sql.versions(schema)):
        versions[table_name(target, schema)] += published
    return dict(versions)


_CREATE_OWN = {"_ecmbatch_publications": sql.create_publications, "_ecmbatch_heads": sql.create_heads}


def _own_tables(session: Session, schema: str) -> set[str]:
    return {name for (name,) in run(session, sql.OWN_TABLES, {"schema": schema})}


def _create_schema(session: Session, schema: str) -> None:
    (exists,) = run(session, sql.SCHEMA_EXISTS, {"schema": schema}).fetchone() or (False,)
    if not exists:
        run(session, sql.create_schema(schema))


def _insert_marker(session: Session, publication: Publication, at: datetime, schema: str) -> Marker | None:
    """Insert the marker; where another transaction commits it first, wait for that and return its."""
    values = {
        "run_id": publication.run_id,
        "job_id": publication.job_id,
        "stream": publication.stream,
        "target": publication.table,
        "mode": publication.mode,
        "manifest": publication.manifest,
        "at": at,
    }
    if run(session, sql.insert_marker(schema), values).rowcount:
        return None
    return find_marker(session, publication.run_id, schema)


def _move_head(session: Session, publication: Publication, schema: str) -> None:
    values = {
        "job_id": publication.job_id,
        "target": publication.table,
        "stream": publication.stream,
        "run_id": publication.run_id,
        "window_end": publication.window_end,
        "expected": publication.expected_head,
    }
    move = sql.first_head(schema) if publication.expected_head is None else sql.move_head(schema)
    if not run(session, move, values).rowcount:
        current = find_head(session, publication.job_id, publication.table, publication.stream, schema)
        check_head(publication, current)


def _changed_table(session: Session, publication: Publication, schema: str) -> tuple[Target | None, Target]:
    """Lock the table, change its columns, and return it as it was and as it is."""
    stored = find_target(session, publication.table, schema)
    if stored is None:
        run(session, sql.LOCK_NAME, {"key": lock_key("own tables")})
        _create_schema(session, split_name(publication.table, schema)[0])
    elif needs_ddl(publication, stored, check_columns(publication, stored)):
        run(session, sql.lock_table(stored.name, "ACCESS EXCLUSIVE"))
    else:
        appends = publication.mode == "append"
        run(session, sql.lock_table(stored.name, "ROW EXCLUSIVE" if appends else "SHARE ROW EXCLUSIVE"))
    # Somebody may have altered or dropped it before we had the lock.
    stored = find_target(session, publication.table, schema)
    change = check_columns(publication, stored)
    return stored, change_table(session, publication, stored, change, schema)


def _refuse_too_long(session: Session, publication: Publication, delivery: sql.Delivery) -> None:
    """PostgreSQL itself refuses most, but cuts blanks at the end, and everything on its way into a domain."""
    limited = [column for column in delivery.columns if column.most is not None]
    if not limited:
        return
    counts = run(session, sql.count_too_long(delivery)).fetchone() or ()
    if problems := [
        f"column {column.name!r} of the table takes texts of up to {column.most:,} characters, blanks at the "
        f"end included, and {_rows(count)} a longer one: "
        "cut them in the transform, or make the column wider"
        for column, count in zip(limited, counts, strict=True)
        if count
    ]:
        raise refused(publication.table, problems, error_class="data")


def _fold(session: Session, publication: Publication, delivery: sql.Delivery) -> int:
    """Refuse rows without a key, drop those that give way to another of their key, and count them."""
    if publication.mode == "append" or not publication.key:
        return 0
    without_key, repeated = run(session, sql.count_keys(delivery)).fetchone() or (0, 0)
    if without_key:
        raise null_keys(publication, without_key)
    if repeated:
        run(session, sql.delete_losers(delivery))
    return int(repeated)


@dataclass(frozen=True, slots=True)
class _Apply:
    """The mode of a publication, applied to a table that has all the columns."""

    session: Session
    publication: Publication
    target: Target
    delivery: sql.Delivery
    folded: int

    def apply(self) -> PublishedRows:
        match self.publication.mode:
            case "append":
                return self._insert_all()
            case "replace":
                return self._replace()
            case "upsert":
                return self._upsert()

    def _replace(self) -> PublishedRows:
        if not self._staged and not self.publication.allow_empty:
            (stored,) = run(self.session, sql.count_rows(self.target.name)).fetchone() or (0,)
            if stored:
                raise empty_replace(self.publication, stored)
        # Delete and insert, rather than swap in a new table: grants, indexes, constraints and views survive.
        deleted = run(self.session, sql.delete_all(self.target.name)).rowcount
        if self.target.filters_rows:
            (kept,) = run(self.session, sql.count_rows(self.target.name)).fetchone() or (0,)
            self._refuse_left_out(kept, "deleted")
        inserted = self._insert_all()
        return PublishedRows(inserted=inserted.inserted, folded=self.folded, deleted=deleted)

    def _upsert(self) -> PublishedRows:
        (has_rows,) = run(self.session, sql.has_rows(self.target.name)).fetchone() or (False,)
        if not has_rows:
            self._refuse_new_rows_that_cannot_be_filled(self._winners)
            return self._insert_all()
        pairs, outdated, changed = run(self.session, sql.judge(self.delivery)).fetchone() or (0, 0, 0)
        if changed:
            updated = run(self.session, sql.update_changed(self.delivery), self._provenance()).rowcount
            self._refuse_left_out(changed - updated, "updated")
        inserted = 0
        if pairs < self._winners or not is_unique(self.target, self.publication.key):
            inserted = self._insert_new()
        if (repeated := pairs + inserted - self._winners) > 0:
            raise repeated_stored_keys(self.publication, repeated)
        return PublishedRows(
            inserted=inserted,
            updated=changed,
            unchanged=pairs - outdated - changed,
            outdated=outdated,
            folded=self.folded,
        )

    def _insert_new(self) -> int:
        if unfillable := unfillable_columns(self.publication, self.target):
            (new,) = run(self.session, sql.count_new(self.delivery)).fetchone() or (0,)
            if new:
                raise refused(self.publication.table, [not_filled(name) for name in unfillable])
            return 0
        new = None
        if self.target.filters_rows:
            # Where stored rows repeat a key, the number of pairs does not tell it.
            (new,) = run(self.session, sql.count_new(self.delivery)).fetchone() or (0,)
        inserted = run(self.session, sql.insert_new(self.delivery), self._provenance()).rowcount
        if new is not None:
            self._refuse_left_out(new - inserted, "inserted")
        return inserted

    def _insert_all(self) -> PublishedRows:
        inserted = run(self.session, sql.insert_staged(self.delivery), self._provenance()).rowcount
        self._refuse_left_out(self._winners - inserted, "inserted")
        return PublishedRows(inserted=inserted, folded=self.folded)

    def _refuse_left_out(self, rows: int, verb: str) -> None:
        if rows > 0:
            reason = f"{_rows(rows)} not been {verb}: a trigger or rule of the table prevents it"
            hint = "let it raise an error or store the row, or leave such rows out in the query"
            raise refused(self.publication.table, [reason], hint=hint, error_class="data")

    @property
    def _staged(self) -> int:
        return sum(file.rows for file in self.publication.files)

    @property
    def _winners(self) -> int:
        return self._staged - self.folded

    def _provenance(self) -> dict[str, Any]:
        # Where nobody keeps the column up, unknown is better than the name of an older run.
        return {"provenance": self.publication.run_id if self.publication.provenance else None}

    def _refuse_new_rows_that_cannot_be_filled(self, rows: int) -> None:
        unfillable = unfillable_columns(self.publication, self.target)
        if rows and unfillable:
            raise refused(self.publication.table, [not_filled(name) for name in unfillable])


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"
