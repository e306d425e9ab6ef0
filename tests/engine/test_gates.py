"""Gates: dependencies judged by what the ledger holds, of runs and of ticks that have none yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, event, insert

from ecmbatch.engine.scheduling.gates import unmet_dependencies, upstreams_of
from ecmbatch.ledger import tables
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.place import LedgerPlace, PostgresPlace
from ecmbatch.protocol.dependencies import Upstream, UpstreamRun, unmet
from ecmbatch.protocol.dependency_declaration import Dependency
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import RunStatus
from ecmbatch.testing.clock import ManualClock

T = datetime(2026, 11, 23, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    place: LedgerPlace = tmp_path / "ledger.db"
    if request.param == "postgres":
        place = PostgresPlace(url=request.getfixturevalue("postgres_url"))
    ledger = Ledger(place, clock=ManualClock(T))
    yield ledger
    ledger.close()


def job(job_id: str = "y", **sections: Any) -> JobDefinition:
    return JobDefinition.from_value(
        {
            "job_id": job_id,
            "source": {"connector": "warehouse", "table": "t"},
            "sink": {"store": "context_store", "mode": "upsert"},
            **sections,
        }
    )


def row(number: int, run: UpstreamRun, job_id: str = "x", **values: Any) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "number": number,
        "job_id": job_id,
        "run_key": run.run_id,
        "stream": "default",
        "lane": run.run_id,
        "live": run.live,
        "trigger": "cron",
        "status": run.status,
        "attempt": 1,
        "epoch": 1,
        "digest": "",
        "definition": {},
        "options": {},
        "scheduled_for": run.scheduled_for,
        "created_at": run.scheduled_for,
        "window_end": run.as_of,
        "job_version": 1,
        "error": {"code": "dependency_not_met"} if run.status is RunStatus.SKIPPED else None,
        **values,
    }


def keep(ledger: Ledger, *rows: dict[str, Any]) -> None:
    with ledger._database.write() as connection:
        connection.execute(delete(tables.runs))
        if rows:
            connection.execute(insert(tables.runs), list(rows))


def run(hours: float, status: RunStatus = RunStatus.SUCCESS, *, live: bool = True) -> UpstreamRun:
    """A run of x, so many hours before or after T."""
    at = T + hours * HOUR
    as_of = at if status is RunStatus.SUCCESS else None
    return UpstreamRun(
        run_id=f"run{hours:+}", number=1, status=status, live=live, scheduled_for=at, as_of=as_of
    )


def register(ledger: Ledger, job: JobDefinition) -> None:
    document = json.loads(job.to_json())
    ledger.jobs.register(
        job.job_id, document, hashlib.sha256(job.to_json().encode()).hexdigest(), None, legs=[]
    )


def reasons(ledger: Ledger, *dependencies: Any, at: datetime = T, backfill: bool = False) -> list[str]:
    return unmet_dependencies(job(dependencies=list(dependencies)), at=at, backfill=backfill, ledger=ledger)


# What the ledger answers is what all runs would


RUNS = st.lists(
    st.builds(
        UpstreamRun,
        run_id=st.just(""),
        number=st.just(0),
        status=st.sampled_from(RunStatus),
        live=st.booleans(),
        scheduled_for=st.integers(-4, 4).map(lambda hours: T + hours * HOUR),
        as_of=st.none() | st.integers(-4, 4).map(lambda hours: T + hours * HOUR),
    ),
    max_size=8,
)
DEPENDENCIES = st.builds(
    Dependency,
    job=st.just("x"),
    window=st.none() | st.integers(1, 4).map(lambda hours: hours * HOUR),
    status=st.sampled_from([None, "success", "failed", "finished"]),
    optional=st.booleans(),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RUNS, DEPENDENCIES, st.booleans())
def test_the_runs_that_decide_say_what_all_runs_say(
    ledger: Ledger, found: list[UpstreamRun], dependency: Dependency, backfill: bool
) -> None:
    runs = _numbered(found)
    keep(ledger, *(row(each.number, each) for each in runs))
    deciding = ledger.upstreams.deciding_runs("x", at=T, backfill=backfill)
    said, expected = (
        unmet(dependency, {"x": Upstream(runs=some)}, at=T, backfill=backfill) for some in (deciding, runs)
    )
    assert said == expected


def _numbered(runs: Sequence[UpstreamRun]) -> list[UpstreamRun]:
    """The same runs as the ledger would keep them: a skipped one never had a window."""
    return [
        UpstreamRun(
            run_id=f"run-{number}",
            number=number,
            status=each.status,
            live=each.live,
            scheduled_for=each.scheduled_for,
            as_of=None if each.status is RunStatus.SKIPPED else each.as_of,
        )
        for number, each in enumerate(runs, start=1)
        if each.status is not RunStatus.SKIPPED or each.live
    ]


def test_only_a_tick_that_waited_in_vain_counts_among_skipped_runs(ledger: Ledger) -> None:
    skipped = run(0, RunStatus.SKIPPED)
    success = row(1, run(-24))
    keep(ledger, success, row(2, skipped))
    assert "was skipped" in reasons(ledger, {"job": "x"})[0]
    keep(ledger, success, row(2, skipped, error={"code": "overlap"}))
    assert reasons(ledger, {"job": "x"}) == []
    keep(ledger, success, row(2, skipped, job_version=None, trigger="manual"))
    assert reasons(ledger, {"job": "x"}) == [], "somebody asked for a run out of turn and was refused"


def test_a_backfill_makes_an_optional_job_one_that_has_run(ledger: Ledger) -> None:
    backfill = run(-2, RunStatus.QUEUED, live=False)
    keep(ledger, row(1, backfill), row(2, run(0, RunStatus.SKIPPED)))
    assert "was skipped" in reasons(ledger, {"job": "x", "optional": True})[0]


def test_runs_of_other_jobs_say_nothing(ledger: Ledger) -> None:
    keep(ledger, row(1, run(-1), job_id="z"))
    assert reasons(ledger, {"job": "x"}) == ["needs x to have succeeded; it has never run"]


def test_the_queries_use_indexes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    statements: list[tuple[str, Any]] = []

    def remember(connection: Connection, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "runs" in statement:
            statements.append((statement, values))

    event.listen(ledger._database._engine, "before_cursor_execute", remember)
    for backfill in (False, True):
        ledger.upstreams.deciding_runs("x", at=T, backfill=backfill)
    event.remove(ledger._database._engine, "before_cursor_execute", remember)
    with ledger._database.read() as connection:
        plans = [
            " ".join(
                line[3] for line in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            )
            for statement, values in statements
        ]
    ledger.close()
    assert plans
    assert not any("SCAN runs" in plan for plan in plans)
    assert "runs_of_a_job (job_id=? AND live=? AND status=?)" in plans[0]


# Ticks that have no run yet


def test_a_tick_that_no_scheduler_has_fired_is_waited_for(ledger: Ledger) -> None:
    ledger._database._clock = ManualClock(T - 3 * HOUR)
    register(ledger, job("x", schedule="0 * * * *"))
    keep(ledger, row(1, run(-3)))
    assert reasons(ledger, {"job": "x"}) == [
        "needs x to have succeeded; no scheduler has made its run of 2026-11-23 02:00 yet"
    ]
    assert reasons(ledger, {"job": "x"}, at=T - HOUR / 2) == [
        "needs x to have succeeded; no scheduler has made its run of 2026-11-23 01:00 yet"
    ]
    assert reasons(ledger, {"job": "x"}, at=T - 2.5 * HOUR) == [], "no tick since the job is known"
    assert reasons(ledger, {"job": "x"}, backfill=True) == []
    keep(ledger, row(1, run(0)))
    assert reasons(ledger, {"job": "x"}) == []


def test_a_job_that_does_not_fire_has_no_ticks_to_wait_for(ledger: Ledger) -> None:
    keep(ledger, row(1, run(-3)))
    ledger._database._clock = ManualClock(T - 3 * HOUR)
    register(ledger, job("x", schedule="0 * * * *"))
    ledger.jobs.pause("x", "for repairs")
    assert reasons(ledger, {"job": "x"}) == []
    assert reasons(ledger, {"job": "x", "window": "1 h"}) == [
        "needs x as of > 2026-11-23 01:00; newest is 2026-11-22 23:00, short by 2 h; it is paused"
    ]
    ledger.jobs.resume("x")
    ledger.jobs.deactivate("x")
    assert reasons(ledger, {"job": "x"}) == []
    register(ledger, job("x", schedule={"type": "manual"}))
    assert reasons(ledger, {"job": "x"}) == []
    register(ledger, job("x"))
    assert reasons(ledger, {"job": "x"}) == []


# Several dependencies


def test_every_unmet_dependency_has_its_sentence_and_groups_have_one(ledger: Ledger) -> None:
    keep(ledger, row(1, run(-1), job_id="a"))
    rule = {"any": [{"job": "b"}, {"job": "c"}]}
    assert reasons(ledger, {"job": "a"}, {"job": "d"}, rule) == [
        "needs d to have succeeded; it has never run",
        "needs one of 2: (1) needs b to have succeeded; it has never run, "
        "or (2) needs c to have succeeded; it has never run",
    ]
    keep(ledger, *(row(number, run(-number), job_id=name) for number, name in enumerate("adc", start=1)))
    assert reasons(ledger, {"job": "a"}, {"job": "d"}, rule) == []


def test_each_other_job_is_looked_at_once(ledger: Ledger) -> None:
    twice = job(dependencies=[{"job": "a"}, {"any": [{"job": "a", "window": "1 h"}, {"job": "b"}]}])
    assert list(upstreams_of(twice, at=T, backfill=False, ledger=ledger)) == ["a", "b"]
