"""``validate``, ``plan``, ``schema``: looking at jobs before they run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecmbatch.cli.arguments import (
    Fresh,
    FullRefresh,
    IgnoreDependencies,
    JobArgument,
    ParamOption,
    WindowEnd,
    WindowStart,
    params_of,
    window_of,
)
from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation
from ecmbatch.cli.screen import print_document
from ecmbatch.errors import EcmbatchError, InvalidDocument, Problem, UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from ecmbatch.project import Project
    from ecmbatch.protocol.schedule_words import ScheduleDescription


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    for each in (validate, plan, schema):
        command(app)(each)


def validate(
    invocation: Invocation,
    jobs: Annotated[
        list[str], typer.Argument(metavar="JOB...", help="Job files, or ids of jobs in the folder jobs/.")
    ],
) -> int:
    """Check jobs against this project. Shows all problems with their places, warnings, and when the jobs are due;
    opens nothing.
    """
    findings = [_check(invocation.project, job) for job in jobs]
    valid = all(each.valid for each in findings)
    documents = [each.document(invocation) for each in findings]
    invocation.answer(
        lambda: documents[0] if len(documents) == 1 else {"valid": valid, "jobs": documents},
        lambda: _findings_text(documents),
    )
    return 0 if valid else InvalidDocument.exit_code


def plan(
    invocation: Invocation,
    job: JobArgument,
    param: ParamOption = None,
    window_start: WindowStart = None,
    window_end: WindowEnd = None,
    full_refresh: FullRefresh = False,
    fresh: Fresh = False,
    ignore_dependencies: IgnoreDependencies = False,
) -> int:
    """Show what a run would do. Takes the options of run; reads a sample of keys at most, and writes nothing."""
    from ecmbatch.cli.tables import plan_summary

    preview = invocation.project.plan(
        job,
        params=params_of(param),
        window=window_of(window_start, window_end),
        full_refresh=full_refresh,
        fresh=fresh,
        ignore_dependencies=ignore_dependencies,
    )
    invocation.answer(preview.document, lambda: plan_summary(preview.document()))
    return 0


def schema(
    invocation: Invocation,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write to this file, not to standard output."),
    ] = None,
) -> int:
    """Print the JSON Schema of job files. Editors and other tools check and complete jobs with it."""
    from ecmbatch.protocol.job import json_schema

    if output is None:
        print_document(json_schema())
    else:
        write_schema(output)
        invocation.note(f"the schema is in {output}")
    return 0


def write_schema(path: Path) -> None:
    """Write the JSON Schema of job files to *path*."""
    from ecmbatch.protocol.job import json_schema

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the schema cannot be written to {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """What is wrong with one job, by the name it was asked for."""

    job: str
    problems: Sequence[Problem]
    warnings: Sequence[Problem] = ()
    schedule: ScheduleDescription | None = None

    @property
    def valid(self) -> bool:
        return not self.problems

    def document(self, invocation: Invocation) -> dict[str, Any]:
        return {
            "job": self.job,
            "valid": self.valid,
            "problems": [_problem(each, invocation) for each in self.problems],
            "warnings": [_problem(each, invocation) for each in self.warnings],
            "schedule": self.schedule.document() if self.schedule else None,
        }


def _check(project: Project, job: str) -> _Findings:
    """What cannot be read is a finding too, so that the other jobs are still checked."""
    try:
        report = project.validate(job)
    except EcmbatchError as error:
        if error.exit_code != InvalidDocument.exit_code:
            raise
        whole = Problem("", error.message, error.hint)
        return _Findings(job=job, problems=error.problems or [whole])
    return _Findings(job=job, problems=report.problems, warnings=report.warnings, schedule=report.schedule)


def _problem(problem: Problem, invocation: Invocation) -> dict[str, Any]:
    return {
        "path": problem.path,
        "message": invocation.redact(problem.message),
        "hint": invocation.redact(problem.hint) if problem.hint else None,
    }


def _findings_text(documents: Sequence[dict[str, Any]]) -> Text:
    from rich.text import Text

    from ecmbatch.cli.screen import visible

    text = Text()
    for document in documents:
        text.append(visible(document["job"]), style="bold")
        text.append(
            "  valid\n" if document["valid"] else "  not valid\n",
            style="green" if document["valid"] else "red",
        )
        for kind, style in (("problems", "red"), ("warnings", "yellow")):
            for found in document[kind]:
                problem = Problem(found["path"], found["message"], found["hint"])
                text.append(f"  {kind[:-1]}  ", style=style)
                text.append(visible(f"{problem}\n"))
        if document["schedule"]:
            text.append(visible(schedule_text(document["schedule"])))
    return text


def schedule_text(schedule: Mapping[str, Any]) -> str:
    """Return the lines that say when a job is due, from the document of a description: in its zone, and in UTC."""
    lines = [f"  schedule  {schedule['explanation']}"]
    for number, tick in enumerate(schedule["next"]):
        lines.append(f"  {'' if number else 'next':8}  {tick['local']}  {tick['utc']}")
    return "".join(f"{line}\n" for line in lines)
