"""A run on one screen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ecmbatch.cli.progress import duration
from ecmbatch.cli.screen import visible
from ecmbatch.protocol.run import ACTIVE, RunStatus

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ecmbatch.engine.history import RunView

STYLES: Mapping[str, str] = {
    "success": "green",
    "pass": "green",
    "warn": "yellow",
    "skipped": "yellow",
    "stopped": "yellow",
    "stopping": "yellow",
    "in_progress": "cyan",
    "queued": "cyan",
    "failed": "red",
    "validation_failed": "red",
    "fail": "red",
    "error": "red",
    "abandoned": "red",
}
_MARKS: Mapping[str, str] = {"pass": "✓", "warn": "!", "skipped": "–", "fail": "✗", "error": "✗"}
_DIGEST = re.compile("[0-9a-f]{12}")
_OUTCOMES = ("inserted", "updated", "unchanged", "outdated", "deleted")


def run_summary(
    view: RunView, *, with_error: bool = True, profile: Mapping[str, Any] | None = None
) -> RenderableType:
    """Return what a person wants to know of a run, and where its time went if there is a *profile*."""
    document = view.document()
    if not with_error:
        document["error"] = None
    parts: list[RenderableType] = [_title(view), _facts(view, document)]
    if document["validation"] and document["validation"]["rules"]:
        parts.append(_rules(document["validation"]))
    if profile is not None:
        parts.append(_profile(profile))
    return Group(*parts)


def moment(instant: datetime | str | None) -> str:
    """Return a time for people: UTC, to the second."""
    if instant is None:
        return "–"
    if isinstance(instant, str):
        instant = datetime.fromisoformat(instant)
    return f"{instant:%Y-%m-%d %H:%M:%S}Z"


def interval(start: datetime | str | None, end: datetime | str | None) -> str:
    """Return a window for people."""
    if end is None:
        return "–"
    return f"{'the beginning' if start is None else moment(start)} … {moment(end)}"


def facts_table() -> Table:
    """Return an empty two-column table: what, and how it is."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _title(view: RunView) -> Text:
    run = view.run
    title = Text.assemble(
        (run.job_id, "bold"), "  ", (run.status.replace("_", " "), f"bold {STYLES.get(run.status, '')}")
    )
    if run.status in ACTIVE and not view.live:
        title.append("  (nobody executes it any more)", style="yellow")
    return title


def _facts(view: RunView, document: Mapping[str, Any]) -> Table:
    table = facts_table()
    for name, text in _lines(view, document):
        table.add_row(f"  {name}", Text(visible(text)))
    return table


def _lines(view: RunView, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    run, rows = view.run, document["rows"]
    yield "run", f"{run.run_id}, attempt {run.attempt}, {run.trigger}" if run.attempt else run.run_id
    if run.window_end is not None:
        yield "window", interval(run.window_start, run.window_end)
    if document["parameters"]:
        yield "parameters", ", ".join(f"{name} = {value}" for name, value in document["parameters"].items())
    if view.partitions:
        yield "partitions", _partitions(view, document["partitions"])
        yield "rows", _counted(rows, ("read", "filtered", "staged"))
        for step in document["processors"]:
            if step["counts"]:
                yield step["processor"], _counted(step["counts"], tuple(step["counts"]))
    if publication := document["publication"]:
        yield "published", f"{publication['store']}.{publication['table']} ({publication['mode']})"
        yield "", _counted(rows, (*_OUTCOMES, "folded"))
    if view.attempts:
        yield "time", _time(view)
    if document["error"]:
        yield "error", document["error"]["message"]
    if following := _next(view):
        yield "next", following


def _partitions(view: RunView, counts: Mapping[str, int]) -> str:
    total, skipped, resumed = counts["total"], counts["skipped_completed"], counts["resumed"]
    text = f"{counts['completed']} of {total} complete"
    if view.run.attempt > 1:
        text += f" (this attempt: {skipped} skipped, {resumed} resumed, {total - skipped - resumed} fresh)"
    return text


def _counted(rows: Mapping[str, int], names: tuple[str, ...]) -> str:
    """Name what there is; nothing is worth saying only where everything is nothing."""
    some = [f"{rows[name]:,} {name}" for name in names if rows[name]]
    return ", ".join(some) or f"0 {names[0]}"


def _time(view: RunView) -> str:
    attempt = view.attempts[-1]
    text = moment(attempt.started_at)
    if attempt.finished_at is None:
        return f"{text}, not ended"
    seconds = (attempt.finished_at - attempt.started_at).total_seconds()
    text += f", {duration(seconds)}"
    # Rows are counted over all attempts, so only a first one has a pace.
    if view.run.attempt == 1 and seconds > 0 and view.rows_read:
        text += f", {view.rows_read / seconds:,.0f} rows/s"
    return text


def _profile(profile: Mapping[str, Any]) -> Table:
    table = facts_table()
    phases = (f"{name} {seconds:.2f} s" for name, seconds in profile["phases"].items())
    table.add_row("  profile", f"{profile['seconds']:.2f} s: {', '.join(phases)}")
    work = (f"{name} {seconds:.2f} s" for name, seconds in profile["work"].items())
    table.add_row("  in scans", f"{', '.join(work)} (of all threads)")
    if profile["rows_per_second"] is not None:
        table.add_row("", f"{profile['rows']:,} rows, {profile['rows_per_second']:,} rows/s while reading")
    if profile["advice"]:
        table.add_row("  bound by", profile["advice"])
    return table


def _next(view: RunView) -> str | None:
    run = view.run
    if run.status is RunStatus.STOPPING and view.live:
        return None
    if run.status in ACTIVE and view.live:
        return f"ecmbatch stop {run.run_id}"
    if run.error and run.error.get("hint"):
        return str(run.error["hint"])
    if run.status in ACTIVE | {RunStatus.FAILED, RunStatus.STOPPED}:
        return f"ecmbatch resume {run.run_id}"
    if run.status is RunStatus.VALIDATION_FAILED:
        return f"correct the rule or the data, then: ecmbatch resume {run.run_id}"
    return None


def _rule_name(rule: Mapping[str, Any]) -> str:
    """A rule without a name of its own has a digest for an id, which tells a person nothing."""
    named = not _DIGEST.fullmatch(rule["id"])
    return f"{rule['id']} ({rule['type']})" if named else str(rule["type"])


def _rules(validation: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for rule in validation["rules"]:
        style = STYLES[rule["outcome"]]
        table.add_row(
            Text(f"  {_MARKS[rule['outcome']]} {rule['outcome']}", style=style),
            Text(visible(_rule_name(rule))),
            Text(visible(rule["message"])),
        )
    return table
