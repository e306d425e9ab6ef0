"""``doctor`` finds what is wrong, goes on when something is, and leaves everything as it was."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ecmbatch import Project
from ecmbatch.crash_points import CrashPoint
from ecmbatch.testing.clock import ManualClock
from harness import command, start, was_killed

Ecmbatch = Callable[..., Any]

CHECKS = [
    "versions", "project", "disk", "processors", "jobs", "connectors", "stores", "clocks", "ledger", "stages",
]  # fmt: skip
FAILING = {"rules": [{"type": "row_count", "min": 11}], "on_failure": "abort"}


def found(result: Any, check: str) -> list[Mapping[str, Any]]:
    """What a check found, other than that all is well."""
    return [
        finding
        for finding in result.document["findings"]
        if finding["check"] == check and finding["status"] != "ok"
    ]


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and when it was written; not the index that SQLite keeps in shared memory."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }


def killed(project: Any, point: CrashPoint) -> None:
    assert was_killed(command(project.path, "run", "people", crash=point))


def test_a_project_that_is_well_passes_every_check(project: Any, ecmbatch: Ecmbatch) -> None:
    ecmbatch("run", "people")
    result = ecmbatch("doctor", "--json")
    assert (result.exit_code, result.document["format"]) == (0, "ecmbatch.doctor/1")
    assert result.document["healthy"] is True
    assert {finding["check"] for finding in result.document["findings"]} == set(CHECKS)
    assert {finding["status"] for finding in result.document["findings"]} == {"ok"}
    told = ecmbatch("doctor").out
    assert "✓  jobs        1 job is valid" in told
    assert told.endswith("everything is well\n")


def test_a_ledger_that_is_not_there_yet_is_fine_and_is_not_made(project: Any, ecmbatch: Ecmbatch) -> None:
    before = files(project.path)
    result = ecmbatch("doctor", "--json")
    assert (result.exit_code, result.document["healthy"]) == (0, True)
    assert "is not there yet" in json.dumps(result.document)
    assert files(project.path) == before


def test_nothing_is_changed_after_a_run(project: Any, ecmbatch: Ecmbatch) -> None:
    ecmbatch("run", "people")
    before = files(project.path)
    assert ecmbatch("doctor").exit_code == 0
    assert files(project.path) == before


@pytest.mark.parametrize("point", ["checkpoint.after", "publish.before_commit"])
def test_nothing_is_changed_after_a_kill_and_the_way_on_is_told(
    project: Any, ecmbatch: Ecmbatch, point: CrashPoint
) -> None:
    killed(project, point)
    before = files(project.path)
    result = ecmbatch("doctor", "--json")
    assert files(project.path) == before
    assert result.exit_code == 0
    (lease,) = found(result, "leases")
    assert "nobody executes it" in lease["message"]
    assert ecmbatch(*lease["hint"].split()[1:]).exit_code == 0
    assert found(ecmbatch("doctor", "--json"), "leases") == []


def test_every_check_is_made_though_others_fail(project: Any, ecmbatch: Ecmbatch) -> None:
    ecmbatch("run", "people")
    (project.path / "warehouse.duckdb").unlink()
    (project.path / "context.duckdb").write_bytes(b"not a database")
    (project.path / "processors.py").write_text("raise RuntimeError('at import')")
    (project.path / ".ecmbatch" / "ledger.db").write_bytes(b"not a ledger" * 1000)
    (project.path / "jobs" / "broken.json").write_text("{")
    before = files(project.path)
    result = ecmbatch("doctor", "--json")
    assert files(project.path) == before
    assert result.document["healthy"] is False
    assert {finding["check"] for finding in result.document["findings"]} >= set(CHECKS) - {"stages"}
    for check in ("processors", "jobs", "connectors", "stores", "ledger"):
        assert [finding["status"] for finding in found(result, check)] == ["problem"], check
    assert "are not checked: the ledger cannot be read" in found(result, "runs")[0]["message"]


def test_what_has_to_be_corrected_exits_2_also_where_something_cannot_be_reached(
    project: Any, ecmbatch: Ecmbatch
) -> None:
    (project.path / "warehouse.duckdb").unlink()
    result = ecmbatch("doctor", "--json")
    assert result.exit_code == 7
    assert "warehouse: there is no DuckDB file" in found(result, "connectors")[0]["message"]
    project.job(sink={"store": "contxt_store", "mode": "upsert", "key": ["id"]})
    result = ecmbatch("doctor", "--json")
    assert result.exit_code == 2
    assert "did you mean 'context_store'?" in found(result, "jobs")[0]["message"]
    assert "✗" in ecmbatch("doctor").out
    assert ecmbatch("doctor").out.endswith("2 problems\n")


def test_a_store_that_is_held_by_another_process_cannot_be_reached(project: Any, ecmbatch: Ecmbatch) -> None:
    text = (project.path / "ecmbatch.toml").read_text()
    store = '[stores.context_store]\ntype = "duckdb"\npath = "context.duckdb"\nbusy_timeout = "1 ms"\n'
    (project.path / "ecmbatch.toml").write_text(text + store)
    with duckdb.connect(project.path / "context.duckdb"):
        result = start(project.path, "doctor", "--json").wait()
    assert result.exit_code == 7
    assert "is open in process" in found(result, "stores")[0]["message"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[ledgr]\n", "/ledgr"),
        ("[ledger", "is not TOML"),
        ('[connectors.x]\ntype = "duckdb"\npath = "${env:NOT_SET}"\n', "/connectors/x/path"),
    ],
)
def test_a_project_file_that_is_wrong_is_a_finding(
    project: Any, ecmbatch: Ecmbatch, text: str, told: str
) -> None:
    (project.path / "ecmbatch.toml").write_text(text)
    result = ecmbatch("doctor", "--json")
    assert (result.exit_code, result.document["healthy"]) == (2, False)
    assert told in found(result, "project")[0]["message"]
    assert {finding["check"] for finding in result.document["findings"]} == {"project", "versions"}


def test_no_project_at_all_is_a_finding(tmp_path: Path, ecmbatch: Ecmbatch) -> None:
    result = ecmbatch("doctor", "--json", "--project", str(tmp_path))
    assert result.exit_code == 2
    assert "cannot be read" in found(result, "project")[0]["message"]


def test_settings_that_a_type_refuses_are_told_with_their_place(project: Any, ecmbatch: Ecmbatch) -> None:
    with (project.path / "ecmbatch.toml").open("a") as file:
        file.write('[connectors.other]\ntype = "duckdb"\nfile = "x"\n[stores.lake]\ntype = "iceberg"\n')
    result = ecmbatch("doctor", "--json")
    assert result.exit_code == 2
    assert "/connectors/other/path" in found(result, "connectors")[0]["message"]
    assert "lake: there is no store named 'iceberg'" in found(result, "stores")[0]["message"]


def test_secrets_are_never_printed(project: Any, ecmbatch: Ecmbatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE", "hunter2.duckdb")
    text = (project.path / "ecmbatch.toml").read_text()
    (project.path / "ecmbatch.toml").write_text(text.replace("warehouse.duckdb", "${env:WAREHOUSE}"))
    for result in (ecmbatch("doctor"), ecmbatch("doctor", "--json", "--log-level", "debug")):
        assert "***" in result.out
        assert "hunter2" not in result.out + result.err
    with Project.load(project.path) as loaded:
        assert "hunter2" not in repr(loaded.doctor())


def test_a_package_that_is_too_old_is_a_warning(
    project: Any, ecmbatch: Ecmbatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("duckdb", "pyarrow"):
        information = tmp_path / "old" / f"{name}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "old"), *sys.path])
    result = ecmbatch("doctor", "--json")
    assert result.exit_code == 0
    assert [finding["message"].split(";")[0] for finding in found(result, "versions")] == [
        "duckdb 1.0",
        "pyarrow 1.0",
    ]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write")
def test_a_stage_that_cannot_be_written_is_a_problem(
    project: Any, ecmbatch: Ecmbatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECMBATCH_STAGE__URL", "/proc/stage")
    result = ecmbatch("doctor", "--json")
    assert result.exit_code == 7
    assert "stage: /proc/stage cannot be written" in found(result, "disk")[0]["message"]


def test_a_ledger_of_another_version_is_told_and_stays_as_it_is(project: Any, ecmbatch: Ecmbatch) -> None:
    ecmbatch("run", "people")
    for version, exit_code, told in (("0000", 0, "the next run brings it to"), ("9999", 7, "9999")):
        with sqlite3.connect(project.path / ".ecmbatch" / "ledger.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", [version])
        connection.close()
        before = files(project.path)
        result = ecmbatch("doctor", "--json")
        assert result.exit_code == exit_code
        assert told in found(result, "ledger")[0]["message"]
        assert files(project.path) == before


def test_a_damaged_ledger_is_told(project: Any, ecmbatch: Ecmbatch) -> None:
    ecmbatch("run", "people")
    ledger = project.path / ".ecmbatch" / "ledger.db"
    content = bytearray(ledger.read_bytes())
    content[-4096 * 3 :] = b"\xff" * 4096 * 3
    ledger.write_bytes(content)
    result = ecmbatch("doctor", "--json")
    assert result.exit_code in (2, 7)
    assert found(result, "ledger")[0]["status"] == "problem"


def test_stages_that_nobody_needs_are_told(project: Any, ecmbatch: Ecmbatch) -> None:
    killed(project, "finish.after")
    assert "1 stages" in found(ecmbatch("doctor", "--json"), "stages")[0]["message"]
    assert ecmbatch("gc").exit_code == 0
    assert found(ecmbatch("doctor", "--json"), "stages") == []

    killed(project, "checkpoint.after")
    assert found(ecmbatch("doctor", "--json"), "stages") == []
    for path in (project.path / ".ecmbatch").glob("ledger.db*"):
        path.unlink()
    (unknown,) = found(ecmbatch("doctor", "--json"), "stages")
    assert "does not know" in unknown["message"]
    assert "--orphans" in unknown["hint"]


def test_alerts_that_nobody_was_told_are_counted(project: Any, ecmbatch: Ecmbatch) -> None:
    with (project.path / "ecmbatch.toml").open("a") as file:
        file.write('[alerts.ops]\ntype = "log"\n')
    project.job(alerts=["ops"], validation={**FAILING, "on_failure": "abort_and_alert"})
    killed(project, "alert.delivered")
    assert "1 alerts" in found(ecmbatch("doctor", "--json"), "alerts")[0]["message"]
    ecmbatch("run", "people")
    assert found(ecmbatch("doctor", "--json"), "alerts") == []


def test_a_lost_ledger_is_told_until_somebody_says_from_where_to_go_on(
    project: Any, ecmbatch: Ecmbatch
) -> None:
    ecmbatch("run", "people")
    for path in (project.path / ".ecmbatch").glob("ledger.db*"):
        path.unlink()
    (head,) = found(ecmbatch("doctor", "--json"), "heads")
    assert "context_store.people was last loaded by run" in head["message"]
    ecmbatch("watermark", "reset", "people")
    assert found(ecmbatch("doctor", "--json"), "heads") == []


def test_two_files_with_one_job_id_are_told(project: Any, ecmbatch: Ecmbatch) -> None:
    job = (project.path / "jobs" / "people.json").read_text()
    (project.path / "jobs" / "copy.json").write_text(job)
    assert (
        "2 files under jobs/ have the job_id 'people'"
        in found(ecmbatch("doctor", "--json"), "jobs")[0]["message"]
    )


def test_a_run_that_nobody_finishes_is_told_after_a_week(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(validation=FAILING)
    ecmbatch("run", "people")
    now = datetime.now(UTC)
    told = {}
    for days in (6, 8):
        with Project.load(project.path, clock=ManualClock(now + timedelta(days=days))) as loaded:
            told[days] = [each for each in loaded.doctor().findings if each.check == "runs"]
    assert told[6] == []
    (finding,) = told[8]
    assert "is validation_failed for 8 d" in finding.message


@pytest.mark.parametrize(("hours", "told"), [(1, "3,600 s ahead of"), (-1, "3,600 s behind")])
def test_clocks_that_disagree_are_told(project: Any, ecmbatch: Ecmbatch, hours: int, told: str) -> None:
    ecmbatch("run", "people")
    with Project.load(project.path, clock=ManualClock(datetime.now(UTC) + timedelta(hours=hours))) as loaded:
        clocks = [each for each in loaded.doctor().findings if each.check == "clocks" and each.status != "ok"]
    assert told in clocks[0].message.replace("3,599", "3,600")
    assert [("from the future" in each.message) for each in clocks[1:]] == ([True] if hours < 0 else [])
