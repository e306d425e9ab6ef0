"""The real command line, killed with SIGKILL and given again: every row is in the store once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from log_lines import line, write

ECMBATCH = """
import runpy, sys
from ecmbatch.testing.crashes import kill_at
point = sys.argv.pop(1)
if point:
    kill_at(point, occurrence=2)
runpy.run_module("ecmbatch", run_name="__main__", alter_sys=True)
"""
PROJECT = """
[connectors.web]
type = "access_log"
root = "logs"
"""
JOB = """{
  "job_id": "requests",
  "source": {"connector": "web", "path": "access.log*", "batch_rows": 100},
  "sink": {"store": "context_store", "mode": "append", "provenance": false},
  "partitioning": {"strategy": "hash", "key": "host", "partitions": 4},
  "checkpoint": {"every_rows": 100}
}"""


def make_project(folder: Path) -> None:
    write(folder / "ecmbatch.toml", PROJECT)
    write(folder / "jobs/requests.json", JOB)
    write(folder / "logs/access.log", *map(line, range(700)))
    write(folder / "logs/access.log.1", *map(line, range(600, 1000)))


def run(folder: Path, point: str = "") -> int:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ECMBATCH, point, "run", "requests", "--project", str(folder)]
    return subprocess.run(command, env=environment, check=False).returncode


def stored(folder: Path) -> pa.Table:
    with duckdb.connect(str(folder / "context.duckdb"), read_only=True) as store:
        return store.sql("SELECT * FROM requests ORDER BY ALL").to_arrow_table()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What a run that is left alone stores."""
    folder = tmp_path_factory.mktemp("whole")
    make_project(folder)
    assert run(folder) == 0
    return stored(folder)


@pytest.mark.parametrize("point", ["stage.written", "checkpoint.before", "checkpoint.after"])
def test_killed_and_run_again(point: str, whole: pa.Table, tmp_path: Path) -> None:
    make_project(tmp_path)
    assert run(tmp_path, point) == -signal.SIGKILL
    assert run(tmp_path) == 0
    assert whole.num_rows == 1100
    assert stored(tmp_path).equals(whole)
