"""Named places where a test may end the process.

In production the hook is never set and a crash point costs one comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

CrashPoint = Literal[
    "run.claimed",
    "run.frozen",
    "stage.reference",
    "run.references",
    "scan.claimed",
    "scan.leftovers",
    "stage.opened",
    "stage.written",
    "stage.sealed",
    "checkpoint.before",
    "checkpoint.after",
    "scan.completed",
    "verdict.before",
    "verdict.recorded",
    "alert.delivered",
    "publish.before",
    "publish.marker",
    "publish.head",
    "publish.fold",
    "publish.apply",
    "publish.before_commit",
    "publish.after_commit",
    "publish.after",
    "finish.before",
    "finish.after",
    "abandon.tombstone",
    "gc.abandoned",
    "gc.stage",
    "gc.history",
    "gc.run",
]
"""Every instant between two durable effects, in the order of a run; then those of giving up and tidying up."""

_hook: Callable[[CrashPoint], None] | None = None


def crash_point(name: CrashPoint) -> None:
    """Mark an instant between two durable effects; a test decides what happens here."""
    if _hook is not None:
        _hook(name)


def set_hook(hook: Callable[[CrashPoint], None] | None) -> None:
    """Install what runs at every crash point of this process; ``None`` removes it."""
    global _hook
    _hook = hook
