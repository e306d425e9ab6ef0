"""Schedulers and workers as processes of their own, by a clock in a file that a test moves."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.scheduler import Scheduler
from ecmbatch.engine.scheduling.worker import execute_next
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import EcmbatchError
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.project_file import load_project_file

_SECONDS_BETWEEN_PASSES = 1
_SECONDS_BETWEEN_LOOKS = 0.3


class FileClock:
    """Tells the time that stands in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> datetime:
        return datetime.fromisoformat(self._path.read_text())

    def set(self, instant: datetime) -> None:
        """Let everybody see another time, from one moment to the next."""
        new = self._path.with_suffix(".new")
        new.write_text(instant.isoformat())
        new.replace(self._path)


def _resources(project: Path, clock: Path) -> Resources:
    # The hours that a test lets pass in a minute take no run from a worker that lives.
    Ledger.__init__.__kwdefaults__["lease"] = timedelta(days=1)
    return Resources(load_project_file(project, {}), clock=FileClock(clock))


def schedule_forever(project: Path, clock: Path) -> None:
    """Make runs until the process is killed."""
    resources = _resources(project, clock)
    scheduler = Scheduler(resources)
    while True:
        try:
            scheduler.run_pass()
        except EcmbatchError as error:
            print(f"scheduler: {error}")
        time.sleep(_SECONDS_BETWEEN_PASSES)


def work_forever(project: Path, clock: Path) -> None:
    """Execute runs until the process is killed."""
    resources = _resources(project, clock)
    while True:
        try:
            if execute_next(resources, workers=1, stop=StopSignal()) is not None:
                continue
        except EcmbatchError as error:
            print(f"worker: {error}")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
