"""``gc`` removes what no run needs, nothing else, and can be killed anywhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ecmbatch import Project, RunResult
from ecmbatch.crash_points import CrashPoint, set_hook
from ecmbatch.testing.clock import ManualClock
from harness import command, start, was_killed

pytestmark = pytest.mark.slow

Ecmbatch = Callable[..., Any]

FAILING = {"rules": [{"type": "row_count", "min": 11}], "on_failure": "abort"}


@pytest.fixture
def at_once(project: Any) -> None:
    """Let everything go that may ever go."""
    with (project.path / "ecmbatch.toml").open("a") as file:
        file.write('[retention]\nstages = "0 s"\nhistory = "0 s"\n')


def staged(project: Any) -> list[str]:
    """The runs that have a folder in the stage."""
    folder = project.path / ".ecmbatch" / "stage"
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []


def killed(project: Any, point: CrashPoint) -> str:
    """Kill a run at *point* and return its id."""
    assert was_killed(command(project.path, "run", "people", crash=point))
    with Project.load(project.path) as loaded:
        return loaded.history.recent_runs(limit=1)[0].run.run_id


def failed(project: Any, ecmbatch: Ecmbatch) -> str:
    """Let a validation fail and return the run's id; its rows stay staged."""
    project.job(validation=FAILING)
    document = ecmbatch("run", "people", "--json").document
    project.job()
    assert document["status"] == "validation_failed"
    return str(document["run_id"])


def removals(result: Any, what: str = "stage") -> list[tuple[str, str]]:
    return [
        (removal["run_id"], removal["outcome"])
        for removal in result.document["removals"]
        if removal["what"] == what
    ]


def lose_the_ledger(project: Any) -> None:
    for path in (project.path / ".ecmbatch").glob("ledger.db*"):
        path.unlink()


# -- stages -----------------------------------------------------------------------------------------


def test_where_nothing_ran_there_is_nothing_to_remove_and_no_ledger_is_made(
    project: Any, ecmbatch: Ecmbatch
) -> None:
    assert ecmbatch("gc").out == "there is nothing to remove\n"
    assert ecmbatch("gc", "--json").document == {
        "format": "ecmbatch.gc/1",
        "dry_run": False,
        "runs": 0,
        "files": 0,
        "bytes": 0,
        "records": 0,
        "removals": [],
    }
    assert not (project.path / ".ecmbatch").exists()


@pytest.mark.parametrize("days", [29, 30])
def test_the_stage_of_a_run_that_could_be_resumed_is_kept_as_long_as_the_project_says(
    project: Any, ecmbatch: Ecmbatch, days: int
) -> None:
    run_id = failed(project, ecmbatch)
    clock = ManualClock(datetime.now(UTC) + timedelta(days=days))
    with Project.load(project.path, clock=clock) as loaded:
        collection = loaded.gc()
        status = loaded.history.run(run_id).run.status
    if days < 30:
        assert (collection.removals, staged(project), status) == ([], [run_id], "validation_failed")
    else:
        assert [removal.outcome for removal in collection.removals] == ["removed"]
        assert (staged(project), status) == ([], "abandoned")


def test_a_run_that_was_given_up_says_why_and_can_never_be_published(
    project: Any, ecmbatch: Ecmbatch, at_once: None
) -> None:
    run_id = failed(project, ecmbatch)
    assert removals(ecmbatch("gc", "--json")) == [(run_id, "removed")]
    resumed = ecmbatch("resume", run_id, "--json")
    assert (resumed.exit_code, resumed.document["error"]["code"]) == (6, "not_resumable")
    assert "given up by gc: nothing happened since" in ecmbatch("why", run_id).out
    assert ecmbatch("show", run_id, "--json").document["rows"]["staged"] == 10
    with Project.load(project.path) as loaded:
        marker = loaded._resources.store("context_store").marker(run_id)
    assert marker is not None and marker.outcome == "abandoned"
    assert ecmbatch("run", "people").exit_code == 0
    assert project.rows() == 10


def test_a_stage_of_a_run_that_is_over_goes_at_once(project: Any, ecmbatch: Ecmbatch) -> None:
    run_id = killed(project, "finish.after")
    told = ecmbatch("gc").out
    assert run_id in told and "the run is over" in told and "1 files" in told
    assert staged(project) == []
    assert ecmbatch("show", run_id, "--json").document["status"] == "success"


def test_a_run_that_the_store_says_was_published_becomes_a_success(
    project: Any, ecmbatch: Ecmbatch, at_once: None
) -> None:
    run_id = killed(project, "publish.after_commit")
    later = ManualClock(datetime.now(UTC) + timedelta(minutes=2))
    with Project.load(project.path, clock=later) as loaded:
        assert [(each.run_id, each.outcome) for each in loaded.gc().removals] == [(run_id, "removed")]
    document = ecmbatch("show", run_id, "--json").document
    assert (document["status"], document["rows"]["inserted"]) == ("success", 10)
    assert (staged(project), project.rows()) == ([], 10)
    (mark,) = ecmbatch("watermark", "show", "people", "--json").document
    assert mark["run_id"] == run_id


def test_a_dry_run_tells_the_same_and_changes_nothing(
    project: Any, ecmbatch: Ecmbatch, at_once: None
) -> None:
    run_id = failed(project, ecmbatch)
    ecmbatch("run", "people", "--fresh")
    before = {path: path.read_bytes() for path in project.path.rglob("*") if path.is_file()}
    planned = ecmbatch("gc", "--dry-run", "--json").document
    assert "would be removed" in ecmbatch("gc", "--dry-run").out
    assert {path: path.read_bytes() for path in project.path.rglob("*") if path.is_file()} == before
    done = ecmbatch("gc", "--json").document
    assert (planned.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert json.dumps(planned).replace('"planned"', '"removed"') == json.dumps(done)
    assert done["records"] > 0
    assert ecmbatch("gc", "--json").document["removals"] == []
    assert ecmbatch("show", run_id).exit_code == 0


def test_stages_that_the_ledger_does_not_know_go_only_on_request(
    project: Any, ecmbatch: Ecmbatch, at_once: None
) -> None:
    run_id = failed(project, ecmbatch)
    stage = project.path / ".ecmbatch" / "stage"
    (stage / "something else").mkdir()
    (stage / run_id.replace(run_id[:4], "ffff")).mkdir()
    (stage / run_id.replace(run_id[:4], "ffff") / "mine.txt").write_text("not a run's")
    lose_the_ledger(project)
    kept = ecmbatch("gc", "--json")
    assert removals(kept) == [(run_id, "kept")]
    assert (kept.document["files"], run_id in staged(project)) == (0, True)
    assert removals(ecmbatch("gc", "--orphans", "--dry-run", "--json")) == [(run_id, "planned")]
    assert removals(ecmbatch("gc", "--orphans", "--json")) == [(run_id, "removed")]
    assert staged(project) == ["ffff" + run_id[4:], "something else"]
    assert not (project.path / ".ecmbatch" / "ledger.db").exists()


def test_what_cannot_be_given_up_is_kept_and_keeps_nothing_else(
    project: Any, ecmbatch: Ecmbatch, at_once: None
) -> None:
    settings = (project.path / "ecmbatch.toml").read_text()
    lake = '[stores.lake]\ntype = "duckdb"\npath = "lake.duckdb"\n'
    (project.path / "ecmbatch.toml").write_text(settings + lake)
    project.job(job_id="other", validation=FAILING, sink={"store": "lake", "mode": "append"})
    stuck = ecmbatch("run", "other", "--json").document["run_id"]
    gone = failed(project, ecmbatch)
    (project.path / "ecmbatch.toml").write_text(settings)
    result = ecmbatch("gc", "--json")
    assert result.exit_code == 2
    assert removals(result) == sorted([(stuck, "failed"), (gone, "removed")])
    assert staged(project) == [stuck]
    assert "declare [stores.lake] again" in ecmbatch("gc").err
    (project.path / "ecmbatch.toml").write_text(settings + lake)
    assert removals(ecmbatch("gc", "--json")) == [(stuck, "removed")]


def test_months_are_no_duration(project: Any, ecmbatch: Ecmbatch) -> None:
    with (project.path / "ecmbatch.toml").open("a") as file:
        file.write('[retention]\nstages = "1 month"\n')
    error = ecmbatch("gc", "--json").document["error"]
    assert (error["code"], error["problems"][0]["path"]) == ("invalid_document", "/retention/stages")


# -- runs under way ---------------------------------------------------------------------------------


class Worker:
    """A run in a thread that sleeps at a crash point until it is woken."""

    def __init__(self, folder: Path, point: CrashPoint, clock: ManualClock) -> None:
        self.result: RunResult | None = None
        self._asleep, self._awake = threading.Event(), threading.Event()
        set_hook(lambda passed: self._sleep() if passed == point else None)
        self._thread = threading.Thread(target=self._work, args=(folder, clock))
        self._thread.start()
        assert self._asleep.wait(60)

    def wake(self) -> RunResult:
        self._awake.set()
        self._thread.join()
        assert self.result is not None
        return self.result

    def _sleep(self) -> None:
        self._asleep.set()
        self._awake.wait()

    def _work(self, folder: Path, clock: ManualClock) -> None:
        try:
            with Project.load(folder, clock=clock) as project:
                self.result = project.run("people")
        finally:
            set_hook(None)


@pytest.mark.parametrize("point", ["stage.sealed", "checkpoint.after", "publish.before"])
def test_the_stage_of_a_run_under_way_is_never_touched(
    project: Any, ecmbatch: Ecmbatch, at_once: None, point: CrashPoint
) -> None:
    worker = Worker(project.path, point, ManualClock(datetime.now(UTC)))
    (run_id,) = staged(project)
    assert ecmbatch("gc", "--orphans", "--json").document["removals"] == []
    assert staged(project) == [run_id]
    assert worker.wake().status == "success"
    assert project.rows() == 10


def test_a_worker_that_slept_past_its_lease_publishes_nothing_of_a_run_that_was_given_up(
    project: Any, ecmbatch: Ecmbatch, at_once: None
) -> None:
    worker = Worker(project.path, "publish.before", ManualClock(datetime.now(UTC) - timedelta(hours=1)))
    (run_id,) = staged(project)
    assert removals(ecmbatch("gc", "--json")) == [(run_id, "removed")]
    assert worker.wake().status == "abandoned"
    assert project.rows() == 0


# -- history ----------------------------------------------------------------------------------------


def test_history_is_kept_as_long_as_the_project_says(project: Any, ecmbatch: Ecmbatch) -> None:
    ecmbatch("run", "people")
    for days, outcomes in ((89, []), (91, ["removed"]), (92, [])):
        with Project.load(
            project.path, clock=ManualClock(datetime.now(UTC) + timedelta(days=days))
        ) as loaded:
            assert [each.outcome for each in loaded.gc().removals] == outcomes


def test_runs_whose_history_is_gone_still_answer(project: Any, ecmbatch: Ecmbatch, at_once: None) -> None:
    project.job(
        checkpoint={"every_rows": 3}, source={"connector": "warehouse", "table": "people", "order_by": "id"}
    )
    run_id = ecmbatch("run", "people", "--json").document["run_id"]
    before = ecmbatch("show", run_id, "--json").document
    latest = ecmbatch("checkpoints", run_id, "--json").document
    every = ecmbatch("checkpoints", run_id, "--all", "--json")
    assert (len(every.document) > len(latest), every.err) == (True, "")
    assert removals(ecmbatch("gc", "--json"), "history") == [(run_id, "removed")]

    assert ecmbatch("show", run_id, "--json").document == before
    assert ecmbatch("why", run_id).exit_code == 0
    kept = ecmbatch("checkpoints", run_id, "--all", "--json")
    assert [each["checkpoint"] for each in kept.document] == [each["checkpoint"] for each in latest]
    assert [each["x-ecmbatch"]["cursor"] for each in kept.document] == [None]
    assert "gc has removed all checkpoints but the latest" in kept.err
    assert ecmbatch("resume", run_id, "--json").document["error"]["code"] == "run_already_complete"
    assert ecmbatch("abandon", run_id).exit_code == 6


def test_what_later_runs_build_on_is_never_removed(project: Any, ecmbatch: Ecmbatch, at_once: None) -> None:
    query = "SELECT * FROM people WHERE id >= :least AND :since IS NOT NULL"
    project.job(
        source={"connector": "warehouse", "query": query},
        parameters={"least": "${previous_job.rows | default(0)}", "since": "${previous_job.end_time}"},
    )
    project.job(job_id="later", dependencies=[{"job": "people"}])
    interval = ("--window-start", "2026-01-01T00:00:00Z", "--window-end", "2026-01-02T00:00:00Z")
    first = ecmbatch("run", "people", "--json").document
    ecmbatch("run", "people", *interval)
    before = plan(ecmbatch)
    assert len(removals(ecmbatch("gc", "--json"), "history")) == 2
    assert plan(ecmbatch) == before
    assert before["window"]["start"] == first["window"]["end"]
    assert before["parameters"]["since"] == first["window"]["end"]
    assert (before["parameters"]["least"], first["rows"]["inserted"]) == (10, 10)
    assert ecmbatch("run", "people", *interval, "--json").document["error"]["code"] == "run_already_complete"
    assert ecmbatch("run", "later").exit_code == 0


def plan(ecmbatch: Ecmbatch) -> Mapping[str, Any]:
    document: dict[str, Any] = ecmbatch("plan", "people", "--json").document
    document["window"].pop("end")
    return document


def test_what_was_told_is_not_told_again(project: Any, ecmbatch: Ecmbatch, at_once: None) -> None:
    with (project.path / "ecmbatch.toml").open("a") as file:
        file.write('[alerts.ops]\ntype = "log"\n')
    for least, told in ((11, True), (11, False), (1, True), (1, False), (11, True)):
        rule = {"id": "rows", "type": "row_count", "min": least}
        project.job(alerts=["ops"], validation={"rules": [rule], "on_failure": "abort_and_alert"})
        assert ("alert [ops]: " in ecmbatch("run", "people", "--fresh").err) == told
        assert ecmbatch("gc").exit_code == 0
    with Project.load(project.path) as loaded:
        assert len(loaded.alerts()) == 1


# -- several at once, and killed --------------------------------------------------------------------


def many(project: Any, ecmbatch: Ecmbatch) -> None:
    """A finished run, a stage of one, and a run to give up."""
    ecmbatch("run", "people")
    killed(project, "finish.after")
    failed(project, ecmbatch)


def all_is_tidy(project: Any, ecmbatch: Ecmbatch) -> None:
    # What was given up has only just ended, so its history goes the next time.
    assert ecmbatch("gc").exit_code == 0
    assert ecmbatch("gc", "--json").document["removals"] == []
    assert staged(project) == []
    statuses = [run["status"] for run in ecmbatch("runs", "--json").document]
    assert statuses == ["abandoned", "success", "success"]
    assert ecmbatch("run", "people").exit_code == 0


def test_several_at_once_do_the_same_once(project: Any, ecmbatch: Ecmbatch, at_once: None) -> None:
    many(project, ecmbatch)
    children = [start(project.path, "gc", "--json") for _ in range(2)]
    assert [child.wait().exit_code for child in children] == [0, 0]
    all_is_tidy(project, ecmbatch)


@pytest.mark.parametrize(
    ("point", "occurrence"),
    [
        ("abandon.tombstone", 1),
        ("gc.abandoned", 1),
        ("gc.stage", 1),
        ("gc.stage", 2),
        ("gc.history", 1),
        ("gc.history", 2),
    ],
)
def test_one_that_is_killed_is_finished_by_the_next(
    project: Any, ecmbatch: Ecmbatch, at_once: None, point: CrashPoint, occurrence: int
) -> None:
    many(project, ecmbatch)
    assert was_killed(command(project.path, "gc", crash=point, occurrence=occurrence))
    assert ecmbatch("gc").exit_code == 0
    all_is_tidy(project, ecmbatch)
