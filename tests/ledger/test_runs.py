"""Runs and attempts in the ledger: who may execute what, and whose writes count."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ecmbatch.errors import Fenced, NotResumable, RunAlreadyActive, RunAlreadyComplete, UsageError
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.place import LedgerPlace
from ecmbatch.ledger.progress import ScanCheckpoint
from ecmbatch.ledger.records import Chunk, Fence, NewRun, RunRecord
from ecmbatch.protocol.checkpoint import PartitionStatus
from ecmbatch.protocol.recovery import Launch, LaunchDecision, decide_launch
from ecmbatch.protocol.run import RunStatus

START = datetime(2026, 1, 1, tzinfo=UTC)
ME = Owner.this_process()
ELSEWHERE = replace(ME, host="other", boot="another boot")
GONE = replace(ME, pid=2**22 - 1, started="1")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(place: LedgerPlace, clock: Clock) -> Iterator[Ledger]:
    ledger = Ledger(place, clock=clock)
    yield ledger
    ledger.close()


def new_run(
    run_id: str = "run-1", *, lane: str = "default", live: bool = True, key: str | None = None
) -> NewRun:
    return NewRun(
        run_id=run_id,
        job_id="job",
        run_key=key or run_id,
        stream="default",
        lane=lane,
        live=live,
        trigger="manual",
        digest="d",
        definition={"source": {}},
        job_file=None,
        options={"params": {}, "window": None, "full_refresh": False},
        scheduled_for=START,
    )


def decide(latest: RunRecord | None) -> LaunchDecision:
    return decide_launch(latest.status if latest else None, same_definition=True, fresh=False)


def start(ledger: Ledger, run_id: str = "run-1", *, owner: Owner = ME) -> tuple[RunRecord, Fence]:
    decision, run, fence = ledger.runs.launch(new_run(run_id), decide, owner)
    assert fence is not None and decision.launch is not Launch.REPLACE
    ledger.runs.freeze(
        fence,
        started_at=START,
        window=(None, START),
        plan={"any": 1},
        digest="d",
        definition={"source": {}},
        partitions_of_scan=[[0, 2], [1, 3]],
        stage={"id": "s", "host": "h", "path": "/p"},
    )
    return run, fence


def checkpoint(ledger: Ledger, fence: Fence, scan: int, *, rows: int, completed: bool) -> RunStatus:
    claim = ledger.progress.claim(fence, scan, from_start=False)
    file = f"s{scan:05d}/{claim.sequence:06d}-t{claim.token}.parquet"
    return ledger.progress.checkpoint(
        fence,
        claim,
        claim.sequence,
        ScanCheckpoint(
            cursor={"key": rows},
            chunk=Chunk(scan=scan, sequence=claim.sequence, file=file, rows=rows, bytes=1, sha256="x"),
            partitions=[
                replace(
                    part,
                    offset=part.offset + rows,
                    staged=part.staged + rows,
                    status=PartitionStatus.COMPLETED if completed else PartitionStatus.IN_PROGRESS,
                )
                for part in claim.partitions
            ],
            completed=completed,
        ),
    )


def test_a_second_launch_is_refused_while_the_first_is_alive(ledger: Ledger) -> None:
    start(ledger)
    with pytest.raises(RunAlreadyActive, match=f"process {ME.pid} on"):
        ledger.runs.launch(new_run("run-2"), decide, ME)
    with pytest.raises(RunAlreadyActive):
        ledger.runs.resume("run-1", ME)


def test_another_lane_of_the_job_is_not_in_the_way(ledger: Ledger) -> None:
    start(ledger)
    _, run, fence = ledger.runs.launch(new_run("run-2", lane="other"), decide, ME)
    assert fence is not None and run.run_id == "run-2"


def test_an_expired_lease_is_taken_over_and_its_holder_fenced(ledger: Ledger, clock: Clock) -> None:
    _, zombie = start(ledger, owner=ELSEWHERE)
    clock.now += timedelta(seconds=59)
    with pytest.raises(RunAlreadyActive):
        ledger.runs.resume("run-1", ME)
    clock.now += timedelta(seconds=1)
    _, fence = ledger.runs.resume("run-1", ME)
    assert (fence.attempt, fence.epoch > zombie.epoch) == (2, True)
    with pytest.raises(Fenced):
        checkpoint(ledger, zombie, 0, rows=10, completed=False)
    with pytest.raises(Fenced):
        ledger.runs.renew(zombie)
    with pytest.raises(Fenced):
        ledger.runs.finish(zombie, RunStatus.SUCCESS)
    checkpoint(ledger, fence, 0, rows=10, completed=False)


def test_a_dead_process_of_this_machine_is_replaced_at_once(ledger: Ledger) -> None:
    start(ledger, owner=GONE)
    decision, run, fence = ledger.runs.launch(new_run("run-2"), decide, ME)
    assert (decision.launch, run.run_id, fence) == (
        Launch.CONTINUE,
        "run-1",
        Fence(run_id="run-1", attempt=2, epoch=3),
    )


def test_a_claim_whose_acknowledgement_was_lost_is_not_in_the_way_of_who_made_it(ledger: Ledger) -> None:
    _, ended = start(ledger)
    _, unheard_of = ledger.runs.resume("run-1", ME, ended=ended)
    run, fence = ledger.runs.resume("run-1", ME, ended=ended)
    assert (run.attempt, fence.attempt, unheard_of.attempt) == (3, 3, 2)
    with pytest.raises(Fenced):
        ledger.runs.renew(unheard_of)


def test_somebody_elses_claim_is_in_the_way_of_who_ended_before(ledger: Ledger, clock: Clock) -> None:
    _, ended = start(ledger)
    clock.now += timedelta(days=1)
    ledger.runs.resume("run-1", ELSEWHERE)
    with pytest.raises(RunAlreadyActive):
        ledger.runs.resume("run-1", ME, ended=ended)


def test_renewing_keeps_a_lease(ledger: Ledger, clock: Clock) -> None:
    _, fence = start(ledger, owner=ELSEWHERE)
    for _ in range(5):
        clock.now += timedelta(seconds=50)
        assert ledger.runs.renew(fence) is RunStatus.IN_PROGRESS
    with pytest.raises(RunAlreadyActive):
        ledger.runs.resume("run-1", ME)


def test_of_many_racing_launchers_exactly_one_wins(place: LedgerPlace) -> None:
    def race(number: int) -> str:
        ledger = Ledger(place)
        try:
            _, run, fence = ledger.runs.launch(new_run(f"run-{number}"), decide, ME)
            assert fence is not None
            return run.run_id
        except RunAlreadyActive:
            return "refused"
        finally:
            ledger.close()

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(race, range(8)))
    assert outcomes.count("refused") == 7


def test_a_claimed_scan_cannot_be_checkpointed_by_an_earlier_claimant(ledger: Ledger) -> None:
    _, fence = start(ledger)
    early = ledger.progress.claim(fence, 0, from_start=False)
    ledger.progress.claim(fence, 0, from_start=False)
    saved = ScanCheckpoint(cursor=None, chunk=None, partitions=early.partitions, completed=True)
    with pytest.raises(Fenced):
        ledger.progress.checkpoint(fence, early, 0, saved)


def test_a_checkpoint_counts_once(ledger: Ledger) -> None:
    _, fence = start(ledger)
    claim = ledger.progress.claim(fence, 0, from_start=False)
    chunk = Chunk(scan=0, sequence=0, file="f", rows=1, bytes=1, sha256="x")
    saved = ScanCheckpoint(cursor=None, chunk=chunk, partitions=claim.partitions, completed=False)
    ledger.progress.checkpoint(fence, claim, 0, saved)
    with pytest.raises(Fenced):
        ledger.progress.checkpoint(fence, claim, 0, saved)


def test_a_new_attempt_counts_what_it_skips_and_resumes(ledger: Ledger, clock: Clock) -> None:
    _, fence = start(ledger, owner=GONE)
    checkpoint(ledger, fence, 0, rows=10, completed=True)
    checkpoint(ledger, fence, 1, rows=10, completed=False)
    ledger.runs.resume("run-1", ME)
    attempt = ledger.runs.attempts("run-1")[-1]
    assert (attempt.skipped, attempt.resumed) == (2, 2)


def test_a_scan_without_order_starts_again_with_nothing(ledger: Ledger) -> None:
    _, fence = start(ledger)
    checkpoint(ledger, fence, 0, rows=10, completed=False)
    claim = ledger.progress.claim(fence, 0, from_start=True)
    assert (claim.sequence, claim.cursor, [part.offset for part in claim.partitions]) == (0, None, [0, 0])
    assert ledger.progress.chunks("run-1") == []


def test_success_moves_the_watermark_and_supersedes_older_unfinished_runs(
    ledger: Ledger, clock: Clock
) -> None:
    _, failed = start(ledger, "run-1")
    ledger.runs.finish(failed, RunStatus.VALIDATION_FAILED, error={"code": "x", "message": "m"})
    clock.now += timedelta(minutes=1)
    _, fence = start(ledger, "run-2")
    assert ledger.watermarks.latest("job", "default") is None
    ledger.runs.finish(fence, RunStatus.SUCCESS)
    mark = ledger.watermarks.latest("job", "default")
    assert mark is not None and (mark.window_end, mark.run_id) == (START, "run-2")
    old = ledger.runs.get("run-1")
    assert old.status is RunStatus.ABANDONED and old.error and "run-2" in old.error["message"]
    with pytest.raises(NotResumable):
        ledger.runs.resume("run-1", ME)


def test_only_success_moves_the_watermark(ledger: Ledger) -> None:
    for number, status in enumerate((RunStatus.FAILED, RunStatus.STOPPED, RunStatus.VALIDATION_FAILED)):
        _, _, fence = ledger.runs.launch(new_run(f"run-{number}", lane=str(number)), decide, ME)
        assert fence is not None
        ledger.runs.finish(fence, status)
        assert ledger.watermarks.latest("job", "default") is None


def test_a_finished_run_is_immutable(ledger: Ledger) -> None:
    _, fence = start(ledger)
    ledger.runs.finish(fence, RunStatus.SUCCESS)
    with pytest.raises(RunAlreadyComplete):
        ledger.runs.resume("run-1", ME)
    with pytest.raises(Fenced):
        checkpoint(ledger, fence, 0, rows=1, completed=False)
    with pytest.raises(NotResumable):
        ledger.runs.settle("run-1", RunStatus.ABANDONED, error=None)
    with pytest.raises(RunAlreadyComplete):
        ledger.runs.request_stop("run-1")


def test_a_stop_reaches_the_worker_with_its_next_checkpoint(ledger: Ledger) -> None:
    _, fence = start(ledger)
    ledger.runs.request_stop("run-1")
    assert checkpoint(ledger, fence, 0, rows=1, completed=False) is RunStatus.STOPPING
    assert ledger.runs.finish(fence, RunStatus.STOPPED).status is RunStatus.STOPPED


def test_stopping_a_run_that_nobody_executes_ends_it_at_once(ledger: Ledger) -> None:
    _, fence = start(ledger, owner=GONE)
    assert ledger.runs.request_stop("run-1").status is RunStatus.STOPPED
    with pytest.raises(Fenced):
        checkpoint(ledger, fence, 0, rows=1, completed=False)


def test_abandoning_fences_a_sleeping_worker(ledger: Ledger, clock: Clock) -> None:
    _, fence = start(ledger, owner=ELSEWHERE)
    with pytest.raises(RunAlreadyActive):
        ledger.runs.settle("run-1", RunStatus.ABANDONED, error=None)
    clock.now += timedelta(minutes=2)
    ledger.runs.settle("run-1", RunStatus.ABANDONED, error={"code": "abandoned", "message": "m"})
    with pytest.raises(Fenced):
        ledger.runs.renew(fence)


def test_an_unknown_run_is_named(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="'nope'"):
        ledger.runs.get("nope")


def test_what_is_remembered_survives_reopening(place: LedgerPlace, clock: Clock) -> None:
    first = Ledger(place, clock=clock)
    start(first)
    first.close()
    second = Ledger(place, clock=clock)
    assert second.runs.get("run-1").window_end == START
    second.close()


def test_a_file_that_is_no_ledger_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(UsageError, match="not a ledger") as raised:
        Ledger(path)
    assert raised.value.hint
