"""Arguments that several commands take, and reading them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ecmbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecmbatch.protocol.scalars import Scalar

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="A job file, or the id of a job in the project's folder jobs/.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.")]
ParamOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="NAME=VALUE",
        help="A value for ${param.NAME}; numbers, true, false and null as in JSON. May be repeated.",
    ),
]
WindowStart = Annotated[
    str | None,
    typer.Option(
        "--window-start", metavar="TIME", help="Load this interval: its start, RFC 3339 with a zone."
    ),
]
WindowEnd = Annotated[
    str | None,
    typer.Option("--window-end", metavar="TIME", help="The interval's end, not part of it."),
]
FullRefresh = Annotated[
    bool, typer.Option("--full-refresh", help="Read everything again, as if there had been no run before.")
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Abandon an unfinished run instead of continuing it, and start anew.")
]
IgnoreDependencies = Annotated[
    bool, typer.Option("--ignore-dependencies", help="Run though another job has not run as required.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until what the job depends on has run.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, max=256, help="How many scans are read at once. Default: the project's."
    ),
]
Profile = Annotated[
    bool, typer.Option("--profile", help="Show where the time went, rows per second and what bounds them.")
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Do not show how far the run is.")]


def params_of(options: Sequence[str] | None) -> Mapping[str, Scalar]:
    """Return the values given with ``--param``; raises ``UsageError`` for what is not ``name=value``."""
    from ecmbatch.protocol.parameters import parse_param_option

    values: dict[str, Scalar] = {}
    for option in options or ():
        name, value = parse_param_option(option)
        if name in values:
            raise UsageError(f"--param {name} is given twice")
        values[name] = value
    return values


def window_of(start: str | None, end: str | None) -> tuple[datetime, datetime] | None:
    """Return the interval asked for; raises ``UsageError`` unless both ends or none are given, in order."""
    if start is None and end is None:
        return None
    if start is None or end is None:
        raise UsageError("--window-start and --window-end belong together; one of them is missing")
    window = time_of(start, "--window-start"), time_of(end, "--window-end")
    if window[0] >= window[1]:
        raise UsageError("--window-start must be before --window-end")
    return window


def time_of(text: str, option: str) -> datetime:
    """Return the time that *text* says; raises ``UsageError`` naming *option*."""
    from ecmbatch.protocol.parameters import parse_time

    time = parse_time(text)
    if time is None:
        raise UsageError(
            f"{option} must be a time with a zone as in RFC 3339", hint="for example 2026-01-31T00:00:00Z"
        )
    return time
