"""Every error this package raises.

EcmbatchError
  InvalidDocument        a job or project file breaks its rules; ``problems`` lists all of them (exit 2)
  PluginError            no such connector, processor or store, or it breaks its contract (exit 2)
  UsageError             a command or call was given something it cannot work with (exit 2)
  ConflictError          the run is not in a state that allows this (exit 6)
    RunAlreadyActive     somebody else is executing it
    RunAlreadyComplete   there is nothing left to do
    DefinitionChanged    the job changed in a way that the frozen run cannot follow
    NotResumable         the run ended for good (abandoned, success)
    StageElsewhere       the rows that the run has staged are in a folder that this host does not have
    SourceChanged        what the run started to read is no longer what is there
    Superseded           a newer run of the job has published meanwhile
    Fenced               another attempt took this run over; this one must end itself
  Unreachable            ledger, connector, store or stage cannot be reached (exit 7)
    StoreBusy            another process holds the store
  RunFailed              the run could not be completed (exit 1)
    SourceError          the source refused the query or gave unreadable rows
    TransformError       a processor raised or returned something unusable
    StageError           the stage cannot be written or read (disk full, torn file)
    IntegrityError       staged rows, files and observations disagree; nothing was published
    StoreError           the store refused the rows; nothing was published
    TimedOut             the attempt took longer than the job's ``timeout``
    WorkerDied           a process that executed a scan ended without a word
  ValidationFailed       a rule with an aborting action failed; the store is untouched (exit 3)
  DependencyNotMet       another job has not run as required (exit 4)
  RunStopped             stopped on request (exit 5)
    RunReleased          its worker shuts down; the next worker goes on with it
    RunAbandoned         given up on request; it can never be published (exit 5)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

ErrorClass = Literal["transient", "permanent", "data", "infra"]
"""What a retry may expect: *transient* may pass, *permanent* will not, *data* needs a person, *infra* is
ours."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a document.

    ``path`` is a JSON pointer into the document (``""`` is the whole), ``hint`` says what to do next.
    """

    path: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        return f"{place}{self.message}" + (f" ({self.hint})" if self.hint else "")


class EcmbatchError(Exception):
    """Base of all errors; ``code`` is stable for scripts, ``exit_code`` is the command's exit status."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    error_class: ErrorClass = "permanent"

    def __init__(
        self,
        message: str,
        *,
        problems: Iterable[Problem] = (),
        hint: str | None = None,
        error_class: ErrorClass | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.problems: Sequence[Problem] = tuple(problems)
        self.hint = hint
        if error_class is not None:
            self.error_class = error_class


class InvalidDocument(EcmbatchError):
    code = "invalid_document"
    exit_code = 2


class PluginError(EcmbatchError):
    """A plug-in is missing or breaks its contract; ``plugin`` is the object at fault, where there is one."""

    code = "plugin"
    exit_code = 2

    def __init__(self, message: str, *, plugin: object = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.plugin = plugin


class UsageError(EcmbatchError):
    code = "usage"
    exit_code = 2


class ConflictError(EcmbatchError):
    code = "conflict"
    exit_code = 6


class RunAlreadyActive(ConflictError):
    code = "run_already_active"


class RunAlreadyComplete(ConflictError):
    code = "run_already_complete"


class DefinitionChanged(ConflictError):
    code = "definition_changed"


class NotResumable(ConflictError):
    code = "not_resumable"


class StageElsewhere(ConflictError):
    code = "stage_elsewhere"


class SourceChanged(ConflictError):
    code = "source_changed"


class Superseded(ConflictError):
    code = "superseded"


class Fenced(ConflictError):
    code = "fenced"
    error_class: ErrorClass = "infra"


class Unreachable(EcmbatchError):
    code = "unreachable"
    exit_code = 7
    error_class: ErrorClass = "transient"


class StoreBusy(Unreachable):
    code = "store_busy"


class RunFailed(EcmbatchError):
    code = "run_failed"


class SourceError(RunFailed):
    code = "source"


class TransformError(RunFailed):
    code = "transform"
    error_class: ErrorClass = "data"


class StageError(RunFailed):
    code = "stage"


class IntegrityError(RunFailed):
    code = "integrity"


class StoreError(RunFailed):
    code = "store"
    error_class: ErrorClass = "data"


class TimedOut(RunFailed):
    code = "timed_out"


class WorkerDied(RunFailed):
    code = "worker_died"
    error_class: ErrorClass = "infra"


class ValidationFailed(EcmbatchError):
    """``failures`` holds one sentence per rule that failed or could not be evaluated."""

    code = "validation_failed"
    exit_code = 3
    error_class: ErrorClass = "data"

    def __init__(self, message: str, *, failures: Iterable[str], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.failures: Sequence[str] = tuple(failures)


class DependencyNotMet(EcmbatchError):
    """``unmet`` holds one sentence per dependency that is not met; ``run_id`` the run that was refused."""

    code = "dependency_not_met"
    exit_code = 4

    def __init__(self, message: str, *, unmet: Iterable[str], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.unmet: Sequence[str] = tuple(unmet)
        self.run_id: str | None = None


class RunStopped(EcmbatchError):
    """``run_id`` is the run that was stopped while it waited to begin."""

    code = "run_stopped"
    exit_code = 5
    run_id: str | None = None


class RunReleased(RunStopped):
    code = "run_released"


class RunAbandoned(RunStopped):
    code = "run_abandoned"
