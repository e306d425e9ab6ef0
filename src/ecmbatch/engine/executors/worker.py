"""A worker process: executes scans for the driver that started it, one after the other.

It obeys its driver alone: a Ctrl-C goes to all processes of a terminal, and the driver asks for a checkpoint
first. It ends with its driver, however that ends. Whatever user code prints goes to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import cached_property
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ecmbatch.engine.executors.child import settle_in
from ecmbatch.engine.executors.messages import (
    Message,
    Outbox,
    Redact,
    decode_known_error,
    encode_error,
)
from ecmbatch.engine.stopping import StopSignal

if TYPE_CHECKING:
    from ecmbatch.engine.resources import Resources
    from ecmbatch.engine.scan_run import AttemptSpec
    from ecmbatch.processors.chain import BoundChain

_SET_PARENT_DEATH_SIGNAL = 1
_ORPHANED = 1


def main() -> None:
    """Work for the driver with the pid of the third argument, over the pipes of the first two."""
    requests, replies, driver = settle_in()
    _die_with(driver)
    inbox = _Inbox(requests)
    # Its modules take a second to import; a stop, or the driver's end, must not have to wait for that.
    _Worker(inbox.setup(), Outbox(replies), inbox).work()


def _die_with(driver: int) -> None:
    """Let the kernel end this process when the driver's thread that started it is gone, where it can.

    Elsewhere, and beside it, the end of the pipe tells; but that has to wait for Python's lock.
    """
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != driver:
        os._exit(_ORPHANED)


class _Inbox:
    """What the driver asks for. A thread reads it, so that a stop arrives in the middle of a scan."""

    def __init__(self, requests: int) -> None:
        self.stop = StopSignal()
        self.scans: SimpleQueue[int | None] = SimpleQueue()
        """What to execute; ``None`` is the end."""
        self._setup: SimpleQueue[Message] = SimpleQueue()
        threading.Thread(target=self._read, args=(requests,), name="ecmbatch-driver", daemon=True).start()

    def setup(self) -> Message:
        """Wait for what comes first."""
        return self._setup.get()

    def _read(self, requests: int) -> None:
        with os.fdopen(requests, "rb") as lines:
            for line in lines:
                self._take(json.loads(line))
        os._exit(_ORPHANED)

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"setup": setup}:
                self._setup.put(setup)
            case {"scan": scan}:
                self.scans.put(scan)
            case {"stop": reason}:
                self.stop.set(decode_known_error(reason))
            case {"end": _}:
                self.scans.put(None)


class _Worker:
    """Executes the scans of one attempt with resources of its own."""

    def __init__(self, setup: Message, replies: Outbox, inbox: _Inbox) -> None:
        self._setup = setup
        self._replies = replies
        self._inbox = inbox
        # Plug-ins must be found where the driver finds them.
        sys.path[:] = setup["path"]
        log = logging.getLogger("ecmbatch")
        log.handlers = [_ToDriver(replies, self._redact)]
        log.propagate = False
        log.setLevel(setup["log_level"])

    def work(self) -> None:
        """Execute scans until there are no more."""
        while (scan := self._inbox.scans.get()) is not None:
            self._replies.send({"ended": self._execute(scan)})
        if "_resources" in self.__dict__:
            self._resources.close()

    def _execute(self, scan: int) -> Message:
        from ecmbatch.engine.profile import Profile
        from ecmbatch.engine.scan_run import run_scan

        profile = Profile()
        stop = self._inbox.stop
        ended: dict[str, Any] = {"error": None, "stopped": False}
        try:
            run_scan(self._attempt, scan, self._resources, self._chain, stop, profile)
        except BaseException as error:
            ended["error"] = encode_error(error, self._redact)
            ended["stopped"] = stop.is_set() and error is stop.reason
        return {**ended, "profile": profile.figures()}

    @cached_property
    def _attempt(self) -> AttemptSpec:
        from ecmbatch.engine.scan_run import AttemptSpec

        return AttemptSpec.from_document(self._setup["attempt"])

    @cached_property
    def _resources(self) -> Resources:
        from pathlib import Path

        from ecmbatch.engine.resources import Resources
        from ecmbatch.errors import ConflictError
        from ecmbatch.project_file import load_project_file

        of_driver = self._setup["project_file"]
        file = load_project_file(Path(of_driver["path"]), os.environ)
        if file.digest != of_driver["digest"]:
            run_id = self._attempt.facts.run_id
            raise ConflictError(
                f"the project file {file.file} was changed while run {run_id} was under way",
                hint=f"go on with what it says now: ecmbatch resume {run_id}",
            )
        return Resources(file)

    @cached_property
    def _chain(self) -> BoundChain:
        """The processors, built once for all scans, with the tables that they look things up in."""
        from ecmbatch.engine.references import staged_tables
        from ecmbatch.engine.transform import bound_chain, check_versions

        plan, facts = self._attempt.plan, self._attempt.facts
        check_versions(plan, self._resources, facts)
        tables = staged_tables(facts.run_id, plan, self._resources)
        return bound_chain(plan, self._resources, facts, tables)

    def _redact(self, text: str) -> str:
        return self._resources.project_file.redact(text) if "_resources" in self.__dict__ else text


class _ToDriver(logging.Handler):
    """Hands log lines to the driver, which writes them in its own way."""

    def __init__(self, replies: Outbox, redact: Redact) -> None:
        super().__init__()
        self._replies = replies
        self._redact = redact

    def emit(self, record: logging.LogRecord) -> None:
        # A log that nobody can read must not end a run.
        with suppress(Exception):
            self._replies.send({"log": {"level": record.levelno, "text": self._redact(self.format(record))}})


if __name__ == "__main__":
    main()
