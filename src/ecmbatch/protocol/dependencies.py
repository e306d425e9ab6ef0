"""Whether other jobs have run as required (protocol: Dependency Management).

T, the instant a dependency is judged for, is the run's ``scheduled_for`` (cron), its creation (manual, event)
or the end of its interval (backfill). Freshness is always ``as_of``, what a run's data cover, never when it
finished: a backfill of last year that finished today is not fresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ecmbatch.protocol.job import Dependency
from ecmbatch.protocol.run import RunStatus

_OUTCOMES = {
    "success": frozenset({RunStatus.SUCCESS}),
    "failed": frozenset({RunStatus.FAILED, RunStatus.VALIDATION_FAILED}),
    "finished": frozenset({RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.VALIDATION_FAILED}),
}
_WORDS = {"success": "succeeded", "failed": "failed", "finished": "finished"}
_UNDECIDED = frozenset(
    {RunStatus.QUEUED, RunStatus.WAITING, RunStatus.IN_PROGRESS, RunStatus.STOPPING, RunStatus.HELD}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRun:
    """What a dependency needs to know of a run of the other job. Times are aware.

    ``live`` is false for backfills; ``as_of`` is the end of the run's window, ``None`` before it is fixed.
    """

    run_id: str
    status: RunStatus
    live: bool
    scheduled_for: datetime
    as_of: datetime | None = None


def unmet(
    dependency: Dependency, upstream_runs: Iterable[UpstreamRun], *, at: datetime, backfill: bool = False
) -> str | None:
    """Return why *dependency* is not met at *at* (T), in words for people; ``None`` if it is met.

    *upstream_runs* are all runs of the other job that are known, in any order. A dependency with neither
    ``window`` nor ``status`` asks for success; an optional one is met while the other job has never run.
    """
    runs = tuple(upstream_runs)
    if dependency.optional and not runs:
        return None
    reasons = [
        _not_fresh(dependency, runs, at, backfill),
        _not_ended_as_required(dependency, runs, at, backfill),
    ]
    return " and ".join(reason for reason in reasons if reason) or None


def _not_fresh(
    dependency: Dependency, runs: Sequence[UpstreamRun], at: datetime, backfill: bool
) -> str | None:
    if dependency.window is None:
        return None
    bound = _before(at, dependency.window)
    covered = [
        run.as_of
        for run in runs
        if run.status == RunStatus.SUCCESS and run.as_of is not None and not (backfill and run.as_of > at)
    ]
    newest = max(covered, default=None)
    if newest is not None and newest > bound:
        return None
    until = f" and at most {_moment(at)}" if backfill else ""
    needs = f"needs {dependency.job} as of > {_moment(bound)}{until}"
    if newest is None:
        return f"{needs}; {'no successful run covers that' if runs else 'it has never run'}"
    short = f"short by {_length(bound - newest)}" if newest < bound else "which is not later"
    return f"{needs}; newest is {_moment(newest)}, {short}"


def _not_ended_as_required(
    dependency: Dependency, runs: Sequence[UpstreamRun], at: datetime, backfill: bool
) -> str | None:
    outcome = dependency.required_status
    if outcome is None:
        return None
    needs = f"needs {dependency.job} to have {_WORDS[outcome]}"
    deciding = _newest_covering(runs, at) if backfill else _newest_live(runs, at)
    if deciding is None:
        never = f"it has no run as of at most {_moment(at)}" if backfill else "it has never run"
        return f"{needs}; {never}"
    if deciding.status in _OUTCOMES[outcome]:
        return None
    state = "is" if deciding.status in _UNDECIDED else "ended as"
    word = deciding.status.value.replace("_", " ")
    return f"{needs}; its run of {_moment(deciding.scheduled_for)} ({deciding.run_id}) {state} {word}"


def _newest_live(runs: Iterable[UpstreamRun], at: datetime) -> UpstreamRun | None:
    """Return the run that decides: a tick up to T that is still open, else the newest of all."""
    live = sorted((run for run in runs if run.live), key=lambda run: run.scheduled_for)
    open_ticks = [run for run in live if run.scheduled_for <= at and run.status in _UNDECIDED]
    return (open_ticks or live)[-1] if live else None


def _newest_covering(runs: Iterable[UpstreamRun], at: datetime) -> UpstreamRun | None:
    """Return the run with the greatest ``as_of`` up to T; of equals the one scheduled last."""
    covering = [(run.as_of, run.scheduled_for, run) for run in runs if run.as_of and run.as_of <= at]
    return max(covering, key=lambda found: found[:2])[2] if covering else None


def _before(at: datetime, window: timedelta) -> datetime:
    try:
        return at - window
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _moment(time: datetime) -> str:
    utc = time.astimezone(UTC)
    return utc.strftime("%Y-%m-%d %H:%M:%S" if utc.second else "%Y-%m-%d %H:%M")


def _length(duration: timedelta) -> str:
    """Say *duration* by its two longest units: people ask "hours or days?", not for the microseconds."""
    rest = max(int(duration.total_seconds()), 1)
    words = []
    for seconds, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, seconds)
        if count:
            words.append(f"{count} {unit}")
    return " ".join(words[:2])
