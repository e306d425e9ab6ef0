"""What a run would do, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ecmbatch.engine.launching import (
    LaunchOptions,
    check_key,
    current_definition,
    decide,
    new_run,
    unmet_gates,
)
from ecmbatch.engine.partition_planning import estimated_rows
from ecmbatch.engine.plan import RunPlan
from ecmbatch.engine.planning import make_plan
from ecmbatch.engine.resources import Resources
from ecmbatch.ledger.records import NewRun, RunRecord
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.partitioning.partitions import partitions_to_json
from ecmbatch.protocol.query import placeholders
from ecmbatch.protocol.recovery import Launch
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.scalars import Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPreview:
    """The answer of ``plan``. ``continues`` is the run that would go on, with its frozen plan."""

    job_id: str
    reason: str
    continues: str | None
    window: tuple[datetime | None, datetime | None]
    unmet: Sequence[str]
    plan: RunPlan
    statements: Sequence[str | None]
    """What each scan asks the source for; ``None`` where the source is not asked in a language."""
    estimated_rows: Sequence[int | None]
    """About how many rows each partition has; ``None`` where that is not known."""

    def document(self) -> dict[str, Any]:
        """Return the ``ecmbatch.plan/1`` document."""
        plan = self.plan
        start, end = self.window
        return {
            "format": "ecmbatch.plan/1",
            "job_id": self.job_id,
            "continues": self.continues,
            "reason": self.reason,
            "unmet_dependencies": list(self.unmet),
            "window": {"start": rfc3339(start) if start else None, "end": rfc3339(end) if end else None},
            "parameters": {name: shown(value) for name, value in plan.parameters.items()},
            "notes": list(plan.notes),
            "source": {plan.source.kind: plan.source.name, "columns": _columns(plan.source_schema)},
            "partitioning": partitions_to_json(plan.request.partitioning),
            "partitions": self._partitions(),
            "scans": [
                {
                    "scan": scan.number,
                    "partitions": list(scan.partitions),
                    "resume": scan.resume,
                    "reason": scan.reason,
                    "statement": statement,
                    "values": self._values(),
                    "detail": dict(scan.detail),
                }
                for scan, statement in zip(plan.scans, self.statements, strict=True)
            ],
            "transform": [{"processor": each.name, "version": each.version} for each in plan.transform],
            "sink": {
                "store": plan.sink.store,
                "table": plan.sink.table,
                "mode": plan.sink.mode,
                "key": list(plan.sink.key),
                "columns": _columns(plan.output_schema),
            },
        }

    def _partitions(self) -> list[dict[str, Any]]:
        partitioning = self.plan.request.partitioning
        scans = {partition: scan for scan in self.plan.scans for partition in scan.partitions}
        return [
            {
                "partition": number,
                "rows": partitioning.label(number) if partitioning else "everything",
                "estimated_rows": self.estimated_rows[number],
                "scan": scans[number].number,
                "resume": scans[number].resume,
            }
            for number in range(self.plan.partitions)
        ]

    def _values(self) -> list[Any]:
        """Return what stands for ``$1``, ``$2`` … in the statements."""
        request = self.plan.request
        names = placeholders(request.query) if request.query is not None else ()
        return [shown(request.parameters[name]) for name in names]


def preview_plan(job: JobDefinition, options: LaunchOptions, resources: Resources) -> PlanPreview:
    """Return what ``run`` would do with *job* now: reads a sample of keys at most, and writes nothing."""
    now = resources.ledger.clock()
    new = new_run(job, None, options, current_definition(job, resources), now)
    latest = resources.ledger.runs.latest(job.job_id, new.lane)
    decision = decide(latest, new, options)
    if latest is not None and decision.launch is Launch.CONTINUE and latest.plan is not None:
        plan = RunPlan.from_document(latest.plan)
        window = (latest.window_start, latest.window_end)
        continues, unmet = latest.run_id, list[str]()
    else:
        check_key(latest, new, options, resources)
        fixed, plan = make_plan(job, as_record(new, now), resources, started_at=now)
        window = (fixed.start, fixed.end)
        continues, unmet = None, unmet_gates(job, new, options, resources)
    with resources.reading(plan.source) as source:
        statements = [source.statement(plan.request, scan) for scan in plan.scans]
        estimates = estimated_rows(plan.request, source)
    return PlanPreview(
        job_id=job.job_id,
        reason=decision.reason,
        continues=continues,
        window=window,
        unmet=unmet,
        plan=plan,
        statements=statements,
        estimated_rows=estimates,
    )


def shown(value: Scalar) -> Any:
    """Return a bound value as people read it."""
    if isinstance(value, datetime):
        return rfc3339(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def as_record(new: NewRun, now: datetime) -> RunRecord:
    """Return the run that *new* would be."""
    return RunRecord(
        **asdict(new),
        number=0,
        status=RunStatus.QUEUED,
        attempt=0,
        epoch=0,
        created_at=now,
        started_at=None,
        finished_at=None,
        window_start=None,
        window_end=None,
        plan=None,
        publication=None,
        error=None,
        stage=None,
    )


def _columns(schema: Any) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}
