"""Commits that are acknowledged too late or never: every row is there once."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from chaos.proxy import Proxy
from harness import command, customers, customers_job, expected, run_documents, start, write_job
from postgres_project import fill_postgres, make_postgres_project, stored_in_postgres
from postgres_server import PostgresServer

ROWS = customers(500)


def through(proxy: Proxy, url: str) -> str:
    database = url.partition("?")[0].rpartition("/")[2]
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/{database}"


@pytest.mark.slow
@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_a_commit_that_is_never_acknowledged_counts_once(
    mode: str, attempts: int, postgres: PostgresServer, tmp_path: Path
) -> None:
    with Proxy(postgres.port, "acknowledgement lost") as proxy:
        url = postgres.new_database()
        make_postgres_project(tmp_path, postgres, url=url, store_url=through(proxy, url))
        fill_postgres(url, ROWS)
        retry = {"max_attempts": attempts, "base_delay": "0 seconds"}
        write_job(tmp_path, customers_job(mode=mode, partitions=4, retry=retry))

        first = command(tmp_path, "run", "job.json", "--json")
        assert proxy.happened.is_set(), first.err
        if attempts == 1:
            assert first.exit_code in (1, 7), first.err
            again = command(tmp_path, "run", "job.json", "--json")
            assert again.exit_code == 0, again.err
        else:
            assert first.exit_code == 0, first.err
    assert stored_in_postgres(url) == expected(ROWS)
    (document,) = run_documents(tmp_path)
    assert (document["status"], document["rows"]["inserted"]) == ("success", ROWS.num_rows)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_a_commit_that_lands_while_its_successor_publishes_is_found(
    mode: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    with Proxy(postgres.port, "commit late") as proxy:
        url = postgres.new_database()
        make_postgres_project(tmp_path, postgres, url=url, store_url=through(proxy, url))
        fill_postgres(url, ROWS)
        write_job(tmp_path, customers_job(mode=mode, partitions=4))
        first = command(tmp_path, "run", "job.json", "--json")
        assert proxy.happened.is_set(), first.err
        assert first.exit_code in (1, 7), first.err
        assert stored_in_postgres(url) == []

        successor = start(tmp_path, "run", "job.json", "--json")
        wait_until_somebody_waits(url)
        proxy.release()
        finished = successor.wait()
    assert finished.exit_code == 0, finished.err
    assert stored_in_postgres(url) == expected(ROWS)
    (document,) = run_documents(tmp_path)
    assert (document["status"], document["rows"]["inserted"]) == ("success", ROWS.num_rows)


def wait_until_somebody_waits(url: str) -> None:
    """Return when a session of the database waits for a lock that another one holds."""
    deadline = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            ((waiting,),) = connection.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
            ).fetchall()
            if waiting:
                return
            time.sleep(0.05)
    raise AssertionError("the successor never came to wait")
