"""Columns from the folders of a path, as Hive names them: ``year=2013/month=01/x.parquet``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from ecmbatch.errors import SourceError

_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_HINT = 'set path_columns = "none" to take folders for mere folders'


def path_fields(paths: Sequence[str]) -> list[pa.Field]:
    """Return the columns that the folders of all *paths* name, typed over all of them.

    Raises :class:`~ecmbatch.errors.SourceError` where files differ in their columns.
    """
    found = [(path, _values(path)) for path in paths]
    first_path, first = found[0]
    for path, values in found:
        if values.keys() != first.keys():
            raise SourceError(
                f"the folders of {path} name the columns {_listed(values)}, those of {first_path} {_listed(first)}",
                hint=f"read them with two jobs, or {_HINT}",
            )
    return [pa.field(name, _type_of([values[name] for _, values in found])) for name in first]


def check_apart(schema: pa.Schema, fields: Sequence[pa.Field]) -> None:
    """Raise :class:`~ecmbatch.errors.SourceError` where the files have one of the *fields* themselves."""
    for field in fields:
        if field.name in schema.names:
            raise SourceError(
                f"column '{field.name}' is both in the files and in the names of their folders", hint=_HINT
            )


def with_path_columns(batch: pa.RecordBatch, path: str, schema: pa.Schema) -> pa.RecordBatch:
    """Return *batch* as *schema*, whose last columns are those that the folders of *path* name."""
    values = _values(path) if batch.num_columns < len(schema) else {}
    added = [
        pa.repeat(pa.scalar(_parsed(values[field.name], field.type), field.type), batch.num_rows)
        for field in list(schema)[batch.num_columns :]
    ]
    return pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema)


def _values(path: str) -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if not (name and equals):
            continue
        try:
            name, value = unquote(name, errors="strict"), unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise SourceError(f"a folder of {path} has escapes that are not UTF-8", hint=_HINT) from None
        if name in values:
            raise SourceError(f"two folders of {path} name the column '{name}'", hint=_HINT)
        values[name] = None if value == _NULL else value
    return values


def _type_of(values: Sequence[str | None]) -> pa.DataType:
    known = [value for value in values if value is not None]
    if known and all(_INTEGER.fullmatch(value) and -(2**63) <= int(value) < 2**63 for value in known):
        return pa.int64()
    if known and all(map(_is_day, known)):
        return pa.date32()
    return pa.string()


def _is_day(value: str) -> bool:
    try:
        return bool(_DAY.fullmatch(value) and date.fromisoformat(value))
    except ValueError:
        return False


def _parsed(value: str | None, kind: pa.DataType) -> Any:
    if value is None or pa.types.is_string(kind):
        return value
    return int(value) if pa.types.is_integer(kind) else date.fromisoformat(value)


def _listed(values: dict[str, str | None]) -> str:
    return ", ".join(f"'{name}'" for name in values) or "(none)"
