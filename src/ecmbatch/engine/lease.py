"""Keeping an attempt's lease alive, whatever its transform is busy with."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import EcmbatchError, Fenced, RunStopped, Unreachable
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.records import Fence
from ecmbatch.protocol.run import RunStatus

_RENEWALS_PER_LEASE = 6
_SECONDS_BETWEEN_LOOKS = 0.5


class LeaseKeeper:
    """A thread that renews the lease of *fence*, and stops the attempt when it cannot or is asked to.

    A worker that cannot renew stops itself before the lease expires: after that somebody else may be at work.
    """

    def __init__(self, ledger: Ledger, fence: Fence, stop: StopSignal) -> None:
        self._ledger = ledger
        self._fence = fence
        self._stop = stop
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ecmbatch-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _keep(self) -> None:
        lease = self._ledger.lease.total_seconds()
        interval = lease / _RENEWALS_PER_LEASE
        renewed = time.monotonic()
        due = renewed + interval
        while not self._done.wait(min(_SECONDS_BETWEEN_LOOKS, interval)):
            try:
                began = time.monotonic()
                if began >= due:
                    status = self._ledger.runs.renew(self._fence)
                    renewed, due = began, began + interval
                else:
                    status = self._ledger.runs.status(self._fence)
                if status is RunStatus.STOPPING:
                    self._stop.set(RunStopped("stopped on request"))
            except Fenced as error:
                self._stop.set(error)
                return
            except EcmbatchError as error:
                if time.monotonic() > renewed + lease - 2 * interval:
                    self._stop.set(
                        Unreachable(
                            f"the lease of run {self._fence.run_id} could not be renewed: {error.message}",
                            hint="when the ledger is reachable again, resume the run",
                        )
                    )
                    return
