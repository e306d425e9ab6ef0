"""Where scans are executed: one seam for threads, processes and whatever comes later.

An executor runs a specification and gives a future. It never retries and never decides; the driver keeps at
most ``slots`` specifications in flight, and what was achieved is read from the ledger, not from futures.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

Spec = TypeVar("Spec")
Submitted = TypeVar("Submitted", contravariant=True)


class Executor(Protocol[Submitted]):
    """Runs specifications, ``slots`` of them at a time."""

    slots: int

    def submit(self, spec: Submitted) -> Future[None]:
        """Begin to execute *spec*; the future raises what ended it."""
        ...

    def close(self) -> None:
        """Wait for what is in flight and release everything."""
        ...


class Threads(Generic[Spec]):
    """Executes in threads of this process: the libraries that do the work release the interpreter's lock."""

    def __init__(self, work: Callable[[Spec], None], slots: int) -> None:
        self.slots = slots
        self._work = work
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="ecmbatch-scan")

    def submit(self, spec: Spec) -> Future[None]:
        """Begin to execute *spec* in a thread."""
        return self._pool.submit(self._work, spec)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown(wait=True)
