"""The jobs that the ledger knows, as definitions; read once for each version."""

from __future__ import annotations

import json

from ecmbatch.ledger.ledger import Ledger
from ecmbatch.protocol.job import JobDefinition


class KnownJobs:
    """Definitions of the versions that are in *ledger*, of which none ever changes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read: dict[tuple[str, int], JobDefinition] = {}

    def get(self, job_id: str, version: int) -> JobDefinition:
        """Return a version of a job; raises ``UsageError`` where there is none and ``InvalidDocument`` where this
        version of ecmbatch does not take it any more."""
        known = self._read.get((job_id, version))
        if known is None:
            document = self._ledger.jobs.version(job_id, version).document
            known = self._read[job_id, version] = JobDefinition.from_json(json.dumps(document))
        return known
