"""Tables: runs, checkpoints, plans, watermarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ecmbatch.cli.progress import duration
from ecmbatch.cli.screen import visible
from ecmbatch.cli.summary import STYLES, facts_table, interval, moment

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ecmbatch.engine.history import RunView
    from ecmbatch.ledger.records import Watermark

_RUN_ID_WIDTH = 36
_SHOWN_PARTITIONS = 40
_SHOWN_STATEMENTS = 2


def runs_table(views: Sequence[RunView]) -> RenderableType:
    """Return two lines for each run: with both its id and its job in one line, 80 columns would not do."""
    if not views:
        return Text("there are no runs yet")
    table = plain_table("run", "status", "started", ">done", ">rows read")
    for view in views:
        run = view.run
        seconds = (
            (run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None
        )
        table.add_row(
            Text(run.run_id).append(f"\n{visible(run.job_id)}", style="dim"),
            Text(run.status, style=STYLES.get(run.status, "")),
            moment(run.started_at).replace(" ", "\n"),
            f"{view.completed}/{len(view.partitions)}\n{duration(seconds) if seconds is not None else ''}",
            f"{view.rows_read:,}",
        )
    return table


def checkpoints_table(documents: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return one line for each checkpoint."""
    if not documents:
        return Text("there are no checkpoints yet")
    table = plain_table(">partition", ">offset", "status", "at", ">attempt", ">chunks")
    for document in documents:
        checkpoint, ours = document["checkpoint"], document["x-ecmbatch"]
        table.add_row(
            str(checkpoint["partition"]),
            f"{checkpoint['offset']:,}",
            checkpoint["status"],
            moment(checkpoint["timestamp"]),
            str(ours["attempt"]),
            str(ours["sequence"]),
        )
    return table


def watermarks_table(watermarks: Sequence[Watermark]) -> RenderableType:
    """Return one line for each watermark, the present one first."""
    if not watermarks:
        return Text("nothing is loaded yet: the next run reads everything")
    table = plain_table("loaded up to", "since", "by", "reason")
    for mark in watermarks:
        table.add_row(
            moment(mark.window_end).replace(" ", "\n"),
            moment(mark.at).replace(" ", "\n"),
            mark.run_id or "hand",
            Text(visible(mark.reason)),
        )
    return table


def plan_summary(plan: Mapping[str, Any]) -> RenderableType:
    """Return what a run would do, from the ``ecmbatch.plan/1`` document."""
    sink, source = plan["sink"], plan["source"]
    facts = {
        "would": f"continue run {plan['continues']}" if plan["continues"] else "start a new run",
        "because": plan["reason"],
        "window": interval(plan["window"]["start"], plan["window"]["end"]),
        "parameters": ", ".join(f"{name} = {value}" for name, value in plan["parameters"].items()) or "–",
        "reads": f"{source.get('connector') or source['store']}: {_columns(source['columns'])}",
        "transforms": ", ".join(each["processor"] for each in plan["transform"]) or "–",
        "publishes": f"{sink['store']}.{sink['table']} ({sink['mode']}): {_columns(sink['columns'])}",
        "key": ", ".join(sink["key"]) or "–",
    }
    table = facts_table()
    for name, text in facts.items():
        table.add_row(f"  {name}", Text(visible(text)))
    for note in plan["notes"]:
        table.add_row("  note", Text(visible(note), style="yellow"))
    for reason in plan["unmet_dependencies"]:
        table.add_row("  not yet", Text(visible(reason), style="red"))
    return Group(
        Text(plan["job_id"], style="bold"), table, _partitions(plan), *_reasons(plan), *_statements(plan)
    )


def _partitions(plan: Mapping[str, Any]) -> Table:
    table = plain_table(">partition", "rows", ">about", ">scan", "resume")
    for each in plan["partitions"][:_SHOWN_PARTITIONS]:
        about = each["estimated_rows"]
        table.add_row(
            str(each["partition"]),
            Text(visible(each["rows"])),
            "" if about is None else f"{about:,}",
            str(each["scan"]),
            each["resume"],
        )
    if len(plan["partitions"]) > _SHOWN_PARTITIONS:
        table.add_row("", f"… all {len(plan['partitions'])} partitions with --json")
    return table


def _reasons(plan: Mapping[str, Any]) -> Iterator[Text]:
    """Say once, and not for every scan, why partitions resume as they do."""
    for resume, reason in dict.fromkeys((scan["resume"], scan["reason"]) for scan in plan["scans"]):
        yield Text(visible(f"resume {resume}: {reason}"), style="dim")


def _statements(plan: Mapping[str, Any]) -> Iterator[Text]:
    asked = [scan for scan in plan["scans"] if scan["statement"] is not None]
    for scan in asked[:_SHOWN_STATEMENTS]:
        yield Text(f"query of scan {scan['scan']}", style="dim")
        yield Text(visible(scan["statement"]))
    if len(asked) > _SHOWN_STATEMENTS:
        yield Text(f"… all {len(asked)} queries with --json", style="dim")
    for number, value in enumerate(asked[0]["values"] if asked else (), start=1):
        yield Text(visible(f"${number} = {value}"))


def _columns(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


def plain_table(*headings: str) -> Table:
    """Return an empty table; the columns whose heading begins with ``>`` are numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        name = heading.removeprefix(">")
        # A run's id is there to be copied: it is never broken.
        table.add_column(
            name,
            justify="left" if name == heading else "right",
            overflow="fold",
            min_width=_RUN_ID_WIDTH if name in ("run", "by") else None,
        )
    return table
