"""A table of a DuckDB file as it is, and how it takes the columns of a publication."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from ecmbatch.errors import StoreError
from ecmbatch.stores import duckdb_statements as sql
from ecmbatch.stores.duckdb_columns import column_type
from ecmbatch.stores.duckdb_types import duckdb_type
from ecmbatch.stores.publication_check import check_publication, not_widened, refused
from ecmbatch.stores.store import PROVENANCE_COLUMN, Publication, TableChange, WidenedColumn

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
    if not has_table(connection, qualified(connection, table)):
        view = connection.execute(sql.VIEW, _place(table)).fetchone()
        if view is not None:
            raise refused(table, [f"it is a {str(view[0]).lower()}, and only tables can be published to"])
        return None
    return _described(connection, table)


def has_table(connection: duckdb.DuckDBPyConnection, full_name: str) -> bool:
    """Tell whether there is a table of this name, and not a view; one of an open transaction does not count.

    Asks DuckDB for this table only: to search the catalogue, a fresh connection loads all of it, which takes
    longer than everything else here.
    """
    # A statement that fails ends the transaction of its connection, so another one asks.
    with closing(connection.cursor()) as lookup:
        try:
            lookup.execute(sql.COLUMNS, {"table": full_name})
        except (duckdb.CatalogException, duckdb.BinderException):
            # There is nothing, or a view of something that is no more.
            return False
        return bool(lookup.table(full_name).type == "TABLE_RELATION")


def split_name(table: str) -> tuple[str, str]:
    """Return schema and name of ``table`` or ``schema.table``."""
    schema, dot, name = table.rpartition(".")
    if not name or (dot and not schema) or "." in schema or "\x00" in table:
        raise refused(table, ["a table is named 'table' or 'schema.table'"])
    if name.lower().startswith(_OWN_PREFIX):
        raise refused(table, [f"names starting with {_OWN_PREFIX!r} are the store's own"])
    return schema or _DEFAULT_SCHEMA, name


def table_name(table: str) -> str:
    """Return one and the same name for all ways to name a table: in lower case, without the usual schema."""
    schema, name = map(same_name, split_name(table))
    return name if schema == _DEFAULT_SCHEMA else f"{schema}.{name}"


def qualified(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """Return the full quoted name, so that no table or schema elsewhere can be meant."""
    (catalog,) = connection.execute("SELECT current_database()").fetchone() or ("",)
    schema, name = split_name(table)
    return ".".join(map(sql.quoted, (catalog, schema, name)))


def check_columns(
    connection: duckdb.DuckDBPyConnection | None, publication: Publication, target: Target | None
) -> TableChange:
    """Return how the table changes; raise :class:`~ecmbatch.errors.StoreError` if it cannot take the columns.

    There is no connection where there is no file yet, and thus no table.
    """
    split_name(publication.table)
    change = check_publication(publication, None if target is None else target.schema, same_name=same_name)
    new = publication.schema.names if target is None else change.added
    types = [(name, publication.schema.field(name).type) for name in new]
    types += [(column.name, column.after) for column in change.widened]
    problems = [
        f"column {name!r} is {type_}, which DuckDB cannot keep: cast it in the transform"
        for name, type_ in types
        if duckdb_type(type_) is None
    ]
    if publication.key:
        problems += [
            f"column {name!r} must have another name where rows are folded by a key: DuckDB uses it itself"
            for name in publication.schema.names
            if same_name(name) in sql.PLACE_COLUMNS
        ]
    if target is not None:
        problems += _unfillable(publication, target)
    if connection is not None and change.widened:
        problems += _fixed(connection, publication, change)
    if problems:
        raise refused(publication.table, problems)
    return change


def change_table(
    connection: duckdb.DuckDBPyConnection,
    publication: Publication,
    target: Target | None,
    change: TableChange,
) -> Target:
    """Create the table, or widen columns and add those it lacks, and return it as it is now."""
    if target is not None and _fits(publication, target, change):
        return target
    table = qualified(connection, publication.table)
    if target is None:
        schema, _ = split_name(publication.table)
        if schema != _DEFAULT_SCHEMA:
            connection.execute(sql.create_schema(schema))
        columns = [(field.name, _type_of(field)) for field in publication.schema]
        if publication.provenance:
            columns.append((PROVENANCE_COLUMN, "VARCHAR"))
        connection.execute(sql.create_table(table, columns))
    else:
        for column in change.widened:
            _widen(connection, publication, target, column)
        for name in change.added:
            type_ = _type_of(publication.schema.field(name))
            connection.execute(sql.add_column(table, name, type_))
        if publication.provenance and not has_provenance(target):
            connection.execute(sql.add_column(table, PROVENANCE_COLUMN, "VARCHAR"))
    return _described(connection, publication.table)


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


def _unfillable(publication: Publication, target: Target) -> list[str]:
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


def _fixed(connection: duckdb.DuckDBPyConnection, publication: Publication, change: TableChange) -> list[str]:
    """Return what keeps DuckDB from changing the types of columns; a reason without a name is one for all."""
    reasons = connection.execute(sql.FIXED_TYPES, _place(publication.table)).fetchall()
    return [
        not_widened(column, f"{reason}: drop that while the run is published, or cast it in the transform")
        for column in change.widened
        for name, reason in reasons
        if name in (None, column.name)
    ]


def _fits(publication: Publication, target: Target, change: TableChange) -> bool:
    """Tell whether the table can stay as it is."""
    return not (change.added or change.widened or (publication.provenance and not has_provenance(target)))


def _widen(
    connection: duckdb.DuckDBPyConnection, publication: Publication, target: Target, column: WidenedColumn
) -> None:
    type_ = _type_of(pa.field(column.name, column.after))
    try:
        connection.execute(sql.widen_column(target.name, column.name, type_))
    except (duckdb.ConversionException, duckdb.OutOfRangeException):
        # DuckDB's words may quote the value.
        reason = "a stored value is out of its range"
        raise refused(publication.table, [not_widened(column, reason)], error_class="data") from None
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.DependencyException) as error:
        reason = f"DuckDB refuses that: {str(error).splitlines()[0]}"
        raise refused(publication.table, [not_widened(column, reason)]) from error


def _type_of(field: pa.Field) -> str:
    type_ = duckdb_type(field.type)
    if type_ is None:
        raise StoreError(f"column {field.name!r} has a type that DuckDB cannot keep")
    return type_


def _place(table: str) -> dict[str, str]:
    schema, name = split_name(table)
    return {"schema": schema, "name": name}


def _described(connection: duckdb.DuckDBPyConnection, table: str) -> Target:
    """Describe a table that is there."""
    full_name = qualified(connection, table)
    described = connection.execute(sql.COLUMNS, {"table": full_name}).fetchall()
    columns = _columns(connection, table, described)
    (rows,) = connection.execute(sql.count_rows(full_name)).fetchone() or (0,)
    return Target(
        name=full_name,
        columns=columns,
        schema=_arrow_schema(connection, full_name, columns),
        primary_key=_primary_key(connection, table) if any(row[4] for row in described) else (),
        rows=rows,
    )


def _columns(
    connection: duckdb.DuckDBPyConnection, table: str, described: Sequence[tuple[Any, ...]]
) -> list[Column]:
    generated: set[str] = set()
    if any(has_default for _, _, _, has_default, _ in described):
        generated = {name for (name,) in connection.execute(sql.GENERATED_COLUMNS, _place(table)).fetchall()}
    return [
        Column(name=name, type=type_, nullable=nullable, has_default=has_default, generated=name in generated)
        for name, type_, nullable, has_default, _ in described
    ]


def _primary_key(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[str, ...]:
    """Return the columns in the order of the key."""
    key = connection.execute(sql.PRIMARY_KEY, _place(table)).fetchone()
    return tuple(key[0]) if key else ()


def _arrow_schema(connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[Column]) -> pa.Schema:
    kinds = connection.sql(sql.no_rows(table)).types
    return pa.schema(
        [
            pa.field(column.name, column_type(kind), nullable=column.nullable)
            for kind, column in zip(kinds, columns, strict=True)
        ]
    )
