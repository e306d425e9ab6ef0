"""A table of a PostgreSQL database as it is, and how it takes the columns of a publication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg
import pyarrow as pa

from ecmbatch.errors import StoreError
from ecmbatch.stores import postgres_statements as sql
from ecmbatch.stores.postgres_session import Session, run
from ecmbatch.stores.postgres_types import (
    StoredType,
    becomes_json,
    kept_type,
    loaded_type,
    most_characters,
    sql_type,
    stored_type,
)
from ecmbatch.stores.publication_check import check_publication, not_widened, refused
from ecmbatch.stores.store import PROVENANCE_COLUMN, Publication, TableChange, WidenedColumn

_OWN_PREFIX = "_ecmbatch_"
_LONGEST_NAME = 63
_KINDS = {"v": "view", "m": "materialized view", "f": "foreign table", "S": "sequence", "i": "index"}
_SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A stored column, its type in PostgreSQL's words without length or precision."""

    name: str
    type: str
    nullable: bool
    has_default: bool
    generated: bool
    stored: StoredType


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A stored table; ``schema`` has all its columns, that of provenance and generated ones included."""

    name: str
    """Schema and table, quoted."""
    owned: bool
    """Whether the role of this session may alter it."""
    columns: Sequence[Column]
    schema: pa.Schema
    primary_key: tuple[str, ...]
    unique: Sequence[frozenset[str]]
    """The columns of each unique index without conditions."""
    fixed_types: Sequence[tuple[str, str]]
    """Columns whose type PostgreSQL would not change, with the reason."""
    deleting_references: Sequence[tuple[str, str, str]]
    """Foreign keys of other tables that change those when rows are deleted here: constraint, table, action."""
    filters_rows: bool
    """Whether a trigger or rule can keep rows from being inserted or deleted."""


def find_target(session: Session, table: str, default_schema: str) -> Target | None:
    """Describe a table named ``table`` or ``schema.table``, ``None`` if there is none.

    Raises :class:`~ecmbatch.errors.StoreError` for a name that cannot be that of a job's table, and for views.
    """
    schema, name = split_name(table, default_schema)
    found = run(session, sql.RELATION, {"schema": schema, "name": name}).fetchone()
    if found is None:
        return None
    oid, kind, owned = found
    if kind not in ("r", "p"):
        raise refused(table, [f"it is a {_KINDS.get(kind, 'relation')}, and only tables can be published to"])
    columns = [_column(*row) for row in run(session, sql.COLUMNS, {"oid": oid})]
    indexes = run(session, sql.INDEXES, {"oid": oid}).fetchall()
    (filters_rows,) = run(session, sql.FILTERS_ROWS, {"oid": oid}).fetchone() or (False,)
    return Target(
        name=qualified(table, default_schema),
        owned=owned,
        columns=columns,
        schema=pa.schema(
            [
                pa.field(column.name, stored_type(column.stored), nullable=column.nullable)
                for column in columns
            ]
        ),
        primary_key=next((tuple(names) for primary, _, names in indexes if primary), ()),
        unique=[frozenset(names) for _, unique, names in indexes if unique and names],
        fixed_types=run(session, sql.FIXED_TYPES, {"oid": oid}).fetchall(),
        deleting_references=run(session, sql.DELETING_REFERENCES, {"oid": oid}).fetchall(),
        filters_rows=filters_rows,
    )


def split_name(table: str, default_schema: str) -> tuple[str, str]:
    """Return schema and name of ``table`` or ``schema.table``."""
    schema, dot, name = table.rpartition(".")
    if not name or (dot and not schema) or "." in schema or "\x00" in table:
        raise refused(table, ["a table is named 'table' or 'schema.table'"])
    if name.startswith(_OWN_PREFIX):
        raise refused(table, [f"names starting with {_OWN_PREFIX!r} are the store's own"])
    if problems := [_too_long(part) for part in (schema, name) if _is_too_long(part)]:
        raise refused(table, problems)
    return schema or default_schema, name


def table_name(table: str, default_schema: str) -> str:
    """Return one and the same name for all ways to name a table: without the usual schema."""
    schema, name = split_name(table, default_schema)
    return name if schema == default_schema else f"{schema}.{name}"


def qualified(table: str, default_schema: str) -> str:
    """Return the full quoted name."""
    return ".".join(map(sql.quoted, split_name(table, default_schema)))


def check_columns(publication: Publication, target: Target | None) -> TableChange:
    """Return how the table changes; raise :class:`~ecmbatch.errors.StoreError` if it cannot take the columns."""
    kept = [(field, kept_type(field.type)) for field in publication.schema]
    schema = pa.schema([field if type_ is None else field.with_type(type_) for field, type_ in kept])
    stored = None if target is None else target.schema
    change = check_publication(replace(publication, schema=schema), stored)
    new = set(schema.names if target is None else change.added)
    problems = [
        f"column {field.name!r} is {field.type}, which PostgreSQL cannot keep: cast it in the transform"
        for field, type_ in kept
        if type_ is None or (field.name in new and sql_type(type_) is None)
    ]
    problems += [_too_long(name) for name in schema.names if _is_too_long(name)]
    problems += [
        f"column {name!r} must have another name: PostgreSQL has a system column of that name"
        for name in schema.names
        if name in _SYSTEM_COLUMNS
    ]
    if target is not None:
        problems += _json_into_text(publication, target)
        problems += _unfillable(publication, target)
        problems += _fixed(target, change)
        problems += _not_owned(publication, target, change)
        problems += _changed_elsewhere(publication, target)
    if problems:
        raise refused(publication.table, problems)
    return change


def needs_ddl(publication: Publication, target: Target | None, change: TableChange) -> bool:
    """Tell whether the table is altered, which waits for its readers and makes others wait."""
    return target is not None and bool(
        change.added or change.widened or _adds_provenance(publication, target)
    )


def change_table(
    session: Session,
    publication: Publication,
    target: Target | None,
    change: TableChange,
    default_schema: str,
) -> Target:
    """Create the table, or widen columns and add those it lacks, and return it as it is now."""
    table = qualified(publication.table, default_schema)
    types = {
        field.name: _sql_type(field)
        for field in publication.schema
        if field.name in _new(publication, target, change)
    }
    if target is None:
        columns = list(types.items())
        if publication.provenance:
            columns.append((PROVENANCE_COLUMN, "text"))
        run(session, sql.create_table(table, columns))
    else:
        for column in change.widened:
            _widen(session, publication, target, column)
        for name in change.added:
            run(session, sql.add_column(table, name, types[name]))
        if _adds_provenance(publication, target):
            run(session, sql.add_column(table, PROVENANCE_COLUMN, "text"))
        if not needs_ddl(publication, target, change):
            return target
    changed = find_target(session, publication.table, default_schema)
    if changed is None:
        raise StoreError(f"table {publication.table!r} vanished while it was published to")
    return changed


def has_provenance(target: Target) -> bool:
    """Tell whether the table has the column ``_ecm_run_id``."""
    return any(column.name == PROVENANCE_COLUMN for column in target.columns)


def delivery_into(target: Target, staging: str, publication: Publication) -> sql.Delivery:
    """Return how the staged rows fill the columns of the table."""
    columns = {column.name: column for column in target.columns}
    return sql.Delivery(
        staging=staging,
        table=target.name,
        columns=[_delivered(field, columns[field.name]) for field in publication.schema],
        key=publication.key,
        order_by=publication.order_by,
        provenance=has_provenance(target),
    )


def is_unique(target: Target, key: Sequence[str]) -> bool:
    """Tell whether the table cannot hold two rows of one key."""
    return any(columns <= set(key) for columns in target.unique)


def unfillable_columns(publication: Publication, target: Target) -> list[str]:
    """Return the columns that a new row would have to fill, and cannot."""
    delivered = {*publication.schema.names, PROVENANCE_COLUMN}
    return [
        column.name
        for column in target.columns
        if not column.nullable
        and not column.has_default
        and not column.generated
        and column.name not in delivered
    ]


def not_filled(name: str) -> str:
    """Return the sentence for a column of :func:`unfillable_columns`."""
    return f"column {name!r} of the table is NOT NULL without a default, and the rows do not have it"


def _column(
    name: str,
    type_: str,
    nullable: bool,
    has_default: bool,
    generated: bool,
    type_name: str,
    modifier: int,
    enum: bool,
    element: str | None,
    element_enum: bool,
) -> Column:
    stored = StoredType(
        name=type_name, modifier=modifier, enum=enum, element=element, element_enum=element_enum
    )
    return Column(
        name=name,
        type=type_,
        nullable=nullable,
        has_default=has_default,
        generated=generated,
        stored=stored,
    )


def _delivered(field: pa.Field, column: Column) -> sql.Delivered:
    _, loaded = loaded_type(field.type)
    if loaded.startswith("numeric("):
        loaded = "numeric"
    return sql.Delivered(
        name=field.name,
        # Part of statements with placeholders, where a percent sign is written twice.
        type=None if loaded == column.type else column.type.replace("%", "%%"),
        text=stored_type(column.stored) == pa.string(),
        json=column.stored.name == "json",
        array=column.stored.element is not None,
        most=most_characters(column.stored),
    )


def _new(publication: Publication, target: Target | None, change: TableChange) -> set[str]:
    return set(publication.schema.names if target is None else change.added)


def _adds_provenance(publication: Publication, target: Target) -> bool:
    return publication.provenance and not has_provenance(target)


def _sql_type(field: pa.Field) -> str:
    kept = kept_type(field.type)
    type_ = None if kept is None else sql_type(kept)
    if type_ is None:
        raise StoreError(f"column {field.name!r} has a type that PostgreSQL cannot keep")
    return type_


def _widen(session: Session, publication: Publication, target: Target, column: WidenedColumn) -> None:
    type_ = sql_type(column.after)
    assert type_ is not None
    try:
        run(session, sql.widen_column(target.name, column.name, type_))
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidObjectDefinition) as error:
        reason = f"PostgreSQL refuses that: {error.diag.message_detail or error.diag.message_primary}"
        raise refused(publication.table, [not_widened(column, reason)]) from error


def _is_too_long(name: str) -> bool:
    return len(name.encode()) > _LONGEST_NAME


def _too_long(name: str) -> str:
    return f"the name {name!r} is longer than {_LONGEST_NAME} bytes, and PostgreSQL would cut it"


def _json_into_text(publication: Publication, target: Target) -> list[str]:
    """What is nested would be a text like any other: a text column tells nobody that it holds JSON."""
    texts = {field.name for field in target.schema if field.type == pa.string()}
    return [
        f"column {field.name!r} is {field.type} in the rows to publish but text in the table: "
        "cast it in the transform, or deliver it as another column"
        for field in publication.schema
        if field.name in texts and becomes_json(field.type)
    ]


def _unfillable(publication: Publication, target: Target) -> list[str]:
    delivered = set(publication.schema.names)
    problems = [
        f"column {column.name!r} of the table is generated and cannot be delivered"
        for column in target.columns
        if column.generated and column.name in delivered
    ]
    # An upsert may find all its rows stored; then nothing has to be filled.
    if publication.mode != "upsert":
        problems += map(not_filled, unfillable_columns(publication, target))
    return problems


def _fixed(target: Target, change: TableChange) -> list[str]:
    return [
        not_widened(column, f"{reason}: drop that while the run is published, or cast it in the transform")
        for column in change.widened
        for name, reason in target.fixed_types
        if name == column.name
    ]


def _not_owned(publication: Publication, target: Target, change: TableChange) -> list[str]:
    if target.owned or not needs_ddl(publication, target, change):
        return []
    added = [*change.added, *[PROVENANCE_COLUMN] * _adds_provenance(publication, target)]
    names = [repr(name) for name in (*added, *(column.name for column in change.widened))]
    return [
        f"the role of the store does not own the table, so it cannot add or change {', '.join(names)}: "
        "let the owner do that, or make the role a member of it"
    ]


def _changed_elsewhere(publication: Publication, target: Target) -> list[str]:
    """Rows that come back at once would still have been deleted for the tables that refer to them."""
    if publication.mode != "replace":
        return []
    return [
        f"the foreign key {constraint!r} of table {table} is ON DELETE {action}, and replacing deletes every "
        f"row: that would change {table}, too. Publish with mode upsert, or give the foreign key no such action"
        for constraint, table, action in target.deleting_references
    ]
