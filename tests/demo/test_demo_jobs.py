"""The demo's further jobs: what is in the store is what the warehouse has."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from ecmbatch.demo.project import build_project
from ecmbatch.errors import DependencyNotMet
from ecmbatch.project import Project, RunResult

BY_DATE = """
SELECT make_date(year, month, day) AS flight_date, time_hour, carrier, flight, tailnum, origin, dest, dep_delay,
    arr_delay, distance, name AS airline
FROM warehouse.flights JOIN warehouse.airlines USING (carrier)
"""
BY_ORIGIN = """
SELECT origin, time_hour, carrier, flight, tailnum, dest, dep_delay, arr_delay, distance, dep_delay > 15 AS is_late,
    distance * 1.609344 AS distance_km
FROM warehouse.flights
"""
DELAYS = """
SELECT make_date(year, month, day) AS flight_date, origin, count(*) AS flights,
    count(*) FILTER (WHERE dep_delay > 15) AS late, round(avg(dep_delay), 1) AS average_delay_minutes
FROM warehouse.flights GROUP BY ALL
"""


def run(folder: Path, job: str) -> RunResult:
    with Project.load(folder, environment={}) as project:
        return project.run(job)


def differences(folder: Path, table: str, expected: str) -> int:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in ("warehouse", "context"):
            connection.execute(f"ATTACH '{folder / name}.duckdb' AS {name} (READ_ONLY)")
        stored = f"SELECT * EXCLUDE (_ecm_run_id) FROM context.{table}"
        missing, surplus = f"({expected}) EXCEPT ALL ({stored})", f"({stored}) EXCEPT ALL ({expected})"
        ((counted,),) = connection.sql(f"SELECT count(*) FROM (({missing}) UNION ALL ({surplus}))").fetchall()
    return int(counted)


@pytest.mark.slow
def test_range_list_and_transformation_give_what_the_warehouse_has(tmp_path: Path) -> None:
    build_project(tmp_path / "flights")
    folder = tmp_path / "flights"
    assert isinstance(run(folder, "daily-delays").error, DependencyNotMet)
    by_date = run(folder, "flights-by-date")
    assert by_date.error is None
    assert by_date.document()["partitions"]["total"] == 4
    assert by_date.document()["processors"] == [{"processor": "lookup", "counts": {"missing": 0}}]
    assert differences(folder, "flights_by_date", BY_DATE) == 0
    assert run(folder, "flights-by-origin").error is None
    assert differences(folder, "flights_by_origin", BY_ORIGIN) == 0
    for _ in range(2):
        assert run(folder, "daily-delays").error is None
        assert differences(folder, "daily_delays", DELAYS) == 0
