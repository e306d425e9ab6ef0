"""PostgreSQL stopped and started every few seconds under load, as source, store or ledger."""

from __future__ import annotations

import contextlib
import random
import threading
from pathlib import Path

import pytest

from ecmbatch.errors import Unreachable
from harness import (
    customers,
    customers_job,
    expected,
    fill_warehouse,
    run_documents,
    start,
    stored,
    write_job,
)
from postgres_project import EVERYTHING, fill_postgres, make_postgres_project, stored_in_postgres
from postgres_server import PostgresServer

ROWS = customers(40_000)
RESTARTS = 8


def restart_again_and_again(server: PostgresServer, seed: int, over: threading.Event) -> None:
    chance = random.Random(seed)
    for _ in range(RESTARTS):
        if over.wait(chance.uniform(0.5, 2.5)):
            return
        server.stop(chance.choice(("immediate", "fast")))
        over.wait(chance.uniform(0, 0.5))
        server.start()


def is_success(folder: Path) -> bool:
    """Whether the run is over. Who cannot know must ask until he does: to run again is another run."""
    while True:
        with contextlib.suppress(Unreachable):
            return any(document["status"] == "success" for document in run_documents(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    "of_postgres",
    [
        pytest.param(("source",), marks=pytest.mark.every_combination),
        ("store",),
        pytest.param(("ledger",), marks=pytest.mark.every_combination),
        EVERYTHING,
    ],
    ids="-".join,
)
def test_every_row_arrives_once_however_often_the_server_restarts(
    of_postgres: tuple[str, ...], tmp_path: Path
) -> None:
    with PostgresServer() as server:
        folder = tmp_path / "project"
        url = make_postgres_project(folder, server, of_postgres=of_postgres)
        if "source" in of_postgres:
            fill_postgres(url, ROWS)
        else:
            fill_warehouse(folder, ROWS)
        retry = {"max_attempts": 3, "base_delay": "500 milliseconds"}
        write_job(folder, customers_job(mode="append", partitions=8, every_rows=300, retry=retry))

        over = threading.Event()
        chaos = threading.Thread(target=restart_again_and_again, args=(server, len(of_postgres), over))
        chaos.start()
        codes: list[int] = []
        try:
            while not is_success(folder):
                # A process of its own: what it could not say to the ledger before it ended, its end says.
                finished = start(folder, "run", "job.json", "--json").wait()
                codes.append(finished.exit_code)
                # 1 failed, 7 unreachable; never a conflict, a defect or a traceback.
                assert finished.exit_code in (0, 1, 7), finished.err
                assert "Traceback" not in finished.err and "this is a defect" not in finished.out
                assert len(codes) < 200
        finally:
            over.set()
            chaos.join()

        rows = stored_in_postgres(url) if "store" in of_postgres else stored(folder)
        assert rows == expected(ROWS)
        (document,) = run_documents(folder)
        assert (document["status"], document["rows"]["read"]) == ("success", ROWS.num_rows)
