from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from ecmbatch.ledger.ledger import Ledger
from postgres_server import PostgresServer
from service_processes import ServedProject, get, served_project, wait_for
from worker_project import on_linux, wait_until_gone

pytestmark = pytest.mark.slow

SERVE = ("serve", "--port", "0")


def test_serve_answers_is_ready_and_stops_with_exit_0(served: ServedProject) -> None:
    service = served.start(*SERVE)
    url = service.url()
    assert get(f"{url}/healthz") == (200, '{"status": "ok"}\n')
    service.await_event("service.ready")
    assert get(f"{url}/readyz") == (200, '{"ready": true, "problems": []}\n')
    status, metrics = get(f"{url}/metrics")
    assert status == 200
    assert {"ecmbatch_ledger_up 1.0", "ecmbatch_slots 2.0", "ecmbatch_slots_busy 0.0"} <= set(
        metrics.splitlines()
    )
    assert get(f"{url}/nothing")[0] == 404
    assert get(f"{url}/healthz", "POST")[0] == 405
    assert service.terminate() == 0
    assert service.events()[-2:] == ["service.stopping", "service.stopped"]


def test_an_event_starts_a_run_that_a_slot_executes(served: ServedProject) -> None:
    served.let_go()
    service = served.start(*SERVE)
    url = service.url()
    service.await_event("service.ready")
    served.emit()
    run_id = service.await_event("run.started", job_id="customers")["run_id"]
    service.await_event("run.ended", run_id=run_id, status="success")
    assert served.is_whole()
    wait_for(lambda: "ecmbatch_slots_busy 0.0" in get(f"{url}/metrics")[1], "the slot's rest")
    _, metrics = get(f"{url}/metrics")
    assert 'ecmbatch_runs_ended_total{job="customers",status="success"} 1.0' in metrics
    assert 'ecmbatch_last_success_timestamp_seconds{job="customers"}' in metrics
    assert run_id not in metrics
    assert service.terminate() == 0


def test_a_run_under_way_is_released_and_the_next_service_completes_it(served: ServedProject) -> None:
    first = served.serve()
    served.emit()
    served.await_work()
    run_id = first.await_event("run.started")["run_id"]
    first.process.send_signal(signal.SIGTERM)
    first.await_event("service.stopping")
    served.let_go()
    assert first.end() == 0
    first.await_event("run.ended", run_id=run_id, status="queued")

    second = served.start(*SERVE)
    second.await_event("run.ended", run_id=run_id, status="success")
    assert served.is_whole()
    assert second.terminate() == 0


@on_linux
def test_a_slot_that_is_killed_is_replaced_and_its_run_goes_on(served: ServedProject) -> None:
    service = served.serve()
    served.emit()
    slot = served.await_work()
    run_id = service.await_event("run.started")["run_id"]
    served.let_go(1)
    served.await_work()
    os.kill(slot, signal.SIGKILL)
    service.await_event("slot.died", slot=slot, run_id=run_id)
    served.let_go()
    service.await_event("run.ended", run_id=run_id, status="success")
    assert served.is_whole()
    assert service.terminate() == 0


@on_linux
def test_slots_release_their_runs_and_end_when_the_service_is_killed(served: ServedProject) -> None:
    first = served.serve()
    served.emit()
    slot = served.await_work()
    run_id = first.await_event("run.started")["run_id"]
    first.process.kill()
    first.process.wait()
    served.let_go()
    wait_until_gone(slot)

    second = served.start(*SERVE)
    second.await_event("run.ended", run_id=run_id, status="success")
    assert served.is_whole()
    assert second.terminate() == 0


@on_linux
def test_a_slot_that_hangs_is_killed_after_the_grace_period_and_exit_1_says_so(served: ServedProject) -> None:
    served.job("hangs")
    service = served.serve("--grace", "1 second")
    served.emit()
    slot = served.await_work()
    assert service.terminate() == 1
    service.await_event("slot.killed", slot=slot, job_id="customers")
    wait_until_gone(slot)


@on_linux
def test_a_slot_that_hangs_ends_by_itself_when_the_service_is_killed(served: ServedProject) -> None:
    served.job("hangs")
    service = served.serve("--grace", "1 second")
    served.emit()
    slot = served.await_work()
    service.process.kill()
    wait_until_gone(slot)


def test_a_second_signal_ends_it_at_once(served: ServedProject) -> None:
    served.job("hangs")
    service = served.serve()
    served.emit()
    slot = served.await_work()
    service.process.send_signal(signal.SIGINT)
    service.await_event("service.stopping")
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait() == 130
    os.kill(slot, signal.SIGKILL)


def test_a_ledger_in_sqlite_has_one_scheduler_and_any_number_of_workers(served: ServedProject) -> None:
    served.let_go()
    scheduler = served.start("scheduler")
    scheduler.await_event("service.ready")
    refused = served.start("scheduler")
    assert refused.end() == 6
    (line,) = refused.lines
    assert line["event"] == "service.failed"
    assert f"already has a scheduler: process {scheduler.process.pid} on " in line["message"]
    assert "PostgreSQL" in line["message"]
    workers = [served.start("worker", "--slots", "1") for _ in range(2)]
    for worker in workers:
        worker.await_event("service.ready")
    served.emit()
    wait_for(lambda: served.statuses() == ["success"], "the run's success")
    assert [worker.terminate() for worker in workers] == [0, 0]
    assert sum(worker.events().count("run.started") for worker in workers) == 1
    assert served.is_whole()

    scheduler.process.kill()
    scheduler.process.wait()
    successor = served.start("scheduler")
    successor.await_event("service.ready")
    assert successor.terminate() == 0


def test_a_job_file_that_breaks_is_told_and_the_last_good_version_stays(served: ServedProject) -> None:
    served.let_go()
    service = served.start(*SERVE)
    service.await_event("job.registered", job_id="customers", version=1)
    (served.path / "jobs/customers.json").write_text("{")
    assert "version 1 stays in force" in service.await_event("job.refused")["message"]
    served.emit()
    service.await_event("run.ended", job_id="customers", status="success")
    served.job(timeout="1 hour")
    service.await_event("job.registered", job_id="customers", version=2)
    assert service.terminate() == 0


def test_a_project_file_that_breaks_keeps_runs_waiting_until_it_is_repaired(served: ServedProject) -> None:
    served.let_go()
    service = served.start(*SERVE)
    service.await_event("service.ready")
    file = served.path / "ecmbatch.toml"
    good = file.read_text()
    file.write_text("[")
    # No command takes this file either.
    with closing(Ledger(served.path / ".ecmbatch/ledger.db")) as ledger:
        ledger.events.emit("go")
    assert "is not TOML" in service.await_event("slot.failed")["message"]
    service.await_event("slot.died")
    file.write_text(good)
    service.await_event("run.ended", status="success")
    assert service.terminate() == 0


def test_a_port_that_is_taken_is_an_error_with_exit_2(served: ServedProject) -> None:
    first = served.start(*SERVE)
    port = first.url().rpartition(":")[2]
    second = served.start("worker", "--port", port)
    assert second.end() == 2
    (line,) = second.lines
    assert line["event"] == "service.failed" and f"port {port}" in line["message"]


def test_settings_of_the_project_file_count_where_no_option_is_given(served: ServedProject) -> None:
    with (served.path / "ecmbatch.toml").open("a") as file:
        file.write("[serve]\nport = 0\nslots = 3\n")
    service = served.start("serve")
    assert "worker of 3 runs at once" in service.await_event("service.started")["message"]
    assert service.terminate() == 0


def test_several_schedulers_and_workers_share_a_ledger_on_postgresql(
    tmp_path: Path, postgres_url: str
) -> None:
    with served_project(tmp_path, postgres_url) as served:
        served.let_go()
        services = [served.start(name) for name in ("scheduler", "scheduler", "worker", "worker")]
        for service in services:
            service.await_event("service.ready")
        served.emit()
        wait_for(lambda: served.statuses() == ["success"], "the run's success")
        assert served.is_whole()
        assert [service.terminate() for service in services] == [0, 0, 0, 0]
        events = [event for service in services for event in service.events()]
        assert (events.count("run.created"), events.count("run.started")) == (1, 1)


def test_a_ledger_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    with PostgresServer() as server, served_project(tmp_path, server.url()) as served:
        served.let_go()
        server.stop("immediate")
        service = served.start(*SERVE)
        url = service.url()
        service.await_event("ledger.unreachable")
        status, body = get(f"{url}/readyz")
        assert (status, json.loads(body)["ready"]) == (503, False)
        assert get(f"{url}/healthz")[0] == 200
        assert "ecmbatch_ledger_up 0.0" in get(f"{url}/metrics")[1]
        server.start()
        service.await_event("service.ready")
        server.stop("immediate")
        service.await_event("worker.failing")
        service.await_event("service.unready")
        server.start()
        service.await_event("worker.recovered")
        served.emit()
        service.await_event("run.ended", status="success")
        assert served.is_whole()
        assert service.terminate() == 0
