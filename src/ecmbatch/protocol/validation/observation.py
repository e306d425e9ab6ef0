"""The contract of what a rule counts.

An observation turns batches into a small *state* that can be saved with a checkpoint and merged later, so
that a resumed run counts every row once and the result does not depend on how the rows were cut.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa

from ecmbatch.protocol.validation.predicate import Where
from ecmbatch.protocol.validation.rules import Stage


class Unobservable(Exception):
    """Why rows cannot be counted: one sentence without values of rows. It ends in the state."""


class State(Protocol):
    """A frozen value. A state with an ``error`` holds nothing else: the rule could not be evaluated."""

    @property
    def rows(self) -> int:
        """Rows that were looked at."""

    @property
    def error(self) -> str | None:
        """Why the rows could not be counted, else None."""


StateT = TypeVar("StateT", bound=State)


class Observation(ABC, Generic[StateT]):
    """Counts for one rule, over the rows of one stage for which ``where`` holds.

    Laws: ``merge`` is associative, ``init()`` is its identity, and for any cut of the rows into batches the
    merged states equal the state of a single pass.
    """

    version: ClassVar[int] = 1
    """Raised when states of before can no longer be merged with states of now."""

    def __init__(self, *, stage: Stage, where: Where | None) -> None:
        self.stage = stage
        self.where = where

    @abstractmethod
    def init(self) -> StateT:
        """The state of no rows."""

    def update(self, state: StateT, batch: pa.RecordBatch) -> StateT:
        """Return *state* with the rows of *batch* counted in.

        What is wrong with the rows is noted in the state and never raised, because a rule that cannot be
        evaluated has to end in the report. Only running out of memory is raised: it says nothing about them.
        """
        try:
            counted = self._count(batch)
        except Unobservable as reason:
            counted = self._failed(str(reason))
        except MemoryError:
            raise
        except Exception as unexpected:
            # Its text may hold values of rows; the type's name cannot.
            counted = self._failed(f"{type(unexpected).__name__} while counting the rows")
        return self.merge(state, counted)

    def merge(self, first: StateT, second: StateT) -> StateT:
        """Return the state of the rows of both; of two errors the first remains."""
        if first.error is not None:
            return first
        if second.error is not None:
            return second
        return self._sum(first, second)

    def encode(self, state: StateT) -> dict[str, Any]:
        """Return *state* as JSON."""
        return {"error": state.error} if state.error is not None else self._encode(state)

    def decode(self, value: dict[str, Any]) -> StateT:
        """Return the state whose JSON is *value*; raises ``ValueError`` for anything else."""
        try:
            return self._failed(str(value["error"])) if "error" in value else self._decode(value)
        except (KeyError, TypeError) as reason:
            raise ValueError(f"not the state of a {type(self).__name__}") from reason

    @abstractmethod
    def _count(self, batch: pa.RecordBatch) -> StateT:
        """The state of the rows of *batch* alone; raises :class:`Unobservable`."""

    @abstractmethod
    def _failed(self, error: str) -> StateT:
        """The state that holds nothing but *error*."""

    @abstractmethod
    def _sum(self, first: StateT, second: StateT) -> StateT:
        """:meth:`merge` for states without errors."""

    @abstractmethod
    def _encode(self, state: StateT) -> dict[str, Any]:
        """:meth:`encode` for a state without error."""

    @abstractmethod
    def _decode(self, value: dict[str, Any]) -> StateT:
        """:meth:`decode` for a state without error."""
