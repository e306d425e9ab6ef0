"""The commands on a project whose ledger is in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ecmbatch import Project
from ecmbatch.errors import EcmbatchError, InvalidDocument
from ecmbatch.ledger.tables import SCHEMA_VERSION
from ecmbatch.testing.clock import ManualClock
from harness import (
    command,
    customers,
    customers_job,
    expected,
    fill_warehouse,
    make_project,
    stored,
    write_job,
)
from postgres_server import PostgresServer

ROWS = customers(60)
CANARY = "canary%2F5b1c"
SHOWN = "canary/5b1c"


@pytest.fixture
def folder(tmp_path: Path, postgres_url: str) -> Path:
    folder = make_project(tmp_path)
    with (folder / "ecmbatch.toml").open("a") as file:
        file.write(f"[ledger]\nurl = {json.dumps(postgres_url)}\n")
    fill_warehouse(folder, ROWS)
    (folder / "jobs").mkdir()
    write_job(folder, customers_job(), "jobs/customers.json")
    return folder


def findings(project: Project) -> Mapping[str, Any]:
    return {each.check: each for each in project.doctor().findings}


def schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_%'").fetchall()
    return sorted(row[0] for row in rows)


def test_a_job_runs_and_no_file_holds_the_ledger(folder: Path) -> None:
    assert command(folder, "run", "customers").exit_code == 0
    assert stored(folder) == expected(ROWS)
    assert not (folder / ".ecmbatch" / "ledger.db").exists()
    (document,) = command(folder, "runs", "--json").document
    assert document["status"] == "success"


def test_doctor_and_a_dry_run_of_gc_make_nothing(folder: Path, postgres_url: str) -> None:
    before = schemas(postgres_url)
    with Project.load(folder, environment={}) as project:
        ledger = findings(project)["ledger"]
        assert (ledger.status, "not there yet" in ledger.message) == ("ok", True)
        assert project.gc(dry_run=True).removals == []
        assert project.gc().removals == []
    assert schemas(postgres_url) == before


@pytest.mark.slow
def test_doctor_tells_the_server_the_version_and_the_clock(folder: Path) -> None:
    with Project.load(folder, environment={}) as project:
        project.run("customers")
        found = findings(project)
    assert found["ledger"].status == "ok"
    assert (
        "on PostgreSQL 18" in found["ledger"].message
        and f"version {SCHEMA_VERSION}" in found["ledger"].message
    )
    assert "the ledger" in found["clocks"].message


@pytest.mark.slow
def test_gc_forgets_what_is_old(folder: Path) -> None:
    with Project.load(folder, environment={}) as project:
        run_id = project.run("customers").run_id
    clock = ManualClock(datetime.now(UTC) + timedelta(days=91))
    with Project.load(folder, environment={}, clock=clock) as project:
        planned = project.gc(dry_run=True)
        assert not project.history.is_forgotten(run_id)
        removed = project.gc()
        assert project.history.is_forgotten(run_id)
    assert sum(each.records for each in removed.gone) == sum(each.records for each in planned.gone) > 0


@pytest.mark.parametrize("written", ["plain", "environment"])
def test_a_password_is_never_shown(
    written: str, tmp_path: Path, postgres: PostgresServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN CREATE ROLE with_password LOGIN PASSWORD 'right';"
            " EXCEPTION WHEN duplicate_object THEN END $$"
        )
    folder = make_project(tmp_path)
    password = CANARY if written == "plain" else "${env:PW}"
    url = postgres.url(user=f"with_password:{password}", tcp=True)
    with (folder / "ecmbatch.toml").open("a") as file:
        file.write(f"[ledger]\nurl = {json.dumps(url)}\n")
    with Project.load(folder, environment={"PW": CANARY}) as project:
        assert project.file.redact(f"{CANARY} {SHOWN}") == "*** ***"
        with pytest.raises(EcmbatchError) as raised:
            project.history.recent_runs()
        told = json.dumps(project.doctor().document())
    shown = f"{raised.value} {raised.value.hint} {told} {project.file!r} {capfd.readouterr()}"
    assert "authentication failed" in shown
    assert CANARY not in shown.replace(repr(project.file.settings), "") and SHOWN not in shown


def test_a_malformed_url_is_told_without_showing_it(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    with (folder / "ecmbatch.toml").open("a") as file:
        file.write(f'[ledger]\nurl = "postgresql://u:p@{SHOWN}@h/d"\n')
    with pytest.raises(InvalidDocument) as raised:
        Project.load(folder, environment={})
    (problem,) = raised.value.problems
    assert problem.path == "/ledger/url" and "percent-encoded" in str(problem)
    assert SHOWN not in str(raised.value) + str(problem)
