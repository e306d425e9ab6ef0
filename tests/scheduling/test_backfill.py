"""Backfills of real jobs: the right intervals are read, each once, whatever happens meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from ecmbatch import Plugins, Project
from ecmbatch.crash_points import CrashPoint
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.backfill_views import BackfillRequest, BackfillView
from ecmbatch.engine.scheduling.backfills import advance_backfill
from ecmbatch.engine.scheduling.scheduler import Scheduler
from ecmbatch.engine.scheduling.worker import execute_next
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import (
    ConflictError,
    DependencyNotMet,
    InvalidDocument,
    RunAlreadyComplete,
    RunReleased,
    RunStopped,
    StoreBusy,
    UsageError,
)
from ecmbatch.ledger import tables
from ecmbatch.project_file import ProjectSettings
from ecmbatch.protocol.intervals import BackfillStatus
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import RunStatus
from ecmbatch.stores.memory import MemoryStore, MemoryTables
from ecmbatch.stores.store import StoreType
from ecmbatch.testing.clock import ManualClock
from ecmbatch.testing.crashes import SimulatedCrash, crash_at

ZERO = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WINDOWED = "SELECT * FROM customers WHERE updated_at >= :window_start AND updated_at < :window_end"
# The protocol's own query, with the upper bound that a backfill needs.
SINCE_LAST_SYNC = "SELECT * FROM customers WHERE updated_at >= :last_sync AND updated_at < :window_end"


def at(days: float) -> datetime:
    return ZERO + days * DAY


def job(query: str = WINDOWED, *, mode: str = "upsert", **sections: Any) -> JobDefinition:
    return JobDefinition.from_value(
        {
            "job_id": "customer-sync",
            "source": {"connector": "crm", "query": query, "order_by": "id", "lag": "0 s"},
            "sink": {"store": "context", "mode": mode, "table": "customers", "key": ["id"]},
            "checkpoint": {"every_rows": 2},
            **sections,
        }
    )


@dataclass
class World:
    """A CRM with five changes a day for six days, and a store; both outlive the processes that open a project."""

    folder: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(at(6)))
    tables: MemoryTables = field(default_factory=MemoryTables)

    def __post_init__(self) -> None:
        self.ask_crm("CREATE TABLE customers (id INTEGER, updated_at TEXT)")
        for number in range(30):
            self.change(number, at(number / 5))

    def ask_crm(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "crm.db")) as crm, crm:
            return crm.execute(statement, values).fetchall()

    def change(self, number: int, updated_at: datetime) -> None:
        self.ask_crm("INSERT INTO customers VALUES (?, ?)", number, f"{updated_at:%Y-%m-%d %H:%M:%S.%f}")

    @contextmanager
    def project(self) -> Iterator[Project]:
        plugins = Plugins()
        plugins.stores.add(
            StoreType(
                name="tables",
                parse_config=lambda config: config,
                build=lambda config, root, tell: MemoryStore(self.tables),
            )
        )
        settings = ProjectSettings(
            connectors={"crm": {"type": "sqlite", "path": "crm.db"}}, stores={"context": {"type": "tables"}}
        )
        with Project(self.folder, settings=settings, plugins=plugins, clock=self.clock) as project:
            yield project

    def backfill(self, of: JobDefinition | None = None, **changes: Any) -> BackfillView:
        """Create a backfill and execute it here."""
        with self.project() as project:
            view, _ = project.create_backfill(of or job(), request(**changes))
            return project.backfills.execute(view.backfill.backfill_id, stop=StopSignal())

    def loaded(self) -> list[int]:
        found = self.tables.tables.get("customers")
        return sorted(found.column("id").to_pylist()) if found is not None else []


def request(start: float = 0, end: float = 6, **changes: Any) -> BackfillRequest:
    return BackfillRequest(start=at(start), end=at(end), **changes)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def numbers(view: BackfillView) -> Mapping[str, int]:
    return {name: number for name, number in view.counts.items() if number}


def test_a_range_is_loaded_interval_by_interval(world: World) -> None:
    view = world.backfill(of_all := job(mode="append"))
    assert (view.backfill.status, numbers(view), view.exit_code) == ("completed", {"loaded": 6}, 0)
    assert world.loaded() == list(range(30))
    # All of it is loaded now: the same again has nothing to do, whatever the split is.
    again = world.backfill(of_all, split="2 days")
    assert (again.backfill.status, numbers(again)) == ("completed", {"skipped": 3})
    assert world.loaded() == list(range(30))


def test_the_protocols_job_is_filled_by_day_while_live_runs_go_on_and_never_moves_their_watermark(
    world: World,
) -> None:
    synced = job(SINCE_LAST_SYNC, parameters={"last_sync": "${previous_job.end_time}"})
    with world.project() as project:
        project.set_watermark("customer-sync", at(6), reason="the past is filled by a backfill")
        view, _ = project.create_backfill(synced, request(0, 5, order="desc"))
        marks = [at(6)]
        for day in range(5):
            # Windows of live runs end by the clock of the source's host.
            world.change(100 + day, datetime.now(UTC))
            live = project.run(synced)
            assert live.status is RunStatus.SUCCESS
            (mark, *_) = project.watermarks("customer-sync")
            assert mark.window_end is not None and mark.run_id == live.run_id
            marks.append(mark.window_end)
            run = execute_next(project._resources, workers=1, stop=StopSignal())
            assert run is not None and run.backfill_id == view.backfill.backfill_id
            document = project.history.run(run.run_id).document()
            start, end = f"2026-01-0{5 - day}T00:00:00Z", f"2026-01-0{6 - day}T00:00:00Z"
            assert document["window"] == {"start": start, "end": end}
            assert document["parameters"] == {"last_sync": start, "window_end": end}
            advance_backfill(view.backfill.backfill_id, project._resources)
        assert [each.window_end for each in project.watermarks("customer-sync")] == marks[::-1]
        assert marks == sorted(marks)
        assert project.backfills.status(view.backfill.backfill_id).backfill.status == "completed"
    # What was changed on the sixth day was neither asked for nor after the watermark.
    assert world.loaded() == [*range(25), *range(100, 105)]


@pytest.mark.parametrize(
    ("point", "occurrence"),
    [
        ("run.frozen", 1),
        ("scan.claimed", 2),
        ("checkpoint.after", 1),
        ("publish.after", 2),
        ("finish.before", 1),
        ("finish.after", 2),
    ],
)
def test_it_may_die_anywhere_and_goes_on_when_it_is_created_again(
    world: World, point: CrashPoint, occurrence: int
) -> None:
    of_all = job(mode="append")
    with crash_at(point, occurrence=occurrence), pytest.raises(SimulatedCrash):
        world.backfill(of_all, end=3)
    world.clock.advance(timedelta(minutes=2))
    view = world.backfill(of_all, end=3)
    assert numbers(view) == {"loaded": 3}
    assert world.loaded() == list(range(15))
    with world.project() as project:
        assert len(project.backfills.recent()) == 1


def test_the_job_stays_what_it_was_when_the_backfill_was_made(world: World) -> None:
    with world.project() as project:
        view, _ = project.create_backfill(job(), request(0, 2))
        # A newer version of the job is known since.
        newer, _ = project.create_backfill(
            job("SELECT id, updated_at FROM customers WHERE updated_at < :window_end"), request(3, 4)
        )
        project.backfills.execute(view.backfill.backfill_id, stop=StopSignal())
        assert (view.backfill.job_version, newer.backfill.job_version) == (1, 2)
    assert world.loaded() == list(range(10))


def test_a_failure_stops_it_and_a_retry_goes_on(world: World) -> None:
    world.ask_crm("DELETE FROM customers WHERE id BETWEEN 10 AND 14")
    checked = job(alerts=[], validation={"rules": [{"type": "row_count", "min": 1}], "on_failure": "abort"})
    view = world.backfill(checked)
    assert (view.backfill.status, view.exit_code) == ("failed", 1)
    assert numbers(view) == {"loaded": 2, "failed": 1, "pending": 3}
    assert [run.status for run in view.failures] == [RunStatus.VALIDATION_FAILED]
    for number in range(10, 15):
        world.change(number, at(number / 5))
    with world.project() as project:
        backfill_id = view.backfill.backfill_id
        (alert,) = [each for each in project.alerts() if each.key == f"backfill {backfill_id}"]
        assert "of 6 intervals 2 loaded, 1 failed, 3 pending" in alert.message
        project.backfills.retry(backfill_id)
        view = project.backfills.execute(backfill_id, stop=StopSignal())
        outcomes = [each.outcome for each in project.alerts() if each.key == f"backfill {backfill_id}"]
        assert outcomes == ["failed", "pass"]
    assert numbers(view) == {"loaded": 6}
    assert world.loaded() == list(range(30))


def test_a_signal_pauses_it_and_it_can_be_resumed(world: World) -> None:
    with world.project() as project:
        view, _ = project.create_backfill(job(), request())
        backfill_id = view.backfill.backfill_id
        stop = StopSignal()
        stop.set(RunStopped("stopped by SIGTERM"))
        paused = project.backfills.execute(backfill_id, stop=stop)
        assert (paused.backfill.status, paused.exit_code) == ("paused", 5)
        project.backfills.resume(backfill_id)
        assert numbers(project.backfills.execute(backfill_id, stop=StopSignal())) == {"loaded": 6}


def test_intervals_wait_for_those_of_the_job_they_depend_on(world: World) -> None:
    upstream = JobDefinition.from_value(
        {
            "job_id": "reference",
            "source": {"connector": "crm", "query": WINDOWED},
            "sink": {"store": "context", "mode": "upsert", "table": "reference", "key": ["id"]},
        }
    )
    (world.folder / "jobs").mkdir()
    (world.folder / "jobs" / "reference.json").write_text(upstream.to_json())
    dependent = job(dependencies=[{"job": "reference", "window": "1 day"}])
    with pytest.raises(DependencyNotMet, match="needs reference as of"):
        world.backfill(dependent, end=2)
    with world.project() as project:
        (view,) = project.backfills.recent()
        assert view.backfill.status == "paused"
    world.backfill(upstream, end=2)
    assert numbers(world.backfill(dependent, end=2)) == {"loaded": 2}
    assert numbers(world.backfill(dependent, start=2, end=4, ignore_dependencies=True)) == {"loaded": 2}


def test_runs_by_hand_count_and_backfills_count_for_runs_by_hand(world: World) -> None:
    with world.project() as project:
        assert project.run(job(), window=(at(0), at(2))).status is RunStatus.SUCCESS
    assert numbers(world.backfill(end=4)) == {"loaded": 2, "skipped": 2}
    with world.project() as project:
        with pytest.raises(RunAlreadyComplete, match="was loaded by run"):
            project.run(job(), window=(at(2), at(3)))
        # No run had this very interval.
        with pytest.raises(RunAlreadyComplete, match="was loaded before"):
            project.run(job(), window=(at(1), at(3.5)))
        with pytest.raises(RunAlreadyComplete, match="was loaded before"):
            project.plan(job(), window=(at(1), at(3.5)))
        assert project.run(job(), window=(at(1), at(3.5)), fresh=True).status is RunStatus.SUCCESS


def test_what_is_loaded_stays_loaded_when_its_runs_are_forgotten(world: World) -> None:
    world.backfill(end=2)
    with world.project() as project:
        with project._resources.ledger._database.write() as connection:
            connection.execute(delete(tables.runs))
        with pytest.raises(RunAlreadyComplete, match="was loaded before"):
            project.run(job(), window=(at(0), at(1)))
    assert numbers(world.backfill(end=3)) == {"loaded": 1, "skipped": 2}


def test_to_append_an_interval_of_which_a_part_is_loaded_is_refused(world: World) -> None:
    appended = job(mode="append")
    with world.project() as project:
        project.run(appended, window=(at(0.5), at(2)))
        with pytest.raises(ConflictError, match=r"begins at 2026-01-01T00:00:00Z is loaded.*rows twice"):
            project.create_backfill(appended, request())
    assert numbers(world.backfill(appended, start=1)) == {"loaded": 4, "skipped": 1}
    assert world.loaded() == list(range(3, 30))


@pytest.mark.parametrize(
    ("of", "asked", "message"),
    [
        (job("SELECT * FROM customers"), {}, "nothing in it depends on the window"),
        (
            job(
                "SELECT * FROM customers WHERE updated_at >= :t", parameters={"t": "${previous_job.end_time}"}
            ),
            {},
            "has no upper bound: each of 6 intervals would read everything up to now",
        ),
        (job(mode="replace"), {}, "each of 6 intervals would erase the others"),
        (job(), {"start": 3, "end": 3}, "must begin before it ends"),
        (job(), {"end": 7}, "ends in the future, at 2026-01-08T00:00:00Z"),
        (job(), {"split": "schedule"}, "no cron or interval schedule"),
        (job(), {"split": "1 month"}, "no fixed length"),
        (job(), {"params": {"region": "EU"}}, "does not use --param region"),
        (job(), {"concurrency": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_filled_is_refused(
    world: World, of: JobDefinition, asked: dict[str, Any], message: str
) -> None:
    with world.project() as project:
        for call in (project.plan_backfill, project.create_backfill):
            with pytest.raises(UsageError, match=message):
                call(of, request(**asked))
        assert project.backfills.recent() == []


def test_without_an_upper_bound_or_with_replace_the_range_is_one_interval(world: World) -> None:
    since = job(
        "SELECT * FROM customers WHERE updated_at >= :t", parameters={"t": "${previous_job.end_time}"}
    )
    assert numbers(world.backfill(since, start=2, end=3, split="none")) == {"loaded": 1}
    assert world.loaded() == list(range(10, 30))
    assert numbers(world.backfill(job(mode="replace"), start=4, split="none")) == {"loaded": 1}
    assert world.loaded() == list(range(20, 30))


def test_a_parameter_that_is_needed_is_asked_for_before_anything_is_made(world: World) -> None:
    regional = job(WINDOWED + " AND id > :least", parameters={"least": "${param.least}"})
    with world.project() as project, pytest.raises(InvalidDocument, match="needs --param least"):
        project.create_backfill(regional, request())
    assert numbers(world.backfill(regional, params={"least": 12})) == {"loaded": 6}
    assert world.loaded() == list(range(13, 30))


def test_a_plan_tells_what_would_be_done_and_writes_nothing(world: World) -> None:
    with world.project() as project:
        project.run(job(), window=(at(0), at(2)))
        document = project.plan_backfill(job(), request(end=5.5)).document()
        assert document["intervals"] == {
            "total": 6,
            "to_do": 4,
            "loaded": 2,
            "failed": 0,
            "first": {
                "start": "2026-01-01T00:00:00Z",
                "end": "2026-01-02T00:00:00Z",
                "parameters": {
                    "window_start": "2026-01-01T00:00:00Z",
                    "window_end": "2026-01-02T00:00:00Z",
                },
            },
            "last": {
                "start": "2026-01-06T00:00:00Z",
                "end": "2026-01-06T12:00:00Z",
                "parameters": {
                    "window_start": "2026-01-06T00:00:00Z",
                    "window_end": "2026-01-06T12:00:00Z",
                },
            },
        }
        assert (document["split"], document["conflicts"]) == ("1 d", [])
        assert document["estimate"]["earlier_runs"] == 1
        assert project.backfills.recent() == []
        view, _ = project.create_backfill(job(), request(2, 4))
        document = project.plan_backfill(job(), request(3, 5)).document()
        assert document["conflicts"][0]["backfill_id"] == view.backfill.backfill_id
        document = project.plan_backfill(job(), request(2, 4)).document()
        assert (document["continues"], document["conflicts"]) == (view.backfill.backfill_id, [])


def test_a_million_intervals_are_planned_made_and_listed_without_a_million_rows(world: World) -> None:
    world.clock.now = datetime(2026, 1, 1, tzinfo=UTC)
    minute = timedelta(minutes=1)
    million = BackfillRequest(
        start=ZERO - 1_000_000 * minute, end=ZERO, split="1 minute", order="desc", concurrency=3
    )
    with world.project() as project:
        plan = project.plan_backfill(job(), million)
        assert plan.document()["intervals"]["total"] == 1_000_000
        view, _ = project.create_backfill(job(), million)
        assert numbers(view) == {"queued": 3, "pending": 999_997}
        backfill_id = view.backfill.backfill_id
        for _ in range(3):
            execute_next(project._resources, workers=1, stop=StopSignal())
        document = project.backfills.status(backfill_id).document()
        assert document["intervals"]["total"] == 1_000_000
        assert [(each["status"], each["intervals"]) for each in document["ranges"]] == [
            ("pending", 999_997),
            ("loaded", 3),
        ]
        with project._resources.ledger._database.read() as connection:
            rows = connection.execute(select(func.count()).select_from(tables.interval_ranges)).scalar()
        assert rows == 2
        # The same again finds it.
        again, is_new = project.create_backfill(job(), million)
        assert (again.backfill.backfill_id, is_new) == (backfill_id, False)


def test_a_backfill_of_a_paused_job_is_executed(world: World) -> None:
    with world.project() as project:
        project.pause(job(), "for now")
    assert numbers(world.backfill(end=1)) == {"loaded": 1}


def test_what_is_staged_on_another_host_is_not_waited_for(world: World) -> None:
    with world.project() as project:
        view, _ = project.create_backfill(job(), request(0, 2))
        backfill_id = view.backfill.backfill_id
        stop = StopSignal()
        stop.set(RunReleased("the worker shuts down"))
        released = execute_next(project._resources, workers=1, stop=stop)
        assert released is not None and (released.status, released.attempt) == (RunStatus.QUEUED, 1)
        elsewhere = {"id": "s", "host": "elsewhere", "path": "/stage"}
        with project._resources.ledger._database.write() as connection:
            connection.execute(update(tables.runs).values(stage=elsewhere))
        with pytest.raises(DependencyNotMet, match="staged in /stage on elsewhere") as raised:
            project.backfills.execute(backfill_id, stop=StopSignal())
        assert raised.value.exit_code == 4
        # A worker there may still take it.
        assert project.backfills.status(backfill_id).backfill.status == "running"
        project.abandon(released.run_id)
        assert numbers(project.backfills.execute(backfill_id, stop=StopSignal())) == {"loaded": 2}
    assert world.loaded() == list(range(10))


def test_to_go_on_with_appending_is_refused_where_another_loaded_a_part_of_an_interval(world: World) -> None:
    appended = job(mode="append")
    with world.project() as project:
        view, _ = project.create_backfill(appended, request())
        backfill_id = view.backfill.backfill_id
        project.backfills.cancel(backfill_id)
        project.run(appended, window=(at(0.5), at(2)))
        with pytest.raises(ConflictError, match="append would add its rows twice"):
            project.backfills.resume(backfill_id)
        assert project.backfills.status(backfill_id).backfill.status == "cancelled"


def test_what_keeps_a_backfill_from_going_on_is_logged_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with world.project() as project:
        project.create_backfill(job(), request(0, 2))
        other, _ = project.create_backfill(job(), request(2, 4))
        in_use = [StoreBusy("the store is in use"), StoreBusy("the store is in use"), StoreBusy("by another")]

        def advance_one(backfill_id: str, resources: Resources) -> BackfillStatus:
            if backfill_id != other.backfill.backfill_id and in_use:
                raise in_use.pop(0)
            return advance_backfill(backfill_id, resources)

        monkeypatch.setattr("ecmbatch.engine.scheduling.scheduler.advance_backfill", advance_one)
        scheduler = Scheduler(project._resources)
        for _ in range(4):
            scheduler.run_pass()
    records = {id(record): record for record in caplog.records if record.levelname == "ERROR"}.values()
    told = [record.getMessage().partition(": ")[2] for record in records]
    assert told == ["the store is in use", "by another"]
