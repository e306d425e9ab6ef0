"""A small project, and the command line in this process and in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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

# The transform "waits" says that it is at work, and goes on when the test lets it.
PROCESSORS = """
import sys
from pathlib import Path
import pyarrow as pa
from ecmbatch import processor

@processor("waits")
def waits(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    if batch.num_rows:
        print("at work", file=sys.stderr, flush=True)
        with Path(config["gate"]).open("rb", buffering=0) as gate:
            gate.read(1)
    return batch

@processor("breaks")
def breaks(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:
    if batch.num_rows:
        raise ValueError("secret row value")
    return batch
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
class Child:
    """A command in a process of its own."""

    process: subprocess.Popen[str]

    def await_line(self, text: str) -> None:
        """Read standard error up to the first line with *text*."""
        assert self.process.stderr is not None
        assert any(text in line for line in self.process.stderr), f"it ended without saying {text!r}"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> Result:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=60)
        return Result(self.process.returncode, out, err)


@dataclass(frozen=True, slots=True)
class ProjectFolder:
    """A project with one job, ``people``, of ten rows."""

    path: Path
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def job(self, **changes: Any) -> None:
        """Write the job with *changes*."""
        job = {**JOB, **changes}
        (self.path / "jobs").mkdir(exist_ok=True)
        (self.path / "jobs" / f"{job['job_id']}.json").write_text(json.dumps(job))

    def waiting_job(self) -> Callable[[], None]:
        """Write the job with a transform that waits; return what lets it go on."""
        path = self.path / "gate"
        os.mkfifo(path)
        gate = os.open(path, os.O_RDWR)  # with both ends open, nothing here can block
        self.job(transform={"processor": "waits", "config": {"gate": str(path)}})
        return lambda: os.write(gate, b".") and None

    def rows(self) -> int:
        """How many rows readers of the store see."""
        if not (self.path / "context.duckdb").exists():
            return 0
        with duckdb.connect(self.path / "context.duckdb", read_only=True) as connection:
            found = connection.sql("SELECT table_name FROM duckdb_tables() WHERE table_name = 'people'")
            return connection.sql("FROM people").shape[0] if found.fetchall() else 0

    def start(self, *arguments: str, stdout: Any = subprocess.PIPE) -> Child:
        """Start a command in a process of its own."""
        child = subprocess.Popen(
            [sys.executable, "-m", "ecmbatch", *arguments],
            cwd=self.path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        return Child(child)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProjectFolder]:
    folder = ProjectFolder(tmp_path)
    (tmp_path / "ecmbatch.toml").write_text(PROJECT)
    (tmp_path / "processors.py").write_text(PROCESSORS)
    folder.job()
    with duckdb.connect(tmp_path / "warehouse.duckdb") as connection:
        connection.execute("CREATE TABLE people AS SELECT range AS id, 'p' || range AS name FROM range(10)")
    monkeypatch.chdir(tmp_path)
    yield folder
    for child in folder.children:
        child.kill()
        child.communicate()


@pytest.fixture
def ecmbatch(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command in this process."""

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        exit_code = main(arguments)
        captured = capsys.readouterr()
        return Result(exit_code, captured.out, captured.err)

    return run
