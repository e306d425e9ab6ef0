"""What a scheduler has done by processes that end, so that it stays small itself."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.job_registry import JobRegistry
from ecmbatch.errors import Problem, Unreachable
from ecmbatch.project_file import ProjectFile, load_project_file
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.service.errands import Errands
from ecmbatch.testing.clock import ManualClock

PROCESSORS = """
import os
import pyarrow as pa
from ecmbatch import processor

print("a module may print what it likes")
if os.environ.get("MODULE") == "dies":
    os._exit(3)


@processor("same")
def same(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    return batch
"""

ONE_PASS = """
import os, sys
from pathlib import Path
from ecmbatch.engine.resources import Resources
from ecmbatch.project_file import load_project_file
from ecmbatch.service import metrics, service
from ecmbatch.service.scheduler_loop import Passes

with Resources(load_project_file(Path("ecmbatch.toml"), os.environ)) as resources:
    Passes(resources, then=lambda: None).step()
    print(*(job.job_id for job in resources.ledger.jobs.all()))
print(*sys.modules)
"""


@pytest.fixture
def project(tmp_path: Path) -> ProjectFile:
    """A project with a module of its own and a job of each kind."""
    (tmp_path / "ecmbatch.toml").write_text('[processors]\nmodules = ["mine"]\n')
    (tmp_path / "mine.py").write_text(PROCESSORS)
    (tmp_path / "jobs").mkdir()
    write(tmp_path, "mine", transform={"processor": "same", "config": {}})
    write(tmp_path, "plain")
    return load(tmp_path)


def write(root: Path, job_id: str, **sections: Any) -> None:
    job = {
        "job_id": job_id,
        "source": {"connector": "files", "path": "people.csv"},
        "sink": {"store": "context_store", "mode": "upsert"},
        "schedule": "0 0 1 1 *",
        **sections,
    }
    path = root / "jobs" / f"{job_id}.json"
    path.with_suffix(".new").write_text(json.dumps(job))
    path.with_suffix(".new").replace(path)


def load(root: Path, **environment: str) -> ProjectFile:
    return load_project_file(root / "ecmbatch.toml", environment)


def job(job_id: str, **sections: Any) -> JobDefinition:
    document = {
        "job_id": job_id,
        "source": {"connector": "files", "path": "people.csv"},
        "sink": {"store": "context_store", "mode": "upsert"},
        **sections,
    }
    return JobDefinition.from_json(json.dumps(document))


# -- errands ----------------------------------------------------------------------------------------


def test_a_pass_of_the_service_imports_nothing_that_takes_much_memory(project: ProjectFile) -> None:
    result = subprocess.run(
        [sys.executable, "-c", ONE_PASS], cwd=project.root, capture_output=True, text=True, check=True
    )
    jobs, modules = result.stdout.splitlines()
    assert jobs == "mine plain"
    assert not {"duckdb", "mine", "numpy", "pyarrow"} & set(modules.split())


def test_a_check_tells_of_each_job_what_is_wrong_with_it(project: ProjectFile) -> None:
    wrong = job("wrong", sink={"store": "nowhere", "mode": "upsert"})
    found = Errands(project).check([job("plain"), wrong, job("mine", transform={"processor": "same"})])
    assert [[problem.path for problem in problems] for problems in found] == [[], ["/sink/store"], []]
    assert "no store named 'nowhere'" in found[1][0].message


def test_a_module_that_ends_its_process_ends_no_scheduler(
    project: ProjectFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODULE", "dies")
    found = Errands(project).check([job("plain"), job("mine", transform={"processor": "same"})])
    assert found[0] == []
    assert "could not be checked: the process for it ended with exit status 3" in found[1][0].message


def test_tidying_is_logged_by_the_service(project: ProjectFile, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ecmbatch")
    (project.root / "ecmbatch.toml").write_text('[stores.gone]\ntype = "nothing"\n')
    Errands(project)._tidy()
    (line,) = caplog.records
    assert line.getMessage().startswith("retention: there is no store named 'nothing'")
    assert line.__dict__["event"] == "retention.trouble"


# -- the registry -----------------------------------------------------------------------------------


class Checks:
    """Remembers what was checked; ``wrong`` is what it finds."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.wrong: dict[str, Problem] = {}

    def __call__(self, jobs: Sequence[JobDefinition]) -> Sequence[Sequence[Problem]]:
        self.seen += [each.job_id for each in jobs]
        return [[self.wrong[each.job_id]] if each.job_id in self.wrong else [] for each in jobs]

    def taken(self) -> list[str]:
        seen, self.seen = self.seen, []
        return seen


@pytest.fixture
def resources(project: ProjectFile) -> Any:
    with Resources(project, clock=ManualClock(datetime(2026, 3, 2, tzinfo=UTC))) as resources:
        yield resources


def test_only_what_is_new_or_changed_is_checked(resources: Resources) -> None:
    root, checks = resources.project_file.root, Checks()
    registry = JobRegistry(resources, checks)
    registry.refresh()
    assert checks.taken() == ["mine", "plain"]
    write(root, "plain", description="changed")
    registry.refresh()
    assert checks.taken() == ["plain"]
    JobRegistry(resources, checks).refresh()
    assert checks.taken() == []
    assert [state.version for state in resources.ledger.jobs.all()] == [1, 2]


def test_what_was_refused_is_checked_again_by_another_scheduler(resources: Resources) -> None:
    checks = Checks()
    JobRegistry(resources, checks).refresh()
    write(resources.project_file.root, "plain", description="changed")
    checks.wrong["plain"] = Problem("", "is wrong")
    JobRegistry(resources, checks).refresh()
    checks.taken()
    del checks.wrong["plain"]
    JobRegistry(resources, checks).refresh()
    assert checks.taken() == ["plain"]
    assert [alert.outcome for alert in resources.ledger.alerts.all()] == ["broken", "pass"]


def test_a_job_in_force_is_refused_when_what_it_depends_on_is_gone(resources: Resources) -> None:
    root, checks = resources.project_file.root, Checks()
    write(root, "after", dependencies=[{"job": "plain", "window": "1 day"}])
    JobRegistry(resources, checks).refresh()
    checks.taken()
    (root / "jobs" / "plain.json").unlink()
    JobRegistry(resources, checks).refresh()
    assert checks.taken() == []
    (alert,) = resources.ledger.alerts.all()
    assert "the project has no job 'plain'" in alert.message and "version 1 stays in force" in alert.message


def test_files_that_could_not_be_taken_are_taken_with_the_next_pass(resources: Resources) -> None:
    def unreachable(jobs: Sequence[JobDefinition]) -> Sequence[Sequence[Problem]]:
        raise Unreachable("the ledger cannot be reached")

    registry = JobRegistry(resources, unreachable)
    with pytest.raises(Unreachable):
        registry.refresh()
    registry._check = Checks()
    registry.refresh()
    assert [state.job_id for state in resources.ledger.jobs.all()] == ["mine", "plain"]
