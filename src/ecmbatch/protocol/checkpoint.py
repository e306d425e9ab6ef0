"""Checkpoints (protocol: Checkpoint Management)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class PartitionStatus(StrEnum):
    """Where a partition stands, in the protocol's words."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The protocol's record: *offset* source rows of *partition* are staged, whatever happens next."""

    job_id: str
    run_id: str
    partition: int
    offset: int
    timestamp: datetime
    status: PartitionStatus

    def document(self) -> dict[str, Any]:
        """Return the record as the protocol writes it."""
        return {
            "job_id": self.job_id,
            "run_id": self.run_id,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": rfc3339(self.timestamp),
            "status": str(self.status),
        }


def rfc3339(instant: datetime) -> str:
    """Return *instant* in UTC as RFC 3339 with a ``Z``, fractions only where there are any."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
