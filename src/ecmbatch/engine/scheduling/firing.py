"""Turning ticks and events into runs (protocol: Schedule Types).

Decisions are functions of what the ledger holds at one moment; the ledger carries them out in the transaction
that it held them in. When a scheduler looks changes when a run is made, never which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from ecmbatch.engine.launching import DEFAULT_STREAM, new_run_id, wait_limit
from ecmbatch.ledger.queue import Firing, Moment, QueuedRun
from ecmbatch.ledger.records import Document, EventRecord, NewRun
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.event_matching import EventTrigger, firings
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import ACTIVE, RunStatus
from ecmbatch.protocol.schedule import SchedulePolicy, policy_of
from ecmbatch.protocol.ticks import Ticks

ON_TIME = timedelta(minutes=5)
"""A tick that is noticed within this time is not a missed one: schedulers look every few seconds."""

_MOST_AT_ONCE = 500
"""Ticks made up for in one transaction; the rest follows with the next pass."""


def fire_ticks(job: JobDefinition, ticks: Ticks, moment: Moment) -> Firing | None:
    """Decide what becomes of the ticks since the job's cursor; ``None`` where there are none."""
    policy = policy_of(job.schedule)
    due = _due_ticks(ticks, policy, moment.job.cursor, moment.now)
    if due is None:
        return None
    making = _Making(job, policy, moment)
    for tick in due.fired:
        facts = {"ticks": {"first": rfc3339(due.first), "last": rfc3339(tick)}}
        making.add(f"cron:{rfc3339(tick)}", "cron", tick, facts)
    return replace(making.firing(), cursor=due.cursor)


def fire_events(job: JobDefinition, trigger: EventTrigger, moment: Moment) -> Firing | None:
    """Decide what becomes of the events that the job has not consumed; ``None`` where nothing does yet."""
    found = firings(trigger, moment.events, moment.consumed, moment.now)
    if not found:
        return None
    making = _Making(job, policy_of(job.schedule), moment)
    for each in found:
        events = [event_document(event) for event in each.events]
        making.add(f"event:{each.up_to}", trigger.kind, moment.now, {"events": events})
    return replace(making.firing(), consumed=found[-1].up_to)


def event_document(event: EventRecord) -> dict[str, Any]:
    """Return what ``${trigger.events}`` tells of an event."""
    told = {"sequence": event.sequence, "at": rfc3339(event.at)}
    if event.name is not None:
        return {**told, "event": event.name, "id": (event.event_key or ":").partition(":")[2] or None}
    return {**told, "job": event.job_id, "status": str(event.status), "run_id": event.run_id}


@dataclass(frozen=True, slots=True)
class _Due:
    """Ticks that make runs, oldest first; ``first`` is the oldest tick that they stand for."""

    first: datetime
    fired: Sequence[datetime]
    cursor: datetime


def _due_ticks(ticks: Ticks, policy: SchedulePolicy, cursor: datetime, now: datetime) -> _Due | None:
    # Where the clock was set back there is nothing between the cursor and now: nothing fires twice.
    latest = ticks.latest(after=cursor, until=now) if now > cursor else None
    if latest is None:
        return None
    first = next(iter(ticks.after(cursor)))
    match policy.catch_up:
        case "all":
            some = list(islice(ticks.between(cursor, now), _MOST_AT_ONCE))
            return _Due(first, some, some[-1])
        case "merge":
            return _Due(first, [latest], latest)
        case "latest":
            return _Due(latest, [latest], latest)
        case "none":
            return _Due(latest, [latest] if now - latest <= ON_TIME else [], latest)


@dataclass
class _Making:
    """Makes the runs of one firing, each aware of those before it."""

    job: JobDefinition
    policy: SchedulePolicy
    moment: Moment
    new: list[tuple[NewRun, RunStatus]] = field(default_factory=list)
    skipped: list[tuple[NewRun, Document]] = field(default_factory=list)
    merged: dict[str, Document] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)

    def firing(self) -> Firing:
        return Firing(new=self.new, skipped=self.skipped, merged=self.merged, stopped=self.stopped)

    def add(self, key: str, trigger: str, scheduled_for: datetime, facts: Mapping[str, Any]) -> None:
        """Make a run for what has fired, or do with it what the job's overlap policy says."""
        run = self._run(key, trigger, scheduled_for, facts)
        status = RunStatus.WAITING if self.job.dependencies else RunStatus.QUEUED
        overlap = self._overlap()
        if overlap == "skip" and self._before():
            reason = "the run before it was not over, and overlap is skip"
            self.skipped.append((run, {"code": "overlap", "message": reason}))
            return
        if overlap in ("queue_one", "replace") and self._merge_into_next(facts):
            return
        if overlap == "replace":
            self.stopped += [each.run_id for each in self._under_way()]
        self.new.append((run, status))

    def _overlap(self) -> str:
        """To make up for every tick and to merge them at once would contradict each other."""
        if self.policy.catch_up == "all" and self.policy.overlap == "queue_one":
            return "queue_all"
        return self.policy.overlap

    def _merge_into_next(self, facts: Mapping[str, Any]) -> bool:
        """Let the run that is to start next stand for this too, if there is one."""
        if self.new:
            run, status = self.new[-1]
            self.new[-1] = (replace(run, options=_with_facts(run.options, facts)), status)
            return True
        unstarted = [run for run in self.moment.unfinished if self._is_next(run)]
        if not unstarted:
            return False
        run_id = unstarted[-1].run_id
        self.merged[run_id] = _with_facts(self.merged.get(run_id, unstarted[-1].options), facts)
        return True

    def _is_next(self, run: QueuedRun) -> bool:
        """A run that began has fixed what it reads, one of an earlier version means another job, and one whose
        patience is over is about to be skipped."""
        return (
            run.attempt == 0
            and run.job_version == self.moment.job.version
            and not (
                run.wait_until is not None
                and run.status is RunStatus.WAITING
                and run.wait_until <= self.moment.now
            )
        )

    def _before(self) -> bool:
        return bool(self.moment.unfinished or self.new)

    def _under_way(self) -> list[QueuedRun]:
        """Return the runs that were started and are not over; those that stop already are left to it."""
        return [
            run
            for run in self.moment.unfinished
            if run.status in ACTIVE - {RunStatus.STOPPING}
            or (run.status is RunStatus.QUEUED and run.attempt > 0)
        ]

    def _run(self, key: str, trigger: str, scheduled_for: datetime, facts: Mapping[str, Any]) -> NewRun:
        waits = bool(self.job.dependencies)
        return NewRun(
            run_id=new_run_id(self.moment.now),
            job_id=self.job.job_id,
            run_key=key,
            stream=DEFAULT_STREAM,
            # Runs side by side exclude nobody.
            lane=key if self.policy.overlap == "allow" else DEFAULT_STREAM,
            live=True,
            trigger=trigger,
            # What a run is defined by is frozen when it starts, with the processors that are installed there.
            digest="",
            definition={},
            job_file=None,
            options={
                "params": {},
                "window": None,
                "full_refresh": False,
                "ignore_dependencies": False,
                **facts,
            },
            scheduled_for=scheduled_for,
            job_version=self.moment.job.version,
            waiting=[] if waits else None,
            wait_until=wait_limit(self.job, self.moment.now) if waits else None,
        )


def _with_facts(options: Document, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run that stands for *facts* too."""
    merged = dict(options)
    if "ticks" in facts:
        first = options.get("ticks", facts["ticks"])["first"]
        merged["ticks"] = {"first": first, "last": facts["ticks"]["last"]}
    if "events" in facts:
        merged["events"] = [*options.get("events", []), *facts["events"]]
    return merged
