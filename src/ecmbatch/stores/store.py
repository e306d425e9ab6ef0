"""The store contract: publish staged rows in one transaction, exactly once (protocol: ``sink``).

A store keeps two small tables of its own beside the data. A row of ``_ecmbatch_publications`` is a *marker*:
it commits together with the data, so the marker is the truth about what was published. A row of
``_ecmbatch_heads`` is the *head*: the latest live run of a job, table and stream, moved by compare-and-swap,
so that a run that was overtaken can never publish late.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

Mode = Literal["append", "upsert", "replace"]
Outcome = Literal["published", "abandoned"]

PROVENANCE_COLUMN = "_ecm_run_id"
"""The run that inserted or last changed a row; left out of change detection and equality."""

PARTITION_COLUMN = "_ecm_partition"
"""A staged row's partition (int32): with its place in the file it gives the order of folding."""

RESERVED_PREFIX = "_ecm_"
"""Columns of a job's own must not start with this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The latest live run that was published for a job, table and stream."""

    run_id: str
    window_end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRows:
    """What a publication did to the table, in rows."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    folded: int = 0
    """Staged rows that gave way to another staged row of the same key."""
    outdated: int = 0
    """Staged rows that gave way to a stored row that is newer by ``order_by``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The committed fact that a run was published, or that it never may be."""

    run_id: str
    outcome: Outcome
    manifest: str | None
    rows: PublishedRows
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """One sealed Parquet file of the stage; files are given in the order of their sequence per scan."""

    path: Path
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTable:
    """What a store knows of a table: columns in order (without ``_ecm_run_id``), primary key, rows."""

    schema: pa.Schema
    primary_key: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """What a publication that was killed has left in a store, and nobody uses."""

    name: str
    run_id: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WidenedColumn:
    """A stored column whose type has to change so that it can hold the staged values too."""

    name: str
    before: pa.DataType
    after: pa.DataType


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChange:
    """What a publication means for the columns of a stored table; empty where there is no table yet.

    ``added`` are staged columns that the table lacks, ``undelivered`` stored ones that the stage lacks, each
    in its own order; the provenance column is neither. A renamed column is one of each.
    """

    added: tuple[str, ...] = ()
    widened: tuple[WidenedColumn, ...] = ()
    undelivered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Everything a store needs to publish a run; plain values, the same however often it is tried.

    ``schema`` is that of the staged rows without ``_ecm_partition``. ``key`` is empty for append and replace
    without a key. ``expected_head`` is the head frozen when the run started. Only ``live`` runs check and
    move the head; backfills rely on their marker alone. ``expected_version`` is for a run that read the table
    it publishes to: the version that the table had then, ``None`` where that does not matter.
    """

    run_id: str
    job_id: str
    stream: str
    table: str
    mode: Mode
    key: tuple[str, ...] = ()
    order_by: str | None = None
    schema: pa.Schema
    files: Sequence[StagedFile]
    manifest: str
    live: bool = True
    expected_head: str | None = None
    expected_version: int | None = None
    window_end: datetime | None = None
    provenance: bool = True
    evolve: bool = True
    allow_empty: bool = False


class Store(ABC):
    """A configured context store. Only one thread of a process publishes at a time."""

    @abstractmethod
    def table(self, name: str) -> TargetTable | None:
        """Describe a table, or ``None`` where it does not exist yet."""

    @abstractmethod
    def head(self, job_id: str, table: str, stream: str) -> Head | None:
        """Return the latest live run published for this job, table and stream."""

    @abstractmethod
    def marker(self, run_id: str) -> Marker | None:
        """Return the marker of a run, if it was published or abandoned."""

    @abstractmethod
    def versions(self) -> Mapping[str, int]:
        """Return how many runs were published to each table, by the names of :meth:`table_name`.

        Counted from the markers, so it only grows; a table that no run was published to is left out.
        """

    def table_name(self, name: str) -> str:
        """Return the one name that stands for *name* in :meth:`versions`, however a job writes it."""
        return name

    def check(self, publication: Publication) -> TableChange:
        """Tell how :meth:`publish` would change the table's columns, before a row is read.

        Called when the run starts with the output schema and no files. Refuses what ``publish`` would refuse
        whatever the rows are, as far as that can be known: raises :class:`~ecmbatch.errors.StoreError` (mode,
        key, table or column types do not fit). Head and version are not looked at.
        """
        return TableChange()

    @abstractmethod
    def publish(self, publication: Publication, at: datetime) -> Marker:
        """Publish the staged files in one transaction, and return the marker that committed with it.

        In this order: compare ``expected_version``; insert the marker; move the head from ``expected_head``
        (live runs); change the columns; fold duplicate keys (the greatest ``order_by``, NULL lowest, a tie
        and a missing ``order_by`` take the last in (partition, file, row) order); apply the mode; commit.
        Readers see all of it or nothing.

        * Where the marker is already there as published, nothing is written and it is returned as it is.
        * ``append`` inserts every staged row; ``upsert`` changes only delivered columns of stored rows and
          leaves rows that would not change as they are; ``replace`` leaves exactly the staged rows.
        * Where ``evolve`` allows it, new columns are added, and a stored column that cannot hold the staged
          values gets the type that holds every value of both, whatever the mode. No column gets narrower or
          is dropped; one that would lose values refuses the whole.

        Raises :class:`~ecmbatch.errors.Fenced` (the run was abandoned), :class:`~ecmbatch.errors.Superseded`
        (head or version is another), :class:`~ecmbatch.errors.StoreBusy` (another process holds it; waited
        in vain), :class:`~ecmbatch.errors.StoreError` (NULL in a key, incompatible types, an empty replace of
        a table with rows …). After any error the store is as it was.
        """

    @abstractmethod
    def abandon(self, run_id: str, at: datetime) -> Marker:
        """Insert the tombstone of a run, so that it can never be published; idempotent.

        Returns the marker that stands: ``published`` if the run was published before.
        """

    def leftovers(self) -> Sequence[Leftover]:
        """Return what killed publications have left beside the tables, and no live one uses.

        Nothing for a store that leaves nothing.
        """
        return ()

    def remove_leftover(self, name: str) -> bool:
        """Remove one of :meth:`leftovers`; tell whether it is gone, or is in use after all."""
        return True

    def close(self) -> None:
        """Release connections that are kept between calls."""
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreType:
    """A registered store: the ``type`` a project file names, how its settings are checked and used.

    ``parse_config`` and ``build`` are as for connectors. ``build`` also gets a listener for sentences worth
    telling the user while the store waits for somebody else. ``source`` gives, for the checked settings, the
    ``type`` of the connector that reads this store and that connector's settings; ``None`` where jobs cannot
    read the store.
    """

    name: str
    parse_config: Callable[[Mapping[str, Any]], Any]
    build: Callable[[Any, Path, Callable[[str], None]], Store]
    source: Callable[[Any], tuple[str, Mapping[str, Any]]] | None = None
