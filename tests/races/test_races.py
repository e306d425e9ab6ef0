"""Many processes start, or resume, one run at the same moment: one wins, and the others are told by whom."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness import (
    Finished,
    command,
    customers,
    customers_job,
    expected,
    fill_warehouse,
    make_project,
    run_documents,
    start,
    stored,
    was_killed,
    write_job,
)

ROWS = customers(400)
RACERS = 24


@pytest.fixture(params=["sqlite", "postgres"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project whose job appends, so that a run too many would show."""
    folder = make_project(tmp_path)
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        with (folder / "ecmbatch.toml").open("a") as file:
            file.write(f'[ledger]\nurl = "{url}"\n')
    fill_warehouse(folder, ROWS)
    write_job(folder, customers_job(mode="append", partitions=4))
    return folder


def race(folder: Path, *arguments: str) -> list[Finished]:
    racers = [start(folder, *arguments, "--json") for _ in range(RACERS)]
    return [racer.wait() for racer in racers]


def check_one_winner(outcomes: list[Finished], folder: Path) -> None:
    codes = Counter(finished.exit_code for finished in outcomes)
    assert codes == {0: 1, 6: RACERS - 1}, [each.err for each in outcomes if each.exit_code not in (0, 6)]
    refused = Counter(each.document["error"]["code"] for each in outcomes if each.exit_code == 6)
    assert set(refused) <= {"run_already_active", "run_already_complete"}
    assert stored(folder) == expected(ROWS)
    (document,) = run_documents(folder)
    assert (document["status"], document["rows"]["read"]) == ("success", ROWS.num_rows)


@pytest.mark.slow
def test_of_many_who_resume_a_run_exactly_one_does(project: Path) -> None:
    assert was_killed(command(project, "run", "job.json", crash="checkpoint.after", occurrence=3))
    run_id = run_documents(project)[0]["run_id"]
    check_one_winner(race(project, "resume", run_id), project)


@pytest.mark.slow
def test_of_many_who_load_an_interval_exactly_one_does(project: Path) -> None:
    """An interval is loaded once, so that a racer who comes after the winner's end starts nothing either."""
    interval = ("--window-start", "2025-01-01T00:00:00Z", "--window-end", "2025-01-02T00:00:00Z")
    check_one_winner(race(project, "run", "job.json", *interval), project)
