"""Backfills, in words and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ecmbatch.cli.progress import duration
from ecmbatch.cli.screen import visible
from ecmbatch.cli.summary import STYLES, facts_table, interval, moment
from ecmbatch.cli.tables import plain_table
from ecmbatch.protocol.intervals import IntervalRange

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ecmbatch.engine.scheduling.backfill_views import BackfillPlan, BackfillView

_ID_WIDTH = 36
_SHOWN_RANGES = 40
_STYLES: Mapping[str, str] = {
    **STYLES,
    "running": "cyan",
    "completed": "green",
    "loaded": "green",
    "paused": "yellow",
    "cancelled": "yellow",
}


def backfills_table(views: Sequence[BackfillView]) -> RenderableType:
    """Return two lines for each backfill: its id and its job in one would be too wide."""
    if not views:
        return Text("there are no backfills yet")
    table = plain_table("backfill", "status", "range", ">done", ">left")
    table.columns[0].min_width = _ID_WIDTH
    for view in views:
        backfill = view.backfill
        table.add_row(
            Text(backfill.backfill_id).append(f"\n{visible(backfill.job_id)}", style="dim"),
            Text(backfill.status, style=_STYLES.get(backfill.status, "")),
            f"{moment(backfill.window_start)}\n{moment(backfill.window_end)}",
            f"{view.total - view.left:,}",
            f"{view.left:,}",
        )
    return table


def backfill_summary(view: BackfillView) -> RenderableType:
    """Return how far one backfill is."""
    table = facts_table()
    for name, text in _facts(view):
        table.add_row(f"  {name}", Text(visible(text)))
    for note in view.notes:
        table.add_row("  note", Text(visible(note), style="yellow"))
    backfill = view.backfill
    title = Text.assemble(
        (backfill.job_id, "bold"), "  ", (backfill.status, f"bold {_STYLES.get(backfill.status, '')}")
    )
    return Group(title, table, _ranges(view))


def plan_summary(plan: BackfillPlan) -> RenderableType:
    """Return what a backfill would do."""
    table = facts_table()
    document = plan.document()
    for name, text in _plan_facts(plan, document):
        table.add_row(f"  {name}", Text(visible(text)))
    for each in document["conflicts"]:
        what = f"backfill {each['backfill_id']}" if "backfill_id" in each else f"run {each['run_id']}"
        text = f"{what} is {each['status']}: {interval(each['start'], each['end'])}"
        table.add_row("  conflict", Text(visible(text), style="red"))
    for note in plan.notes:
        table.add_row("  note", Text(visible(note), style="yellow"))
    return Group(Text(plan.job_id, style="bold"), table)


def _facts(view: BackfillView) -> Iterator[tuple[str, str]]:
    backfill = view.backfill
    yield "backfill", f"{backfill.backfill_id}, version {backfill.job_version} of the job"
    yield from _asked(view.document(with_ranges=False))
    told = ", ".join(f"{number:,} {name}" for name, number in view.counts.items() if number)
    yield "intervals", f"{view.total:,}: {told}"
    yield "created", moment(backfill.created_at)
    if backfill.finished_at is not None:
        yield "finished", moment(backfill.finished_at)
    if view.per_hour:
        yield "pace", f"{view.per_hour:,.0f} intervals an hour; done about {moment(view.eta)}"
    for run in view.failures:
        yield "failed", f"run {run.run_id}: {(run.error or {}).get('message', run.status)}"
    following = _next(view)
    if following is not None:
        yield "next", following


def _next(view: BackfillView) -> str | None:
    backfill_id = view.backfill.backfill_id
    match view.backfill.status:
        case "running":
            return f"ecmbatch backfill pause {backfill_id}" if view.left else None
        case "failed":
            return (
                f"correct what failed, then: ecmbatch backfill retry {backfill_id}; its definition is that of "
                "when it was made: after the job itself was wrong, cancel it, and create it again with "
                "--reprocess failed"
            )
        case "paused" | "cancelled":
            return f"ecmbatch backfill resume {backfill_id}"
    return None


def _plan_facts(plan: BackfillPlan, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    intervals = document["intervals"]
    if plan.continues is not None:
        yield "would", f"go on with backfill {plan.continues}"
    yield from _asked(document)
    yield "intervals", f"{intervals['total']:,}, of which {intervals['to_do']:,} are to be loaded"
    yield "so far", f"{intervals['loaded']:,} are loaded, {intervals['failed']:,} have failed"
    for name in ("first", "last"):
        each = intervals[name]
        yield name, interval(each["start"], each["end"])
        yield "", ", ".join(f"{key} = {value}" for key, value in each["parameters"].items()) or "–"
    if plan.seconds is not None:
        yield "takes", f"about {duration(plan.seconds)}, as {plan.earlier_runs} earlier runs did"


def _asked(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    whole = document["range"]
    yield "range", interval(whole["start"], whole["end"])
    yield (
        "split",
        f"{document['split']}, {document['order']}, {document['concurrency']} at once; loads "
        f"{document['reprocess']}; on failure: {document['on_failure']}",
    )
    if parameters := document.get("parameters"):
        yield "parameters", ", ".join(f"{name} = {value}" for name, value in parameters.items())


def _ranges(view: BackfillView) -> Table:
    table = plain_table("from", "to", "status", ">intervals")
    ranges = view.ranges
    for part, number in ranges[:_SHOWN_RANGES]:
        status = str(part.status) if isinstance(part, IntervalRange) else "pending"
        table.add_row(
            moment(part.start),
            moment(part.end),
            Text(status, style=_STYLES.get(status, "")),
            f"{number:,}",
        )
    if len(ranges) > _SHOWN_RANGES:
        table.add_row("", "", f"… all {len(ranges):,} with --json", "")
    return table
