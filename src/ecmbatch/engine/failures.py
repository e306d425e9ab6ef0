"""Errors as the ledger and scripts see them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ecmbatch.errors import EcmbatchError

if TYPE_CHECKING:
    from ecmbatch.engine.resources import Resources


def redacted_document(error: EcmbatchError, resources: Resources) -> dict[str, Any]:
    """Return the JSON form without the project's secrets, as the ledger keeps it."""
    document: dict[str, Any] = json.loads(resources.project_file.redact(json.dumps(error_document(error))))
    return document


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
