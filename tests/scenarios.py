"""The promises of recovery and publishing, each as a scenario that fails when the promise is broken.

The same scenarios run on the real code (they must pass) and on code with one promise broken on purpose
(they must fail). A crash is an exception that nothing handles; a paused worker is a thread that waits at a
crash point; time moves by hand.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from ecmbatch.crash_points import CrashPoint, set_hook
from ecmbatch.errors import EcmbatchError
from ecmbatch.project import Project, RunResult
from ecmbatch.testing.clock import ManualClock
from ecmbatch.testing.crashes import SimulatedCrash, crash_at
from harness import customers, customers_job, expected, fill_warehouse, make_project, stored, write_job

ROWS = customers(120)
LEASE = timedelta(minutes=2)


class World:
    """A project on disk with a clock moved by hand; every call opens the project as a new process would."""

    def __init__(self, folder: Path, **job: Any) -> None:
        self.folder = make_project(folder)
        self.clock = ManualClock(datetime.now(UTC))
        fill_warehouse(self.folder, ROWS)
        write_job(self.folder, customers_job(partitions=4, **job))

    @contextmanager
    def project(self) -> Iterator[Project]:
        with Project.load(self.folder, environment={}, clock=self.clock) as project:
            yield project

    def run(self, **options: Any) -> RunResult:
        with self.project() as project:
            return project.run(self.folder / "job.json", **options)

    def crash(self, point: CrashPoint, *, occurrence: int = 1, **options: Any) -> str:
        """Run until *point* and die there; return the run's id."""
        with crash_at(point, occurrence=occurrence):
            try:
                self.run(**options)
            except SimulatedCrash:
                pass
            else:
                raise RuntimeError(f"the run never came by {point}")
        self.clock.advance(LEASE)
        return self.latest()["run_id"]

    def latest(self) -> Mapping[str, Any]:
        with self.project() as project:
            return project.history.recent_runs(limit=1)[0].document()

    def document(self, run_id: str) -> Mapping[str, Any]:
        with self.project() as project:
            return project.history.run(run_id).document()

    def run_ids(self) -> list[str]:
        with self.project() as project:
            return [view.run.run_id for view in project.history.recent_runs()]

    def stored(self) -> list[tuple[Any, ...]]:
        return stored(self.folder)


class Sleeper:
    """A worker that falls asleep at a crash point, as under SIGSTOP, and wakes when told to."""

    def __init__(self, world: World, point: CrashPoint, **options: Any) -> None:
        self.outcome: RunResult | BaseException | None = None
        self._asleep = threading.Event()
        self._awake = threading.Event()
        self._point = point
        set_hook(self._fall_asleep)
        self._thread = threading.Thread(target=self._work, args=(world, options))
        self._thread.start()
        if not self._asleep.wait(60):
            raise RuntimeError(f"the worker never came by {point}")
        world.clock.advance(LEASE)
        self.run_id = str(world.latest()["run_id"])

    def wake(self) -> None:
        """Let the worker go on to its end."""
        self._awake.set()
        self._thread.join()

    def _fall_asleep(self, point: CrashPoint) -> None:
        if point == self._point and not self._asleep.is_set():
            self._asleep.set()
            self._awake.wait()

    def _work(self, world: World, options: dict[str, Any]) -> None:
        try:
            self.outcome = world.run(**options)
        except EcmbatchError as error:
            self.outcome = error
        finally:
            set_hook(None)


def check(condition: bool, promise: str) -> None:
    """Fail with the promise that was broken."""
    assert condition, promise


def lost_acknowledgement(folder: Path) -> None:
    """A worker dies between the store's commit and the ledger: the rows are there once, the run a success."""
    world = World(folder, mode="append")
    run_id = world.crash("publish.after_commit")
    again = world.run()
    check(again.run_id == run_id and again.status == "success", "the run is continued and finished")
    check(world.stored() == expected(ROWS), "each row is appended exactly once")


def crash_between_file_and_checkpoint(folder: Path) -> None:
    """A worker dies around a checkpoint: what the ledger names is there, and nothing is read twice."""
    for occurrence, point in enumerate(("stage.sealed", "checkpoint.before", "checkpoint.after"), 1):
        world = World(folder / str(occurrence), mode="append", every_rows=10)
        world.crash(point, occurrence=occurrence)  # type: ignore[arg-type]
        again = world.run()
        check(again.status == "success", f"after a crash at {point} the run can be finished")
        check(world.stored() == expected(ROWS), f"after a crash at {point} each row is there once")
        check(again.rows["read"] == ROWS.num_rows, "each source row is counted once")


def woken_after_takeover(folder: Path) -> None:
    """A worker sleeps past its lease, another finishes the run, then the first one wakes."""
    points: tuple[CrashPoint, ...] = ("checkpoint.before", "scan.completed")
    for point in points:
        world = World(folder / point, mode="append", every_rows=10)
        sleeper = Sleeper(world, point, workers=1)
        winner = world.run()
        check(
            winner.run_id == sleeper.run_id and winner.status == "success", "the successor finishes the run"
        )
        before = world.document(winner.run_id)
        world.clock.advance(LEASE)
        sleeper.wake()
        check(world.document(winner.run_id) == before, "nothing the sleeper does counts any more")
        check(world.stored() == expected(ROWS), "each row is there once")
        check(world.latest()["run_id"] == winner.run_id, "the sleeper starts nothing new")


def woken_after_abandon(folder: Path) -> None:
    """A backfill sleeps just before publishing, is abandoned, then wakes: nothing of it is published."""
    world = World(folder, mode="append")
    interval = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC))
    sleeper = Sleeper(world, "publish.before", window=interval)
    with world.project() as project:
        project.abandon(sleeper.run_id)
    sleeper.wake()
    check(world.stored() == [], "an abandoned run is never published")
    check(world.document(sleeper.run_id)["status"] == "abandoned", "it stays abandoned")


def woken_after_abandon_and_a_newer_run(folder: Path) -> None:
    """A live run sleeps just before publishing, is given up for a new one that succeeds, then wakes."""
    world = World(folder, mode="append")
    sleeper = Sleeper(world, "publish.before")
    newer = world.run(fresh=True)
    check(newer.status == "success" and newer.run_id != sleeper.run_id, "the new run succeeds")
    sleeper.wake()
    check(world.stored() == expected(ROWS), "only the new run is published")
    check(world.document(sleeper.run_id)["status"] == "abandoned", "the sleeper's run stays abandoned")


def woken_while_sweeping(folder: Path) -> None:
    """A worker sleeps before it deletes what an earlier crash left; its successor's files must survive."""
    world = World(folder, mode="append", every_rows=10)
    world.crash("checkpoint.before", occurrence=2)
    sleeper = Sleeper(world, "scan.leftovers", workers=1)
    set_hook(None)
    world.crash("checkpoint.after", occurrence=4)
    sleeper.wake()
    again = world.run()
    check(again.status == "success", "the staged files of the successor are still there")
    check(world.stored() == expected(ROWS), "each row is there once")


def clock_set_back(folder: Path) -> None:
    """The clock goes back an hour between two runs, and the second one dies after its commit."""
    world = World(folder, mode="append")
    check(world.run().status == "success", "the first run succeeds")
    world.clock.advance(timedelta(hours=-1))
    run_id = world.crash("publish.after_commit")
    again = world.run()
    check(again.run_id == run_id, "the newest run is the one that was created last, whatever the clock says")
    check(len(world.stored()) == 2 * ROWS.num_rows, "two runs append twice, and no third one")


def published_after_its_successor_failed(folder: Path) -> None:
    """A worker sleeps just before publishing, its successor's validation fails, then it wakes and publishes."""
    world = World(folder, mode="append")
    sleeper = Sleeper(world, "publish.before")
    too_many = {"rules": [{"type": "row_count", "min": 1_000}]}
    write_job(world.folder, customers_job(partitions=4, mode="append", validation=too_many))
    check(world.run().status == "validation_failed", "the successor's validation fails")
    sleeper.wake()
    published = len(world.stored()) // ROWS.num_rows
    write_job(world.folder, customers_job(partitions=4, mode="append"))
    world.run()
    runs = [world.document(run_id)["status"] for run_id in world.run_ids()]
    check(runs.count("success") * ROWS.num_rows == len(world.stored()), "the ledger agrees with the store")
    check(published <= 1, "the sleeper publishes once at most")


def woken_after_a_newer_run(folder: Path, *, mode: str = "append") -> None:
    """A worker sleeps just before publishing while a run that knows nothing of it publishes newer rows.

    The two have different ledgers (one was restored, or the project was copied), so only the store can tell.
    """
    world = World(folder, mode=mode)
    sleeper = Sleeper(world, "publish.before")
    ledger = folder / ".ecmbatch"
    hidden = folder / "hidden"
    ledger.rename(hidden)
    newer = "SELECT * FROM customers WHERE id < 'c00030'"
    source = {"connector": "warehouse", "query": newer, "order_by": "id"}
    write_job(folder, customers_job(partitions=4, mode=mode, source=source))
    check(world.run().status == "success", "the newer run is published")
    published = world.stored()
    ledger.rename(folder / "other")
    hidden.rename(ledger)
    sleeper.wake()
    check(world.stored() == published, "a run that was overtaken publishes nothing")


def woken_late_replace(folder: Path) -> None:
    """The same with ``replace``: the table does not go back in time."""
    woken_after_a_newer_run(folder, mode="replace")


def woken_after_its_own_table_moved_on(folder: Path) -> None:
    """A transformation of its own table sleeps just before publishing while another job adds rows to it."""
    world = World(folder, mode="append")
    check(world.run().status == "success", "there is a table to transform")
    doubled = {
        "job_id": "doubled",
        "job_type": "transformation",
        "source": {
            "store": "context_store",
            "query": "SELECT context_id, amount * 2 AS amount FROM customers",
        },
        "sink": {"store": "context_store", "mode": "replace", "table": "customers"},
    }
    write_job(folder, doubled)
    sleeper = Sleeper(world, "publish.before")
    write_job(folder, customers_job(partitions=4, mode="append", job_id="more"))
    check(world.run().status == "success", "the other job is published")
    sleeper.wake()
    twice = sorted([*expected(ROWS), *expected(ROWS)], key=repr)
    check(world.stored() == twice, "rows that were added since the table was read are not lost")


def looked_up_across_a_crash(folder: Path) -> None:
    """The table that rows are looked up in changes between two attempts: all rows find the older one."""
    lookup = {
        "processor": "lookup",
        "config": {"connector": "warehouse", "table": "tiers", "key": "id", "columns": "tier"},
    }
    source = {"connector": "warehouse", "query": "SELECT id, amount FROM customers", "order_by": "id"}
    world = World(folder, mode="append", every_rows=10, source=source, transform=lookup)
    names = ROWS.column("id")
    fill_warehouse(folder, pa.table({"id": names, "tier": ["old"] * len(names)}), "tiers")
    world.crash("checkpoint.after", occurrence=3)
    fill_warehouse(folder, pa.table({"id": names, "tier": ["new"] * len(names)}), "tiers")
    check(world.run().status == "success", "the run can be finished")
    check({row[-1] for row in world.stored()} == {"old"}, "rows before and after the crash find the same")


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        lost_acknowledgement,
        crash_between_file_and_checkpoint,
        woken_after_takeover,
        woken_after_abandon,
        woken_after_abandon_and_a_newer_run,
        woken_while_sweeping,
        clock_set_back,
        published_after_its_successor_failed,
        woken_after_a_newer_run,
        woken_late_replace,
        woken_after_its_own_table_moved_on,
        looked_up_across_a_crash,
    )
}
