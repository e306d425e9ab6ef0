"""Schedules, in words and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from ecmbatch.cli.screen import visible
from ecmbatch.cli.summary import moment
from ecmbatch.cli.tables import plain_table
from ecmbatch.protocol.checkpoint import rfc3339

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ecmbatch.engine.scheduling.control import ScheduledJob
    from ecmbatch.ledger.records import JobVersion


def jobs_table(found: Sequence[ScheduledJob]) -> RenderableType:
    """Return one line for each job."""
    if not found:
        return Text("there are no jobs in the folder jobs/")
    table = plain_table("job", "state", "next (UTC)", "schedule")
    for each in found:
        following = each.description.next
        table.add_row(
            visible(each.job_id),
            _state(each),
            moment(rfc3339(following[0].utc)) if following else "",
            visible(each.description.explanation),
        )
    return table


def schedule_summary(found: ScheduledJob) -> RenderableType:
    """Return when one job is due, and what keeps it."""
    lines = [Text.assemble((visible(found.job_id), "bold"), f"  {visible(found.description.explanation)}")]
    lines.append(_state(found))
    if found.state is not None and found.state.problem is not None:
        lines.append(Text(visible(found.state.problem["message"]), style="red"))
    table = plain_table("next", "UTC")
    for tick in found.description.next:
        table.add_row(tick.local.isoformat(sep=" "), moment(rfc3339(tick.utc)))
    return Group(*lines, *([table] if found.description.next else []))


def versions_table(found: Sequence[JobVersion]) -> RenderableType:
    """Return one line for each version."""
    if not found:
        return Text("no scheduler and no backfill has seen this job yet")
    table = plain_table(">version", "since", "file", "digest")
    for each in found:
        table.add_row(str(each.version), moment(rfc3339(each.at)), each.job_file or "", each.digest[:12])
    return table


def _state(found: ScheduledJob) -> Text:
    state = found.state
    if state is None:
        return Text("no scheduler has seen it yet", style="dim")
    if state.paused:
        reason = f": {visible(state.pause_reason)}" if state.pause_reason else ""
        return Text(f"paused{reason}", style="yellow")
    if state.problem is not None:
        return Text(f"version {state.version}, for its file is not in order", style="red")
    if not state.active:
        return Text("has no file any more", style="dim")
    return Text(f"version {state.version}", style="green")
