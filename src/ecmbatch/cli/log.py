"""The log of the command line: standard error, for people or as one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from ecmbatch.cli.screen import visible
from ecmbatch.service.log_fields import fields_of

Redact = Callable[[str], str]


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """What is worth a line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up_log(form: LogFormat, level: LogLevel, redact: Redact) -> None:
    """Send the package's log to standard error; *redact* removes secrets from every line."""
    log = logging.getLogger("ecmbatch")
    handler = _StandardError()
    handler.setFormatter(_Json(redact) if form is LogFormat.JSON else _Text(redact))
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(level.upper())


class _StandardError(logging.Handler):
    """Looks standard error up anew for every line: progress bars put themselves in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        # A log that nobody can read must not end a run.
        try:
            # In one piece: worker processes write to the same place.
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            return


class _Text(logging.Formatter):
    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"{record.levelname.lower()}: " if record.levelno != logging.INFO else ""
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return visible(self._redact(f"{prefix}{record.getMessage()}{trace}"))


class _Json(logging.Formatter):
    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {
            name: self._redact(value) if isinstance(value, str) else value
            for name, value in fields_of(record).items()
        }
        line = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            **({"event": fields.pop("event")} if "event" in fields else {}),
            "message": self._redact(record.getMessage()),
            **fields,
        }
        if record.exc_info:
            line["trace"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(line)
