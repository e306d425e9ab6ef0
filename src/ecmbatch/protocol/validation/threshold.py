"""How many rows may violate a rule (protocol: Quality Validation, ``threshold``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,15})?)%")
_FORMS = 'write 0, a fraction such as 0.05, a count such as 20, "5%", {"count": 1} or {"fraction": 0.05}'
_MAX_COUNT = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The number of violating rows that is accepted: a ``count``, or a ``fraction`` of the evaluated rows.

    Exactly one of the two is set. Comparisons are exact: 29 of 100 rows are within 0.29, which floats deny.
    """

    count: int | None = None
    fraction: Decimal | None = None

    def __post_init__(self) -> None:
        if (self.count is None) == (self.fraction is None):
            raise ValueError("a threshold is a count or a fraction, one of the two")
        if self.count is not None and not 0 <= self.count <= _MAX_COUNT:
            raise ValueError(f"a threshold's count is a whole number from 0; {_FORMS}")
        if self.fraction is not None and not 0 <= self.fraction <= 1:
            raise ValueError(f"a threshold's fraction lies between 0 and 1; {_FORMS}")

    def accepts(self, violations: int, rows: int) -> bool:
        """Whether *violations* of *rows* are within the threshold, bounds included."""
        if self.count is not None:
            return violations <= self.count
        return violations <= Fraction(self.fraction or 0) * rows

    def can_exceed(self, other: Threshold) -> bool:
        """Whether this accepts more than *other* for some number of rows."""
        if self.count is not None and other.count is not None:
            return self.count > other.count
        if self.fraction is not None and other.fraction is not None:
            return self.fraction > other.fraction
        return bool(self.count or self.fraction)

    def as_json(self) -> Any:
        """Return the canonical way to write the threshold: ``0``, ``{"count": 1}``, ``20`` or ``"5%"``."""
        if self.fraction is not None:
            text = f"{self.fraction * 100:f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text) + "%"
        return {"count": 1} if self.count == 1 else self.count

    def __str__(self) -> str:
        return f"{self.count:,}" if self.count is not None else str(self.as_json())


def parse_threshold(value: Any) -> Threshold:
    """Return the threshold that the JSON *value* says.

    ``0``; a fraction between 0 and 1 (taken as the decimal it was written as); a whole number from 2 as a
    count; ``"5%"``; ``{"count": n}``; ``{"fraction": x}``.

    Raises ``ValueError`` for everything else: exactly 1 (a row, or all of them?), negatives, ``1.5``,
    ``"150%"``, ``"5"``, booleans, NaN.
    """
    match value:
        case Threshold():
            return value
        case bool():
            raise ValueError(f"a threshold is not true or false; {_FORMS}")
        case int() | float():
            return _number(value)
        case str():
            return _percent(value)
        case dict():
            return _object({key: item for key, item in value.items() if not str(key).startswith("x-")})
    raise ValueError(f"not a threshold; {_FORMS}")


def _number(value: int | float) -> Threshold:
    if value == 0:
        return Threshold(count=0)
    if value == 1:
        raise ValueError(
            'a threshold of 1 is ambiguous; write {"count": 1} for one row or "100%" for all of them'
        )
    if value < 0:
        raise ValueError(f"a threshold is not negative; {_FORMS}")
    if isinstance(value, int):
        return Threshold(count=value)
    if not 0 < value < 1:
        raise ValueError(
            f"a threshold above 1 counts rows and is a whole number without a decimal point; {_FORMS}"
        )
    return Threshold(fraction=_as_written(value))


def _percent(text: str) -> Threshold:
    match = _PERCENT.fullmatch(text)
    if match is None or not text.isascii():
        raise ValueError(f'a threshold in quotes is a percentage such as "5%"; {_FORMS}')
    percent = Decimal(match.group(1))
    if percent > 100:
        raise ValueError(f"a threshold is at most 100%; {_FORMS}")
    return Threshold(fraction=percent / 100)


def _object(value: dict[Any, Any]) -> Threshold:
    match value:
        case {"count": int(count), **rest} if not rest and not isinstance(count, bool):
            return Threshold(count=count)
        case {"fraction": int() | float() as fraction, **rest} if not rest and not isinstance(fraction, bool):
            return Threshold(fraction=_as_written(fraction))
    raise ValueError(
        f'a threshold object has one key, "count" (a whole number) or "fraction" (a number); {_FORMS}'
    )


def _as_written(number: int | float) -> Decimal:
    """The decimal that was written: the float 0.29 is a little less, its shortest text is 0.29 again."""
    decimal = Decimal(repr(number))
    if not decimal.is_finite():
        raise ValueError(f"a threshold is a finite number; {_FORMS}")
    return decimal


_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT = {"type": "integer", "minimum": 0}

ThresholdValue = Annotated[
    Threshold,
    PlainValidator(parse_threshold),
    PlainSerializer(Threshold.as_json),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": 0},
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "integer", "minimum": 2},
                {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,15})?%$"},
                {"type": "object", "properties": {"count": _COUNT}, "required": ["count"]},
                {"type": "object", "properties": {"fraction": _FRACTION}, "required": ["fraction"]},
            ]
        }
    ),
]
"""A threshold in a rule's model."""
