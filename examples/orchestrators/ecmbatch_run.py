"""A run of ecmbatch as a step of an orchestrator: what is started, what its exit code means, what it found.

Needs Python 3.11 and nothing else: ecmbatch is started as a command, which may be of another environment. Copy this
file beside your DAGs or assets. From a shell:

    python ecmbatch_run.py flights --project /srv/etl
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, Literal

Decision = Literal["done", "skip", "retry", "fail"]
"""What an orchestrator should do: go on; go on without this step; try the same command again; call a person."""

_OF_EXIT: Mapping[int, Decision] = {
    0: "done",
    1: "retry",  # the run failed: the same command continues it
    2: "fail",  # usage, or an invalid job or project
    3: "fail",  # validation failed: the same rows would fail again
    4: "skip",  # a dependency is not met
    5: "fail",  # somebody stopped or abandoned it: not ours to undo
    7: "retry",  # ledger, source or store cannot be reached
}
_OF_CONFLICT: Mapping[str, Decision] = {
    "run_already_complete": "done",  # this interval is loaded: so it should be
    "run_already_active": "retry",  # an earlier try is still at it
    "fenced": "retry",  # another try took over
}
_FACTS = ("run_id", "status", "attempt", "window", "as_of", "rows", "publication")
_RUN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How the command ended: its exit code (negative: the signal that killed it) and the document it printed."""

    exit_code: int
    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def decision(self) -> Decision:
        """What to do now."""
        if self.exit_code == 6:
            return _OF_CONFLICT.get(str(self._error.get("code")), "fail")
        # What is left was ended by a signal, as orchestrators do: the same command continues it.
        return _OF_EXIT.get(self.exit_code, "retry")

    @property
    def message(self) -> str:
        """Why it did not succeed, and what to do, for people; empty after success."""
        if not self._error:
            return "" if self.exit_code == 0 else f"ecmbatch ended with exit code {self.exit_code}"
        hint = self._error.get("hint")
        return f"{self._error['message']}{f'; {hint}' if hint else ''}"

    @property
    def facts(self) -> dict[str, Any]:
        """What later steps may want to know: rows, window, as_of, where it was published, how it was judged."""
        facts = {name: self.document[name] for name in _FACTS if name in self.document}
        validation = self.document.get("validation")
        return {**facts, "validation": validation["outcome"]} if validation else facts

    @property
    def _error(self) -> Mapping[str, Any]:
        return self.document.get("error") or {}


def run(
    job: str,
    *,
    project: str,
    window: tuple[datetime, datetime] | None = None,
    params: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    ecmbatch: Sequence[str] = ("ecmbatch",),
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    started: Callable[[subprocess.Popen[str]], None] = lambda process: None,
    grace: float = 60,
) -> Finished:
    """Run *job* of the *project*, or continue its unfinished run; with a *window* load that interval, once.

    *environment* is added to that of this process. *log* gets every line of the log. *started* gets the
    process: ``terminate`` asks the run to stop at a checkpoint. Whatever interrupts this function (SIGTERM, an
    orchestrator's exception) asks for the same, waits *grace* seconds for it, and then goes on its way.
    """
    words = [*ecmbatch, "run", job, "--project", project, "--json", "--no-progress"]
    if window is not None:
        start, end = (instant.isoformat() for instant in window)
        words += ["--window-start", start, "--window-end", end]
    for name, value in (params or {}).items():
        words += ["--param", f"{name}={value}"]
    variables = {**os.environ, **(environment or {})}
    finished = _finished(words, variables, log, started, grace)
    done_before = _RUN_ID.search(finished.message) if finished.decision == "done" else None
    if done_before is None:
        return finished
    shown = subprocess.run(  # noqa: S603
        [*ecmbatch, "show", done_before[0], "--project", project, "--json"],
        env=variables,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Finished(exit_code=0, document=_document(shown.stdout))


def _finished(
    words: Sequence[str],
    variables: Mapping[str, str],
    log: Callable[[str], None],
    started: Callable[[subprocess.Popen[str]], None],
    grace: float,
) -> Finished:
    pipe = subprocess.PIPE
    with (
        _sigterm_interrupts(),
        subprocess.Popen(  # noqa: S603
            words, env=variables, stdout=pipe, stderr=pipe, encoding="utf-8"
        ) as process,
    ):
        assert process.stdout is not None and process.stderr is not None
        lines = threading.Thread(target=_pass_on, args=(process.stderr, log))
        lines.start()
        try:
            started(process)
            printed = process.stdout.read()
        except BaseException:
            _stop(process, grace)
            raise
        finally:
            lines.join()
    return Finished(exit_code=process.returncode, document=_document(printed))


def _pass_on(lines: IO[str], log: Callable[[str], None]) -> None:
    for line in lines:
        log(line.rstrip("\n"))


def _stop(process: subprocess.Popen[str], grace: float) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        # Nothing is lost: the next try goes on at the last checkpoint.
        process.kill()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise an exception where it would end this process at once and leave the run behind."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _document(printed: str) -> Mapping[str, Any]:
    try:
        document = json.loads(printed)
    except ValueError:
        # It was killed before it could answer.
        return {}
    return document if isinstance(document, dict) else {}


def main() -> int:
    """Run a job and exit with 0 (go on), 75 (try again later) or 1 (call a person), as simple schedulers expect."""
    parser = argparse.ArgumentParser(description="Run a job of ecmbatch, or continue it.")
    parser.add_argument("job")
    parser.add_argument("--project", default=".")
    parser.add_argument("--window-start", type=datetime.fromisoformat)
    parser.add_argument("--window-end", type=datetime.fromisoformat)
    given = parser.parse_args()
    window = (given.window_start, given.window_end) if given.window_start and given.window_end else None
    finished = run(given.job, project=given.project, window=window)
    print(json.dumps({"decision": finished.decision, "message": finished.message, **finished.facts}))
    return {"done": 0, "skip": 0, "retry": 75, "fail": 1}[finished.decision]


if __name__ == "__main__":
    sys.exit(main())
