"""``run``, ``resume``, ``stop``, ``abandon``: changing what runs do."""

from __future__ import annotations

from typing import Annotated

import typer

from ecmbatch.cli.arguments import (
    Fresh,
    FullRefresh,
    IgnoreDependencies,
    JobArgument,
    NoProgress,
    ParamOption,
    Profile,
    RunArgument,
    Wait,
    WindowEnd,
    WindowStart,
    Workers,
    params_of,
    window_of,
)
from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation
from ecmbatch.errors import RunAlreadyComplete


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    for each in (run, resume, stop, abandon):
        command(app)(each)


def run(
    invocation: Invocation,
    job: JobArgument,
    param: ParamOption = None,
    window_start: WindowStart = None,
    window_end: WindowEnd = None,
    full_refresh: FullRefresh = False,
    fresh: Fresh = False,
    ignore_dependencies: IgnoreDependencies = False,
    wait: Wait = False,
    workers: Workers = None,
    profile: Profile = False,
    no_progress: NoProgress = False,
) -> int:
    """Run a job, or continue its unfinished run. The latter when the job is still the same."""
    from ecmbatch.cli.execution import answer_result, execute

    params, window = params_of(param), window_of(window_start, window_end)
    project = invocation.project
    result, exit_code = execute(
        invocation,
        project,
        lambda stop, on_start: project.run(
            job,
            params=params,
            window=window,
            full_refresh=full_refresh,
            fresh=fresh,
            ignore_dependencies=ignore_dependencies,
            wait=wait,
            workers=workers,
            stop=stop,
            on_start=on_start,
        ),
        progress=not no_progress,
    )
    return answer_result(invocation, result, exit_code, profile=profile)


def resume(
    invocation: Invocation,
    run: RunArgument,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="JOB", help="Where the job is now, if not where it was."),
    ] = None,
    accept_definition_change: Annotated[
        bool,
        typer.Option(
            "--accept-definition-change",
            help="Go on though the job changed: with its new transform and sink, and the frozen source.",
        ),
    ] = False,
    workers: Workers = None,
    profile: Profile = False,
    no_progress: NoProgress = False,
) -> int:
    """Continue a run from its checkpoints. After a failed validation it is judged again by the rules now."""
    from ecmbatch.cli.execution import answer_result, execute

    project = invocation.project
    invocation.run(run)
    result, exit_code = execute(
        invocation,
        project,
        lambda stop, on_start: project.resume(
            run,
            job=job,
            accept_definition_change=accept_definition_change,
            workers=workers,
            stop=stop,
            on_start=on_start,
        ),
        progress=not no_progress,
    )
    return answer_result(invocation, result, exit_code, profile=profile)


def stop(invocation: Invocation, run: RunArgument) -> int:
    """Ask a run to stop at its next checkpoint. It can be resumed."""
    invocation.run(run)
    invocation.answer_run(invocation.project.stop(run))
    return 0


def abandon(
    invocation: Invocation,
    run: RunArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the run.")
    ] = "abandoned on request",
) -> int:
    """Give a run up for good. It can never be published then."""
    invocation.run(run)
    view = invocation.project.abandon(run, reason)
    if view.run.publication is not None:
        raise RunAlreadyComplete(f"run {run} was published before it could be abandoned")
    invocation.answer_run(view)
    return 0
