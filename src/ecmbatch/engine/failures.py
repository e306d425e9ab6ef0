"""Errors as the ledger and scripts see them."""

from __future__ import annotations

from typing import Any

from ecmbatch.errors import EcmbatchError


def error_document(error: EcmbatchError) -> dict[str, Any]:
    """Return the JSON form: ``{"code", "message", "problems": [{"path", "message", "hint"}]}``."""
    document: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "problems": [
            {"path": problem.path, "message": problem.message, "hint": problem.hint}
            for problem in error.problems
        ],
    }
    if error.hint:
        document["hint"] = error.hint
    return document
