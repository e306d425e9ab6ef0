"""Processes of a service: how what they log becomes its log, and how they ended."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ecmbatch.engine.executors.messages import Outbox
from ecmbatch.service.log_fields import fields_of


def how_it_ended(status: int) -> str:
    """Return in words how a process ended."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def log_to_service(replies: Outbox, redact: Callable[[str], str], level: int) -> None:
    """Let the service write what this process logs, as lines ``{"log": …}`` of *replies*."""
    log = logging.getLogger("ecmbatch")
    log.handlers = [_ToService(replies, redact)]
    log.propagate = False
    log.setLevel(level)


class _ToService(logging.Handler):
    """Hands log lines to the service, which writes them in its own way."""

    def __init__(self, replies: Outbox, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._replies = replies
        self._redact = redact

    def emit(self, record: logging.LogRecord) -> None:
        # A log that nobody can read must not end a run.
        with suppress(Exception):
            line: dict[str, Any] = {
                "level": record.levelno,
                "text": self._redact(self.format(record)),
                "fields": fields_of(record),
            }
            self._replies.send({"log": line})
