"""A table of a DuckDB file as it is, and how it takes the columns of a publication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from ecmbatch.errors import StoreError
from ecmbatch.stores import duckdb_statements as sql
from ecmbatch.stores.duckdb_types import arrow_type, duckdb_type
from ecmbatch.stores.publication_check import check_publication, refused
from ecmbatch.stores.schema_change import SchemaChange
from ecmbatch.stores.store import PROVENANCE_COLUMN, Publication

_OWN_PREFIX = "_ecmbatch_"
_DEFAULT_SCHEMA = "main"
_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A stored column, its type in DuckDB's words."""

    name: str
    type: str
    nullable: bool
    has_default: bool
    generated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A stored table; ``schema`` has all its columns, that of provenance and generated ones included."""

    name: str
    """Catalog, schema and table, quoted."""
    columns: Sequence[Column]
    schema: pa.Schema
    primary_key: tuple[str, ...]
    rows: int


def same_name(name: str) -> str:
    """Return *name* as DuckDB compares names of columns: without regard to the case of ASCII letters."""
    return name.translate(_ASCII_LOWER)


def find_target(connection: duckdb.DuckDBPyConnection, table: str) -> Target | None:
    """Describe a table named ``table`` or ``schema.table``, ``None`` if there is none.

    Raises :class:`~ecmbatch.errors.StoreError` for a name that cannot be that of a job's table, and for views.
    """
    schema, name = split_name(table)
    found = connection.execute(sql.RELATION, {"schema": schema, "name": name}).fetchone()
    if found is None:
        return None
    kind, schema, name = found
    if kind != "BASE TABLE":
        raise refused(table, [f"it is a {str(kind).lower()}, and only tables can be published to"])
    place = {"schema": schema, "name": name}
    columns = [
        Column(name=row[0], type=row[1], nullable=row[2], has_default=row[3], generated=row[4])
        for row in connection.execute(sql.COLUMNS, place).fetchall()
    ]
    key = connection.execute(sql.PRIMARY_KEY, place).fetchone()
    full_name = qualified(connection, table)
    (rows,) = connection.execute(sql.count_rows(full_name)).fetchone() or (0,)
    return Target(
        name=full_name,
        columns=columns,
        schema=_arrow_schema(connection, full_name, columns),
        primary_key=tuple(key[0]) if key else (),
        rows=rows,
    )


def split_name(table: str) -> tuple[str, str]:
    """Return schema and name of ``table`` or ``schema.table``."""
    schema, dot, name = table.rpartition(".")
    if not name or (dot and not schema) or "." in schema or "\x00" in table:
        raise refused(table, ["a table is named 'table' or 'schema.table'"])
    if name.lower().startswith(_OWN_PREFIX):
        raise refused(table, [f"names starting with {_OWN_PREFIX!r} are the store's own"])
    return schema or _DEFAULT_SCHEMA, name


def qualified(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """Return the full quoted name, so that no table or schema elsewhere can be meant."""
    (catalog,) = connection.execute("SELECT current_database()").fetchone() or ("",)
    schema, name = split_name(table)
    return ".".join(map(sql.quoted, (catalog, schema, name)))


def check_columns(publication: Publication, target: Target | None) -> SchemaChange:
    """Return how the table changes; raise :class:`~ecmbatch.errors.StoreError` if it cannot take the columns."""
    split_name(publication.table)
    change = check_publication(publication, None if target is None else target.schema, same_name=same_name)
    new = publication.schema.names if target is None else change.added
    problems = [
        f"column {name!r} is {publication.schema.field(name).type}, which DuckDB cannot keep: "
        "cast it in the transform"
        for name in new
        if duckdb_type(publication.schema.field(name).type) is None
    ]
    if publication.key:
        problems += [
            f"column {name!r} must have another name where rows are folded by a key: DuckDB uses it itself"
            for name in publication.schema.names
            if same_name(name) in sql.PLACE_COLUMNS
        ]
    if target is not None:
        problems += _unfillable(publication, target, change)
    if problems:
        raise refused(publication.table, problems)
    return change


def change_table(
    connection: duckdb.DuckDBPyConnection,
    publication: Publication,
    target: Target | None,
    change: SchemaChange,
) -> Target:
    """Create the table or add the columns it lacks, and return it as it is now."""
    table = qualified(connection, publication.table)
    if target is None:
        schema, _ = split_name(publication.table)
        if schema != _DEFAULT_SCHEMA:
            connection.execute(sql.create_schema(schema))
        columns = [(field.name, _type_of(publication, field.name)) for field in publication.schema]
        if publication.provenance:
            columns.append((PROVENANCE_COLUMN, "VARCHAR"))
        connection.execute(sql.create_table(table, columns))
    else:
        for name in change.added:
            connection.execute(sql.add_column(table, name, _type_of(publication, name)))
        if publication.provenance and not has_provenance(target):
            connection.execute(sql.add_column(table, PROVENANCE_COLUMN, "VARCHAR"))
    changed = find_target(connection, publication.table)
    if changed is None:
        raise StoreError(f"table {publication.table!r} vanished while it was published to")
    return changed


def has_provenance(target: Target) -> bool:
    """Tell whether the table has the column ``_ecm_run_id``."""
    return any(same_name(column.name) == PROVENANCE_COLUMN for column in target.columns)


def delivery_into(target: Target, publication: Publication) -> sql.Delivery:
    """Return which columns the staged rows fill, and which stored values stay."""
    types = {same_name(column.name): column.type for column in target.columns}
    delivered = {same_name(name) for name in publication.schema.names}
    return sql.Delivery(
        table=target.name,
        columns=[(name, types[same_name(name)]) for name in publication.schema.names],
        kept=[
            column.name
            for column in target.columns
            if not column.generated and same_name(column.name) not in delivered | {PROVENANCE_COLUMN}
        ],
        key=publication.key,
        order_by=publication.order_by,
        provenance=has_provenance(target),
    )


def unfillable_columns(publication: Publication, target: Target) -> list[str]:
    """Return the columns that a new row would have to fill, and cannot."""
    delivered = {same_name(name) for name in publication.schema.names}
    return [
        column.name
        for column in target.columns
        if not column.nullable
        and not column.has_default
        and not column.generated
        and same_name(column.name) not in delivered | {PROVENANCE_COLUMN}
    ]


def not_filled(name: str) -> str:
    """Return the sentence for a column of :func:`unfillable_columns`."""
    return f"column {name!r} of the table is NOT NULL without a default, and the rows do not have it"


def _unfillable(publication: Publication, target: Target, change: SchemaChange) -> list[str]:
    delivered = {same_name(name) for name in publication.schema.names}
    problems = [
        f"column {column.name!r} of the table is generated and cannot be delivered"
        for column in target.columns
        if column.generated and same_name(column.name) in delivered
    ]
    # An upsert may find all its rows stored; then nothing has to be filled.
    if publication.mode != "upsert":
        problems += map(not_filled, unfillable_columns(publication, target))
    return problems


def _type_of(publication: Publication, name: str) -> str:
    type_ = duckdb_type(publication.schema.field(name).type)
    if type_ is None:
        raise StoreError(f"column {name!r} has a type that DuckDB cannot keep")
    return type_


def _arrow_schema(connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[Column]) -> pa.Schema:
    connection.execute("SET arrow_lossless_conversion = true")
    exported = connection.sql(sql.no_rows(table)).to_arrow_table().schema
    return pa.schema(
        [
            pa.field(field.name, arrow_type(field.type), nullable=column.nullable)
            for field, column in zip(exported, columns, strict=True)
        ]
    )
