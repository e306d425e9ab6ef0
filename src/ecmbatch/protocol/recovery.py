"""What to do with unfinished work (protocol: Recovery Behavior).

*Resume from last checkpoint on failure. Skip completed partitions. Replay partial partitions from
checkpoint.*
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ecmbatch.protocol.checkpoint import PartitionStatus
from ecmbatch.protocol.run import ACTIVE, CONTINUED_BY_RUN, RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionProgress:
    """How far a partition came: *offset* source rows are checkpointed."""

    partition: int
    scan: int
    status: PartitionStatus
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemainingWork:
    """What an attempt finds: the scans to read, and how its partitions begin."""

    scans: tuple[int, ...]
    skipped: tuple[int, ...]
    resumed: tuple[int, ...]
    fresh: tuple[int, ...]


def remaining_work(partitions: Iterable[PartitionProgress]) -> RemainingWork:
    """Skip what is completed, continue what is partial, start the rest; in ascending order."""
    skipped: list[int] = []
    resumed: list[int] = []
    fresh: list[int] = []
    scans: set[int] = set()
    for progress in sorted(partitions, key=lambda each: each.partition):
        if progress.status is PartitionStatus.COMPLETED:
            skipped.append(progress.partition)
            continue
        scans.add(progress.scan)
        (resumed if progress.offset else fresh).append(progress.partition)
    return RemainingWork(
        scans=tuple(sorted(scans)), skipped=tuple(skipped), resumed=tuple(resumed), fresh=tuple(fresh)
    )


class Launch(StrEnum):
    """What ``run JOB`` does about the job's latest run."""

    START = "start"
    CONTINUE = "continue"
    REPLACE = "replace"
    """Abandon the unfinished run, then start anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchDecision:
    """The decision and the sentence that tells the user."""

    launch: Launch
    reason: str


def decide_launch(
    latest: RunStatus | None, *, same_definition: bool, fresh: bool, changes: Iterable[str] = ()
) -> LaunchDecision:
    """Decide whether ``run`` continues the latest run of the job's stream or starts a new one.

    Whether that run is alive is checked before: a live run is never continued by a second process.
    """
    if latest is None:
        return LaunchDecision(launch=Launch.START, reason="the first run of this job")
    if latest not in CONTINUED_BY_RUN:
        if fresh and latest is RunStatus.VALIDATION_FAILED:
            return LaunchDecision(launch=Launch.REPLACE, reason="starting anew on request (--fresh)")
        return LaunchDecision(launch=Launch.START, reason=f"a new run; the one before ended as {latest}")
    if fresh:
        return LaunchDecision(launch=Launch.REPLACE, reason="starting anew on request (--fresh)")
    if not same_definition:
        what = "; ".join(changes) or "the job's definition changed"
        return LaunchDecision(launch=Launch.REPLACE, reason=f"starting anew because {what}")
    crashed = "crashed" if latest in ACTIVE else str(latest)
    return LaunchDecision(launch=Launch.CONTINUE, reason=f"continuing the run that {_ended(crashed)}")


def _ended(status: str) -> str:
    return {"stopped": "was stopped", "queued": "never started"}.get(status, status)
