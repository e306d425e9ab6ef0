"""The jobs of the guide to transformations and of the lookup's page do what the pages say."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from ecmbatch import JobDefinition, Project
from ecmbatch.demo.project import build_project
from ecmbatch.protocol.job import load_job

DOCS = Path(__file__).parents[2] / "docs"
PLANES = {
    "job_id": "planes",
    "source": {"connector": "data_warehouse", "table": "planes"},
    "sink": {"store": "context_store", "mode": "replace"},
}


def jobs_of(page: str) -> dict[str, JobDefinition]:
    text = (DOCS / page).read_text(encoding="utf-8")
    jobs = [
        load_job(block) for block in re.findall(r"^```json job\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    return {job.job_id: job for job in jobs}


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    build_project(tmp_path / "flights")
    return tmp_path / "flights"


def answer(folder: Path, query: str) -> tuple[object, ...]:
    with duckdb.connect(str(folder / "context.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()[0]


@pytest.mark.slow
def test_the_guide_to_transformations_can_be_followed(flights: Path) -> None:
    jobs = jobs_of("guide/transformations.md")
    with Project.load(flights, environment={}) as project:
        assert project.run(JobDefinition.from_value(PLANES)).error is None
        (seats, engines) = answer(flights, "SELECT sum(seats), sum(engines) FROM planes")
        for name, job in jobs.items():
            report = project.validate(job)
            # What the guide's jobs depend on is told in a sentence, not in a file.
            assert {problem.path for problem in report.problems} <= {"/dependencies/0/job"}, name
            result = project.run(
                JobDefinition.from_value(
                    {**job.model_dump(mode="json", by_alias=True, exclude_unset=True), "dependencies": []}
                )
            )
            assert result.error is None, (name, result.error)
    assert answer(flights, "SELECT sum(seats) FROM planes") == (seats + engines,)  # type: ignore[operator]
    assert answer(flights, "SELECT count(*) FROM planes WHERE manufacturer LIKE 'AIRBUS %'") == (0,)
    assert answer(flights, "SELECT count(*) FROM planes_with_fleet WHERE planes_of_manufacturer > 0") == (
        3322,
    )
    assert list(jobs) == ["manufacturers", "planes-with-fleet", "planes-with-crew", "airbus"]


@pytest.mark.slow
def test_the_lookup_finds_and_misses_what_its_page_says(flights: Path) -> None:
    page = "reference/processors.md"
    with Project.load(flights, environment={}) as project:
        result = project.run(jobs_of(page)["flights-with-planes"])
    assert result.error is None
    (missing,) = result.document()["processors"][0]["counts"].values()
    assert f"  lookup      {missing:,} missing" in (DOCS / page).read_text(encoding="utf-8")
