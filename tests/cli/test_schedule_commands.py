"""``schedule``, ``emit``, ``run --wait`` and ``why``: what people see of times, events and waiting."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from ecmbatch import Project
from ecmbatch.engine.resources import Resources
from ecmbatch.engine.scheduling.scheduler import Scheduler
from ecmbatch.engine.scheduling.worker import execute_next
from ecmbatch.engine.stopping import StopSignal

Ecmbatch = Callable[..., Any]
NEEDS_UPSTREAM: dict[str, Any] = {"dependencies": [{"job": "upstream", "status": "success"}]}


def one_pass(project: Any) -> None:
    """What a scheduler does between two looks."""
    with Project.load(project.path) as loaded, Resources(loaded.file) as resources:
        Scheduler(resources).run_pass()


def work(project: Any) -> list[str]:
    """Execute everything that is queued; return how it ended."""
    ended = []
    with Project.load(project.path) as loaded, Resources(loaded.file) as resources:
        while (run := execute_next(resources, workers=1, stop=StopSignal())) is not None:
            ended.append(str(run.status))
    return ended


def test_next_tells_the_times_in_the_zone_and_in_utc(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(schedule={"cron": "30 2 * * *", "timezone": "Europe/Berlin"})
    document = ecmbatch("schedule", "next", "people", "--count", "3", "--json").document
    assert (document["known"], document["paused"], len(document["next"])) == (False, False, 3)
    assert all(tick["local"][11:16] == "02:30" and tick["utc"].endswith("Z") for tick in document["next"])
    assert "Europe/Berlin" in ecmbatch("schedule", "next", "people").out


def test_the_list_tells_what_is_paused_or_not_in_order(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(schedule="0 2 * * *")
    one_pass(project)
    assert "version 1" in ecmbatch("schedule", "list").out
    assert ecmbatch("schedule", "pause", "people", "--reason", "maintenance").exit_code == 0
    assert "paused: maintenance" in ecmbatch("schedule", "list").out
    assert ecmbatch("schedule", "resume", "people").exit_code == 0
    (listed,) = ecmbatch("schedule", "list", "--json").document
    assert (listed["job_id"], listed["paused"], listed["version"]) == ("people", False, 1)


def test_a_job_can_be_paused_before_any_scheduler_has_seen_it(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(schedule={"every": "1 minute"})
    ecmbatch("schedule", "pause", "people")
    one_pass(project)
    assert ecmbatch("schedule", "next", "people", "--json").document["paused"]


def test_versions_are_kept_with_what_changed(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(schedule="0 2 * * *")
    one_pass(project)
    project.job(schedule="0 3 * * *")
    one_pass(project)
    assert [each["version"] for each in ecmbatch("schedule", "versions", "people", "--json").document] == [
        2,
        1,
    ]
    lines = ecmbatch("schedule", "diff", "people", "--json").document["diff"]
    assert [
        line.strip("+- ,") for line in lines if line[0] in "+-" and "cron" in line and line[1] == " "
    ] == [
        '"cron": "0 2 * * *"',
        '"cron": "0 3 * * *"',
    ]
    assert ecmbatch("schedule", "diff", "people", "1", "9").exit_code == 2


def test_an_event_starts_a_job_and_why_says_so(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(schedule={"type": "event", "on": {"event": "files.landed"}})
    one_pass(project)
    emitted = ecmbatch("emit", "files.landed", "--id", "2026-03-02", "--json").document
    again = ecmbatch("emit", "files.landed", "--id", "2026-03-02", "--json").document
    assert (emitted["new"], again["new"], again["sequence"]) == (True, False, emitted["sequence"])
    one_pass(project)
    (run,) = ecmbatch("runs", "--json").document
    assert (run["status"], run["trigger"], run["events"][0]["id"]) == ("queued", "event", "2026-03-02")
    why = ecmbatch("why", run["run_id"]).out
    assert "files.landed" in why and "worker" in why
    assert work(project) == ["success"]
    assert project.rows() == 10


@pytest.mark.parametrize("name", ["", "two words", "-x", "a" * 129, "ü"])
def test_what_cannot_be_the_name_of_an_event_is_refused(ecmbatch: Ecmbatch, project: Any, name: str) -> None:
    assert ecmbatch("emit", "--", name).exit_code == 2


def test_the_events_that_started_a_run_can_be_looked_up(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(
        source={
            "connector": "warehouse",
            "query": "SELECT id, $events AS events FROM people".replace("$", ":"),
        },
        schedule={"type": "event", "on": {"event": "files.landed"}},
        parameters={"events": "${trigger.events}"},
    )
    one_pass(project)
    ecmbatch("emit", "files.landed", "--id", "a")
    one_pass(project)
    assert work(project) == ["success"]
    (run,) = ecmbatch("runs", "--json").document
    assert [each["id"] for each in json.loads(run["parameters"]["events"])] == ["a"]


def test_why_says_what_a_run_waits_for_until_it_is_released(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(job_id="upstream", schedule={"type": "manual"})
    project.job(schedule={"type": "event", "on": {"event": "go"}}, **NEEDS_UPSTREAM)
    one_pass(project)
    ecmbatch("emit", "go")
    one_pass(project)
    (run,) = ecmbatch("runs", "--json").document
    assert run["status"] == "waiting"
    assert "Needs upstream to have succeeded; it has never run" in ecmbatch("why", run["run_id"]).out
    assert ecmbatch("resume", run["run_id"]).exit_code == 6
    assert ecmbatch("run", "upstream").exit_code == 0
    one_pass(project)
    assert work(project) == ["success"]


def test_run_goes_on_with_a_queued_run(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(schedule={"type": "event", "on": {"event": "go"}})
    one_pass(project)
    ecmbatch("emit", "go")
    one_pass(project)
    (queued,) = ecmbatch("runs", "--json").document
    assert ecmbatch("run", "people", "--json").document["run_id"] == queued["run_id"]
    assert work(project) == []


def test_a_queued_run_can_be_stopped_and_abandoned(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(schedule={"type": "event", "on": {"event": "go"}})
    one_pass(project)
    ecmbatch("emit", "go")
    one_pass(project)
    (queued,) = ecmbatch("runs", "--json").document
    assert ecmbatch("stop", queued["run_id"], "--json").document["status"] == "stopped"
    assert ecmbatch("abandon", queued["run_id"], "--json").document["status"] == "abandoned"
    assert work(project) == []


def test_run_waits_only_when_it_is_asked_to(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(job_id="upstream")
    project.job(**NEEDS_UPSTREAM)
    refused = ecmbatch("run", "people", "--json")
    assert (refused.exit_code, refused.document["status"]) == (4, "skipped")
    waiting = project.start("run", "people", "--wait", "--json")
    waiting.await_line("waits: needs upstream to have succeeded")
    assert ecmbatch("run", "upstream").exit_code == 0
    ended = waiting.end()
    assert (ended.exit_code, ended.document["status"]) == (0, "success")


def test_who_waits_can_be_stopped(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(job_id="upstream")
    project.job(**NEEDS_UPSTREAM)
    waiting = project.start("run", "people", "--wait", "--json")
    waiting.await_line("waits: needs upstream")
    waiting.signal(signal.SIGTERM)
    ended = waiting.end()
    assert (ended.exit_code, ended.document["status"]) == (143, "stopped")


def test_patience_can_be_short(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(job_id="upstream")
    project.job(dependency_timeout="1 second", **NEEDS_UPSTREAM)
    ended = ecmbatch("run", "people", "--wait", "--json")
    assert (ended.exit_code, ended.document["status"]) == (4, "skipped")
    assert "did not run" in ended.document["error"]["message"]


def test_who_waits_can_be_stopped_from_elsewhere(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(job_id="upstream")
    project.job(**NEEDS_UPSTREAM)
    waiting = project.start("run", "people", "--wait", "--json")
    waiting.await_line("waits: needs upstream")
    (run,) = ecmbatch("runs", "--json").document
    assert ecmbatch("stop", run["run_id"]).exit_code == 0
    ended = waiting.end()
    assert (ended.exit_code, ended.document["status"]) == (5, "stopped")


def test_a_run_that_a_killed_command_waited_for_is_given_up_at_once(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(job_id="upstream")
    project.job(**NEEDS_UPSTREAM)
    waiting = project.start("run", "people", "--wait")
    waiting.await_line("waits: needs upstream")
    waiting.signal(signal.SIGKILL)
    waiting.end()
    one_pass(project)
    (run,) = ecmbatch("runs", "--json").document
    assert (run["status"], run["error"]["code"]) == ("skipped", "worker_lost")


def test_an_interval_that_was_waited_for_in_vain_can_be_run_later(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(job_id="upstream")
    project.job(dependency_timeout="1 second", **NEEDS_UPSTREAM)
    interval = ("--window-start", "2026-01-01T00:00:00Z", "--window-end", "2026-01-02T00:00:00Z")
    assert ecmbatch("run", "people", "--wait", *interval).exit_code == 4
    assert ecmbatch("run", "people", "--ignore-dependencies", *interval).exit_code == 0


def test_a_job_whose_file_is_broken_is_listed_and_can_be_paused(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(schedule="0 2 * * *")
    one_pass(project)
    (project.path / "jobs" / "people.json").write_text("{oops")
    one_pass(project)
    (listed,) = ecmbatch("schedule", "list", "--json").document
    assert listed["problem"] and len(listed["next"]) == 1
    assert ecmbatch("schedule", "pause", "people").exit_code == 0
    assert ecmbatch("schedule", "next", "people", "--json").document["paused"]
    assert ecmbatch("schedule", "resume", "people").exit_code == 0
