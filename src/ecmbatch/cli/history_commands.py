"""``runs``, ``show``, ``why``, ``checkpoints``: looking at what happened."""

from __future__ import annotations

from typing import Annotated

import typer

from ecmbatch.cli.arguments import RunArgument
from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation
from ecmbatch.cli.screen import visible


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    for each in (runs, show, why, checkpoints):
        command(app)(each)


def runs(
    invocation: Invocation,
    job: Annotated[
        str | None, typer.Option("--job", metavar="JOB", help="Only runs of the job with this id.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at most.")] = 20,
) -> int:
    """List runs, the newest first."""
    from ecmbatch.cli.tables import runs_table

    views = invocation.project.history.recent_runs(job_id=job, limit=limit)
    invocation.answer(lambda: [view.document() for view in views], lambda: runs_table(views))
    return 0


def show(invocation: Invocation, run: RunArgument) -> int:
    """Show one run. How far it is, what it read and published, what validation said."""
    invocation.answer_run(invocation.run(run))
    return 0


def why(invocation: Invocation, run: RunArgument) -> int:
    """Explain why a run is as it is. And what can be done."""
    view = invocation.run(run)
    sentences = invocation.project.history.why(run)
    invocation.answer(
        lambda: {"run_id": run, "status": str(view.run.status), "why": sentences},
        lambda: visible("\n".join(sentences)),
    )
    return 0


def checkpoints(
    invocation: Invocation,
    run: RunArgument,
    every: Annotated[bool, typer.Option("--all", help="Every checkpoint, not only the latest ones.")] = False,
) -> int:
    """Show the latest checkpoint of each partition of a run."""
    from ecmbatch.cli.tables import checkpoints_table

    invocation.run(run)
    documents = invocation.project.history.checkpoints(run, every=every)
    if every and invocation.project.history.is_forgotten(run):
        invocation.note("the run ended long ago: gc has removed all checkpoints but the latest ones")
    invocation.answer(lambda: documents, lambda: checkpoints_table(documents))
    return 0
