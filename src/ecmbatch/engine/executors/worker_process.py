"""One worker process as its driver sees it: started, given scans, told to stop, and mourned."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from ecmbatch.engine.executors.child import start_child
from ecmbatch.engine.executors.messages import (
    Message,
    Outbox,
    Redact,
    decode_error,
    decode_known_error,
    encode_error,
)
from ecmbatch.engine.profile import Profile
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import WorkerDied

log = logging.getLogger("ecmbatch")

COMMAND = ("-P", "-m", "ecmbatch.engine.executors.worker")
"""What a fresh interpreter is started with; ``-P`` keeps files of the current folder from posing as modules."""

SECONDS_TO_STOP = 30
"""How long after the stop signal a scan may take to end with a checkpoint, before its process is killed."""

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_END = 10
_READ_AT_ONCE = 65_536


class WorkerProcess:
    """A process that executes scans, one at a time. Its thread here hands on the stop signal, and its answers.

    A scan that does not heed the signal, because its code hangs, ends with the process; like every other one it
    has then ended because of what the signal says.

    Raises ``OSError`` where no process can be started. It must be started by the thread that drives the
    attempt: Linux ends it when that thread is gone.
    """

    def __init__(
        self,
        setup: Message,
        environment: Mapping[str, str],
        *,
        stop: StopSignal,
        profile: Profile,
        redact: Redact,
    ) -> None:
        self._stop = stop
        self._redact = redact
        self._profile = profile
        self._lock = threading.Lock()
        self._future: Future[None] | None = None
        self._gone = False
        self._patience_ends: float | None = None
        """When a scan must have heeded the stop signal, by the monotonic clock, once it was handed on."""
        self._hung = False
        self._process, requests, self._replies = start_child(COMMAND, environment)
        self._requests = Outbox(requests)
        self._listener = threading.Thread(
            target=self._listen, name=f"ecmbatch-worker-{self._process.pid}", daemon=True
        )
        self._listener.start()
        self._requests.send({"setup": setup})

    def give(self, scan: int) -> Future[None] | None:
        """Let it execute *scan* if it is there and idle; ``None`` if not."""
        future: Future[None] = Future()
        with self._lock:
            if self._gone or self._future is not None:
                return None
            self._future = future
        self._requests.send({"scan": scan})
        return future

    def end(self) -> None:
        """Ask it to end after the scan at hand."""
        self._requests.send({"end": True})

    def join(self) -> None:
        """Wait until it is gone; one that cannot end by itself is killed."""
        self._listener.join(_SECONDS_TO_END)
        if self._listener.is_alive():
            log.warning("worker process %d did not end by itself; it is killed", self._process.pid)
            self.kill()
            self._listener.join()

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()

    def _listen(self) -> None:
        try:
            for message in self._messages():
                self._take(message)
        finally:
            self._bury()

    def _messages(self) -> Iterator[dict[str, Any]]:
        """Yield what it says until it is gone, and look at the stop signal meanwhile."""
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while True:
                self._hand_on_stop()
                self._kill_if_hung()
                if selector.select(_SECONDS_BETWEEN_LOOKS):
                    read = os.read(self._replies, _READ_AT_ONCE)
                    if not read:
                        return
                    *lines, rest = (rest + read).split(b"\n")
                    yield from map(json.loads, lines)
                elif self._process.poll() is not None:
                    # Something that it started has the pipe still open.
                    return

    def _hand_on_stop(self) -> None:
        if self._stop.is_set() and self._patience_ends is None:
            self._patience_ends = time.monotonic() + SECONDS_TO_STOP
            self._requests.send({"stop": encode_error(self._stop.reason, self._redact)})

    def _kill_if_hung(self) -> None:
        if self._hung or self._patience_ends is None or time.monotonic() < self._patience_ends:
            return
        with self._lock:
            self._hung = self._future is not None
        if self._hung:
            log.warning(
                "worker process %d did not stop within %g s; it is killed, what is checkpointed is kept",
                self._process.pid,
                SECONDS_TO_STOP,
            )
            self.kill()

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"log": {"level": level, "text": text}}:
                log.log(level, "%s", text)
            case {"ended": ended}:
                self._profile.add(ended["profile"])
                self._resolve(self._error_of(ended))

    def _error_of(self, ended: Message) -> Exception | None:
        if ended["error"] is None:
            return None
        if not ended["stopped"]:
            return decode_error(ended["error"])
        if not self._stop.is_set():
            # The ledger told the worker first.
            self._stop.set(decode_known_error(ended["error"]))
        return self._stop.reason

    def _bury(self) -> None:
        try:
            status = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._requests.close()
        os.close(self._replies)
        with self._lock:
            self._gone = True
        self._resolve(self._stop.reason if self._hung else _death(self._process.pid, status))

    def _resolve(self, error: Exception | None) -> None:
        # It is idle before anybody hears of it: the next scan may be given to it at once.
        with self._lock:
            future, self._future = self._future, None
        if future is None:
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _death(pid: int, status: int) -> WorkerDied:
    """Return how a process ended that had more to do."""
    if status >= 0:
        return WorkerDied(
            f"worker process {pid} ended with exit status {status}",
            hint="what it said is on standard error",
        )
    name = _signal_name(-status)
    hint = "a library has crashed; with the executor 'threads' the whole run would have"
    if -status == signal.SIGKILL:
        hint = (
            "systems kill processes when memory runs out: fewer [run] workers, or a smaller source.batch_rows, "
            "need less"
        )
    return WorkerDied(f"worker process {pid} was killed by {name}", hint=hint)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
