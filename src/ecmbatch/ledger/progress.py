"""How far the partitions of a run are: claims of scans, checkpoints, sealed chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from ecmbatch.errors import Fenced
from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.records import CheckpointRecord, Chunk, Document, Fence, PartitionRecord, ScanClaim
from ecmbatch.ledger.runs import check_fence
from ecmbatch.protocol.checkpoint import PartitionStatus
from ecmbatch.protocol.run import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanCheckpoint:
    """Everything one checkpoint of a scan makes true, in one transaction.

    ``partitions`` are the new states of all partitions of the scan. ``chunk`` is the file that was sealed for
    it, ``None`` where there was nothing to stage.
    """

    cursor: Document | None
    chunk: Chunk | None
    partitions: Sequence[PartitionRecord]
    completed: bool


class Progress:
    """The ledger's partitions, checkpoints and chunks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, fence: Fence, scan: int, *, from_start: bool) -> ScanClaim:
        """Raise the scan's token and return where it stands; earlier claimants can checkpoint no more.

        *from_start* forgets the scan's chunks and offsets: it cannot continue in the middle.
        """
        mine = _of_scan(fence.run_id, scan)
        with self._database.write() as connection:
            check_fence(connection, fence)
            connection.execute(update(tables.scans).where(*mine).values(token=tables.scans.c.token + 1))
            if from_start:
                _forget_progress(connection, fence.run_id, scan)
            row = connection.execute(select(tables.scans).where(*mine)).one()
            return ScanClaim(
                scan=scan,
                token=row.token,
                sequence=row.sequence,
                cursor=row.cursor,
                partitions=_partitions(connection, fence.run_id, scan),
            )

    def checkpoint(self, fence: Fence, claim: ScanClaim, sequence: int, saved: ScanCheckpoint) -> RunStatus:
        """Save a checkpoint of the scan and return the run's status (``stopping`` asks the worker to stop).

        Refused with :class:`~ecmbatch.errors.Fenced` unless the epoch, the claim's token and the number of
        chunks before it are what the worker believes.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            status = check_fence(connection, fence)
            following = sequence + (1 if saved.chunk else 0)
            moved = connection.execute(
                update(tables.scans)
                .where(
                    *_of_scan(fence.run_id, claim.scan),
                    tables.scans.c.token == claim.token,
                    tables.scans.c.sequence == sequence,
                    tables.scans.c.completed.is_(False),
                )
                .values(cursor=saved.cursor, sequence=following, completed=saved.completed)
            )
            if moved.rowcount != 1:
                raise Fenced(f"scan {claim.scan} of run {fence.run_id} was claimed again by somebody else")
            if saved.chunk is not None:
                connection.execute(insert(tables.chunks).values(run_id=fence.run_id, **_columns(saved.chunk)))
            connection.execute(
                update(tables.partitions).where(
                    tables.partitions.c.run_id == fence.run_id,
                    tables.partitions.c.partition == bindparam("of_partition"),
                ),
                [
                    {
                        "of_partition": partition.partition,
                        "status": partition.status,
                        "offset": partition.offset,
                        "staged": partition.staged,
                        "filtered": partition.filtered,
                        "counts": dict(partition.counts),
                        "observations": partition.observations,
                    }
                    for partition in saved.partitions
                ],
            )
            connection.execute(
                insert(tables.checkpoints),
                [
                    {
                        "run_id": fence.run_id,
                        "partition": partition.partition,
                        "sequence": following,
                        "token": claim.token,
                        "offset": partition.offset,
                        "status": partition.status,
                        "at": now,
                        "attempt": fence.attempt,
                        "epoch": fence.epoch,
                        "cursor": saved.cursor,
                        "file": saved.chunk.file if saved.chunk else None,
                    }
                    for partition in saved.partitions
                ],
            )
            return status

    def mark_failed(self, fence: Fence, scan: int) -> None:
        """Show that the scan's unfinished partitions failed; a later attempt goes on with them."""
        with self._database.write() as connection:
            check_fence(connection, fence)
            connection.execute(
                update(tables.partitions)
                .where(
                    tables.partitions.c.run_id == fence.run_id,
                    tables.partitions.c.scan == scan,
                    tables.partitions.c.status != PartitionStatus.COMPLETED,
                )
                .values(status=PartitionStatus.FAILED)
            )

    def partitions(self, run_id: str) -> Sequence[PartitionRecord]:
        """Return the run's partitions, ascending."""
        with self._database.read() as connection:
            return _partitions(connection, run_id)

    def chunks(self, run_id: str) -> Sequence[Chunk]:
        """Return the sealed chunks of the run in their order per scan."""
        found = tables.chunks.c
        query = (
            select(found.scan, found.sequence, found.file, found.rows, found.bytes, found.sha256)
            .where(found.run_id == run_id)
            .order_by(found.scan, found.sequence)
        )
        with self._database.read() as connection:
            return [Chunk(**row._asdict()) for row in connection.execute(query)]

    def checkpoints(self, run_id: str, *, every: bool = False) -> Sequence[CheckpointRecord]:
        """Return the latest checkpoint of each partition, or with *every* all of them, oldest first."""
        found = tables.checkpoints.c
        columns = [column for column in found if column.name not in ("id", "run_id")]
        query = select(*columns).where(found.run_id == run_id).order_by(found.partition, found.id)
        if not every:
            newest = select(func.max(found.id)).where(found.run_id == run_id).group_by(found.partition)
            query = query.where(found.id.in_(newest))
        with self._database.read() as connection:
            return [_checkpoint(row._asdict()) for row in connection.execute(query)]


def _forget_progress(connection: Connection, run_id: str, scan: int) -> None:
    connection.execute(
        delete(tables.chunks).where(tables.chunks.c.run_id == run_id, tables.chunks.c.scan == scan)
    )
    connection.execute(
        update(tables.scans).where(*_of_scan(run_id, scan)).values(cursor=None, sequence=0, completed=False)
    )
    connection.execute(
        update(tables.partitions)
        .where(tables.partitions.c.run_id == run_id, tables.partitions.c.scan == scan)
        .values(offset=0, staged=0, filtered=0, counts={}, observations=None)
    )


def _partitions(connection: Connection, run_id: str, scan: int | None = None) -> list[PartitionRecord]:
    found = tables.partitions.c
    query = select(*[column for column in found if column.name != "run_id"]).where(found.run_id == run_id)
    if scan is not None:
        query = query.where(found.scan == scan)
    return [
        PartitionRecord(**{**row._asdict(), "status": PartitionStatus(row.status)})
        for row in connection.execute(query.order_by(found.partition))
    ]


def _checkpoint(values: dict[str, Any]) -> CheckpointRecord:
    return CheckpointRecord(**{**values, "status": PartitionStatus(values["status"])})


def _columns(chunk: Chunk) -> dict[str, Any]:
    return {name: getattr(chunk, name) for name in ("scan", "sequence", "file", "rows", "bytes", "sha256")}


def _of_scan(run_id: str, scan: int) -> tuple[Any, Any]:
    return tables.scans.c.run_id == run_id, tables.scans.c.scan == scan
