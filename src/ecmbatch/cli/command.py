"""Declaring a command: its own arguments, the options that every command has, and what becomes of errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ecmbatch.cli.invocation import Invocation, Unexpected
from ecmbatch.cli.log import LogFormat, LogLevel
from ecmbatch.errors import EcmbatchError

Command = Callable[..., int]
"""Takes an :class:`Invocation` and its own arguments; returns what to exit with."""


def command(app: typer.Typer) -> Callable[[Command], Command]:
    """Make a function a command of *app*, under its own name and with its docstring as help."""

    shared = inspect.signature(_invocation, eval_str=True).parameters

    def register(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        _, *own = inspect.signature(function).parameters.values()
        parameters = [
            *(each.replace(annotation=hints[each.name]) for each in own),
            *shared.values(),
        ]

        def called(**values: Any) -> int:
            invocation = _invocation(**{name: values.pop(name) for name in shared})
            return _carry_out(function, invocation, values)

        # Typer reads a command's parameters from its signature.
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(function.__name__.rstrip("_"), help=inspect.getdoc(function))(called)
        return function

    return register


def _invocation(
    *,
    project: Annotated[
        Path | None,
        typer.Option(
            help="The project file or its folder. Default: the nearest ecmbatch.toml above the current folder.",
            metavar="PATH",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors and warnings only.")] = False,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            help="How log lines are written. Default: text; for serve, scheduler and worker json, unless standard "
            "error is a terminal.",
            show_default=False,
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="What is worth a log line; debug adds traces.")
    ] = LogLevel.INFO,
) -> Invocation:
    return Invocation(
        project_path=project, json=json, quiet=quiet, log_format=log_format, log_level=log_level
    )


def _carry_out(function: Command, invocation: Invocation, values: dict[str, Any]) -> int:
    """No error leaves a command as a traceback."""
    invocation.start()
    try:
        return function(invocation, **values)
    except EcmbatchError as error:
        return invocation.fail(error)
    except Exception as error:
        unexpected = Unexpected(
            f"this is a defect of ecmbatch or of a plug-in: an unexpected {type(error).__name__}",
            hint="run it again with --log-level debug and report the trace",
        )
        unexpected.__cause__ = error
        return invocation.fail(unexpected)
    finally:
        invocation.close()
