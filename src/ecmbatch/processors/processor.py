"""The processor contract (protocol: Job Specification, ``transform``).

A processor turns one Arrow record batch into another. It is row-local: the engine cuts batches where it
likes, runs partitions in parallel and replays rows after a crash, so the rows that come out may depend only
on the rows that went in, the configuration, and the facts frozen on the run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a processor may know of its run; the same through every attempt."""

    run_id: str
    job_id: str
    started_at: datetime
    """The frozen start of the run (UTC): what ``now`` means inside a transformation."""


class Processor(ABC):
    """One configured step of a transformation. Instances are shared by threads and must not keep state."""

    @abstractmethod
    def process(self, batch: pa.RecordBatch) -> pa.RecordBatch:
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
    """

    name: str
    version: str
    parse_config: Callable[[Mapping[str, Any]], Any]
    build: Callable[[Any, RunFacts], Processor]
