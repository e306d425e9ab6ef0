"""A table of a DuckDB file as it is, and how it takes the columns of a publication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    fixed_types: Sequence[tuple[str | None, str]]
    """Columns whose type DuckDB would not change, with the reason; ``None`` stands for all columns."""
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
        fixed_types=connection.execute(sql.FIXED_TYPES, place).fetchall(),
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


def table_name(table: str) -> str:
    """Return one and the same name for all ways to name a table: in lower case, without the usual schema."""
    schema, name = map(same_name, split_name(table))
    return name if schema == _DEFAULT_SCHEMA else f"{schema}.{name}"


def qualified(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """Return the full quoted name, so that no table or schema elsewhere can be meant."""
    (catalog,) = connection.execute("SELECT current_database()").fetchone() or ("",)
    schema, name = split_name(table)
    return ".".join(map(sql.quoted, (catalog, schema, name)))


def check_columns(publication: Publication, target: Target | None) -> TableChange:
    """Return how the table changes; raise :class:`~ecmbatch.errors.StoreError` if it cannot take the columns."""
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
        problems += _fixed(target, change)
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


def _fixed(target: Target, change: TableChange) -> list[str]:
    return [
        not_widened(column, f"{reason}: drop that while the run is published, or cast it in the transform")
        for column in change.widened
        for name, reason in target.fixed_types
        if name in (None, column.name)
    ]


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


def _arrow_schema(connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[Column]) -> pa.Schema:
    kinds = connection.sql(sql.no_rows(table)).types
    return pa.schema(
        [
            pa.field(column.name, column_type(kind), nullable=column.nullable)
            for kind, column in zip(kinds, columns, strict=True)
        ]
    )
