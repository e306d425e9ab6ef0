"""What every JSON object of a validation block has in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator


def _as_tuple(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("a list is expected")
    return tuple(value)


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("a list with at least one entry is expected")
    return value


JsonList = BeforeValidator(_as_tuple)
"""Lets a JSON list become the tuple that a frozen model keeps."""

NotEmpty = AfterValidator(_not_empty)
"""Refuses an empty list; unlike ``min_length`` it says nothing more about a list with faulty entries."""


class Declaration(BaseModel):
    """A strict, frozen JSON object. Unknown keys are refused, except those that start with ``x-``."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"patternProperties": {"^x-": {}}},
    )

    @model_validator(mode="before")
    @classmethod
    def _without_free_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if not str(key).startswith("x-")}

    def as_json(self, *, exclude: set[str] | None = None) -> dict[str, Any]:
        """Return what was declared as JSON, in one canonical spelling, without what equals its default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=exclude)


def digest(value: Any) -> str:
    """Return 16 hexadecimal characters that stand for the JSON *value*, the same everywhere and always."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def did_you_mean(value: Any, known: Sequence[str]) -> str:
    """Return ``; did you mean '…'?`` with the name among *known* that *value* resembles, else nothing."""
    near = get_close_matches(value, known, 1) if isinstance(value, str) else []
    return f"; did you mean '{near[0]}'?" if near else ""
