"""The connector contract (protocol: Job Specification, ``source``; Recovery Behavior).

A connector reads a source as *scans*. A scan is the unit of reading: it feeds one partition, or several that
are read together, in one stable order, and its position in that order is one *cursor*. The engine asks for
the plan once, when a run starts, stores it with the run, and from then on asks only for scans of that plan:
a resumed run hands the last cursor back and gets exactly the rows after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ecmbatch.protocol.partitioning.partitions import Partitions
from ecmbatch.protocol.scalars import Scalar

ResumeKind = Literal["cursor", "position", "none"]
"""How a partial partition goes on: after a key, after a place in a file, or from its start again."""

Cursor = Mapping[str, Any]
"""A place in a scan, in the connector's own JSON values. It means: everything up to here was handed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """What a job asks its connector to read: names and plain values, the same in every attempt of a run.

    Exactly one of ``query``, ``table`` and ``path`` is set. ``parameters`` holds one value for every
    ``:name`` of the query. ``partitioning`` says which rows belong to which partition; without it there is
    one. ``order_by`` names the resume order; without it the partitioning key is used. With ``resumable``
    false the user chose to replay partial partitions from their start, and no order is needed. ``snapshot``
    alone belongs to one attempt: what :meth:`Connector.snapshot` gave for it.
    """

    query: str | None = None
    table: str | None = None
    path: str | None = None
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    partitioning: Partitions | None = None
    order_by: str | None = None
    resumable: bool = True
    batch_rows: int = 65_536
    snapshot: str | None = None

    @property
    def key(self) -> str | None:
        """The partitioning key; ``None`` where the job has one partition."""
        return None if self.partitioning is None else self.partitioning.key

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return 1 if self.partitioning is None else self.partitioning.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One pass over (a part of) the source. Plain values: it is stored with the run and shown by ``plan``."""

    number: int
    partitions: tuple[int, ...]
    resume: ResumeKind
    reason: str
    """Why this kind of resume applies, one sentence for people."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """The connector's own JSON values: a frozen file list, the order column, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """How the source will be read. Every partition 0 … n−1 is in exactly one scan.

    ``tables`` are those that are read, as ``schema.table``, ``None`` where that is not known.
    """

    schema: pa.Schema
    scans: tuple[Scan, ...]
    tables: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ScannedBatch:
    """Rows of a scan, and the cursor behind them where a checkpoint may be taken, else ``None``.

    A batch that ends inside a group of equal keys has no cursor: a resumed scan could not start there.
    """

    batch: pa.RecordBatch
    cursor: Cursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySample:
    """Some of a source's keys, evenly taken from its rows, NULLs included; all of them where they are few.

    ``rows`` is how many rows the source has, ``None`` where only its beginning was looked at.
    """

    keys: pa.Array
    rows: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowBound:
    """Up to when, by the source's clock, a read that begins now sees everything that was written.

    ``lag`` is how far before ``at`` a window ends unless the job says otherwise: for what the source cannot
    know of its writers, such as clients that stamp rows with their own clock.
    """

    at: datetime
    lag: timedelta


class Connector(ABC):
    """A configured source. Its methods may be called by several threads at once."""

    max_scans: int | None = None
    """How many scans may be open at once; ``None`` means any number."""

    def clock(self) -> datetime:
        """Return the source's own time, aware and in UTC; sources without a clock use this machine's."""
        return datetime.now(UTC)

    def window_bound(self) -> WindowBound:
        """Return where the window of a run ends that starts now; asked before anything is read.

        That is the clock, without a lag, where nobody writes to the source while it is read.
        """
        return WindowBound(at=self.clock(), lag=timedelta(0))

    def snapshot(self) -> AbstractContextManager[str | None]:
        """Hold one state of the source open; the scans of an attempt read it, in whatever process they run.

        Gives what goes into ``request.snapshot``: a name by which another connection finds the state, or
        ``None`` where the source has no such thing and every scan reads what is there when it begins.
        """
        return nullcontext(None)

    @abstractmethod
    def plan(self, request: ReadRequest) -> ReadPlan:
        """Look at the source and decide how to read it; reads no rows beyond what the schema needs.

        Raises :class:`~ecmbatch.errors.SourceError` when the request does not fit the source (no such
        table, column or file, bad SQL, duplicate column names, LIMIT with several partitions) and
        :class:`~ecmbatch.errors.Unreachable` when the source cannot be reached.
        """

    @abstractmethod
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> AbstractContextManager[Iterator[ScannedBatch]]:
        """Open *scan* and yield its rows, those after the cursor *after*, in the same order every time.

        All rows of the source that belong to the scan's partitions are yielded, and no others: the engine
        splits them by ``request.partitioning.assign``. Batches have at most
        ``request.batch_rows`` rows and the plan's schema. The last batch of a resumable scan has a cursor.
        With ``scan.resume == "none"`` *after* is always ``None``. Leaving the context releases everything.

        Raises :class:`~ecmbatch.errors.SourceChanged` when the source is no longer what was planned,
        :class:`~ecmbatch.errors.SourceError` or :class:`~ecmbatch.errors.Unreachable` as :meth:`plan` does.
        """

    def sample_keys(self, request: ReadRequest, key: str, size: int) -> KeySample:
        """Return about *size* values of the column *key* of what *request* reads, for bounds and estimates.

        Connectors that can ask their source for a sample do; others read its first million rows.
        """
        from ecmbatch.connectors.key_sample import sample_by_reading

        return sample_by_reading(self, request, key, size)

    def statement(self, request: ReadRequest, scan: Scan) -> str | None:
        """Return what *scan* asks its source for, as ``plan`` shows it: the exact query with ``$1``, ``$2`` …
        for the values of ``request.parameters``; ``None`` for sources that are not asked in a language."""
        return None

    def ping(self) -> None:
        """Reach the source and return; raises as :meth:`plan` does. For ``doctor``."""
        return

    def cancel(self) -> None:
        """Let whoever waits for the source just now, in :meth:`plan` or :meth:`read`, fail with one of our errors.

        Called from another thread when an attempt is to stop and the source gives nothing. What is asked of the
        connector afterwards works as if nothing had been. Sources that are never waited for long need none.
        """
        return

    def close(self) -> None:
        """Release what is kept between scans; a later :meth:`plan` or :meth:`read` opens it again."""
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorType:
    """A registered connector: the ``type`` a project file names, how its settings are checked and used.

    ``parse_config`` takes the settings without ``type``, secrets resolved, and raises
    :class:`~ecmbatch.errors.InvalidDocument` with pointers relative to them; it never prints values.
    ``build`` gets the checked settings and the folder of the project, against which paths are resolved.
    ``fields`` are those of ``source`` that it reads: some of ``query``, ``table``, ``path``.
    """

    name: str
    fields: frozenset[str]
    parse_config: Callable[[Mapping[str, Any]], Any]
    build: Callable[[Any, Path], Connector]
