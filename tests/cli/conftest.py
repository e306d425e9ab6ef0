"""A small project, and the command line in this process and in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ecmbatch.cli.main import main

PROJECT = """
[connectors.warehouse]
type = "duckdb"
path = "warehouse.duckdb"
[processors]
modules = ["processors"]
"""

# A transform that waits for the test: it says that it is at work, and goes on when it is let go.
PROCESSORS = """
from pathlib import Path
import pyarrow as pa
from pydantic import BaseModel
from ecmbatch import processor

class Gate(BaseModel):
    folder: str

@processor("waits")
def waits(batch: pa.RecordBatch, config: Gate) -> pa.RecordBatch:
    Path(config.folder, "at_work").open("w").close()
    Path(config.folder, "go").open().close()
    return batch

@processor("breaks")
def breaks(batch: pa.RecordBatch, config: Gate) -> pa.RecordBatch:
    raise ValueError("secret row value")
"""

JOB: dict[str, Any] = {
    "job_id": "people",
    "source": {"connector": "warehouse", "table": "people"},
    "sink": {"store": "context_store", "mode": "upsert", "key": ["id"]},
    "validation": {"rules": [{"type": "row_count", "min": 1}], "on_failure": "abort"},
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did."""

    exit_code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which has to be one JSON document."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class ProjectFolder:
    """A project with one job, ``people``, of ten rows."""

    path: Path

    def job(self, **changes: Any) -> None:
        """Write the job with *changes*."""
        job = {**JOB, **changes}
        (self.path / "jobs").mkdir(exist_ok=True)
        (self.path / "jobs" / f"{job['job_id']}.json").write_text(json.dumps(job))

    def rows(self) -> int:
        """How many rows readers of the store see."""
        if not (self.path / "context.duckdb").exists():
            return 0
        with duckdb.connect(self.path / "context.duckdb", read_only=True) as connection:
            found = connection.sql("SELECT table_name FROM duckdb_tables() WHERE table_name = 'people'")
            return connection.sql("FROM people").shape[0] if found.fetchall() else 0

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
        """Start a command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "ecmbatch", *arguments],
            cwd=self.path,
            stdout=settings.get("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings.get("env", {})},
        )

    def await_work(self) -> None:
        """Wait until the transform ``waits`` is at work."""
        (self.path / "at_work").open().close()

    def let_go(self) -> None:
        """Let the transform ``waits`` go on."""
        (self.path / "go").open("w").close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProjectFolder]:
    folder = ProjectFolder(tmp_path)
    (tmp_path / "ecmbatch.toml").write_text(PROJECT)
    (tmp_path / "processors.py").write_text(PROCESSORS)
    folder.job()
    with duckdb.connect(tmp_path / "warehouse.duckdb") as connection:
        connection.execute("CREATE TABLE people AS SELECT range AS id, 'p' || range AS name FROM range(10)")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def waiting_project(project: ProjectFolder) -> ProjectFolder:
    """The project, with a job whose transform waits for the test."""
    for name in ("at_work", "go"):
        os.mkfifo(project.path / name)
    project.job(transform={"processor": "waits", "config": {"folder": str(project.path)}})
    return project


@pytest.fixture
def ecmbatch(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command in this process."""

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        exit_code = main(arguments)
        captured = capsys.readouterr()
        return Result(exit_code, captured.out, captured.err)

    return run
