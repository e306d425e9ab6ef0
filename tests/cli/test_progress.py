from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ecmbatch.cli.progress import Pace, bars, duration, line
from ecmbatch.cli.screen import print_text
from ecmbatch.engine.history import RunView
from ecmbatch.project import Project
from ecmbatch.protocol.checkpoint import PartitionStatus


@pytest.fixture
def view(project: Any) -> RunView:
    """A run of four partitions: one complete with 100 rows, one partial with 50, two untouched."""
    project.job(partitioning={"strategy": "hash", "key": "id", "partitions": 4})
    with Project.load(project.path) as loaded:
        view = loaded.run("people").view
    states = [
        (PartitionStatus.COMPLETED, 100),
        (PartitionStatus.IN_PROGRESS, 50),
        (PartitionStatus.PENDING, 0),
        (PartitionStatus.PENDING, 0),
    ]
    partitions = [
        replace(each, status=status, offset=offset)
        for each, (status, offset) in zip(view.partitions, states, strict=True)
    ]
    return replace(view, partitions=partitions, verdict=None)


def test_complete_partitions_tell_how_much_is_left(view: RunView) -> None:
    pace = Pace(view=view, rows_before=50, seconds=10)
    assert pace.rows_per_second == 10
    assert pace.fraction == 150 / 400
    assert pace.seconds_left == 25
    assert line(pace) == "people: 1 of 4 partitions complete; 150 rows read, 10 rows/s, about 25 s left"


def test_without_a_complete_partition_nobody_knows_how_much_is_left(view: RunView) -> None:
    pace = Pace(view=replace(view, partitions=view.partitions[1:]), rows_before=0, seconds=10)
    assert (pace.fraction, pace.seconds_left) == (None, None)
    assert line(pace).endswith("50 rows read, 5 rows/s")


def test_when_all_is_read_the_phase_is_told(view: RunView) -> None:
    pace = Pace(view=replace(view, partitions=view.partitions[:1]), rows_before=0, seconds=10)
    assert line(pace) == "people: checking what was read; 100 rows read"


def test_bars_have_one_mark_for_each_partition(view: RunView, capsys: pytest.CaptureFixture[str]) -> None:
    print_text(bars(Pace(view=view, rows_before=0, seconds=10)))
    assert "■▪··" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (12.4, "12 s"), (185, "3 min 5 s"), (7_800, "2 h 10 min")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
