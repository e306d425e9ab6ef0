from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

Ecmbatch = Callable[..., Any]


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_stops_the_run_and_run_continues_it(
    project: Any, ecmbatch: Ecmbatch, number: int, exit_code: int
) -> None:
    let_go = project.waiting_job()
    child = project.start("run", "people", "--json")
    child.await_line("at work")
    child.signal(number)
    child.await_line("stopping at the next checkpoint")
    let_go()
    stopped = child.end()
    assert (stopped.exit_code, stopped.document["status"]) == (exit_code, "stopped")
    assert project.rows() == 0

    let_go()
    result = ecmbatch("run", "people", "--json")
    assert (result.exit_code, result.document["attempt"]) == (0, 2)
    assert result.document["run_id"] == stopped.document["run_id"]
    assert project.rows() == 10


def test_a_second_signal_ends_the_process_at_once(project: Any, ecmbatch: Ecmbatch) -> None:
    project.waiting_job()
    child = project.start("run", "people", "--json")
    child.await_line("at work")
    child.signal(signal.SIGINT)
    child.await_line("stopping at the next checkpoint")
    child.signal(signal.SIGINT)
    ended = child.end()
    assert (ended.exit_code, ended.out) == (130, "")
    assert "Traceback" not in ended.err
    [run] = ecmbatch("runs", "--json").document
    assert run["status"] == "in_progress"
    assert "Nobody executes it any more" in ecmbatch("why", run["run_id"]).out


def test_stop_ends_a_run_in_another_process_with_exit_5(project: Any, ecmbatch: Ecmbatch) -> None:
    let_go = project.waiting_job()
    child = project.start("run", "people", "--json")
    child.await_line("at work")
    [run] = ecmbatch("runs", "--json").document
    assert ecmbatch("stop", run["run_id"], "--json").document["status"] == "stopping"
    assert ecmbatch("run", "people").exit_code == 6
    let_go()
    stopped = child.end()
    assert (stopped.exit_code, json.loads(stopped.out)["status"]) == (5, "stopped")
