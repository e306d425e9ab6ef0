"""Which rows a rule looks at: the ``where`` of a rule, a small predicate in JSON.

``{"field": "tier", "op": "=", "value": "gold"}``, combined by ``{"and": [...]}``, ``{"or": [...]}`` and
``{"not": {...}}``. It is data, never SQL text. As in SQL a comparison with NULL is neither true nor false,
and only rows for which the whole predicate is true are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ecmbatch.protocol.validation.declaration import Declaration, JsonList, NotEmpty, suggestion

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "not_in", "is_null", "is_not_null"]

_OPERATORS: Sequence[str] = ("=", "!=", "<", "<=", ">", ">=", "in", "not_in", "is_null", "is_not_null")
_SPOKEN = {"==": "=", "<>": "!=", "eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _known_operator(value: Any) -> Any:
    if value in _OPERATORS:
        return value
    near = suggestion(_SPOKEN.get(str(value), value), _OPERATORS)
    raise ValueError(f"unknown operator; known are {', '.join(_OPERATORS)}{near}")


def _known_value(value: Any) -> Any:
    """Only what JSON can write exactly: texts, numbers and booleans, or a list of them."""
    items = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str | bool | int | float) for item in items):
        raise ValueError(
            "a value is a text, a number, true or false, or a list of those; for null use 'is_null'"
        )
    if any(isinstance(item, float) and not math.isfinite(item) for item in items):
        raise ValueError("a value is a finite number")
    return tuple(items) if isinstance(value, list) else value


class Comparison(Declaration):
    """One field compared with one value (a list for ``in`` and ``not_in``, none for ``is_null``)."""

    field: str = Field(min_length=1)
    op: Annotated[Operator, BeforeValidator(_known_operator)]
    value: Annotated[Any, BeforeValidator(_known_value)] = None

    @model_validator(mode="after")
    def _value_fits_operator(self) -> Comparison:
        given = "value" in self.model_fields_set
        if self.op in ("is_null", "is_not_null"):
            if given:
                raise ValueError(f"'{self.op}' takes no value")
            return self
        if not given:
            raise ValueError(f"'{self.op}' needs a value")
        if (self.op in ("in", "not_in")) != isinstance(self.value, tuple):
            raise ValueError("'in' and 'not_in' take a list of values, the other operators one value")
        if self.value == ():
            raise ValueError(f"'{self.op}' needs at least one value")
        return self


class AllOf(Declaration):
    """Every part is true."""

    parts: Annotated[tuple[Where, ...], JsonList, NotEmpty] = Field(alias="and")


class AnyOf(Declaration):
    """At least one part is true."""

    parts: Annotated[tuple[Where, ...], JsonList, NotEmpty] = Field(alias="or")


class Not(Declaration):
    """The part is false; where it is unknown because of a NULL, so is this."""

    part: Where = Field(alias="not")


def _form(value: Any) -> str | None:
    if isinstance(value, Declaration):
        return type(value).__name__
    if not isinstance(value, dict):
        return None
    forms = {"and": "AllOf", "or": "AnyOf", "not": "Not"}
    return next((form for key, form in forms.items() if key in value), "Comparison")


Where = Annotated[
    Annotated[Comparison, Tag("Comparison")]
    | Annotated[AllOf, Tag("AllOf")]
    | Annotated[AnyOf, Tag("AnyOf")]
    | Annotated[Not, Tag("Not")],
    Discriminator(
        _form,
        custom_error_type="predicate",
        custom_error_message="a predicate is an object: "
        '{"field", "op", "value"}, {"and": [...]}, {"or": [...]} or {"not": {...}}',
    ),
]
"""Any predicate."""

for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()
