"""Scans in processes of their own: the same results, errors and stops as in threads, and nothing left over."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch import Plugins, Project, errors
from ecmbatch.connectors.connector import ConnectorType
from ecmbatch.connectors.memory import MemoryConnector
from ecmbatch.engine.executors import worker_process
from ecmbatch.engine.executors.child import start_child
from ecmbatch.engine.executors.messages import Outbox, decode_error, encode_error
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import EcmbatchError, Problem, RunStopped, SourceError, UsageError
from ecmbatch.project import RunResult
from ecmbatch.project_file import ProjectSettings, RunSettings
from harness import customers, customers_job, expected, fill_warehouse, stored, write_job
from worker_project import ROWS, Pulse, is_alive, on_linux, processed_by, wait_until_gone, worker_project

ERRORS = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, EcmbatchError) and each not in (errors.ValidationFailed, errors.DependencyNotMet)
]
EXECUTORS = ["threads", "processes"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return worker_project(tmp_path)


@pytest.fixture
def pulse(folder: Path) -> Iterator[Pulse]:
    pulse = Pulse(folder)
    yield pulse
    pulse.close()


def run(folder: Path, job: Mapping[str, Any], executor: str = "processes", **options: Any) -> RunResult:
    environment = {**os.environ, "ECMBATCH_RUN__EXECUTOR": executor}
    with Project.load(folder, environment=environment) as project:
        return project.run(folder / write_job(folder, job), **options)


# What crosses the pipes.


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_arrives_as_it_was_raised(kind: type[EcmbatchError]) -> None:
    error = kind("what was found", hint="what to do")
    error.problems = (Problem("/place", "is wrong", "correct it"), Problem("", "is wrong"))
    error.error_class = "transient"
    document = json.loads(json.dumps(encode_error(error, lambda text: text)))
    arrived = decode_error(document)
    assert type(arrived) is kind
    assert isinstance(arrived, EcmbatchError)
    for name in ("message", "problems", "hint", "error_class", "exit_code"):
        assert getattr(arrived, name) == getattr(error, name)
    assert str(arrived) == "what was found"


def test_an_error_of_a_plug_in_arrives_as_what_it_is_derived_from() -> None:
    class LakeIsFrozen(SourceError):
        code = "lake_is_frozen"

    document = encode_error(LakeIsFrozen("no water"), str)
    document = {**document, "code": document["code"][1:]}  # nobody knows the first over there
    assert type(decode_error(document)) is SourceError


def test_of_another_exception_only_its_type_and_its_trace_arrive() -> None:
    try:
        raise ZeroDivisionError("value of a row")
    except ZeroDivisionError as error:
        document = encode_error(error, lambda text: text.replace("value of a row", "***"))
    arrived = decode_error(document)
    assert (type(arrived).__name__, str(arrived)) == ("ZeroDivisionError", "")
    assert "value of a row" not in json.dumps(document)
    assert "test_process_executor" in arrived.__notes__[0]


# What is refused.


def test_what_is_made_in_code_is_refused_before_a_run_begins(folder: Path) -> None:
    job = folder / "job.json"
    settings = ProjectSettings(
        connectors={"warehouse": {"type": "duckdb", "path": "warehouse.duckdb"}},
        run=RunSettings(executor="processes"),
    )
    with Project(folder, settings=settings) as project:
        with pytest.raises(UsageError, match="by a project file; this project was made in code"):
            project.run(job)
        with pytest.raises(UsageError, match="made in code"):
            project.plan(job)
        assert project.history.recent_runs() == []
    with (
        Project.load(folder, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC)) as project,
        pytest.raises(UsageError, match="a clock of its own"),
    ):
        project.run(job)


def test_a_plug_in_that_was_registered_in_code_is_refused_by_name(folder: Path) -> None:
    plugins = Plugins()
    memory = ConnectorType(
        name="memory",
        fields=frozenset({"query"}),
        parse_config=lambda config: config,
        build=lambda config, root: MemoryConnector(pa.table({"id": [1]})),
    )
    plugins.connectors.add(memory)
    environment = {"ECMBATCH_CONNECTORS__WAREHOUSE__TYPE": "memory"}
    with (
        Project.load(folder, environment=environment, plugins=plugins) as project,
        pytest.raises(UsageError, match="there is no connector named 'memory'") as raised,
    ):
        project.run(folder / "job.json")
    assert raised.value.hint is not None and 'executor = "threads"' in raised.value.hint


# What is the same as in threads.


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_row_arrives_once(executor: str, folder: Path, pulse: Pulse) -> None:
    result = run(folder, processed_by("pulse", pulse.config()), executor)
    assert result.exit_code == 0
    assert stored(folder) == expected(ROWS)
    assert result.rows["read"] == result.rows["staged"] == ROWS.num_rows
    pids = {next(iter(pulse)) for _ in range(ROWS.num_rows // 50)}
    assert (os.getpid() in pids) == (executor == "threads")
    assert not any(is_alive(pid) for pid in pids - {os.getpid()})


@pytest.mark.slow
def test_the_profile_counts_what_the_workers_did(folder: Path) -> None:
    profile = run(folder, customers_job(partitions=4)).profile
    assert profile is not None
    assert profile["rows"] == ROWS.num_rows
    assert all(profile["work"][work] > 0 for work in ("read", "split", "transform", "stage", "checkpoint"))


@pytest.mark.slow
def test_errors_are_the_same_as_in_threads(tmp_path: Path) -> None:
    found = []
    for executor in EXECUTORS:
        folder = worker_project(tmp_path / executor)
        result = run(folder, processed_by("refuses", {"id": "c00123"}), executor)
        error = result.error
        assert error is not None
        statuses = {each.status for each in result.view.partitions}
        told = (type(error), error.message, error.hint, error.problems, error.error_class)
        found.append((*told, "failed" in statuses, result.document()["error"]))
    assert found[0] == found[1]
    assert found[0][0] is errors.TransformError


@pytest.mark.slow
def test_a_table_to_look_things_up_in_reaches_the_workers(folder: Path) -> None:
    cities = [f"city of {key}" for key in ROWS.column("id").to_pylist()]
    fill_warehouse(folder, pa.table({"id": ROWS.column("id"), "city": cities}), "cities")
    look_up = {"connector": "warehouse", "table": "cities", "key": "id", "columns": "city"}
    fields = {"context_id": "id", "city": "city"}
    transform = [
        {"processor": "lookup", "config": look_up},
        {"processor": "field_mapper", "config": {"fields": fields}},
    ]
    assert run(folder, customers_job(partitions=4, transform=transform)).error is None
    assert stored(folder) == [(key, f"city of {key}") for key in ROWS.column("id").to_pylist()]


@pytest.mark.slow
def test_a_job_can_replace_the_table_of_a_duckdb_store_that_its_workers_read(folder: Path) -> None:
    assert run(folder, customers_job(partitions=4)).exit_code == 0
    job = {
        "job_id": "again",
        "job_type": "transformation",
        "source": {"store": "context_store", "table": "customers", "order_by": "context_id"},
        "partitioning": {"strategy": "range", "key": "context_id", "bounds": ["c00200"]},
        "sink": {"store": "context_store", "table": "customers", "mode": "replace"},
    }
    result = run(folder, job)
    assert result.error is None
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_workers_see_the_project_as_it_was_loaded(folder: Path) -> None:
    text = (folder / "ecmbatch.toml").read_text()
    (folder / "ecmbatch.toml").write_text(text.replace('"warehouse.duckdb"', '"${env:WAREHOUSE_FILE}"'))
    (folder / "warehouse.duckdb").rename(folder / "elsewhere.duckdb")
    environment = {"WAREHOUSE_FILE": "elsewhere.duckdb", "ECMBATCH_STAGE__URL": "staged"}
    with Project.load(folder, environment=environment) as project:
        assert project.run(folder / "job.json").error is None
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_a_worker_that_finds_another_version_of_a_processor_refuses_to_use_it(folder: Path) -> None:
    file = folder / "processors.py"
    before = file.read_text()
    change = {"file": str(file), "old": "# the first edition", "new": "# the second edition"}
    job = processed_by("edits", change)
    result = run(folder, job)
    assert isinstance(result.error, errors.DefinitionChanged)
    assert "processor 'edits' was changed" in result.error.message
    assert (result.exit_code, result.error.error_class) == (6, "permanent")
    assert stored(folder) == []
    assert f"resume {result.run_id} --accept-definition-change" in (result.error.hint or "")
    assert file.read_text() != before


@pytest.mark.slow
def test_a_worker_that_finds_another_project_file_refuses_to_read_by_it(folder: Path) -> None:
    shutil.copy(folder / "warehouse.duckdb", folder / "other.duckdb")
    change = {"file": str(folder / "ecmbatch.toml"), "old": "warehouse.duckdb", "new": "other.duckdb"}
    job = processed_by("edits", change)
    refused = run(folder, job)
    assert type(refused.error) is errors.ConflictError
    assert "ecmbatch.toml was changed while run" in refused.error.message
    assert f"ecmbatch resume {refused.run_id}" in (refused.error.hint or "")
    resumed = run(folder, job)
    assert (resumed.run_id, resumed.error) == (refused.run_id, None)
    assert stored(folder) == expected(ROWS)


def test_a_worker_without_a_driver_ends(folder: Path) -> None:
    process, requests, replies = start_child(worker_process.COMMAND, os.environ)
    os.close(requests)
    assert process.wait(60) == 1
    os.close(replies)


# What user code says.


@pytest.mark.slow
def test_what_user_code_prints_is_not_in_the_answer(folder: Path) -> None:
    write_job(folder, processed_by("noise", {}))
    finished = subprocess.run(
        [sys.executable, "-m", "ecmbatch", "run", "job.json", "--json", "--log-format", "json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(finished.stdout)["status"] == "success"
    lines = finished.stderr.splitlines()
    assert {"printed", "written", "by a child"} <= set(lines)
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    assert ("warning", "logged") in {(each["level"], each["message"]) for each in logged}


@on_linux
@pytest.mark.slow
def test_no_secret_crosses_the_pipes_or_stands_in_a_command_line(
    folder: Path, pulse: Pulse, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-5f1f7a0b.duckdb"
    monkeypatch.setenv("CANARY", canary)
    text = (folder / "ecmbatch.toml").read_text()
    (folder / "ecmbatch.toml").write_text(text.replace('"warehouse.duckdb"', '"${env:CANARY}"'))
    (folder / "warehouse.duckdb").rename(folder / canary)

    lines: list[str] = []
    send = Outbox.send
    take = worker_process.WorkerProcess._take
    start = worker_process.start_child

    def sent(outbox: Outbox, message: Mapping[str, Any]) -> None:
        lines.append(json.dumps(message))
        send(outbox, message)

    def taken(worker: worker_process.WorkerProcess, message: dict[str, Any]) -> None:
        lines.append(json.dumps(message))
        take(worker, message)

    def started(arguments: Sequence[str], environment: Mapping[str, str]) -> Any:
        process, *pipes = start(arguments, environment)
        lines.append(Path(f"/proc/{process.pid}/cmdline").read_text())
        return process, *pipes

    monkeypatch.setattr(Outbox, "send", sent)
    monkeypatch.setattr(worker_process.WorkerProcess, "_take", taken)
    monkeypatch.setattr(worker_process, "start_child", started)

    failed = run(folder, processed_by("refuses", {"id": "c00399"}, job_id="refused"))
    assert isinstance(failed.error, errors.TransformError)
    assert run(folder, customers_job(partitions=4)).error is None
    assert any("ValueError: ***" in line for line in lines)
    assert not any(canary in line for line in lines)


# Stopping.


@pytest.mark.slow
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_stop_reaches_the_scans_wherever_they_are(executor: str, folder: Path, pulse: Pulse) -> None:
    rows = customers(5_000)
    fill_warehouse(folder, rows)
    job = processed_by("pulse", pulse.config(), every_rows=1)
    stop, reason = StopSignal(), RunStopped("stopped by a test")

    def set_when_at_work() -> None:
        next(iter(pulse))
        stop.set(reason)

    threading.Thread(target=set_when_at_work, daemon=True).start()
    stopped = run(folder, job, executor, stop=stop)
    assert stopped.error is reason
    assert 0 < stopped.rows["read"] < rows.num_rows
    assert stored(folder) == []


@on_linux
@pytest.mark.slow
def test_a_scan_that_hangs_ends_with_its_worker_when_it_is_to_stop(
    folder: Path, pulse: Pulse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_process, "SECONDS_TO_STOP", 0.2)
    stop, reason = StopSignal(), RunStopped("stopped by a test")
    hanging: list[int] = []

    def set_when_at_work() -> None:
        hanging.append(next(iter(pulse)))
        stop.set(reason)

    threading.Thread(target=set_when_at_work, daemon=True).start()
    stopped = run(folder, processed_by("hangs", pulse.config()), stop=stop)
    assert (stopped.error, stopped.status) == (reason, "stopped")
    assert not is_alive(hanging[0])
    assert f"worker process {hanging[0]} did not stop within 0.2 s" in caplog.text
    assert "died" not in caplog.text


@pytest.mark.slow
def test_a_scan_that_hangs_does_not_outlive_the_timeout(
    folder: Path, pulse: Pulse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "SECONDS_TO_STOP", 0.2)
    job = {**processed_by("hangs", pulse.config()), "timeout": "1 ms"}
    assert isinstance(run(folder, job).error, errors.TimedOut)


@pytest.mark.slow
@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_first_error_stops_the_other_scans(executor: str, folder: Path, pulse: Pulse) -> None:
    rows = customers(2_000)
    fill_warehouse(folder, rows)
    job = processed_by("refuses", {"id": "c00000"}, every_rows=1, partitions=1)
    job["partitioning"] = {"strategy": "range", "key": "id", "bounds": ["c00001"]}
    result = run(folder, job, executor)
    assert isinstance(result.error, errors.TransformError)
    assert result.rows["read"] < rows.num_rows


@on_linux
@pytest.mark.slow
def test_ctrl_c_in_a_terminal_asks_the_workers_for_a_checkpoint(folder: Path, pulse: Pulse) -> None:
    rows = customers(5_000)
    fill_warehouse(folder, rows)
    write_job(folder, processed_by("pulse", pulse.config(), every_rows=1))
    with in_a_terminal(folder, "run", "job.json", "--json") as child:
        workers = {next(iter(pulse)) for _ in range(50)}
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate()
    assert child.returncode == 130, err
    assert json.loads(out)["status"] == "stopped"
    assert "Traceback" not in err
    assert "died" not in err and "killed" not in err
    assert not any(is_alive(pid) for pid in workers)


@on_linux
@pytest.mark.slow
def test_a_second_ctrl_c_leaves_no_worker_behind(folder: Path, pulse: Pulse) -> None:
    fill_warehouse(folder, customers(5_000))
    job = processed_by("pulse", pulse.config(), every_rows=1)
    write_job(folder, job)
    with in_a_terminal(folder, "run", "job.json", "--json") as child:
        worker = next(iter(pulse))
        # One that does not listen any more.
        os.kill(worker, signal.SIGSTOP)
        os.killpg(child.pid, signal.SIGINT)
        assert child.stderr is not None
        assert any("once more ends it at once" in line for line in child.stderr)
        os.killpg(child.pid, signal.SIGINT)
        out, _ = child.communicate()
    assert (child.returncode, out) == (130, "")
    wait_until_gone(worker)


def in_a_terminal(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "ecmbatch", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
