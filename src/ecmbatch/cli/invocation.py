"""One call of the command line: where its project is, how it speaks, and how it fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecmbatch.cli.log import LogFormat, LogLevel, set_up_log
from ecmbatch.cli.screen import print_document, print_note, print_text
from ecmbatch.errors import EcmbatchError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ecmbatch.engine.history import RunView
    from ecmbatch.project import Project
    from ecmbatch.project_file import ProjectFile

_NAMED_RUNS = 5

log = logging.getLogger("ecmbatch")


class Unexpected(EcmbatchError):
    """A defect: an exception that no code was written for."""

    code = "unexpected"


@dataclass(kw_only=True)
class Invocation:
    """What the options that every command has say. The project is loaded when a command first asks for it."""

    project_path: Path | None = None
    json: bool = False
    quiet: bool = False
    log_format: LogFormat | None = None
    log_level: LogLevel = LogLevel.INFO
    _file: ProjectFile | None = field(default=None, init=False, repr=False)
    _opened: Project | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Set up the log."""
        level = self.log_level
        if self.quiet and level is LogLevel.INFO:
            level = LogLevel.WARNING
        set_up_log(self.log_format or LogFormat.TEXT, level, self.redact)

    @property
    def project_file(self) -> ProjectFile:
        """The project's file, without what :attr:`project` needs to execute runs."""
        if self._file is None:
            from ecmbatch.project_file import open_project_file

            self._file = open_project_file(self.project_path, os.environ)
        return self._file

    @property
    def project(self) -> Project:
        """The project that ``--project`` names, or the nearest one above the current folder."""
        if self._opened is None:
            from ecmbatch.project import Project

            self._opened = Project.load(self.project_path)
        return self._opened

    def run(self, run_id: str) -> RunView:
        """Return the run *run_id*; where there is none, the error says which runs there are."""
        history = self.project.history
        try:
            return history.run(run_id)
        except UsageError as error:
            recent = [
                f"{view.run.run_id} ({view.run.job_id})" for view in history.recent_runs(limit=_NAMED_RUNS)
            ]
            hint = f"the latest runs are {', '.join(recent)}" if recent else "there are no runs yet"
            raise UsageError(error.message, hint=hint) from None

    def close(self) -> None:
        """Close the project, if one was loaded."""
        if self._opened is not None:
            self._opened.close()

    def redact(self, text: str) -> str:
        """Return *text* without the project's secrets."""
        file = self._file if self._opened is None else self._opened.file
        return text if file is None else file.redact(text)

    def answer(self, document: Callable[[], Any], text: Callable[[], RenderableType]) -> None:
        """Print the answer: the document with ``--json``, else the text, unless ``--quiet``."""
        if self.json:
            print_document(document())
        elif not self.quiet:
            print_text(text())

    def answer_run(
        self, view: RunView, *, with_error: bool = True, profile: Mapping[str, Any] | None = None
    ) -> None:
        """Print a run; in words without its error, if that is told elsewhere."""

        def document() -> dict[str, Any]:
            return view.document() if profile is None else {**view.document(), "profile": profile}

        def summary() -> RenderableType:
            from ecmbatch.cli.summary import run_summary

            return run_summary(view, with_error=with_error, profile=profile)

        self.answer(document, summary)

    def note(self, text: str) -> None:
        """Tell a person something beside the answer, on standard error."""
        if not self.quiet:
            print_note(self.redact(text))

    def fail(self, error: EcmbatchError, *, run_id: str | None = None) -> int:
        """Print *error* and return what to exit with; with ``--json`` it is the answer."""
        if self.json:
            print_document(self._error_document(error, run_id))
        else:
            print_note(self._error_text(error))
        log.debug("where it happened:", exc_info=error)
        return error.exit_code

    def _error_document(self, error: EcmbatchError, run_id: str | None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "code": error.code,
            "message": self.redact(error.message),
            "problems": [
                {
                    "path": problem.path,
                    "message": self.redact(problem.message),
                    "hint": self.redact(problem.hint) if problem.hint else None,
                }
                for problem in error.problems
            ],
        }
        if error.hint:
            document["hint"] = self.redact(error.hint)
        if run_id is not None:
            document["run_id"] = run_id
        return {"error": document}

    def _error_text(self, error: EcmbatchError) -> str:
        lines = [f"error: {error.message}"]
        # A message often tells its only problem already.
        lines += [f"  {problem}" for problem in error.problems if str(problem) not in error.message]
        if error.hint:
            lines.append(f"  {error.hint}")
        return self.redact("\n".join(lines))
