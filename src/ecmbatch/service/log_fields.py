"""What a line of the log says beside its message: ``event``, a stable name, and what it is about."""

from __future__ import annotations

import logging
from typing import Any

_OF_EVERY_RECORD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the ``extra`` fields of *record*: plain values as they are, everything else as text."""
    return {
        name: value if value is None or isinstance(value, bool | int | float) else str(value)
        for name, value in record.__dict__.items()
        if name not in _OF_EVERY_RECORD
    }
