"""``watermark show|set|reset``: up to where a job's stream is loaded."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ecmbatch.cli.arguments import JobArgument, ParamOption, params_of, time_of
from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation

ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the watermark.")
]


def make_app() -> typer.Typer:
    """Return the group of commands."""
    app = typer.Typer(name="watermark", help="Show or move the time up to which a job is loaded.")
    for each in (show, set_, reset):
        command(app)(each)
    return app


def show(invocation: Invocation, job: JobArgument, param: ParamOption = None) -> int:
    """Show up to where a job is loaded. And what it was before; --param names the stream."""
    from ecmbatch.cli.tables import watermarks_table
    from ecmbatch.protocol.checkpoint import rfc3339

    job_id = _job_id(invocation, job)
    watermarks = invocation.project.watermarks(job_id, params_of(param))
    invocation.answer(
        lambda: [
            {
                "window_end": rfc3339(mark.window_end) if mark.window_end else None,
                "run_id": mark.run_id,
                "reason": mark.reason,
                "at": rfc3339(mark.at),
            }
            for mark in watermarks
        ],
        lambda: watermarks_table(watermarks),
    )
    return 0


def set_(
    invocation: Invocation,
    job: JobArgument,
    time: Annotated[str, typer.Argument(metavar="TIME", help="RFC 3339 with a zone.")],
    param: ParamOption = None,
    reason: ReasonOption = None,
) -> int:
    """Let the next run begin at TIME, wherever the latest one ended."""
    return _move(invocation, job, time_of(time, "TIME"), param, reason or "set by hand")


def reset(
    invocation: Invocation, job: JobArgument, param: ParamOption = None, reason: ReasonOption = None
) -> int:
    """Let the next run load everything again."""
    return _move(invocation, job, None, param, reason or "reset by hand")


def _move(
    invocation: Invocation, job: str, window_end: datetime | None, param: list[str] | None, reason: str
) -> int:
    invocation.project.set_watermark(
        _job_id(invocation, job), window_end, params=params_of(param), reason=reason
    )
    return show(invocation, job, param)


def _job_id(invocation: Invocation, job: str) -> str:
    """A mistyped id must not silently have a watermark of its own."""
    from ecmbatch.engine.job_files import read_job

    return read_job(job, invocation.project.file.root, Path.cwd()).job.job_id
