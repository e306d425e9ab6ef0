"""``init`` and ``demo``: projects to begin with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecmbatch.cli.arguments import NoProgress
from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation
from ecmbatch.errors import RunStopped

if TYPE_CHECKING:
    from ecmbatch.project import Project, RunResult


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    for each in (init, demo):
        command(app)(each)


def init(
    invocation: Invocation,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where; it is created if it does not exist.")
    ] = Path(),
) -> int:
    """Make a project with sample data. It has two jobs that run, and a README."""
    from ecmbatch.cli.job_commands import write_schema
    from ecmbatch.demo.project import build_project

    build_project(folder)
    write_schema(folder / ".ecmbatch" / "job.schema.json")
    invocation.answer(
        lambda: {"project": str(folder.resolve())},
        lambda: f"A project is in {folder}. Begin with:\n  cd {folder}\n  ecmbatch run flights-context",
    )
    return 0


def demo(
    invocation: Invocation,
    interrupt: Annotated[
        bool,
        typer.Option(
            "--interrupt", help="Kill a run half-way, continue it, and prove that nothing is amiss."
        ),
    ] = False,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Build the project here and leave it there.")
    ] = None,
    no_progress: NoProgress = False,
) -> int:
    """Show it at work. Loads a year of flights in a temporary folder, and what changed after that."""
    from ecmbatch.cli.execution import execute
    from ecmbatch.cli.story import StoryTeller
    from ecmbatch.demo.demo import tell_demo, tell_interrupted_demo

    exit_code = 0

    def run(project: Project, job: str) -> RunResult:
        nonlocal exit_code
        result, exit_code = execute(
            invocation,
            project,
            lambda stop, on_start: project.run(job, stop=stop, on_start=on_start),
            progress=not no_progress,
        )
        return result

    teller = StoryTeller(invocation)
    tell = tell_interrupted_demo if interrupt else tell_demo
    try:
        with _folder(keep) as folder:
            for told in tell(folder, run):
                teller.tell(told)
    except RunStopped as error:
        invocation.fail(error)
        return exit_code
    teller.end(keep)
    return 0


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    from tempfile import TemporaryDirectory

    if keep is not None:
        yield keep
        return
    with TemporaryDirectory(prefix="ecmbatch-demo-") as folder:
        yield Path(folder)
