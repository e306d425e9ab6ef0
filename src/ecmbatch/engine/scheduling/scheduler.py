"""The scheduler: one pass after another over everything that could be due.

A pass can be repeated, by several processes at once, and be killed anywhere: each thing that it does is one
transaction of the ledger, which finds out in it whether somebody else has done it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from ecmbatch.engine.alerts import deliver_alerts
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.backfills import advance_backfills
from ecmbatch.engine.scheduling.firing import fire_events, fire_ticks
from ecmbatch.engine.scheduling.job_registry import JobRegistry
from ecmbatch.engine.scheduling.known_jobs import KnownJobs
from ecmbatch.engine.scheduling.upkeep import look_after
from ecmbatch.engine.scheduling.waiting import release_waiting, tell_lateness
from ecmbatch.errors import EcmbatchError, RunAlreadyComplete, Unreachable
from ecmbatch.ledger.queue import Firing, Moment
from ecmbatch.ledger.records import JobState
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.event_matching import EventTrigger, trigger_of
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.ticks import Ticks

log = logging.getLogger("ecmbatch")


class Scheduler:
    """Makes runs when they are due, for workers to execute, by the ledger's clock."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._ledger = resources.ledger
        self._registry = JobRegistry(resources)
        self._jobs = KnownJobs(resources.ledger)
        self._next_ticks: dict[str, tuple[JobState, datetime | None]] = {}

    def run_pass(self) -> datetime | None:
        """Do everything that is due now; return when the next tick is, ``None`` where none is known.

        What goes wrong with one job does not keep the others. Raises ``Unreachable`` where the ledger cannot be
        used.
        """
        self._registry.refresh()
        # Those whose patience is over make room for the ticks that fire now.
        self._carefully("runs that wait", lambda: release_waiting(self._ledger, self._jobs))
        due = [self._fire(state) for state in self._ledger.jobs.all() if state.active and not state.paused]
        self._carefully("runs that wait", lambda: release_waiting(self._ledger, self._jobs))
        self._carefully("backfills", lambda: advance_backfills(self._resources))
        self._carefully("runs that are to stop", self._settle_stopping)
        self._carefully("late runs", lambda: tell_lateness(self._ledger, self._jobs))
        self._carefully("upkeep", lambda: look_after(self._resources))
        deliver_alerts(self._resources)
        return min((tick for tick in due if tick is not None), default=None)

    def _fire(self, state: JobState) -> datetime | None:
        """Fire what is due of a job; return its next tick."""
        try:
            job = self._jobs.get(state.job_id, state.version)
            ticks, trigger = Ticks.of(job.schedule), trigger_of(job)
            if ticks is not None:
                return self._fire_ticks(state, job, ticks)
            if trigger is not None:
                self._fire_events(state, job, trigger)
        except Unreachable:
            raise
        except EcmbatchError as error:
            _log_trouble(f"job {state.job_id}", error)
        return None

    def _fire_ticks(self, state: JobState, job: JobDefinition, ticks: Ticks) -> datetime | None:
        following = self._next_tick(state, ticks)
        if following is None or following > self._ledger.clock():
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

    def _fire_events(self, state: JobState, job: JobDefinition, trigger: EventTrigger) -> None:
        names, jobs = trigger.event_names, trigger.job_ids
        events, _ = self._ledger.events.waiting_for(state.job_id, names=names, jobs=jobs)
        if not events:
            return

        def decide(moment: Moment) -> Firing | None:
            return fire_events(job, trigger, moment) if moment.job.version == state.version else None

        _tell(self._ledger.queue.fire(state.job_id, decide, names=names, jobs=jobs))

    def _settle_stopping(self) -> None:
        """A run whose worker died when it was to stop is stopped."""
        for run in self._ledger.queue.stopping():
            if not self._ledger.runs.is_live(run.run_id):
                with suppress(RunAlreadyComplete):
                    self._ledger.runs.request_stop(run.run_id)

    def _carefully(self, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Unreachable:
            raise
        except EcmbatchError as error:
            _log_trouble(what, error)


def _log_trouble(what: str, error: EcmbatchError) -> None:
    log.error("%s: %s", what, error.message, extra={"event": "scheduler.trouble"})


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
