"""A project whose days pass in seconds: the real scheduler over a real ledger, and workers that only pretend.

Time stands still until it is moved to the next instant at which something can happen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ecmbatch.engine.job_files import read_job
from ecmbatch.engine.launching import LaunchOptions, launch
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.scheduler import Scheduler
from ecmbatch.errors import EcmbatchError
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import Fence, RunRecord
from ecmbatch.project_file import ProjectFile, ProjectSettings
from ecmbatch.protocol.run import RunStatus
from ecmbatch.testing.clock import ManualClock

_MOST_PASSES = 40
SHORTLY = timedelta(minutes=1)


@dataclass(frozen=True)
class Work:
    """How long runs of a job take, and how they end."""

    takes: timedelta = SHORTLY
    ends: RunStatus = RunStatus.SUCCESS


@dataclass
class _UnderWay:
    run: RunRecord
    fence: Fence
    until: datetime
    ends: RunStatus


@dataclass
class Simulation:
    """A project in *root* with *jobs* by id: what stands in them beside the id, a source and a sink."""

    root: Path
    start: datetime
    jobs: Mapping[str, Mapping[str, Any]]
    work: Callable[[str, datetime], Work] = lambda _job_id, _tick: Work()
    schedulers: int = 1
    clock: ManualClock = field(init=False)
    resources: Resources = field(init=False)

    def __post_init__(self) -> None:
        self.clock = ManualClock(self.start)
        (self.root / "jobs").mkdir()
        (self.root / "data.csv").write_text("context_id\n1\n")
        for job_id, sections in self.jobs.items():
            self.write(job_id, sections)
        file = ProjectFile(root=self.root, settings=ProjectSettings()).with_implied_names()
        self.resources = Resources(file, clock=self.clock)
        self.ledger = self.resources.ledger
        self.replace_schedulers()
        self._under_way: list[_UnderWay] = []
        self.tick()

    def replace_schedulers(self) -> None:
        """Let other schedulers take the place of those that were there."""
        self._schedulers = [Scheduler(self.resources) for _ in range(self.schedulers)]

    def write(self, job_id: str, sections: Mapping[str, Any]) -> None:
        """Write the file of a job, as it is from now on."""
        job = {
            "job_id": job_id,
            "source": {"connector": "files", "path": "data.csv"},
            "sink": {"store": "context_store", "mode": "upsert"},
            **sections,
        }
        path = self.root / "jobs" / f"{job_id}.json"
        path.with_suffix(".new").write_text(json.dumps(job))
        path.with_suffix(".new").replace(path)

    def run_until(self, instant: datetime) -> None:
        """Let time pass up to and including *instant*."""
        while self.clock.now < instant:
            self.clock.now = min(instant, self._next_moment(instant))
            self.tick()

    def sleep_until(self, instant: datetime) -> None:
        """Let time pass without any scheduler or worker."""
        self.clock.now = instant
        self.tick()

    def tick(self) -> None:
        """Let everything happen that can happen now; workers have kept their leases alive all the time."""
        for each in self._under_way:
            self.ledger.runs.renew(each.fence)
        self._next_tick = self._pass()
        for _ in range(_MOST_PASSES):
            if not self._work():
                return
            self._next_tick = self._pass()
        raise AssertionError("the scheduler makes runs for ever")

    def _pass(self) -> datetime | None:
        return [scheduler.run_pass() for scheduler in self._schedulers][-1]

    def _next_moment(self, limit: datetime) -> datetime:
        moments = [each.until for each in self._under_way]
        moments += [run.wait_until for run in self.ledger.queue.waiting() if run.wait_until is not None]
        moments += [self._next_tick] if self._next_tick is not None else []
        later = [moment for moment in moments if moment > self.clock.now]
        return min(later, default=limit)

    def _work(self) -> bool:
        """End what is over and begin what can begin; tell whether anything was done."""
        ended = [each for each in self._under_way if each.until <= self.clock.now or self._is_to_stop(each)]
        for each in ended:
            self._under_way.remove(each)
            with suppress(EcmbatchError):
                self.ledger.runs.finish(
                    each.fence, RunStatus.STOPPED if self._is_to_stop(each) else each.ends, error=None
                )
        began = False
        while (claimed := self.ledger.queue.claim(Owner.this_process(), lambda run: None)) is not None:
            run, fence = claimed
            work = self.work(run.job_id, run.scheduled_for)
            self._freeze(run, fence)
            self._under_way.append(_UnderWay(run, fence, self.clock.now + work.takes, work.ends))
            began = True
        return bool(ended) or began

    def _is_to_stop(self, each: _UnderWay) -> bool:
        return self.ledger.runs.get(each.run.run_id).status is RunStatus.STOPPING

    def _freeze(self, run: RunRecord, fence: Fence, window: tuple[datetime, datetime] | None = None) -> None:
        if run.plan is not None:
            return
        mark = self.ledger.watermarks.latest(run.job_id, run.stream)
        self.ledger.runs.freeze(
            fence,
            started_at=self.clock.now,
            window=window or (mark.window_end if mark else None, self.clock.now),
            plan={},
            digest="",
            definition={},
            partitions_of_scan=[[0]],
            stage={},
        )

    def run_by_hand(self, job_id: str, *, window: tuple[datetime, datetime] | None = None) -> RunRecord:
        """Let a command run a job to its success."""
        job = read_job(job_id, self.root, self.root)
        options = LaunchOptions(window=window, ignore_dependencies=True)
        run, fence = launch(job.job, job.path, options, self.resources)
        self._freeze(run, fence, window)
        return self.ledger.runs.finish(fence, RunStatus.SUCCESS)

    def runs(self, job_id: str | None = None) -> list[RunRecord]:
        """Return all runs of a job, or of all, oldest first."""
        return list(reversed(self.ledger.runs.recent(job_id=job_id, limit=100_000)))

    def ticks(self, job_id: str, *, status: RunStatus | None = None) -> list[datetime]:
        """Return what the runs of a job were scheduled for, in the order in which they were made."""
        return [run.scheduled_for for run in self.runs(job_id) if status is None or run.status is status]
