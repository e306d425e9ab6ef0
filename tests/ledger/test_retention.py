"""What the ledger forgets of runs that are over, and what it keeps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from ecmbatch.ledger import tables
from ecmbatch.ledger.alerts import NO_RUN, NewAlert
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.place import LedgerPlace
from ecmbatch.protocol.run import FINAL, RunStatus
from ecmbatch.testing.clock import ManualClock

START = ManualClock().now
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(place: LedgerPlace) -> Iterator[Ledger]:
    with closing(Ledger(place, clock=ManualClock(START))) as opened:
        yield opened


def a_run(number: int, **values: Any) -> dict[str, Any]:
    ended = START + number * HOUR
    return {
        "run_id": f"run-{number}",
        "number": number,
        "job_id": "job",
        "run_key": str(number),
        "stream": "default",
        "lane": "default",
        "live": True,
        "trigger": "schedule",
        "status": RunStatus.SUCCESS,
        "attempt": 1,
        "epoch": 1,
        "digest": "d",
        "definition": {},
        "options": {},
        "scheduled_for": ended,
        "created_at": ended,
        "finished_at": ended,
        **values,
    }


def keep(ledger: Ledger, *runs: dict[str, Any]) -> None:
    with ledger._database.write() as connection:
        connection.execute(insert(tables.runs), runs)


def checkpoints(ledger: Ledger, run_id: str, *partitions: int) -> None:
    with ledger._database.write() as connection:
        for sequence, partition in enumerate(partitions):
            connection.execute(
                insert(tables.checkpoints).values(
                    run_id=run_id,
                    partition=partition,
                    sequence=sequence,
                    token=1,
                    offset=sequence,
                    status="completed",
                    at=START,
                    attempt=1,
                    epoch=1,
                )
            )


def tell(ledger: Ledger, run_id: str, *keys: str, delivered: bool = True) -> None:
    for key in keys:
        ledger.alerts.put(
            "job", NewAlert(key=key, outcome="late", recipients=[], message="told"), run_id=run_id
        )
    if delivered:
        with ledger._database.write() as connection:
            connection.execute(update(tables.alerts).values(delivered_at=START))


def keys(ledger: Ledger) -> list[str]:
    return [alert.key for alert in ledger.alerts.all()]


def found(ledger: Ledger) -> Sequence[tuple[str, int]]:
    return [(each.run_id, each.records) for each in ledger.retention.details_before(START + 100 * HOUR)]


def test_as_many_details_are_counted_as_are_forgotten(ledger: Ledger) -> None:
    keep(ledger, a_run(1), a_run(2), a_run(3, status=RunStatus.FAILED), a_run(4))
    checkpoints(ledger, "run-1", 0, 0, 0, 1, 1)
    checkpoints(ledger, "run-2", 0, 1)
    checkpoints(ledger, "run-3", 0, 0)
    tell(ledger, "run-4", "late run-4")
    assert found(ledger) == [("run-1", 3), ("run-4", 1)]
    assert [each.run_id for each in ledger.retention.details_before(START + 2 * HOUR)] == ["run-1"]
    for run_id in ("run-1", "run-2", "run-3", "run-4"):
        ledger.retention.forget(run_id)
    assert found(ledger) == []
    assert len(ledger.progress.checkpoints("run-1", every=True)) == 2
    assert len(ledger.progress.checkpoints("run-3", every=True)) == 2


def test_alerts_of_one_run_alone_go_with_it_once_they_are_delivered(ledger: Ledger) -> None:
    keep(ledger, a_run(1), a_run(2), a_run(3))
    tell(ledger, "run-1", "late run-1", "left run-1", "waited run-1", "default:rule", "run")
    tell(ledger, NO_RUN, "backfill b")
    tell(ledger, "run-2", "late run-2", delivered=False)
    assert found(ledger) == [("run-1", 3)]
    for run_id in ("run-1", "run-2"):
        ledger.retention.forget_run(run_id)
    # The latest of their kind tell whether the next one is news.
    assert keys(ledger) == ["default:rule", "run", "backfill b", "late run-2"]


def test_runs_that_the_next_one_builds_on_stay(ledger: Ledger) -> None:
    chance = random.Random(7)
    runs = [
        a_run(
            number,
            job_id=f"job-{chance.randrange(3)}",
            stream=f"stream-{chance.randrange(2)}",
            live=chance.random() < 0.7,
            status=chance.choice([*sorted(FINAL), RunStatus.FAILED]),
        )
        for number in range(1, 80)
    ]
    keep(ledger, *runs)

    def is_last(run: dict[str, Any], *statuses: RunStatus) -> bool:
        return not any(
            other["live"]
            and other["number"] > run["number"]
            and (other["job_id"], other["stream"]) == (run["job_id"], run["stream"])
            and (not statuses or other["status"] in statuses)
            for other in runs
        )

    before = START + 70 * HOUR
    expected = [
        run["run_id"]
        for run in runs
        if run["status"] in FINAL
        and run["finished_at"] < before
        and not (
            run["live"]
            and (is_last(run) or (run["status"] == RunStatus.SUCCESS and is_last(run, RunStatus.SUCCESS)))
        )
    ]
    assert [each.run_id for each in ledger.retention.runs_before(before)] == expected
    assert 20 < len(expected) < 50
