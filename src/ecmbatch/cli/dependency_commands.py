"""``deps``: what a job hangs on, and what hangs on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ecmbatch.cli.arguments import JobArgument
from ecmbatch.cli.command import command
from ecmbatch.cli.invocation import Invocation
from ecmbatch.cli.screen import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from ecmbatch.engine.dependency_report import DependencyReport
    from ecmbatch.protocol.dependency_graph import Branch, DependencyGraph


def add_to(app: typer.Typer) -> None:
    """Add the command to *app*."""
    command(app)(deps)


def deps(
    invocation: Invocation,
    job: JobArgument,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a flow chart for Mermaid.")] = False,
) -> int:
    """Show what a job depends on and what depends on it. Also whether its dependencies are met now."""
    report = invocation.project.dependencies(job)
    invocation.answer(
        report.document,
        lambda: _chart(report) if mermaid else _report_text(report),
    )
    return 0


def _chart(report: DependencyReport) -> Text:
    from rich.text import Text

    # A broken line would be another chart.
    return Text(visible(report.graph.mermaid(report.job_id)), no_wrap=True, overflow="ignore")


def _report_text(report: DependencyReport) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    upstream = report.graph.tree(report.job_id, "upstream")
    downstream = report.graph.tree(report.job_id, "downstream")
    lines = [
        Text(visible(report.job_id), style="bold"),
        Text("depends on" if upstream else "depends on no job"),
        *(line for branch in upstream for line in _upstream_lines(branch, report)),
        Text("is needed by" if downstream else "is needed by no job"),
        *(_line(branch, report.graph) for branch in downstream),
    ]
    if report.unmet:
        lines.append(Text("a run would wait now", style="yellow"))
    elif report.reasons:
        lines.append(Text("a run could begin now", style="green"))
    return Group(*lines)


def _upstream_lines(branch: Branch, report: DependencyReport) -> Iterator[Text]:
    """Yield a job's line, and why it is not as it should be if the job itself asks for it."""
    from rich.text import Text

    line = _line(branch, report.graph)
    asked = [edge for edge in branch.edges if edge.place in report.reasons] if branch.depth == 1 else []
    reason = report.reason(asked)
    if asked:
        line.append("  not met" if reason else "  met", style="yellow" if reason else "green")
    yield line
    if reason:
        yield Text(f"      {visible(reason)}", style="dim")


def _line(branch: Branch, graph: DependencyGraph) -> Text:
    from rich.text import Text

    line = Text("  " * branch.depth + visible(branch.job))
    line.append(f"  {'; '.join(_distinct(branch))}", style="dim")
    if branch.job not in graph.jobs:
        line.append("  not in the project", style="red")
    if branch.repeated:
        line.append("  as above", style="dim")
    return line


def _distinct(branch: Branch) -> Sequence[str]:
    return list(dict.fromkeys(str(edge) for edge in branch.edges))
