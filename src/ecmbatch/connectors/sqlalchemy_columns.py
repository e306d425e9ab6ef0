"""The columns of a table or query that SQLAlchemy reaches, and their Arrow types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID

import pyarrow as pa
from sqlalchemy import types
from sqlalchemy.types import TypeEngine

from ecmbatch.connectors.row_columns import UUIDS, Misfit, called
from ecmbatch.errors import SourceError

SAMPLE_ROWS = 1_000
"""So many rows are looked at where nothing else tells the type of a column."""

_OF_SHORT_REALS = frozenset({"postgresql", "mssql"})
"""Where a ``real`` has four bytes; its digits mean that number, and another one of eight bytes."""

_OF_PYTHON: Mapping[frozenset[type], pa.DataType] = {
    frozenset(): pa.null(),
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
    frozenset({str}): pa.string(),
    frozenset({bytes}): pa.binary(),
    frozenset({bytearray}): pa.binary(),
    frozenset({memoryview}): pa.binary(),
    frozenset({date}): pa.date32(),
    frozenset({time}): pa.time64("us"),
    frozenset({UUID}): UUIDS,
}


def reflected_kind(type_: TypeEngine[Any], dialect: str) -> pa.DataType | None:
    """Return the Arrow type of a column that a table declares; ``None`` where its values have to tell."""
    match type_:
        case types.Boolean():
            return pa.bool_()
        case types.Integer():
            is_unsigned = isinstance(type_, types.BigInteger) and getattr(type_, "unsigned", False)
            return pa.uint64() if is_unsigned else pa.int64()
        case types.REAL() if dialect in _OF_SHORT_REALS:
            return pa.float32()
        case types.Float():
            return pa.float64()
        case types.Numeric():
            return _decimal(type_.precision, type_.scale)
        case types.DateTime():
            return pa.timestamp("us", "UTC" if type_.timezone else None)
        case types.Date():
            return pa.date32()
        case types.Time():
            return pa.time64("us")
        case types.Uuid():
            return UUIDS
        case types.String():
            return pa.string()
        case types.LargeBinary() | types.BINARY() | types.VARBINARY():
            return pa.binary()
    return None


def kind_of_values(name: str, values: Sequence[Any]) -> pa.DataType:
    """Return the type of a column by its first *values*; one without values is of NULLs.

    Raises :class:`~ecmbatch.errors.SourceError` that names what has to be cast or declared.
    """
    kinds = frozenset(map(type, values)) - {NoneType}
    if kinds == {datetime}:
        zoned = any(value is not None and value.tzinfo is not None for value in values)
        return pa.timestamp("us", "UTC" if zoned else None)
    if kinds in _OF_PYTHON:
        return _OF_PYTHON[kinds]
    if Decimal in kinds:
        raise SourceError(
            f"column '{name}' holds decimals, and nothing says how many digits they have",
            hint="declare it under the connector's 'columns', such as decimal(18, 2)",
        )
    raise SourceError(
        f"column '{name}' holds {called(kinds)}, which cannot be read as it is",
        hint=f"cast it in the query: CAST({name} AS VARCHAR) AS {name}",
    )


def misfit_hint(misfit: Misfit) -> str:
    """Return what to do about a value that does not fit its column."""
    return f"declare '{misfit.column}' under the connector's 'columns', or cast it in the query"


def _decimal(precision: int | None, scale: int | None) -> pa.DataType | None:
    if precision is None or not 1 <= precision <= 38 or not 0 <= (scale or 0) <= precision:
        return None
    return pa.decimal128(precision, scale or 0)
