"""What is asked of a backfill, what would come of it, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ecmbatch.engine.preview import shown
from ecmbatch.ledger.backfill_queries import BackfillRecord, BackfillState, NewBackfill
from ecmbatch.ledger.intervals import interval_of
from ecmbatch.ledger.records import RunRecord
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.intervals import (
    DEFAULT_SPLIT,
    BackfillIntervals,
    BackfillStatus,
    Interval,
    IntervalRange,
    OnFailure,
    Order,
    Reprocess,
    without,
)
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.scalars import Scalar, decode_scalar

BACKFILL_FORMAT = "ecmbatch.backfill/1"
PLAN_FORMAT = "ecmbatch.backfill_plan/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRequest:
    """What is to be loaded: the time from ``start`` to ``end``, without ``end``; both have a zone.

    ``split`` is a duration, ``schedule`` or ``none``. ``reprocess`` says what is loaded again: only what is
    ``missing``, what ``failed`` too, or ``all``.
    """

    start: datetime
    end: datetime
    params: Mapping[str, Scalar] = field(default_factory=dict)
    split: str = DEFAULT_SPLIT
    order: Order = "asc"
    concurrency: int = 1
    reprocess: Reprocess = "missing"
    on_failure: OnFailure = "stop"
    ignore_dependencies: bool = False

    @property
    def whole(self) -> Interval:
        """The range."""
        return Interval(self.start, self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillPlan:
    """What ``create`` with the same arguments would do."""

    job_id: str
    request: BackfillRequest
    intervals: BackfillIntervals
    loaded: int
    """Intervals that were loaded before, whole."""
    failed: int
    """Intervals that have failed and were not loaded since."""
    to_do: int
    continues: str | None
    """The backfill that would go on, ``None`` where a new one would begin."""
    overlapping: Sequence[BackfillRecord]
    under_way: Sequence[RunRecord]
    """Runs that load a part of the range now; the backfill waits for them there."""
    parameters: tuple[Mapping[str, Any], Mapping[str, Any]]
    """Of the first and of the last interval."""
    seconds: float | None
    """About how long it takes with enough workers, from ``earlier_runs`` of the job."""
    earlier_runs: int
    notes: Sequence[str]

    def document(self) -> dict[str, Any]:
        """Return the ``ecmbatch.backfill_plan/1`` document."""
        request, intervals = self.request, self.intervals
        first, last = self.parameters
        return {
            "format": PLAN_FORMAT,
            "job_id": self.job_id,
            "continues": self.continues,
            **_asked(request.whole, request.split, request),
            "intervals": {
                "total": intervals.count(),
                "to_do": self.to_do,
                "loaded": self.loaded,
                "failed": self.failed,
                "first": {**_window(intervals.first), "parameters": first},
                "last": {**_window(intervals.last), "parameters": last},
            },
            "conflicts": [
                {"backfill_id": each.backfill_id, "status": str(each.status), **_window(each.whole)}
                for each in self.overlapping
            ]
            + [
                {"run_id": run.run_id, "status": str(run.status), **_window(interval)}
                for run in self.under_way
                if (interval := interval_of(run)) is not None
            ],
            "estimate": {"seconds": self.seconds, "earlier_runs": self.earlier_runs},
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillView:
    """A backfill and how far it is, as it stood at one moment."""

    state: BackfillState
    intervals: BackfillIntervals
    counts: Mapping[str, int]
    """Intervals by what they are; together they are all."""
    failures: Sequence[RunRecord]
    """The latest runs that failed, newest first."""
    per_hour: float | None
    """Intervals an hour, of late; ``None`` where that is not known or nothing is under way."""

    @property
    def backfill(self) -> BackfillRecord:
        """The backfill itself."""
        return self.state.backfill

    @property
    def total(self) -> int:
        """How many intervals there are."""
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """How many intervals are still to be loaded."""
        return sum(self.counts[name] for name in ("running", "queued", "waiting", "pending"))

    @property
    def eta(self) -> datetime | None:
        """When it is through if it goes on as of late."""
        if not self.per_hour:
            return None
        try:
            return self.state.now + timedelta(hours=self.left / self.per_hour)
        except OverflowError:
            return None

    @property
    def exit_code(self) -> int:
        """What ``--here`` exits with: 0 all done, 1 something failed, 5 paused or cancelled."""
        codes = {BackfillStatus.FAILED: 1, BackfillStatus.PAUSED: 5, BackfillStatus.CANCELLED: 5}
        return codes.get(self.backfill.status, 0)

    @property
    def notes(self) -> list[str]:
        """What is worth knowing, one sentence each."""
        waiting = [
            f"run {run.run_id} waits: {'; '.join(run.waiting)}"
            for run in self.state.runs
            if run.status is RunStatus.WAITING and run.waiting
        ]
        others = [
            f"run {run.run_id}, which is {run.status}, loads a part of the range; its intervals wait for it"
            for run in self.state.others
        ]
        return waiting + others

    @property
    def ranges(self) -> list[tuple[IntervalRange | Interval, int]]:
        """Every part of the range with the number of its intervals, ascending; a plain interval is to be done."""
        known = [(each.interval, each) for each in self.state.ranges]
        open_ = [(each, each) for each in without(self.backfill.whole, [interval for interval, _ in known])]
        parts: list[tuple[Interval, IntervalRange | Interval]] = sorted(
            [*known, *open_], key=lambda part: part[0]
        )
        return [(part, self.intervals.count(interval)) for interval, part in parts]

    def document(self, *, with_ranges: bool = True) -> dict[str, Any]:
        """Return the ``ecmbatch.backfill/1`` document."""
        backfill = self.backfill
        document = {
            "format": BACKFILL_FORMAT,
            "backfill_id": backfill.backfill_id,
            "job_id": backfill.job_id,
            "job_version": backfill.job_version,
            "status": str(backfill.status),
            **_asked(backfill.whole, backfill.split, backfill),
            "parameters": {
                name: shown(decode_scalar(value)) for name, value in backfill.options["params"].items()
            },
            "created_at": rfc3339(backfill.created_at),
            "finished_at": rfc3339(backfill.finished_at) if backfill.finished_at else None,
            "intervals": {"total": self.total, **{name: self.counts[name] for name in self.counts}},
            "per_hour": round(self.per_hour, 1) if self.per_hour else None,
            "eta": rfc3339(self.eta) if self.eta else None,
            "runs": [
                {"run_id": run.run_id, "status": str(run.status), **_window(interval)}
                for run in self.state.runs
                if (interval := interval_of(run)) is not None
            ],
            "failures": [
                {"run_id": run.run_id, "status": str(run.status), **_window(interval), "error": run.error}
                for run in self.failures
                if (interval := interval_of(run)) is not None
            ],
            "notes": self.notes,
        }
        if with_ranges:
            document["ranges"] = [
                {
                    **_window(Interval(part.start, part.end)),
                    "status": str(part.status) if isinstance(part, IntervalRange) else "pending",
                    "intervals": number,
                }
                for part, number in self.ranges
            ]
        return document


def _window(interval: Interval) -> dict[str, str]:
    return {"start": rfc3339(interval.start), "end": rfc3339(interval.end)}


def _asked(whole: Interval, split: str, asked: BackfillRequest | NewBackfill) -> dict[str, Any]:
    return {
        "range": _window(whole),
        "split": split,
        "order": asked.order,
        "concurrency": asked.concurrency,
        "reprocess": asked.reprocess,
        "on_failure": asked.on_failure,
    }
