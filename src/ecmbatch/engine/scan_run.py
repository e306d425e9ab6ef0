"""Executing one scan: read, split, transform, observe, stage, checkpoint.

The calling thread reads, transforms and observes; a second one writes, seals and checkpoints behind it, in
the same order, so that the next batch is made while the last one is written. Chunks are cut only where the
connector says a resumed scan could start.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from ecmbatch.connectors.connector import Connector, Cursor, Scan, ScannedBatch
from ecmbatch.crash_points import crash_point
from ecmbatch.engine.cancelling import CancelledWhenStopped
from ecmbatch.engine.plan import RunPlan, TablesRead
from ecmbatch.engine.profile import Profile, Work
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.engine.table_versions import check_tables
from ecmbatch.errors import EcmbatchError, IntegrityError, RunStopped, SourceError, TransformError
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.progress import ScanCheckpoint
from ecmbatch.ledger.records import Chunk, Fence, PartitionRecord, ScanClaim
from ecmbatch.processors.chain import BoundChain
from ecmbatch.processors.processor import RunFacts
from ecmbatch.protocol.checkpoint import PartitionStatus
from ecmbatch.protocol.job import CheckpointPolicy
from ecmbatch.protocol.partitioning.partitions import split
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.scalars import decode_scalar, encode_scalar
from ecmbatch.protocol.validation.observations import Observations, Observer
from ecmbatch.protocol.validation.rules import Validation
from ecmbatch.stage.stage import ChunkWriter, Stage
from ecmbatch.stores.store import PARTITION_COLUMN

_BATCHES_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSpec:
    """What all scans of an attempt share: plain values, which another process gets as JSON.

    ``tables`` must still be what they are when all rows of a scan are read.
    """

    fence: Fence
    facts: RunFacts
    plan: RunPlan
    tables: TablesRead | None
    checkpoint: CheckpointPolicy
    validation: Validation

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "fence": asdict(self.fence),
            "job_id": self.facts.job_id,
            "started_at": encode_scalar(self.facts.started_at),
            "plan": self.plan.document(),
            "tables": asdict(self.tables) if self.tables else None,
            "checkpoint": self.checkpoint.model_dump_json(by_alias=True, exclude_unset=True),
            "validation": self.validation.model_dump_json(by_alias=True, exclude_unset=True),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> AttemptSpec:
        """Return the spec whose JSON form is *document*."""
        fence = Fence(**document["fence"])
        started_at = decode_scalar(document["started_at"])
        assert isinstance(started_at, datetime)
        return cls(
            fence=fence,
            facts=RunFacts(run_id=fence.run_id, job_id=document["job_id"], started_at=started_at),
            plan=RunPlan.from_document(document["plan"]),
            tables=TablesRead(**document["tables"]) if document["tables"] else None,
            checkpoint=CheckpointPolicy.model_validate_json(document["checkpoint"]),
            validation=Validation.model_validate_json(document["validation"]),
        )


def run_scan(
    spec: AttemptSpec,
    number: int,
    resources: Resources,
    chain: BoundChain,
    stop: StopSignal,
    profile: Profile,
) -> None:
    """Execute the scan *number* from its last checkpoint to its end, or to a checkpoint after *stop* was set.

    Raises the error that ended it; what was checkpointed before stays.
    """
    ledger, stage = resources.ledger, resources.stage
    scan = spec.plan.scans[number]
    claim = ledger.progress.claim(spec.fence, scan.number, from_start=scan.resume == "none")
    crash_point("scan.claimed")
    sealed = {chunk.file for chunk in ledger.progress.chunks(spec.fence.run_id) if chunk.scan == scan.number}
    crash_point("scan.leftovers")
    stage.drop_leftovers(spec.fence.run_id, scan.number, claim.token, keep=sealed)
    connector = resources.source(spec.plan.source)
    parts = _Parts(spec, claim, chain, profile)
    with (
        CancelledWhenStopped(stop, connector),
        _ChunkLine(spec, claim, ledger, stage, stop, profile) as line,
    ):
        cursor = _read_all(spec, scan, claim, connector, parts, line, stop, profile)
        # Before the scan counts as complete: nobody would look at it again.
        check_tables(spec.plan, spec.tables, resources)
        line.checkpoint(cursor, parts.records(PartitionStatus.COMPLETED), completed=True)
        line.finish()
        crash_point("scan.completed")


def _read_all(
    spec: AttemptSpec,
    scan: Scan,
    claim: ScanClaim,
    connector: Connector,
    parts: _Parts,
    line: _ChunkLine,
    stop: StopSignal,
    profile: Profile,
) -> Cursor | None:
    due = _Due(spec.checkpoint)
    with ExitStack() as opened:
        with profile.timed("read"):
            batches = opened.enter_context(connector.read(spec.plan.request, scan, claim.cursor))
        cursor: Cursor | None = claim.cursor
        for scanned in profile.reading(_source_problems_named(batches, scan)):
            line.write(parts.take(scanned.batch))
            due.count(scanned.batch.num_rows)
            # A scan that is replayed from its start can be cut anywhere: its checkpoints show how far it is.
            if scanned.cursor is not None or scan.resume == "none":
                cursor = scanned.cursor
                if stop.is_set() or due.now():
                    line.checkpoint(cursor, parts.records(PartitionStatus.IN_PROGRESS), completed=False)
                    due = _Due(spec.checkpoint)
            stop.raise_if_set()
    return cursor


class _Due:
    """Whether enough rows or seconds passed for a checkpoint."""

    def __init__(self, settings: CheckpointPolicy) -> None:
        self._rows_left = settings.every_rows
        self._at = time.monotonic() + settings.every_seconds

    def count(self, rows: int) -> None:
        self._rows_left -= rows

    def now(self) -> bool:
        return self._rows_left <= 0 or time.monotonic() >= self._at


class _Part:
    """How far one partition of the scan is, ahead of its last checkpoint."""

    def __init__(self, record: PartitionRecord, observer: Observer) -> None:
        self.partition = record.partition
        self.scan = record.scan
        self.offset = record.offset
        self.staged = record.staged
        self.filtered = record.filtered
        self.counts = Counter(record.counts)
        document = record.observations
        self.observations: Observations = (
            observer.start() if document is None else observer.from_json(document)
        )


class _Parts:
    """The partitions of a scan: splits what was read among them, transforms and observes it."""

    def __init__(self, spec: AttemptSpec, claim: ScanClaim, chain: BoundChain, profile: Profile) -> None:
        self._profile = profile
        self._partitioning = spec.plan.request.partitioning
        self._source_schema = spec.plan.source_schema
        self._chain = chain
        self._observer = Observer(spec.validation.rules)
        self._parts = {record.partition: _Part(record, self._observer) for record in claim.partitions}
        self._schema = staged_schema(chain.output_schema)

    def take(self, batch: pa.RecordBatch) -> pa.Table:
        """Return the rows to stage for *batch*, partition by partition."""
        if not batch.schema.equals(self._source_schema):
            raise SourceError("the source returned other columns or types than when the run was planned")
        with self._profile.timed("split"):
            of_partitions = list(self._split(batch))
        transformed = [self._transformed(partition, rows) for partition, rows in of_partitions]
        return pa.Table.from_batches(transformed, self._schema)

    def records(self, status: PartitionStatus) -> list[PartitionRecord]:
        """Return where the partitions stand now."""
        return [
            PartitionRecord(
                partition=part.partition,
                scan=part.scan,
                status=status,
                offset=part.offset,
                staged=part.staged,
                filtered=part.filtered,
                counts=dict(part.counts),
                observations=self._observer.to_json(part.observations),
            )
            for part in self._parts.values()
        ]

    def _split(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        if self._partitioning is None:
            yield next(iter(self._parts)), batch
        else:
            yield from split(batch, self._partitioning)

    def _transformed(self, partition: int, rows: pa.RecordBatch) -> pa.RecordBatch:
        part = self._parts.get(partition)
        if part is None:
            raise IntegrityError(
                f"the source returned rows of partition {partition} in a scan that does not read it"
            )
        try:
            with self._profile.timed("transform"):
                transformed = self._chain.process(rows)
        except TransformError as error:
            raise TransformError(
                f"partition {partition}, rows {part.offset} to {part.offset + rows.num_rows - 1}: {error.message}",
                problems=error.problems,
                hint=error.hint,
                error_class=error.error_class,
            ) from error
        output = transformed.batch
        with self._profile.timed("observe"):
            part.observations = self._observer.observe(part.observations, rows, "source")
            part.observations = self._observer.observe(part.observations, output, "output")
        part.offset += rows.num_rows
        part.staged += output.num_rows
        part.filtered += max(rows.num_rows - output.num_rows, 0)
        part.counts.update(transformed.counts)
        of_partition = pa.repeat(pa.scalar(partition, pa.int32()), output.num_rows)
        return pa.RecordBatch.from_arrays([of_partition, *output.columns], schema=self._schema)


def staged_schema(output: pa.Schema) -> pa.Schema:
    """Return what staged rows look like: the output, and before it the partition of each row."""
    return pa.schema([pa.field(PARTITION_COLUMN, pa.int32(), nullable=False), *output])


class _ChunkLine:
    """Writes rows and makes checkpoints in order, in a thread of its own, a few batches behind the caller."""

    def __init__(
        self,
        spec: AttemptSpec,
        claim: ScanClaim,
        ledger: Ledger,
        stage: Stage,
        stop: StopSignal,
        profile: Profile,
    ) -> None:
        self._spec = spec
        self._profile = profile
        self._claim = claim
        self._ledger = ledger
        self._stage = stage
        self._stop = stop
        self._schema = staged_schema(spec.plan.output_schema)
        self._sequence = claim.sequence
        self._writer: ChunkWriter | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ecmbatch-stage-{claim.scan}")
        self._pending: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error the chunk under way is dropped, but a checkpoint that was asked for before still counts.
        try:
            while self._pending:
                self._pending.popleft().result()
        except Exception:
            if error is None:
                raise
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)
            if self._writer is not None:
                self._writer.discard()

    def write(self, rows: pa.Table) -> None:
        """Add rows to the chunk under way."""
        if rows.num_rows:
            self._submit("stage", lambda: self._write(rows))

    def checkpoint(
        self, cursor: Cursor | None, partitions: list[PartitionRecord], *, completed: bool
    ) -> None:
        """Seal the chunk under way and let it count."""
        self._submit("checkpoint", lambda: self._checkpoint(cursor, partitions, completed))

    def finish(self) -> None:
        """Wait until everything asked for is durable."""
        with self._profile.timed("wait"):
            while self._pending:
                self._pending.popleft().result()

    def _submit(self, kind: Work, work: Callable[[], None]) -> None:
        if len(self._pending) >= _BATCHES_IN_FLIGHT:
            with self._profile.timed("wait"):
                self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._unless_failed, kind, work))

    def _unless_failed(self, kind: Work, work: Callable[[], None]) -> None:
        # What was asked for after a failure must not happen: a checkpoint would count rows that are not there.
        if self._failed:
            return
        try:
            with self._profile.timed(kind):
                work()
        except BaseException:
            self._failed = True
            raise

    def _write(self, rows: pa.Table) -> None:
        if self._writer is None:
            self._writer = self._stage.writer(
                self._spec.fence.run_id, self._claim.scan, self._sequence, self._claim.token, self._schema
            )
        self._writer.write(rows)

    def _checkpoint(self, cursor: Cursor | None, partitions: list[PartitionRecord], completed: bool) -> None:
        chunk = None
        if self._writer is not None:
            sealed = self._writer.seal()
            self._writer = None
            chunk = Chunk(
                scan=self._claim.scan,
                sequence=self._sequence,
                file=sealed.file,
                rows=sealed.rows,
                bytes=sealed.bytes,
                sha256=sealed.sha256,
            )
        crash_point("checkpoint.before")
        saved = ScanCheckpoint(
            cursor=dict(cursor) if cursor is not None else None,
            chunk=chunk,
            partitions=partitions,
            completed=completed,
        )
        status = self._ledger.progress.checkpoint(self._spec.fence, self._claim, self._sequence, saved)
        crash_point("checkpoint.after")
        self._sequence += 1 if chunk else 0
        if status is RunStatus.STOPPING:
            self._stop.set(RunStopped("stopped on request"))


def _source_problems_named(batches: Iterator[ScannedBatch], scan: Scan) -> Iterator[ScannedBatch]:
    """A connector's unexpected exception becomes an error that says where it happened."""
    try:
        yield from batches
    except EcmbatchError:
        raise
    except Exception as error:
        raise SourceError(
            f"reading partitions {shown_partitions(scan.partitions)} failed: {type(error).__name__}",
            hint="this is a defect of the connector; run again with --log-level debug and report the trace",
        ) from error


def shown_partitions(partitions: tuple[int, ...]) -> str:
    """Return the numbers of *partitions* as errors name them."""
    listed = ", ".join(str(partition) for partition in partitions[:8])
    return listed + (" …" if len(partitions) > 8 else "")
