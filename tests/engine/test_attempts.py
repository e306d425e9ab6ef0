"""Automatic attempts, timeouts, stopping and the read side, on in-memory doubles."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import ecmbatch
from ecmbatch import JobDefinition, Plugins, Project
from ecmbatch.connectors.connector import ConnectorType, Cursor, ReadRequest, Scan, ScannedBatch
from ecmbatch.connectors.memory import MemoryConnector
from ecmbatch.engine import runner
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import PluginError, RunFailed, RunReleased, RunStopped, SourceError, Unreachable
from ecmbatch.project_file import ProjectSettings
from ecmbatch.protocol.run import RunStatus
from ecmbatch.stores.memory import MemoryStore, MemoryTables
from ecmbatch.stores.store import StoreType

ROWS = pa.table({"id": pa.array(range(100)), "name": pa.array([f"n{number}" for number in range(100)])})


class Flaky(MemoryConnector):
    """Does *mishap* after each batch, as often as it is told to."""

    def __init__(self, mishap: Callable[[], None], times: int, *, scans: int = 1, spared: int = -1) -> None:
        super().__init__(ROWS, scans=scans)
        self.spared = spared
        self.mishap = mishap
        self.left = times

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        with super().read(request, scan, after) as batches:
            yield batches if scan.number == self.spared else self._interrupted(batches)

    def _interrupted(self, batches: Iterator[ScannedBatch]) -> Iterator[ScannedBatch]:
        for number, batch in enumerate(batches):
            if number == 2 and self.left:
                self.left -= 1
                self.mishap()
            yield batch


class World:
    def __init__(self, folder: Path, connector: MemoryConnector) -> None:
        self.tables = MemoryTables()
        plugins = Plugins()
        plugins.connectors.add(
            ConnectorType(
                name="flaky",
                fields=frozenset({"table"}),
                parse_config=lambda config: config,
                build=lambda config, root: connector,
            )
        )
        plugins.stores.add(
            StoreType(
                name="tables",
                parse_config=lambda config: config,
                build=lambda config, root, tell: MemoryStore(self.tables),
            )
        )
        settings = ProjectSettings(
            connectors={"rows": {"type": "flaky"}}, stores={"tables": {"type": "tables"}}
        )
        self.project = Project(folder, settings=settings, plugins=plugins)

    def stored(self) -> list[int]:
        return sorted(row["id"] for row in MemoryStore(self.tables).rows("rows"))


def job(**sections: Any) -> JobDefinition:
    return JobDefinition.from_value(
        {
            "job_id": "rows",
            "source": {"connector": "rows", "table": "any", "order_by": "id"},
            "sink": {"store": "tables", "mode": "append"},
            "checkpoint": {"every_rows": 10},
            **sections,
        }
    )


def raising(error: Exception) -> Callable[[], None]:
    def mishap() -> None:
        raise error

    return mishap


def test_an_error_that_may_pass_is_tried_again_from_the_checkpoint(tmp_path: Path) -> None:
    world = World(tmp_path, Flaky(raising(Unreachable("the source went away")), times=2))
    result = world.project.run(job(retry={"max_attempts": 3, "base_delay": "1 ms"}))
    assert (result.status, result.view.run.attempt) == (RunStatus.SUCCESS, 3)
    assert world.stored() == list(range(100))
    assert result.rows["read"] == 100


def test_completed_partitions_are_not_read_again_and_partial_ones_go_on(tmp_path: Path) -> None:
    connector = Flaky(raising(SourceError("gone")), times=1, scans=2, spared=0)
    world = World(tmp_path, connector)
    definition = job(partitioning={"strategy": "hash", "key": "id", "partitions": 4})
    failed = world.project.run(definition, workers=1)
    assert failed.document()["partitions"]["completed"] == 2
    read_before = connector.rows_read
    resumed = world.project.resume(failed.run_id, job=definition)
    (again,) = connector.reads[2:]
    assert (again.scan, again.partitions) == (1, (2, 3)) and again.after is not None
    assert connector.rows_read - read_before < 50
    counts = resumed.document()["partitions"]
    assert (counts["skipped_completed"], counts["resumed"]) == (2, 2)
    assert world.stored() == list(range(100))


def test_attempts_are_limited_but_people_are_not(tmp_path: Path) -> None:
    world = World(tmp_path, Flaky(raising(Unreachable("the source went away")), times=3))
    definition = job(retry={"max_attempts": 2, "base_delay": "1 ms"})
    failed = world.project.run(definition)
    assert (failed.status, failed.exit_code, failed.view.run.attempt) == (RunStatus.FAILED, 7, 2)
    assert world.project.resume(failed.run_id, job=definition).status is RunStatus.SUCCESS
    assert world.stored() == list(range(100))


def backing_off(
    world: World, caplog: pytest.LogCaptureFixture, then: Callable[[str], None]
) -> Callable[[], None]:
    """A thread that waits until a run waits for its next attempt, and does *then*."""

    def act() -> None:
        while "trying again in" not in caplog.text:
            time.sleep(0.01)
        (view,) = world.project.history.recent_runs()
        assert (view.run.status, view.live) == (RunStatus.IN_PROGRESS, True), (
            "nobody else may take it meanwhile"
        )
        then(view.run.run_id)

    return act


@pytest.mark.parametrize(
    ("reason", "status"),
    [(RunStopped("stopped"), RunStatus.STOPPED), (RunReleased("shutting down"), RunStatus.QUEUED)],
)
def test_a_run_that_waits_for_its_next_attempt_can_be_stopped_and_released(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reason: RunStopped, status: RunStatus, monkeypatch: Any
) -> None:
    monkeypatch.setattr(runner.random, "uniform", lambda _low, high: high)
    caplog.set_level("WARNING", "ecmbatch")
    monkeypatch.setattr(logging.getLogger("ecmbatch"), "propagate", True)
    world = World(tmp_path, Flaky(raising(Unreachable("the source went away")), times=1))
    stop = StopSignal()
    definition = job(retry={"max_attempts": 2, "base_delay": "1 hour"})
    with ThreadPoolExecutor(1) as other:
        acted = other.submit(backing_off(world, caplog, lambda _run: stop.set(reason)))
        ended = world.project.run(definition, stop=stop)
        acted.result()
    assert (ended.status, ended.view.run.attempt) == (status, 1)
    assert world.project.resume(ended.run_id, job=definition).status is RunStatus.SUCCESS
    assert world.stored() == list(range(100))


def test_a_request_to_stop_ends_the_wait_for_the_next_attempt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr(runner.random, "uniform", lambda _low, high: high)
    caplog.set_level("WARNING", "ecmbatch")
    monkeypatch.setattr(logging.getLogger("ecmbatch"), "propagate", True)
    world = World(tmp_path, Flaky(raising(Unreachable("the source went away")), times=1))
    with ThreadPoolExecutor(1) as other:
        acted = other.submit(backing_off(world, caplog, lambda run: world.project.stop(run) and None))
        ended = world.project.run(job(retry={"max_attempts": 2, "base_delay": "1 hour"}))
        acted.result()
    assert ended.status is RunStatus.STOPPED


def test_an_attempt_that_is_followed_by_another_keeps_its_error_and_is_nobodys_news(tmp_path: Path) -> None:
    world = World(tmp_path, Flaky(raising(Unreachable("the source went away")), times=1))
    ended = world.project.run(job(retry={"max_attempts": 2, "base_delay": "1 ms"}))
    first, second = ended.view.attempts
    assert first.error and first.error["code"] == "unreachable" and second.error is None
    ledger = world.project._resources.ledger
    events, _ = ledger.events.waiting_for("follower", names=(), jobs=("rows",))
    assert [event.status for event in events] == [RunStatus.SUCCESS]


def test_an_error_that_will_not_pass_is_not_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, Flaky(raising(SourceError("bad SQL")), times=1))
    failed = world.project.run(job(retry={"max_attempts": 5}))
    assert (failed.status, failed.view.run.attempt, failed.exit_code) == (RunStatus.FAILED, 1, 1)


def test_a_connectors_defect_is_named_without_its_message(tmp_path: Path) -> None:
    world = World(tmp_path, Flaky(raising(KeyError("row value 4111")), times=1))
    failed = world.project.run(job())
    assert failed.error is not None and "KeyError" in failed.error.message
    assert "4111" not in failed.error.message


def test_an_attempt_that_takes_too_long_fails_and_can_be_resumed(tmp_path: Path) -> None:
    definition = job(timeout="1 ms")
    world = World(tmp_path, MemoryConnector(ROWS))
    result = world.project.run(definition)
    assert (result.status, result.error and result.error.code) == (RunStatus.FAILED, "timed_out")
    assert world.project.resume(result.run_id, job=job()).status is RunStatus.SUCCESS
    assert world.stored() == list(range(100))


def test_a_stop_signal_ends_the_run_at_a_checkpoint(tmp_path: Path) -> None:
    stop = StopSignal()
    world = World(tmp_path, Flaky(lambda: stop.set(RunStopped("stopped by SIGTERM")), times=1))
    stopped = world.project.run(job(), stop=stop)
    assert (stopped.status, stopped.exit_code) == (RunStatus.STOPPED, 5)
    assert stopped.rows["read"] == 30
    resumed = world.project.run(job())
    assert resumed.run_id == stopped.run_id and resumed.status is RunStatus.SUCCESS
    assert world.stored() == list(range(100))


def test_a_plan_reads_and_writes_nothing(tmp_path: Path) -> None:
    connector = MemoryConnector(ROWS)
    world = World(tmp_path, connector)
    preview = world.project.plan(job())
    document = preview.document()
    assert document["scans"][0]["resume"] == "cursor"
    assert document["sink"]["table"] == "rows"
    assert world.project.history.recent_runs() == []
    assert MemoryStore(world.tables).table("rows") is None


def test_a_plan_of_an_unfinished_run_is_the_frozen_one(tmp_path: Path) -> None:
    world = World(tmp_path, Flaky(raising(SourceError("bad")), times=1))
    failed = world.project.run(job())
    assert world.project.plan(job()).continues == failed.run_id


def test_why_always_answers(tmp_path: Path) -> None:
    world = World(tmp_path, Flaky(raising(SourceError("the disk of the warehouse is full")), times=1))
    failed = world.project.run(job())
    sentences = world.project.history.why(failed.run_id)
    assert any("the disk of the warehouse is full" in sentence for sentence in sentences)
    assert any(f"ecmbatch resume {failed.run_id}" in sentence for sentence in sentences)
    done = world.project.resume(failed.run_id, job=job())
    assert any("published to tables.rows" in sentence for sentence in world.project.history.why(done.run_id))


def test_a_connector_that_forgets_a_partition_is_refused(tmp_path: Path) -> None:
    class Forgetful(MemoryConnector):
        def plan(self, request: ReadRequest) -> Any:
            planned = super().plan(request)
            return type(planned)(schema=planned.schema, scans=planned.scans[:0])

    world = World(tmp_path, Forgetful(ROWS))
    failed = world.project.run(job())
    assert isinstance(failed.error, PluginError) and failed.exit_code == 2


def test_every_public_name_is_there() -> None:
    for name in ecmbatch.__all__:
        assert getattr(ecmbatch, name) is not None
    with pytest.raises(AttributeError):
        _ = ecmbatch.no_such_name


def raised_in_a_run(folder: Path, raised: BaseException) -> tuple[World, BaseException | None]:
    def mishap() -> None:
        raise raised

    world = World(folder, Flaky(mishap, times=1))
    try:
        return world, world.project.run(job()).error
    except BaseException as error:
        return world, error


class Endless(MemoryConnector):
    """Yields its rows again and again; a thousand times, for a test that fails has to end."""

    @contextmanager
    def read(
        self, request: ReadRequest, scan: Scan, after: Cursor | None
    ) -> Iterator[Iterator[ScannedBatch]]:
        with super().read(request, scan, after) as batches:
            yield chain.from_iterable(repeat(list(batches), 1_000))


def test_a_defect_of_the_driver_stops_the_scans_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    world = World(tmp_path, Endless(ROWS))
    with monkeypatch.context() as patched:
        patched.setattr(runner, "wait", defect)
        result = world.project.run(job())
    assert isinstance(result.error, RunFailed) and "ZeroDivisionError" in result.error.message
    assert result.rows["read"] < 1_000 * ROWS.num_rows


def test_user_code_cannot_end_the_process_as_if_all_were_well(tmp_path: Path) -> None:
    world, error = raised_in_a_run(tmp_path, SystemExit(0))
    assert isinstance(error, RunFailed) and error.exit_code == 1
    assert world.project.run(job()).status is RunStatus.SUCCESS
    assert world.stored() == list(range(100))


def test_an_interrupted_run_does_not_look_alive(tmp_path: Path) -> None:
    world, error = raised_in_a_run(tmp_path, KeyboardInterrupt())
    assert isinstance(error, KeyboardInterrupt)
    (view,) = world.project.history.recent_runs()
    assert (view.run.status, view.live) == (RunStatus.STOPPED, False)
    assert world.project.run(job()).status is RunStatus.SUCCESS
