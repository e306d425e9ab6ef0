"""A run goes on only where its staged rows are; who has another stage is told before anything changes."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ecmbatch import Project
from ecmbatch.crash_points import CrashPoint
from ecmbatch.errors import IntegrityError, StageElsewhere, StageError
from ecmbatch.ledger.owner import Owner
from ecmbatch.stage.stage import Stage
from ecmbatch.testing.clock import ManualClock
from ecmbatch.testing.crashes import SimulatedCrash, crash_at
from harness import customers, customers_job, expected, fill_warehouse, make_project, stored, write_job

ROWS = customers(120)
START = datetime(2026, 1, 1, tzinfo=UTC)


def test_of_many_who_ask_at_once_all_get_the_same_identity(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        identities = set(pool.map(lambda _: Stage(tmp_path / "stage").identity(), range(24)))
    assert len(identities) == 1
    assert [path.name for path in (tmp_path / "stage").iterdir()] == [".identity"]
    assert Stage(tmp_path / "stage").run_ids() == []


def test_looking_makes_no_identity(tmp_path: Path) -> None:
    assert Stage(tmp_path / "stage").known_identity() is None
    assert not (tmp_path / "stage").exists()


def test_what_is_no_identity_is_told(tmp_path: Path) -> None:
    (tmp_path / ".identity").write_text("half")
    with pytest.raises(StageError, match="does not hold the identity"):
        Stage(tmp_path).identity()


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A project with a run that died with half of its rows staged; its lease has run out."""
    folder = make_project(tmp_path / "project")
    fill_warehouse(folder, ROWS)
    write_job(folder, customers_job(mode="append", every_rows=20))
    die_at(folder, "checkpoint.after", START, occurrence=3)
    return folder


def die_at(folder: Path, point: CrashPoint, time: datetime, *, occurrence: int = 1) -> None:
    """Let a run die there; its lease has run out by now."""
    with (
        Project.load(folder, environment={}, clock=ManualClock(time)) as project,
        crash_at(point, occurrence=occurrence),
        pytest.raises(SimulatedCrash),
    ):
        project.run(folder / "job.json")


def use_another_stage(folder: Path) -> None:
    with (folder / "ecmbatch.toml").open("a") as file:
        file.write('[stage]\nurl = "another"\n')


def ledger_of(folder: Path) -> str:
    with Project.load(folder, environment={}) as project:
        return json.dumps([view.document() for view in project.history.recent_runs()])


def test_a_run_whose_rows_are_elsewhere_is_refused_and_stays_as_it_is(interrupted: Path) -> None:
    use_another_stage(interrupted)
    before = ledger_of(interrupted)
    run_id = json.loads(before)[0]["run_id"]
    host = Owner.this_process().host
    with Project.load(interrupted, environment={}) as project:
        with pytest.raises(StageElsewhere, match=f"stage on {host}") as raised:
            project.run(interrupted / "job.json")
        assert "--fresh" in (raised.value.hint or "")
        with pytest.raises(StageElsewhere):
            project.resume(run_id)
    assert ledger_of(interrupted) == before
    with Project.load(interrupted, environment={}) as project:
        assert project.run(interrupted / "job.json", fresh=True).status == "success"
    assert stored(interrupted) == expected(ROWS)


def test_the_same_folder_under_another_path_is_the_same_stage(interrupted: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted").symlink_to(interrupted / ".ecmbatch" / "stage")
    with (interrupted / "ecmbatch.toml").open("a") as file:
        file.write(f'[stage]\nurl = "{tmp_path}/mounted"\n')
    with Project.load(interrupted, environment={}) as project:
        result = project.run(interrupted / "job.json")
    assert (result.status, result.rows["read"]) == ("success", ROWS.num_rows)
    assert result.view.run.attempt == 2


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_stage_that_was_deleted_is_told_at_once(made_anew: bool, interrupted: Path) -> None:
    stage = Stage(interrupted / ".ecmbatch" / "stage")
    shutil.rmtree(stage.root)
    if made_anew:
        stage.identity()
    before = ledger_of(interrupted)
    with Project.load(interrupted, environment={}) as project:
        with pytest.raises(
            StageElsewhere, match="deleted or is another one, or this is another host"
        ) as raised:
            project.run(interrupted / "job.json")
        assert "--fresh" in (raised.value.hint or "")
    assert ledger_of(interrupted) == before


def test_files_that_were_deleted_are_told_before_the_rest_is_read(interrupted: Path) -> None:
    (run_id,) = Stage(interrupted / ".ecmbatch" / "stage").run_ids()
    shutil.rmtree(interrupted / ".ecmbatch" / "stage" / run_id)
    with Project.load(interrupted, environment={}) as project:
        assert isinstance(project.run(interrupted / "job.json").error, IntegrityError)


def test_a_run_that_has_nothing_staged_goes_on_in_a_stage_that_was_made_anew(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "project")
    fill_warehouse(folder, ROWS)
    write_job(folder, customers_job(mode="append", every_rows=20))
    die_at(folder, "run.frozen", START)
    shutil.rmtree(folder / ".ecmbatch" / "stage")
    die_at(folder, "checkpoint.after", START + timedelta(days=1))
    with Project.load(folder, environment={}) as project:
        result = project.run(folder / "job.json")
    assert (result.status, result.view.run.attempt) == ("success", 3)
    assert stored(folder) == expected(ROWS)


def test_a_copied_project_goes_on_with_its_copied_stage(interrupted: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(interrupted, tmp_path / "copy"))
    with Project.load(copy, environment={}) as project:
        assert project.run(copy / "job.json").status == "success"
