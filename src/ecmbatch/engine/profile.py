"""Where the time of an attempt goes, and what bounds it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from ecmbatch.connectors.connector import ScannedBatch

Phase = Literal["plan", "scan", "verdict", "publish"]
"""What happens one after the other; their times add up to that of the attempt."""

Work = Literal["read", "split", "transform", "observe", "wait", "stage", "checkpoint"]
"""What happens inside the scans, in several threads: ``wait`` is a reader that the stage cannot keep up with."""

PHASES: tuple[Phase, ...] = ("plan", "scan", "verdict", "publish")
WORK: tuple[Work, ...] = ("read", "split", "transform", "observe", "wait", "stage", "checkpoint")

_OF_READERS: tuple[Work, ...] = ("read", "split", "transform", "observe")

_BEHIND = 0.2
"""The share of a reader's time, spent on waiting, from which on staging is what bounds it."""

_ADVICE: Mapping[str, str] = {
    "plan": "planning: start-up and looking at source and store; more rows per run make it matter less",
    "read": "reading the source: a faster source, fewer columns, or more scans",
    "split": "dealing rows out to partitions: fewer partitions",
    "transform": "the transformation: Arrow functions instead of rows of Python, or more scans and workers",
    "observe": "the validation rules",
    "stage": "staging: a faster disk for the stage, or fewer columns",
    "verdict": "the verdict",
    "publish": "publishing into the store",
}


class Profile:
    """Seconds by phase and kind of work, collected by all threads of one attempt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = 0
        self._seconds: dict[str, float] = dict.fromkeys((*PHASES, *WORK), 0.0)

    @contextmanager
    def timed(self, what: Phase | Work) -> Iterator[None]:
        """Count the time until the context is left as *what*."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._add(what, time.perf_counter() - started)

    def reading(self, batches: Iterator[ScannedBatch]) -> Iterator[ScannedBatch]:
        """Yield *batches*; the time they take to come is that of reading."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self._add("read", time.perf_counter() - started)
            if batch is None:
                return
            with self._lock:
                self._rows += batch.batch.num_rows
            yield batch

    def figures(self) -> Mapping[str, Any]:
        """Return what was collected, as JSON for the :meth:`add` of another profile."""
        with self._lock:
            return {"rows": self._rows, "seconds": dict(self._seconds)}

    def add(self, figures: Mapping[str, Any]) -> None:
        """Count what another process collected as well."""
        with self._lock:
            self._rows += figures["rows"]
            for what, seconds in figures["seconds"].items():
                self._seconds[what] += seconds

    @property
    def bound_by(self) -> str | None:
        """What took most of the time; ``None`` before anything was done."""
        seconds = self._seconds
        phase = max(PHASES, key=lambda each: seconds[each])
        if not seconds[phase]:
            return None
        if phase != "scan":
            return phase
        busy = sum(seconds[work] for work in _OF_READERS)
        if seconds["wait"] > _BEHIND * (busy + seconds["wait"]):
            return "stage"
        return max(_OF_READERS, key=lambda each: seconds[each])

    def document(self) -> dict[str, Any]:
        """Return the ``profile`` of the run document: seconds, and the rows that this attempt read."""
        seconds = {name: round(value, 3) for name, value in self._seconds.items()}
        total = sum(self._seconds[phase] for phase in PHASES)
        scanning = self._seconds["scan"]
        return {
            "seconds": round(total, 3),
            "phases": {phase: seconds[phase] for phase in PHASES},
            "work": {work: seconds[work] for work in WORK},
            "rows": self._rows,
            "rows_per_second": round(self._rows / scanning) if scanning else None,
            "bound_by": self.bound_by,
            "advice": _ADVICE.get(self.bound_by or ""),
        }

    def _add(self, what: str, seconds: float) -> None:
        with self._lock:
            self._seconds[what] += seconds
