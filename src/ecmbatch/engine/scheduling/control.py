"""What people say to the scheduler: pause and resume jobs, emit events, look at schedules and versions."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ecmbatch.engine.job_files import JobFile
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.job_registry import register
from ecmbatch.engine.scheduling.known_jobs import KnownJobs
from ecmbatch.errors import UsageError
from ecmbatch.ledger.records import EventRecord, JobState, JobVersion
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.names import is_event_name
from ecmbatch.protocol.schedule_words import ScheduleDescription, describe

_LONGEST_KEY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledJob:
    """When a job is due next. ``state`` is ``None`` where no scheduler has seen the job yet."""

    job_id: str
    state: JobState | None
    description: ScheduleDescription

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        state = self.state
        return {
            "job_id": self.job_id,
            "known": state is not None,
            "active": state is not None and state.active,
            "version": state.version if state else None,
            "paused": state is not None and state.paused,
            "pause_reason": state.pause_reason if state else None,
            "problem": state.problem if state else None,
            **self.description.document(),
        }


class Schedules:
    """The schedules of a project's jobs."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def all(self, jobs: Mapping[str, JobDefinition], count: int = 1) -> list[ScheduledJob]:
        """Return when jobs are due next, by id: those in files that can be read, and those that are in force
        though their files cannot."""
        in_force = {state.job_id for state in self._resources.ledger.jobs.all() if state.active}
        return [self.next(job_id, jobs.get(job_id), count) for job_id in sorted(jobs.keys() | in_force)]

    def next(self, job_id: str, job: JobDefinition | None, count: int = 5) -> ScheduledJob:
        """Return when a job is due next: as *job*, its file, says now, or in force where that is not in order."""
        ledger = self._resources.ledger
        state = ledger.jobs.find(job_id)
        if state is not None and state.active and (job is None or state.problem is not None):
            job = KnownJobs(ledger).get(job_id, state.version)
        if job is None:
            raise UsageError(f"job {job_id} has no file any more, and fires no more")
        description = describe(job.schedule, ledger.clock(), count)
        if not job.schedule and job.dependencies:
            description = replace(description, explanation="When what it depends on has run")
        return ScheduledJob(job_id=job_id, state=state, description=description)

    def pause(self, job_id: str, reason: str | None = None) -> JobState:
        """Let nothing start a job by itself until it is resumed; runs under way go on.

        Its events are kept, ticks of the time in between are not made up for.
        """
        return self._resources.ledger.jobs.pause(job_id, reason)

    def resume(self, job_id: str) -> JobState:
        """Let a job start by itself again, from now on."""
        return self._resources.ledger.jobs.resume(job_id)

    def versions(self, job_id: str) -> Sequence[JobVersion]:
        """Return the versions of a job that schedulers and backfills have seen, newest first."""
        return self._resources.ledger.jobs.versions(job_id)

    def diff(self, job_id: str, old: int, new: int) -> list[str]:
        """Return what changed from one version to another, as the lines of a unified diff."""
        before, after = (self._resources.ledger.jobs.version(job_id, each) for each in (old, new))
        return list(
            difflib.unified_diff(
                _lines(before),
                _lines(after),
                f"{job_id} version {old} of {rfc3339(before.at)}",
                f"{job_id} version {new} of {rfc3339(after.at)}",
                lineterm="",
            )
        )

    def emit(self, name: str, *, key: str | None = None) -> tuple[EventRecord, bool]:
        """Tell that something has happened; tell whether it is new.

        Of all events of one name with one *key* only the first counts. Raises ``UsageError`` for a name or a key
        that cannot be one.
        """
        if not is_event_name(name):
            raise UsageError(
                f"{name!r} is not the name of an event",
                hint="write 1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit",
            )
        if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isprintable()):
            raise UsageError(f"the id of an event must be 1 to {_LONGEST_KEY} printable characters")
        return self._resources.ledger.events.emit(name, key=key)

    def make_known(self, file: JobFile) -> None:
        """Let the ledger know a job that no scheduler has seen yet."""
        if self._resources.ledger.jobs.find(file.job.job_id) is None:
            register(file, self._resources)


def _lines(version: JobVersion) -> list[str]:
    return json.dumps(version.document, indent=2, sort_keys=True, ensure_ascii=False).splitlines()
