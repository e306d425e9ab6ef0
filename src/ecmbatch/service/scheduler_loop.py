"""The scheduler's passes, one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ecmbatch.engine.resources import Resources
from ecmbatch.service.errands import Errands

if TYPE_CHECKING:
    from ecmbatch.engine.scheduling.scheduler import Scheduler

_SHORTEST = 0.05


class Passes:
    """Takes passes of the scheduler of *resources*; *then* is called after each."""

    interval = 5.0
    """Seconds between two passes at most: so long until a changed job file, an event or a backfill is seen."""

    def __init__(self, resources: Resources, then: Callable[[], None]) -> None:
        self._resources = resources
        self._then = then
        self._scheduler: Scheduler | None = None
        self.passed = 0
        self.failed = 0

    def step(self) -> float:
        """Take one pass; return how many seconds it may be until the next one."""
        try:
            due = self._made().run_pass()
            now = self._resources.ledger.clock()
        except Exception:
            self.failed += 1
            raise
        self.passed += 1
        self._then()
        if due is None:
            return self.interval
        return min(max((due - now).total_seconds(), _SHORTEST), self.interval)

    def _made(self) -> Scheduler:
        # What it imports takes longer than everything else here: others need not wait for it.
        if self._scheduler is None:
            from ecmbatch.engine.scheduling.scheduler import Scheduler

            errands = Errands(self._resources.project_file)
            self._scheduler = Scheduler(self._resources, check=errands.check, tidy=errands.tidy)
        return self._scheduler
