"""Recovery decisions and the states of a run, as pure rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.protocol.checkpoint import PartitionStatus
from ecmbatch.protocol.recovery import Launch, PartitionProgress, decide_launch, remaining_work
from ecmbatch.protocol.run import ACTIVE, CONTINUED_BY_RUN, FINAL, RunStatus, may_follow

progress = st.lists(
    st.builds(
        PartitionProgress,
        partition=st.integers(0, 50),
        scan=st.integers(0, 5),
        status=st.sampled_from(PartitionStatus),
        offset=st.integers(0, 3),
    ),
    unique_by=lambda each: each.partition,
)


@given(progress)
def test_every_partition_is_skipped_resumed_or_started(partitions: list[PartitionProgress]) -> None:
    work = remaining_work(partitions)
    assert sorted(work.skipped + work.resumed + work.fresh) == sorted(each.partition for each in partitions)
    completed = {each.partition for each in partitions if each.status is PartitionStatus.COMPLETED}
    assert set(work.skipped) == completed


@given(progress)
def test_a_scan_is_read_exactly_when_one_of_its_partitions_is_unfinished(
    partitions: list[PartitionProgress],
) -> None:
    unfinished = {each.scan for each in partitions if each.status is not PartitionStatus.COMPLETED}
    assert set(remaining_work(partitions).scans) == unfinished


@pytest.mark.parametrize("status", sorted(FINAL))
def test_nothing_follows_a_final_status(status: RunStatus) -> None:
    assert not any(may_follow(status, following) for following in RunStatus)


@pytest.mark.parametrize("status", sorted(set(RunStatus) - FINAL))
def test_every_other_run_can_be_abandoned(status: RunStatus) -> None:
    assert may_follow(status, RunStatus.ABANDONED)


@pytest.mark.parametrize("status", RunStatus)
def test_run_continues_exactly_crashed_stopped_and_failed_runs(status: RunStatus) -> None:
    decision = decide_launch(status, same_definition=True, fresh=False)
    assert (decision.launch is Launch.CONTINUE) == (status in CONTINUED_BY_RUN)


@pytest.mark.parametrize("status", sorted(CONTINUED_BY_RUN))
def test_a_changed_definition_replaces_an_unfinished_run_and_says_why(status: RunStatus) -> None:
    decision = decide_launch(
        status, same_definition=False, fresh=False, changes=["sink.mode: append → upsert"]
    )
    assert decision.launch is Launch.REPLACE
    assert "sink.mode: append → upsert" in decision.reason


@pytest.mark.parametrize("status", sorted(CONTINUED_BY_RUN))
def test_fresh_replaces_an_unfinished_run(status: RunStatus) -> None:
    assert decide_launch(status, same_definition=True, fresh=True).launch is Launch.REPLACE


def test_a_crash_is_called_by_its_name() -> None:
    for status in ACTIVE:
        assert "crashed" in decide_launch(status, same_definition=True, fresh=False).reason
