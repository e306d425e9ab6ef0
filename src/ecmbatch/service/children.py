"""Processes of a service, seen from both ends: how they are started, and how what they log becomes its log."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ecmbatch.engine.executors.messages import Outbox
from ecmbatch.engine.executors.worker import OF_TERMINALS
from ecmbatch.service.log_fields import fields_of

_STANDARD_ERROR = 2


def start_child(module: str, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int, int]:
    """Run *module* in a fresh interpreter; return it with the pipes to write to it and to read from it.

    Whatever it prints goes to standard error. Raises ``OSError`` where no process can be started.
    """
    its_requests, requests = os.pipe()
    replies, its_replies = os.pipe()
    # From its first instruction on, a Ctrl-C in the terminal is not for the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINALS)
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and a module of our own
            # -P keeps files of the current folder from posing as modules.
            [sys.executable, "-P", "-m", module, str(its_requests), str(its_replies)],
            stdin=subprocess.DEVNULL,
            stdout=_STANDARD_ERROR,
            pass_fds=(its_requests, its_replies),
            env=environment,
        )
    except OSError:
        os.close(requests)
        os.close(replies)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(its_requests)
        os.close(its_replies)
    return process, requests, replies


def settle_in() -> tuple[int, int]:
    """Return, in a child, the pipes to read from and to write to; it obeys its service alone from now on."""
    requests, replies = map(int, sys.argv[1:])
    for each in OF_TERMINALS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_TERMINALS)
    for descriptor in (requests, replies):
        # A process that user code leaves behind must not keep the pipes open.
        os.set_inheritable(descriptor, False)
    return requests, replies


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
