"""What a job hangs on and what hangs on it, and how that stands now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ecmbatch.engine.job_files import project_jobs
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.gates import upstreams_of
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.dependencies import unmet
from ecmbatch.protocol.dependency_declaration import leaves
from ecmbatch.protocol.dependency_graph import DependencyGraph, Edge
from ecmbatch.protocol.document import Part
from ecmbatch.protocol.job import JobDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyReport:
    """The answer of ``deps``. ``unmet`` has a sentence for each dependency that a run of ``at`` would wait for.

    ``reasons`` says of each single dependency why it is not met, by its place in the job; ``None`` if it is.
    """

    job_id: str
    at: datetime
    graph: DependencyGraph
    unmet: Sequence[str]
    reasons: Mapping[tuple[Part, ...], str | None]

    def reason(self, edges: Sequence[Edge]) -> str | None:
        """Return why what the job asks by *edges* is not met, ``None`` if it is."""
        reasons = dict.fromkeys(self.reasons.get(edge.place) for edge in edges)
        return " and ".join(reason for reason in reasons if reason) or None

    def document(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "job_id": self.job_id,
            "at": rfc3339(self.at),
            "met": not self.unmet,
            "unmet": list(self.unmet),
            "edges": [self._edge(edge) for edge in self.graph.around(self.job_id)],
            "mermaid": self.graph.mermaid(self.job_id),
        }

    def _edge(self, edge: Edge) -> dict[str, Any]:
        known = {
            "job": edge.job,
            "needs": edge.upstream,
            "kind": edge.kind,
            "asks": edge.asks,
            "optional": edge.optional,
        }
        if edge.job != self.job_id or edge.place not in self.reasons:
            return known
        reason = self.reasons[edge.place]
        return {**known, "met": reason is None, "reason": reason}


def report_dependencies(job: JobDefinition, resources: Resources) -> DependencyReport:
    """Return how *job* stands among the jobs of its project now; opens nothing but the ledger."""
    now = resources.ledger.clock()
    upstreams = upstreams_of(job, at=now, backfill=False, ledger=resources.ledger)
    jobs = {**project_jobs(resources.project_file.root), job.job_id: job}
    found = (unmet(rule, upstreams, at=now) for rule in job.dependencies)
    return DependencyReport(
        job_id=job.job_id,
        at=now,
        graph=DependencyGraph.of(jobs.values()),
        unmet=[reason for reason in found if reason],
        reasons={
            (*place, "job"): unmet(dependency, upstreams, at=now)
            for place, dependency in leaves(job.dependencies, ("dependencies",))
        },
    )
