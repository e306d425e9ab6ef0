"""What a scheduler has done by processes that end: plug-ins and users' modules never come into its own."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ecmbatch.engine.executors.child import start_child
from ecmbatch.engine.executors.messages import Message, Outbox
from ecmbatch.errors import Problem
from ecmbatch.service.children import how_it_ended

if TYPE_CHECKING:
    from ecmbatch.project_file import ProjectFile
    from ecmbatch.protocol.job import JobDefinition

log = logging.getLogger("ecmbatch")

_COMMAND = ("-P", "-m", "ecmbatch.service.errand")
_LONGEST_CHECK = 120.0
"""Seconds; a module that hangs while it is imported must not keep the scheduler for ever."""


class Errands:
    """Runs the errands of a scheduler of *project*; one that is under way ends with this process."""

    def __init__(self, project: ProjectFile) -> None:
        assert project.file is not None  # a service is started by the command line
        self._setup: Message = {
            "project_file": str(project.file),
            "path": sys.path,
            "log_level": log.getEffectiveLevel(),
        }
        self._environment = project.environment_for_children(os.environ)

    def check(self, jobs: Sequence[JobDefinition]) -> Sequence[Sequence[Problem]]:
        """Return what is wrong with each job by itself: also that it could not be checked."""
        found: list[Sequence[Problem]] = []
        documents = [json.loads(job.to_json()) for job in jobs]
        why = "too few answers came"
        try:
            answers = self._run({"check": documents}, longest=_LONGEST_CHECK)
            # Those that came before a failure count.
            found.extend([Problem(**problem) for problem in answer["checked"]] for answer in answers)
        except _Failed as error:
            why = str(error)
        hint = "see the log; it is checked again when a job file changes, or by: ecmbatch validate"
        missing = Problem("", f"it could not be checked: {why}", hint)
        return [*found, *([missing] for _ in jobs[len(found) :])]

    def tidy(self) -> None:
        """Begin to remove what ``[retention]`` lets go; passes do not wait for it."""
        threading.Thread(target=self._tidy, name="ecmbatch-upkeep", daemon=True).start()

    def _tidy(self) -> None:
        try:
            for _ in self._run({"tidy": True}, longest=None):
                pass
        except _Failed as error:
            log.warning("retention: %s", error, extra={"event": "retention.trouble"})

    def _run(self, errand: Message, *, longest: float | None) -> Iterator[dict[str, Any]]:
        """Run an errand and yield what it answers; it may take *longest* seconds."""
        try:
            process, requests, replies = start_child(_COMMAND, self._environment)
        except OSError as error:
            raise _Failed(f"no process can be started: {error.strerror}") from error
        with ExitStack() as opened:
            outbox = Outbox(requests)
            opened.callback(process.wait)
            # The end of the pipe is its end, whatever it does.
            opened.callback(outbox.close)
            lines = opened.enter_context(os.fdopen(replies, "rb"))
            if longest is not None:
                limit = threading.Timer(longest, process.kill)
                limit.daemon = True
                limit.start()
                opened.callback(limit.cancel)
            outbox.send({"setup": self._setup})
            outbox.send(errand)
            for line in lines:
                if (message := _answer(line)) is not None:
                    yield message
            status = process.wait()
        if status != 0:
            raise _Failed(f"the process for it {how_it_ended(status)}")


class _Failed(Exception):
    """An errand was not run to its end; says why."""


def _answer(line: bytes) -> dict[str, Any] | None:
    """Return what a line answers; write what it logs."""
    try:
        message: dict[str, Any] = json.loads(line)
    except ValueError:
        # A process that is killed may leave half a line.
        return None
    match message:
        case {"log": {"level": level, "text": text, "fields": fields}}:
            log.log(level, "%s", text, extra=fields)
            return None
    return message
