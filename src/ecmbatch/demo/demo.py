"""The stories that ``ecmbatch demo`` tells: each does one thing after the other, and says what it did.

A story is an iterator: what it yields is shown before the next thing is done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from ecmbatch.demo.project import apply_changes, build_project
from ecmbatch.engine.history import RunView
from ecmbatch.errors import IntegrityError, RunFailed
from ecmbatch.project import Project, RunResult
from ecmbatch.protocol.checkpoint import PartitionStatus

JOB = "flights-context"
INCREMENTAL_JOB = "flights-incremental"

# In the demo one of four scans of four partitions each is read at a time, with a checkpoint every few rows:
# so that whenever the process dies, some partitions are complete, some partial and some untouched.
_KILLED_RUN = {"ECMBATCH_CONNECTORS__DATA_WAREHOUSE__SCANS": "4", "ECMBATCH_RUN__WORKERS": "1"}
_CHECKPOINT = {"every_rows": 2_000}

_SECONDS_BETWEEN_LOOKS = 0.01
_SAMPLE = """
    SELECT context_id, data.airline AS airline, data.origin AS origin, data.destination AS destination,
           data.arrival_delay_minutes AS arrival_delay_minutes
    FROM flight_context ORDER BY updated_at DESC, context_id LIMIT 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is done next, in one sentence."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What readers of the store see: how many rows, and a few of them."""

    table: str
    rows: int
    sample: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """How far the run was when it was killed: how many partitions were complete, partial and untouched."""

    complete: int
    partial: int
    untouched: int
    rows_read: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two stores, row for row; which run wrote a row is left out."""

    rows: int
    only_after_the_kill: int
    only_in_the_other: int


Told = Step | RunView | Contents | Kill | Comparison
Run = Callable[[Project, str], RunResult]
"""Runs a job of a project; the command line shows its progress and listens to signals."""


def tell_demo(folder: Path, run: Run) -> Iterator[Told]:
    """Build the project in *folder*, load everything, change some flights, and load what changed.

    Raises the error of a run that does not succeed.
    """
    yield Step(text=f"building a project with the flights of 2013 in {folder}")
    build_project(folder)
    yield Step(text=f"ecmbatch run {JOB}")
    yield _succeed(folder, JOB, run)
    yield contents(folder)
    yield Step(text=f"ecmbatch run {INCREMENTAL_JOB}: the first time it reads everything")
    yield _succeed(folder, INCREMENTAL_JOB, run)
    changed = apply_changes(folder, datetime.now(UTC))
    yield Step(text=f"{changed:,} flights change in the warehouse")
    yield Step(text=f"ecmbatch run {INCREMENTAL_JOB}: now it reads what changed")
    yield _succeed(folder, INCREMENTAL_JOB, run)
    yield contents(folder)


def tell_interrupted_demo(folder: Path, run: Run) -> Iterator[Told]:
    """Build the project in *folder*, kill a run half-way, continue it, and compare with one never killed.

    Raises ``IntegrityError`` when the two stores differ.
    """
    yield Step(text=f"building a project with the flights of 2013 in {folder}")
    build_project(folder)
    _checkpoint_often(folder)
    yield Step(text=f"ecmbatch run {JOB}, killed half-way with SIGKILL")
    yield _killed_run(folder)
    yield Step(text=f"ecmbatch run {JOB}: the same command again")
    yield _succeed(folder, JOB, run)
    yield contents(folder)
    with tempfile.TemporaryDirectory(prefix="ecmbatch-demo-") as other:
        yield Step(text="the same in another project, without a kill")
        build_project(Path(other))
        yield _succeed(Path(other), JOB, run)
        yield Step(text="comparing the two stores row for row")
        comparison = compare(folder, Path(other))
    yield comparison
    if comparison.only_after_the_kill or comparison.only_in_the_other:
        raise IntegrityError("the store differs from that of an uninterrupted run")


def contents(folder: Path) -> Contents:
    """Return what the store of the project in *folder* holds."""
    with duckdb.connect(folder / "context.duckdb", read_only=True) as connection:
        rows = connection.sql("SELECT count(*) FROM flight_context").fetchall()[0][0]
        found = connection.sql(_SAMPLE)
        sample = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    return Contents(table="flight_context", rows=rows, sample=sample)


def compare(folder: Path, other: Path) -> Comparison:
    """Compare the context tables of two projects, every row and every column but the run that wrote it."""
    with duckdb.connect() as connection:
        for name, project in (("killed", folder), ("other", other)):
            path = str(project / "context.duckdb").replace("'", "''")
            connection.execute(f"ATTACH '{path}' AS {name} (READ_ONLY)")

        def missing(one: str, two: str) -> int:
            rows = connection.execute(
                f"SELECT count(*) FROM (SELECT * EXCLUDE (_ecm_run_id) FROM {one}.flight_context"
                f" EXCEPT ALL SELECT * EXCLUDE (_ecm_run_id) FROM {two}.flight_context)"
            )
            return int(rows.fetchall()[0][0])

        return Comparison(
            rows=connection.sql("SELECT count(*) FROM killed.flight_context").fetchall()[0][0],
            only_after_the_kill=missing("killed", "other"),
            only_in_the_other=missing("other", "killed"),
        )


def _succeed(folder: Path, job: str, run: Run) -> RunView:
    # The project is closed again at once: while it is open, nobody else can read its store.
    with Project.load(folder) as project:
        result = run(project, job)
    if result.error is not None:
        raise result.error
    return result.view


def _checkpoint_often(folder: Path) -> None:
    path = folder / "jobs" / f"{JOB}.json"
    job = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**job, "checkpoint": _CHECKPOINT}, indent=2) + "\n", encoding="utf-8")


def _killed_run(folder: Path) -> Kill:
    """Start a run in a process of its own, and end that with SIGKILL when the run is half-way."""
    command = [sys.executable, "-m", "ecmbatch", "run", JOB, "--project", str(folder), "--quiet"]
    environment = {**os.environ, **_KILLED_RUN}
    with (
        Project.load(folder) as project,
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as child,  # noqa: S603 - ourselves
    ):
        try:
            while child.poll() is None and not _is_half_way(project):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            child.kill()
        if child.wait() != -signal.SIGKILL:
            raise RunFailed("the run that was to be killed ended by itself", hint="start the demo again")
        return _state(project.history.recent_runs(job_id=JOB)[0])


def _is_half_way(project: Project) -> bool:
    for view in project.history.recent_runs(job_id=JOB):
        state = _state(view)
        return state.complete >= len(view.partitions) // 2 and state.partial > 0
    return False


def _state(view: RunView) -> Kill:
    complete = sum(each.status is PartitionStatus.COMPLETED for each in view.partitions)
    untouched = sum(each.offset == 0 for each in view.partitions)
    return Kill(
        complete=complete,
        partial=len(view.partitions) - complete - untouched,
        untouched=untouched,
        rows_read=view.rows_read,
    )
