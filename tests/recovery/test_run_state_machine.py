"""Random histories of runs, crashes, resumes, stops, abandonments and clock jumps against a small model.

The model knows one thing: the store must hold the source's rows once for every run whose marker says that it
was published (the job appends), and the ledger must not contradict the markers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ecmbatch import Plugins, Project
from ecmbatch.connectors.memory import MemoryConnector, memory_type
from ecmbatch.crash_points import CrashPoint
from ecmbatch.errors import EcmbatchError
from ecmbatch.project_file import ProjectSettings
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.stores.memory import MemoryStore, MemoryTables
from ecmbatch.stores.store import StoreType
from ecmbatch.testing.clock import ManualClock
from ecmbatch.testing.crashes import CRASH_POINTS, SimulatedCrash, crash_at

SOURCE = pa.table({"id": pa.array(range(40)), "value": pa.array([f"v{number}" for number in range(40)])})
NOT_PASSED = (
    "alert.delivered",
    "stage.reference",
    "run.references",
    "gc.abandoned",
    "gc.stage",
    "gc.history",
    "gc.run",
)
PASSED = [point for point in CRASH_POINTS if point not in NOT_PASSED]


class Runs(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.tables = MemoryTables()
        self.known: list[str] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def project(self) -> Project:
        """Open the project as a new process would; the store's tables outlive it as a database would."""
        plugins = Plugins()
        plugins.connectors.add(memory_type(MemoryConnector(SOURCE, scans=2)))
        plugins.stores.add(
            StoreType(
                name="tables",
                parse_config=lambda config: config,
                build=lambda config, root, tell: MemoryStore(self.tables),
            )
        )
        project_settings = ProjectSettings(
            connectors={"rows": {"type": "memory"}}, stores={"tables": {"type": "tables"}}
        )
        return Project(self.folder, settings=project_settings, plugins=plugins, clock=self.clock)

    def attempt(self, crash: tuple[CrashPoint, int] | None, action: Any) -> None:
        """Do something that may be refused, with a crash on the way or not."""
        self.clock.advance(timedelta(seconds=1))
        with self.project() as project:
            try:
                if crash is None:
                    action(project)
                else:
                    with crash_at(crash[0], occurrence=crash[1]):
                        action(project)
            except SimulatedCrash:
                # The "process" is this one, which lives on: only the lease's expiry tells that it is gone.
                self.clock.advance(timedelta(minutes=2))
            except EcmbatchError:
                pass
            self.known = [view.run.run_id for view in project.history.recent_runs(limit=100)]

    crashes = st.none() | st.tuples(st.sampled_from(PASSED), st.integers(1, 3))

    @rule(crash=crashes, fresh=st.booleans(), full_refresh=st.booleans())
    def run(self, crash: Any, fresh: bool, full_refresh: bool) -> None:
        self.attempt(crash, lambda project: project.run(JOB, fresh=fresh, full_refresh=full_refresh))

    @rule(crash=crashes)
    def backfill(self, crash: Any) -> None:
        interval = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC))
        self.attempt(crash, lambda project: project.run(JOB, window=interval))

    @precondition(lambda self: self.known)
    @rule(crash=crashes, data=st.data())
    def resume(self, crash: Any, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.known))
        self.attempt(crash, lambda project: project.resume(run_id, job=JOB))

    @precondition(lambda self: self.known)
    @rule(crash=crashes, data=st.data())
    def abandon(self, crash: Any, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.known))
        self.attempt(crash, lambda project: project.abandon(run_id))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.known))
        self.attempt(None, lambda project: project.stop(run_id))

    @rule(seconds=st.integers(-3600, 86_400))
    def clock_jumps(self, seconds: int) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    @invariant()
    def every_published_run_is_in_the_store_once(self) -> None:
        with self.project() as project:
            views = project.history.recent_runs(limit=100)
        store = MemoryStore(self.tables)
        markers = {view.run.run_id: store.marker(view.run.run_id) for view in views}
        published = {run_id for run_id, marker in markers.items() if marker and marker.outcome == "published"}
        rows = store.rows("history") if store.table("history") else []
        assert Counter(row["id"] for row in rows) == Counter(list(range(40)) * len(published))
        for view in views:
            status, marker = view.run.status, markers[view.run.run_id]
            if status == "success":
                assert view.run.run_id in published
                assert view.rows_read == 40
            if status == "abandoned":
                assert marker is None or marker.outcome == "abandoned"

    @invariant()
    def the_watermark_never_moves_back(self) -> None:
        with self.project() as project:
            marks = [mark.window_end for mark in project.watermarks("history")]
        ends = [end for end in marks if end is not None]
        assert ends == sorted(ends, reverse=True)


JOB = JobDefinition.from_value(
    {
        "job_id": "history",
        "source": {"connector": "rows", "table": "any", "order_by": "id"},
        "sink": {"store": "tables", "mode": "append"},
        "partitioning": {"strategy": "hash", "key": "id", "partitions": 4},
        "checkpoint": {"every_rows": 7},
    }
)

TestRuns = pytest.mark.slow(Runs.TestCase)
TestRuns.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
