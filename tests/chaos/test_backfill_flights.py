"""A year of flights is filled day by day by processes that are killed, and is the same as the year at once."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from ecmbatch.crash_points import CrashPoint
from harness import command, start, was_killed, write_job
from postgres_project import make_postgres_project
from postgres_server import PostgresServer

FLIGHTS = Path(__file__).parents[2] / "src" / "ecmbatch" / "demo" / "flights.parquet"
POINTS: Sequence[CrashPoint] = (
    "run.frozen",
    "scan.claimed",
    "stage.sealed",
    "checkpoint.after",
    "verdict.recorded",
    "publish.before_commit",
    "publish.after_commit",
    "finish.before",
    "finish.after",
)
COLUMNS = "carrier, flight, origin, dest, departure, tailnum, dep_delay"
YEAR = (
    "backfill",
    "create",
    "flights",
    "--from",
    "2013-01-01",
    "--to",
    "2014-01-01",
    "--concurrency",
    "2",
    "--here",
)
JOB: dict[str, Any] = {
    "job_id": "flights",
    "source": {
        "connector": "airport",
        "query": f"SELECT {COLUMNS} FROM flights WHERE departure >= :window_start AND departure < :window_end",
    },
    "sink": {"store": "context_store", "mode": "append", "table": "flights", "provenance": False},
}


def make_airport(path: Path) -> list[tuple[Any, ...]]:
    """Write the flights of 2013 into a SQLite file and return them, sorted."""
    with duckdb.connect() as connection:
        rows = connection.sql(
            "SELECT carrier, flight, origin, dest, strftime(time_hour AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S'), "
            f"tailnum, dep_delay::DOUBLE FROM '{FLIGHTS}' WHERE time_hour >= '2013-01-01T00:00:00Z' "
            "AND time_hour < '2014-01-01T00:00:00Z'"
        ).fetchall()
    with closing(sqlite3.connect(path)) as airport, airport:
        airport.execute(
            "CREATE TABLE flights (carrier TEXT, flight INTEGER, origin TEXT, dest TEXT, departure TEXT, "
            "tailnum TEXT, dep_delay DOUBLE)"
        )
        airport.executemany("INSERT INTO flights VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        airport.execute("CREATE INDEX by_departure ON flights (departure)")
    return sorted(rows, key=repr)


@pytest.mark.slow
def test_a_year_filled_by_day_under_kills_equals_the_year_at_once(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = make_postgres_project(tmp_path, postgres, of_postgres=("store",))
    with (tmp_path / "ecmbatch.toml").open("a") as project:
        project.write('[connectors.airport]\ntype = "sqlite"\npath = "airport.db"\n')
    (tmp_path / "jobs").mkdir()
    write_job(tmp_path, JOB, "jobs/flights.json")
    flights = make_airport(tmp_path / "airport.db")
    chance = random.Random(2013)
    killed = 0
    for _ in range(4):
        points = chance.sample(POINTS, 2)
        children = [start(tmp_path, *YEAR, crash=point, occurrence=chance.randint(5, 30)) for point in points]
        killed += sum(was_killed(child.wait()) for child in children)
    assert killed >= 4
    ended = [child.wait() for child in [start(tmp_path, *YEAR) for _ in range(2)]]
    assert [child.exit_code for child in ended] == [0, 0], ended[0].err + ended[1].err
    listed = command(tmp_path, "backfill", "status", "--json")
    assert listed.exit_code == 0, listed.out
    (view,) = listed.document
    assert (view["status"], view["intervals"]["loaded"]) == ("completed", 365)
    with psycopg.connect(url) as store:
        loaded = store.execute(f"SELECT {COLUMNS} FROM context.flights").fetchall()
    assert sorted(loaded, key=repr) == flights
