"""The seam between the driver of an attempt and what executes its scans.

An executor runs a scan and gives a future. It never retries and never decides; the driver keeps at most
``slots`` scans in flight, and what was achieved is read from the ledger, not from futures.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol


class Executor(Protocol):
    """Executes scans of one attempt, ``slots`` of them at a time.

    What a scan does, and the attempt's :class:`~ecmbatch.engine.stopping.StopSignal`, it is given when it is
    made; the signal reaches the scans wherever they are executed.
    """

    slots: int

    def submit(self, scan: int) -> Future[None]:
        """Begin to execute the scan with the number *scan*; the future raises what ended it.

        That is the reason of the stop signal itself where the scan stopped because of it, and
        :class:`~ecmbatch.errors.WorkerDied` where the process that executed it ended without a word.
        """
        ...

    def close(self) -> None:
        """Wait for what is in flight and release everything."""
        ...
