"""Whether other jobs have run as required (protocol: Dependency Management).

T, the instant a dependency is judged for, is the run's ``scheduled_for`` (cron), its creation (manual, event)
or the end of its interval (backfill). Freshness is always ``as_of``, what a run's data cover, never when it
finished: a backfill of last year that finished today is not fresh.

``window`` is met by any successful run of the other job, live or backfill, with ``as_of`` > T - window; for a
backfill also ``as_of`` <= T. What else the other job does is of no matter.

``status`` asks one run, and never an older one in its place. For a live run, the first of these that is there:

1. the newest live run up to T that is not over: it is waited for;
2. a tick up to T of the other job that has no run yet, unless a live run after it is over: it is waited for;
3. the newest live run that is over, also one after T: a repair counts. A run after T that is not over does not:
   whoever runs all the time would never be met.

For a backfill it is the run with the greatest ``as_of`` <= T, live or not; of equals the one scheduled last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ecmbatch.protocol.dependency_declaration import AllGroup, AnyGroup, Dependency, DependencyRule
from ecmbatch.protocol.run import RunStatus

OUTCOMES = {
    "success": frozenset({RunStatus.SUCCESS}),
    "failed": frozenset({RunStatus.FAILED, RunStatus.VALIDATION_FAILED}),
    "finished": frozenset({RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.VALIDATION_FAILED}),
}
"""The ends of a run that each required outcome accepts."""

UNDECIDED = frozenset(
    {RunStatus.QUEUED, RunStatus.WAITING, RunStatus.IN_PROGRESS, RunStatus.STOPPING, RunStatus.HELD}
)
"""How the run ends is not known yet."""

_ASKED = {"success": "succeeded", "failed": "failed", "finished": "finished"}
_SPOKEN = {
    RunStatus.QUEUED: "is queued",
    RunStatus.WAITING: "waits for its own dependencies",
    RunStatus.IN_PROGRESS: "is in progress",
    RunStatus.STOPPING: "is stopping",
    RunStatus.STOPPED: "was stopped",
    RunStatus.SUCCESS: "succeeded",
    RunStatus.FAILED: "failed",
    RunStatus.VALIDATION_FAILED: "failed its validation",
    RunStatus.HELD: "is held",
    RunStatus.ABANDONED: "was abandoned",
    RunStatus.SKIPPED: "was skipped: its own dependencies were not met in time",
}
_GIVEN_UP = frozenset({RunStatus.ABANDONED, RunStatus.SKIPPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRun:
    """What a dependency needs to know of a run of the other job. Times are aware.

    ``number`` orders runs by their creation, ``live`` is false for backfills; ``as_of`` is the end of the run's
    window, ``None`` before it is fixed. A skipped run stands for a tick that waited for dependencies in vain.
    """

    run_id: str
    number: int
    status: RunStatus
    live: bool
    scheduled_for: datetime
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """What is known of another job.

    ``runs``, in any order, are all of its runs, or those that decide. ``pending_tick`` is the latest tick up to T
    for which a scheduler will still make a run. ``loaded_up_to`` is up to where, at most T, its data are loaded
    although no success among ``runs`` says so: runs are forgotten, what they have loaded is not.
    """

    runs: Sequence[UpstreamRun] = ()
    pending_tick: datetime | None = None
    paused: bool = False
    loaded_up_to: datetime | None = None

    @property
    def has_run(self) -> bool:
        """Whether it ever ran, runs or is about to."""
        return self.pending_tick is not None or any(run.status != RunStatus.SKIPPED for run in self.runs)


def unmet(
    rule: DependencyRule, upstreams: Mapping[str, Upstream], *, at: datetime, backfill: bool = False
) -> str | None:
    """Return why *rule* is not met at *at* (T), in words for people; ``None`` if it is met.

    *upstreams* has every job that the rule names. Where only a person can help, the reason says ``blocked`` and
    what to do.
    """
    match rule:
        case AnyGroup():
            reasons = [unmet(each, upstreams, at=at, backfill=backfill) for each in rule.any]
            missing = [reason for reason in reasons if reason]
            return _alternatives(missing) if len(missing) == len(reasons) else None
        case AllGroup():
            reasons = [unmet(each, upstreams, at=at, backfill=backfill) for each in rule.all]
            return " and ".join(reason for reason in reasons if reason) or None
        case Dependency():
            return _Question(rule, upstreams[rule.job], at, backfill).unmet()


def _alternatives(reasons: Sequence[str]) -> str:
    if len(reasons) == 1:
        return reasons[0]
    listed = ", or ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, start=1))
    return f"needs one of {len(reasons)}: {listed}"


@dataclass(frozen=True, slots=True)
class _Question:
    """A dependency, asked of the other job at one instant."""

    dependency: Dependency
    upstream: Upstream
    at: datetime
    backfill: bool

    def unmet(self) -> str | None:
        if self.dependency.optional and not self.upstream.has_run:
            return None
        not_fresh, not_ended = self._not_fresh(), self._not_ended_as_required()
        if not_fresh and not_ended is None:
            not_fresh += self._why_nothing_newer()
        return " and ".join(reason for reason in (not_fresh, not_ended) if reason) or None

    def _not_fresh(self) -> str | None:
        window = self.dependency.window
        if window is None:
            return None
        bound, newest = _before(self.at, window), self._newest_as_of()
        if newest is not None and newest > bound:
            return None
        until = f" and at most {_moment(self.at)}" if self.backfill else ""
        needs = f"needs {self.dependency.job} as of > {_moment(bound)}{until}"
        if newest is None:
            never = "no successful run covers that" if self.upstream.runs else "it has never run"
            return f"{needs}; {self._forgotten() or never}"
        short = f"short by {_length(bound - newest)}" if newest < bound else "which is not later"
        return f"{needs}; newest is {_moment(newest)}, {short}"

    def _newest_as_of(self) -> datetime | None:
        covered = (run.as_of for run in self.upstream.runs if run.status == RunStatus.SUCCESS)
        return max((end for end in covered if end and not (self.backfill and end > self.at)), default=None)

    def _not_ended_as_required(self) -> str | None:
        outcome = self.dependency.required_status
        if outcome is None:
            return None
        deciding = self._deciding()
        if isinstance(deciding, UpstreamRun) and deciding.status in OUTCOMES[outcome]:
            return None
        return f"needs {self.dependency.job} to have {_ASKED[outcome]}; {self._what_it_does(deciding)}"

    def _why_nothing_newer(self) -> str:
        if self.backfill:
            return ""
        deciding = self._deciding()
        if isinstance(deciding, UpstreamRun) and deciding.status == RunStatus.SUCCESS:
            deciding = None
        if deciding is None and self._following() is None:
            return "; it is paused" if self.upstream.paused else ""
        return f"; {self._what_it_does(deciding)}"

    def _deciding(self) -> UpstreamRun | datetime | None:
        """Return what decides about the status: a run, or a tick that has no run yet."""
        runs, tick = self.upstream.runs, self.upstream.pending_tick
        if self.backfill:
            covering = (run for run in runs if run.as_of is not None and run.as_of <= self.at)
            return max(covering, key=_by_as_of, default=None)
        awaited = _newest(run for run in runs if _is_open(run) and run.scheduled_for <= self.at)
        if awaited is not None:
            return awaited
        over = _newest(run for run in runs if run.live and not _is_open(run))
        return tick if tick is not None and (over is None or over.scheduled_for < tick) else over

    def _following(self) -> UpstreamRun | None:
        """Return the newest live run that is not over, also one after T."""
        return _newest(filter(_is_open, self.upstream.runs))

    def _what_it_does(self, deciding: UpstreamRun | datetime | None) -> str:
        """Say what stands against the dependency, and whether it will pass or a person has to help."""
        following = None if self.backfill else self._following()
        deciding = deciding or following
        if isinstance(deciding, datetime):
            return f"no scheduler has made its run of {_moment(deciding)} yet"
        if deciding is None:
            never = f"it has no run as of at most {_moment(self.at)}" if self.backfill else "it has never run"
            return f"{never}; it is paused" if self.upstream.paused else self._forgotten() or never
        said = f"its run of {_name(deciding)} {_SPOKEN[deciding.status]}"
        if deciding.status in UNDECIDED - {RunStatus.HELD} or deciding.status == RunStatus.SUCCESS:
            return said
        if following is not None and following != deciding:
            return f"{said}, and that of {_name(following)} {_SPOKEN[following.status]}"
        return f"blocked: {said}; {self._way_out(deciding)}"

    def _forgotten(self) -> str | None:
        """Say where its data are loaded and no run is there any more to tell how it ended."""
        until = self.upstream.loaded_up_to
        if until is None:
            return None
        return (
            f"blocked: it is loaded up to {_moment(until)}, but no successful run as of then is remembered (see "
            "[retention] runs); make the backfill with --ignore-dependencies"
        )

    def _way_out(self, run: UpstreamRun) -> str:
        if run.status not in _GIVEN_UP:
            return f"go on with it: ecmbatch resume {run.run_id}"
        return f"run it again: ecmbatch run {self.dependency.job}" if run.live else "run it again"


def _is_open(run: UpstreamRun) -> bool:
    """Tell whether it is a live run that is not over."""
    return run.live and run.status in UNDECIDED


def _newest(runs: Iterable[UpstreamRun]) -> UpstreamRun | None:
    return max(runs, key=lambda run: (run.scheduled_for, run.number), default=None)


def _by_as_of(run: UpstreamRun) -> tuple[datetime, datetime, int]:
    assert run.as_of is not None
    return run.as_of, run.scheduled_for, run.number


def _before(at: datetime, window: timedelta) -> datetime:
    try:
        return at - window
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _name(run: UpstreamRun) -> str:
    return f"{_moment(run.scheduled_for)} ({run.run_id})"


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
