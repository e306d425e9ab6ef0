"""``schedule list|next|pause|resume|versions|diff`` and ``emit``: when jobs start by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ecmbatch.cli.arguments import JobArgument
from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation

if TYPE_CHECKING:
    from ecmbatch.engine.scheduling.control import ScheduledJob

Count = Annotated[int, typer.Option("--count", min=1, max=1_000, help="How many times to show.")]


def make_app() -> typer.Typer:
    """Return the group of commands."""
    app = typer.Typer(name="schedule", help="When jobs start by themselves: look, pause, resume.")
    for each in (list_, next_, pause, resume, versions, diff):
        command(app)(each)
    return app


def add_to(app: typer.Typer) -> None:
    """Add the commands that stand by themselves to *app*."""
    command(app)(emit)


def list_(invocation: Invocation) -> int:
    """List the project's jobs with their next times. And which are paused or not in order."""
    from ecmbatch.cli.schedule_tables import jobs_table

    found = invocation.project.scheduled_jobs()
    invocation.answer(lambda: [each.document() for each in found], lambda: jobs_table(found))
    return 0


def next_(invocation: Invocation, job: JobArgument, count: Count = 5) -> int:
    """Show when a job is due next, in its time zone and in UTC."""
    return _show(invocation, invocation.project.next_times(job, count))


def pause(
    invocation: Invocation,
    job: JobArgument,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is shown with the job.")
    ] = None,
) -> int:
    """Let nothing start a job by itself. Runs under way go on, and commands can still run it."""
    invocation.project.pause(job, reason)
    return _show(invocation, invocation.project.next_times(job, 1))


def resume(invocation: Invocation, job: JobArgument) -> int:
    """Let a job start by itself again. Times that passed meanwhile are not made up for; events are."""
    invocation.project.unpause(job)
    return _show(invocation, invocation.project.next_times(job, 1))


def versions(invocation: Invocation, job: JobArgument) -> int:
    """List the versions of a job that schedulers and backfills have seen."""
    from ecmbatch.cli.schedule_tables import versions_table
    from ecmbatch.protocol.checkpoint import rfc3339

    found = invocation.project.versions(job)
    invocation.answer(
        lambda: [
            {
                "version": each.version,
                "at": rfc3339(each.at),
                "digest": each.digest,
                "job_file": each.job_file,
                "document": each.document,
            }
            for each in found
        ],
        lambda: versions_table(found),
    )
    return 0


def diff(
    invocation: Invocation,
    job: JobArgument,
    old: Annotated[int | None, typer.Argument(metavar="OLD", help="Default: the one before NEW.")] = None,
    new: Annotated[int | None, typer.Argument(metavar="NEW", help="Default: the newest.")] = None,
) -> int:
    """Show what changed from one version of a job to another."""
    from rich.text import Text

    from ecmbatch.cli.screen import visible

    lines = invocation.project.version_diff(job, old, new)
    invocation.answer(lambda: {"diff": lines}, lambda: Text("\n".join(visible(line) for line in lines)))
    return 0


def emit(
    invocation: Invocation,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The name that jobs wait for.")],
    key: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Of all events of one name and ID only the first counts."),
    ] = None,
) -> int:
    """Tell that something has happened. Jobs whose schedule waits for it start."""
    from rich.text import Text

    from ecmbatch.protocol.checkpoint import rfc3339

    record, is_new = invocation.project.emit(event, key=key)
    word = "emitted" if is_new else "was emitted before"
    invocation.answer(
        lambda: {
            "sequence": record.sequence,
            "event": event,
            "id": key,
            "at": rfc3339(record.at),
            "new": is_new,
        },
        lambda: Text(f"{event} {word}: event {record.sequence} of {rfc3339(record.at)}"),
    )
    return 0


def _show(invocation: Invocation, found: ScheduledJob) -> int:
    from ecmbatch.cli.schedule_tables import schedule_summary

    invocation.answer(found.document, lambda: schedule_summary(found))
    return 0
