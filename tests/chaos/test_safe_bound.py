"""A hundred incremental runs beside writers that commit late and write late: no row is lost, none is doubled.

Writers stamp rows with the transaction's time, begin long before they write, and commit long after. With the
wall clock as the bound, the same runs lose rows.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from ecmbatch import Project
from ecmbatch.connectors import postgres_connector
from ecmbatch.connectors.connector import WindowBound
from harness import write_job
from postgres_project import make_postgres_project
from postgres_server import PostgresServer

WRITERS = 6
JOB = {
    "job_id": "visits",
    "job_type": "incremental_extraction",
    "source": {
        "connector": "warehouse",
        "query": "SELECT * FROM visits WHERE at >= :window_start AND at < :window_end",
        # What protects is the bound, not a margin.
        "lag": "0 seconds",
    },
    "sink": {"store": "context_store", "mode": "append", "table": "visits", "allow_empty": True},
}


def write(url: str, number: int, done: threading.Event) -> None:
    """Insert rows in transactions that take their time at the beginning, between rows and at the end."""
    chance = random.Random(number)
    with psycopg.connect(url) as connection:
        while not done.is_set():
            connection.execute("SELECT 1")
            done.wait(chance.choice((0, 0, 0.01, 0.2)))
            for _ in range(chance.randint(1, 3)):
                connection.execute("INSERT INTO visits (writer, at) VALUES (%s, now())", [number])
                done.wait(chance.choice((0, 0.005)))
            done.wait(chance.choice((0, 0, 0.01, 0.3)))
            connection.commit()
            done.wait(chance.choice((0, 0.05)))


@contextmanager
def writers(url: str) -> Iterator[None]:
    done = threading.Event()
    threads = [threading.Thread(target=write, args=(url, number, done)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def lost_and_doubled(folder: Path, server: PostgresServer, runs: int) -> tuple[int, int]:
    """Run the job beside the writers and once after them; return how many rows are missing and repeated."""
    url = make_postgres_project(folder, server, of_postgres=("source", "store"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE visits (id bigserial PRIMARY KEY, writer int, at timestamptz)")
    write_job(folder, JOB)
    with writers(url):
        for _ in range(runs):
            load(folder)
    load(folder)
    with psycopg.connect(url) as connection:
        ((written, loaded, different),) = connection.execute(
            "SELECT (SELECT count(*) FROM visits), count(*), count(DISTINCT id) FROM context.visits"
        ).fetchall()
    assert written > runs
    return written - different, loaded - different


def load(folder: Path) -> None:
    with Project.load(folder, environment={}) as project:
        result = project.run(folder / "job.json")
    if result.error is not None:
        raise result.error


@pytest.mark.slow
def test_incremental_runs_lose_nothing_and_double_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    assert lost_and_doubled(tmp_path, postgres, runs=100) == (0, 0)


@pytest.mark.slow
def test_with_the_wall_clock_as_the_bound_rows_are_lost(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        postgres_connector.PostgresConnector,
        "window_bound",
        lambda connector: WindowBound(at=connector.clock(), lag=timedelta(0)),
    )
    lost, doubled = lost_and_doubled(tmp_path, postgres, runs=30)
    assert lost > 0
    assert doubled == 0
