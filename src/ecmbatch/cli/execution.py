"""Executing a run under the eyes of a person: signals, progress, and the answer at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ecmbatch.cli.invocation import Invocation
from ecmbatch.cli.progress import RunProgress
from ecmbatch.cli.signals import StopOnSignals
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import RunStopped

if TYPE_CHECKING:
    from ecmbatch.project import Project, RunResult

_ANSWERED_BY_ERROR = frozenset({2, 6, 7})
"""With these exits the answer to ``--json`` is the error; with all others it is the run."""


class Start(Protocol):
    """Starts or resumes a run and returns how it ended."""

    def __call__(self, *, stop: StopSignal, on_start: Callable[[str], None]) -> RunResult: ...


def execute(
    invocation: Invocation, project: Project, start: Start, *, progress: bool
) -> tuple[RunResult, int]:
    """Carry out *start*; return how the run ended and what to exit with."""
    stop = StopSignal()
    shown = RunProgress(lambda run_id: project.history.run(run_id), enabled=progress and not invocation.quiet)
    with StopOnSignals(stop, invocation.note) as signals, shown:
        result = start(stop=stop, on_start=shown.start)
    if signals.exit_code is not None and isinstance(result.error, RunStopped):
        return result, signals.exit_code
    return result, result.exit_code


def answer_result(invocation: Invocation, result: RunResult, exit_code: int, *, profile: bool = False) -> int:
    """Print how a run ended, with *profile* also where its time went, and return *exit_code*."""
    error = result.error
    if error is not None and invocation.json and exit_code in _ANSWERED_BY_ERROR:
        return invocation.fail(error, run_id=result.run_id)
    # In words, the error follows on standard error.
    invocation.answer_run(result.view, with_error=False, profile=result.profile if profile else None)
    if error is not None and not invocation.json:
        invocation.fail(error)
    return exit_code
