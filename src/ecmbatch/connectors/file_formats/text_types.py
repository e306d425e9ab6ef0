"""Which types hold what texts say, losing nothing; and the one type of a column over many files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from ecmbatch.errors import SourceError
from ecmbatch.protocol.document import did_you_mean
from ecmbatch.protocol.type_names import type_name

Candidates = tuple[pa.DataType, ...]
"""Types that hold all values seen of a column, the preferred one first."""

TEXT = pa.string()
INTEGER = pa.int64()
FLOAT = pa.float64()
DATE = pa.date32()
LOCAL_TIME = pa.timestamp("us")
INSTANT = pa.timestamp("us", "UTC")

ANYTHING: Candidates = (pa.bool_(), INTEGER, FLOAT, DATE, LOCAL_TIME, INSTANT, TEXT)
"""What a column without values may be."""

_DAY = r"\d{4}-\d\d-\d\d"
_TIME = rf"{_DAY}[ T]\d\d:\d\d(:\d\d(\.\d{{1,6}})?)?"
_TEMPORAL = (
    (DATE, rf"^{_DAY}$"),
    (LOCAL_TIME, rf"^{_TIME}$"),
    (INSTANT, rf"^{_TIME}(Z|[+-]\d\d(:?\d\d)?)$"),
)
# A leading zero or plus sign would be lost by a number, and most often there was none: 007, +49 30 1234.
_INTEGER = r"^(0|-?[1-9]\d*)$"
_FLOAT = r"^-?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"
_EXACT_LENGTH = 15
"""Every decimal number of at most so many digits is told apart by a float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notation:
    """How values are written."""

    true_values: tuple[str, ...]
    false_values: tuple[str, ...]
    decimal_point: str
    iso_times: bool = True


def candidates(texts: pa.Array | pa.ChunkedArray, notation: Notation) -> Candidates:
    """Return the types that hold all *texts*; NULL has any type."""
    values = pc.unique(texts).drop_null()
    if not len(values):
        return ANYTHING
    found: list[pa.DataType] = []
    booleans = pa.array([*notation.true_values, *notation.false_values], TEXT)
    if pc.all(pc.is_in(values, booleans)).as_py():
        found.append(pa.bool_())
    found += _number_types(values, notation.decimal_point)
    if notation.iso_times:
        found += time_types(values)
    return (*found, TEXT)


def time_types(values: pa.Array) -> list[pa.DataType]:
    """Return the types of dates and times that hold all *values*, texts in ISO 8601 without NULL."""
    return [kind for kind, pattern in _TEMPORAL if _all_match(values, pattern) and _all_cast(values, kind)]


def is_exact_float(text: str) -> bool:
    """Tell whether the float64 nearest to the number *text* gives the same number back."""
    if len(text) <= _EXACT_LENGTH and "e" not in text.lower():
        return True
    nearest = float(text)
    return nearest not in (float("inf"), float("-inf")) and Decimal(repr(nearest)) == Decimal(text)


def check_precision(rows: pa.RecordBatch) -> None:
    """Raise ``ValueError`` for decimals of more digits than their type has; Arrow's readers let them pass."""
    for values in rows.columns:
        if pa.types.is_decimal(values.type) or pa.types.is_nested(values.type):
            values.validate(full=True)


def _number_types(values: pa.Array, decimal_point: str) -> list[pa.DataType]:
    found: list[pa.DataType] = []
    if _all_match(values, _INTEGER) and _all_cast(values, INTEGER):
        found.append(INTEGER)
    if decimal_point != ".":
        if pc.any(pc.match_substring(values, ".")).as_py():
            return found
        values = pc.replace_substring(values, decimal_point, ".")
    if _all_match(values, _FLOAT) and all(map(is_exact_float, values.to_pylist())):
        found.append(FLOAT)
    return found


def _all_match(values: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


def _all_cast(values: pa.Array, kind: pa.DataType) -> bool:
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


@dataclass(slots=True)
class ColumnTypes:
    """The type of each column over many files; those that are *declared* are not asked for."""

    setting: str
    """Where users declare types."""
    declared: Mapping[str, pa.DataType]
    _candidates: dict[str, Candidates] = field(default_factory=dict)
    _seen_in: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, columns: Mapping[str, Candidates]) -> None:
        """Take the columns of a further file.

        Raises :class:`~ecmbatch.errors.SourceError` for a column that is text only because its files differ.
        """
        for name, new in columns.items():
            known = self._candidates.get(name, ANYTHING)
            common = tuple(kind for kind in known if kind in new)
            if name not in self.declared and _differ(known, new, common):
                raise SourceError(
                    f"column '{name}' looks like {type_name(new[0])} in {path}, but like {type_name(known[0])} "
                    f"in {self._seen_in[name]}",
                    hint=f"declare its type in {self.setting}",
                )
            self._candidates[name] = common
            if common != known or name not in self._seen_in:
                self._seen_in[name] = path

    def schema(self) -> pa.Schema:
        """Return the columns in the order of their first appearance."""
        unknown = [name for name in self.declared if name not in self._candidates]
        if unknown:
            raise unknown_column(unknown[0], self.setting, self._candidates)
        return pa.schema(
            [
                (name, self.declared.get(name, TEXT if types == ANYTHING else types[0]))
                for name, types in self._candidates.items()
            ]
        )


def _differ(known: Candidates, new: Candidates, common: Candidates) -> bool:
    """Tell whether only text is left, and would not be if one of both were not there."""
    return common == (TEXT,) and ANYTHING not in (known, new) and (known[0], new[0]) != (TEXT, TEXT)


def unknown_column(name: str, setting: str, known: Iterable[str]) -> SourceError:
    """Return the error for a declared column that no file has."""
    return SourceError(
        f"{setting} declares '{name}', but no file has such a column",
        hint=did_you_mean(name, known) or "leave it out",
    )
