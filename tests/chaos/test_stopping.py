"""A source that gives nothing does not keep a run from being stopped, and a killed one leaves no query behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from harness import customers, customers_job, run_documents, start, write_job
from postgres_project import fill_postgres, make_postgres_project
from postgres_server import PostgresServer

SLOW = {"connector": "warehouse", "query": "SELECT id, pg_sleep(100)::text AS slept FROM customers"}
AS_IT_IS = {"fields": {"context_id": "id"}}


@contextmanager
def locked(url: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        yield


def wait_for_a_query(url: str, words: str) -> None:
    """Return when another session of the database is busy with a statement that has *words* in it."""
    deadline = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as connection:
        while not queries(connection, words):
            assert time.monotonic() < deadline, f"nobody ever asked for {words}"
            time.sleep(0.05)


def queries(connection: psycopg.Connection[tuple[object, ...]], words: str) -> int:
    found = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state = 'active' AND position(%s IN query) > 0",
        [words],
    ).fetchone()
    assert found is not None and isinstance(found[0], int)
    return found[0]


@pytest.fixture(params=["threads", "processes"])
def project(request: pytest.FixtureRequest, postgres: PostgresServer, tmp_path: Path) -> tuple[Path, str]:
    url = make_postgres_project(tmp_path, postgres, of_postgres=("source",), executor=request.param)
    fill_postgres(url, customers(10))
    return tmp_path, url


@pytest.mark.slow
def test_a_run_whose_source_sleeps_can_be_stopped(project: tuple[Path, str]) -> None:
    folder, url = project
    transform = {"processor": "field_mapper", "config": AS_IT_IS}
    write_job(folder, customers_job(source=SLOW, transform=transform))
    running = start(folder, "run", "job.json", "--json")
    wait_for_a_query(url, "COPY")
    os.kill(running.process.pid, signal.SIGINT)
    finished = running.wait()
    assert finished.exit_code == 130, finished.err
    assert run_documents(folder)[0]["status"] == "stopped"


@pytest.mark.slow
def test_a_run_whose_source_is_locked_ends_with_its_timeout(project: tuple[Path, str]) -> None:
    folder, url = project
    write_job(folder, customers_job(timeout="2 seconds"))
    with locked(url):
        finished = start(folder, "run", "job.json", "--json").wait()
    assert finished.exit_code == 1, finished.err
    assert run_documents(folder)[0]["error"]["code"] == "timed_out"


@pytest.mark.slow
def test_the_query_of_a_killed_run_ends(project: tuple[Path, str]) -> None:
    folder, url = project
    transform = {"processor": "field_mapper", "config": AS_IT_IS}
    write_job(folder, customers_job(source=SLOW, transform=transform))
    running = start(folder, "run", "job.json", "--json")
    wait_for_a_query(url, "COPY")
    os.kill(running.process.pid, signal.SIGKILL)
    running.wait()
    deadline = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as connection:
        while queries(connection, "COPY"):
            assert time.monotonic() < deadline, "the query of the killed run goes on"
            time.sleep(0.2)
