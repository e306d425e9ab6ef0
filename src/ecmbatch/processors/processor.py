"""The processor contract (protocol: Job Specification, ``transform``).

A processor turns one Arrow record batch into another. It is row-local: the engine cuts batches where it
likes, runs partitions in parallel and replays rows after a crash, so the rows that come out may depend only
on the rows that went in, the configuration, and the facts frozen on the run.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from ecmbatch.protocol.job import SourceName


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a processor may know of its run; the same through every attempt."""

    run_id: str
    job_id: str
    started_at: datetime
    """The frozen start of the run (UTC): what ``now`` means inside a transformation."""
    references: Sequence[pa.Table] = ()
    """The rows of the processor's :attr:`ProcessorType.references`, in their order, read once for the run.
    They are empty while output schemas are learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Rows that a processor looks things up in: of a connector or a store of the project, as a source asks."""

    connector: str | None = None
    store: str | None = None
    query: str | None = None
    table: str | None = None
    path: str | None = None

    @property
    def digest(self) -> str:
        """Stands for the reference in a run: processors that ask for the same rows share them."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def source(self) -> SourceName:
        """The connector or the store that has the rows."""
        if self.store is not None:
            return SourceName("store", self.store)
        assert self.connector is not None
        return SourceName("connector", self.connector)


@dataclass(frozen=True, slots=True)
class Transformed:
    """Transformed rows, and what was counted on the way: summed up over the run and shown in its report."""

    batch: pa.RecordBatch
    counts: Mapping[str, int] = field(default_factory=dict)


class Processor(ABC):
    """One configured step of a transformation. Instances are shared by threads and must not keep state."""

    @abstractmethod
    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch | Transformed:
        """Return the transformed rows, in order; the schema must be the same for every batch of a run.

        Raise any exception to fail the run: the engine adds partition and offset to it. Rows may be
        dropped (they count as *filtered*). An empty batch must give an empty batch of the output schema.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorType:
    """A registered processor: its name, how its configuration is checked, and how it is built.

    ``parse_config`` takes the job's ``transform.config`` object and returns the checked configuration; it
    raises :class:`~ecmbatch.errors.InvalidDocument` with pointers relative to ``config``.
    ``version`` enters the job's digest: distribution version or source hash.
    ``references`` names, from the checked configuration, the tables that are read once per run and given to
    ``build`` in :attr:`RunFacts.references`; they must fit into memory.
    """

    name: str
    version: str
    parse_config: Callable[[Mapping[str, Any]], Any]
    build: Callable[[Any, RunFacts], Processor]
    references: Callable[[Any], Sequence[Reference]] = lambda config: ()
