"""One schema for many Parquet files: the same columns in any order, each of a type that loses nothing."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from ecmbatch.errors import SourceError


def united(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """Return the schema that the rows of all files fit; columns in the order of their first appearance.

    Numbers of one kind take the widest type, a column that a file lacks is NULL there. Raises
    :class:`~ecmbatch.errors.SourceError` that names file, column and both types where no type holds both.
    """
    types: dict[str, pa.DataType] = {}
    seen_in: dict[str, str] = {}
    for path, schema in schemas:
        for field in schema:
            kind = plain(field.type)
            common = _common(types.get(field.name, kind), kind)
            if common is None:
                raise SourceError(
                    f"column '{field.name}' is {kind} in {path}, but {types[field.name]} in "
                    f"{seen_in[field.name]}",
                    hint="write the files with one type, or read them with two jobs",
                )
            types[field.name] = common
            seen_in.setdefault(field.name, path)
    return pa.schema([pa.field(name, kind) for name, kind in types.items()])


def plain(kind: pa.DataType) -> pa.DataType:
    """Return *kind* without dictionaries, which may differ from batch to batch."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(child.name, plain(child.type)) for child in kind.fields])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(plain(kind.value_type))
    if pa.types.is_list(kind):
        return pa.list_(plain(kind.value_type))
    return kind


def fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return *batch* with exactly the columns of *schema*: cast, reordered, NULL where it has none."""
    if batch.schema.equals(schema):
        return batch.replace_schema_metadata(None)
    present = set(batch.schema.names)
    columns = [
        _cast(batch.column(field.name), field.type)
        if field.name in present
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else column.cast(kind)


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for is_kind in (
        pa.types.is_signed_integer,
        pa.types.is_unsigned_integer,
        pa.types.is_floating,
    ):
        if is_kind(one) and is_kind(other):
            return max(one, other, key=lambda kind: kind.bit_width)
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        return _signed(one, other)
    if _is_text(one) and _is_text(other):
        return pa.large_string()
    if _is_binary(one) and _is_binary(other):
        return pa.large_binary()
    if pa.types.is_decimal(one) and pa.types.is_decimal(other):
        return _decimal(one, other)
    return None


def _signed(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the signed type that holds a signed and an unsigned one."""
    signed, unsigned = (one, other) if pa.types.is_signed_integer(one) else (other, one)
    width = max(signed.bit_width, 2 * unsigned.bit_width)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(width)


def _decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    scale = max(one.scale, other.scale)
    precision = scale + max(one.precision - one.scale, other.precision - other.scale)
    return pa.decimal128(precision, scale) if precision <= 38 else None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
