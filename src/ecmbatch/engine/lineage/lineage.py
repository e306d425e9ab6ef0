"""Telling OpenLineage of every attempt: START when it begins, then COMPLETE, FAIL or ABORT.

No event ever fails a run, or keeps it for long. An attempt whose worker died is told to be over by the next one,
for it could not say so itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ecmbatch.engine.resources import Resources
from ecmbatch.errors import EcmbatchError, Fenced, RunStopped
from ecmbatch.ledger.records import Fence
from ecmbatch.protocol.job import JobDefinition

if TYPE_CHECKING:
    from openlineage.client.client import Event

    from ecmbatch.engine.lineage.events import State
    from ecmbatch.engine.lineage.facts import AttemptFacts
    from ecmbatch.engine.lineage.sender import Sender
    from ecmbatch.project_file import OpenLineageSettings, ProjectFile

_PATIENCE = 5.0
"""Seconds that a run waits, once, for its events to be delivered."""

_PARENT = "OPENLINEAGE_PARENT_ID"
_LOST = "worker_lost"


class Lineage:
    """Tells of the attempts at runs of *job*. Without ``[openlineage]`` in the project file it does nothing."""

    def __init__(self, job: JobDefinition, resources: Resources) -> None:
        self._job = job
        self._resources = resources
        self._settings = resources.project_file.settings.openlineage
        self._sender = _sender(self._settings, resources.project_file) if self._settings else None

    @contextmanager
    def attempt(self, fence: Fence) -> Iterator[None]:
        """Tell that an attempt begins, and how it ended."""
        if self._sender is None:
            yield
            return
        self._tell_lost(self._sender, fence)
        self._tell(self._sender, "START", fence)
        try:
            yield
        except Fenced:
            # Whoever took the run over has told that this attempt is lost.
            raise
        except (EcmbatchError, KeyboardInterrupt) as error:
            stopped = isinstance(error, RunStopped | KeyboardInterrupt)
            message = error.message if isinstance(error, EcmbatchError) else "interrupted"
            self._tell(self._sender, "ABORT" if stopped else "FAIL", fence, message)
            raise
        self._tell(self._sender, "COMPLETE", fence)

    def close(self) -> None:
        """Wait shortly for what is still to be delivered."""
        if self._sender is not None:
            self._sender.close()

    def _tell(self, sender: Sender, state: State, fence: Fence, error: str | None = None) -> None:
        try:
            facts = self._facts(fence.run_id, fence.attempt)
            ended = facts.attempt.finished_at or self._resources.ledger.clock()
        except Exception as problem:
            sender.failed(problem)
            return
        at = facts.attempt.started_at if state == "START" else ended
        sender.send(partial(self._event, state, facts, at, error))

    def _tell_lost(self, sender: Sender, fence: Fence) -> None:
        """Tell that the attempt before this one is over, if its worker ended without a word."""
        if fence.attempt == 1:
            return
        try:
            facts = self._facts(fence.run_id, fence.attempt - 1)
        except Exception as problem:
            sender.failed(problem)
            return
        lost = facts.attempt
        if lost.error is not None and lost.error["code"] == _LOST and lost.finished_at is not None:
            sender.send(partial(self._event, "ABORT", facts, lost.finished_at, str(lost.error["message"])))

    def _facts(self, run_id: str, attempt: int) -> AttemptFacts:
        from ecmbatch.engine.lineage.facts import facts_of

        return facts_of(self._job, run_id, attempt, self._resources)

    def _event(self, state: State, facts: AttemptFacts, at: datetime, error: str | None) -> Event:
        from ecmbatch.engine.lineage.events import Parent, run_event

        assert self._settings is not None
        file = self._resources.project_file
        return run_event(
            state,
            facts,
            at=at,
            error=error,
            namespace=self._settings.namespace,
            parent=Parent.from_text(file.environment.get(_PARENT, "")),
            redact=file.redact,
        )


def _sender(settings: OpenLineageSettings, file: ProjectFile) -> Sender:
    from ecmbatch.engine.lineage.sender import Sender

    transport: dict[str, Any] = dict(settings.transport)
    path = transport.get("log_file_path")
    if isinstance(path, str) and "://" not in path:
        transport["log_file_path"] = str(file.path(path))
    return Sender(transport, patience=_PATIENCE)
