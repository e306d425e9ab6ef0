"""The data window of a run, and what ``${…}`` and ``:name`` mean in it.

``previous_job.end_time`` is the end of the window of the latest successful live run: the instant up to which
that run is guaranteed to have seen everything, fixed before its read began. A wall clock would lose rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ecmbatch.connectors.connector import Connector
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.records import RunRecord
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.parameters import EPOCH, Facts, resolve_parameters, upstream_jobs
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.scalars import Scalar, decode_scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The half-open interval ``[start, end)`` of data that a run is responsible for."""

    start: datetime | None
    end: datetime


def window_of(job: JobDefinition, run: RunRecord, ledger: Ledger, connector: Connector) -> Window:
    """Return the window of a run that starts now: the interval asked for, or from the watermark to now.

    The end is the source's bound less the job's lag, and never before the watermark.
    """
    if not run.live:
        interval = run.options["window"]
        start, end = decode_scalar(interval["start"]), decode_scalar(interval["end"])
        assert isinstance(start, datetime) and isinstance(end, datetime)
        return Window(start=start, end=end)
    start = None if run.options["full_refresh"] else _watermark(run, ledger)
    bound = connector.window_bound()
    lag = job.source.lag
    if lag is None:
        lag = bound.lag if job.uses_window else timedelta(0)
    end = bound.at - lag
    reached = _watermark(run, ledger)
    return Window(start=start, end=max(end, reached) if reached else end)


def facts_of(
    job: JobDefinition, run: RunRecord, window: Window, started_at: datetime, ledger: Ledger
) -> Facts:
    """Return everything that ``${…}`` can look up in this run."""
    facts: dict[str, Scalar] = {
        "run.id": run.run_id,
        "run.trigger": run.trigger,
        "run.scheduled_for": run.scheduled_for,
        "run.started_at": started_at,
        "window.start": window.start,
        "window.end": window.end,
        "job.id": run.job_id,
        # As text, for every parameter is one value; a database or a processor can take the list apart.
        "trigger.events": json.dumps(run.options.get("events", [])),
    }
    facts |= {f"param.{name}": decode_scalar(value) for name, value in run.options["params"].items()}
    facts |= _previous(run, window, ledger)
    at = run.scheduled_for if run.live else window.end
    for upstream in upstream_jobs(job.references):
        covering = [
            each
            for each in ledger.upstreams.deciding_runs(upstream, at=at, backfill=not run.live)
            if each.status is RunStatus.SUCCESS and each.as_of is not None
        ]
        newest = max(covering, key=lambda each: (each.as_of or EPOCH, each.number), default=None)
        if newest is not None:
            facts[f"upstream.{upstream}.run_id"] = newest.run_id
            facts[f"upstream.{upstream}.as_of"] = newest.as_of
    return facts


def bound_values(
    job: JobDefinition, window: Window, facts: Facts
) -> tuple[dict[str, Scalar], tuple[str, ...]]:
    """Return a value for every ``:name`` of the job's query, and notes for people about them."""
    resolved = resolve_parameters(job.parameters, facts)
    values: dict[str, Scalar] = dict(resolved.values)
    if "window_start" in job.placeholders:
        values["window_start"] = window.start or EPOCH
    if "window_end" in job.placeholders:
        values["window_end"] = window.end
    return values, resolved.notes


def _previous(run: RunRecord, window: Window, ledger: Ledger) -> Mapping[str, Scalar]:
    if not run.live:
        return {"previous_job.end_time": window.start}
    if run.options["full_refresh"]:
        return {}
    facts: dict[str, Scalar] = {"previous_job.end_time": window.start}
    previous = ledger.runs.latest_success(run.job_id, run.stream)
    if previous is not None:
        rows = (previous.publication or {}).get("rows", {})
        facts |= {
            "previous_job.start_time": previous.window_start,
            "previous_job.run_id": previous.run_id,
            "previous_job.scheduled_for": previous.scheduled_for,
            "previous_job.finished_at": previous.finished_at,
            "previous_job.rows": rows.get("inserted", 0) + rows.get("updated", 0),
        }
    return facts


def _watermark(run: RunRecord, ledger: Ledger) -> datetime | None:
    mark = ledger.watermarks.latest(run.job_id, run.stream)
    return mark.window_end if mark else None
