"""``backfill plan|create|status|pause|resume|cancel|retry``: loading a range of the past, interval by interval."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ecmbatch.cli.arguments import (
    IgnoreDependencies,
    JobArgument,
    ParamOption,
    Workers,
    params_of,
    time_of,
)
from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation

if TYPE_CHECKING:
    from ecmbatch.engine.scheduling.backfill_views import BackfillRequest, BackfillView


class Order(StrEnum):
    """Which end of the range is first."""

    ASC = "asc"
    DESC = "desc"


class Reprocess(StrEnum):
    """What is loaded again."""

    MISSING = "missing"
    FAILED = "failed"
    ALL = "all"


class OnFailure(StrEnum):
    """What the failure of an interval means for the others."""

    STOP = "stop"
    CONTINUE = "continue"


BackfillArgument = Annotated[str, typer.Argument(metavar="BACKFILL", help="The id of a backfill.")]
From = Annotated[
    str,
    typer.Option("--from", metavar="TIME", help="Where the range begins: RFC 3339 with a zone, or a date."),
]
To = Annotated[
    str, typer.Option("--to", metavar="TIME", help="Where it ends; not part of it. A date is UTC midnight.")
]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        metavar="DURATION",
        help="How long an interval is; 'schedule' splits at the job's ticks, 'none' not at all.",
    ),
]
OrderOption = Annotated[Order, typer.Option("--order", help="Oldest interval first, or newest first.")]
Concurrency = Annotated[
    int, typer.Option("--concurrency", min=1, max=256, help="How many intervals are under way at once.")
]
ReprocessOption = Annotated[
    Reprocess, typer.Option("--reprocess", help="Load what is missing, what has failed too, or all again.")
]
OnFailureOption = Annotated[
    OnFailure, typer.Option("--on-failure", help="Start nothing more after a failure, or go on.")
]
Here = Annotated[bool, typer.Option("--here", help="Execute it in this process, to its end or Ctrl-C.")]
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def make_app() -> typer.Typer:
    """Return the group of commands."""
    app = typer.Typer(name="backfill", help="Load a range of the past, interval by interval.")
    for each in (plan, create, status, pause, resume, cancel, retry):
        command(app)(each)
    return app


def plan(
    invocation: Invocation,
    job: JobArgument,
    from_: From,
    to: To,
    split: Split = "1 day",
    order: OrderOption = Order.ASC,
    concurrency: Concurrency = 1,
    reprocess: ReprocessOption = Reprocess.MISSING,
    on_failure: OnFailureOption = OnFailure.STOP,
    param: ParamOption = None,
    ignore_dependencies: IgnoreDependencies = False,
) -> int:
    """Show what create would do: intervals, conflicts, parameters, an estimate. Writes nothing."""
    from ecmbatch.cli.backfill_tables import plan_summary

    request = _request(
        from_, to, split, order, concurrency, reprocess, on_failure, param, ignore_dependencies
    )
    found = invocation.project.plan_backfill(job, request)
    invocation.answer(found.document, lambda: plan_summary(found))
    return 0


def create(
    invocation: Invocation,
    job: JobArgument,
    from_: From,
    to: To,
    split: Split = "1 day",
    order: OrderOption = Order.ASC,
    concurrency: Concurrency = 1,
    reprocess: ReprocessOption = Reprocess.MISSING,
    on_failure: OnFailureOption = OnFailure.STOP,
    param: ParamOption = None,
    ignore_dependencies: IgnoreDependencies = False,
    here: Here = False,
    workers: Workers = None,
) -> int:
    """Begin to load a range of the past. The same again goes on with it, if it is not through."""
    request = _request(
        from_, to, split, order, concurrency, reprocess, on_failure, param, ignore_dependencies
    )
    view, is_new = invocation.project.create_backfill(job, request)
    if not is_new:
        invocation.note(f"going on with backfill {view.backfill.backfill_id}, which was made before")
    return _go_on(invocation, view, here=here, workers=workers)


def status(
    invocation: Invocation,
    backfill: Annotated[
        str | None,
        typer.Argument(metavar="BACKFILL", help="The id of a backfill; without it, all are listed."),
    ] = None,
    job: Annotated[
        str | None, typer.Option("--job", metavar="JOB", help="Only backfills of the job with this id.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="How many at most.")] = 20,
) -> int:
    """Show how far a backfill is. Or list the latest ones."""
    from ecmbatch.cli.backfill_tables import backfills_table

    if backfill is not None:
        return _show(invocation, invocation.project.backfills.status(backfill))
    found = invocation.project.backfills.recent(job_id=job, limit=limit)
    invocation.answer(
        lambda: [each.document(with_ranges=False) for each in found], lambda: backfills_table(found)
    )
    return 0


def pause(invocation: Invocation, backfill: BackfillArgument) -> int:
    """Start nothing more of a backfill. What is under way goes on to its end."""
    return _show(invocation, invocation.project.backfills.pause(backfill))


def resume(
    invocation: Invocation, backfill: BackfillArgument, here: Here = False, workers: Workers = None
) -> int:
    """Go on with a backfill that was paused, cancelled or stopped by a failure. What failed is tried again."""
    return _go_on(invocation, invocation.project.backfills.resume(backfill), here=here, workers=workers)


def cancel(invocation: Invocation, backfill: BackfillArgument) -> int:
    """Start nothing more of a backfill and stop what is under way. It can be resumed."""
    return _show(invocation, invocation.project.backfills.cancel(backfill))


def retry(
    invocation: Invocation, backfill: BackfillArgument, here: Here = False, workers: Workers = None
) -> int:
    """Try the intervals again that failed, from their checkpoints."""
    return _go_on(invocation, invocation.project.backfills.retry(backfill), here=here, workers=workers)


def _request(
    from_: str,
    to: str,
    split: str,
    order: Order,
    concurrency: int,
    reprocess: Reprocess,
    on_failure: OnFailure,
    param: list[str] | None,
    ignore_dependencies: bool,
) -> BackfillRequest:
    from ecmbatch.engine.scheduling.backfill_views import BackfillRequest

    return BackfillRequest(
        start=_instant(from_, "--from"),
        end=_instant(to, "--to"),
        params=params_of(param),
        split=split,
        order=order.value,
        concurrency=concurrency,
        reprocess=reprocess.value,
        on_failure=on_failure.value,
        ignore_dependencies=ignore_dependencies,
    )


def _instant(text: str, option: str) -> datetime:
    """Return the time that *text* says; a date is its midnight in UTC."""
    return time_of(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text, option)


def _go_on(invocation: Invocation, view: BackfillView, *, here: bool, workers: int | None) -> int:
    backfill_id = view.backfill.backfill_id
    if here:
        return _execute(invocation, backfill_id, workers)
    if view.left:
        invocation.note(
            "workers execute it (ecmbatch serve); or execute it here: "
            f"ecmbatch backfill resume {backfill_id} --here"
        )
    return _show(invocation, view)


def _execute(invocation: Invocation, backfill_id: str, workers: int | None) -> int:
    from ecmbatch.cli.signals import StopOnSignals
    from ecmbatch.engine.stopping import StopSignal

    stop = StopSignal()
    with StopOnSignals(stop, invocation.note) as signals:
        view = invocation.project.backfills.execute(backfill_id, workers=workers, stop=stop)
    _show(invocation, view)
    return view.exit_code if signals.exit_code is None else signals.exit_code


def _show(invocation: Invocation, view: BackfillView) -> int:
    from ecmbatch.cli.backfill_tables import backfill_summary

    invocation.answer(view.document, lambda: backfill_summary(view))
    return 0
