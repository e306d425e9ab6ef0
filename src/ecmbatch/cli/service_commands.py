"""``serve``, ``scheduler``, ``worker``: processes that stay."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation
from ecmbatch.cli.log import LogFormat
from ecmbatch.cli.screen import is_terminal, print_document
from ecmbatch.errors import EcmbatchError, UsageError

if TYPE_CHECKING:
    from ecmbatch.project_file import ServeSettings
    from ecmbatch.service.service import ServiceOptions

Host = Annotated[
    str | None,
    typer.Option("--host", metavar="ADDRESS", help="Where it answers over HTTP. Default: the project's."),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", min=0, max=65_535, help="The port; 0 takes one that is free. Default: the project's."
    ),
]
PortOrNone = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65_535, help="Answer over HTTP at this port. Default: not at all."),
]
Slots = Annotated[
    int | None,
    typer.Option("--slots", min=1, max=256, help="Runs executed at once. Default: the project's."),
]
Grace = Annotated[
    str | None,
    typer.Option(
        "--grace",
        metavar="DURATION",
        help="How long it may take to stop, such as 30s. Default: the project's.",
    ),
]

log = logging.getLogger("ecmbatch")


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    for each in (serve, scheduler, worker):
        command(app)(each)


def serve(
    invocation: Invocation, host: Host = None, port: Port = None, slots: Slots = None, grace: Grace = None
) -> int:
    """Start runs when they are due, and execute them. Until it is stopped: Ctrl-C or SIGTERM."""

    def options(settings: ServeSettings) -> ServiceOptions:
        from ecmbatch.service.service import ServiceOptions

        return ServiceOptions(
            schedules=True,
            slots=slots or settings.slots,
            grace=_grace(grace, settings),
            address=(host or settings.host, settings.port if port is None else port),
        )

    return _serve(invocation, options)


def scheduler(invocation: Invocation, host: Host = None, port: PortOrNone = None, grace: Grace = None) -> int:
    """Start runs when they are due, for workers to execute. Until it is stopped."""

    def options(settings: ServeSettings) -> ServiceOptions:
        from ecmbatch.service.service import ServiceOptions

        return ServiceOptions(
            schedules=True,
            slots=None,
            grace=_grace(grace, settings),
            address=_address(host, port, settings),
        )

    return _serve(invocation, options)


def worker(
    invocation: Invocation,
    host: Host = None,
    port: PortOrNone = None,
    slots: Slots = None,
    grace: Grace = None,
) -> int:
    """Execute the runs that schedulers start. Until it is stopped."""

    def options(settings: ServeSettings) -> ServiceOptions:
        from ecmbatch.service.service import ServiceOptions

        return ServiceOptions(
            schedules=False,
            slots=slots or settings.slots,
            grace=_grace(grace, settings),
            address=_address(host, port, settings),
        )

    return _serve(invocation, options)


def _grace(given: str | None, settings: ServeSettings) -> timedelta:
    if given is None:
        return settings.grace
    from ecmbatch.protocol.duration import parse_duration

    try:
        return parse_duration(given)
    except ValueError as error:
        raise UsageError(f"--grace {error}") from None


def _address(host: str | None, port: int | None, settings: ServeSettings) -> tuple[str, int] | None:
    if port is not None:
        return host or settings.host, port
    if host is not None:
        raise UsageError("--host needs --port: without it nothing is answered over HTTP")
    return None


def _serve(invocation: Invocation, options: Callable[[ServeSettings], ServiceOptions]) -> int:
    if invocation.log_format is None and not is_terminal(sys.stderr):
        invocation.log_format = LogFormat.JSON
        invocation.start()
    try:
        return _run(invocation, options)
    except EcmbatchError as error:
        if invocation.json or invocation.log_format is not LogFormat.JSON:
            raise
        # Who reads lines of JSON reads nothing else.
        hint = f" ({error.hint})" if error.hint else ""
        log.error("%s%s", error.message, hint, extra={"event": "service.failed", "code": error.code})
        return error.exit_code


def _run(invocation: Invocation, options: Callable[[ServeSettings], ServiceOptions]) -> int:
    from ecmbatch.cli.signals import StopOnSignals
    from ecmbatch.engine.stopping import StopSignal
    from ecmbatch.service.service import Service

    stop = StopSignal()
    with StopOnSignals(stop, _tell_stopping):
        project = invocation.project_file
        end = Service(project, options(project.settings.serve)).run(stop)
    if invocation.json:
        print_document({"stopped": True, "killed": list(end.killed)})
    return 0 if end.clean else 1


def _tell_stopping(text: str) -> None:
    log.info("%s", text, extra={"event": "service.stopping"})
