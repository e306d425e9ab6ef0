"""Whether the parts of a service are at work, as ``/readyz`` tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

_MISSED_BEATS = 3


class Heartbeat:
    """One part that says about every *interval* seconds that it is well. It is not before it says so first."""

    def __init__(
        self, name: str, *, interval: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._patience = _MISSED_BEATS * interval
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last: float | None = None
        self._trouble: str | None = "it has not begun"

    def beat(self) -> None:
        """All is well now."""
        with self._lock:
            self._last, self._trouble = self._monotonic(), None

    def fail(self, trouble: str) -> None:
        """Something keeps the part from working."""
        with self._lock:
            self._trouble = trouble

    @property
    def problem(self) -> str | None:
        """What is wrong with the part, ``None`` where it is well."""
        with self._lock:
            if self._trouble is not None:
                return self._trouble
            assert self._last is not None
            silent = self._monotonic() - self._last
        return f"nothing was heard of it for {silent:.0f} s" if silent > self._patience else None


class Health:
    """The parts of a service together."""

    def __init__(self, parts: Sequence[Heartbeat]) -> None:
        self._parts = parts

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong, one sentence for each part; empty where all is well."""
        return [f"{part.name}: {problem}" for part in self._parts if (problem := part.problem) is not None]
