"""The promises of recovery and publishing on PostgreSQL, and that breaking one of its store's is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import scenarios
from ecmbatch.engine import runner
from ecmbatch.stage import stage
from ecmbatch.stores import postgres_publish, postgres_store
from ecmbatch.stores.store import Marker, PublishedRows
from ecmbatch.testing.clock import ManualClock
from harness import customers_job, write_job
from postgres_project import EVERYTHING, fill_postgres, make_postgres_project, stored_in_postgres
from postgres_server import PostgresServer
from scenarios import ROWS, SCENARIOS, World

HIDE_THEIR_LEDGER = ("woken_after_a_newer_run", "woken_late_replace")
"""These put files of the ledger aside."""


@pytest.fixture
def play(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[str], None]]:
    """What plays a scenario in a world whose databases are PostgreSQL's."""
    urls: dict[Path, str] = {}

    def play(scenario: str) -> None:
        class PostgresWorld(World):
            def __init__(self, folder: Path, **job: Any) -> None:
                kept = EVERYTHING[:2] if scenario in HIDE_THEIR_LEDGER else EVERYTHING
                urls[folder] = make_postgres_project(folder, postgres, of_postgres=kept)
                self.folder = folder
                self.clock = ManualClock(datetime.now(UTC))
                fill_postgres(urls[folder], ROWS)
                write_job(folder, customers_job(partitions=4, **job))

            def stored(self) -> list[tuple[Any, ...]]:
                return stored_in_postgres(urls[self.folder])

        def fill(folder: Path, rows: pa.Table, table: str) -> None:
            fill_postgres(urls[folder], rows, table)

        monkeypatch.setattr(scenarios, "World", PostgresWorld)
        monkeypatch.setattr(scenarios, "fill_warehouse", fill)
        SCENARIOS[scenario](tmp_path)

    yield play


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_promise_holds(scenario: str, play: Callable[[str], None]) -> None:
    play(scenario)


def without_marker_check(patch: pytest.MonkeyPatch) -> None:
    """Publish without asking whether the run was published before."""
    for module in (postgres_publish, postgres_store):
        patch.setattr(module, "find_marker", lambda session, run_id, schema: None)
    patch.setattr(runner._Attempt, "_published_before", lambda attempt, plan: None)
    patch.setattr(runner._Attempt, "_check_head", lambda attempt, plan: None)
    without_head_check(patch)


def without_head_check(patch: pytest.MonkeyPatch) -> None:
    """Publish whatever was published since the run started."""
    patch.setattr(postgres_publish, "_move_head", lambda session, publication, schema: None)


def without_tombstone(patch: pytest.MonkeyPatch) -> None:
    """Abandon in the ledger only."""

    def abandon(store: Any, run_id: str, at: Any) -> Marker:
        return Marker(run_id=run_id, outcome="abandoned", manifest=None, rows=PublishedRows(), at=at)

    patch.setattr(postgres_store.PostgresStore, "abandon", abandon)
    patch.setattr(stage.Stage, "remove", lambda stage, run_id: None)


def without_version_check(patch: pytest.MonkeyPatch) -> None:
    """Publish over a table whatever was published to it since the run has read it."""
    patch.setattr(postgres_publish, "check_version", lambda publication, current: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("break_promise", "scenario"),
    [
        (without_marker_check, "lost_acknowledgement"),
        (without_head_check, "woken_after_a_newer_run"),
        (without_head_check, "woken_late_replace"),
        (without_tombstone, "woken_after_abandon"),
        (without_version_check, "woken_after_its_own_table_moved_on"),
    ],
)
def test_a_broken_promise_is_noticed(
    break_promise: Callable[[pytest.MonkeyPatch], None],
    scenario: str,
    play: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_promise(monkeypatch)
    with pytest.raises(AssertionError):
        play(scenario)
