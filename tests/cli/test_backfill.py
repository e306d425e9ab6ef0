"""``backfill``: what people and scripts see of loading the past."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import duckdb
import pytest

Ecmbatch = Callable[..., Any]
JOB: dict[str, Any] = {
    "job_id": "visits",
    "source": {
        "connector": "warehouse",
        "query": "SELECT * FROM visits WHERE seen_at >= :window_start AND seen_at < :window_end",
    },
    "sink": {"store": "context_store", "mode": "upsert", "table": "visits", "key": ["id"]},
    "validation": {"rules": [{"type": "row_count", "min": 1}], "on_failure": "abort"},
}
RANGE = ("visits", "--from", "2026-01-01", "--to", "2026-01-04")


@pytest.fixture
def visits(project: Any) -> Any:
    """The job ``visits``: two rows for each of the first three days of the year."""
    project.job(**JOB, transform=[])
    with duckdb.connect(project.path / "warehouse.duckdb") as connection:
        connection.execute(
            "CREATE TABLE visits AS SELECT range AS id, "
            "TIMESTAMPTZ '2026-01-01T06:00:00Z' + range * INTERVAL 12 HOURS AS seen_at FROM range(6)"
        )
    return project


def loaded(folder: Any) -> list[int]:
    with duckdb.connect(folder.path / "context.duckdb", read_only=True) as store:
        return [row[0] for row in store.execute("SELECT id FROM visits ORDER BY id").fetchall()]


def backfill_id(result: Any) -> str:
    return str(result.document["backfill_id"])


def test_a_plan_is_shown_before_anything_is_made(visits: Any, ecmbatch: Ecmbatch) -> None:
    planned = ecmbatch("backfill", "plan", *RANGE)
    assert planned.exit_code == 0
    for told in (
        "split      1 d, asc, 1 at once; loads missing; on failure: stop",
        "intervals  3, of which 3 are to be loaded",
        "2026-01-01 00:00:00Z … 2026-01-02 00:00:00Z",
        "window_start = 2026-01-03T00:00:00Z, window_end = 2026-01-04T00:00:00Z",
    ):
        assert told in planned.out
    document = ecmbatch("backfill", "plan", *RANGE, "--json").document
    assert (document["format"], document["intervals"]["total"]) == ("ecmbatch.backfill_plan/1", 3)
    assert ecmbatch("backfill", "status").out == "there are no backfills yet\n"


def test_made_here_it_is_executed_and_told(visits: Any, ecmbatch: Ecmbatch) -> None:
    done = ecmbatch("backfill", "create", *RANGE, "--here", "--json")
    assert (done.exit_code, done.document["status"]) == (0, "completed")
    assert done.document["format"] == "ecmbatch.backfill/1"
    assert done.document["intervals"] == {
        "total": 3,
        "loaded": 3,
        **dict.fromkeys(("skipped", "failed", "stopped", "running", "queued", "waiting", "pending"), 0),
    }
    assert done.document["ranges"] == [
        {"start": "2026-01-01T00:00:00Z", "end": "2026-01-04T00:00:00Z", "status": "loaded", "intervals": 3}
    ]
    assert loaded(visits) == [0, 1, 2, 3, 4, 5]
    shown = ecmbatch("backfill", "status", backfill_id(done))
    assert "visits  completed" in shown.out and "intervals  3: 3 loaded" in shown.out
    (listed,) = ecmbatch("backfill", "status", "--job", "visits", "--json").document
    assert listed["backfill_id"] == backfill_id(done) and "ranges" not in listed
    assert ecmbatch("backfill", "resume", backfill_id(done)).exit_code == 6


def test_made_for_workers_it_says_who_executes_it(visits: Any, ecmbatch: Ecmbatch) -> None:
    made = ecmbatch("backfill", "create", *RANGE)
    assert made.exit_code == 0
    assert "workers execute it (ecmbatch serve); or execute it here: ecmbatch backfill resume" in made.err
    again = ecmbatch("backfill", "create", *RANGE, "--json")
    assert "going on with backfill" in again.err
    (listed,) = ecmbatch("backfill", "status", "--json").document
    assert listed["backfill_id"] == backfill_id(again)
    assert listed["intervals"]["queued"] == 1
    overlapping = ecmbatch("backfill", "create", "visits", "--from", "2026-01-03", "--to", "2026-01-05")
    assert overlapping.exit_code == 6
    assert f"backfill {backfill_id(again)} of visits has a part of this range" in overlapping.err


def test_it_is_paused_cancelled_and_resumed(visits: Any, ecmbatch: Ecmbatch) -> None:
    made = backfill_id(ecmbatch("backfill", "create", *RANGE, "--json"))
    assert ecmbatch("backfill", "pause", made, "--json").document["status"] == "paused"
    assert ecmbatch("backfill", "cancel", made, "--json").document["status"] == "cancelled"
    assert f"ecmbatch backfill resume {made}" in ecmbatch("backfill", "status", made).out
    resumed = ecmbatch("backfill", "resume", made, "--here")
    assert resumed.exit_code == 0, resumed.err
    assert loaded(visits) == [0, 1, 2, 3, 4, 5]


def test_a_failure_is_told_and_tried_again(visits: Any, ecmbatch: Ecmbatch) -> None:
    with duckdb.connect(visits.path / "warehouse.duckdb") as connection:
        connection.execute("UPDATE visits SET seen_at = seen_at + INTERVAL 1 DAY WHERE id IN (2, 3)")
    failed = ecmbatch("backfill", "create", *RANGE, "--here", "--on-failure", "continue", "--json")
    assert (failed.exit_code, failed.document["status"]) == (1, "failed")
    assert failed.document["intervals"]["failed"] == 1
    ((error,), status) = (
        [each["error"]["code"] for each in failed.document["failures"]],
        [(each["status"], each["intervals"]) for each in failed.document["ranges"]],
    )
    assert error == "validation_failed"
    assert status == [("loaded", 1), ("failed", 1), ("loaded", 1)]
    assert f"backfill retry {backfill_id(failed)}" in ecmbatch("backfill", "status", backfill_id(failed)).out
    with duckdb.connect(visits.path / "warehouse.duckdb") as connection:
        connection.execute("UPDATE visits SET seen_at = seen_at - INTERVAL 1 DAY WHERE id IN (2, 3)")
    retried = ecmbatch("backfill", "retry", backfill_id(failed), "--here", "--json")
    assert (retried.exit_code, retried.document["intervals"]["loaded"]) == (0, 3)
    assert loaded(visits) == [0, 1, 2, 3, 4, 5]
    assert ecmbatch("backfill", "retry", backfill_id(failed)).exit_code == 6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("create", "visits", "--from", "2026-01-01T00:00:00", "--to", "2026-01-04"),
            "--from must be a time with",
        ),
        (("create", "visits", "--from", "2026-01-04", "--to", "2026-01-01"), "must begin before it ends"),
        (("create", *RANGE, "--split", "often"), "--split must be a duration, 'schedule' or 'none'"),
        (("create", *RANGE, "--order", "random"), "--order"),
        (("create", "visit", "--from", "2026-01-01", "--to", "2026-01-04"), "did you mean 'visits'"),
        (
            ("create", "people", "--from", "2026-01-01", "--to", "2026-01-04"),
            "reads the same in every interval",
        ),
        (("status", "x"), "there is no backfill 'x' in this ledger"),
        (("pause", "x"), "there is no backfill 'x' in this ledger"),
    ],
)
def test_what_cannot_be_done_is_told(
    visits: Any, ecmbatch: Ecmbatch, arguments: tuple[str, ...], told: str
) -> None:
    refused = ecmbatch("backfill", *arguments)
    assert refused.exit_code == 2
    assert told in refused.err


@pytest.fixture
def let_go(visits: Any) -> Callable[[], Any]:
    """Let the job's transform wait; what is returned lets it go on."""
    path = visits.path / "gate"
    os.mkfifo(path)
    gate = os.open(path, os.O_RDWR)
    visits.job(**JOB, transform={"processor": "waits", "config": {"gate": str(path)}})
    return lambda: os.write(gate, b"." * 8)


def test_a_signal_pauses_it_at_a_checkpoint(
    visits: Any, let_go: Callable[[], Any], ecmbatch: Ecmbatch
) -> None:
    child = visits.start("backfill", "create", *RANGE, "--here", "--json")
    child.await_line("at work")
    child.signal(signal.SIGTERM)
    child.await_line("stopping at the next checkpoint")
    let_go()
    stopped = child.end()
    assert (stopped.exit_code, stopped.document["status"]) == (143, "paused")
    resumed = ecmbatch("backfill", "resume", backfill_id(stopped), "--here", "--json")
    assert (resumed.exit_code, resumed.document["intervals"]["loaded"]) == (0, 3)


def test_cancelling_from_elsewhere_stops_it(
    visits: Any, let_go: Callable[[], Any], ecmbatch: Ecmbatch
) -> None:
    child = visits.start("backfill", "create", *RANGE, "--here", "--json")
    child.await_line("at work")
    (listed,) = ecmbatch("backfill", "status", "--json").document
    cancelled = ecmbatch("backfill", "cancel", listed["backfill_id"], "--json")
    assert cancelled.document["status"] == "cancelled"
    assert [run["status"] for run in cancelled.document["runs"]] == ["stopping"]
    let_go()
    ended = child.end()
    assert (ended.exit_code, ended.document["status"]) == (5, "cancelled")
