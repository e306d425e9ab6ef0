"""The order of a scan in a database whose idea of order may not be ours.

A cursor means "everything up to here", so what orders rows must tell all keys apart that are apart: a collation
that calls ``a`` and ``A`` equal, or a comparison that leaves out blanks at the end, would lose or repeat rows. The
order itself is free. So a key is ordered by itself only where its type leaves no doubt, else by an expression that
spells it out in digits, or not at all; and the cursor is the value of that expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from ecmbatch.connectors.row_columns import UUIDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What orders a scan: an ``expression`` over the quoted key; ``by_itself`` if that is the key."""

    key: str
    expression: str
    by_itself: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spelling:
    """How a database spells keys out, ``{}`` being the quoted name; ``binary`` is for bytes."""

    text: str
    binary: str
    all_by_themselves: bool = False


_SPELLINGS: Mapping[str, _Spelling] = {
    "postgresql": _Spelling(
        text='CAST({} AS text) COLLATE "C"', binary="encode({}, 'hex')", all_by_themselves=True
    ),
    "mysql": _Spelling(text="HEX(CAST({} AS CHAR))", binary="HEX({})"),
    "mariadb": _Spelling(text="HEX(CAST({} AS CHAR))", binary="HEX({})"),
    "sqlite": _Spelling(text="hex({})", binary="hex({})"),
}


def knows_windows_and_limit(dialect: str) -> bool:
    """Tell whether ``row_number() OVER ()`` and ``LIMIT`` are written so there, as far as was tried."""
    return dialect in _SPELLINGS


def order_of(dialect: str, key: str, quoted: str, kind: pa.DataType, *, declared: bool) -> Order | None:
    """Return what orders rows by the column *key*; ``None`` where nothing that is known to be sound does.

    A type that was *declared* for us need not be that of the database's column.
    """
    if pa.types.is_null(kind):
        return None
    spelling = _SPELLINGS.get(dialect)
    if pa.types.is_integer(kind) or (
        spelling is not None and spelling.all_by_themselves and not declared and _is_exact(kind)
    ):
        return Order(key=key, expression=quoted, by_itself=True)
    if spelling is None:
        return None
    template = spelling.binary if pa.types.is_binary(kind) else spelling.text
    return Order(key=key, expression=template.format(quoted), by_itself=False)


def _is_exact(kind: pa.DataType) -> bool:
    """Tell whether two values of PostgreSQL's type are equal just where they are in Arrow's."""
    if kind == UUIDS:
        return True
    return bool(pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind))
