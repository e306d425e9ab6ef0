"""Which jobs depend on which (protocol: Dependency Management): circles, unknown jobs, trees and pictures.

Jobs are ids here, and an edge leads from a job to one that it needs, or that starts it when a run of it ends. An
event counts as an edge too: jobs that start each other in a circle would run for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ecmbatch.errors import Problem
from ecmbatch.protocol.dependency_declaration import leaves
from ecmbatch.protocol.document import Part, did_you_mean, pointer
from ecmbatch.protocol.duration import format_duration
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.schedule import EventSchedule

EdgeKind = Literal["window", "status", "event"]
Direction = Literal["upstream", "downstream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What ``job`` asks of ``upstream``: how long ago at most (window), or how a run ended.

    ``place`` is the way to where the job's document names the other job.
    """

    job: str
    upstream: str
    kind: EdgeKind
    asks: str
    place: tuple[Part, ...]
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.asks}" + (", optional" if self.optional else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A line of a tree: a job ``depth`` edges away, and why it is there.

    ``repeated``: what hangs on the job stands at an earlier line.
    """

    depth: int
    job: str
    edges: Sequence[Edge]
    repeated: bool


def edges_of(job: JobDefinition) -> Iterator[Edge]:
    """Yield what *job* asks of other jobs, by dependencies and schedule; a dependency with both keys twice."""
    for place, dependency in leaves(job.dependencies, ("dependencies",)):
        if dependency.window is not None:
            asks = format_duration(dependency.window)
            yield Edge(
                job=job.job_id,
                upstream=dependency.job,
                kind="window",
                asks=asks,
                place=(*place, "job"),
                optional=dependency.optional,
            )
        if dependency.required_status is not None:
            yield Edge(
                job=job.job_id,
                upstream=dependency.job,
                kind="status",
                asks=dependency.required_status,
                place=(*place, "job"),
                optional=dependency.optional,
            )
    for schedule in job.schedule:
        if isinstance(schedule, EventSchedule):
            for number, leg in enumerate(schedule.on):
                if leg.job is not None:
                    yield Edge(
                        job=job.job_id,
                        upstream=leg.job,
                        kind="event",
                        asks=leg.status or "success",
                        place=("schedule", "on", number, "job"),
                    )


@dataclass(frozen=True, slots=True)
class DependencyGraph:
    """The jobs of a project and the edges between them; an edge may lead to a job that is not there."""

    jobs: frozenset[str]
    edges: Sequence[Edge]
    _upstream: Mapping[str, Sequence[Edge]] = field(init=False, repr=False)
    _downstream: Mapping[str, Sequence[Edge]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        upstream: dict[str, list[Edge]] = {}
        downstream: dict[str, list[Edge]] = {}
        for edge in self.edges:
            upstream.setdefault(edge.job, []).append(edge)
            downstream.setdefault(edge.upstream, []).append(edge)
        object.__setattr__(self, "_upstream", upstream)
        object.__setattr__(self, "_downstream", downstream)

    @classmethod
    def of(cls, jobs: Iterable[JobDefinition]) -> DependencyGraph:
        """Return the graph of *jobs*, whose ids differ."""
        known = list(jobs)
        return cls(
            frozenset(job.job_id for job in known), tuple(edge for job in known for edge in edges_of(job))
        )

    def problems_of(self, job_id: str) -> Iterator[Problem]:
        """Yield what is wrong with the edges of a job: unknown jobs, and ways that lead back to it."""
        said = set()
        for edge in self._upstream.get(job_id, ()):
            if edge.place in said:
                continue
            said.add(edge.place)
            if edge.upstream not in self.jobs:
                hint = did_you_mean(edge.upstream, sorted(self.jobs))
                yield Problem(pointer(edge.place), f"the project has no job {edge.upstream!r}", hint)
            elif way := self._way(edge.upstream, job_id):
                circle = " → ".join([job_id, *way])
                yield Problem(
                    pointer(edge.place),
                    f"is a circle: {circle}",
                    "no job can wait for, or be started by, what follows from itself",
                )

    def tree(self, job_id: str, direction: Direction) -> Sequence[Branch]:
        """Return what a job hangs on, or what hangs on it, line by line; each job is opened out once."""
        lines: list[Branch] = []
        seen = {job_id}
        to_do = self._branches(job_id, 1, direction)
        while to_do:
            branch = to_do.pop()
            following = self._branches(branch.job, branch.depth + 1, direction)
            repeated = branch.job in seen and bool(following)
            lines.append(replace(branch, repeated=repeated))
            if not repeated:
                seen.add(branch.job)
                to_do += following
        return lines

    def around(self, job_id: str) -> Sequence[Edge]:
        """Return every edge on a way to or from a job, in the order of all edges."""
        above = {job_id, *(branch.job for branch in self.tree(job_id, "upstream"))}
        below = {job_id, *(branch.job for branch in self.tree(job_id, "downstream"))}
        return [edge for edge in self.edges if edge.job in above or edge.upstream in below]

    def mermaid(self, job_id: str) -> str:
        """Return everything around a job as a flow chart for Mermaid, in the direction in which data flow."""
        edges = self.around(job_id)
        names = dict.fromkeys([job_id, *(name for edge in edges for name in (edge.upstream, edge.job))])
        # Ids of jobs may be words of Mermaid, and hold characters that it does not allow in a name.
        nodes = {name: f"job{number}" for number, name in enumerate(names)}
        lines = ["flowchart LR"]
        lines += [f'  {node}["{name}"]' for name, node in nodes.items()]
        for edge in edges:
            arrow = "-.->" if edge.optional or edge.kind == "event" else "-->"
            lines.append(f'  {nodes[edge.upstream]} {arrow}|"{edge}"| {nodes[edge.job]}')
        lines.append(f"  style {nodes[job_id]} stroke-width:3px")
        return "\n".join(lines)

    def _branches(self, job_id: str, depth: int, direction: Direction) -> list[Branch]:
        """Return the jobs next to one, in reverse order of their ids."""
        found: dict[str, list[Edge]] = {}
        for edge in (self._upstream if direction == "upstream" else self._downstream).get(job_id, ()):
            found.setdefault(edge.upstream if direction == "upstream" else edge.job, []).append(edge)
        return [
            Branch(depth=depth, job=name, edges=edges, repeated=False)
            for name, edges in sorted(found.items(), reverse=True)
        ]

    def _way(self, start: str, goal: str) -> list[str]:
        """Return the jobs on a shortest way along edges from *start* to *goal*; empty where there is none."""
        came_from: dict[str, str | None] = {start: None}
        level = [start]
        while level and goal not in came_from:
            following = []
            for name in level:
                for edge in self._upstream.get(name, ()):
                    if edge.upstream not in came_from:
                        came_from[edge.upstream] = name
                        following.append(edge.upstream)
            level = following
        if goal not in came_from:
            return []
        way: list[str] = []
        step: str | None = goal
        while step is not None:
            way.append(step)
            step = came_from[step]
        return way[::-1]
