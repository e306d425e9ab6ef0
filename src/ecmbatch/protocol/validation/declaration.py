"""What every JSON object of a validation block has in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import AfterValidator, BeforeValidator

from ecmbatch.protocol.document import Section, did_you_mean


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


class Declaration(Section):
    """An object of the validation block, and its canonical spelling."""

    def as_json(self, *, exclude: set[str] | None = None) -> dict[str, Any]:
        """Return what was declared as JSON, in one canonical spelling, without what equals its default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=exclude)


def digest(value: Any) -> str:
    """Return 16 hexadecimal characters that stand for the JSON *value*, the same everywhere and always."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def suggestion(value: Any, known: Sequence[str]) -> str:
    """Return ``; did you mean '…'?`` with the name among *known* that *value* resembles, else nothing."""
    near = did_you_mean(value, known) if isinstance(value, str) else None
    return f"; {near}" if near else ""
