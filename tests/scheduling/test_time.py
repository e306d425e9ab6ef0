"""Days pass in seconds: downtime, overlaps, daylight saving time, clocks that are set back, edits and pauses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import update

from ecmbatch.engine.job_files import read_job
from ecmbatch.engine.launching import LaunchOptions, launch
from ecmbatch.engine.scheduling.scheduler import Scheduler
from ecmbatch.engine.scheduling.worker import execute_next
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.ledger import tables
from ecmbatch.protocol.run import RunStatus
from simulation import Simulation, Work

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURLY: dict[str, Any] = {"type": "cron", "cron": "0 * * * *"}


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def check_that_every_tick_has_one_run(folder: Path, *, hours: int) -> None:
    simulation = Simulation(folder, MONDAY, {"job": {"schedule": HOURLY}}, schedulers=3)
    simulation.run_until(MONDAY + hours * HOUR + timedelta(minutes=1))
    ticks = [MONDAY + n * HOUR for n in range(1, hours + 1)]
    assert simulation.ticks("job", status=RunStatus.SUCCESS) == ticks


@pytest.mark.slow
def test_every_tick_has_one_run(tmp_path: Path) -> None:
    check_that_every_tick_has_one_run(tmp_path, hours=24)


def test_several_schedules_are_one(tmp_path: Path) -> None:
    schedule = ["0 2 * * *", {"every": "12 hours"}, {"cron": "0 12 * * *", "timezone": "UTC"}]
    simulation = Simulation(tmp_path, MONDAY, {"job": {"schedule": schedule}})
    simulation.run_until(MONDAY + timedelta(days=1))
    assert simulation.ticks("job") == [at(2, 2), at(2, 12), at(3)]


@pytest.mark.parametrize(
    ("catch_up", "made_up"),
    [
        ("merge", [at(5, 10)]),
        ("latest", [at(5, 10)]),
        pytest.param("all", [at(2, 11) + n * HOUR for n in range(72)], marks=pytest.mark.slow),
        ("none", []),
    ],
)
def test_three_days_of_downtime(tmp_path: Path, catch_up: str, made_up: list[datetime]) -> None:
    schedule = HOURLY | {"catch_up": catch_up}
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": schedule}})
    simulation.run_until(at(2, 10, 30))
    simulation.sleep_until(at(5, 10, 30))
    simulation.run_until(at(5, 12, 30))
    assert simulation.ticks("job") == [at(2, 10), *made_up, at(5, 11), at(5, 12)]
    assert all(run.status is RunStatus.SUCCESS for run in simulation.runs())


def test_a_merged_run_knows_what_it_stands_for_and_covers_everything(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    simulation.run_until(at(2, 10, 30))
    simulation.sleep_until(at(5, 10, 30))
    simulation.run_until(at(5, 10, 45))
    run = simulation.runs()[-1]
    assert run.options["ticks"] == {"first": "2026-03-02T11:00:00Z", "last": "2026-03-05T10:00:00Z"}
    assert (run.window_start, run.window_end) == (at(2, 10), at(5, 10, 30))


@pytest.mark.parametrize("catch_up", ["merge", "latest", "all", "none"])
def test_a_tick_is_not_missed_for_being_noticed_late(tmp_path: Path, catch_up: str) -> None:
    schedule = HOURLY | {"catch_up": catch_up}
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": schedule}})
    simulation.sleep_until(at(2, 10) + timedelta(seconds=59))
    simulation.run_until(at(2, 10, 5))
    assert simulation.ticks("job", status=RunStatus.SUCCESS) == [at(2, 10)]


SLOW = Work(takes=timedelta(minutes=150))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        # 01:00 runs until 03:30; 02:00 waits and stands for 03:00 too; it runs until 06:00.
        ("queue_one", {1: "success", 2: "success", 4: "success", 7: "success"}),
        ("skip", {1: "success", 2: "skipped", 3: "skipped", 4: "success", 5: "skipped", 6: "skipped"}),
        ("queue_all", dict.fromkeys(range(1, 7), "success")),
        ("replace", {1: "abandoned", 2: "abandoned", 3: "abandoned", 4: "abandoned"}),
        ("allow", dict.fromkeys(range(1, 7), "success")),
    ],
)
def test_ticks_while_the_job_still_runs(tmp_path: Path, overlap: str, expected: dict[int, str]) -> None:
    schedule = HOURLY | {"overlap": overlap}
    simulation = Simulation(
        tmp_path,
        at(2, 0, 30),
        {"job": {"schedule": schedule}},
        work=lambda _job, tick: SLOW if tick < at(2, 7) else Work(takes=timedelta(minutes=10)),
    )
    simulation.run_until(at(2, 23, 30))
    found = {run.scheduled_for.hour: str(run.status) for run in simulation.runs()}
    assert {hour: found.get(hour) for hour in expected} == expected
    assert not [run for run in simulation.runs() if run.finished_at is None]


def test_runs_side_by_side_overlap_in_time(tmp_path: Path) -> None:
    simulation = Simulation(
        tmp_path, at(2, 0, 30), {"job": {"schedule": HOURLY | {"overlap": "allow"}}}, work=lambda *_: SLOW
    )
    simulation.run_until(at(2, 3, 10))
    assert [run.status for run in simulation.runs()] == [RunStatus.IN_PROGRESS] * 3


def test_a_stopped_run_makes_room_for_the_one_that_replaces_it(tmp_path: Path) -> None:
    simulation = Simulation(
        tmp_path, at(2, 0, 30), {"job": {"schedule": HOURLY | {"overlap": "replace"}}}, work=lambda *_: SLOW
    )
    simulation.run_until(at(2, 3, 10))
    assert [run.status for run in simulation.runs()] == [
        RunStatus.STOPPED,
        RunStatus.STOPPED,
        RunStatus.IN_PROGRESS,
    ]


@pytest.mark.parametrize(
    ("zone", "day", "expected_utc_hours"),
    [
        # Clocks go forward at 02:00 in Berlin: 02:30 is made up for at 03:00, which is 01:00 UTC.
        ("Europe/Berlin", datetime(2026, 3, 29), "01:00"),
        ("Europe/Berlin", datetime(2026, 10, 25), "00:30"),
        ("America/New_York", datetime(2026, 3, 8), "07:00"),
        ("UTC", datetime(2026, 3, 29), "02:30"),
    ],
)
def test_a_daily_job_runs_once_a_day_when_clocks_change(
    tmp_path: Path, zone: str, day: datetime, expected_utc_hours: str
) -> None:
    start = day.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(days=1)
    schedule = {"cron": "30 2 * * *", "timezone": zone}
    simulation = Simulation(tmp_path, start, {"job": {"schedule": schedule}})
    simulation.run_until(start + timedelta(days=3))
    ticks = simulation.ticks("job", status=RunStatus.SUCCESS)
    assert [tick.astimezone(ZoneInfo(zone)).date().toordinal() - day.toordinal() for tick in ticks] == [
        -1,
        0,
        1,
    ]
    assert f"{ticks[1]:%H:%M}" == expected_utc_hours


def test_nothing_fires_twice_and_no_watermark_moves_back_when_the_clock_is_set_back(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}}, schedulers=2)
    simulation.run_until(at(2, 12, 30))
    before = simulation.ledger.watermarks.latest("job", "default")
    simulation.sleep_until(at(2, 11, 30))
    simulation.run_until(at(2, 13, 30))
    after = simulation.ledger.watermarks.latest("job", "default")
    assert simulation.ticks("job") == [at(2, 10), at(2, 11), at(2, 12), at(2, 13)]
    assert before and after and before.window_end and after.window_end
    assert after.window_end > before.window_end


def test_a_failed_run_makes_the_next_window_longer(tmp_path: Path) -> None:
    failing = Work(ends=RunStatus.FAILED)
    simulation = Simulation(
        tmp_path,
        at(2, 9, 30),
        {"job": {"schedule": HOURLY, "alerts": []}},
        work=lambda _job, tick: failing if tick == at(2, 11) else Work(),
    )
    simulation.run_until(at(2, 12, 30))
    first, failed, last = simulation.runs()
    assert failed.status is RunStatus.ABANDONED, "the run that succeeded after it has superseded it"
    assert (last.window_start, last.status) == (first.window_end, RunStatus.SUCCESS)


def test_the_past_does_not_fire_for_a_new_job(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {})
    simulation.run_until(at(2, 12, 30))
    simulation.write("job", {"schedule": HOURLY})
    simulation.tick()
    simulation.run_until(at(2, 13, 30))
    assert simulation.ticks("job") == [at(2, 13)]


def test_the_past_does_not_fire_for_another_schedule(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    simulation.write("job", {"schedule": {"every": "1 minute"}})
    simulation.clock.now = at(2, 9, 45) + timedelta(seconds=30)
    simulation.tick()
    assert simulation.ticks("job") == []
    simulation.run_until(at(2, 9, 46))
    assert simulation.ticks("job") == [at(2, 9, 46)]


def test_another_description_does_not_lose_a_tick(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    simulation.write("job", {"schedule": HOURLY, "description": "better"})
    simulation.sleep_until(at(2, 10, 1))
    assert simulation.ticks("job") == [at(2, 10)]
    assert [each.version for each in simulation.ledger.jobs.versions("job")] == [2, 1]


def test_a_paused_job_does_not_fire_and_does_not_make_up_for_it(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    simulation.ledger.jobs.pause("job", "maintenance")
    simulation.run_until(at(2, 12, 30))
    simulation.ledger.jobs.resume("job")
    simulation.tick()
    assert simulation.ticks("job") == []
    simulation.run_until(at(2, 13, 30))
    assert simulation.ticks("job") == [at(2, 13)]


def test_a_broken_file_keeps_the_last_good_version_and_is_told_once(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    path = tmp_path / "jobs" / "job.json"
    good = path.read_text()
    path.write_text('{"job_id": "job", "sink')
    simulation.run_until(at(2, 11, 30))
    assert simulation.ticks("job") == [at(2, 10), at(2, 11)]
    state = simulation.ledger.jobs.find("job")
    assert state and state.problem and "job.json" in state.problem["file"]
    (alert,) = simulation.ledger.alerts.all()
    assert alert.outcome == "broken" and "version 1 stays in force" in alert.message
    path.write_text(good)
    simulation.run_until(at(2, 12, 30))
    assert simulation.ledger.jobs.find("job") == state.__class__(
        **{**{name: getattr(state, name) for name in state.__slots__}, "problem": None, "cursor": at(2, 12)}
    )
    assert [each.outcome for each in simulation.ledger.alerts.all()] == ["broken", "pass"]


def test_a_job_without_a_file_fires_no_more_and_begins_anew_when_it_is_back(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    path = tmp_path / "jobs" / "job.json"
    content = path.read_text()
    path.unlink()
    simulation.run_until(at(2, 11, 30))
    path.write_text(content)
    simulation.tick()
    simulation.run_until(at(2, 12, 30))
    assert simulation.ticks("job") == [at(2, 12)]


def test_of_two_files_with_one_job_the_first_counts(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    twin = tmp_path / "jobs" / "twin.json"
    twin.write_text((tmp_path / "jobs" / "job.json").read_text().replace("0 * * * *", "30 * * * *"))
    simulation.run_until(at(2, 10, 45))
    assert simulation.ticks("job") == [at(2, 10)]
    assert [alert.outcome for alert in simulation.ledger.alerts.all()] == ["broken"]


def test_a_run_that_does_not_start_is_late_once(tmp_path: Path) -> None:
    jobs = {"job": {"schedule": HOURLY | {"overlap": "queue_all", "late_after": "20 minutes"}}}
    simulation = Simulation(tmp_path, at(2, 9, 30), jobs, work=lambda *_: Work(takes=timedelta(minutes=95)))
    for minute in range(0, 200, 5):
        simulation.run_until(at(2, 9, 30) + timedelta(minutes=minute))
    late = [alert for alert in simulation.ledger.alerts.all() if alert.outcome == "late"]
    assert [alert.run_id for alert in late] == [simulation.runs()[1].run_id, simulation.runs()[2].run_id]
    assert "2026-03-02T11:00:00Z has not started" in late[0].message


def test_a_minutely_job_makes_up_for_a_long_time_in_bounded_steps(tmp_path: Path) -> None:
    schedule = {"every": "1 minute", "catch_up": "all"}
    simulation = Simulation(
        tmp_path, at(2), {"job": {"schedule": schedule}}, work=lambda *_: Work(takes=timedelta(days=1))
    )
    simulation.sleep_until(at(2, 20))
    simulation.run_until(at(2, 20) + timedelta(seconds=1))
    simulation.tick()
    simulation.tick()
    assert simulation.ticks("job") == [at(2) + timedelta(minutes=n) for n in range(1, 1201)]


def test_a_job_with_another_id_in_its_file_is_another_job(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    path = tmp_path / "jobs" / "job.json"
    path.write_text(path.read_text().replace('"job_id": "job"', '"job_id": "renamed"'))
    simulation.tick()
    simulation.run_until(at(2, 10, 30))
    assert (simulation.ticks("job"), simulation.ticks("renamed")) == ([], [at(2, 10)])


def test_another_policy_does_not_lose_a_tick_that_is_due(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    simulation.write("job", {"schedule": HOURLY | {"late_after": "1 hour"}})
    simulation.sleep_until(at(2, 10, 1))
    assert simulation.ticks("job") == [at(2, 10)]


def test_a_scheduler_with_older_files_does_not_retire_a_job_for_good(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    simulation.ledger.jobs.deactivate("job")  # as a scheduler does that has no such file
    simulation.tick()
    simulation.tick()
    simulation.run_until(at(2, 10, 30))
    assert simulation.ticks("job") == [at(2, 10)]


def test_a_run_of_a_schedule_that_cannot_be_planned_has_failed(tmp_path: Path) -> None:
    job = {"schedule": HOURLY, "source": {"connector": "files", "path": "${param.missing}.csv"}}
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": job})
    simulation.sleep_until(at(2, 9, 59))
    simulation.clock.now = at(2, 10)
    Scheduler(simulation.resources).run_pass()
    run = execute_next(simulation.resources, workers=1, stop=StopSignal())
    assert run is not None and run.status is RunStatus.FAILED
    assert [alert.outcome for alert in simulation.ledger.alerts.all()] == ["failed"]


def test_a_dead_command_holds_nobody_up(tmp_path: Path) -> None:
    schedule = HOURLY | {"overlap": "skip"}
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": schedule}})
    job = read_job("job", tmp_path, tmp_path)
    launch(job.job, job.path, LaunchOptions(), simulation.resources)  # and nobody executes it
    simulation.run_until(at(2, 11, 30))
    assert [str(run.status) for run in simulation.runs("job")] == ["abandoned", "success", "success"]


def test_a_job_that_cannot_be_read_any_more_does_not_keep_the_others(tmp_path: Path) -> None:
    needs = {"schedule": "0 * * * *", "dependencies": [{"job": "up", "status": "success"}]}
    simulation = Simulation(
        tmp_path, at(2, 9, 30), {"a": needs, "b": needs, "up": {"schedule": {"type": "manual"}}}
    )
    simulation.run_until(at(2, 10, 5))
    with simulation.ledger._database.write() as connection:
        connection.execute(
            update(tables.job_versions)
            .where(tables.job_versions.c.job_id == "a")
            .values(document={"no": "job"})
        )
    simulation.replace_schedulers()
    simulation.run_by_hand("up")
    simulation.tick()
    simulation.run_until(at(2, 10, 30))
    assert [str(run.status) for run in simulation.runs("b")] == ["success"]


def test_many_queued_runs_of_one_job_do_not_hide_those_of_another(tmp_path: Path) -> None:
    every_minute = {"schedule": {"every": "1 minute", "catch_up": "all"}}
    simulation = Simulation(
        tmp_path, at(2), {"many": every_minute, "other": {"schedule": "0 20 * * *"}}, work=lambda *_: SLOW
    )
    simulation.sleep_until(at(2, 20))
    for _ in range(3):
        simulation.tick()
    assert [str(run.status) for run in simulation.runs("other")] == ["in_progress"]


def test_a_run_that_nobody_began_keeps_its_turn_when_a_command_succeeds_first(tmp_path: Path) -> None:
    simulation = Simulation(
        tmp_path,
        at(2, 9, 30),
        {
            "job": {"schedule": HOURLY, "dependencies": [{"job": "up"}]},
            "up": {"schedule": {"type": "manual"}},
        },
    )
    simulation.run_until(at(2, 10, 5))
    simulation.run_by_hand("job")
    simulation.run_by_hand("up")
    simulation.tick()
    simulation.run_until(at(2, 10, 30))
    assert [str(run.status) for run in simulation.runs("job")] == ["success", "success"]


def test_runs_side_by_side_do_not_move_the_watermark(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 0, 30), {"job": {"schedule": HOURLY | {"overlap": "allow"}}})
    simulation.run_until(at(2, 4, 30))
    assert simulation.ledger.watermarks.history("job", "default") == []


def test_the_outcome_of_scheduled_runs_is_told_when_it_changes(tmp_path: Path) -> None:
    failing = {at(2, 10), at(2, 11), at(2, 13)}
    simulation = Simulation(
        tmp_path,
        at(2, 9, 30),
        {"job": {"schedule": HOURLY}},
        work=lambda _, tick: Work(ends=RunStatus.FAILED if tick in failing else RunStatus.SUCCESS),
    )
    simulation.run_until(at(2, 14, 30))
    assert [alert.outcome for alert in simulation.ledger.alerts.all()] == ["failed", "pass", "failed", "pass"]


def refusals(simulation: Simulation) -> list[str]:
    return [alert.job_id for alert in simulation.ledger.alerts.all() if alert.outcome == "broken"]


def test_a_file_that_takes_another_jobs_id_leaves_both_jobs_as_they_are(tmp_path: Path) -> None:
    jobs = {"aa": {"schedule": HOURLY}, "zz": {"schedule": HOURLY}}
    simulation = Simulation(tmp_path, at(2, 9, 30), jobs)
    first, other = tmp_path / "jobs" / "aa.json", tmp_path / "jobs" / "zz.json"
    content = first.read_text()
    first.write_text(other.read_text().replace("0 * * * *", "30 * * * *"))
    simulation.run_until(at(2, 10, 45))
    assert (simulation.ticks("aa"), simulation.ticks("zz")) == ([at(2, 10)], [at(2, 10)])
    assert refusals(simulation) == ["aa"]
    first.write_text(content)
    simulation.run_until(at(2, 11, 45))
    assert [state.problem for state in simulation.ledger.jobs.all()] == [None, None]
    assert [each.version for each in simulation.ledger.jobs.versions("zz")] == [1]


def test_the_second_file_of_a_job_is_taken_when_the_first_is_gone(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(2, 9, 30), {"job": {"schedule": HOURLY}})
    path, other = tmp_path / "jobs" / "job.json", tmp_path / "jobs" / "another.json"
    other.write_text(path.read_text())
    simulation.tick()
    assert refusals(simulation) == ["job"]
    path.unlink()
    simulation.run_until(at(2, 10, 30))
    assert simulation.ticks("job") == [at(2, 10)]
    other.write_text("garbage")
    simulation.run_until(at(2, 11, 30))
    assert simulation.ticks("job") == [at(2, 10), at(2, 11)]


def test_a_job_whose_upstream_has_lost_its_file_is_told_of_and_heals(tmp_path: Path) -> None:
    jobs = {"a": {"schedule": HOURLY}, "b": {"dependencies": [{"job": "a"}]}}
    simulation = Simulation(tmp_path, at(2, 9, 30), jobs)
    path = tmp_path / "jobs" / "a.json"
    content = path.read_text()
    path.unlink()
    simulation.tick()
    state = simulation.ledger.jobs.find("b")
    assert state and state.active and state.problem and "no job 'a'" in state.problem["message"]
    path.write_text(content)
    simulation.tick()
    state = simulation.ledger.jobs.find("b")
    assert state and state.active and state.problem is None
