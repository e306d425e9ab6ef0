"""Asking the threads of an attempt to stop, and why."""

from __future__ import annotations

import threading

from ecmbatch.errors import EcmbatchError, RunStopped


class StopSignal:
    """Set once, by whoever comes first; what it was set with is how the attempt ends.

    A signal with a *parent* is also set when its parent is, but not the other way round: what ends one
    attempt does not keep the run from trying again.
    """

    def __init__(self, parent: StopSignal | None = None) -> None:
        self._parent = parent
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._reason: EcmbatchError | None = None

    def set(self, reason: EcmbatchError) -> None:
        """Ask everybody to stop because of *reason*; later reasons change nothing."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
        self._event.set()

    def is_set(self) -> bool:
        """Tell whether to stop."""
        return self._event.is_set() or (self._parent is not None and self._parent.is_set())

    def wait(self, seconds: float) -> bool:
        """Wait until this very signal is set, at most *seconds*; tell whether it is."""
        return self._event.wait(seconds)

    def raise_if_set(self) -> None:
        """Raise the reason."""
        if self.is_set():
            raise self.reason

    @property
    def reason(self) -> EcmbatchError:
        """Why to stop."""
        if self._reason is None and self._parent is not None:
            return self._parent.reason
        return self._reason or RunStopped("stopped on request")
