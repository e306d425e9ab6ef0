from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

import pytest

from ecmbatch.cli.log import LogFormat, LogLevel, set_up_log
from ecmbatch.errors import ConflictError, Unreachable, UsageError
from ecmbatch.ledger.place import PostgresPlace
from ecmbatch.service.health import Health, Heartbeat
from ecmbatch.service.http_server import Answer, HttpServer
from ecmbatch.service.loop import Loop
from ecmbatch.service.scheduler_lock import only_scheduler
from service_processes import get

# -- health -----------------------------------------------------------------------------------------


class Clock:
    """Goes on when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_part_is_well_from_its_first_beat_until_three_are_missing() -> None:
    clock = Clock()
    part = Heartbeat("scheduler", interval=5, monotonic=clock)
    health = Health([part])
    assert health.problems == ["scheduler: it has not begun"]
    part.beat()
    clock.seconds += 15
    assert health.problems == []
    clock.seconds += 1
    assert health.problems == ["scheduler: nothing was heard of it for 16 s"]
    part.beat()
    assert health.problems == []


def test_a_part_in_trouble_says_which_until_it_beats_again() -> None:
    part = Heartbeat("worker", interval=5, monotonic=Clock())
    part.beat()
    part.fail("the ledger cannot be reached")
    assert part.problem == "the ledger cannot be reached"
    part.beat()
    assert part.problem is None


# -- loop -------------------------------------------------------------------------------------------


def test_a_loop_takes_the_next_step_when_it_is_woken_and_none_after_it_was_stopped() -> None:
    taken = threading.Semaphore(0)

    def step() -> float:
        taken.release()
        return 1_000_000

    loop = Loop(step, Heartbeat("worker", interval=5))
    loop.start()
    taken.acquire()
    assert loop.heartbeat.problem is None or loop.heartbeat.problem == "it has not begun"
    loop.wake()
    taken.acquire()
    loop.stop()
    assert loop.join(60)


@pytest.mark.parametrize("error", [Unreachable("the ledger cannot be reached"), ZeroDivisionError("secret")])
def test_a_step_that_fails_is_taken_again_and_both_is_told(
    error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecmbatch.service.loop._FIRST_WAIT", 0.0)
    monkeypatch.setattr(logging.getLogger("ecmbatch"), "propagate", True)
    done = threading.Event()
    results = iter([error, error, None])

    def step() -> float:
        result = next(results)
        if result is not None:
            raise result
        done.set()
        return 1_000_000

    loop = Loop(step, Heartbeat("scheduler", interval=5))
    with caplog.at_level(logging.INFO, "ecmbatch"):
        loop.start()
        assert done.wait(60)
        loop.stop()
        assert loop.join(60)
    # Where another test has set up the log, a record may be caught on two ways.
    records = {id(record): record for record in caplog.records}.values()
    assert [record.event for record in records] == [
        "scheduler.failing",
        "scheduler.failing",
        "scheduler.recovered",
    ]
    assert "secret" not in caplog.records[0].getMessage()


def test_a_loop_that_was_never_started_need_not_be_waited_for() -> None:
    assert Loop(lambda: 1, Heartbeat("worker", interval=5)).join(0)


# -- the scheduler's lock ---------------------------------------------------------------------------


def test_a_file_has_one_scheduler_at_a_time_and_a_server_any_number(tmp_path: Path) -> None:
    place = tmp_path / "below" / "ledger.db"
    refused = pytest.raises(ConflictError, match="already has a scheduler: process ")
    with only_scheduler(place), refused, only_scheduler(place):
        pass
    with only_scheduler(place):
        pass
    server = PostgresPlace(url="postgresql://nowhere/x")
    with only_scheduler(server), only_scheduler(server):
        pass


# -- HTTP -------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[HttpServer]:
    def broken() -> Answer:
        raise ZeroDivisionError("secret")

    served = HttpServer("127.0.0.1", 0, {"/page": lambda: Answer.of({"a": 1}), "/broken": broken})
    served.start()
    yield served
    served.close()


def test_pages_are_read_and_nothing_else_is_possible(server: HttpServer) -> None:
    assert get(f"{server.url}/page") == (200, '{"a": 1}\n')
    assert get(f"{server.url}/page?x=1")[0] == HTTPStatus.OK
    assert get(f"{server.url}/other") == (404, '{"error": "Not Found"}\n')
    for method in ("POST", "PUT", "DELETE", "PATCH", "NONSENSE"):
        assert get(f"{server.url}/page", method)[0] == HTTPStatus.METHOD_NOT_ALLOWED


def test_what_went_wrong_inside_stays_inside(server: HttpServer) -> None:
    assert get(f"{server.url}/broken") == (500, '{"error": "Internal Server Error"}\n')


def test_clients_that_say_nothing_or_nonsense_keep_nobody_out(server: HttpServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for number in range(100):
            client = stack.enter_context(socket.create_connection((host, int(port))))
            if number % 2:
                client.sendall(b"\x16\x03\x01 nonsense " * 10 + b"\r\n" * (number % 4 == 1))
        assert get(f"{server.url}/page")[0] == HTTPStatus.OK


def test_a_burst_of_connections_is_let_in_before_any_is_answered() -> None:
    busy = HttpServer("127.0.0.1", 0, {})
    host, port = busy.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        stack.callback(busy.close)
        for _ in range(100):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=30))


def test_a_port_that_is_taken_is_a_usage_error(server: HttpServer) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1, port {port}: ") as raised:
        HttpServer("127.0.0.1", port, {})
    assert "--port" in (raised.value.hint or "")


# -- the log ----------------------------------------------------------------------------------------


def test_a_json_line_has_its_event_and_fields_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("ecmbatch")
    handlers, level, propagate = log.handlers, log.level, log.propagate
    set_up_log(LogFormat.JSON, LogLevel.INFO, lambda text: text.replace("hunter2", "***"))
    try:
        log.info("a %s", "hunter2", extra={"event": "run.started", "run_id": "r1", "of": "hunter2", "n": 1})
        log.info("plain")
    finally:
        log.handlers, log.level, log.propagate = handlers, level, propagate
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert list(first) == ["time", "level", "event", "message", "run_id", "of", "n"]
    assert (first["event"], first["message"], first["of"], first["n"]) == ("run.started", "a ***", "***", 1)
    assert list(second) == ["time", "level", "message"]
