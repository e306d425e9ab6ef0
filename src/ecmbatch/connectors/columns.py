"""The columns of a source: what every connector checks before it plans a read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from ecmbatch.connectors.connector import ReadRequest
from ecmbatch.errors import SourceError
from ecmbatch.protocol.document import did_you_mean

RESERVED_PREFIX = "_ecm_"
"""Columns with such names are ours: stages and stores add them."""

_LISTED = 40


def check_names(names: Sequence[str], *, fold_case: bool = False) -> None:
    """Raise :class:`~ecmbatch.errors.SourceError` for no, duplicate, empty and reserved column names.

    With *fold_case* names that differ in case only count as duplicates, as they do in SQL.
    """
    if not names:
        raise SourceError("the source has no columns; it needs at least one")
    counts = Counter(name.lower() if fold_case else name for name in names)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise SourceError(
            f"the source has {counts[repeated[0]]} columns named '{repeated[0]}'",
            hint="give every column a name of its own, in a query with AS",
        )
    for name in names:
        if not name:
            raise SourceError("the source has a column without a name", hint="name it, in a query with AS")
        if name.lower().startswith(RESERVED_PREFIX):
            raise SourceError(
                f"the source has a column '{name}'; names that start with {RESERVED_PREFIX} are reserved",
                hint="give it another name, in a query with AS, or leave it out: in DuckDB "
                f"SELECT * EXCLUDE ({name})",
            )


def check_request(schema: pa.Schema, request: ReadRequest) -> None:
    """Raise :class:`~ecmbatch.errors.SourceError` where key or order column are missing or unfit."""
    for field, name in (("partitioning.key", request.key), ("source.order_by", request.order_by)):
        if name is not None:
            check_column(schema, field, name)


def check_column(schema: pa.Schema, field: str, name: str) -> None:
    """Raise :class:`~ecmbatch.errors.SourceError` where the column that *field* of a job names is missing or
    cannot be compared."""
    if name not in schema.names:
        raise SourceError(
            f"{field} is '{name}', but the source has no such column; it has {_listed(schema.names)}",
            hint=did_you_mean(name, schema.names),
        )
    kind = schema.field(name).type
    if pa.types.is_nested(kind):
        raise SourceError(
            f"{field} is '{name}', a column of type {kind}; nested values cannot be hashed or ordered",
            hint="use a column of numbers, text, binary, dates, times, booleans or UUIDs",
        )


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
