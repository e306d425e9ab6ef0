"""Ctrl-C and SIGTERM: the first one asks the run to checkpoint and stop, a second one ends the process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from ecmbatch.cli.screen import is_terminal
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import RunStopped

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"


class StopOnSignals:
    """While it is entered, signals set *stop* instead of ending the process.

    A thread waits for them. Python runs its own handlers between two instructions of the main thread, which
    may be inside a long statement of a database; a second Ctrl-C has to work then as well.
    """

    def __init__(self, stop: StopSignal, note: Callable[[str], None]) -> None:
        self._stop = stop
        self._note = note
        self._handlers: dict[signal.Signals, Any] = {}
        self.received: signal.Signals | None = None
        """The signal that came first."""

    @property
    def exit_code(self) -> int | None:
        """What a shell expects of a process that a signal stopped; ``None`` where none came."""
        return None if self.received is None else 128 + self.received

    def __enter__(self) -> Self:
        read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        threading.Thread(target=self._wait, args=(read_end,), name="ecmbatch-signals", daemon=True).start()
        self._handlers = {each: signal.signal(each, _leave_it_to_the_thread) for each in _STOPPING}
        self._wakeup_fd = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_fd)
        for each, handler in self._handlers.items():
            signal.signal(each, handler)
        os.close(self._write_end)

    def _wait(self, read_end: int) -> None:
        with os.fdopen(read_end, "rb", buffering=0) as signals:
            while number := signals.read(1):
                if number[0] in _STOPPING:
                    self._receive(signal.Signals(number[0]))

    def _receive(self, received: signal.Signals) -> None:
        if self.received is not None:
            if is_terminal(sys.stderr):
                os.write(2, _SHOW_CURSOR.encode())  # progress bars hide it
            os._exit(128 + received)
        self.received = received
        self._stop.set(RunStopped(f"stopped by {received.name}"))
        self._note(f"{received.name}: stopping at the next checkpoint; once more ends it at once")


def _leave_it_to_the_thread(_number: int, _frame: FrameType | None) -> None:
    """A handler of our own, so that the signal's default action is not taken."""
