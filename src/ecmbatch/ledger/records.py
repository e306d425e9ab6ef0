"""What the ledger hands out: frozen records of what it remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ecmbatch.ledger.owner import Owner
from ecmbatch.protocol.checkpoint import PartitionStatus
from ecmbatch.protocol.run import RunStatus

Document = Mapping[str, Any]
"""A JSON object of plain values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What an attempt shows with every write: the ledger refuses it once the run has a later epoch."""

    run_id: str
    attempt: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run as it is created: identity and what was given, nothing resolved yet."""

    run_id: str
    job_id: str
    run_key: str
    stream: str
    lane: str
    """Runs of one lane exclude each other: the stream for live runs, the interval for backfills."""
    live: bool
    trigger: str
    digest: str
    definition: Document
    job_file: str | None
    options: Document
    scheduled_for: datetime
    job_version: int | None = None
    """The version of the job that a worker executes; ``None`` for a run that its own command executes."""
    waiting: Sequence[str] | None = None
    wait_until: datetime | None = None
    backfill_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it is remembered. ``plan`` and what belongs to it are there once the first attempt started.

    ``number`` orders runs by their creation; clocks can be set back.
    """

    run_id: str
    number: int
    job_id: str
    run_key: str
    stream: str
    lane: str
    live: bool
    trigger: str
    status: RunStatus
    attempt: int
    epoch: int
    digest: str
    definition: Document
    job_file: str | None
    options: Document
    scheduled_for: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    window_start: datetime | None
    window_end: datetime | None
    plan: Document | None
    publication: Document | None
    error: Document | None
    stage: Document | None
    """Where its rows are staged: ``id``, ``host`` and ``path``; ``None`` for a run of an earlier version too."""
    job_version: int | None
    """The version of the job that a worker executes; ``None`` for a run that its own command executes."""
    waiting: Sequence[str] | None
    """What it waits for, one sentence for each dependency that is not met."""
    wait_until: datetime | None
    """When it is given up if it still waits."""
    backfill_id: str | None

    @property
    def ordered(self) -> bool:
        """Whether it takes its turn among the live runs of its stream; backfills and runs side by side do not."""
        return self.live and self.lane == self.stream


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One try at a run. ``skipped`` and ``resumed`` count the partitions it found completed and partial."""

    run_id: str
    attempt: int
    epoch: int
    active: bool
    owner: Owner
    lease_expires_at: datetime
    started_at: datetime
    finished_at: datetime | None
    skipped: int
    resumed: int
    error: Document | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRecord:
    """How far a partition came; ``offset``, ``staged`` and ``filtered`` are rows, ``counts`` the processors'."""

    partition: int
    scan: int
    status: PartitionStatus
    offset: int
    staged: int
    filtered: int
    counts: Mapping[str, int]
    observations: Document | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanClaim:
    """The right to go on with a scan: valid until somebody claims it again."""

    scan: int
    token: int
    sequence: int
    """Chunks sealed so far; the next one gets this number."""
    cursor: Document | None
    partitions: Sequence[PartitionRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A sealed file of the stage, by its path below the run's folder."""

    scan: int
    sequence: int
    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """A checkpoint of one partition, with what rides beside the protocol's record."""

    partition: int
    sequence: int
    token: int
    offset: int
    status: PartitionStatus
    at: datetime
    attempt: int
    epoch: int
    cursor: Document | None
    file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRecord:
    """A verdict as it was recorded; ``rules_digest`` tells which rules were asked."""

    attempt: int
    at: datetime
    manifest: str
    rules_digest: str
    publish: bool
    report: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A message in the outbox, waiting to be delivered."""

    id: int
    run_id: str
    job_id: str
    key: str
    outcome: str
    recipients: Sequence[str]
    message: str
    created_at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What the scheduler knows of a job. No tick at or before ``cursor`` fires any more.

    ``active``: its file is there. ``problem`` is what is wrong with the file now, while ``version`` is the last
    good one.
    """

    job_id: str
    version: int
    active: bool
    paused: bool
    pause_reason: str | None
    paused_at: datetime | None
    cursor: datetime
    problem: Document | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobVersion:
    """A version of a job: ``document`` is its JSON as it was read, ``digest`` that document's."""

    job_id: str
    version: int
    at: datetime
    digest: str
    document: Document
    job_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that has happened: an event by its ``name``, or the end of a run of ``job_id``."""

    sequence: int
    at: datetime
    name: str | None
    event_key: str | None
    job_id: str | None
    status: RunStatus | None
    run_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """Up to where a stream is loaded; ``window_end`` is ``None`` after a reset."""

    window_end: datetime | None
    run_id: str | None
    reason: str
    at: datetime
