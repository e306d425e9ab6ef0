"""A year of flights goes to PostgreSQL and back to DuckDB, and is the same."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from harness import command, write_job
from postgres_project import make_postgres_project
from postgres_server import PostgresServer

FLIGHTS = Path(__file__).parents[2] / "src" / "ecmbatch" / "demo" / "flights.parquet"


@pytest.mark.slow
def test_flights_through_postgres_and_back_equal_the_source(postgres: PostgresServer, tmp_path: Path) -> None:
    make_postgres_project(tmp_path, postgres, of_postgres=("store",))
    with (tmp_path / "ecmbatch.toml").open("a") as project:
        project.write(f'[connectors.landing]\ntype = "files"\nroot = "{FLIGHTS.parent}"\n')
        project.write('[stores.back]\ntype = "duckdb"\npath = "back.duckdb"\n')
    there = {
        "job_id": "there",
        "source": {"connector": "landing", "path": FLIGHTS.name},
        "sink": {"store": "context_store", "mode": "append", "table": "flights"},
    }
    back = {
        "job_id": "back",
        "job_type": "transformation",
        "source": {"store": "context_store", "table": "flights"},
        "sink": {"store": "back", "mode": "append", "table": "flights"},
    }
    for job in (there, back):
        finished = command(tmp_path, "run", write_job(tmp_path, job))
        assert finished.exit_code == 0, finished.err

    with duckdb.connect(str(tmp_path / "back.duckdb"), read_only=True) as store:
        source = f"SELECT * FROM '{FLIGHTS}'"
        loaded = "SELECT * EXCLUDE (_ecm_run_id) FROM flights"
        ((rows, columns),) = store.sql(
            f"SELECT count(*), (SELECT count(*) FROM (DESCRIBE {source})) FROM ({source})"
        ).fetchall()
        assert (rows, columns) != (0, 0)
        assert store.sql(f"DESCRIBE {loaded}").fetchall() == store.sql(f"DESCRIBE {source}").fetchall()
        for one, other in ((source, loaded), (loaded, source)):
            assert store.sql(f"SELECT count(*) FROM ({one} EXCEPT ALL {other})").fetchall() == [(0,)]
