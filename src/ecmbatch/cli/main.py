"""The command ``ecmbatch``.

What takes long to import is imported by the commands that need it: ``ecmbatch --help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import typer
from typer.main import get_command

from ecmbatch import __version__
from ecmbatch.cli import (
    backfill_commands,
    dependency_commands,
    history_commands,
    job_commands,
    project_commands,
    run_commands,
    schedule_commands,
    service_commands,
    upkeep_commands,
    watermark_commands,
)
from ecmbatch.cli.invocation import Invocation
from ecmbatch.cli.screen import tolerate_any_text
from ecmbatch.errors import UsageError

# Typer has a public name for one error of its parser only; all of them have this base.
_PARSER_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with *arguments*, by default those of the process; return what to exit with."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    tolerate_any_text()
    try:
        code = _command_line().main(given or ["--help"], "ecmbatch", standalone_mode=False)
    except _PARSER_ERROR as error:
        return Invocation(json="--json" in given).fail(_usage_error(error))
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    return int(code or 0)


@cache
def _command_line() -> Any:
    # Typer looks long at the signatures of all commands.
    return get_command(make_app())


def make_app() -> typer.Typer:
    """Return the command line with all of its commands."""
    app = typer.Typer(
        help="Batch jobs for context stores: every row exactly once, checked before anyone can read it.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_of_all_commands)
    for group in (
        project_commands,
        job_commands,
        dependency_commands,
        run_commands,
        schedule_commands,
        service_commands,
        history_commands,
        upkeep_commands,
    ):
        group.add_to(app)
    app.add_typer(schedule_commands.make_app())
    app.add_typer(backfill_commands.make_app())
    app.add_typer(watermark_commands.make_app())
    return app


def _print_version(asked: bool) -> None:
    if asked:
        print(f"ecmbatch {__version__}")
        raise typer.Exit


def _of_all_commands(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    return


def _usage_error(error: Exception) -> UsageError:
    context = getattr(error, "ctx", None)
    message = getattr(error, "format_message", error.__str__)()
    path = context.command_path if context is not None else "ecmbatch"
    return UsageError(message.rstrip("."), hint=f"see: {path} --help")
