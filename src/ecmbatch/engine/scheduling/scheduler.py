"""The scheduler: one pass after another over everything that could be due.

A pass can be repeated, by several processes at once, and be killed anywhere: each thing that it does is one
transaction of the ledger, which finds out in it whether somebody else has done it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeVar

from ecmbatch.engine.alerts import deliver_alerts
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.backfills import advance_backfill
from ecmbatch.engine.scheduling.firing import fire_events, fire_ticks
from ecmbatch.engine.scheduling.job_registry import Check, JobRegistry
from ecmbatch.engine.scheduling.known_jobs import KnownJobs
from ecmbatch.engine.scheduling.upkeep import look_after, tidy_up
from ecmbatch.engine.scheduling.waiting import release_or_give_up, tell_lateness
from ecmbatch.errors import ConflictError, EcmbatchError, Unreachable
from ecmbatch.ledger.queue import Firing, Moment
from ecmbatch.ledger.records import JobState
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.event_matching import EventTrigger, firings, trigger_of
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.ticks import Ticks

log = logging.getLogger("ecmbatch")

T = TypeVar("T")


class Scheduler:
    """Makes runs when they are due, for workers to execute, by the ledger's clock.

    *check* looks at new and changed jobs, *tidy* removes what ``[retention]`` lets go. Without them both are done
    here, with the plug-ins and modules that they import.
    """

    def __init__(
        self, resources: Resources, *, check: Check | None = None, tidy: Callable[[], None] | None = None
    ) -> None:
        self._resources = resources
        self._ledger = resources.ledger
        self._registry = JobRegistry(resources, check)
        self._tidy = tidy or partial(tidy_up, resources)
        self._jobs = KnownJobs(resources.ledger)
        self._next_ticks: dict[str, tuple[JobState, datetime | None]] = {}
        self._troubles: dict[str, str] = {}

    def run_pass(self) -> datetime | None:
        """Do everything that is due now; return when the next tick is, ``None`` where none is known.

        What goes wrong with one job does not keep the others. Raises ``Unreachable`` where the ledger cannot be
        used.
        """
        self._registry.refresh()
        # What is over, or whose patience is, makes room for the ticks that fire now.
        self._carefully("runs without a process", self._settle_lost)
        self._release_waiting()
        now = self._ledger.clock()
        states = self._ledger.jobs.all()
        due = [self._fire(state, now) for state in states if state.active and not state.paused]
        self._registry.claim_back(states)
        self._release_waiting()
        self._advance_backfills()
        self._carefully("late runs", lambda: tell_lateness(self._ledger, self._jobs, self._carefully))
        self._carefully("upkeep", lambda: look_after(self._ledger, self._tidy))
        deliver_alerts(self._resources)
        return min((tick for tick in due if tick is not None), default=None)

    def _fire(self, state: JobState, now: datetime) -> datetime | None:
        """Fire what is due of a job; return its next tick."""
        return self._carefully(f"job {state.job_id}", lambda: self._fire_job(state, now))

    def _fire_job(self, state: JobState, now: datetime) -> datetime | None:
        job = self._jobs.get(state.job_id, state.version)
        ticks, trigger = Ticks.of(job.schedule), trigger_of(job)
        if ticks is not None:
            return self._fire_ticks(state, job, ticks, now)
        if trigger is not None:
            self._fire_events(state, job, trigger, now)
        return None

    def _fire_ticks(
        self, state: JobState, job: JobDefinition, ticks: Ticks, now: datetime
    ) -> datetime | None:
        following = self._next_tick(state, ticks)
        if following is None or following > now:
            return following

        def decide(moment: Moment) -> Firing | None:
            return fire_ticks(job, ticks, moment) if moment.job.version == state.version else None

        firing = self._ledger.queue.fire(state.job_id, decide)
        _tell(firing)
        # At once again where there is more to make up for.
        return ticks.next_after(firing.cursor) if firing and firing.cursor else following

    def _next_tick(self, state: JobState, ticks: Ticks) -> datetime | None:
        """Return the first tick that has not fired; looked up once for each cursor."""
        known = self._next_ticks.get(state.job_id)
        if known is None or known[0] != state:
            known = self._next_ticks[state.job_id] = (state, ticks.next_after(state.cursor))
        return known[1]

    def _fire_events(self, state: JobState, job: JobDefinition, trigger: EventTrigger, now: datetime) -> None:
        names, jobs = trigger.event_names, trigger.job_ids
        events, consumed = self._ledger.events.waiting_for(state.job_id, names=names, jobs=jobs)
        if not firings(trigger, events, consumed, now):
            return

        def decide(moment: Moment) -> Firing | None:
            return fire_events(job, trigger, moment) if moment.job.version == state.version else None

        _tell(self._ledger.queue.fire(state.job_id, decide, names=names, jobs=jobs))

    def _release_waiting(self) -> None:
        """Look at every run that waits; one that cannot be judged does not keep the others."""
        for run in self._ledger.queue.waiting():
            self._carefully(f"run {run.run_id}", partial(release_or_give_up, run, self._ledger, self._jobs))

    def _advance_backfills(self) -> None:
        for backfill_id in self._ledger.backfills.unsettled():
            self._carefully(f"backfill {backfill_id}", partial(self._advance_backfill, backfill_id))

    def _advance_backfill(self, backfill_id: str) -> None:
        try:
            advance_backfill(backfill_id, self._resources)
        except Unreachable as error:
            # A store may be in use, which is nobody else's trouble. If it is the ledger, the next one finds out.
            raise ConflictError(error.message) from error

    def _settle_lost(self) -> None:
        """Give runs their end whose process is gone and that no worker will take over."""
        for run in self._ledger.queue.active():
            if not self._ledger.runs.is_live(run.run_id):
                self._ledger.runs.settle_lost(run.run_id)

    def _carefully(self, what: str, do: Callable[[], T]) -> T | None:
        """Do something that may fail without keeping the rest, of which a plug-in or a defect may be the cause."""
        try:
            done = do()
        except Unreachable:
            raise
        except EcmbatchError as error:
            self._tell_trouble(what, error.message)
            return None
        except Exception as error:
            self._tell_trouble(what, f"an unexpected {type(error).__name__}; this is a defect")
            log.debug("where it happened:", exc_info=error)
            return None
        self._troubles.pop(what, None)
        return done

    def _tell_trouble(self, what: str, message: str) -> None:
        """Log what goes wrong once, though it does with every pass."""
        if self._troubles.get(what) != message:
            self._troubles[what] = message
            log.error("%s: %s", what, message, extra={"event": "scheduler.trouble"})


def _tell(firing: Firing | None) -> None:
    for run, status in firing.new if firing else ():
        log.info(
            "%s %s for %s is %s",
            run.job_id,
            run.run_id,
            rfc3339(run.scheduled_for),
            status,
            extra={"event": "run.created", "job_id": run.job_id, "run_id": run.run_id},
        )
    for run, reason in firing.skipped if firing else ():
        log.warning(
            "%s did not run for %s: %s",
            run.job_id,
            rfc3339(run.scheduled_for),
            reason["message"],
            extra={"event": "run.skipped", "job_id": run.job_id, "run_id": run.run_id},
        )
