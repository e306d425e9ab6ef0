"""Worker processes that died over a scan: when to go on with it in another, and when to give up."""

from __future__ import annotations

import logging
from collections import Counter

from ecmbatch.connectors.connector import Scan
from ecmbatch.engine.scan_run import shown_partitions
from ecmbatch.errors import WorkerDied
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.protocol.checkpoint import PartitionStatus

log = logging.getLogger("ecmbatch")

_MOST_DEATHS = 3
"""So many workers may die over a scan that gets no further in between."""


class WorkerDeaths:
    """The deaths of workers that the driver of an attempt has seen, by scan."""

    def __init__(self, run_id: str, ledger: Ledger) -> None:
        self._run_id = run_id
        self._ledger = ledger
        self._furthest: Counter[int] = Counter()
        self._deaths: Counter[int] = Counter()

    def goes_on(self, scan: Scan, death: WorkerDied) -> bool:
        """Tell whether *scan*, whose worker died, needs another worker: not if it had been completed.

        Raises :class:`~ecmbatch.errors.WorkerDied` for a scan that kills its workers.
        """
        of_scan = [
            each for each in self._ledger.progress.partitions(self._run_id) if each.scan == scan.number
        ]
        if all(each.status is PartitionStatus.COMPLETED for each in of_scan):
            log.warning("%s when scan %d was complete", death.message, scan.number)
            return False
        # A scan that starts again from its beginning gets as far as before; only further is progress.
        reached = sum(each.offset for each in of_scan)
        if reached > self._furthest[scan.number]:
            self._furthest[scan.number] = reached
            self._deaths[scan.number] = 0
        self._deaths[scan.number] += 1
        if self._deaths[scan.number] >= _MOST_DEATHS:
            raise self._poisoned(scan, death)
        log.warning("%s; another one goes on with scan %d", death.message, scan.number)
        return True

    def _poisoned(self, scan: Scan, death: WorkerDied) -> WorkerDied:
        again = f"then: ecmbatch resume {self._run_id}"
        return WorkerDied(
            f"{_MOST_DEATHS} workers died over scan {scan.number} (partitions "
            f"{shown_partitions(scan.partitions)}) without getting further; the last: {death.message}",
            hint=f"{death.hint}; {again}" if death.hint else again,
        )
