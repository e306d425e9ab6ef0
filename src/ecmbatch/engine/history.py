"""The one read side: the command line, Python callers and whatever comes later ask here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.records import AttemptRecord, PartitionRecord, RunRecord, VerdictRecord
from ecmbatch.protocol.checkpoint import Checkpoint, PartitionStatus, rfc3339
from ecmbatch.protocol.run import ACTIVE, RunStatus

RUN_FORMAT = "ecmbatch.run/1"

_NAMED = 5

_SPOKEN = {
    RunStatus.QUEUED: "is queued",
    RunStatus.WAITING: "waits",
    RunStatus.IN_PROGRESS: "is in progress",
    RunStatus.STOPPING: "is stopping",
    RunStatus.STOPPED: "was stopped",
    RunStatus.SUCCESS: "succeeded",
    RunStatus.FAILED: "failed",
    RunStatus.VALIDATION_FAILED: "failed its validation",
    RunStatus.HELD: "is held",
    RunStatus.ABANDONED: "was abandoned",
    RunStatus.SKIPPED: "was refused before it began",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run with everything that belongs to it, as it stood at one moment."""

    run: RunRecord
    attempts: Sequence[AttemptRecord]
    partitions: Sequence[PartitionRecord]
    verdict: VerdictRecord | None
    live: bool
    """Whether somebody executes it right now."""
    ahead: RunRecord | None = None
    """The run of its lane that has to be over before it can begin."""

    @property
    def completed(self) -> int:
        """Partitions that need no more work."""
        return sum(partition.status is PartitionStatus.COMPLETED for partition in self.partitions)

    @property
    def rows_read(self) -> int:
        """Source rows, each counted once over all attempts."""
        return sum(partition.offset for partition in self.partitions)

    def document(self) -> dict[str, Any]:
        """Return the ``ecmbatch.run/1`` document."""
        run = self.run
        publication = run.publication or {}
        attempt = self.attempts[-1] if self.attempts else None
        return {
            "format": RUN_FORMAT,
            "run_id": run.run_id,
            "job_id": run.job_id,
            "status": str(run.status),
            "attempt": run.attempt,
            "trigger": run.trigger,
            "window": {"start": _time(run.window_start), "end": _time(run.window_end)},
            "as_of": _time(run.window_end) if run.status is RunStatus.SUCCESS else None,
            "scheduled_for": _time(run.scheduled_for),
            "ticks": run.options.get("ticks"),
            "events": run.options.get("events", []),
            "waiting": list(run.waiting or ()),
            "wait_until": _time(run.wait_until),
            "job_version": run.job_version,
            "backfill_id": run.backfill_id,
            "started_at": _time(run.started_at),
            "finished_at": _time(run.finished_at),
            "parameters": _plain(run.plan["parameters"]) if run.plan else {},
            "partitions": {
                "total": len(self.partitions),
                "completed": self.completed,
                "skipped_completed": attempt.skipped if attempt else 0,
                "resumed": attempt.resumed if attempt else 0,
            },
            "rows": self._rows(publication.get("rows", {})),
            "processors": self._processors(),
            "validation": self._validation(),
            "publication": _without_rows(publication),
            "error": run.error,
        }

    def _rows(self, published: Mapping[str, int]) -> dict[str, int]:
        return {
            "read": self.rows_read,
            "filtered": sum(partition.filtered for partition in self.partitions),
            "quarantined": 0,
            "staged": sum(partition.staged for partition in self.partitions),
            **{
                name: published.get(name, 0)
                for name in ("folded", "inserted", "updated", "unchanged", "outdated", "deleted")
            },
        }

    def _processors(self) -> list[dict[str, Any]]:
        """Return what each processor counted, in the order of the transform."""
        counts: Counter[str] = Counter()
        for partition in self.partitions:
            counts.update(partition.counts)
        names = [step["name"] for step in self.run.plan["transform"]] if self.run.plan else []
        return [
            {
                "processor": name,
                "counts": {
                    counted.partition("/")[2]: rows
                    for counted, rows in sorted(counts.items())
                    if counted.partition("/")[0] == str(number)
                },
            }
            for number, name in enumerate(names)
        ]

    def _validation(self) -> dict[str, Any] | None:
        if self.verdict is None:
            return None
        report = self.verdict.report
        return {"outcome": report["outcome"], "rules": report["rules"]}


class History:
    """Reads of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def run(self, run_id: str) -> RunView:
        """Return a run; raises :class:`~ecmbatch.errors.UsageError` where there is none."""
        return self._view(self._ledger.runs.get(run_id))

    def recent_runs(self, *, job_id: str | None = None, limit: int = 20) -> Sequence[RunView]:
        """Return the newest runs, newest first."""
        return [self._view(run) for run in self._ledger.runs.recent(job_id=job_id, limit=limit)]

    def checkpoints(self, run_id: str, *, every: bool = False) -> list[dict[str, Any]]:
        """Return the protocol's checkpoint objects of a run, our own fields beside them in ``x-ecmbatch``."""
        run = self._ledger.runs.get(run_id)
        return [
            {
                "checkpoint": Checkpoint(
                    job_id=run.job_id,
                    run_id=run.run_id,
                    partition=record.partition,
                    offset=record.offset,
                    timestamp=record.at,
                    status=record.status,
                ).document(),
                "x-ecmbatch": {
                    "attempt": record.attempt,
                    "epoch": record.epoch,
                    "sequence": record.sequence,
                    "cursor": record.cursor,
                    "file": record.file,
                },
            }
            for record in self._ledger.progress.checkpoints(run_id, every=every)
        ]

    def is_forgotten(self, run_id: str) -> bool:
        """Tell whether ``gc`` has removed the details of a run that ended long ago."""
        return self._ledger.retention.is_forgotten(run_id)

    def why(self, run_id: str) -> list[str]:
        """Return why a run is as it is and what can be done, one sentence each."""
        view = self.run(run_id)
        return [*_situation(view), *_ways_on(view)]

    def _view(self, run: RunRecord) -> RunView:
        return RunView(
            run=run,
            attempts=self._ledger.runs.attempts(run.run_id),
            partitions=self._ledger.progress.partitions(run.run_id),
            verdict=self._ledger.verdicts.latest(run.run_id),
            live=run.status in ACTIVE and self._ledger.runs.is_live(run.run_id),
            ahead=self._ledger.runs.ahead_of(run) if run.status is RunStatus.QUEUED else None,
        )


def _situation(view: RunView) -> list[str]:
    run = view.run
    sentences = [f"Run {run.run_id} of {run.job_id} {_SPOKEN[run.status]}.", *_origin(run)]
    if run.status is RunStatus.WAITING:
        sentences += _patience(run)
    if run.status is RunStatus.QUEUED:
        sentences.append(_place_in_line(view))
    if run.status in ACTIVE and not view.live:
        owner = view.attempts[-1].owner if view.attempts else "its worker"
        sentences.append(
            f"Nobody executes it any more: {owner} ended without a word (crash, kill -9, power)."
        )
    if run.status in ACTIVE and view.live:
        sentences.append(f"{view.attempts[-1].owner} executes it (attempt {run.attempt}).")
    if run.error:
        sentences.append(f"{run.error['message']}.".replace("..", "."))
    if view.partitions and run.status is not RunStatus.SUCCESS:
        sentences.append(
            f"{view.completed} of {len(view.partitions)} partitions are complete; "
            f"{view.rows_read:,} rows are read and checkpointed."
        )
    if run.status is RunStatus.SUCCESS and run.publication:
        sentences.append(f"It was published to {run.publication['store']}.{run.publication['table']}.")
    if run.status is RunStatus.SUCCESS and view.verdict and view.verdict.report["outcome"] == "warn":
        sentences += [rule["message"] for rule in view.verdict.report["rules"] if rule["outcome"] == "warn"]
    return sentences


def _origin(run: RunRecord) -> list[str]:
    """Say what made a run of the scheduler's, where that is not one tick alone."""
    sentences = []
    ticks, events = run.options.get("ticks"), run.options.get("events")
    if ticks and ticks["first"] != ticks["last"]:
        sentences.append(f"It stands for every time it was due from {ticks['first']} to {ticks['last']}.")
    if events:
        named = [event.get("event") or f"{event['job']} ({event['status']})" for event in events[:_NAMED]]
        more = f" and {len(events) - _NAMED} more" if len(events) > _NAMED else ""
        sentences.append(f"It was started by: {', '.join(named)}{more}.")
    if run.options.get("ignore_dependencies"):
        sentences.append("Its dependencies were ignored on request.")
    return sentences


def _patience(run: RunRecord) -> list[str]:
    reasons = [f"{reason[:1].upper()}{reason[1:]}." for reason in run.waiting or ()]
    reasons = reasons or ["No scheduler has looked at its dependencies yet."]
    if run.wait_until is not None:
        reasons.append(f"It is given up if that is still so at {rfc3339(run.wait_until)}.")
    return reasons


def _place_in_line(view: RunView) -> str:
    if view.ahead is not None:
        state = str(view.ahead.status).replace("_", " ")
        return f"Run {view.ahead.run_id} of the same job comes first; it is {state}."
    if view.run.job_version is None:
        return "The command that was to execute it never began."
    stage = view.run.stage
    if stage and stage["host"] != Owner.this_process().host:
        return (
            f"Its rows are staged in {stage['path']} on {stage['host']}: a worker takes it that has this folder as "
            "its stage; is one running there (ecmbatch serve)?"
        )
    return "The next free worker takes it; is one running (ecmbatch serve)?"


def _ways_on(view: RunView) -> list[str]:
    run = view.run
    if run.status in ACTIVE and view.live:
        return [f"Stop it at its next checkpoint with: ecmbatch stop {run.run_id}"]
    hint = (run.error or {}).get("hint")
    if hint:
        return [f"What to do: {hint}."]
    if run.status is RunStatus.VALIDATION_FAILED:
        return [
            "The store is untouched and the rows are staged. Correct the rule in the job file (or the data), "
            f"then: ecmbatch resume {run.run_id}"
        ]
    if run.status is RunStatus.HELD:
        return [
            f"Let it go on with: ecmbatch resume {run.run_id}; or give it up with: ecmbatch abandon {run.run_id}"
        ]
    if run.status in ACTIVE | {RunStatus.FAILED, RunStatus.STOPPED}:
        return [f"Continue from its checkpoints with: ecmbatch resume {run.run_id}"]
    return []


def _without_rows(publication: Mapping[str, Any]) -> dict[str, Any] | None:
    return {name: value for name, value in publication.items() if name != "rows"} or None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for people: times as RFC 3339, other typed values as their text."""
    return {name: _plain_value(value) for name, value in values.items()}


def _plain_value(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    return rfc3339(datetime.fromisoformat(text)) if kind == "datetime" else text


def _time(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant else None
