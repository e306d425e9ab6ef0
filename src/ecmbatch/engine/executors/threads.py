"""Executing scans in threads of the driver's own process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Threads:
    """Executes in threads of this process: the libraries that do the work release the interpreter's lock."""

    def __init__(self, work: Callable[[int], None], slots: int) -> None:
        self.slots = slots
        self._work = work
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="ecmbatch-scan")

    def submit(self, scan: int) -> Future[None]:
        """Begin to execute *scan* in a thread."""
        return self._pool.submit(self._work, scan)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown(wait=True)
