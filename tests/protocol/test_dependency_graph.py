"""Jobs that depend on each other: what is refused, and what a tree and a picture of them show."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.protocol.dependency_graph import DependencyGraph, Edge
from ecmbatch.protocol.job import JobDefinition


def job(job_id: str, *dependencies: Any, on: Any = None) -> JobDefinition:
    """A job that depends on others, given by id or as they are declared; *on* is the event schedule's."""
    return JobDefinition.from_value(
        {
            "job_id": job_id,
            "source": {"connector": "warehouse", "table": "t"},
            "sink": {"store": "context_store", "mode": "upsert"},
            "dependencies": [{"job": each} if isinstance(each, str) else each for each in dependencies],
            **({"schedule": {"type": "event", "on": on}} if on else {}),
        }
    )


def problems(job_id: str, *jobs: JobDefinition) -> list[str]:
    return [str(problem) for problem in DependencyGraph.of(jobs).problems_of(job_id)]


HINT = "(no job can wait for, or be started by, what follows from itself)"


def test_jobs_in_order_have_no_problems() -> None:
    jobs = [job("a"), job("b", "a"), job("c", "a", "b", on={"event": "landed"}), job("d", on={"job": "c"})]
    assert [problem for each in jobs for problem in problems(each.job_id, *jobs)] == []


def test_an_unknown_job_is_refused_wherever_it_stands() -> None:
    nested = {"any": [{"job": "raw"}, {"all": [{"job": "reports"}]}]}
    found = problems(
        "y", job("raw"), job("report"), job("y", "nowhere", nested, on=[{"event": "e"}, {"job": "rav"}])
    )
    assert found == [
        "/dependencies/0/job: the project has no job 'nowhere'",
        "/dependencies/1/any/1/all/0/job: the project has no job 'reports' (did you mean 'report'?)",
        "/schedule/on/1/job: the project has no job 'rav' (did you mean 'raw'?)",
    ]


@pytest.mark.parametrize(
    ("jobs", "problem"),
    [
        ([job("a", "b"), job("b", "a")], "/dependencies/0/job: is a circle: a → b → a"),
        (
            [job("a", "b"), job("b", "c", "d"), job("c"), job("d", "a")],
            "/dependencies/0/job: is a circle: a → b → d → a",
        ),
        ([job("a", on={"job": "a"})], "/schedule/on/0/job: is a circle: a → a"),
        (
            [job("a", on={"job": "b"}), job("b", on={"job": "a"})],
            "/schedule/on/0/job: is a circle: a → b → a",
        ),
        ([job("a", "b"), job("b", on={"job": "a"})], "/dependencies/0/job: is a circle: a → b → a"),
        (
            [job("a", {"any": [{"job": "c"}, {"job": "b", "optional": True}]}), job("b", "a"), job("c")],
            "/dependencies/0/any/1/job: is a circle: a → b → a",
        ),
    ],
)
def test_a_circle_of_dependencies_and_events_is_refused(jobs: list[JobDefinition], problem: str) -> None:
    assert problems("a", *jobs) == [f"{problem} {HINT}"]


def test_a_circle_elsewhere_is_the_problem_of_the_jobs_in_it() -> None:
    jobs = [job("a", "b"), job("b", "c"), job("c", "b")]
    assert problems("a", *jobs) == []
    assert problems("b", *jobs) == [f"/dependencies/0/job: is a circle: b → c → b {HINT}"]


def test_both_keys_of_a_dependency_are_edges_with_one_problem() -> None:
    both = job("b", {"job": "a", "window": "24 hours", "status": "finished", "optional": True})
    assert [str(edge) for edge in DependencyGraph.of([both]).edges] == [
        "window 1 d, optional",
        "status finished, optional",
    ]
    assert len(problems("b", both)) == 1


# Trees

PROJECT = DependencyGraph.of(
    [
        job("raw"),
        job("customers", "raw"),
        job("reference", {"job": "raw", "window": "1 h"}),
        job("context", "reference", "customers"),
        job("report", on=[{"job": "context", "status": "finished"}, {"event": "e"}]),
        job("apart"),
    ]
)


def lines(direction: Any, job_id: str = "context") -> list[str]:
    return [
        f"{'  ' * branch.depth}{branch.job}: {', '.join(map(str, branch.edges))}{' …' * branch.repeated}"
        for branch in PROJECT.tree(job_id, direction)
    ]


def test_a_tree_shows_every_way_and_opens_each_job_once() -> None:
    assert lines("upstream", "report") == [
        "  context: event finished",
        "    customers: status success",
        "      raw: status success",
        "    reference: status success",
        "      raw: window 1 h",
    ]
    assert lines("downstream", "raw") == [
        "  customers: status success",
        "    context: status success",
        "      report: event finished",
        "  reference: window 1 h",
        "    context: status success …",
    ]
    assert lines("upstream", "apart") == lines("downstream", "apart") == []


def test_a_chart_shows_what_is_around_a_job() -> None:
    assert PROJECT.mermaid("customers").splitlines() == [
        "flowchart LR",
        '  job0["customers"]',
        '  job1["raw"]',
        '  job2["context"]',
        '  job3["report"]',
        '  job1 -->|"status success"| job0',
        '  job0 -->|"status success"| job2',
        '  job2 -.->|"event finished"| job3',
        "  style job0 stroke-width:3px",
    ]
    assert PROJECT.mermaid("apart").splitlines()[1:] == ['  job0["apart"]', "  style job0 stroke-width:3px"]


# Laws

GRAPHS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=15).map(
    lambda pairs: DependencyGraph(
        frozenset("abcdef"),
        [
            Edge(
                job=one, upstream=other, kind="status", asks="success", place=("dependencies", number, "job")
            )
            for number, (one, other) in enumerate(pairs)
        ],
    )
)


def reachable(graph: DependencyGraph, start: str) -> set[str]:
    found: set[str] = set()
    while new := {edge.upstream for edge in graph.edges if edge.job in found | {start}} - found:
        found |= new
    return found


@given(GRAPHS)
def test_a_job_is_in_a_circle_exactly_if_it_can_reach_itself(graph: DependencyGraph) -> None:
    for name in "abcdef":
        assert bool(list(graph.problems_of(name))) == (name in reachable(graph, name))


@given(GRAPHS)
def test_a_tree_has_every_edge_above_a_job_once_even_in_a_circle(graph: DependencyGraph) -> None:
    tree = graph.tree("a", "upstream")
    shown = [edge for branch in tree for edge in branch.edges]
    above = {"a", *reachable(graph, "a")}
    assert sorted(edge.place for edge in shown) == sorted(
        edge.place for edge in graph.edges if edge.job in above
    )


def test_a_chain_of_thousands_of_jobs_is_no_problem() -> None:
    count = 5_000
    edges = [
        Edge(
            job=f"j{number}",
            upstream=f"j{number + 1}",
            kind="status",
            asks="success",
            place=("dependencies", 0),
        )
        for number in range(count)
    ]
    graph = DependencyGraph(frozenset(f"j{number}" for number in range(count + 1)), edges)
    assert list(graph.problems_of("j0")) == []
    assert len(graph.tree("j0", "upstream")) == count
