"""The examples for orchestrators, with real runs that are killed, stopped and refused."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ecmbatch import errors
from harness import run_documents, stored, write_job
from orchestrated_project import (
    DAY,
    ECMBATCH,
    EXAMPLES,
    ROWS_OF_A_DAY,
    WINDOW,
    attempts_and_resumed,
    flights_by_day,
    orchestrated_project,
    python_path,
)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


ecmbatch_run = load(EXAMPLES / "ecmbatch_run.py")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The command looks for what it is to do in the folder that it runs in.
    monkeypatch.chdir(tmp_path)
    return orchestrated_project(tmp_path)


def run(folder: Path, **options: Any) -> Any:
    lines: list[str] = []
    options = {"window": WINDOW, "ecmbatch": ECMBATCH, "log": lines.append, **options}
    return ecmbatch_run.run("flights-by-day", project=str(folder), **options)


# -- the helper -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_is_to_be_retried_continues_and_is_loaded_once(folder: Path) -> None:
    (folder / "dies").touch()
    killed = run(folder)
    assert (killed.exit_code, killed.decision, killed.facts) == (-signal.SIGKILL, "retry", {})

    continued = run(folder)
    assert continued.decision == "done"
    assert attempts_and_resumed(folder) == (2, 1)
    facts = continued.facts
    assert facts["rows"]["read"] == facts["rows"]["inserted"] == ROWS_OF_A_DAY
    assert facts["as_of"] == facts["window"]["end"] == "2013-01-03T00:00:00Z"
    assert facts["publication"]["table"] == "flights"
    json.dumps(facts)

    again = run(folder)
    assert (again.decision, again.facts) == ("done", facts)
    assert len(stored(folder, "flights")) == ROWS_OF_A_DAY


@pytest.mark.slow
def test_a_failed_validation_is_not_to_be_retried(folder: Path) -> None:
    rules = {"rules": [{"type": "row_count", "min": 1_000}], "on_failure": "abort"}
    write_job(folder / "jobs", flights_by_day(validation=rules), "flights-by-day.json")
    failed = run(folder)
    assert (failed.exit_code, failed.decision) == (3, "fail")
    assert failed.message.startswith("validation failed: row_count")
    assert failed.facts["validation"] == "fail"
    again = run(folder)
    assert (again.exit_code, again.decision) == (6, "fail")
    assert not stored(folder, "flights")


@pytest.mark.slow
def test_an_unmet_dependency_skips_and_an_unreachable_ledger_is_to_be_retried(folder: Path) -> None:
    write_job(folder / "jobs", {**flights_by_day(), "job_id": "airports"}, "airports.json")
    dependent = flights_by_day(dependencies=[{"job": "airports", "window": "1 day"}])
    write_job(folder / "jobs", dependent, "flights-by-day.json")
    skipped = run(folder)
    assert (skipped.exit_code, skipped.decision) == (4, "skip")
    assert "airports" in skipped.message
    away = run(folder, environment={"ECMBATCH_LEDGER__URL": "postgresql://etl@127.0.0.1:1/away"})
    assert (away.exit_code, away.decision) == (7, "retry")
    invalid = run(folder, params={"nobody": "asks"})
    assert (invalid.exit_code, invalid.decision) == (2, "fail")


@pytest.mark.slow
def test_sigterm_stops_the_run_at_a_checkpoint_and_the_next_try_continues(folder: Path) -> None:
    os.mkfifo(folder / "waits")
    step = subprocess.Popen(
        [
            *(sys.executable, str(EXAMPLES / "ecmbatch_run.py"), "flights-by-day"),
            *("--window-start", WINDOW[0].isoformat(), "--window-end", WINDOW[1].isoformat()),
        ],
        env={**os.environ, "PATH": f"{command_on_path(folder)}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert step.stderr is not None
    assert any("at work" in line for line in step.stderr)
    step.send_signal(signal.SIGTERM)
    assert any("stopping at the next checkpoint" in line for line in step.stderr)
    # It looks whether to stop when the batch is done.
    with (folder / "waits").open("wb"):
        pass
    step.communicate()
    assert step.returncode == 128 + signal.SIGTERM
    assert run_documents(folder)[0]["status"] == "stopped"
    (folder / "waits").unlink()
    assert run(folder).decision == "done"
    assert attempts_and_resumed(folder) == (2, 1)


@pytest.mark.slow
def test_another_thread_may_stop_the_run(folder: Path) -> None:
    os.mkfifo(folder / "waits")
    processes: list[subprocess.Popen[str]] = []

    def log(line: str) -> None:
        if "at work" in line:
            processes[0].terminate()
        if "stopping at the next checkpoint" in line:
            (folder / "waits").write_bytes(b"")

    stopped = run(folder, started=processes.append, log=log)
    assert (stopped.exit_code, stopped.decision) == (128 + signal.SIGTERM, "retry")
    assert stopped.facts["status"] == "stopped"


def command_on_path(folder: Path) -> Path:
    """Make an ``ecmbatch`` for shells in *folder*."""
    commands = folder / "bin"
    commands.mkdir()
    script = commands / "ecmbatch"
    script.write_text(f'#!/bin/sh\nexec {" ".join(ECMBATCH)} "$@"\n')
    script.chmod(0o755)
    return commands


def every_error() -> Iterator[type[errors.EcmbatchError]]:
    waiting = [errors.EcmbatchError]
    while waiting:
        error = waiting.pop()
        yield error
        waiting += error.__subclasses__()


@pytest.mark.parametrize("error", [*every_error()], ids=lambda error: error.code)
def test_every_error_has_a_decision(error: type[errors.EcmbatchError]) -> None:
    document = {"error": {"code": error.code, "message": "it is so", "hint": "do that"}}
    finished = ecmbatch_run.Finished(exit_code=error.exit_code, document=document)
    expected = {2: "fail", 3: "fail", 4: "skip", 5: "fail", 6: "fail"}.get(error.exit_code, "retry")
    told = {"run_already_complete": "done", "run_already_active": "retry", "fenced": "retry"}
    assert finished.decision == told.get(error.code, expected)
    assert finished.message == "it is so; do that"


@pytest.mark.parametrize("exit_code", [-9, -15, 130, 137, 143])
def test_what_a_signal_ended_is_to_be_retried(exit_code: int) -> None:
    finished = ecmbatch_run.Finished(exit_code=exit_code)
    assert (finished.decision, finished.message) == ("retry", f"ecmbatch ended with exit code {exit_code}")


# -- cron -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_crontab_continues_what_was_killed(folder: Path) -> None:
    (line,) = [
        line for line in (EXAMPLES / "cron/crontab").read_text().splitlines() if line.startswith("0 2 ")
    ]
    job = flights_by_day(job_id="flights-incremental", source={**SINCE_LAST_RUN, "connector": "warehouse"})
    write_job(folder / "jobs", job, "flights-incremental.json")
    shutil.copy(EXAMPLES / "cron/run-and-continue", folder)
    (folder / "dies").touch()
    done = subprocess.run(
        ["/bin/sh", "-c", line.split(maxsplit=5)[5].replace("/srv/flights", str(folder))],
        env={
            **os.environ,
            "PATH": f"{command_on_path(folder)}{os.pathsep}{os.environ['PATH']}",
            "SECONDS_BETWEEN": "0",
        },
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    # cron would send no mail.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert attempts_and_resumed(folder) == (2, 1)
    assert json.loads((folder / "flights-incremental.runs").read_text())["status"] == "success"
    assert "continuing the run that crashed" in (folder / "flights-incremental.log").read_text()


SINCE_LAST_RUN = {
    "query": "SELECT * FROM flights WHERE departed >= :window_start AND departed < :window_end",
    "order_by": "number",
    "batch_rows": 24,
}


# -- Kubernetes -----------------------------------------------------------------------------------------


def test_the_cron_job_retries_what_may_pass_and_leaves_room_to_stop() -> None:
    claim, cron_job = yaml.safe_load_all((EXAMPLES / "kubernetes/cronjob.yaml").read_text())
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert (cron_job["apiVersion"], cron_job["kind"]) == ("batch/v1", "CronJob")
    spec = cron_job["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert job["backoffLimit"] > 0

    (container,) = pod["containers"]
    assert container["command"][:2] == ["ecmbatch", "run"]
    ignored, failed = job["podFailurePolicy"]["rules"]
    assert (ignored["action"], failed["action"]) == ("Ignore", "FailJob")
    on_exit = failed["onExitCodes"]
    assert (on_exit["containerName"], on_exit["operator"]) == (container["name"], "In")
    given_up = {error.exit_code for error in every_error()} - {1, 6, 7}
    assert set(on_exit["values"]) == given_up

    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    assert volumes["stage"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["ECMBATCH_STAGE__URL"]["value"] == mounts["stage"]
    assert "secretKeyRef" in variables["ECMBATCH_LEDGER__URL"]["valueFrom"]


# -- Dagster --------------------------------------------------------------------------------------------


@pytest.fixture
def on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], ModuleType]:
    """Load an example as its orchestrator would, for the project in *folder*."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("FLIGHTS_PROJECT", str(folder))
    monkeypatch.setenv("FLIGHTS_ECMBATCH", " ".join(ECMBATCH))
    monkeypatch.setenv("FLIGHTS_RETRY_SECONDS", "0")
    return lambda example: load(EXAMPLES / example)


@pytest.mark.slow
def test_dagster_materialises_a_partition_and_its_retry_continues_a_killed_run(
    folder: Path, on_path: Callable[[Path], ModuleType]
) -> None:
    dagster = pytest.importorskip("dagster")
    assets = on_path(Path("dagster/flights_assets.py"))
    day = f"{DAY:%Y-%m-%d}"
    with dagster.DagsterInstance.ephemeral() as instance:
        (folder / "dies").touch()
        result = dagster.materialize([assets.flights], partition_key=day, instance=instance)
        assert result.success
        kinds = [event.event_type_value for event in result.all_events]
        assert kinds.count("STEP_UP_FOR_RETRY") == kinds.count("STEP_RESTARTED") == 1
        assert attempts_and_resumed(folder) == (2, 1)
        (event,) = result.asset_materializations_for_node("flights")
        metadata = {name: value.value for name, value in event.metadata.items()}
        assert metadata["rows_read"] == metadata["dagster/row_count"] == ROWS_OF_A_DAY
        assert metadata["as_of"] == "2013-01-03T00:00:00Z"

        again = dagster.materialize([assets.flights], partition_key=day, instance=instance)
        assert again.success
        assert len(run_documents(folder)) == 1

        rules = {"rules": [{"type": "row_count", "min": 1_000}], "on_failure": "abort"}
        write_job(folder / "jobs", flights_by_day(validation=rules), "flights-by-day.json")
        next_day = f"{DAY + timedelta(days=1):%Y-%m-%d}"
        failed = dagster.materialize(
            [assets.flights], partition_key=next_day, instance=instance, raise_on_error=False
        )
        kinds = [event.event_type_value for event in failed.all_events]
        assert ("STEP_UP_FOR_RETRY" in kinds, failed.success) == (False, False)


@pytest.mark.slow
def test_the_dagster_definitions_load(on_path: Callable[[Path], ModuleType]) -> None:
    pytest.importorskip("dagster")
    definitions = on_path(Path("dagster/flights_assets.py")).defs
    assert [job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")] == [
        "flights_daily"
    ]


# -- Airflow --------------------------------------------------------------------------------------------

AIRFLOW = """
from pathlib import Path
from pendulum import datetime
import flights_dag

Path("dies").touch()
run = flights_dag.dag_of_flights.test(logical_date=datetime(2013, 1, 2, 2, tz="UTC"))
print("STATE", run.state, {task.task_id: task.try_number for task in run.get_task_instances()})
"""


@pytest.mark.slow
def test_airflow_runs_the_dag_and_its_retry_continues_a_killed_run(folder: Path, tmp_path: Path) -> None:
    """Airflow pins what it needs, so it lives in an environment of its own: name its Python to run this test."""
    python = os.environ.get("ECMBATCH_TEST_AIRFLOW_PYTHON")
    if python is None:
        pytest.skip("ECMBATCH_TEST_AIRFLOW_PYTHON names no Python with apache-airflow")
    home = tmp_path / "airflow"
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES / "airflow"),
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(EXAMPLES / "airflow")]),
        "FLIGHTS_PROJECT": str(folder),
        "FLIGHTS_ECMBATCH": f"env PYTHONPATH={python_path()} {' '.join(ECMBATCH)}",
        "FLIGHTS_RETRY_SECONDS": "0",
    }
    for words in (["-m", "airflow", "db", "migrate"], ["-c", AIRFLOW]):
        done = subprocess.run(
            [python, *words], env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    assert "STATE success" in done.stdout, done.stdout[-4_000:]
    assert attempts_and_resumed(folder) == (2, 1)
