"""Crashing on purpose: at every instant between two durable effects, by exception or by ``kill -9``."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

from ecmbatch.crash_points import CrashPoint, set_hook

CRASH_POINTS: tuple[CrashPoint, ...] = get_args(CrashPoint)
"""All crash points, in the order of a run."""


class SimulatedCrash(BaseException):
    """Ends an attempt like a crash: nothing that handles errors sees it."""


@contextmanager
def crash_at(point: CrashPoint, *, occurrence: int = 1) -> Iterator[None]:
    """Raise :class:`SimulatedCrash` when *point* is passed for the *occurrence*-th time inside the block."""

    def crash() -> None:
        raise SimulatedCrash(point)

    set_hook(_Countdown(point, occurrence, crash))
    try:
        yield
    finally:
        set_hook(None)


def kill_at(point: CrashPoint, *, occurrence: int = 1) -> None:
    """Let this process die by SIGKILL when *point* is passed for the *occurrence*-th time."""
    set_hook(_Countdown(point, occurrence, lambda: os.kill(os.getpid(), signal.SIGKILL)))


class _Countdown:
    def __init__(self, point: CrashPoint, occurrence: int, effect: Callable[[], None]) -> None:
        self._point = point
        self._left = occurrence
        self._effect = effect
        self._lock = threading.Lock()

    def __call__(self, name: CrashPoint) -> None:
        if name != self._point:
            return
        with self._lock:
            self._left -= 1
            reached = self._left == 0
        if reached:
            self._effect()
