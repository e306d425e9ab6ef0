"""Runs and their states.

A *run* is one logical execution of a job; it keeps its id through every *attempt* at it. What may follow
what is decided here, by plain values; the ledger refuses everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    WAITING = "waiting"
    IN_PROGRESS = "in_progress"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"
    VALIDATION_FAILED = "validation_failed"
    HELD = "held"
    ABANDONED = "abandoned"
    SKIPPED = "skipped"


FINAL = frozenset({RunStatus.SUCCESS, RunStatus.ABANDONED, RunStatus.SKIPPED})
"""Nothing follows these."""

ACTIVE = frozenset({RunStatus.IN_PROGRESS, RunStatus.STOPPING})
"""An attempt is under way, or its worker died without a word."""

UNFINISHED = ACTIVE | {RunStatus.QUEUED, RunStatus.WAITING}
"""It is under way or will be, and nobody needs to decide anything."""

CONTINUED_BY_RUN = frozenset(
    {RunStatus.QUEUED, RunStatus.IN_PROGRESS, RunStatus.STOPPING, RunStatus.STOPPED, RunStatus.FAILED}
)
"""``run`` goes on with these; ``validation_failed`` and ``held`` runs wait for a person's decision."""

_NEXT: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset(
        {
            RunStatus.IN_PROGRESS,
            RunStatus.WAITING,
            RunStatus.STOPPED,
            RunStatus.SUCCESS,  # released after it was published, and its marker found by `abandon`
            RunStatus.SKIPPED,
            RunStatus.ABANDONED,
        }
    ),
    RunStatus.WAITING: frozenset(
        {
            RunStatus.QUEUED,
            RunStatus.IN_PROGRESS,
            RunStatus.STOPPED,
            RunStatus.SKIPPED,
            RunStatus.ABANDONED,
        }
    ),
    RunStatus.IN_PROGRESS: frozenset(
        {
            RunStatus.IN_PROGRESS,  # taken over after its worker died
            RunStatus.QUEUED,  # released by a worker that shuts down
            RunStatus.STOPPING,
            RunStatus.STOPPED,
            RunStatus.SUCCESS,
            RunStatus.FAILED,
            RunStatus.VALIDATION_FAILED,
            RunStatus.ABANDONED,
            RunStatus.SKIPPED,  # refused before it had a plan
        }
    ),
    RunStatus.STOPPING: frozenset(
        {
            RunStatus.IN_PROGRESS,
            RunStatus.STOPPED,
            RunStatus.SUCCESS,  # the request came when everything was published
            RunStatus.FAILED,
            RunStatus.VALIDATION_FAILED,
            RunStatus.ABANDONED,
            RunStatus.SKIPPED,
        }
    ),
    RunStatus.STOPPED: frozenset(
        {
            RunStatus.IN_PROGRESS,
            RunStatus.QUEUED,  # its backfill goes on
            RunStatus.WAITING,  # it does, and waits for its dependencies
            RunStatus.ABANDONED,
            RunStatus.SUCCESS,
        }
    ),
    RunStatus.FAILED: frozenset(
        {
            RunStatus.IN_PROGRESS,
            RunStatus.QUEUED,  # its backfill tries it again
            RunStatus.WAITING,  # it does, and waits for its dependencies
            RunStatus.STOPPED,
            RunStatus.ABANDONED,
            RunStatus.SUCCESS,
        }
    ),
    RunStatus.VALIDATION_FAILED: frozenset({RunStatus.IN_PROGRESS, RunStatus.ABANDONED, RunStatus.SUCCESS}),
    RunStatus.HELD: frozenset({RunStatus.IN_PROGRESS, RunStatus.ABANDONED}),
    RunStatus.SUCCESS: frozenset(),
    RunStatus.ABANDONED: frozenset(),
    RunStatus.SKIPPED: frozenset(),
}


def may_follow(status: RunStatus, following: RunStatus) -> bool:
    """Tell whether a run in *status* may become *following*."""
    return following in _NEXT[status]
