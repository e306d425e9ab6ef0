"""What cannot be backfilled, and why: refused before anything is begun."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ecmbatch.engine.scheduling.backfill_views import BackfillRequest
from ecmbatch.errors import ConflictError, UsageError
from ecmbatch.protocol import query as sql
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.intervals import (
    BackfillIntervals,
    IntervalStatus,
    Ranges,
    checked_split,
    united,
    without,
)
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.parameters import unknown_params

_BOUNDS = frozenset({"previous_job.end_time", "window.start", "window.end"})
"""What ``${…}`` has another value for in each interval."""
_BOUNDED = "write updated_at >= :window_start AND updated_at < :window_end in the query"


def checked(
    job: JobDefinition, request: BackfillRequest, now: datetime
) -> tuple[BackfillRequest, BackfillIntervals]:
    """Return *request* in its plainest form and its intervals; raise ``UsageError`` for what cannot be filled."""
    unknown = unknown_params(job.references, request.params)
    if unknown:
        raise UsageError(str(unknown[0]), problems=unknown)
    if request.start >= request.end:
        raise UsageError("the range of a backfill must begin before it ends: --from is not before --to")
    if request.end > now:
        raise UsageError(
            f"the range ends in the future, at {rfc3339(request.end)}; it is {rfc3339(now)} now",
            hint="an interval that is not over would count as loaded before all of its rows are there",
        )
    if request.concurrency < 1:
        raise UsageError("--concurrency must be at least 1")
    request = replace(request, split=checked_split(request.split))
    intervals = BackfillIntervals.of(request.whole, request.split, job.schedule)
    _refuse_unbounded(job)
    if intervals.count() > 1:
        _refuse_several(job, intervals)
    return request, intervals


def _refuse_unbounded(job: JobDefinition) -> None:
    if not (job.references & _BOUNDS or set(job.placeholders) & set(sql.WINDOW_NAMES)):
        raise UsageError(
            f"job {job.job_id} reads the same in every interval: nothing in it depends on the window",
            hint=_BOUNDED,
        )


def _refuse_several(job: JobDefinition, intervals: BackfillIntervals) -> None:
    number = intervals.count()
    if job.mode == "replace":
        raise UsageError(
            f"job {job.job_id} replaces its whole table: each of {number:,} intervals would erase the others",
            hint="use upsert, or fill the range as one interval: --split none",
        )
    has_upper = "window_end" in job.placeholders or "window.end" in job.references
    # A path with the window in it names the files of an interval; a query needs both of its ends.
    if job.source.query is not None and not has_upper:
        raise UsageError(
            f"the query of job {job.job_id} has no upper bound: each of {number:,} intervals would read "
            "everything up to now",
            hint=f"{_BOUNDED}, or fill the range as one interval: --split none",
        )


def refuse_torn_intervals(intervals: BackfillIntervals, done: Ranges) -> None:
    """To append an interval of which a part is loaded would add the rows of that part twice."""
    for loaded in united(each.interval for each in done if each.status is IntervalStatus.LOADED):
        touched = intervals.around(loaded)
        if touched is None:
            continue
        inside = intervals.inside(loaded)
        torn = next(without(touched, [inside] if inside else []), None)
        if torn is not None:
            raise ConflictError(
                f"a part of the interval that begins at {rfc3339(torn.start)} is loaded: "
                f"{rfc3339(loaded.start)} to {rfc3339(loaded.end)}; append would add its rows twice",
                hint="choose --from, --to and --split so that intervals are loaded whole or not at all",
            )
